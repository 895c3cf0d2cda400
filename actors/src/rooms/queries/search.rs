//! Search in the messages, names and topics of a user's rooms. ([spec])
//!
//! There is no index. The rooms that the user is joined to are read backwards, merged by position, until a page is full or
//! [`LOOKED_AT`] events are read; the next page continues there. Encrypted events and rooms that the user left are not searched.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#server-side-search

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ruma::RoomId;
use ruma::api::client::filter::RoomEventFilter;
use schema::events::EventRow;
use schema::{Conn, Position, events, memberships};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::access::access;
use super::reader::{HistoryRange, RoomReader};
use super::state::state_rows;
use crate::accounts::queries::ignored::Ignored;
use crate::rooms::rules::filter;
use crate::rooms::rules::format::content;
use crate::rooms::rules::parsed;
use crate::rooms::rules::visibility::{HistoryAccess, StateAccess};
use crate::rooms::rules::{parse_token, token};
use crate::{Env, Identity, Result};

/// The most results of a page.
const PAGE: usize = 50;

/// The most events around a result, on each side.
const AROUND: usize = 20;

/// The most rooms that one request searches.
const ROOMS: usize = 200;

/// The most events that are read for a page.
const LOOKED_AT: usize = 10_000;

/// How many events of a room are read at a time.
const PIECE: i64 = 50;

/// What is searched: event types, each with the key of its content.
const KEYS: [(&str, &str); 3] = [
    ("m.room.message", "body"),
    ("m.room.name", "name"),
    ("m.room.topic", "topic"),
];

/// The criteria of a search.
#[derive(Debug, Clone, Default)]
pub struct SearchRequest {
    /// Words that the text must all contain.
    pub term: String,
    /// Which of `KEYS` are searched, as `content.body`; empty for all.
    pub keys: Vec<String>,
    /// Which events are wanted.
    pub filter: RoomEventFilter,
    /// Newest first, instead of best match first.
    pub by_time: bool,
    /// How many events to return before and after each result, and whether with the profiles of their senders.
    pub around: Option<(usize, usize, bool)>,
    /// Whether to return the state of the rooms.
    pub state: bool,
    /// The keys to group results by: `room_id`, `sender`.
    pub groups: BTreeSet<String>,
    /// The `next_batch` of the previous page.
    pub from: Option<String>,
}

/// Search, and answer the category `room_events` as JSON. ([spec])
///
/// # Errors
/// [`Refusal::InvalidParam`](crate::Refusal::InvalidParam) for an invalid token.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3search
pub async fn search(env: &Env, by: &Identity, sought: SearchRequest) -> Result<Value> {
    let (now, by) = (env.clock.now(), by.clone());
    env.store
        .read(move |db| {
            let from = sought.from.as_deref().map(parse_token).transpose()?;
            let words: Vec<String> = sought
                .term
                .split_whitespace()
                .map(str::to_lowercase)
                .collect();
            let mut found = SearchResults::default();
            if !words.is_empty() {
                let mut sources = Sources::of(db, &by, &sought.filter, from)?;
                found = find(db, &by, &sought, &words, &mut sources)?;
            }
            if !sought.by_time {
                // The sort is stable: results of equal rank stay in order of time.
                found.results.sort_by_key(|r| std::cmp::Reverse(r.rank));
            }
            answer(db, &by, &sought, &words, found, now)
        })
        .await
}

/// An event that matches.
struct SearchMatch {
    event: EventRow,
    /// How often the words occur in it.
    rank: usize,
}

#[derive(Default)]
struct SearchResults {
    results: Vec<SearchMatch>,
    next: Option<Position>,
}

/// The rooms that are searched, each with the events that were read ahead, newest first.
struct Sources(Vec<RoomEvents>);

struct RoomEvents {
    room: String,
    rows: VecDeque<EventRow>,
    /// The position from which the next read goes backwards; `None` when the room is read to its start.
    up_to: Option<Position>,
}

