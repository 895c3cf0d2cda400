//! Plays steps. Each one chooses among the users, rooms and devices that exist, sends requests, and records their effect in the
//! model.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tests::person::segment;

use crate::steps::{Kind, Step, chosen};
use crate::world::{Caller, Check, Due, KeyChange, ToDevice, World, broken};

impl World {
    pub(crate) async fn play(&mut self, step: Step) -> Check {
        if !self.server.is_running() || self.server.faults.is_dead() {
            self.check_fatal()?;
            self.revive().await?;
        }
        match step.kind {
            Kind::Message => self.message(step).await?,
            Kind::ToDevice => self.send_to_device(step).await?,
            Kind::Burst => self.burst(step).await?,
            Kind::UploadKeys => self.upload_keys(step).await?,
            Kind::Claim => self.claim(step).await?,
            Kind::QueryKeys => self.query_keys(step).await?,
            Kind::CrossSign => self.cross_sign(step).await?,
            Kind::SignUser => self.sign_user(step).await?,
            Kind::LogIn => self.log_in(step).await?,
            Kind::RenameDevice => self.rename_device(step).await?,
            Kind::DeleteDevice => self.delete_device(step).await?,
            Kind::CreateRoom => self.create_room(step).await?,
            Kind::Invite | Kind::Kick | Kind::Ban => self.membership_of_another(step).await?,
            Kind::Forget if step.c % 4 != 0 => self.leave_and_forget(step).await?,
            Kind::Join | Kind::Leave | Kind::Knock | Kind::Forget => {
                self.own_membership(step).await?
            }
            Kind::ForgedJoin => self.forged_join(step).await?,
            Kind::State => self.state(step).await?,
            Kind::Redact => self.redact(step).await?,
            Kind::Typing => self.set_typing(step).await?,
            Kind::Receipt => self.receipt(step).await?,
            Kind::Presence | Kind::AccountData | Kind::Profile => self.about_oneself(step).await?,
            Kind::Deactivate => self.deactivate(step).await?,
            Kind::Ghost => self.ghost(step).await?,
            Kind::GhostDevice => self.ghost_device(step).await?,
            Kind::DeleteGhostDevice => self.delete_ghost_device(step).await?,
            Kind::Registration => self.change_registration(step).await?,
            Kind::BreakFile | Kind::RenameFile | Kind::RemoveFile | Kind::ReturnFile => {
                self.change_file(step).await?
            }
            Kind::Restart => self.restart(step).await?,
            Kind::Bridge => self.bridge(step),
            Kind::Ping => self.ping(step).await?,
            Kind::Advance => self.advance(step).await?,
            Kind::StepWall => self.step_wall(step),
            Kind::Storage => self.storage(step),
            Kind::Sync => self.sync(step).await?,
            Kind::Read => self.read(step).await?,
            Kind::Damage => self.damage().await?,
            Kind::ReloadOften => self.reload_often().await?,
            Kind::Strangers => self.strangers(step).await?,
            Kind::LongName => self.long_name(step).await?,
            Kind::Seam => self.seam(step),
            Kind::Crowd => self.crowd(step).await?,
            Kind::ToMany => self.send_to_many(step).await?,
            Kind::Alias => self.alias(step).await?,
            Kind::Provision => self.provision(step).await?,
            Kind::Backup => self.backup(step).await?,
        }
        self.absorb().await
    }

    /// All callers: devices of users, and appservices as their ghosts, with and without a device.
    pub(crate) fn callers(&self) -> Vec<Caller> {
        let mut all: Vec<Caller> = Vec::new();
        for device in self.devices.iter().filter(|d| d.alive) {
            let service = device
                .made_by
                .filter(|s| self.services[*s].in_force.is_some());
            if service.is_none() && device.made_by.is_some() {
                continue;
            }
            all.push(Caller {
                user: device.user.clone(),
                device: Some(device.id.clone()),
                service,
                token: service.map_or_else(
                    || device.token.clone(),
                    |s| self.services[s].as_token.clone(),
                ),
            });
        }
        for (user, account) in &self.accounts {
            if let Some(s) = account.filter(|s| {
                self.services[*s]
                    .in_force
                    .as_ref()
                    .is_some_and(|r| r.claims(user).is_some())
            }) {
                all.push(self.as_user(s, user, None));
            }
        }
        all
    }

    pub(crate) fn as_user(&self, service: usize, user: &str, device: Option<&str>) -> Caller {
        Caller {
            user: user.to_owned(),
            device: device.map(str::to_owned),
            service: Some(service),
            token: self.services[service].as_token.clone(),
        }
    }

    pub(crate) fn as_bot(&self, service: usize) -> Caller {
        self.as_user(
            service,
            &self.services[service].registration.sender.clone(),
            None,
        )
    }

