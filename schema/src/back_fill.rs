//! Back-fills: an appservice that is added late, or whose registration changed, receives what it missed. Each row is the
//! progress of one.
//!
//! A back-fill survives a crash: the next start continues from its row. No transaction is frozen for the appservice until the
//! row is deleted.
//!
//! Owner: `appservices`.

use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::ServiceId;
use crate::store::kept::Keep as _;
use crate::tables::back_fills;
use crate::{Conn, Error, Position, Result, Tx};

/// A stage of a back-fill: what it reads, and the place after which it continues. The stages follow each other in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// To-device messages that wait in inboxes, in order of position.
    Inbox(Position),
    /// Users that the appservice tracks, in order of user id.
    Tracked(String),
    /// Users in the rooms where the appservice has a joined member, in order of room id and user id.
    Rooms(String, String),
    /// All accounts, in order of user id. The appservice is owed the keys, key counts and account data of its own users that it
    /// missed.
    Accounts(String),
}

/// The progress of one appservice's back-fill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackFill {
    /// The appservice.
    pub service: ServiceId,
    /// The last position before the registration came into force. Later items were owed to the appservice in the write that stored
    /// them.
    pub up_to: Position,
    /// Whether the appservice received no device lists for some time. If so, it is sent all users that it tracks as changed.
    pub away: bool,
    /// Account data of the appservice's own users that changed after this position is owed; `None` if it missed none.
    pub account_data_after: Option<Position>,
    /// The current stage, and the place in it.
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

/// Starts a back-fill from the first stage, in the write that brings the registration into force. If one is in progress, it starts
/// again, and also covers what the one in progress still had to owe.
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

/// Stores the progress of a back-fill.
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
        .kept()
        .execute(c))?;
    Ok(())
}

/// The progress of an appservice's back-fill; `None` if none is in progress.
///
/// # Errors
/// [`Error::Damaged`] if the row names an unknown stage.
pub fn get(db: &mut Conn, service: &ServiceId) -> Result<Option<BackFill>> {
    let row: Option<Row> = on!(db, |c| back_fills::table
        .find(service.as_str())
        .select(Row::as_select())
        .first(c)
        .optional())?;
    row.map(BackFill::try_from).transpose()
}

/// The appservices whose back-fill is in progress, in order of id.
pub fn under_way(db: &mut Conn) -> Result<Vec<ServiceId>> {
    let ids: Vec<String> = on!(db, |c| back_fills::table
        .order(back_fills::appservice_id)
        .select(back_fills::appservice_id)
        .load(c))?;
    Ok(ids.into_iter().map(ServiceId::from).collect())
}

/// Ends a back-fill, if one is in progress.
pub fn finish(db: &mut Conn, service: &ServiceId) -> Result<()> {
    on!(db, |c| diesel::delete(
        back_fills::table.find(service.as_str())
    )
    .execute(c))?;
    Ok(())
}