impl Sources {
    fn of(
        db: &mut Conn,
        by: &Identity,
        filter: &RoomEventFilter,
        from: Option<Position>,
    ) -> Result<Sources> {
        let user = by.user.as_str();
        let rooms: Vec<String> = match &filter.rooms {
            Some(rooms) => {
                let mut joined = Vec::new();
                for room in rooms.iter().take(ROOMS) {
                    if memberships::is_joined(db, room.as_str(), user)? {
                        joined.push(room.to_string());
                    }
                }
                joined
            }
            None => schema::sync::joined_rooms(db, user, "", ROOMS as i64)?,
        };
        let is_left_out = |room: &String| filter.not_rooms.iter().any(|r| r.as_str() == room);
        let sources = rooms.into_iter().filter(|room| !is_left_out(room));
        let mut sources = Sources(
            sources
                .map(|room| RoomEvents {
                    room,
                    rows: VecDeque::new(),
                    up_to: Some(from.unwrap_or(Position(i64::MAX))),
                })
                .collect(),
        );
        for source in &mut sources.0 {
            source.fill(db)?;
        }
        Ok(sources)
    }

    /// The newest event, over all rooms, that was not returned yet.
    fn next(&mut self, db: &mut Conn) -> Result<Option<EventRow>> {
        let newest = self
            .0
            .iter_mut()
            .max_by_key(|source| source.rows.front().map(|row| row.position));
        let Some(source) = newest else {
            return Ok(None);
        };
        let row = source.rows.pop_front();
        if source.rows.is_empty() {
            source.fill(db)?;
        }
        Ok(row)
    }
}

impl RoomEvents {
    fn fill(&mut self, db: &mut Conn) -> Result<()> {
        let Some(up_to) = self.up_to else {
            return Ok(());
        };
        let rows = events::newest_first(db, &self.room, Position::START, up_to, PIECE)?;
        let is_last = i64::try_from(rows.len()).is_ok_and(|n| n < PIECE);
        self.up_to = rows
            .last()
            .filter(|_| !is_last)
            .map(|row| Position(row.position).before());
        self.rows = rows.into();
        Ok(())
    }
}

fn find(
    db: &mut Conn,
    by: &Identity,
    sought: &SearchRequest,
    words: &[String],
    sources: &mut Sources,
) -> Result<SearchResults> {
    let ignored = Ignored::of(db, by.user.as_str())?;
    let mut accesses: BTreeMap<String, HistoryAccess> = BTreeMap::new();
    let limit = sought.filter.limit.map_or(10, u64::from);
    let limit = usize::try_from(limit).unwrap_or(PAGE).clamp(1, PAGE);
    let mut found = SearchResults::default();
    for _ in 0..LOOKED_AT {
        let Some(row) = sources.next(db)? else {
            found.next = None;
            return Ok(found);
        };
        let at = Position(row.position);
        if found.results.len() == limit {
            found.next = Some(at);
            return Ok(found);
        }
        found.next = Some(at.before());
        let Some(rank) = rank(&row, &sought.keys, words) else {
            continue;
        };
        if row.redacted_by.is_some() || ignored.hides(&row) {
            continue;
        }
        if !filter::lets_pass(&sought.filter, &row) {
            continue;
        }
        if !accesses.contains_key(&row.room_id) {
            let (user, end) = (by.user.as_str(), Position(i64::MAX));
            let access = access(db, &row.room_id, user, Position::START, end)?;
            accesses.insert(row.room_id.clone(), access);
        }
        let is_seen = accesses.get(&row.room_id).is_some_and(|a| a.sees(at));
        if is_seen {
            found.results.push(SearchMatch { event: row, rank });
        }
    }
    Ok(found)
}

/// How often the words occur in an event; `None` unless each of them does.
fn rank(event: &EventRow, keys: &[String], words: &[String]) -> Option<usize> {
    let (_, key) = KEYS.iter().find(|(kind, _)| *kind == event.kind)?;
    let is_asked = |asked: &String| asked.strip_prefix("content.") == Some(key);
    if !keys.is_empty() && !keys.iter().any(is_asked) {
        return None;
    }
    let content: Value = serde_json::from_str(content(event).ok()?.get()).ok()?;
    let text = content.get(key)?.as_str()?.to_lowercase();
    let counts = words.iter().map(|word| text.matches(word.as_str()).count());
    counts.map(|n| (n > 0).then_some(n)).sum::<Option<usize>>()
}

