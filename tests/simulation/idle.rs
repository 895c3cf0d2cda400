//! What senders do while they are idle: one that is owed nothing runs no queries, and one that is owed something sends it at once.

use std::collections::BTreeMap;

use actors::appservices::SenderStatuses;
use schema::faults::{Fault, Point};
use serde_json::{Value, json};

use crate::bridges::Mode;
use crate::play::{name, to_device_request};
use crate::server::Armed;
use crate::steps::Step;
use crate::world::{Check, World, broken};

/// How many messages the appservice is sent while an unrelated user changes its keys.
const MESSAGES: u64 = 12;

/// How often the unrelated user changes its keys.
const CHANGES: usize = 15;

impl World {
    /// How often the sender of an appservice has looked for something to send since the server started.
    async fn looked(&self, service: usize) -> Option<u64> {
        let id = &self.services[service].registration.id;
        let appservices = self.server.app().actors.appservices.clone();
        let statuses = tokio::select! {
            statuses = actors::ask(&appservices, SenderStatuses) => statuses.ok()?,
            () = self.server.faults.death() => return None,
        };
        let view = statuses.into_iter().find(|view| view.service == *id)?;
        Some(view.gathered)
    }

    /// An appservice that works, a device of it, and a device of a user that never shared a room with the appservice.
    fn unrelated(&self, step: Step) -> Option<(usize, usize, usize)> {
        let all = (0..self.devices.len()).filter(|i| self.devices[*i].alive);
        let pairs: Vec<(usize, usize, usize)> = all
            .clone()
            .filter_map(|ghost| Some((self.devices[ghost].made_by?, ghost)))
            .filter(|(s, ghost)| {
                let wants = self.services[*s].in_force.as_ref();
                wants.is_some_and(|r| r.wants_device_lists)
                    && self.is_sent(*s, *ghost)
                    && self.decides(*s, *ghost)
                    && self.service_mode(*s) == Mode::Good
            })
            .flat_map(|(s, ghost)| {
                let knows = move |user: &String| {
                    let service = &self.services[s];
                    service.ever_claims(user) || service.received.knew.contains(user)
                };
                let people = all.clone().filter(move |i| {
                    self.devices[*i].made_by.is_none() && !knows(&self.devices[*i].user)
                });
                people.map(move |person| (s, ghost, person))
            })
            .collect();
        pairs
            .get(usize::from(step.a) % pairs.len().max(1))
            .copied()
            .filter(|_| self.to_device_on && self.device_lists_on)
    }

    /// A user changes the keys of a device several times while messages are sent to an appservice that shares no room with the
    /// user, and then once more without messages. The key changes must cause no work for the appservice's sender.
    pub(crate) async fn strangers(&mut self, step: Step) -> Check {
        let Some((s, ghost, person)) = self.unrelated(step) else {
            return Ok(());
        };
        self.server.faults.arm(None);
        self.settle().await?;
        let Some((starts, before)) = self.looked(s).await.map(|n| (self.server.starts, n)) else {
            return Ok(());
        };
        let caller = self.caller_of(person);
        let service = self.services[s].registration.id.clone();
        let (user, id) = (
            self.devices[ghost].user.clone(),
            self.devices[ghost].id.clone(),
        );
        if step.d % 2 == 0 {
            return self
                .message_after_refused_write(s, ghost, person, step)
                .await;
        }
        self.say(format!(
            "{}, unrelated to {service}, changes its keys {CHANGES} times and sends {MESSAGES} messages to {user}/{id} meanwhile",
            name(&caller)
        ));
        let changes: Vec<Value> = (0..CHANGES).map(|_| self.other_keys(person)).collect();
        let numbers: Vec<u64> = (0..MESSAGES).map(|_| self.number()).collect();
        let asker = self.person(&caller);
        let change = async {
            let mut answers = Vec::new();
            for body in &changes {
                answers.push(asker.try_ask("POST", "/keys/upload", Some(body)).await);
            }
            answers
        };
        let send = async {
            let mut answers = Vec::new();
            for n in &numbers {
                let (path, body) = to_device_request(*n, &user, &id);
                answers.push(asker.try_ask("PUT", &path, Some(&body)).await);
            }
            answers
        };
        let (changed, sent) = tokio::select! {
            answers = async { tokio::join!(change, send) } => answers,
            () = self.server.faults.death() => return Ok(()),
        };
        for answer in changed {
            self.judge(answer.ok(), "POST", "/keys/upload")?;
            self.keys_changed(&caller.user, None);
        }
        for (answer, n) in sent.into_iter().zip(numbers) {
            self.judge(answer.ok(), "PUT", "/sendToDevice")?;
            self.sent(n, &[ghost], false);
        }
        self.devices[person].keyed = true;
        self.settle().await?;
        self.looks_at_most(s, starts, before + MESSAGES, "messages")
            .await?;
        self.absorb().await?;
        let Some(before) = self.looked(s).await else {
            return Ok(());
        };
        self.say(format!("{} changes its keys once more", name(&caller)));
        let keys = self.other_keys(person);
        self.ask(&caller, "POST", "/keys/upload", Some(&keys))
            .await?;
        self.keys_changed(&caller.user, None);
        self.settle().await?;
        self.looks_at_most(s, starts, before, "nothing").await
    }

