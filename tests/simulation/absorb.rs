//! After each step: read the new events from the database, compute which of them each appservice must be sent, and check what the
//! appservices were sent.

use serde_json::Value;

use crate::bridges::Attempt;
use crate::model::Event;
use crate::world::{Check, Due, World, broken};

pub(crate) const TO_DEVICE: &str = "de.sorunome.msc2409.to_device";
pub(crate) const LISTS: &str = "org.matrix.msc3202.device_lists";
pub(crate) const COUNTS: &str = "org.matrix.msc3202.device_one_time_keys_count";

impl World {
    /// Read the events and transaction attempts since the last call, and check them.
    pub(crate) async fn absorb(&mut self) -> Check {
        self.settle().await?;
        let (events, position) = self.journal.events(self.position);
        self.position = position;
        for event in events {
            self.take_event(event)?;
        }
        let attempts = self.bridges.with(|s| s.attempts[self.attempts..].to_vec());
        self.attempts += attempts.len();
        for attempt in &attempts {
            self.take_attempt(attempt)?;
        }
        self.check_prompt()?;
        self.check_answered()
    }

    fn take_event(&mut self, event: Event) -> Check {
        let number = self.history.events.len();
        let before = self.shared();
        if let Some(user) = event
            .state_key
            .clone()
            .filter(|_| event.kind == "m.room.member")
            && matches!(
                event.content["membership"].as_str(),
                Some("join" | "invite" | "knock")
            )
        {
            self.forgotten.remove(&(event.room.clone(), user));
        }
        self.history.push(event);
        if let Some(why) = self.history.wrong_membership(number) {
            return broken("nobody becomes a member against the rules of the room", why);
        }
        let mut due = std::collections::BTreeMap::new();
        let mut ended = Vec::new();
        for (s, service) in self.services.iter_mut().enumerate() {
            let absent = service.in_force.is_none();
            let registration = service.in_force.as_ref().unwrap_or(&service.registration);
            if registration.has_url && self.history.concerns(registration, number) {
                due.insert(s, if absent { Due::May } else { Due::Must });
            }
            let named = self
                .names
                .claimed
                .contains(&(s, self.history.events[number].room.clone()));
            if named && registration.has_url {
                due.entry(s).or_insert(Due::May);
            }
            let now = self.history.shared(registration);
            ended.extend(before[s].difference(&now).map(|user| (s, user.clone())));
            service.received.knew.extend(now);
        }
        self.due.push(due);
        self.ended.push(ended);
        Ok(())
    }

    /// For each appservice, the users that share a room with it now.
    pub(crate) fn shared(&self) -> Vec<std::collections::BTreeSet<String>> {
        let of = |s: &crate::world::Service| {
            self.history
                .shared(s.in_force.as_ref().unwrap_or(&s.registration))
        };
        self.services.iter().map(of).collect()
    }

    fn take_attempt(&mut self, attempt: &Attempt) -> Check {
        let Some(s) = self
            .services
            .iter()
            .position(|s| s.registration.id == attempt.service)
        else {
            return broken(
                "nothing is sent to a service that is not registered",
                &attempt.service,
            );
        };
        let about = format!("transaction {} to {}", attempt.id, attempt.service);
        if !attempt.token_is_right {
            return broken("a service knows the server by its token", about);
        }
        if attempt.open > 0 {
            return broken("one request is in flight", about);
        }
        let known = self.services[s]
            .received
            .transactions
            .iter()
            .find(|(id, _)| *id == attempt.id)
            .cloned();
        let last = self.services[s].received.transactions.last().cloned();
        if let Some((_, bytes)) = known {
            if bytes != attempt.bytes {
                return broken(
                    "the bytes of an id never change",
                    format!("{about}: {bytes} became {}", attempt.bytes),
                );
            }
            if last.is_some_and(|(id, _)| id != attempt.id) {
                return broken("ids only grow", format!("{about} came after a later one"));
            }
            return Ok(());
        }
        if let Some((id, _)) = last {
            let number = |id: &str| id.parse::<u128>().unwrap_or_default();
            if number(&attempt.id) <= number(&id) {
                return broken("ids only grow", format!("{about} after {id}"));
            }
            let taken = self.bridges.with(|b| {
                b.attempts
                    .iter()
                    .any(|a| a.service == attempt.service && a.id == id && a.taken)
            });
            if !taken {
                return broken(
                    "nothing is skipped",
                    format!("{about} came before {id} was taken"),
                );
            }
        }
        self.services[s]
            .received
            .transactions
            .push((attempt.id.clone(), attempt.bytes.clone()));
        self.take_transaction(s, &attempt.json(), &about)
    }

