//! Receipts and read markers.

use actix::{Context, Handler, ResponseFuture};
use schema::receipts::{self, ReceiptRow};
use schema::{Tx, events, memberships, user_data};

use super::Rooms;
use super::effects::Effects;
use super::messages::{MarkRead, ReadMarker, ReadMarkerKind};
use super::rules;
use crate::accounts::account_data;
use crate::hooks::{Change, ReportsChanges};
use crate::runtime::wake::NewReceipt;
use crate::{Refusal, Result};

impl Handler<MarkRead> for Rooms {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: MarkRead, _: &mut Context<Self>) -> Self::Result {
        let now = self.env.clock.now();
        self.commit(move |_, tx, effects| mark(tx, &msg, now, effects))
    }
}

/// The account data type of a user's fully-read marker. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#mfully_read
const FULLY_READ: &str = "m.fully_read";

/// Store a user's receipts and fully-read marker. A mark never moves back. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-3
pub(crate) fn mark(tx: &mut Tx<'_>, msg: &MarkRead, now: i64, effects: &mut Effects) -> Result<()> {
    let (room, user) = (msg.room.as_str(), msg.by.user.as_str());
    if !memberships::is_joined(tx, room, user)? {
        return Err(Refusal::Forbidden("you are not in this room".into()).into());
    }
    for mark in &msg.marks {
        rules::check_name("the thread", &mark.thread)?;
        rules::check_event_id(&mark.event)?;
    }
    for mark in &msg.marks {
        // Deviation: bridges mark events of other servers, and clients mark events that the server has not received yet. Such a
        // mark is ignored and is no error.
        let event = events::by_id(tx, &mark.event)?.filter(|e| e.room_id == room);
        let Some(event) = event else {
            continue;
        };
        if before(tx, room, user, mark)?.is_some_and(|p| p >= event.position) {
            continue;
        }
        match kind(mark.kind) {
            Some(kind) => {
                let row = ReceiptRow {
                    room_id: room.to_owned(),
                    user_id: user.to_owned(),
                    kind: kind.to_owned(),
                    thread_id: mark.thread.clone(),
                    event_id: event.event_id,
                    ts: now,
                    position: tx.next_position().0,
                };
                receipts::put(tx, &row)?;
                tx.changed(&Change::Receipt {
                    room: msg.room.as_str(),
                    user: msg.by.user.as_str(),
                    kind: &row.kind,
                    event: &row.event_id,
                    thread: &row.thread_id,
                })?;
                effects.receipts.push(NewReceipt {
                    room: msg.room.clone(),
                    user: msg.by.user.clone(),
                    kind: row.kind,
                    event: row.event_id,
                    ts: row.ts,
                    thread: row.thread_id,
                });
            }
            None => {
                let content = serde_json::json!({ "event_id": event.event_id }).to_string();
                let put = account_data::put(tx, user, room, FULLY_READ, &content)?;
                effects.services.extend(put.services);
            }
        }
        match mark.kind {
            // Private: only the user's own devices are notified.
            ReadMarkerKind::ReadPrivate | ReadMarkerKind::FullyRead => {
                effects.users.insert(msg.by.user.clone());
            }
            ReadMarkerKind::Read => {
                effects.rooms.insert(msg.room.clone());
            }
        }
    }
    Ok(())
}

/// The receipt type of a mark; `None` for the fully-read marker, which is account data.
fn kind(mark: ReadMarkerKind) -> Option<&'static str> {
    match mark {
        ReadMarkerKind::Read => Some("m.read"),
        ReadMarkerKind::ReadPrivate => Some("m.read.private"),
        ReadMarkerKind::FullyRead => None,
    }
}

/// The position of the event to which the user's mark of this kind points now.
fn before(tx: &mut Tx<'_>, room: &str, user: &str, mark: &ReadMarker) -> Result<Option<i64>> {
    #[derive(serde::Deserialize)]
    struct FullyRead {
        event_id: String,
    }
    let event = match kind(mark.kind) {
        Some(kind) => receipts::get(tx, room, user, kind, &mark.thread)?.map(|r| r.event_id),
        None => user_data::get(tx, user, room, FULLY_READ)?
            .and_then(|text| serde_json::from_str::<FullyRead>(&text).ok())
            .map(|content| content.event_id),
    };
    match event {
        Some(id) => Ok(events::by_id(tx, &id)?.map(|e| e.position)),
        None => Ok(None),
    }
}
