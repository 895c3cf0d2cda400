//! The present membership of each user in each room where it ever had one, and memberships of the past.
//!
//! Owner: `rooms`.

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel::upsert::excluded;

use crate::store::conn::is_key;
use crate::store::kept::Keep as _;
use crate::tables::{events, memberships};
use crate::{Conn, Error, Position, Result};

/// The present membership of a user in a room.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = memberships, treat_none_as_default_value = false)]
pub struct MembershipRow {
    /// The room id.
    pub room_id: String,
    /// The user id.
    pub user_id: String,
    /// `join`, `invite`, `knock`, `leave` or `ban`.
    pub membership: String,
    /// The position of the member event.
    pub position: i64,
    /// The id of the member event.
    pub event_id: String,
    /// The sender of the member event.
    pub sender: String,
    /// The `displayname` in the member event.
    pub display_name: Option<String>,
    /// The `avatar_url` in the member event.
    pub avatar_url: Option<String>,
    /// The position of the event by which the user last stopped being joined; 0 if there was none.
    pub left_at: i64,
    /// The position at which the user last forgot the room; 0 if it never did.
    pub forgotten_at: i64,
}

impl MembershipRow {
    /// Whether the user has left and forgotten the room.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.forgotten_at > self.position
    }
}

/// The present membership of a user in a room.
pub fn get(db: &mut Conn, room_id: &str, user_id: &str) -> Result<Option<MembershipRow>> {
    if !is_key(room_id) || !is_key(user_id) {
        return Ok(None);
    }
    Ok(on!(db, |c| memberships::table
        .find((room_id, user_id))
        .select(MembershipRow::as_select())
        .first(c)
        .optional())?)
}

/// Inserts or replaces a present membership.
pub fn put(db: &mut Conn, row: &MembershipRow) -> Result<()> {
    use memberships as t;
    on!(db, |c| diesel::insert_into(t::table)
        .values(row)
        .on_conflict((t::room_id, t::user_id))
        .do_update()
        .set((
            t::membership.eq(excluded(t::membership)),
            t::position.eq(excluded(t::position)),
            t::event_id.eq(excluded(t::event_id)),
            t::sender.eq(excluded(t::sender)),
            t::display_name.eq(excluded(t::display_name)),
            t::avatar_url.eq(excluded(t::avatar_url)),
            t::left_at.eq(excluded(t::left_at)),
            t::forgotten_at.eq(excluded(t::forgotten_at)),
        ))
        .kept()
        .execute(c))?;
    Ok(())
}

/// Records that the user forgets the room at this position.
pub fn forget(db: &mut Conn, room_id: &str, user_id: &str, at: Position) -> Result<()> {
    on!(db, |c| diesel::update(
        memberships::table.find((room_id, user_id))
    )
    .set(memberships::forgotten_at.eq(at.0))
    .kept()
    .execute(c))?;
    Ok(())
}

/// A page of the rooms in which a user has this membership and which it has not forgotten: in order of room id, those after
/// `after`.
pub fn of_user(
    db: &mut Conn,
    user_id: &str,
    membership: &str,
    after: &str,
    limit: i64,
) -> Result<Vec<MembershipRow>> {
    Ok(on!(db, |c| memberships::table
        .filter(memberships::user_id.eq(user_id))
        .filter(memberships::membership.eq(membership))
        .filter(memberships::room_id.gt(after))
        .filter(memberships::forgotten_at.lt(memberships::position))
        .order(memberships::room_id)
        .limit(limit)
        .select(MembershipRow::as_select())
        .load(c))?)
}

/// The present memberships of a user whose member event is after `after` and up to `up_to`, also those in forgotten rooms,
/// oldest first.
pub fn of_user_since(
    db: &mut Conn,
    user_id: &str,
    after: Position,
    up_to: Position,
    limit: i64,
) -> Result<Vec<MembershipRow>> {
    Ok(on!(db, |c| memberships::table
        .filter(memberships::user_id.eq(user_id))
        .filter(memberships::position.gt(after.0))
        .filter(memberships::position.le(up_to.0))
        .order(memberships::position)
        .limit(limit)
        .select(MembershipRow::as_select())
        .load(c))?)
}

/// The memberships of a user in rooms that it forgot after `after` and up to `up_to`, oldest first.
pub fn forgotten_since(
    db: &mut Conn,
    user_id: &str,
    after: Position,
    up_to: Position,
    limit: i64,
) -> Result<Vec<MembershipRow>> {
    Ok(on!(db, |c| memberships::table
        .filter(memberships::user_id.eq(user_id))
        .filter(memberships::forgotten_at.gt(after.0))
        .filter(memberships::forgotten_at.le(up_to.0))
        // A literal condition, the same as in the partial index: with a bound value the index would not be used.
        .filter(sql::<Bool>("forgotten_at > 0"))
        .order(memberships::forgotten_at)
        .limit(limit)
        .select(MembershipRow::as_select())
        .kept()
        .load(c))?)
}

