//! Summaries of rooms for users that have not joined them, and the rooms of a space. ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#spaces

use std::collections::BTreeSet;

use ruma::{OwnedRoomId, RoomId, UserId};
use schema::events::EventRow;
use schema::rooms::RoomRow;
use schema::{Conn, events, memberships, rooms};
use serde_json::{Map, Value, json};

use super::access::present;
use super::directory::listed;
use crate::rooms::rules::format::content;
use crate::rooms::rules::rooms_that_admit;
use crate::{Env, Identity, Refusal, Result};

/// The most rooms of a page of a space.
const PAGE: usize = 50;

/// The most rooms of a space that are read, and the most children of one room.
const ROOMS: usize = 1000;

/// The summary of a room, as JSON. ([spec])
///
/// # Errors
/// [`Refusal::NotFound`] for a room that does not exist or that the caller may not see a summary of.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias
pub async fn summary(env: &Env, by: Option<&Identity>, room: &RoomId) -> Result<Value> {
    let (user, room) = (by.map(|by| by.user.clone()), room.to_owned());
    env.store
        .read(move |db| {
            let user = user.as_deref();
            let row = rooms::room(db, room.as_str())?;
            let Some(summary) = row.map(|row| of(db, user, &row)).transpose()?.flatten() else {
                let text = "there is no such room, or you may not see it";
                return Err(Refusal::NotFound(text.into()).into());
            };
            let mut summary = summary;
            if let Some(user) = user
                && let Some(row) = memberships::get(db, room.as_str(), user.as_str())?
            {
                summary.insert("membership".to_owned(), row.membership.into());
            }
            Ok(Value::Object(summary))
        })
        .await
}

/// The summary of a room; `None` if the user may not see it.
fn of(db: &mut Conn, user: Option<&UserId>, row: &RoomRow) -> Result<Option<Map<String, Value>>> {
    let join_rules = events::state(db, &row.room_id, "m.room.join_rules", "")?;
    let rule = Rule::of(join_rules.as_ref())?;
    if !may_know(db, user, row, &rule)? {
        return Ok(None);
    }
    let Value::Object(mut summary) = serde_json::to_value(listed(db, row)?)? else {
        return Ok(None);
    };
    summary.insert("join_rule".to_owned(), rule.name.clone().into());
    summary.insert("room_version".to_owned(), row.version.clone().into());
    if rule.is_restricted() {
        summary.insert("allowed_room_ids".to_owned(), json!(rule.rooms));
    }
    if let Some(event) = events::state(db, &row.room_id, "m.room.encryption", "")? {
        let content: Value = serde_json::from_str(content(&event)?.get())?;
        if let Some(algorithm) = content.get("algorithm").filter(|a| a.is_string()) {
            summary.insert("encryption".to_owned(), algorithm.clone());
        }
    }
    Ok(Some(summary))
}

/// The content of a join rules event.
struct Rule {
    name: String,
    /// The rooms whose members a restricted room admits.
    rooms: Vec<String>,
}

impl Rule {
    fn of(event: Option<&EventRow>) -> Result<Rule> {
        let Some(event) = event else {
            return Ok(Rule {
                name: "invite".to_owned(),
                rooms: Vec::new(),
            });
        };
        let content = content(event)?;
        let parsed: Value = serde_json::from_str(content.get())?;
        let name = parsed.get("join_rule").and_then(Value::as_str);
        Ok(Rule {
            name: name.unwrap_or("invite").to_owned(),
            rooms: rooms_that_admit(content),
        })
    }

    fn is_restricted(&self) -> bool {
        matches!(self.name.as_str(), "restricted" | "knock_restricted")
    }
}

