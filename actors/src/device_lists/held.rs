//! What an open line of the device-list log holds back.

use std::collections::BTreeSet;

use schema::device_log::{self, Kind, LogEntry};
use schema::{Conn, Position, service_rooms, tracked};

use crate::Result;
use crate::services::{Interests, Service};

/// The most open lines that are looked at for one service. Where more are open, the next one counts as one that concerns it.
const OPEN: usize = 200;

/// A line of the log that the pass has not read yet, and that concerns a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenLine {
    /// Its place in the order.
    pub(crate) position: Position,
    /// The event that it is about, if there is one, or the line itself: nothing from here on may be sent to the service.
    pub(crate) covers: Position,
}

impl OpenLine {
    /// The position up to which a transaction may go.
    #[must_use]
    pub(crate) fn settled_up_to(held: Option<OpenLine>, head: Position) -> Position {
        held.map_or(head, |line| line.covers.before().min(head))
    }
}

// ANCHOR: held_by
/// The first open line that concerns this service, up to a position. No transaction of the service is cut above what it covers, so
/// that an event travels with the device-list changes that follow from it.
///
/// A line concerns the services that the pass may tell something because of it: those that track its user, those with a member in
/// its room or, for changed keys, in any room of the user, those of which it is an own user; and of a first or last member the
/// service alone. What was true when the line was written and is not any more has left an open line of its own.
pub(crate) fn held_by(
    db: &mut Conn,
    interests: &Interests,
    service: &Service,
    head: Position,
) -> Result<Option<OpenLine>> {
    if !service.takes_device_lists {
        return Ok(None);
    }
    let limit = i64::try_from(OPEN + 1).unwrap_or(i64::MAX);
    let mut lines = device_log::open_lines(db, head, limit)?;
    let beyond = (lines.len() > OPEN).then(|| lines.pop()).flatten();
    let users_of = |kinds: &[Kind]| -> Vec<String> {
        let lines = lines.iter().filter(|l| kinds.contains(&l.kind));
        let users: BTreeSet<&str> = lines.map(|l| l.user_id.as_str()).collect();
        users.into_iter().map(str::to_owned).collect()
    };
    let people = users_of(&[Kind::Keys, Kind::Member]);
    let tracked = tracked::tracked_among(db, &service.id, &people)?;
    let sharing = service_rooms::sharing_among(db, &service.id, &users_of(&[Kind::Keys]))?;
    let rooms: BTreeSet<&str> = lines.iter().map(|l| l.room_id.as_str()).collect();
    let rooms = service_rooms::rooms_among(db, &service.id, rooms)?;
    let concerns = |line: &LogEntry| match line.kind {
        Kind::Private => false,
        Kind::Gained | Kind::Lost => line.service == service.id,
        Kind::Member => tracked.contains(&line.user_id) || rooms.contains(&line.room_id),
        Kind::Keys => {
            tracked.contains(&line.user_id)
                || sharing.contains(&line.user_id)
                || interests.claim(&service.id, &line.user_id).is_some()
        }
    };
    let found = lines.iter().find(|line| concerns(line));
    Ok(found.or(beyond.as_ref()).map(|line| OpenLine {
        position: line.position,
        covers: line.covers,
    }))
}
// ANCHOR_END: held_by