/// A page of the users with this membership in a room: in order of user id, those after `after`.
pub fn in_room(
    db: &mut Conn,
    room_id: &str,
    membership: &str,
    after: &str,
    limit: i64,
) -> Result<Vec<MembershipRow>> {
    Ok(on!(db, |c| memberships::table
        .filter(memberships::room_id.eq(room_id))
        .filter(memberships::membership.eq(membership))
        .filter(memberships::user_id.gt(after))
        .order(memberships::user_id)
        .limit(limit)
        .select(MembershipRow::as_select())
        .load(c))?)
}

/// How many users of each membership [`heroes`] chooses from. Members are stored in order of user id, and a room whose name
/// matters less than its size is not read whole.
const HEROES_OF: i64 = 100;

/// Up to `limit` users other than `except` that are joined or invited, or else have left or are banned; oldest first. Of a membership
/// with more than 100 users, those with the first ids are considered. A client names a room without a name after them.
/// Clause: cs.sync.heroes
pub fn heroes(
    db: &mut Conn,
    room_id: &str,
    except: &str,
    limit: usize,
) -> Result<Vec<MembershipRow>> {
    for memberships in [["join", "invite"], ["leave", "ban"]] {
        let mut found = Vec::new();
        for membership in memberships {
            found.extend(in_room(db, room_id, membership, "", HEROES_OF)?);
        }
        found.retain(|m| m.user_id != except);
        if !found.is_empty() {
            found.sort_by_key(|m| m.position);
            found.truncate(limit);
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// The history of a user's membership: as it was at `after`, then every change up to `up_to`, oldest first. If the user had no
/// membership at `after`, the first entry is missing.
///
/// # Errors
/// [`Error::Damaged`] if a stored event cannot be read.
pub fn history(
    db: &mut Conn,
    room_id: &str,
    user_id: &str,
    after: Position,
    up_to: Position,
    limit: i64,
) -> Result<Vec<(Position, String)>> {
    const KIND: &str = "m.room.member";
    let first = crate::events::state_as_of(db, room_id, KIND, user_id, after)?;
    let rest = crate::events::state_history(db, room_id, KIND, user_id, after, up_to, limit)?;
    first
        .into_iter()
        .chain(rest)
        .map(|event| Ok((Position(event.position), membership_in(&event.pdu)?)))
        .collect()
}

/// The membership of a user in a room at a position; `None` if it had none.
///
/// # Errors
/// [`Error::Damaged`] if a stored event cannot be read.
pub fn as_of(
    db: &mut Conn,
    room_id: &str,
    user_id: &str,
    position: Position,
) -> Result<Option<String>> {
    crate::events::state_as_of(db, room_id, "m.room.member", user_id, position)?
        .map(|event| membership_in(&event.pdu))
        .transpose()
}

/// The `membership` in a member event.
fn membership_in(pdu: &str) -> Result<String> {
    #[derive(serde::Deserialize)]
    struct Content {
        membership: String,
    }
    #[derive(serde::Deserialize)]
    struct Pdu {
        content: Content,
    }
    let pdu: Pdu = serde_json::from_str(pdu).map_err(Error::from)?;
    Ok(pdu.content.membership)
}

/// Whether a user is joined to a room.
pub fn is_joined(db: &mut Conn, room_id: &str, user_id: &str) -> Result<bool> {
    Ok(get(db, room_id, user_id)?.is_some_and(|m| m.membership == "join"))
}

/// The member events of a room as of a position, for a request for the members at a point in the past.
pub fn events_as_of(
    db: &mut Conn,
    room_id: &str,
    up_to: Position,
    limit: i64,
) -> Result<Vec<crate::events::EventRow>> {
    use crate::events::EventRow;
    use diesel::dsl::max;
    let latest = diesel::alias!(events as latest);
    Ok(on!(db, |c| events::table
        .filter(
            events::position.nullable().eq_any(
                latest
                    .filter(latest.field(events::room_id).eq(room_id))
                    .filter(latest.field(events::kind).eq("m.room.member"))
                    .filter(latest.field(events::state_key).is_not_null())
                    .filter(latest.field(events::position).le(up_to.0))
                    .group_by(latest.field(events::state_key))
                    .select(max(latest.field(events::position)))
            )
        )
        .order(events::position)
        .limit(limit)
        .select(EventRow::as_select())
        .load(c))?)
}
