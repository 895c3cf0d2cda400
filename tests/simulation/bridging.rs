//! Steps of services and of the operator: ghosts, registrations, proposals, restarts, and everything that goes wrong.

use std::time::Duration;

use actors::appservices::Reload;
use schema::faults::{Fault, Point};
use serde_json::json;
use tests::person::segment;

use crate::bridges::Mode;
use crate::model::Registration;
use crate::play::name;
use crate::server::Armed;
use crate::steps::{Kind, Step};
use crate::world::{Check, Due, FileState, Received, Service, World, broken};

/// The services of every world: exclusive with every opt-in, observing with consent, exclusive without any opt-in, without a
/// URL, observing without consent.
pub(crate) const SERVICES: [&str; 5] = ["irc", "obs", "log", "mute", "spy"];

/// Which services may observe.
pub(crate) const OBSERVERS: [&str; 1] = ["obs"];

fn registration(id: &str, variant: u8) -> Registration {
    let own = |start: &str| (format!("@{start}"), true);
    let shared = |start: &str| (format!("@{start}"), false);
    let users = match (id, variant % 3) {
        ("irc", 0) => vec![own("irc_")],
        ("irc", 1) => vec![shared("irc_")],
        ("irc", _) => vec![own("irc_"), own("bob")],
        ("obs", 0) => vec![shared("alice"), shared("irc_")],
        ("obs", 1) => vec![shared("")],
        // What it has observed it decides over from now on.
        ("obs", _) if variant % 2 == 0 => vec![own("obs_"), own("alice")],
        ("obs", _) => vec![own("obs_")],
        ("spy", 0 | 1) => vec![shared("")],
        ("spy", _) => vec![own("spy_")],
        (other, _) => vec![own(&format!("{other}_"))],
    };
    Registration {
        id: id.to_owned(),
        sender: format!("@{id}bot:test"),
        users,
        has_url: id != "mute",
        wants_to_device: id != "log",
        wants_device_lists: id != "log",
        observes: OBSERVERS.contains(&id),
    }
}

impl World {
    pub(crate) fn write_registrations(&mut self) {
        for id in SERVICES {
            self.services.push(Service {
                registration: registration(id, 0),
                in_force: Some(registration(id, 0)),
                as_token: format!("{id}-as-token"),
                hs_token: format!("{id}-hs-token"),
                file: format!("{id}.yaml"),
                file_state: FileState::Good,
                received: Received::default(),
                ever: registration(id, 0).users,
            });
            self.bridges
                .with(|s| s.tokens.insert(id.to_owned(), format!("{id}-hs-token")));
            self.accounts
                .insert(format!("@{id}bot:test"), Some(self.services.len() - 1));
            self.write_file(self.services.len() - 1);
        }
    }

    fn write_file(&self, service: usize) {
        let service = &self.services[service];
        let r = &service.registration;
        let users: Vec<_> = r
            .users
            .iter()
            .map(|(start, own)| json!({"exclusive": own, "regex": format!("{start}.*")}))
            .collect();
        let url = r.has_url.then(|| format!("{}/{}", self.bridges.base, r.id));
        let file = json!({
            "id": r.id, "url": url, "as_token": service.as_token, "hs_token": service.hs_token,
            "sender_localpart": format!("{}bot", r.id), "rate_limited": false,
            "namespaces": {"users": users, "aliases": [{"exclusive": true, "regex": format!("#{}_.*", r.id)}]},
            "receive_ephemeral": r.wants_to_device, "org.matrix.msc3202": r.wants_device_lists,
        });
        let path = self.server.registrations().join(&service.file);
        std::fs::write(path, file.to_string()).expect("the file is written");
    }

    /// Have the folder read, as its watcher does.
    async fn reload(&mut self) -> Check {
        for _ in 0..4 {
            if self.server.trouble.is_dead() {
                self.check_fatal()?;
                self.revive().await?;
            }
            let loaded = self.reload_once().await;
            self.settle().await?;
            if loaded {
                return self.check_tokens().await;
            }
        }
        broken(
            "a change of registrations is in force in the end",
            "it failed four times",
        )
    }

    /// That each service in force can ask, and no other.
    async fn check_tokens(&mut self) -> Check {
        for s in 0..self.services.len() {
            let bot = self.as_bot(s);
            let status = self.ask(&bot, "GET", "/account/whoami", None).await?.status;
            let (id, expected) = (
                &self.services[s].registration.id,
                if self.services[s].in_force.is_some() {
                    200
                } else {
                    401
                },
            );
            if status != expected {
                let what = format!(
                    "whoami of {id}bot is {status}, its file {:?}",
                    self.services[s].file_state
                );
                return broken(
                    "a service is in force while its last good file is not taken away",
                    what,
                );
            }
        }
        Ok(())
    }

