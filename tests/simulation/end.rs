//! The end of a schedule. The faults stop. Within ten minutes of the manual clock, every item that an appservice or a device waits
//! for must be delivered, and every table of waiting items must be empty.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::bridges::Mode;
use crate::world::{Check, Due, FileState, World, broken};

/// The tables whose rows wait for an appservice.
const QUEUES: [&str; 2] = ["owed", "frozen_transactions"];

impl World {
    /// End all faults, let ten minutes of the clock pass, and check everything.
    pub(crate) async fn faults_end(&mut self) -> Check {
        self.server.faults.arm(None);
        self.absorb().await?;
        for s in 0..self.services.len() {
            let id = self.services[s].registration.id.clone();
            self.bridges.set_mode(&id, Mode::Good);
        }
        self.say("all bridges work".to_owned());
        if !(self.to_device_on && self.device_lists_on) {
            self.start_anew(false, true, true).await?;
        }
        self.commit_something().await?;
        for _ in 0..20 {
            self.pass(30_000).await?;
            self.absorb().await?;
        }
        self.check_ledger()?;
        self.check_queues()?;
        self.check_device_lists()?;
        self.check_counts().await?;
        let devices: Vec<usize> = (0..self.devices.len())
            .filter(|i| self.devices[*i].alive && self.devices[*i].made_by.is_none())
            .collect();
        for device in devices {
            self.sync_device(device, false, false, false).await?;
            self.sync_device(device, false, false, false).await?;
            // A response holds at most 100 to-device messages, and only the next sync acknowledges them.
            while !self.devices[device].sync.given.is_empty() {
                self.sync_device(device, false, false, false).await?;
            }
        }
        self.check_leavers().await?;
        self.check_given()
    }

    fn reachable(&self, s: usize) -> bool {
        let service = &self.services[s];
        service.in_force.as_ref().is_some_and(|r| r.has_url)
            && service.file_state != FileState::Absent
    }

    /// Check that every event and to-device message that an appservice must be sent was delivered to it.
    fn check_ledger(&self) -> Check {
        for s in (0..self.services.len()).filter(|s| self.reachable(*s)) {
            let service = &self.services[s];
            for (number, due) in self.due.iter().enumerate() {
                if due.get(&s) == Some(&Due::Must) && !service.received.events.contains_key(&number)
                {
                    let what = format!(
                        "{}: {:?}",
                        service.registration.id, self.history.events[number]
                    );
                    return broken("every event reaches every service that it concerns", what);
                }
            }
            for message in &self.messages {
                if message.due.get(&s) == Some(&Due::Must) && !message.took.contains_key(&s) {
                    let to = &self.devices[message.device];
                    let what = format!(
                        "message {} to {}/{} was never sent to {}",
                        message.n, to.user, to.id, service.registration.id
                    );
                    return broken("every to-device message reaches its service", what);
                }
            }
        }
        Ok(())
    }

    fn check_queues(&mut self) -> Check {
        let away: BTreeSet<String> = (0..self.services.len())
            .filter(|s| !self.reachable(*s))
            .map(|s| self.services[s].registration.id.clone())
            .collect();
        for table in QUEUES {
            // Rows with a negative `txn` do not wait. They mark a message that was delivered and stays in the inbox for its device,
            // an item that was set aside because it cannot be sent, or one whose kind is switched off for the appservice.
            let only = match table {
                "frozen_transactions" => "",
                _ => "WHERE txn IS NULL OR txn > 0",
            };
            let sql = format!(
                "SELECT appservice_id AS a, CAST(COUNT(*) AS TEXT) AS b FROM {table} {only} GROUP BY appservice_id"
            );
            for (service, waiting) in self.journal.pairs(&sql) {
                if !away.contains(&service) {
                    return broken(
                        "every queue is empty in the end",
                        format!("{waiting} rows in {table} for {service}"),
                    );
                }
            }
        }
        // A message must leave the inbox once two things hold: its device, or the appservice that decides over the device, has
        // acknowledged it; and no appservice is owed it any more.
        let left = "SELECT decided_by AS a, CAST(COUNT(*) AS TEXT) AS b FROM inbox WHERE (acknowledged OR decided_by <> '') \
             AND NOT EXISTS (SELECT 1 FROM owed o WHERE o.position = inbox.position AND (o.txn IS NULL OR o.txn <> -2)) GROUP BY decided_by";
        if let Some((service, rows)) = self.journal.pairs(left).pop() {
            return broken(
                "what is acknowledged leaves the inbox",
                format!("{rows} rows that {service:?} decides over"),
            );
        }
        let rooms = self.journal.pairs("SELECT appservice_id AS a, room_id || ' ' || CAST(joined AS TEXT) AS b FROM appservice_rooms WHERE joined > 0");
        let mut counted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (service, room) in rooms {
            counted.entry(service).or_default().insert(room);
        }
        for service in self.services.iter().filter(|s| s.in_force.is_some()) {
            let present = self.history.present(&service.registration);
            let expected: BTreeSet<String> = present
                .iter()
                .map(|(room, joined)| format!("{room} {joined}"))
                .collect();
            let found = counted.remove(&service.registration.id).unwrap_or_default();
            if found != expected {
                let what = format!(
                    "{}: {found:?}, expected {expected:?}",
                    service.registration.id
                );
                return broken("the members of a service in each room are counted", what);
            }
        }
        Ok(())
    }