    /// A user changes the keys of a device, and a write that follows from the change is refused. A message to an appservice that
    /// shares no room with the user must not wait until that write succeeds.
    async fn message_after_refused_write(
        &mut self,
        s: usize,
        ghost: usize,
        person: usize,
        step: Step,
    ) -> Check {
        // Let writes that were refused in earlier steps succeed first.
        self.pass(2_000).await?;
        self.absorb().await?;
        let (caller, service) = (
            self.caller_of(person),
            self.services[s].registration.id.clone(),
        );
        let (user, id) = (
            self.devices[ghost].user.clone(),
            self.devices[ghost].id.clone(),
        );
        let (starts, after) = (self.server.starts, 1 + u32::from(step.c % 2));
        self.say(format!(
            "{}, unrelated to {service}, changes its keys, and write {after} is refused; then it sends a message to {user}/{id}",
            name(&caller)
        ));
        self.server.faults.arm(Some(Armed {
            point: Point::Job,
            fault: Fault::Refuse,
            after,
            panics: false,
        }));
        let keys = self.other_keys(person);
        self.ask(&caller, "POST", "/keys/upload", Some(&keys))
            .await?;
        self.devices[person].keyed = true;
        self.keys_changed(&caller.user, None);
        self.server.rests().await;
        self.server.faults.arm(None);
        let n = self.number();
        let (path, body) = to_device_request(n, &user, &id);
        if self.ask(&caller, "PUT", &path, Some(&body)).await?.status != 200 {
            return Ok(());
        }
        self.sent(n, &[ghost], false);
        let rests = self.server.rests().await;
        let content = format!("\"n\":{n}}}");
        let came = self.bridges.with(|b| {
            b.troubled.contains(&service)
                || b.attempts
                    .iter()
                    .any(|a| a.service == service && a.bytes.contains(&content))
        });
        if rests && !came && self.server.starts == starts && !self.server.faults.is_dead() {
            return broken(
                "what is no business of a service holds nothing back from it",
                format!("message {n} to {user}/{id} waits"),
            );
        }
        Ok(())
    }

    fn other_keys(&mut self, device: usize) -> Value {
        let n = self.number();
        let (user, id) = (&self.devices[device].user, &self.devices[device].id);
        json!({"device_keys": {
            "user_id": user, "device_id": id, "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
            "keys": {format!("curve25519:{id}"): format!("curve{n}"), format!("ed25519:{id}"): format!("ed{n}")},
            "signatures": {user: {format!("ed25519:{id}"): "c2lnbmVk"}},
        }})
    }

    /// Check that the sender of an appservice has looked for something to send at most `most` times.
    async fn looks_at_most(&self, s: usize, starts: u32, most: u64, owed: &str) -> Check {
        let id = &self.services[s].registration.id;
        match self.looked(s).await {
            Some(now) if self.server.starts == starts && now > most => broken(
                "a service that is owed nothing looks for nothing",
                format!(
                    "{id} was owed {owed}, and its sender looked {now} times; at most {most} are allowed"
                ),
            ),
            _ => Ok(()),
        }
    }

    /// Whether no fault has hit the server. After a fault, deliveries may be late.
    fn is_undisturbed(&self) -> bool {
        let faults = &self.server.faults;
        self.server.is_running() && faults.fired() == 0 && faults.hints_lost() == 0
    }

    /// Check that no event waits for a bridge that works.
    pub(crate) fn check_prompt(&mut self) -> Check {
        if !self.is_undisturbed() {
            return Ok(());
        }
        let waiting: BTreeMap<String, String> = self
            .journal
            .pairs(
                "SELECT appservice_id AS a, CAST(COUNT(*) AS TEXT) AS b FROM owed WHERE kind = 'event' AND txn IS NULL GROUP BY appservice_id",
            )
            .into_iter()
            .collect();
        for service in &self.services {
            let id = &service.registration.id;
            let answers = service.in_force.as_ref().is_some_and(|r| r.has_url)
                && self.bridges.with(|b| !b.troubled.contains(id));
            if let Some(many) = waiting.get(id).filter(|_| answers) {
                return broken(
                    "what a bridge that answers is owed is sent at once",
                    format!("{many} events wait for {id}"),
                );
            }
        }
        Ok(())
    }
}