    pub(crate) async fn change_registration(&mut self, step: Step) -> Check {
        // Those with several variants change; a file that is broken or absent becomes good by it.
        let s = [0, 1, 4][usize::from(step.a) % 3];
        let id = self.services[s].registration.id.clone();
        let before = self.services[s].registration.clone();
        let back = step.d % 3 == 0 && self.services[s].in_force.is_some();
        let same = registration(&id, step.b).users == before.users;
        let variant = if back && same { step.b / 6 + 1 } else { step.b } % 6;
        self.say(format!(
            "the registration of {id} becomes variant {variant}"
        ));
        self.services[s].registration = registration(&id, variant);
        let users = self.services[s].registration.users.clone();
        self.services[s].ever.extend(users);
        self.services[s].file_state = FileState::Good;
        self.write_file(s);
        if !back {
            return self.in_force(s).await;
        }
        self.say(format!(
            "and back, and the process may end meanwhile ({})",
            step.c % 3
        ));
        let end = Armed {
            point: Point::BeforeCommit,
            fault: Fault::End,
            after: u32::from(step.c % 3),
            panics: false,
        };
        self.server.trouble.arm(Some(end));
        let happened = self.reload_once().await;
        self.server.trouble.arm(None);
        // Where the process ended, the change may be in force or not.
        let old = self.services[s].in_force.clone();
        self.services[s].in_force = Some(self.services[s].registration.clone());
        let knew = self.history.shared(&self.services[s].registration);
        self.services[s].received.knew.extend(knew);
        self.judge_again(happened);
        self.services[s].in_force = old;
        self.services[s].registration = before;
        self.write_file(s);
        self.settle().await?;
        self.in_force(s).await?;
        self.judge_again(true);
        Ok(())
    }

    /// Many changes of files at once are one reading, or a few.
    pub(crate) async fn reload_often(&mut self) -> Check {
        self.say("the folder of registrations changes 60 times at once".to_owned());
        let appservices = self.server.app().actors.appservices.clone();
        let before = tokio::select! {
            loaded = actors::ask(&appservices, Reload) => loaded.ok(),
            () = self.server.trouble.death() => None,
        };
        let all =
            futures_util::future::join_all((0..60).map(|_| actors::ask(&appservices, Reload)));
        let after = tokio::select! {
            loaded = all => loaded.into_iter().filter_map(Result::ok).map(|l| l.readings).max(),
            () = self.server.trouble.death() => None,
        };
        match (before, after) {
            (Some(before), Some(after)) if after > before.readings + 10 => broken(
                "many changes of files at once are read a few times",
                format!("{} readings", after - before.readings),
            ),
            _ => Ok(()),
        }
    }

    async fn reload_once(&mut self) -> bool {
        let appservices = self.server.app().actors.appservices.clone();
        tokio::select! {
            loaded = actors::ask(&appservices, Reload) => loaded.is_ok(),
            () = self.server.trouble.death() => false,
        }
    }

    /// What stands in a good file is in force.
    async fn in_force(&mut self, s: usize) -> Check {
        let before = self.services[s].in_force.clone();
        self.services[s].in_force = Some(self.services[s].registration.clone());
        self.reload().await?;
        let knew = self.history.shared(&self.services[s].registration);
        self.services[s].received.knew.extend(knew);
        if before.is_none()
            || before.map(|r| r.users) != Some(self.services[s].registration.users.clone())
        {
            self.judge_again(true);
        }
        Ok(())
    }

    /// Registrations or proposals have changed: to whom what waits is due now.
    pub(crate) fn judge_again(&mut self, certain: bool) {
        for m in 0..self.messages.len() {
            let device = self.messages[m].device;
            self.messages[m].prompt = false;
            let mut decided = false;
            for s in 0..self.services.len() {
                let (sent, decides) = (self.is_sent(s, device), self.decides(s, device));
                let message = &mut self.messages[m];
                let settled = message.gone || message.took.keys().next().is_some();
                decided |= sent && decides;
                match message.due.get_mut(&s) {
                    Some(due) if !sent => *due = Due::May,
                    Some(_) => {}
                    None if sent && decides => {
                        message.due.insert(
                            s,
                            if settled || !certain {
                                Due::May
                            } else {
                                Due::Must
                            },
                        );
                    }
                    None if sent => {
                        message.due.insert(s, Due::May);
                    }
                    None => {}
                }
            }
            let message = &mut self.messages[m];
            if decided && !message.gone {
                message.waits = false;
                message.decided = true;
            }
        }
    }

