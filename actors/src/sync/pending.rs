//! Ephemeral events that wait for application services: typing, receipts and presence. They are in memory only, one update for each
//! subject, dropped when they are old or the appservice is down. ([spec]) Clause: as.ephemeral.not-kept
//!
//! [spec]: https://spec.matrix.org/v1.19/application-service-api/#pushing-ephemeral-data

use std::collections::BTreeMap;

use schema::ServiceId;
use serde_json::value::{RawValue, to_raw_value};

use super::rules::{self, Receipt};
use super::volatile::VolatileState;
use crate::Result;
use crate::runtime::wake::{NewReceipt, ProposalEphemeral};

/// How long an update is kept, in milliseconds. What a slow appservice did not take by then is dropped.
const FRESH: i64 = 30_000;

/// The most updates that wait for one appservice. Above it the oldest are dropped.
const MOST: usize = 1000;

/// The subject of an ephemeral update. Updates are sent in the order of these variants.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// The typing users of a room.
    Typing(String),
    /// A user's receipt in a room: of a type, in a thread.
    Receipt {
        room: String,
        user: String,
        kind: String,
        thread: String,
    },
    /// The presence of a user.
    Presence(String),
    /// An event of a proposal: its type, and what the proposal distinguishes events of the type by.
    OfProposal(String, String),
}

/// The latest update of a subject. A receipt and the event of a proposal are stored in it; typing and presence are read when the update
/// is sent.
#[derive(Debug)]
struct Update {
    /// When it came, by [`Clock::monotonic`](crate::Clock::monotonic).
    at: i64,
    receipt: Option<Receipt>,
    event: Option<Box<RawValue>>,
}

impl Update {
    fn at(at: i64) -> Update {
        Update {
            at,
            receipt: None,
            event: None,
        }
    }
}

/// The ephemeral updates that wait, by appservice.
#[derive(Debug, Default)]
pub(super) struct PendingEphemeral(BTreeMap<ServiceId, BTreeMap<Subject, Update>>);

impl PendingEphemeral {
    /// A user began or stopped typing in a room.
    pub(super) fn typing(&mut self, service: &ServiceId, room: &str, now: i64) {
        self.put(service, Subject::Typing(room.to_owned()), Update::at(now));
    }

    /// A user's presence changed.
    pub(super) fn presence(&mut self, service: &ServiceId, user: &str, now: i64) {
        self.put(service, Subject::Presence(user.to_owned()), Update::at(now));
    }

    /// A user set a receipt.
    pub(super) fn receipt(&mut self, service: &ServiceId, receipt: &NewReceipt, now: i64) {
        let subject = Subject::Receipt {
            room: receipt.room.to_string(),
            user: receipt.user.to_string(),
            kind: receipt.kind.clone(),
            thread: receipt.thread.clone(),
        };
        let update = Update {
            receipt: Some(receipt.into()),
            ..Update::at(now)
        };
        self.put(service, subject, update);
    }

    /// A proposal sends an event.
    pub(super) fn of_proposal(&mut self, service: &ServiceId, event: &ProposalEphemeral, now: i64) {
        let subject = Subject::OfProposal(event.kind.clone(), event.subject.clone());
        let update = Update {
            event: Some(event.event.clone()),
            ..Update::at(now)
        };
        self.put(service, subject, update);
    }

    // ANCHOR: say
    /// Only the latest update of each subject is kept, so many changes at once become one update. Above [`MOST`] the oldest update
    /// is dropped.
    fn put(&mut self, service: &ServiceId, subject: Subject, update: Update) {
        let updates = self.0.entry(service.clone()).or_default();
        if updates.len() >= MOST && !updates.contains_key(&subject) {
            let oldest = updates.iter().min_by_key(|(_, update)| update.at);
            if let Some(oldest) = oldest.map(|(subject, _)| subject.clone()) {
                updates.remove(&oldest);
            }
        }
        updates.insert(subject, update);
    }
    // ANCHOR_END: say

    /// Drop the updates that wait for an appservice.
    pub(super) fn forget(&mut self, service: &ServiceId) {
        self.0.remove(service);
    }

    /// Take at most `limit` events for a transaction of an appservice, each with its room. The rest stays.
    ///
    /// # Errors
    /// When an event cannot be written as JSON.
    pub(super) fn take(
        &mut self,
        service: &ServiceId,
        limit: usize,
        volatile: &VolatileState,
        now: i64,
    ) -> Result<Vec<Box<RawValue>>> {
        let Some(mut updates) = self.0.remove(service) else {
            return Ok(Vec::new());
        };
        updates.retain(|_, update| now - update.at <= FRESH);
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some((subject, update)) = updates.pop_first()
        {
            match subject {
                Subject::Typing(room) => {
                    let typing = volatile.typing(&room);
                    taken.push(to_raw_value(&rules::typing(Some(&room), &typing))?);
                }
                Subject::Receipt { room, .. } => {
                    let mut receipts: Vec<Receipt> = update.receipt.into_iter().collect();
                    while let Some(next) = updates.first_entry()
                        && matches!(next.key(), Subject::Receipt { room: r, .. } if *r == room)
                    {
                        receipts.extend(next.remove().receipt);
                    }
                    for event in rules::receipts(Some(&room), &receipts) {
                        taken.push(to_raw_value(&event)?);
                    }
                }
                Subject::OfProposal(..) => taken.extend(update.event),
                Subject::Presence(user) => {
                    if let Some(presence) = volatile.presence(&user) {
                        taken.push(to_raw_value(&rules::presence(&user, &presence, now))?);
                    }
                }
            }
        }
        if !updates.is_empty() {
            self.0.insert(service.clone(), updates);
        }
        Ok(taken)
    }

