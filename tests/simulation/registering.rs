//! Steps of the operator that change registrations and their files.

use actors::appservices::Reload;
use schema::faults::{Fault, Point};
use serde_json::json;

use crate::model::Registration;
use crate::server::Armed;
use crate::steps::{Kind, Step};
use crate::world::{Check, Due, FileState, Received, Service, World, broken};

/// The appservices of every schedule: exclusive with every opt-in, observing with consent, exclusive without opt-ins, without a
/// URL, observing without consent.
pub(crate) const SERVICES: [&str; 5] = ["irc", "obs", "log", "mute", "spy"];

/// The appservices that the operator allows to observe.
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
        // An exclusive namespace: the appservice decides over devices that it has observed.
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

    /// Reload the folder of registrations, as its watcher does.
    async fn reload(&mut self) -> Check {
        for _ in 0..4 {
            if self.server.faults.is_dead() {
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

    /// Check that the tokens of exactly the appservices in force are accepted.
    pub(crate) async fn check_tokens(&mut self) -> Check {
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
        // Only appservices with several variants change. The change also repairs a file that is broken or absent.
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
            "then changes back, and the process may end meanwhile ({})",
            step.c % 3
        ));
        let end = Armed {
            point: Point::BeforeCommit,
            fault: Fault::End,
            after: u32::from(step.c % 3),
            panics: false,
        };
        self.server.faults.arm(Some(end));
        let happened = self.reload_once().await;
        self.server.faults.arm(None);
        // If the process ended, the change may be in force or not.
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

    /// Check that many reloads at once lead to a few readings of the folder.
    pub(crate) async fn reload_often(&mut self) -> Check {
        self.say("the folder of registrations changes 60 times at once".to_owned());
        let appservices = self.server.app().actors.appservices.clone();
        let before = tokio::select! {
            loaded = actors::ask(&appservices, Reload) => loaded.ok(),
            () = self.server.faults.death() => None,
        };
        let all =
            futures_util::future::join_all((0..60).map(|_| actors::ask(&appservices, Reload)));
        let after = tokio::select! {
            loaded = all => loaded.into_iter().filter_map(Result::ok).map(|l| l.readings).max(),
            () = self.server.faults.death() => None,
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
            () = self.server.faults.death() => false,
        }
    }

    /// Reload the folder, and record that the appservice's registration is in force.
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

    /// After a change of registrations or proposals, compute again which appservices must be sent the waiting to-device messages.
    /// While the proposal for these messages is off, no appservice must be sent any. When it is on again, the appservices that
    /// decide over a device must be sent the messages that wait for the device.
    pub(crate) fn judge_again(&mut self, certain: bool) {
        for m in 0..self.messages.len() {
            let device = self.messages[m].device;
            self.messages[m].prompt = false;
            let mut decided = false;
            for s in 0..self.services.len() {
                let (sent, decides) = (self.is_sent(s, device), self.decides(s, device));
                let becomes_due = sent && self.to_device_on;
                let message = &mut self.messages[m];
                let settled = message.gone || message.took.keys().next().is_some();
                decided |= becomes_due && decides;
                match message.due.get_mut(&s) {
                    Some(due) if !sent => *due = Due::May,
                    Some(_) => {}
                    None if becomes_due && decides => {
                        message.due.insert(
                            s,
                            if settled || !certain {
                                Due::May
                            } else {
                                Due::Must
                            },
                        );
                    }
                    None if becomes_due => {
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
                self.say(format!("{file} of {id} is valid"));
                self.services[s].file_state = FileState::Good;
                self.write_file(s);
                return self.in_force(s).await;
            }
            _ => return Ok(()),
        }
        self.reload().await
    }
}