    pub(crate) fn caller(&self, selector: u8) -> Caller {
        let all = self.callers();
        all[usize::from(selector) % all.len()].clone()
    }

    /// A caller that is joined to the room, or any caller if none is.
    pub(crate) fn member(&self, room: &str, selector: u8) -> Caller {
        let end = self.history.events.len();
        let mut all = self.callers();
        let inside: Vec<Caller> = all
            .iter()
            .filter(|c| self.history.is_joined(end, room, &c.user))
            .cloned()
            .collect();
        if !inside.is_empty() {
            all = inside;
        }
        all[usize::from(selector) % all.len()].clone()
    }

    pub(crate) fn device_caller(&self, selector: u8) -> Caller {
        let all: Vec<Caller> = self
            .callers()
            .into_iter()
            .filter(|c| c.device.is_some())
            .collect();
        all[usize::from(selector) % all.len()].clone()
    }

    pub(crate) fn user(&self, selector: u8) -> String {
        let all: Vec<&String> = self.accounts.keys().collect();
        all[usize::from(selector) % all.len()].clone()
    }

    pub(crate) fn room(&self, selector: u8) -> String {
        let rooms = self.history.rooms();
        chosen(&rooms, selector).map_or_else(|| "!none:test".to_owned(), |r| (*r).to_owned())
    }

    async fn message(&mut self, step: Step) -> Check {
        let room = self.room(step.b);
        let caller = self.member(&room, step.a);
        let kind = ["m.room.message", "m.room.encrypted"][usize::from(step.c % 2)];
        let n = self.number();
        self.say(format!("{} sends {kind} {n} to {room}", name(&caller)));
        let path = format!("/rooms/{}/send/{kind}/t{n}", segment(&room));
        let body = json!({"msgtype": "m.text", "body": n.to_string(), "n": n});
        let answer = self.ask(&caller, "PUT", &path, Some(&body)).await?;
        self.expect_event(&answer.body);
        Ok(())
    }

    /// Record that the event of this answer must be in the database.
    pub(crate) fn expect_event(&mut self, answer: &Value) {
        if let Some(id) = answer["event_id"].as_str() {
            self.answered.push(id.to_owned());
        }
    }

    async fn send_to_device(&mut self, step: Step) -> Check {
        let caller = self.caller(step.a);
        let (user, n) = (self.user(step.b), self.number());
        let (device, to) = self.recipients(&user, step.c);
        self.say(format!(
            "{} sends to-device message {n} to {user} {device}",
            name(&caller)
        ));
        let (path, body) = to_device_request(n, &user, &device);
        if self.ask(&caller, "PUT", &path, Some(&body)).await?.status == 200 {
            self.sent(n, &to, true);
        }
        Ok(())
    }

    fn recipients(&self, user: &str, selector: u8) -> (String, Vec<usize>) {
        let all = self.alive(user);
        match selector % 5 {
            0 => ("*".to_owned(), all),
            1 if selector % 3 == 0 => ("UNKNOWN".to_owned(), Vec::new()),
            _ if all.is_empty() => ("NONE".to_owned(), all),
            _ => {
                let one = all[usize::from(selector / 5) % all.len()];
                (self.devices[one].id.clone(), vec![one])
            }
        }
    }

    /// Record a to-device message that the server accepted, and the appservices that must be sent it. While the proposal for
    /// to-device messages is off, no appservice must be sent it. When it is on again, [`World::judge_again`] computes which ones
    /// must.
    pub(crate) fn sent(&mut self, n: u64, to: &[usize], prompt: bool) {
        for device in to {
            let due: BTreeMap<usize, Due> = (0..self.services.len())
                .filter(|s| self.to_device_on && self.is_sent(*s, *device))
                .map(|s| (s, Due::Must))
                .collect();
            let decided = due.keys().any(|s| self.decides(*s, *device));
            self.messages.push(ToDevice {
                n,
                device: *device,
                at: self.history.events.len(),
                due,
                waits: !decided,
                decided,
                took: BTreeMap::new(),
                synced: false,
                gone: false,
                prompt: prompt && self.to_device_on,
                damaged: false,
            });
        }
    }

