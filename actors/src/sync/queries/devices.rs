//! The users whose devices a client must query again, or need not track any more, between two positions.

use std::collections::{BTreeMap, BTreeSet};

use schema::device_log::Kind;
use schema::device_log::LogEntry;
use schema::memberships::MembershipRow;
use schema::{Conn, Position, device_log, memberships, service_rooms};
use serde::Serialize;

use super::pieces::{all, joined_rooms};
use crate::Result;
use crate::sync::rules::{self, DeviceListChange, UserChanges};

/// How many rooms, or members of a room, are read at a time.
const PIECE: i64 = 1000;

/// The `device_lists` of an answer. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#extensions-to-sync
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SyncDeviceLists {
    /// Users whose devices to query again, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    /// Users to stop tracking, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<String>,
}

impl SyncDeviceLists {
    /// Whether both lists are empty.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.left.is_empty()
    }
}

/// The most log lines that are read one by one. If there are more, or the log was pruned beyond the token, the answer is computed
/// from the members of the user's rooms, so that its cost does not depend on the activity of other users.
pub(crate) const LINES: i64 = 1000;

/// Whether the answer must be computed from the members of the user's rooms: the log has too many lines after `after`, or was
/// pruned beyond it.
pub(crate) fn is_long_ago(db: &mut Conn, after: Position) -> Result<bool> {
    Ok(after < device_log::pruned_up_to(db)? || device_log::is_longer(db, after, LINES)?)
}

/// The device lists of a user after `after` and up to `up_to`. Whether two users share a room is decided by the present, since
/// only the net effect matters to a client.
pub(crate) fn changes(
    db: &mut Conn,
    me: &str,
    after: Position,
    up_to: Position,
) -> Result<SyncDeviceLists> {
    let mut found = Findings {
        me,
        after,
        own: BTreeMap::new(),
        looked_at: BTreeSet::new(),
        changes: BTreeMap::new(),
    };
    if is_long_ago(db, after)? {
        found.look_in_rooms(db, up_to)?;
    } else {
        for line in device_log::log_after(db, after, up_to, LINES)? {
            found.read(db, &line)?;
        }
    }
    let users: Vec<String> = found.changes.keys().cloned().collect();
    let sharing = schema::sync::sharing_among(db, me, &users)?;
    let mut lists = SyncDeviceLists::default();
    for (user, changes) in found.changes {
        match rules::device_list_change(changes, user == me || sharing.contains(&user)) {
            Some(DeviceListChange::Changed) => lists.changed.push(user),
            Some(DeviceListChange::Left) => lists.left.push(user),
            None => {}
        }
    }
    Ok(lists)
}

/// What the lines of the device-list log that were read so far say.
struct Findings<'a> {
    me: &'a str,
    after: Position,
    /// For each room: whether the syncing user was joined at `after`, and whether it is joined now.
    own: BTreeMap<String, (bool, bool)>,
    /// The pairs of room and member that were compared already; a second line about the same pair changes nothing.
    looked_at: BTreeSet<(String, String)>,
    changes: BTreeMap<String, UserChanges>,
}

