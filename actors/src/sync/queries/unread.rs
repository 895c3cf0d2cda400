//! The unread counts of a room, by the user's push rules. ([spec])
//!
//! Unread events are counted when a client syncs, over the events after the user's receipts. Sending an event does not update any
//! count, so members that never sync cost nothing. Counts are cached, so that the next answer counts new events only.
//!
//! For an encrypted event only the rules that do not read its content can be evaluated, above all `.m.rule.encrypted`. So it counts
//! as a notification if such a rule says so, but whether it is a highlight is unknown, and `highlight_count` is left out. If there
//! are unread encrypted events and no event notifies, `notification_count` is left out too: an explicit zero makes matrix-js-sdk
//! clear the count that it found by decrypting.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;
use ruma::events::AnySyncTimelineEvent;
use ruma::events::room::power_levels::RoomPowerLevelsEventContent;
use ruma::push::{PushConditionPowerLevelsCtx, PushConditionRoomCtx, Ruleset};
use ruma::room_version_rules::RoomPowerLevelsRules;
use ruma::serde::Raw;
use ruma::{OwnedUserId, UInt};
use schema::events::EventRow;
use schema::receipts::ReceiptRow;
use schema::{Conn, Position, events, memberships, receipts, rooms, user_data};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::accounts::queries::ignored::Ignored;
use crate::accounts::rules::push_rules;
use crate::rooms::rules::format::content;
use crate::rooms::version_rules;
use crate::runtime::bounded::{Bounded, ENTRY};
use crate::{Error, Result};

/// The most events of a room that are counted. Deviation: older unread events are not counted.
const EVENTS: usize = 500;

/// The most events that are read for one answer. Further rooms have no counts.
const IN_ALL: usize = 10_000;

/// The most receipts of a user in a room that are read.
const RECEIPTS: i64 = 1000;

/// The most threads of a room whose counts are cached.
const THREADS: usize = 100;

/// The size of the cache in bytes: enough for some ten thousand pairs of user and room.
const REMEMBERED: usize = 8 << 20;

/// The thread id of events outside of threads. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#threaded-read-receipts
const MAIN: &str = "main";

/// Unread counts as clients get them; `None` for an unknown one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Unread {
    #[serde(skip_serializing_if = "Option::is_none")]
    highlight_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notification_count: Option<u64>,
}

/// The unread counts of a room: all events, or, by thread, those outside of threads and those of each thread.
#[derive(Debug, Default)]
pub(crate) struct RoomUnread {
    pub(crate) room: Option<Unread>,
    pub(crate) threads: BTreeMap<String, Unread>,
}

/// The numbers of unread events in a thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    notifications: u64,
    highlights: u64,
    encrypted: u64,
}

impl Count {
    fn add(self, other: Count) -> Count {
        Count {
            notifications: self.notifications + other.notifications,
            highlights: self.highlights + other.highlights,
            encrypted: self.encrypted + other.encrypted,
        }
    }

    fn unread_of(self) -> Unread {
        let is_plain = self.encrypted == 0;
        Unread {
            highlight_count: is_plain.then_some(self.highlights),
            notification_count: (is_plain || self.notifications > 0).then_some(self.notifications),
        }
    }
}

type ThreadCounts = BTreeMap<String, Count>;

/// Cached unread counts up to a position; valid as long as `basis` is the same.
#[derive(Debug, Clone)]
struct CachedCounts {
    basis: u64,
    up_to: Position,
    counts: ThreadCounts,
}

/// The cache of unread counts, by user and room.
#[derive(Debug)]
pub(crate) struct UnreadCache(Mutex<Bounded<(String, String), CachedCounts>>);

impl Default for UnreadCache {
    fn default() -> UnreadCache {
        let bounded = Bounded::new(
            REMEMBERED,
            |(user, room): &(String, String), known: &CachedCounts| {
                let threads = known.counts.keys();
                user.len() + room.len() + threads.map(|thread| ENTRY + thread.len()).sum::<usize>()
            },
        );
        UnreadCache(Mutex::new(bounded))
    }
}

impl UnreadCache {
    fn get(&self, user: &str, room: &str) -> Option<CachedCounts> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(user.to_owned(), room.to_owned()))
    }

    fn put(&self, user: &str, room: &str, now: CachedCounts) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.put((user.to_owned(), room.to_owned()), now);
    }
}

/// Counts unread events for one answer.
pub(crate) struct Counter<'a> {
    user: &'a str,
    ignored: &'a Ignored,
    cache: &'a UnreadCache,
    /// The user's push rules, and a fingerprint of them and of the ignored users; read when first needed.
    rules: Option<(Rc<Ruleset>, u64)>,
    /// How many events may still be read.
    left: usize,
}