    /// Send many requests at once. They share batches of the writer, so a fault hits some of them.
    async fn burst(&mut self, step: Step) -> Check {
        let room = self.room(step.b);
        let caller = self.member(&room, step.a);
        let user = self.user(step.c);
        let (device, to) = self.recipients(&user, step.d);
        let many = if step.d > 240 {
            120
        } else {
            usize::from(step.d % 10) + 2
        };
        self.say(format!(
            "{} sends {many} messages to {room} and to {user} {device}, all at once",
            name(&caller)
        ));
        let requests: Vec<(u64, bool, String, Value)> = (0..many)
            .map(|i| {
                let n = self.number();
                if i % 2 == 0 {
                    let path = format!("/rooms/{}/send/m.room.message/t{n}", segment(&room));
                    (
                        n,
                        false,
                        path,
                        json!({"msgtype": "m.text", "body": "many", "n": n}),
                    )
                } else {
                    let (path, body) = to_device_request(n, &user, &device);
                    (n, true, path, body)
                }
            })
            .collect();
        let person = self.person(&caller);
        let asked = requests
            .iter()
            .map(|(_, _, path, body)| person.try_ask("PUT", path, Some(body)));
        let answers = tokio::select! {
            answers = futures_util::future::join_all(asked) => answers.into_iter().map(Result::ok).collect(),
            () = self.server.faults.death() => vec![None; many],
        };
        for ((n, is_to_device, path, body), answer) in requests.into_iter().zip(answers) {
            let answer = match self.judge(answer, "PUT", &path)? {
                Some(answer) => answer,
                None => self.ask(&caller, "PUT", &path, Some(&body)).await?,
            };
            if answer.status == 200 && is_to_device {
                self.sent(n, &to, false);
            } else if answer.status == 200 {
                self.expect_event(&answer.body);
            }
        }
        Ok(())
    }

    /// Record that a user's keys changed: for all users, or for `only_for` alone.
    pub(crate) fn keys_changed(&mut self, user: &str, only_for: Option<&str>) {
        let shared = self.shared();
        let end = self.history.events.len();
        let due = self.services.iter().enumerate().filter(|(s, service)| {
            let on = service
                .in_force
                .as_ref()
                .filter(|r| r.has_url && r.wants_device_lists);
            only_for.is_none() && on.is_some() && shared[*s].contains(user)
        });
        let due = due
            .map(|(s, service)| (s, service.received.transactions.len()))
            .collect();
        let users: Vec<&String> = self.accounts.keys().collect();
        let seen_by = users
            .into_iter()
            .filter(|other| self.history.meet(end, user, other))
            .cloned()
            .collect();
        self.key_changes.push(KeyChange {
            user: user.to_owned(),
            only_for: only_for.map(str::to_owned),
            certain: true,
            due,
            seen_by,
        });
    }

    /// Record that a device was created or renamed. The user's keys are unchanged, but the server may report a change.
    pub(crate) fn touched(&mut self, user: &str) {
        self.keys_changed(user, None);
        if let Some(change) = self.key_changes.last_mut() {
            change.certain = false;
            change.due.clear();
        }
    }

    /// Check that each answered event is in the database.
    pub(crate) fn check_answered(&mut self) -> Check {
        for id in std::mem::take(&mut self.answered) {
            if !self.history.events.iter().any(|e| e.id == id) {
                return broken("an answered message is on the disk", id);
            }
        }
        Ok(())
    }

    async fn long_name(&mut self, step: Step) -> Check {
        let room = self.room(step.b);
        let caller = self.member(&room, step.a);
        self.say(format!(
            "{} uses a transaction id of 3000 characters, and others send meanwhile",
            name(&caller)
        ));
        let (n, m) = (self.number(), self.number());
        // Random letters, because PostgreSQL compresses index rows.
        let mut rng = crate::rng::Rng::new(n);
        let long: String = (0..3000)
            .map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[rng.below(32)]))
            .collect();
        let body = json!({"msgtype": "m.text", "body": "long"});
        let paths = [
            format!("/rooms/{}/send/m.room.message/t{n}", segment(&room)),
            match step.c % 3 {
                0 => format!("/rooms/{}/send/m.room.message/{long}", segment(&room)),
                1 => format!("/rooms/{}/send/{long}/t{m}", segment(&room)),
                _ => format!("/rooms/{}/state/m.sim/{long}", segment(&room)),
            },
        ];
        let person = self.person(&caller);
        let asked = paths
            .iter()
            .map(|path| person.try_ask("PUT", path, Some(&body)));
        let answers = tokio::select! {
            answers = futures_util::future::join_all(asked) => answers.into_iter().map(Result::ok).collect(),
            () = self.server.faults.death() => vec![None, None],
        };
        for (path, answer) in paths.iter().zip(answers) {
            match self.judge(answer, "PUT", path)? {
                Some(answer) => self.expect_event(&answer.body),
                None => {
                    let answer = self.ask(&caller, "PUT", path, Some(&body)).await?;
                    self.expect_event(&answer.body);
                }
            }
        }
        Ok(())
    }
}

pub(crate) fn name(caller: &Caller) -> String {
    let device = caller.device.as_deref().unwrap_or("-");
    format!("{}/{device}", caller.user)
}

pub(crate) fn to_device_request(n: u64, user: &str, device: &str) -> (String, Value) {
    let body = json!({"messages": {user: {device: {"n": n}}}});
    (format!("/sendToDevice/m.sim.key/t{n}"), body)
}