fn answer(
    db: &mut Conn,
    by: &Identity,
    sought: &SearchRequest,
    words: &[String],
    found: SearchResults,
    now: i64,
) -> Result<Value> {
    let mut answer = json!({
        "count": found.results.len(),
        "highlights": words,
        "results": [],
    });
    let mut results = Vec::new();
    for result in &found.results {
        let room: ruma::OwnedRoomId = parsed(&result.event.room_id)?;
        let reader = RoomReader::new(by, &room, now);
        let shown = reader.show(db, std::slice::from_ref(&result.event))?.pop();
        let mut one = json!({"rank": result.rank, "result": shown});
        if let Some(around) = sought.around {
            one["context"] = context(db, &reader, &result.event, around)?;
        }
        results.push(one);
    }
    if sought.state {
        answer["state"] = state(db, by, &found, now)?;
    }
    let groups = groups(&found, &sought.groups);
    if !groups.is_empty() {
        answer["groups"] = groups.into();
    }
    if let Some(next) = found.next {
        answer["next_batch"] = token(next).into();
    }
    answer["results"] = results.into();
    Ok(answer)
}

/// The events around a result.
fn context(
    db: &mut Conn,
    reader: &RoomReader<'_>,
    event: &EventRow,
    (before, after, with_names): (usize, usize, bool),
) -> Result<Value> {
    let at = Position(event.position);
    let none = RoomEventFilter::default();
    let back = HistoryRange {
        low: Position::START,
        high: at.before(),
        backwards: true,
    };
    let forth = HistoryRange {
        low: at,
        high: Position(i64::MAX),
        backwards: false,
    };
    let before = reader.walk(db, &back, before.min(AROUND), &none)?;
    let after = reader.walk(db, &forth, after.min(AROUND), &none)?;
    let mut context = json!({
        "start": token(before.end),
        "end": token(after.end),
        "events_before": reader.show(db, &before.rows)?,
        "events_after": reader.show(db, &after.rows)?,
    });
    if with_names {
        let all = before.rows.iter().chain([event]).chain(&after.rows);
        let senders: BTreeSet<&str> = all.map(|row| row.sender.as_str()).collect();
        let mut names = Map::new();
        for sender in senders {
            if let Some(row) = memberships::get(db, &event.room_id, sender)? {
                let name = json!({"displayname": row.display_name, "avatar_url": row.avatar_url});
                names.insert(sender.to_owned(), name);
            }
        }
        context["profile_info"] = names.into();
    }
    Ok(context)
}

/// The state of the rooms of the results.
fn state(db: &mut Conn, by: &Identity, found: &SearchResults, now: i64) -> Result<Value> {
    let rooms: BTreeSet<&str> = found
        .results
        .iter()
        .map(|r| r.event.room_id.as_str())
        .collect();
    let mut state = BTreeMap::<&str, Vec<Box<RawValue>>>::new();
    for room in rooms {
        let id = <&RoomId>::try_from(room)
            .map_err(|e| schema::Error::Damaged(format!("room id: {e}")))?;
        let rows = state_rows(db, id, StateAccess::Now)?;
        state.insert(room, RoomReader::new(by, id, now).show_state(db, &rows)?);
    }
    Ok(serde_json::to_value(state)?)
}

/// The results grouped by room or by sender.
fn groups(found: &SearchResults, wanted: &BTreeSet<String>) -> Map<String, Value> {
    let mut groups = Map::new();
    for key in wanted {
        let of = |row: &EventRow| match key.as_str() {
            "room_id" => Some(row.room_id.clone()),
            "sender" => Some(row.sender.clone()),
            _ => None,
        };
        let mut group: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for result in &found.results {
            if let Some(name) = of(&result.event) {
                group.entry(name).or_default().push(&result.event.event_id);
            }
        }
        let group: Map<String, Value> = group
            .into_iter()
            .enumerate()
            .map(|(order, (name, results))| (name, json!({"order": order, "results": results})))
            .collect();
        if !group.is_empty() {
            groups.insert(key.clone(), group.into());
        }
    }
    groups
}