    /// The number of updates that wait for each appservice.
    pub(super) fn sizes(&self) -> BTreeMap<String, usize> {
        self.0
            .iter()
            .map(|(service, updates)| (service.to_string(), updates.len()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema::Position;

    fn service() -> ServiceId {
        ServiceId::from("irc")
    }

    fn receipt(user: &str, event: &str, ts: i64) -> NewReceipt {
        NewReceipt {
            room: ruma::RoomId::parse("!r:test").expect("a room id"),
            user: ruma::UserId::parse(user).expect("a user id"),
            kind: "m.read".to_owned(),
            event: event.to_owned(),
            ts,
            thread: String::new(),
        }
    }

    #[test]
    fn the_latest_update_of_each_subject_is_taken_once() {
        let (mut pending, volatile) = (PendingEphemeral::default(), VolatileState::default());
        volatile.set_typing("!r:test", "@a:test", Some(99), || Position(1));
        pending.typing(&service(), "!r:test", 5);
        pending.typing(&service(), "!r:test", 6);
        pending.receipt(&service(), &receipt("@a:test", "$1", 1), 6);
        pending.receipt(&service(), &receipt("@a:test", "$2", 2), 7);
        pending.receipt(&service(), &receipt("@b:test", "$2", 3), 8);
        let taken = pending
            .take(&service(), 100, &volatile, 9)
            .expect("updates");
        let taken: Vec<&str> = taken.iter().map(|json| json.get()).collect();
        assert_eq!(
            taken,
            [
                r#"{"content":{"user_ids":["@a:test"]},"room_id":"!r:test","type":"m.typing"}"#,
                r#"{"content":{"$2":{"m.read":{"@a:test":{"ts":2},"@b:test":{"ts":3}}}},"room_id":"!r:test","type":"m.receipt"}"#,
            ]
        );
        assert!(
            pending
                .take(&service(), 100, &volatile, 9)
                .expect("none")
                .is_empty()
        );
        assert!(pending.sizes().is_empty());
    }

    #[test]
    fn receipts_of_many_users_are_one_event_and_bounded() {
        let (mut pending, volatile) = (PendingEphemeral::default(), VolatileState::default());
        for i in 0..MOST as i64 + 10 {
            let mut read = receipt(&format!("@{i}:test"), "$1", i);
            read.thread = (i % 2 * 7).to_string();
            pending.receipt(&service(), &read, i);
        }
        assert_eq!(pending.sizes()["irc"], MOST);
        let taken = pending
            .take(&service(), 100, &volatile, 5)
            .expect("updates");
        assert_eq!(taken.len(), 1);
        let last = format!("@{}:test", MOST + 9);
        assert!(taken[0].get().contains(&last) && !taken[0].get().contains("@9:test"));
        assert!(pending.sizes().is_empty());
    }

    #[test]
    fn receipts_of_a_user_in_several_threads_are_as_many_events() {
        let (mut pending, volatile) = (PendingEphemeral::default(), VolatileState::default());
        for thread in ["", "main", "$thread"] {
            let mut read = receipt("@a:test", "$1", 1);
            read.thread = thread.to_owned();
            pending.receipt(&service(), &read, 1);
        }
        let taken = pending
            .take(&service(), 100, &volatile, 1)
            .expect("updates");
        assert_eq!(taken.len(), 3);
        assert!(taken[1].get().contains(r#""thread_id":"$thread""#));
        pending.typing(&service(), "!r:test", 1);
        pending.forget(&service());
        assert!(pending.sizes().is_empty());
    }

    #[test]
    fn old_updates_and_those_above_the_limit_are_dropped() {
        let (mut pending, volatile) = (PendingEphemeral::default(), VolatileState::default());
        for i in 0..=MOST as i64 {
            pending.typing(&service(), &format!("!{i}:test"), i);
        }
        assert_eq!(pending.sizes()["irc"], MOST);
        let now = FRESH + MOST as i64 - 1;
        let taken = pending
            .take(&service(), 1, &volatile, now)
            .expect("updates");
        assert_eq!(taken.len(), 1);
        let rest = pending
            .take(&service(), 100, &volatile, now)
            .expect("updates");
        assert_eq!(rest.len(), 1, "two were fresh, and one was taken");
    }
}
