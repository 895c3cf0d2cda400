//! Faults in and between the actors: the process ends around a request to an appservice, a hint is lost, a mailbox is full.

use std::collections::BTreeSet;

use actors::appservices::{RetryNow, SenderStatuses};
use actors::runtime::faults::{DeliveryFault, DeliveryPoint};
use serde_json::{Value, json};
use tests::person::segment;

use crate::play::name;
use crate::steps::Step;
use crate::world::{Check, World, broken};

impl World {
    /// Arm a fault: the process will end around a request to an appservice, or a hint will be lost.
    pub(crate) fn seam(&mut self, step: Step) {
        let (point, fault) = [
            (DeliveryPoint::BeforeRequest, DeliveryFault::End),
            (DeliveryPoint::AfterAnswer, DeliveryFault::End),
            (DeliveryPoint::BeforeRecord, DeliveryFault::End),
            (DeliveryPoint::AfterRecord, DeliveryFault::End),
            (DeliveryPoint::SenderHint, DeliveryFault::Lose),
            (DeliveryPoint::LogHint, DeliveryFault::Lose),
        ][usize::from(step.a) % 6];
        let after = u32::from(step.b % 4);
        self.say(format!(
            "the actors will meet {fault:?} at {point:?} number {after}"
        ));
        self.server.faults.arm_actor(Some((point, fault, after)));
    }

    /// Send a sender so many requests at once that its mailbox is full, while there is a new event for it.
    pub(crate) async fn crowd(&mut self, step: Step) -> Check {
        let room = self.room(step.b);
        let caller = self.member(&room, step.a);
        let s = usize::from(step.c) % self.services.len();
        let (id, n) = (self.services[s].registration.id.clone(), self.number());
        self.say(format!(
            "the sender of {id} is asked 40 things at once, and {} sends {n} to {room}",
            name(&caller)
        ));
        let path = format!("/rooms/{}/send/m.room.message/t{n}", segment(&room));
        let body = json!({"msgtype": "m.text", "body": "crowd", "n": n});
        let (person, appservices) = (
            self.person(&caller),
            self.server.app().actors.appservices.clone(),
        );
        let requests = (0..20).map(|_| async {
            let retry = RetryNow {
                service: id.as_str().into(),
            };
            // An error means that the appservice is absent and has no sender.
            let _ = actors::ask(&appservices, retry).await;
            let _ = actors::ask(&appservices, SenderStatuses).await;
        });
        let all = futures_util::future::join(
            futures_util::future::join_all(requests),
            person.try_ask("PUT", &path, Some(&body)),
        );
        let answer = tokio::select! {
            (_, answer) = all => answer.ok(),
            () = self.server.faults.death() => None,
        };
        let answer = match self.judge(answer, "PUT", &path)? {
            Some(answer) => answer,
            None => self.ask(&caller, "PUT", &path, Some(&body)).await?,
        };
        self.expect_event(&answer.body);
        Ok(())
    }

    /// After the process ended, check that the inbox holds every to-device message that neither a device nor an appservice has
    /// received, even if its row was damaged.
    pub(crate) fn check_inbox(&mut self) -> Check {
        let rows = self.journal.pairs(
            "SELECT i.user_id || ' ' || i.device_id AS a, COALESCE(s.content, i.content) AS b \
             FROM inbox i LEFT JOIN shared_contents s ON s.id = i.shared",
        );
        let there: BTreeSet<(String, u64)> = rows
            .into_iter()
            .filter_map(|(device, content)| {
                // Read the first value only: a damaged row has more text after it.
                let mut values = serde_json::Deserializer::from_str(&content).into_iter::<Value>();
                let content = values.next()?.ok()?;
                Some((device, content["n"].as_u64()?))
            })
            .collect();
        let taken = self.taken();
        for (m, message) in self.messages.iter().enumerate() {
            let device = &self.devices[message.device];
            // The client may have acknowledged a delivered message in a request that got no answer.
            let given = device.sync.given.contains(&m);
            let key = (format!("{} {}", device.user, device.id), message.n);
            let may_be_gone = message.gone || given || !device.alive;
            if !may_be_gone && !taken.contains(&key) && !there.contains(&key) {
                return broken(
                    "nothing leaves the inbox before it is acknowledged",
                    format!("message {} to {}", message.n, key.0),
                );
            }
        }
        Ok(())
    }

    /// The to-device messages in the transactions that appservices have processed: user and device, and the number of the message.
    fn taken(&self) -> BTreeSet<(String, u64)> {
        let attempts = self.bridges.with(|s| {
            let taken = s.attempts.iter().filter(|a| a.taken);
            taken.map(|a| a.bytes.clone()).collect::<Vec<_>>()
        });
        let mut found = BTreeSet::new();
        for bytes in attempts {
            let body: Value = serde_json::from_str(&bytes).unwrap_or_default();
            for message in body[crate::absorb::TO_DEVICE]
                .as_array()
                .into_iter()
                .flatten()
            {
                let to = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
                let device = format!("{} {}", to("to_user_id"), to("to_device_id"));
                found.extend(message["content"]["n"].as_u64().map(|n| (device, n)));
            }
        }
        found
    }

    /// Commit a write. If a hint was lost, the next commit, of whatever kind, repeats it.
    pub(crate) async fn commit_something(&mut self) -> Check {
        if self.server.faults.hints_lost() == 0 {
            return Ok(());
        }
        let Some(device) = (0..self.devices.len())
            .find(|i| self.devices[*i].alive && self.devices[*i].made_by.is_none())
        else {
            return Ok(());
        };
        let (caller, n) = (self.caller_of(device), self.number());
        self.say(format!("{} sets account data", name(&caller)));
        let path = format!("/user/{}/account_data/m.sim", segment(&caller.user));
        self.ask(&caller, "PUT", &path, Some(&json!({"n": n})))
            .await
            .map(drop)
    }

    /// Send to-device messages to several users in one request.
    pub(crate) async fn send_to_many(&mut self, step: Step) -> Check {
        let (caller, n) = (self.caller(step.a), self.number());
        let users: BTreeSet<String> = [step.b, step.c, step.d]
            .into_iter()
            .map(|selector| self.user(selector))
            .collect();
        self.say(format!(
            "{} sends to-device message {n} to {users:?}",
            name(&caller)
        ));
        let (mut messages, mut to) = (json!({}), Vec::new());
        for (number, user) in users.iter().enumerate() {
            let devices = self.alive(user);
            // All devices of each user, named one by one or by `*`.
            if (usize::from(step.a) + number) % 2 == 0 {
                messages[user] = json!({"*": {"n": n}});
            } else {
                messages[user] = json!({});
                for device in &devices {
                    messages[user][&self.devices[*device].id] = json!({"n": n});
                }
            }
            to.extend(devices);
        }
        let path = format!("/sendToDevice/m.sim.key/t{n}");
        let body = json!({"messages": messages});
        if self.ask(&caller, "PUT", &path, Some(&body)).await?.status == 200 {
            self.sent(n, &to, true);
        }
        Ok(())
    }
}
