//! Services that came late, or whose registration changed, and how far they have been given what they missed.
//!
//! A row here outlives a crash: the next start goes on from where it stands, and nothing new is frozen for the service before
//! the row is gone.
//!
//! Owner: `appservices`.

use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::ServiceId;
use crate::tables::back_fills;
use crate::{Conn, Error, Position, Result, Tx};

/// What is being gone through, and after what to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Messages that wait in inboxes, in order of position.
    Inbox(Position),
    /// Users that the service was told to track, in order of id.
    Tracked(String),
    /// People in the rooms where the service has a member, in order of room and user.
    Rooms(String, String),
    /// All accounts, in order of id: of its own users the keys and the account data that changed meanwhile.
    Accounts(String),
}

/// How far one service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackFill {
    /// Which service.
    pub service: ServiceId,
    /// The last position before its registration came into force: what came later was decided when it came.
    pub up_to: Position,
    /// Whether the service was told nothing for a while: then it is told again about all users that it tracks.
    pub away: bool,
    /// Account data of its own users that changed after this position is owed; `None` where it missed none.
    pub account_data_after: Option<Position>,
    /// Where it stands.
    pub stage: Stage,
}

#[derive(Debug, Queryable, Selectable, Insertable)]
#[diesel(table_name = back_fills, treat_none_as_default_value = false)]
struct Row {
    appservice_id: String,
    up_to: i64,
    away: bool,
    stage: String,
    position: i64,
    room_id: String,
    user_id: String,
    account_data_after: Option<i64>,
}

impl From<&BackFill> for Row {
    fn from(it: &BackFill) -> Row {
        let (stage, position, room_id, user_id) = match &it.stage {
            Stage::Inbox(after) => ("inbox", after.0, "", ""),
            Stage::Tracked(user) => ("tracked", 0, "", user.as_str()),
            Stage::Rooms(room, user) => ("rooms", 0, room.as_str(), user.as_str()),
            Stage::Accounts(user) => ("accounts", 0, "", user.as_str()),
        };
        Row {
            appservice_id: it.service.to_string(),
            up_to: it.up_to.0,
            away: it.away,
            stage: stage.to_owned(),
            position,
            room_id: room_id.to_owned(),
            user_id: user_id.to_owned(),
            account_data_after: it.account_data_after.map(|p| p.0),
        }
    }
}

impl TryFrom<Row> for BackFill {
    type Error = Error;

    fn try_from(row: Row) -> Result<BackFill> {
        let stage = match row.stage.as_str() {
            "inbox" => Stage::Inbox(Position(row.position)),
            "tracked" => Stage::Tracked(row.user_id),
            "rooms" => Stage::Rooms(row.room_id, row.user_id),
            "accounts" => Stage::Accounts(row.user_id),
            other => return Err(Error::Damaged(format!("back_fills.stage: {other}"))),
        };
        Ok(BackFill {
            service: row.appservice_id.into(),
            up_to: Position(row.up_to),
            away: row.away,
            account_data_after: row.account_data_after.map(Position),
            stage,
        })
    }
}

/// From here on the service is given what it missed, from the beginning. Part of the write that brings its registration into
/// force; one that was under way begins again.
pub fn begin(
    tx: &mut Tx<'_>,
    service: &ServiceId,
    away: bool,
    account_data_after: Option<Position>,
) -> Result<()> {
    let before = get(tx, service)?;
    let missed = before.as_ref().and_then(|b| b.account_data_after);
    let begun = BackFill {
        service: service.clone(),
        up_to: tx.head(),
        away: away || before.is_some_and(|b| b.away),
        account_data_after: missed.into_iter().chain(account_data_after).min(),
        stage: Stage::Inbox(Position::START),
    };
    put(tx, &begun)
}

/// Store how far it is.
pub fn put(db: &mut Conn, it: &BackFill) -> Result<()> {
    use back_fills as t;
    let row = Row::from(it);
    on!(db, |c| diesel::insert_into(t::table)
        .values(&row)
        .on_conflict(t::appservice_id)
        .do_update()
        .set((
            t::up_to.eq(excluded(t::up_to)),
            t::away.eq(excluded(t::away)),
            t::stage.eq(excluded(t::stage)),
            t::position.eq(excluded(t::position)),
            t::room_id.eq(excluded(t::room_id)),
            t::user_id.eq(excluded(t::user_id)),
            t::account_data_after.eq(excluded(t::account_data_after)),
        ))
        .execute(c))?;
    Ok(())
}

/// How far this service is; `None` when nothing is missing.
///
/// # Errors
/// When the database fails, or the row is damaged.
pub fn get(db: &mut Conn, service: &ServiceId) -> Result<Option<BackFill>> {
    let row: Option<Row> = on!(db, |c| back_fills::table
        .find(service.as_str())
        .select(Row::as_select())
        .first(c)
        .optional())?;
    row.map(BackFill::try_from).transpose()
}

/// The services that have not been given everything yet, in order of id.
pub fn under_way(db: &mut Conn) -> Result<Vec<ServiceId>> {
    let ids: Vec<String> = on!(db, |c| back_fills::table
        .order(back_fills::appservice_id)
        .select(back_fills::appservice_id)
        .load(c))?;
    Ok(ids.into_iter().map(ServiceId::from).collect())
}

/// Nothing is missing any more, or the service is gone.
pub fn finish(db: &mut Conn, service: &ServiceId) -> Result<()> {
    on!(db, |c| diesel::delete(
        back_fills::table.find(service.as_str())
    )
    .execute(c))?;
    Ok(())
}
