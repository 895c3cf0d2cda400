//! Reads a room's history for one user: filters by what the user may see, and formats for the client.

use ruma::RoomId;
use ruma::api::client::filter::RoomEventFilter;
use schema::events::EventRow;
use schema::{Conn, Position, events};
use serde_json::value::RawValue;

use super::access::access;
use super::client_events;
use crate::accounts::queries::ignored::Ignored;
use crate::rooms::rules::filter;
use crate::rooms::rules::format::EventFormat;
use crate::rooms::rules::visibility::HistoryAccess;
use crate::{Identity, Result};

/// The most events that are read for one page, so that a filter that matches nothing does not read the whole room.
pub(super) const LOOKED_AT: usize = 5000;

/// A user that reads a room.
pub(super) struct RoomReader<'a> {
    by: &'a Identity,
    room: &'a RoomId,
    now: i64,
}

/// A range of a room's history.
pub(super) struct HistoryRange {
    /// Begins after this position.
    pub(super) low: Position,
    /// Ends with this position.
    pub(super) high: Position,
    /// Whether it is read newest first.
    pub(super) backwards: bool,
}

/// What [`RoomReader::walk`] read.
pub(super) struct Walked {
    /// The events that the user may see and the filter matches, without those of ignored users, in the direction of the range.
    pub(super) rows: Vec<EventRow>,
    /// The position from which a further read continues.
    pub(super) end: Position,
    /// Whether the range may hold more.
    pub(super) more: bool,
    /// How many events were read.
    pub(super) looked_at: usize,
}

impl<'a> RoomReader<'a> {
    /// `now` is milliseconds since the epoch.
    pub(super) fn new(by: &'a Identity, room: &'a RoomId, now: i64) -> RoomReader<'a> {
        RoomReader { by, room, now }
    }

    /// The reading user's id.
    pub(super) fn user(&self) -> &'a str {
        self.by.user.as_str()
    }

    /// What the user may see from the oldest of these events on.
    pub(super) fn access(&self, db: &mut Conn, rows: &[EventRow]) -> Result<HistoryAccess> {
        let oldest = rows.iter().map(|e| e.position).min().unwrap_or_default();
        self.access_since(db, Position(oldest).before())
    }

    fn access_since(&self, db: &mut Conn, after: Position) -> Result<HistoryAccess> {
        let (room, user) = (self.room.as_str(), self.by.user.as_str());
        access(db, room, user, after, Position(i64::MAX))
    }

    /// Read a range until `limit` events are found, or [`LOOKED_AT`] are read.
    pub(super) fn walk(
        &self,
        db: &mut Conn,
        range: &HistoryRange,
        limit: usize,
        filter: &RoomEventFilter,
    ) -> Result<Walked> {
        let (mut low, mut high) = (range.low, range.high);
        let room = self.room.as_str();
        let ignored = Ignored::of(db, self.by.user.as_str())?;
        let (mut rows, mut looked_at, mut more) = (Vec::new(), 0, true);
        while more && rows.len() < limit && looked_at < LOOKED_AT {
            let piece = limit.clamp(20, 200);
            let most = i64::try_from(piece).unwrap_or(i64::MAX);
            let found = if range.backwards {
                events::newest_first(db, room, low, high, most)?
            } else {
                events::oldest_first(db, room, low, high, most)?
            };
            more = found.len() == piece;
            looked_at += found.len();
            let access = self.access(db, &found)?;
            for row in found {
                if rows.len() == limit {
                    more = true;
                    break;
                }
                let at = Position(row.position);
                if range.backwards {
                    high = at.before();
                } else {
                    low = at;
                }
                let is_wanted = filter::lets_pass(filter, &row) && !ignored.hides(&row);
                if is_wanted && access.sees(at) {
                    rows.push(row);
                }
            }
        }
        Ok(Walked {
            rows,
            end: if range.backwards { high } else { low },
            more,
            looked_at,
        })
    }

    /// Events in client format, each with the user's membership at the time.
    pub(super) fn show(&self, db: &mut Conn, rows: &[EventRow]) -> Result<Vec<Box<RawValue>>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let access = self.access(db, rows)?;
        let memberships: Vec<&str> = rows
            .iter()
            .map(|row| access.membership(Position(row.position)))
            .collect();
        client_events(db, rows, &memberships, &self.event_format(&access))
    }

    /// State events in client format.
    pub(super) fn show_state(
        &self,
        db: &mut Conn,
        rows: &[EventRow],
    ) -> Result<Vec<Box<RawValue>>> {
        let access = self.access_since(db, Position::START)?;
        client_events(db, rows, &[], &self.event_format(&access))
    }

    fn event_format<'d>(&'d self, access: &'d HistoryAccess) -> EventFormat<'d> {
        let device = self.by.device.as_ref();
        EventFormat {
            room_id: true,
            now: Some(self.now),
            reader: device.map(|device| (self.by.user.as_str(), device.as_str())),
            access: Some(access),
            ..EventFormat::default()
        }
    }

    /// The member events of the senders of `rows`, as of the newest row whose state the user may see.
    pub(super) fn senders(&self, db: &mut Conn, rows: &[EventRow]) -> Result<Vec<EventRow>> {
        let Some(then) = self.newest_with_state(db, rows)? else {
            return Ok(Vec::new());
        };
        let senders: std::collections::BTreeSet<&str> =
            rows.iter().map(|e| e.sender.as_str()).collect();
        let mut found = Vec::new();
        for sender in senders {
            let room = self.room.as_str();
            found.extend(events::state_as_of(
                db,
                room,
                "m.room.member",
                sender,
                then,
            )?);
        }
        self.seen_as_of(db, then, found)
    }

    /// Removes from `state`, the state of the room at `then`, the events that the reading user may not see: before its join, an
    /// invited user does not see state from before the invitation.
    pub(super) fn seen_as_of(
        &self,
        db: &mut Conn,
        then: Position,
        mut state: Vec<EventRow>,
    ) -> Result<Vec<EventRow>> {
        let access = self.access_since(db, Position::START)?;
        if !access.sees_whole_state(then) {
            state.retain(|row| access.sees(Position(row.position)));
        }
        Ok(state)
    }

    /// The position of the newest of these events whose state the user may see.
    pub(super) fn newest_with_state(
        &self,
        db: &mut Conn,
        rows: &[EventRow],
    ) -> Result<Option<Position>> {
        let access = self.access(db, rows)?;
        let seen = rows.iter().map(|row| Position(row.position));
        Ok(seen.filter(|at| access.sees_state(*at)).max())
    }
}