impl<'a> Counter<'a> {
    pub(crate) fn new(user: &'a str, ignored: &'a Ignored, cache: &'a UnreadCache) -> Counter<'a> {
        Counter {
            user,
            ignored,
            cache,
            rules: None,
            left: IN_ALL,
        }
    }

    /// The unread counts of a room up to a position; none if [`IN_ALL`] events were read already.
    pub(crate) fn room(
        &mut self,
        db: &mut Conn,
        room_id: &str,
        head: Position,
        by_thread: bool,
    ) -> Result<RoomUnread> {
        if self.left < EVENTS {
            return Ok(RoomUnread::default());
        }
        let marks = Marks::of(db, room_id, self.user)?;
        let (rules, basis) = self.rules(db)?;
        let basis = fingerprint(&(basis, &marks));
        let mut known = self
            .cache
            .get(self.user, room_id)
            .filter(|known| known.basis == basis && known.up_to <= head)
            .unwrap_or(CachedCounts {
                basis,
                up_to: marks.all,
                counts: ThreadCounts::new(),
            });
        let mut rows = self.unseen(db, room_id, known.up_to, head)?;
        let is_redaction = |row: &EventRow| row.kind == "m.room.redaction";
        if rows.iter().any(is_redaction) && known.up_to != marks.all {
            // A counted event may be redacted now, so count again.
            known.counts.clear();
            rows = self.unseen(db, room_id, marks.all, head)?;
        }
        if !rows.is_empty() {
            let context = context(db, room_id, self.user)?;
            for row in rows.iter().rev() {
                self.count(row, &marks, &rules, &context, &mut known.counts);
            }
        }
        known.up_to = head;
        let unread = unread_of(&known.counts, by_thread);
        if known.counts.len() <= THREADS {
            self.cache.put(self.user, room_id, known);
        }
        Ok(unread)
    }

    fn rules(&mut self, db: &mut Conn) -> Result<(Rc<Ruleset>, u64)> {
        if let Some((rules, basis)) = &self.rules {
            return Ok((Rc::clone(rules), *basis));
        }
        let user: OwnedUserId = self.user.try_into().map_err(damaged)?;
        let stored = user_data::get(db, self.user, "", push_rules::KIND)?;
        let basis = fingerprint(&(&stored, self.ignored));
        let rules = Rc::new(push_rules::Content::of(&user, stored.as_deref())?.global);
        self.rules = Some((Rc::clone(&rules), basis));
        Ok((rules, basis))
    }

    fn unseen(
        &mut self,
        db: &mut Conn,
        room_id: &str,
        after: Position,
        head: Position,
    ) -> Result<Vec<EventRow>> {
        let rows = events::newest_first(db, room_id, after, head, EVENTS as i64)?;
        self.left = self.left.saturating_sub(rows.len());
        Ok(rows)
    }

    /// Count an event. An event by the user marks its thread as read up to there; a member event of the user marks all as read.
    /// ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
    fn count(
        &self,
        row: &EventRow,
        marks: &Marks,
        rules: &Ruleset,
        context: &PushConditionRoomCtx,
        counts: &mut ThreadCounts,
    ) {
        let thread = thread(row);
        if row.kind == "m.room.member" && row.state_key.as_deref() == Some(self.user) {
            counts.clear();
        } else if row.sender == self.user {
            counts.remove(&thread);
        } else if row.redacted_by.is_none()
            && !self.ignored.contains(&row.sender)
            && marks.is_unread(&thread, Position(row.position))
        {
            let one = judge(row, rules, context);
            if one != Count::default() {
                let count = counts.entry(thread).or_default();
                *count = count.add(one);
            }
        }
    }
}

fn damaged(error: impl std::fmt::Display) -> Error {
    Error::Storage(schema::Error::Damaged(error.to_string()))
}

fn fingerprint(basis: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    basis.hash(&mut hasher);
    hasher.finish()
}

/// The positions of a user's receipts.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
struct Marks {
    /// The unthreaded receipt.
    all: Position,
    /// The receipts of threads.
    threads: BTreeMap<String, Position>,
}

impl Marks {
    fn of(db: &mut Conn, room_id: &str, user: &str) -> Result<Marks> {
        let rows: Vec<ReceiptRow> = receipts::of_user(db, room_id, user, RECEIPTS)?;
        let mut marks = Marks::default();
        for row in rows {
            let Some(event) = events::by_id(db, &row.event_id)? else {
                continue;
            };
            let at = Position(event.position);
            if row.thread_id.is_empty() {
                marks.all = marks.all.max(at);
            } else {
                let mark = marks.threads.entry(row.thread_id).or_default();
                *mark = at.max(*mark);
            }
        }
        Ok(marks)
    }

