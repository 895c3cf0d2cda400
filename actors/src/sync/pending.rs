//! What application services have still to be told of typing, receipts and presence: in memory, one word for each thing,
//! only while it is fresh, and nothing for a service that is down. ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/application-service-api/#pushing-ephemeral-data

use std::collections::BTreeMap;

use schema::ServiceId;
use serde_json::value::{RawValue, to_raw_value};

use super::fleeting::Fleeting;
use super::rules::{self, Receipt};
use crate::Result;
use crate::runtime::wake::NewReceipt;

/// How long a word is worth anything, in milliseconds. What a service that is slow did not take by then is dropped.
const FRESH: i64 = 30_000;

/// How many words wait for one service. Beyond that the oldest are dropped.
const MOST: usize = 1000;

/// What a word is about. The order is that in which they are sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// Who is typing in a room.
    Typing(String),
    /// How far a user has read in a room: its receipt of a type, in a thread.
    Receipt {
        room: String,
        user: String,
        kind: String,
        thread: String,
    },
    /// Whether a user is online.
    Presence(String),
}

/// The last word on something. Only of a receipt it is kept what was said: who types and who is online is known.
#[derive(Debug)]
struct Word {
    /// When it was said, by [`Clock::monotonic`](crate::Clock::monotonic).
    at: i64,
    receipt: Option<Receipt>,
}

/// The words that wait, by service.
#[derive(Debug, Default)]
pub(super) struct Pending(BTreeMap<ServiceId, BTreeMap<Subject, Word>>);

impl Pending {
    /// Somebody began or ceased to type in a room.
    pub(super) fn typing(&mut self, service: &ServiceId, room: &str, now: i64) {
        self.say(service, Subject::Typing(room.to_owned()), None, now);
    }

    /// A user came or went.
    pub(super) fn presence(&mut self, service: &ServiceId, user: &str, now: i64) {
        self.say(service, Subject::Presence(user.to_owned()), None, now);
    }

    /// A user has read.
    pub(super) fn receipt(&mut self, service: &ServiceId, receipt: &NewReceipt, now: i64) {
        let subject = Subject::Receipt {
            room: receipt.room.to_string(),
            user: receipt.user.to_string(),
            kind: receipt.kind.clone(),
            thread: receipt.thread.clone(),
        };
        self.say(service, subject, Some(receipt.into()), now);
    }

    // ANCHOR: say
    /// The last word on something is the one that counts, so a storm is one word; beyond [`MOST`] the oldest goes.
    fn say(&mut self, service: &ServiceId, subject: Subject, receipt: Option<Receipt>, at: i64) {
        let words = self.0.entry(service.clone()).or_default();
        if words.len() >= MOST && !words.contains_key(&subject) {
            let oldest = words.iter().min_by_key(|(_, word)| word.at);
            if let Some(oldest) = oldest.map(|(subject, _)| subject.clone()) {
                words.remove(&oldest);
            }
        }
        words.insert(subject, Word { at, receipt });
    }
    // ANCHOR_END: say

    /// Nothing waits for this service any more.
    pub(super) fn forget(&mut self, service: &ServiceId) {
        self.0.remove(service);
    }

    /// Take what waits for a service, as its transaction carries it: with the room, at most `limit` events. The rest stays.
    ///
    /// # Errors
    /// When an id is damaged.
    pub(super) fn take(
        &mut self,
        service: &ServiceId,
        limit: usize,
        fleeting: &Fleeting,
        now: i64,
    ) -> Result<Vec<Box<RawValue>>> {
        let Some(mut words) = self.0.remove(service) else {
            return Ok(Vec::new());
        };
        words.retain(|_, word| now - word.at <= FRESH);
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some((subject, word)) = words.pop_first()
        {
            match subject {
                Subject::Typing(room) => {
                    let typing = fleeting.typing(&room);
                    taken.push(to_raw_value(&rules::typing(Some(&room), &typing))?);
                }
                Subject::Receipt { room, .. } => {
                    let mut receipts: Vec<Receipt> = word.receipt.into_iter().collect();
                    while let Some(next) = words.first_entry()
                        && matches!(next.key(), Subject::Receipt { room: r, .. } if *r == room)
                    {
                        receipts.extend(next.remove().receipt);
                    }
                    for event in rules::receipts(Some(&room), &receipts) {
                        taken.push(to_raw_value(&event)?);
                    }
                }
                Subject::Presence(user) => {
                    if let Some(presence) = fleeting.presence(&user) {
                        taken.push(to_raw_value(&rules::presence(&user, &presence, now))?);
                    }
                }
            }
        }
        if !words.is_empty() {
            self.0.insert(service.clone(), words);
        }
        Ok(taken)
    }

