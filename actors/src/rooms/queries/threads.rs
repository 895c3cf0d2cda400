//! The threads of a room, each as its root event with a summary of the replies. ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#threading

use ruma::RoomId;
use schema::events::EventRow;
use schema::threads::{self, ThreadRow};
use schema::{Conn, Position, events};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::access::state_access_of_user;
use super::reader::RoomReader;
use crate::accounts::queries::ignored::Ignored;
use crate::rooms::rules::token;
use crate::rooms::rules::visibility::StateAccess;
use crate::{Env, Identity, Result};

/// The most threads of a page.
const PAGE: usize = 100;

/// The most threads that are read for a page.
const LOOKED_AT: usize = 1000;

/// A page of a room's threads.
#[derive(Debug)]
pub struct ThreadPage {
    /// The root events, the thread with the newest reply first.
    pub chunk: Vec<Box<RawValue>>,
    /// The token of the next page.
    pub next: Option<String>,
}

/// Criteria for a page of threads.
#[derive(Debug, Clone)]
pub struct ThreadCriteria {
    /// Only threads whose last reply is at or before this position.
    pub from: Option<Position>,
    /// Only threads in which the user participates.
    pub participated: bool,
    /// The most threads.
    pub limit: usize,
}

/// A page of a room's threads. ([spec])
///
/// # Errors
/// [`Refusal::Forbidden`](crate::Refusal::Forbidden)
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidthreads
pub async fn threads(
    env: &Env,
    by: &Identity,
    room: &RoomId,
    page: ThreadCriteria,
) -> Result<ThreadPage> {
    let (now, by, room) = (env.clock.now(), by.clone(), room.to_owned());
    env.store
        .read(move |db| read(db, &by, &room, &page, now))
        .await
}

fn read(
    db: &mut Conn,
    by: &Identity,
    room: &RoomId,
    page: &ThreadCriteria,
    now: i64,
) -> Result<ThreadPage> {
    let until = match state_access_of_user(db, &by.user, room)? {
        StateAccess::Now => Position(i64::MAX),
        StateAccess::Until(left) => left,
    };
    let reader = RoomReader::new(by, room, now);
    let ignored = Ignored::of(db, by.user.as_str())?;
    let limit = page.limit.clamp(1, PAGE);
    let mut from = page.from.unwrap_or(until).min(until);
    let (mut chunk, mut looked_at) = (Vec::new(), 0);
    loop {
        let found = threads::newest_first(db, room.as_str(), from, PAGE as i64)?;
        for thread in &found {
            if chunk.len() == limit || looked_at == LOOKED_AT {
                let next = Some(token(Position(thread.latest)));
                return Ok(ThreadPage { chunk, next });
            }
            looked_at += 1;
            from = Position(thread.latest).before();
            if let Some(shown) = shown(db, &reader, &ignored, thread, page.participated)? {
                chunk.push(shown);
            }
        }
        if found.len() < PAGE {
            return Ok(ThreadPage { chunk, next: None });
        }
    }
}

/// The root event of a thread in client format; `None` if the user may not see it or the criteria leave it out.
fn shown(
    db: &mut Conn,
    reader: &RoomReader<'_>,
    ignored: &Ignored,
    thread: &ThreadRow,
    participated: bool,
) -> Result<Option<Box<RawValue>>> {
    let root = events::by_id(db, &thread.root)?.filter(|root| root.room_id == thread.room_id);
    let Some(root) = root.filter(|root| !ignored.hides(root)) else {
        return Ok(None);
    };
    let access = reader.access(db, std::slice::from_ref(&root))?;
    if !access.sees(Position(root.position)) {
        return Ok(None);
    }
    let takes_part = takes_part(db, reader.user(), &root)?;
    if participated && !takes_part {
        return Ok(None);
    }
    let latest = events::at(db, &[Position(thread.latest)])?;
    let seen: Vec<EventRow> = latest
        .into_iter()
        .filter(|latest| access.sees(Position(latest.position)))
        .collect();
    let latest = reader.show(db, &seen)?.pop();
    let Some(shown) = reader.show(db, &[root])?.pop() else {
        return Ok(None);
    };
    let mut shown: Value = serde_json::from_str(shown.get())?;
    shown["unsigned"]["m.relations"]["m.thread"] = json!({
        "latest_event": latest,
        "count": thread.replies,
        "current_user_participated": takes_part,
    });
    Ok(Some(to_raw_value(&shown)?))
}

/// Whether a user sent a thread's root event or a reply. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#server-side-aggregation-of-mthread-relationships
fn takes_part(db: &mut Conn, user: &str, root: &EventRow) -> Result<bool> {
    Ok(root.sender == user || threads::has_replied(db, &root.event_id, user)?)
}
