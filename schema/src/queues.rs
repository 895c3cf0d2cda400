//! What waits, for people who look: the items that appservices are owed by kind, their frozen transactions, and the inboxes of
//! devices. Reads only.
//!
//! Owner: none; these functions do not write.

use diesel::dsl::{count_star, max, min};
use diesel::prelude::*;

use crate::ServiceId;
use crate::inbox::{self, InboxRow, octet_length};
use crate::owed::{DELIVERED, GRANTED, OBSERVED, Owed, TO_DEVICE};
use crate::store::kept::Keep as _;
use crate::tables::{frozen_transactions, inbox as i, owed, shared_contents};
use crate::{Conn, Position, Result};

/// The items of one kind that an appservice is owed.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct OwedOfKind {
    /// The appservice.
    pub service: String,
    /// The kind.
    pub kind: String,
    /// The number of items.
    pub items: i64,
    /// The position of the oldest.
    pub oldest: Option<i64>,
}

/// What each appservice is owed, by kind: also items that a frozen transaction carries, that were set aside or whose kind is
/// switched off.
pub fn owed_by_kind(db: &mut Conn) -> Result<Vec<OwedOfKind>> {
    Ok(on!(db, |c| owed::table
        .filter(owed::txn.is_null().or(owed::txn.ne(DELIVERED)))
        .group_by((owed::appservice_id, owed::kind))
        .select((
            owed::appservice_id,
            owed::kind,
            count_star(),
            min(owed::position)
        ))
        .order((owed::appservice_id, owed::kind))
        .load(c))?)
}

/// The same for the items that frozen transactions carry.
pub fn carried_by_kind(db: &mut Conn) -> Result<Vec<OwedOfKind>> {
    Ok(on!(db, |c| owed::table
        .filter(owed::txn.gt(0))
        .group_by((owed::appservice_id, owed::kind))
        .select((
            owed::appservice_id,
            owed::kind,
            count_star(),
            min(owed::position)
        ))
        .order((owed::appservice_id, owed::kind))
        .load(c))?)
}

/// A frozen transaction without its body.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct FrozenHead {
    /// The appservice.
    pub service: String,
    /// The id of the transaction.
    pub transaction: i64,
    /// The length of the body, in bytes.
    pub bytes: i32,
    /// When it was composed, in milliseconds since the epoch.
    pub frozen_at: i64,
}

/// The frozen transaction of each appservice that has one.
pub fn frozen(db: &mut Conn) -> Result<Vec<FrozenHead>> {
    use frozen_transactions as t;
    Ok(on!(db, |c| t::table
        .select((
            t::appservice_id,
            t::txn_id,
            octet_length(t::body),
            t::frozen_at
        ))
        .order(t::appservice_id)
        .load(c))?)
}

/// The row by which an appservice is owed the item of this kind at this position.
pub fn owed_at(
    db: &mut Conn,
    service: &ServiceId,
    position: i64,
    kinds: &[&str],
) -> Result<Option<Owed>> {
    Ok(on!(db, |c| owed::table
        .filter(owed::appservice_id.eq(service.as_str()))
        .filter(owed::position.eq(position))
        .filter(owed::kind.eq_any(kinds))
        .select(Owed::as_select())
        .first(c)
        .optional())?)
}

/// The row by which an appservice is owed the item of this kind under this key.
pub fn owed_under(
    db: &mut Conn,
    service: &ServiceId,
    kind: &str,
    key: &str,
) -> Result<Option<Owed>> {
    Ok(on!(db, |c| owed::table
        .filter(owed::appservice_id.eq(service.as_str()))
        .filter(owed::kind.eq(kind))
        .filter(owed::key.eq(key))
        .filter(owed::key.ne(""))
        .select(Owed::as_select())
        .first(c)
        .optional())?)
}

/// The unacknowledged messages of one device.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct DeviceInbox {
    /// The owner of the device.
    pub user: String,
    /// The device.
    pub device: String,
    /// The number of messages.
    pub rows: i64,
    /// The position of the oldest.
    pub oldest: Option<i64>,
    /// The appservice that decides over the device, as stored with the newest message by name; empty if there is none.
    pub decided_by: Option<String>,
}

/// The devices for which messages wait, in order of user and device: up to `limit` of those after `after`.
pub fn inboxes(db: &mut Conn, after: (&str, &str), limit: i64) -> Result<Vec<DeviceInbox>> {
    let (user, device) = after;
    Ok(on!(db, |c| i::table
        .filter(diesel::dsl::not(i::acknowledged))
        .filter(
            i::user_id
                .gt(user)
                .or(i::user_id.eq(user).and(i::device_id.gt(device)))
        )
        .group_by((i::user_id, i::device_id))
        .select((
            i::user_id,
            i::device_id,
            count_star(),
            min(i::position),
            max(i::decided_by)
        ))
        .order((i::user_id, i::device_id))
        .limit(limit)
        .load(c))?)
}

/// The number of messages that wait for a device, and the oldest of them.
pub fn waiting_for(
    db: &mut Conn,
    user_id: &str,
    device_id: &str,
    limit: i64,
) -> Result<(i64, Vec<InboxRow>)> {
    let count = on!(db, |c| i::table
        .filter(i::user_id.eq(user_id))
        .filter(i::device_id.eq(device_id))
        .filter(i::acknowledged.eq(false))
        .count()
        .get_result(c))?;
    let end = Position(i64::MAX);
    let oldest = inbox::after(db, user_id, device_id, Position::START, end, limit)?;
    Ok((count, oldest))
}

/// The number of messages to a device that appservices are owed, and the oldest of them.
pub fn owed_of(
    db: &mut Conn,
    user_id: &str,
    device_id: &str,
    limit: i64,
) -> Result<(i64, Vec<Owed>)> {
    // A macro, because a query that selects a row struct is bound to one engine.
    macro_rules! theirs {
        () => {
            owed::table
                .inner_join(i::table.on(i::position.eq(owed::position)))
                .filter(i::user_id.eq(user_id))
                .filter(i::device_id.eq(device_id))
                .filter(owed::txn.is_null().or(owed::txn.ne(DELIVERED)))
        };
    }
    let count = on!(db, |c| theirs!().count().get_result(c))?;
    let oldest = on!(db, |c| theirs!()
        .order((owed::position, owed::appservice_id))
        .limit(limit)
        .select(Owed::as_select())
        .load(c))?;
    Ok((count, oldest))
}

/// The number of to-device messages that an appservice is owed. Includes messages that a frozen transaction carries, that were set
/// aside because they cannot be sent, and whose kind is switched off for the appservice.
pub fn count_messages(db: &mut Conn, service: &ServiceId) -> Result<i64> {
    Ok(on!(db, |c| owed::table
        .filter(owed::appservice_id.eq(service.as_str()))
        .filter(owed::kind.eq_any([TO_DEVICE, OBSERVED, GRANTED]))
        .filter(owed::txn.is_null().or(owed::txn.ne(DELIVERED)))
        .count()
        .kept()
        .get_result(c))?)
}

/// The number of shared contents.
pub fn count_shared(db: &mut Conn) -> Result<i64> {
    Ok(on!(db, |c| shared_contents::table.count().get_result(c))?)
}
