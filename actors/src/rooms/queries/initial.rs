//! `/rooms/{roomId}/initialSync`, a deprecated endpoint: a room's state, last events and account data in one answer.

use ruma::RoomId;
use schema::{Conn, Position, events, memberships, rooms, user_data};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::access::state_access;
use super::reader::{HistoryRange, RoomReader};
use super::state::state_rows;
use crate::rooms::rules::token;
use crate::rooms::rules::visibility::StateAccess;
use crate::services::CarriesInterests;
use crate::{Env, Identity, Result};

/// How many of the newest events are shown.
const MESSAGES: usize = 20;

/// The most account data events that are shown.
const ACCOUNT_DATA: i64 = 1000;

/// The answer of [`initial_sync`].
#[derive(Debug)]
pub struct InitialSync {
    /// The user's membership, if there is or was one.
    pub membership: Option<String>,
    /// The token from which a backward page continues.
    pub start: String,
    /// The token of the newest event.
    pub end: String,
    /// The last events that the user may see, oldest first.
    pub chunk: Vec<Box<RawValue>>,
    /// The current state, or the state when the user left.
    pub state: Vec<Box<RawValue>>,
    /// Whether the room directory lists the room.
    pub is_listed: bool,
    /// The user's account data for the room.
    pub account_data: Vec<Box<RawValue>>,
}

/// The state and newest events of a room, for a user that is or was joined. ([spec])
///
/// # Errors
/// [`Refusal::Forbidden`](crate::Refusal::Forbidden)
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidinitialsync
pub async fn initial_sync(env: &Env, by: &Identity, room: &RoomId) -> Result<InitialSync> {
    let (interests, now) = (env.store.interests(), env.clock.now());
    let (by, room) = (by.clone(), room.to_owned());
    env.store
        .read(move |db| {
            let access = state_access(db, &interests, &by, &room)?;
            let until = match access {
                StateAccess::Now => Position(i64::MAX),
                StateAccess::Until(left) => left,
            };
            let newest = events::newest_first(db, room.as_str(), Position::START, until, 1)?;
            let newest = newest
                .first()
                .map_or(Position::START, |e| Position(e.position));
            let range = HistoryRange {
                low: Position::START,
                high: newest,
                backwards: true,
            };
            let reader = RoomReader::new(&by, &room, now);
            let mut walked = reader.walk(db, &range, MESSAGES, &Default::default())?;
            walked.rows.reverse();
            let state = state_rows(db, &room, access)?;
            Ok(InitialSync {
                membership: memberships::get(db, room.as_str(), by.user.as_str())?
                    .map(|m| m.membership),
                start: token(walked.end),
                end: token(newest),
                chunk: reader.show(db, &walked.rows)?,
                state: reader.show_state(db, &state)?,
                is_listed: rooms::room(db, room.as_str())?.is_some_and(|row| row.is_public),
                account_data: account_data(db, &by, &room)?,
            })
        })
        .await
}

fn account_data(db: &mut Conn, by: &Identity, room: &RoomId) -> Result<Vec<Box<RawValue>>> {
    #[derive(Serialize)]
    struct Data<'a> {
        content: &'a RawValue,
        r#type: &'a str,
    }
    let head = schema::sync::head(db)?;
    let rows = user_data::of_room(db, by.user.as_str(), room.as_str(), head, ACCOUNT_DATA)?;
    rows.iter()
        .map(|row| {
            Ok(to_raw_value(&Data {
                content: serde_json::from_str(&row.content)?,
                r#type: &row.kind,
            })?)
        })
        .collect()
}