    fn take_transaction(&mut self, s: usize, body: &Value, about: &str) -> Check {
        let number = self.services[s].received.transactions.len() - 1;
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        for event in list(&body["events"]) {
            self.take_sent_event(s, number, &event, about)?;
        }
        for message in list(&body[TO_DEVICE]) {
            self.take_sent_message(s, number, &message, about)?;
        }
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        for section in ["changed", "left"] {
            for user in list(&body[LISTS][section]) {
                self.take_sent_user(s, number, section, text(&user), about)?;
            }
        }
        for (user, devices) in body[COUNTS].as_object().into_iter().flatten() {
            let claims = self.services[s].ever_claims(user);
            let of_service = self
                .devices
                .iter()
                .any(|d| d.user == *user && d.made_by == Some(s));
            if !claims && !of_service && self.accounts.get(user) != Some(&Some(s)) {
                return broken(
                    "nothing is sent to a service beyond its interest",
                    format!("{about}: counts of {user}"),
                );
            }
            for (device, counts) in devices.as_object().into_iter().flatten() {
                let count = counts["signed_curve25519"].as_i64().unwrap_or(0);
                self.services[s]
                    .received
                    .counts
                    .insert((user.clone(), device.clone()), count);
            }
        }
        self.check_leaves(s, body, about)
    }

    fn take_sent_event(&mut self, s: usize, number: usize, event: &Value, about: &str) -> Check {
        let id = event["event_id"].as_str().unwrap_or_default();
        let Some(at) = self.history.events.iter().position(|e| e.id == id) else {
            return broken(
                "a service is sent what was committed",
                format!("{about}: {event}"),
            );
        };
        if !self.due[at].contains_key(&s) {
            return broken(
                "nothing is sent to a service beyond its interest",
                format!("{about}: {event}"),
            );
        }
        let received = &mut self.services[s].received;
        if received.last_event.is_some_and(|last| last >= at) {
            return broken(
                "events come once, and in their order",
                format!("{about}: {event}"),
            );
        }
        received.last_event = Some(at);
        received.events.insert(at, number);
        Ok(())
    }

    fn take_sent_message(
        &mut self,
        s: usize,
        number: usize,
        message: &Value,
        about: &str,
    ) -> Check {
        let n = message["content"]["n"].as_u64().unwrap_or_default();
        let (user, device) = (
            message["to_user_id"].as_str(),
            message["to_device_id"].as_str(),
        );
        let found = self.messages.iter().position(|m| {
            let to = &self.devices[m.device];
            m.n == n && Some(to.user.as_str()) == user && Some(to.id.as_str()) == device
        });
        let Some(at) = found else {
            return broken(
                "a service is sent what was committed",
                format!("{about}: {message}"),
            );
        };
        let sent = &mut self.messages[at];
        let Some(_) = sent.due.get(&s) else {
            return broken(
                "nothing is sent to a service beyond its interest and consent",
                format!("{about}: {message}"),
            );
        };
        if sent.took.insert(s, number).is_some() {
            return broken(
                "a message is given to a service once",
                format!("{about}: {message}"),
            );
        }
        let late = self.services[s]
            .received
            .events
            .iter()
            .find(|(event, in_txn)| **event >= sent.at && **in_txn < number);
        if let Some((event, _)) = late.filter(|_| sent.prompt) {
            let event = &self.history.events[*event];
            return broken(
                "a key never comes after the event that it decrypts",
                format!("{about}: {message} was answered before {event:?} was sent"),
            );
        }
        Ok(())
    }

    fn take_sent_user(
        &mut self,
        s: usize,
        number: usize,
        section: &'static str,
        user: String,
        about: &str,
    ) -> Check {
        let service = &mut self.services[s];
        let own = service.registration.claims(&user).is_some();
        let ever = service.ever_claims(&user);
        if !service.received.knew.contains(&user) && !ever {
            return broken(
                "nothing is sent to a service beyond its interest",
                format!("{about}: {section} {user}"),
            );
        }
        // Where the namespaces have changed, a `left` computed under the earlier ones may still be in flight.
        let as_ever = service.ever.len() == service.registration.users.len();
        if own && as_ever && section == "left" {
            return broken(
                "the users of a service never leave it",
                format!("{about}: {user}"),
            );
        }
        if section == "changed" || !own {
            service
                .received
                .reported
                .entry(user.clone())
                .or_default()
                .push(number);
        }
        service.received.named_in.insert(user, section);
        Ok(())
    }

    /// Check that a leave from the last room that an appservice shares with a user is sent in one transaction with the user's
    /// `left`.
    fn check_leaves(&mut self, s: usize, body: &Value, about: &str) -> Check {
        if !self.device_lists_on {
            return Ok(());
        }
        let shared = self.shared();
        for event in body["events"].as_array().into_iter().flatten() {
            let id = event["event_id"].as_str().unwrap_or_default();
            let at = self
                .history
                .events
                .iter()
                .position(|e| e.id == id)
                .unwrap_or_default();
            for (service, user) in &self.ended[at] {
                let tracked = self.services[s].received.named_in.get(user) == Some(&"changed");
                let own = self.services[s].ever_claims(user);
                if *service == s && tracked && !own && !shared[s].contains(user) {
                    return broken(
                        "a leave and its `left` travel together",
                        format!("{about}: {user} left with {event}"),
                    );
                }
            }
        }
        Ok(())
    }
}