    fn is_unread(&self, thread: &str, at: Position) -> bool {
        let mark = self.threads.get(thread).copied().unwrap_or_default();
        at > self.all.max(mark)
    }
}

/// The thread that an event is in: the id of its root event, or `main`.
fn thread(row: &EventRow) -> String {
    #[derive(serde::Deserialize)]
    struct Relation {
        rel_type: String,
        event_id: String,
    }
    #[derive(serde::Deserialize)]
    struct Content {
        #[serde(rename = "m.relates_to")]
        relates_to: Relation,
    }
    let content = content(row).ok();
    let parsed = content.and_then(|c| serde_json::from_str::<Content>(c.get()).ok());
    match parsed.map(|content| content.relates_to) {
        Some(relation) if relation.rel_type == schema::threads::REL_TYPE => relation.event_id,
        _ => MAIN.to_owned(),
    }
}

/// Evaluate the push rules for an event. ruma's function is async only for conditions that this server does not use.
fn judge(row: &EventRow, rules: &Ruleset, context: &PushConditionRoomCtx) -> Count {
    let Ok(json) = RawValue::from_string(row.pdu.clone()) else {
        return Count::default();
    };
    let event = Raw::<AnySyncTimelineEvent>::from_json(json);
    let actions = rules
        .get_actions(&event, context)
        .now_or_never()
        .unwrap_or_default();
    let notifies = actions.iter().any(|action| action.should_notify());
    let highlights = notifies && actions.iter().any(|action| action.is_highlight());
    Count {
        notifications: u64::from(notifies),
        highlights: u64::from(highlights),
        encrypted: u64::from(row.kind == "m.room.encrypted"),
    }
}

/// The properties of a room that push rules can refer to.
fn context(db: &mut Conn, room_id: &str, user: &str) -> Result<PushConditionRoomCtx> {
    let joined = rooms::room(db, room_id)?.map_or(0, |room| room.joined);
    let name = memberships::get(db, room_id, user)?.and_then(|row| row.display_name);
    let context = PushConditionRoomCtx::new(
        room_id.try_into().map_err(damaged)?,
        UInt::try_from(joined).unwrap_or_default(),
        user.try_into().map_err(damaged)?,
        name.unwrap_or_default(),
    );
    let levels = events::state(db, room_id, "m.room.power_levels", "")?;
    let levels = levels.and_then(|event| {
        serde_json::from_str::<RoomPowerLevelsEventContent>(content(&event).ok()?.get()).ok()
    });
    let Some(levels) = levels else {
        return Ok(context);
    };
    let creators = creators(db, room_id)?;
    Ok(context.with_power_levels(PushConditionPowerLevelsCtx::new(
        levels.users,
        levels.users_default,
        levels.notifications,
        creators,
    )))
}

/// The creators of a room, for room versions in which their power is infinite.
fn creators(db: &mut Conn, room_id: &str) -> Result<RoomPowerLevelsRules> {
    let version = rooms::room(db, room_id)?.map_or_else(String::new, |room| room.version);
    let rules = version_rules(&version)?;
    let mut creators: Vec<OwnedUserId> = Vec::new();
    if let Some(create) = events::state(db, room_id, "m.room.create", "")? {
        let content: Value = serde_json::from_str(content(&create)?.get())?;
        let others = content.get("additional_creators").and_then(Value::as_array);
        let others = others.into_iter().flatten().filter_map(Value::as_str);
        let all = others.chain([create.sender.as_str()]);
        creators.extend(all.filter_map(|id| id.try_into().ok()));
    }
    Ok(RoomPowerLevelsRules::new(&rules.authorization, creators))
}

/// Counts as clients get them: one sum, or one for each thread. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
fn unread_of(counts: &ThreadCounts, by_thread: bool) -> RoomUnread {
    if !by_thread {
        let sum = counts.values().copied().fold(Count::default(), Count::add);
        return RoomUnread {
            room: Some(sum.unread_of()),
            threads: BTreeMap::new(),
        };
    }
    let main = counts.get(MAIN).copied().unwrap_or_default();
    let threads = counts.iter().filter(|(thread, _)| *thread != MAIN);
    RoomUnread {
        room: Some(main.unread_of()),
        threads: threads
            .map(|(id, count)| (id.clone(), count.unread_of()))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_encryption_hides_are_left_out() {
        let count = |notifications, highlights, encrypted| Count {
            notifications,
            highlights,
            encrypted,
        };
        let cases = [
            (count(0, 0, 0), (Some(0), Some(0))),
            (count(3, 1, 0), (Some(3), Some(1))),
            (count(3, 1, 2), (Some(3), None)),
            // Encrypted events are unread and no rule notifies of them: neither number is known.
            (count(0, 0, 2), (None, None)),
        ];
        for (count, expected) in cases {
            let numbers = count.unread_of();
            let numbers = (numbers.notification_count, numbers.highlight_count);
            assert_eq!(numbers, expected, "{count:?}");
        }
    }
}