impl Findings<'_> {
    fn read(&mut self, db: &mut Conn, line: &LogEntry) -> Result<()> {
        match line.kind {
            Kind::Keys => self.changes_of(&line.user_id).keys = true,
            Kind::Private if line.user_id == self.me => self.private(&line.subject),
            Kind::Member => {
                let about = (line.room_id.clone(), line.user_id.clone());
                if self.looked_at.insert(about) {
                    self.member(db, &line.room_id, &line.user_id)?;
                }
            }
            // Other users' private changes, and lines that only concern appservices.
            Kind::Private | Kind::Gained | Kind::Lost => {}
        }
        Ok(())
    }

    /// The signatures on `subject`'s keys changed for this user alone.
    fn private(&mut self, subject: &str) {
        // Lines written by an older version of this server have no subject: they are about the user's own keys.
        let subject = if subject.is_empty() { self.me } else { subject };
        self.changes_of(subject).own_view = true;
    }

    /// Compare the members of the user's rooms, and of rooms that the user left, instead of reading all lines of the log. Whether a
    /// member's keys changed is looked up in the log; if it was pruned beyond the token, every member counts as changed.
    fn look_in_rooms(&mut self, db: &mut Conn, up_to: Position) -> Result<()> {
        let (me, after) = (self.me, self.after);
        let span = (after >= device_log::pruned_up_to(db)?).then_some((after, up_to));
        match span {
            Some(span) => {
                for line in device_log::own_lines(db, me, span, LINES)? {
                    self.read(db, &line)?;
                }
            }
            None => self.changes_of(me).keys = true,
        }
        for room in joined_rooms(db, me)? {
            let mine = memberships::get(db, &room, me)?;
            if span.is_none() || mine.is_some_and(|mine| mine.position > after.0) {
                self.everybody_in(db, &room, true)?;
            } else {
                self.news_in(db, &room, up_to)?;
            }
            for user in schema::sync::gone_from(db, &room, after)? {
                self.changes_of(&user).parted = true;
            }
        }
        let moved = all(|last: Option<&MembershipRow>| {
            let from = last.map_or(after, |row| Position(row.position));
            Ok(memberships::of_user_since(db, me, from, up_to, PIECE)?)
        })?;
        for row in moved.iter().filter(|row| row.membership != "join") {
            if self.my_part_in(db, &row.room_id)?.0 {
                self.everybody_in(db, &row.room_id, false)?;
            }
        }
        Ok(())
    }

    /// Members of a room whose keys changed, or who joined, since the token.
    fn news_in(&mut self, db: &mut Conn, room: &str, up_to: Position) -> Result<()> {
        for user in schema::sync::changed_in(db, room, (self.after, up_to))? {
            self.changes_of(&user).keys = true;
        }
        Ok(())
    }

    fn changes_of(&mut self, user: &str) -> &mut UserChanges {
        self.changes.entry(user.to_owned()).or_default()
    }

    fn member(&mut self, db: &mut Conn, room: &str, user: &str) -> Result<()> {
        let (was_mine, is_mine) = self.my_part_in(db, room)?;
        if user == self.me {
            if was_mine != is_mine {
                self.everybody_in(db, room, is_mine)?;
            }
            return Ok(());
        }
        if !was_mine && !is_mine {
            return Ok(());
        }
        let was = memberships::as_of(db, room, user, self.after)?;
        let is = memberships::get(db, room, user)?.map(|m| m.membership);
        match (
            rules::is_present(was.as_deref()),
            rules::is_present(is.as_deref()),
        ) {
            (false, true) => self.changes_of(user).met = true,
            (true, false) => self.changes_of(user).parted = true,
            _ => {}
        }
        Ok(())
    }

    /// Whether the user was joined to a room at `after`, and whether it is now.
    fn my_part_in(&mut self, db: &mut Conn, room: &str) -> Result<(bool, bool)> {
        if let Some(known) = self.own.get(room) {
            return Ok(*known);
        }
        let is = memberships::get(db, room, self.me)?;
        let is_joined = is.as_ref().is_some_and(|m| m.membership == "join");
        let was_joined = match is {
            // The user's membership has not changed since `after`.
            Some(m) if m.position <= self.after.0 => is_joined,
            Some(_) => {
                memberships::as_of(db, room, self.me, self.after)?.as_deref() == Some("join")
            }
            None => false,
        };
        self.own.insert(room.to_owned(), (was_joined, is_joined));
        Ok((was_joined, is_joined))
    }

    /// The syncing user joined or left a room, so every member of the room may be new to it or no longer share a room with it.
    fn everybody_in(&mut self, db: &mut Conn, room: &str, came: bool) -> Result<()> {
        let mut last = String::new();
        loop {
            let users = service_rooms::present_in(db, room, &last, PIECE)?;
            let Some(end) = users.last().cloned() else {
                return Ok(());
            };
            for user in &users {
                if user == self.me {
                    continue;
                }
                let changes = self.changes_of(user);
                if came {
                    changes.met = true;
                } else {
                    changes.parted = true;
                }
            }
            last = end;
        }
    }
}