    /// Check that an appservice tracks exactly the users that share a room with it, and was sent every change of their keys.
    fn check_device_lists(&mut self) -> Check {
        let shared = self.shared();
        for s in (0..self.services.len()).filter(|s| self.reachable(*s)) {
            let service = &self.services[s];
            if !service.registration.wants_device_lists {
                continue;
            }
            let id = &service.registration.id;
            for user in self.accounts.keys() {
                let own = service.registration.claims(user).is_some();
                let last = service.received.named_in.get(user).copied();
                let together = shared[s].contains(user);
                if !own && together && last != Some("changed") {
                    return broken(
                        "who shares a room with a service is tracked by it",
                        format!("{id} was last sent {user} in {last:?}"),
                    );
                }
                if !own && !together && last == Some("changed") {
                    return broken(
                        "who shares no room with a service is not tracked by it",
                        format!("{id} was last sent {user} in {last:?}"),
                    );
                }
            }
            for change in &self.key_changes {
                let Some(since) = change.due.get(&s) else {
                    continue;
                };
                let later = service
                    .received
                    .reported
                    .get(&change.user)
                    .is_some_and(|all| all.iter().any(|t| t >= since));
                let own = service.registration.claims(&change.user).is_some();
                if !later && (own || shared[s].contains(&change.user)) {
                    return broken(
                        "every change of keys reaches who tracks the user",
                        format!("{id} of {}", change.user),
                    );
                }
            }
        }
        Ok(())
    }

    /// Check that the last one-time-key count sent to an appservice is the device's current count.
    async fn check_counts(&mut self) -> Check {
        for device in 0..self.devices.len() {
            let d = self.devices[device].clone();
            let decider = d
                .made_by
                .filter(|s| self.reachable(*s) && self.decides(*s, device));
            let Some(s) = decider.filter(|_| d.alive && d.claimed) else {
                continue;
            };
            if !self.services[s].registration.wants_device_lists
                || self.services[s].registration.claims(&d.user).is_none()
            {
                continue;
            }
            let caller = self.caller_of(device);
            let answer = self
                .ask(&caller, "POST", "/keys/upload", Some(&json!({})))
                .await?;
            let count = answer.body["one_time_key_counts"]["signed_curve25519"]
                .as_i64()
                .unwrap_or(0);
            let sent = self.services[s]
                .received
                .counts
                .get(&(d.user.clone(), d.id.clone()))
                .copied();
            if sent != Some(count) {
                let what = format!(
                    "{} of {}: {count}, and {} was sent {sent:?}",
                    d.id, d.user, self.services[s].registration.id
                );
                return broken("a service knows how many keys are left", what);
            }
        }
        Ok(())
    }

    /// Check that each to-device message was delivered, or that its device is deleted.
    fn check_given(&self) -> Check {
        for message in self.messages.iter() {
            let device = &self.devices[message.device];
            let reads = device.made_by.is_none();
            let given = message.gone || !message.took.is_empty();
            if device.alive && reads && !given && !message.damaged {
                return broken(
                    "each message is delivered, waits, or was dropped with a reason",
                    format!("message {} to {}", message.n, device.id),
                );
            }
        }
        Ok(())
    }
}