    /// How many words wait for each service.
    pub(super) fn sizes(&self) -> BTreeMap<String, usize> {
        self.0
            .iter()
            .map(|(service, words)| (service.to_string(), words.len()))
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
    fn the_last_word_on_each_thing_is_taken_once() {
        let (mut pending, fleeting) = (Pending::default(), Fleeting::default());
        fleeting.set_typing("!r:test", "@a:test", Some(99), || Position(1));
        pending.typing(&service(), "!r:test", 5);
        pending.typing(&service(), "!r:test", 6);
        pending.receipt(&service(), &receipt("@a:test", "$1", 1), 6);
        pending.receipt(&service(), &receipt("@a:test", "$2", 2), 7);
        pending.receipt(&service(), &receipt("@b:test", "$2", 3), 8);
        let taken = pending.take(&service(), 100, &fleeting, 9).expect("words");
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
                .take(&service(), 100, &fleeting, 9)
                .expect("none")
                .is_empty()
        );
        assert!(pending.sizes().is_empty());
    }

    #[test]
    fn a_crowd_that_reads_is_one_event_and_bounded() {
        let (mut pending, fleeting) = (Pending::default(), Fleeting::default());
        for i in 0..MOST as i64 + 10 {
            let mut read = receipt(&format!("@{i}:test"), "$1", i);
            read.thread = (i % 2 * 7).to_string();
            pending.receipt(&service(), &read, i);
        }
        assert_eq!(pending.sizes()["irc"], MOST);
        let taken = pending.take(&service(), 100, &fleeting, 5).expect("words");
        assert_eq!(taken.len(), 1);
        let last = format!("@{}:test", MOST + 9);
        assert!(taken[0].get().contains(&last) && !taken[0].get().contains("@9:test"));
        assert!(pending.sizes().is_empty());
    }

    #[test]
    fn who_has_read_in_several_threads_is_in_as_many_events() {
        let (mut pending, fleeting) = (Pending::default(), Fleeting::default());
        for thread in ["", "main", "$thread"] {
            let mut read = receipt("@a:test", "$1", 1);
            read.thread = thread.to_owned();
            pending.receipt(&service(), &read, 1);
        }
        let taken = pending.take(&service(), 100, &fleeting, 1).expect("words");
        assert_eq!(taken.len(), 3);
        assert!(taken[1].get().contains(r#""thread_id":"$thread""#));
        pending.typing(&service(), "!r:test", 1);
        pending.forget(&service());
        assert!(pending.sizes().is_empty());
    }

    #[test]
    fn what_is_stale_or_too_much_is_dropped() {
        let (mut pending, fleeting) = (Pending::default(), Fleeting::default());
        for i in 0..=MOST as i64 {
            pending.typing(&service(), &format!("!{i}:test"), i);
        }
        assert_eq!(pending.sizes()["irc"], MOST);
        let now = FRESH + MOST as i64 - 1;
        let taken = pending.take(&service(), 1, &fleeting, now).expect("words");
        assert_eq!(taken.len(), 1);
        let rest = pending
            .take(&service(), 100, &fleeting, now)
            .expect("words");
        assert_eq!(rest.len(), 1, "two were fresh, and one was taken");
    }
}