    pub(crate) async fn change_file(&mut self, step: Step) -> Check {
        let s = usize::from(step.a) % self.services.len();
        let (id, file) = (
            self.services[s].registration.id.clone(),
            self.services[s].file.clone(),
        );
        let path = self.server.registrations().join(&file);
        let exists = self.services[s].file_state != FileState::Absent;
        match step.kind {
            Kind::BreakFile if exists => {
                self.say(format!("{file} of {id} is broken"));
                std::fs::write(&path, "id: [broken").expect("written");
                self.services[s].file_state = FileState::Broken;
            }
            Kind::RenameFile if exists => {
                let n = self.number();
                let to = format!("{}{n}-{id}.yaml", ["a", "z"][usize::from(step.b % 2)]);
                self.say(format!("{file} of {id} becomes {to}"));
                std::fs::rename(&path, self.server.registrations().join(&to)).expect("renamed");
                self.services[s].file = to;
            }
            Kind::RemoveFile if exists && self.services.iter().all(|s| s.in_force.is_some()) => {
                self.say(format!("{file} of {id} is removed"));
                std::fs::remove_file(&path).expect("removed");
                self.services[s].file_state = FileState::Absent;
                self.services[s].in_force = None;
            }
            Kind::ReturnFile => {
                self.say(format!("{file} of {id} is good"));
                self.services[s].file_state = FileState::Good;
                self.write_file(s);
                return self.in_force(s).await;
            }
            _ => return Ok(()),
        }
        self.reload().await
    }

    pub(crate) async fn ghost(&mut self, step: Step) -> Check {
        let s = usize::from(step.a) % 4;
        if self.services[s].in_force.is_none() {
            return Ok(());
        }
        let user = format!("@{}_{}:test", self.services[s].registration.id, step.b % 3);
        let (bot, local) = (
            self.as_bot(s),
            user.trim_start_matches('@')
                .trim_end_matches(":test")
                .to_owned(),
        );
        self.say(format!("{} registers {local}", name(&bot)));
        let body = json!({"type": "m.login.application_service", "username": local, "inhibit_login": true});
        let answer = self.ask(&bot, "POST", "/register", Some(&body)).await?;
        if answer.status == 200 || answer.body["errcode"] == "M_USER_IN_USE" {
            self.accounts.entry(user).or_insert(Some(s));
        }
        Ok(())
    }

    /// Users whom a service registered and may be now.
    fn ghosts(&self) -> Vec<(usize, String)> {
        let all = self
            .accounts
            .iter()
            .filter_map(|(user, s)| Some((s.as_ref().copied()?, user.clone())));
        all.filter(|(s, user)| {
            self.services[*s]
                .in_force
                .as_ref()
                .is_some_and(|r| r.claims(user).is_some())
        })
        .collect()
    }

    pub(crate) async fn ghost_device(&mut self, step: Step) -> Check {
        let ghosts = self.ghosts();
        let Some((s, user)) = ghosts
            .get(usize::from(step.a) % ghosts.len().max(1))
            .cloned()
        else {
            return Ok(());
        };
        let id = format!("G{}", step.b % 2);
        let caller = self.as_user(s, &user, None);
        self.say(format!("{} makes the device {id}", name(&caller)));
        let answer = self
            .ask(&caller, "PUT", &format!("/devices/{id}"), Some(&json!({})))
            .await?;
        let there = self
            .alive(&user)
            .into_iter()
            .find(|i| self.devices[*i].id == id);
        if answer.status < 300 && there.is_none() {
            let device = self.add_device(&user, &id, Some(s), "");
            self.touched(&user);
            self.absorb().await?;
            self.upload(device, 2, true, step.c % 2 == 0).await?;
        }
        Ok(())
    }

    pub(crate) async fn delete_ghost_device(&mut self, step: Step) -> Check {
        let of_service = |i: &usize| {
            let d = &self.devices[*i];
            d.alive
                && d.made_by.is_some_and(|s| {
                    self.services[s]
                        .in_force
                        .as_ref()
                        .is_some_and(|r| r.claims(&d.user).is_some())
                })
        };
        let all: Vec<usize> = (0..self.devices.len()).filter(of_service).collect();
        let Some(device) = all.get(usize::from(step.a) % all.len().max(1)).copied() else {
            return Ok(());
        };
        let caller = self.caller_of(device);
        self.say(format!("{} deletes the device", name(&caller)));
        let path = format!("/devices/{}", segment(&self.devices[device].id));
        let bot = self.as_user(caller.service.unwrap_or(0), &caller.user, None);
        if self
            .ask(&bot, "DELETE", &path, Some(&json!({})))
            .await?
            .status
            == 200
        {
            self.device_gone(device);
        }
        Ok(())
    }

    pub(crate) fn bridge(&mut self, step: Step) {
        let modes = [
            Mode::Good,
            Mode::Status(500),
            Mode::DiesAfter,
            Mode::Garbage,
            Mode::Hangs,
            Mode::DiesBefore,
            Mode::Status(413),
            Mode::Status(429),
        ];
        let (s, mode) = (
            usize::from(step.a) % self.services.len(),
            modes[usize::from(step.b) % modes.len()],
        );
        let id = self.services[s].registration.id.clone();
        self.say(format!("the bridge {id} is {mode:?}"));
        self.bridges.set_mode(&id, mode);
    }

