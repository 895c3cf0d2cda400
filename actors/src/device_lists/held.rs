//! Which items an open line of the device-list log holds back. A line of the log is open until the pass of `device_lists` has read
//! it. `freeze::next` asks; the sender then waits with `Wake::hold`, until `Wake::pass_has_read` wakes it (`runtime/wake/mod.rs`).
//!
//! Next on the way of a leave: `actors/src/appservice_sender/freeze.rs`.

use std::collections::BTreeSet;

use schema::device_log::{self, Kind, LogEntry};
use schema::{Conn, Position, service_rooms, tracked};

use crate::Result;
use crate::services::{Interests, Service};

/// At most this many lines of the log that `device_lists` has not read yet are checked for one appservice. If there are more, the
/// next one is taken to concern the appservice.
const OPEN: usize = 200;

/// A line of the device-list log that `device_lists` has not read yet, and that concerns an appservice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenLine {
    /// The position of the line.
    pub(crate) position: Position,
    /// The position of the event that caused the line, or of the line itself if no event did. While the line is open, nothing
    /// at or above this position may be sent to the appservice.
    pub(crate) covers: Position,
}

impl OpenLine {
    /// The highest position whose items a transaction may carry.
    pub(crate) fn settled_up_to(held: Option<OpenLine>, head: Position) -> Position {
        held.map_or(head, |line| line.covers.before().min(head))
    }
}

// ANCHOR: held_by
/// The first open line up to `head` that concerns this appservice. No transaction of the appservice goes above the position
/// that the line covers, so that an event travels with the device-list changes that follow from it. Clause: as.lists.on-retry
///
/// A line concerns the appservices to which the pass may owe something because of it: those that track its user; those with a
/// member in its room or, for changed keys, in any room of the user; those of which the user is an own user. The line of a
/// first or last member concerns only the appservice that it names. If such a condition has ended since the line was written,
/// the change that ended it has an open line of its own. Clause: own.lists.with-the-leave
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