/// Whether a user may see the summary of a room: the join rule lets the user join or knock, or the room is world-readable, or the
/// user is joined or invited. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy
fn may_know(db: &mut Conn, user: Option<&UserId>, row: &RoomRow, rule: &Rule) -> Result<bool> {
    if matches!(rule.name.as_str(), "public" | "knock" | "knock_restricted") {
        return Ok(true);
    }
    let user = user.map_or("", UserId::as_str);
    if present(db, &row.room_id, user)?.is_world_readable {
        return Ok(true);
    }
    if let Some(own) = memberships::get(db, &row.room_id, user)?
        && matches!(own.membership.as_str(), "join" | "invite")
    {
        return Ok(true);
    }
    if rule.is_restricted() {
        for room in &rule.rooms {
            if memberships::is_joined(db, room, user)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Criteria for a page of the rooms of a space.
#[derive(Debug, Clone)]
pub struct SpacePage {
    /// The token of this page; `None` for the first.
    pub from: Option<String>,
    /// The most rooms.
    pub limit: usize,
    /// The most levels below the space.
    pub max_depth: Option<u64>,
    /// Only children that the space marks as suggested.
    pub suggested_only: bool,
}

/// The rooms of a space.
#[derive(Debug)]
pub struct Hierarchy {
    /// The rooms, the space itself first, in depth-first order, each with its `m.space.child` events.
    pub rooms: Vec<Value>,
    /// The token of the next page.
    pub next: Option<String>,
}

/// A page of the rooms of a space. ([spec])
///
/// # Errors
/// [`Refusal::Forbidden`], [`Refusal::InvalidParam`] for a token of a request with other criteria.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy
pub async fn hierarchy(
    env: &Env,
    by: &Identity,
    room: &RoomId,
    page: SpacePage,
) -> Result<Hierarchy> {
    let (by, room) = (by.clone(), room.to_owned());
    env.store
        .read(move |db| {
            let skip = page.skip()?;
            let limit = page.limit.clamp(1, PAGE);
            let mut walk = Walk {
                user: &by.user,
                page: &page,
                seen: BTreeSet::new(),
                rooms: Vec::new(),
                most: skip.saturating_add(limit).saturating_add(1),
            };
            walk.room(db, &room)?;
            let mut rooms = walk.rooms;
            if rooms.is_empty() {
                return Err(Refusal::Forbidden("you may not see this room".into()).into());
            }
            let goes_on = rooms.len() > skip.saturating_add(limit);
            rooms.truncate(skip.saturating_add(limit));
            rooms.drain(..skip.min(rooms.len()));
            Ok(Hierarchy {
                rooms,
                next: goes_on.then(|| page.token(skip + limit)),
            })
        })
        .await
}

impl SpacePage {
    /// A token holds how many rooms the pages before had, and the criteria of the request.
    fn token(&self, shown: usize) -> String {
        let depth = self.max_depth.map_or("-".to_owned(), |d| d.to_string());
        format!("{shown}_{depth}_{}", self.suggested_only)
    }

    fn skip(&self) -> Result<usize, Refusal> {
        let Some(from) = &self.from else {
            return Ok(0);
        };
        let shown = from.split('_').next().and_then(|n| n.parse().ok());
        shown
            .filter(|shown| *shown <= ROOMS && self.token(*shown) == *from)
            .ok_or_else(|| {
                Refusal::InvalidParam(
                    "this token is not from a request with these parameters".into(),
                )
            })
    }
}

/// A traversal of a space, depth first.
struct Walk<'a> {
    user: &'a UserId,
    page: &'a SpacePage,
    seen: BTreeSet<String>,
    rooms: Vec<Value>,
    /// The number of rooms at which it ends.
    most: usize,
}

impl Walk<'_> {
    fn room(&mut self, db: &mut Conn, root: &RoomId) -> Result<()> {
        let mut stack: Vec<(OwnedRoomId, u64)> = vec![(root.to_owned(), 0)];
        while let Some((room, depth)) = stack.pop() {
            let is_done = self.rooms.len() >= self.most || self.seen.len() >= ROOMS;
            if is_done || !self.seen.insert(room.to_string()) {
                continue;
            }
            let Some(row) = rooms::room(db, room.as_str())? else {
                continue;
            };
            let Some(mut summary) = of(db, Some(self.user), &row)? else {
                continue;
            };
            let is_space = summary.get("room_type") == Some(&json!("m.space"));
            let children = if is_space {
                self.children(db, &room)?
            } else {
                Vec::new()
            };
            let shown: Vec<&Value> = children.iter().map(|child| &child.event).collect();
            summary.insert("children_state".to_owned(), json!(shown));
            self.rooms.push(Value::Object(summary));
            let may_go_on = stack.len() < ROOMS;
            if may_go_on && self.page.max_depth.is_none_or(|most| depth < most) {
                let next = children.into_iter().rev();
                stack.extend(next.map(|child| (child.room, depth + 1)));
            }
        }
        Ok(())
    }

    /// The children of a space, sorted. ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#ordering-of-children-within-a-space
    fn children(&self, db: &mut Conn, room: &RoomId) -> Result<Vec<Child>> {
        let rows = events::current_state_of(db, room.as_str(), "m.space.child", ROOMS as i64)?;
        let mut children = Vec::new();
        for row in &rows {
            if let Some(child) = Child::of(row)?
                && (child.is_suggested || !self.page.suggested_only)
            {
                children.push(child);
            }
        }
        children.sort_by(|a, b| a.order.cmp(&b.order));
        Ok(children)
    }
}

/// A child of a space.
struct Child {
    room: OwnedRoomId,
    /// The sort key: whether `order` is missing, `order`, time, room id.
    order: (bool, String, i64, String),
    is_suggested: bool,
    event: Value,
}

impl Child {
    /// The child that a state event names; `None` without `via`, which is how a child is removed.
    fn of(row: &EventRow) -> Result<Option<Child>> {
        let content: Value = serde_json::from_str(content(row)?.get())?;
        let key = row.state_key.clone().unwrap_or_default();
        let Ok(room) = OwnedRoomId::try_from(key.as_str()) else {
            return Ok(None);
        };
        if !content.get("via").is_some_and(Value::is_array) {
            return Ok(None);
        }
        let order = content.get("order").and_then(Value::as_str);
        let order =
            order.filter(|o| o.len() <= 50 && o.bytes().all(|b| (b' '..=b'~').contains(&b)));
        Ok(Some(Child {
            room,
            order: (
                order.is_none(),
                order.unwrap_or_default().to_owned(),
                row.origin_server_ts,
                key.clone(),
            ),
            is_suggested: content.get("suggested") == Some(&Value::Bool(true)),
            event: json!({
                "type": row.kind,
                "state_key": key,
                "sender": row.sender,
                "origin_server_ts": row.origin_server_ts,
                "content": content,
            }),
        }))
    }
}