    pub(crate) async fn advance(&mut self, step: Step) -> Check {
        let millis = [200, 2_000, 31_000, 300_000][usize::from(step.a) % 4];
        self.say(format!("{millis} ms pass"));
        self.pass(millis).await
    }

    pub(crate) async fn pass(&mut self, millis: u64) -> Check {
        self.settle().await?;
        self.clock.advance(Duration::from_millis(millis));
        self.elapsed += i64::try_from(millis).unwrap_or(0);
        Ok(())
    }

    /// Somebody sets the machine's clock.
    pub(crate) fn step_wall(&mut self, step: Step) {
        let minutes = [-60, 10, -3, 60][usize::from(step.a) % 4];
        self.say(format!("the wall clock is set by {minutes} minutes"));
        self.clock.set_wall(self.clock.now() + minutes * 60_000);
    }

    /// A row that waits for a service is damaged: it alone may be lost, and what follows goes on.
    pub(crate) async fn damage(&mut self) -> Check {
        let waiting = "SELECT CAST(i.position AS TEXT) AS a, i.content AS b FROM inbox i JOIN owed o ON o.position = i.position \
             WHERE o.txn IS NULL AND i.decided_by <> '' ORDER BY i.position LIMIT 1";
        self.settle().await?;
        let Some((position, content)) = self.journal.pairs(waiting).pop() else {
            return Ok(());
        };
        self.say(format!(
            "the message {content} that waits is damaged on the disk"
        ));
        let content: serde_json::Value = serde_json::from_str(&content).unwrap_or_default();
        self.journal.damage(&format!(
            "UPDATE inbox SET content = '{{' WHERE position = {position}"
        ));
        let damaged = self
            .messages
            .iter_mut()
            .filter(|m| Some(m.n) == content["n"].as_u64());
        for message in damaged {
            message.due.values_mut().for_each(|due| *due = Due::May);
        }
        Ok(())
    }

    pub(crate) fn storage(&mut self, step: Step) {
        let points = [
            Point::Begin,
            Point::Job,
            Point::BeforeCommit,
            Point::AfterCommit,
            Point::ReadBegin,
        ];
        let faults = [
            Fault::End,
            Fault::Refuse,
            Fault::End,
            Fault::Full,
            Fault::Lost,
        ];
        let armed = Armed {
            point: points[usize::from(step.a) % points.len()],
            fault: faults[usize::from(step.b) % faults.len()],
            after: u32::from(step.c % 12),
            panics: step.d % 16 == 0,
        };
        // A thread that reads: what the writer had committed when it panicked would be unknown.
        let armed = if armed.panics {
            Armed {
                point: Point::ReadBegin,
                ..armed
            }
        } else {
            armed
        };
        self.say(format!(
            "the storage will meet {:?} at {:?} number {}",
            armed.fault, armed.point, armed.after
        ));
        self.server.trouble.arm(Some(armed));
    }

    pub(crate) async fn restart(&mut self, step: Step) -> Check {
        let (kill, switches) = (step.a % 2 == 0, step.b % 8);
        let to_device = switches != 1 && switches != 3;
        let device_lists = switches != 2 && switches != 3;
        self.start_anew(kill, to_device, device_lists).await
    }

    pub(crate) async fn start_anew(
        &mut self,
        kill: bool,
        to_device: bool,
        device_lists: bool,
    ) -> Check {
        let word = if kill { "is killed" } else { "is stopped" };
        self.say(format!(
            "the server {word} and starts with to-device {to_device}, device lists {device_lists}"
        ));
        self.absorb().await?;
        if kill {
            self.server.kill().await;
        } else {
            self.server.stop().await;
        }
        let numbers = understudy::mscs::by_default();
        let on = |n: &u16| (*n != 4203 || to_device) && (*n != 3202 || device_lists);
        let numbers: Vec<u16> = numbers.into_iter().filter(on).collect();
        self.server.switch(&numbers);
        self.server.trouble.arm(None);
        self.forget_fleeting();
        self.start().await?;
        let changed = (to_device, device_lists) != (self.to_device_on, self.device_lists_on);
        (self.to_device_on, self.device_lists_on) = (to_device, device_lists);
        self.settle().await?;
        if changed {
            self.judge_again(true);
        }
        self.check_tokens().await
    }

    /// Typing does not outlive the server.
    pub(crate) fn forget_fleeting(&mut self) {
        self.typing.clear();
        for device in &mut self.devices {
            device.sync.typing.clear();
        }
    }
}
