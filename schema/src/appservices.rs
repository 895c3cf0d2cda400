//! Application services: their registrations, the events and counts they are owed, their frozen transactions.

use std::collections::BTreeSet;

use diesel::prelude::*;
use diesel::upsert::excluded;
use serde::{Deserialize, Serialize};

use crate::accounts::{Addressed, DeviceRow};
use crate::authority::authorities;
use crate::interests::{InForce, Interests, Service};
use crate::registration::{Registration, ServiceId};
use crate::tables::{
    aliases, appservice_rooms, appservices, back_fills, device_keys, fallback_keys,
    frozen_transactions, one_time_keys, owed_account_data, owed_counts, owed_device_lists,
    owed_events, set_aside, to_device_copies, tracked,
};
use crate::{Conn, Position, Result, Tx, device_lists, keys};

/// A service as it was last registered. The row outlives its file: what it is owed is kept.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = appservices)]
pub struct ServiceRow {
    /// Its id.
    pub appservice_id: String,
    /// The registration, as JSON.
    pub registration: String,
    /// The name of the file it came from.
    pub file: String,
    /// Whether that file is there.
    pub present: bool,
    /// The id of the last transaction that was frozen for it; ids only grow.
    pub last_txn: i64,
    /// What was in force for it last, as JSON ([`LastInForce`]); empty where an older version of this server wrote the row.
    pub in_force: String,
}

/// What was in force for a service when its row was last written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastInForce {
    /// What of its registration was switched on.
    #[serde(flatten)]
    pub in_force: InForce,
    /// The position up to which it was owed account data, where that is off now and was on before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_data_until: Option<i64>,
}

impl ServiceRow {
    /// The registration as it was last in force; `None` when the row is damaged.
    #[must_use]
    pub fn registration(&self) -> Option<Registration> {
        serde_json::from_str(&self.registration).ok()
    }

    /// What was in force; `None` when nobody wrote it down.
    #[must_use]
    pub fn last_in_force(&self) -> Option<LastInForce> {
        serde_json::from_str(&self.in_force).ok()
    }
}

/// Every service ever registered and not forgotten, in order of id.
///
/// # Errors
/// When the database fails.
pub fn all(db: &mut Conn) -> Result<Vec<ServiceRow>> {
    Ok(on!(db, |c| appservices::table
        .order(appservices::appservice_id)
        .select(ServiceRow::as_select())
        .load(c))?)
}

/// Register a service or change its registration; its transaction counter stays whatever the row says.
///
/// # Errors
/// When the database fails.
pub fn save(db: &mut Conn, row: &ServiceRow) -> Result<()> {
    use appservices as t;
    on!(db, |c| diesel::insert_into(t::table)
        .values(row)
        .on_conflict(t::appservice_id)
        .do_update()
        .set((
            t::registration.eq(excluded(t::registration)),
            t::file.eq(excluded(t::file)),
            t::present.eq(excluded(t::present)),
            t::in_force.eq(excluded(t::in_force))
        ))
        .execute(c))?;
    Ok(())
}

/// Forget a service and everything it is owed. Whether it was known.
///
/// # Errors
/// When the database fails.
pub fn forget(db: &mut Conn, id: &ServiceId) -> Result<bool> {
    let id = id.as_str();
    change!(db, |c| {
        diesel::delete(to_device_copies::table.filter(to_device_copies::appservice_id.eq(id)))
            .execute(c)?;
        diesel::delete(owed_events::table.filter(owed_events::appservice_id.eq(id))).execute(c)?;
        diesel::delete(owed_counts::table.filter(owed_counts::appservice_id.eq(id))).execute(c)?;
        diesel::delete(owed_device_lists::table.filter(owed_device_lists::appservice_id.eq(id)))
            .execute(c)?;
        diesel::delete(owed_account_data::table.filter(owed_account_data::appservice_id.eq(id)))
            .execute(c)?;
        diesel::delete(tracked::table.filter(tracked::appservice_id.eq(id))).execute(c)?;
        diesel::delete(appservice_rooms::table.filter(appservice_rooms::appservice_id.eq(id)))
            .execute(c)?;
        diesel::delete(frozen_transactions::table.find(id)).execute(c)?;
        diesel::delete(back_fills::table.find(id)).execute(c)?;
        diesel::delete(set_aside::table.filter(set_aside::appservice_id.eq(id))).execute(c)?;
        Ok::<_, crate::Error>(diesel::delete(appservices::table.find(id)).execute(c)? == 1)
    })
}

/// The services that an event in this room concerns by the room alone: by a joined member, the room's id, or an alias.
///
/// # Errors
/// When the database fails.
pub fn interested_in_room(tx: &mut Tx<'_>, room_id: &str) -> Result<BTreeSet<ServiceId>> {
    let interests = tx.interests();
    interested_now(tx, &interests, room_id)
}

/// The same question outside a write, for what is not owed: typing, receipts, presence.
///
/// # Errors
/// When the database fails.
pub fn interested_now(
    db: &mut Conn,
    interests: &Interests,
    room_id: &str,
) -> Result<BTreeSet<ServiceId>> {
    let mut found: BTreeSet<ServiceId> = device_lists::services_in(db, room_id)?
        .into_iter()
        .collect();
    found.extend(
        interests
            .in_room_id(room_id)
            .into_iter()
            .map(|s| s.id.clone()),
    );
    if interests.has_alias_patterns() {
        let names: Vec<String> = on!(db, |c| aliases::table
            .filter(aliases::room_id.eq(room_id))
            .select(aliases::alias)
            .load(c))?;
        for name in names {
            found.extend(
                interests
                    .in_alias(&name)
                    .into_iter()
                    .map(|(s, _)| s.id.clone()),
            );
        }
    }
    Ok(found)
}

#[derive(Debug, Insertable)]
#[diesel(table_name = owed_events, treat_none_as_default_value = false)]
struct OwedEvent<'a> {
    appservice_id: &'a str,
    position: i64,
    txn: Option<i64>,
}

/// Each of these services is owed the event at this position, as far as anything is ever sent to it.
///
/// # Errors
/// When the database fails.
pub fn owe_event(tx: &mut Tx<'_>, event: Position, services: &BTreeSet<ServiceId>) -> Result<()> {
    let interests = tx.interests();
    for service in services
        .iter()
        .filter(|id| interests.service(id).is_some_and(|s| s.is_reachable()))
    {
        let row = OwedEvent {
            appservice_id: service.as_str(),
            position: event.0,
            txn: None,
        };
        on!(&mut **tx, |c| diesel::insert_into(owed_events::table)
            .values(&row)
            .on_conflict_do_nothing()
            .execute(c))?;
        tx.owes(service);
    }
    Ok(())
}

/// The positions of the oldest events a service is owed up to a position.
///
/// # Errors
/// When the database fails.
pub fn owed_events(
    db: &mut Conn,
    service: &ServiceId,
    up_to: Position,
    limit: i64,
) -> Result<Vec<Position>> {
    use owed_events as t;
    let positions: Vec<i64> = on!(db, |c| t::table
        .filter(t::appservice_id.eq(service.as_str()))
        .filter(t::position.le(up_to.0))
        .filter(t::txn.is_null())
        .order(t::position)
        .limit(limit)
        .select(t::position)
        .load(c))?;
    Ok(positions.into_iter().map(Position).collect())
}

#[derive(Debug, Insertable)]
#[diesel(table_name = owed_counts, treat_none_as_default_value = false)]
struct OwedCountRow<'a> {
    appservice_id: &'a str,
    user_id: &'a str,
    device_id: &'a str,
    position: i64,
    txn: Option<i64>,
}

/// The key counts of this device changed: every service that decides over it is owed them. Part of the write that changed
/// them. One row however often it happens. Answers whom to wake.
///
/// # Errors
/// When the database fails.
pub fn owe_counts(tx: &mut Tx<'_>, device: &Addressed) -> Result<BTreeSet<ServiceId>> {
    let interests = tx.interests();
    let mut services = authorities(&interests, device);
    services.retain(|id| interests.service(id).is_some_and(|s| s.takes_device_lists));
    for service in &services {
        owe_counts_to(tx, service, &device.device)?;
        tx.owes(service);
    }
    Ok(services)
}

/// Owe one service the key counts of one device.
///
/// # Errors
/// When the database fails.
pub fn owe_counts_to(tx: &mut Tx<'_>, service: &ServiceId, device: &DeviceRow) -> Result<()> {
    use owed_counts as t;
    let row = OwedCountRow {
        appservice_id: service.as_str(),
        user_id: &device.user_id,
        device_id: &device.device_id,
        position: tx.next_position().0,
        txn: None,
    };
    on!(&mut **tx, |c| diesel::insert_into(t::table)
        .values(&row)
        .on_conflict((t::appservice_id, t::user_id, t::device_id))
        .do_update()
        .set((
            t::position.eq(excluded(t::position)),
            t::txn.eq(excluded(t::txn))
        ))
        .execute(c))?;
    Ok(())
}

/// A device whose counts a service is owed.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct OwedCount {
    /// Its place in the order.
    pub position: i64,
    /// Whose device.
    pub user_id: String,
    /// Which device.
    pub device_id: String,
}

/// The oldest counts a service is owed up to a position.
///
/// # Errors
/// When the database fails.
pub fn owed_counts(
    db: &mut Conn,
    service: &ServiceId,
    up_to: Position,
    limit: i64,
) -> Result<Vec<OwedCount>> {
    use owed_counts as t;
    Ok(on!(db, |c| t::table
        .filter(t::appservice_id.eq(service.as_str()))
        .filter(t::position.le(up_to.0))
        .filter(t::txn.is_null())
        .order(t::position)
        .limit(limit)
        .select((t::position, t::user_id, t::device_id))
        .load(c))?)
}

/// The counts of one device as they are now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Unclaimed one-time keys: algorithm and number. Algorithms with none are absent.
    pub one_time: Vec<(String, i64)>,
    /// Algorithms whose fallback key has not been used.
    pub unused_fallback: Vec<String>,
}

/// The counts of a device, or `None` when it has uploaded no keys at all, or says that nothing can be encrypted to it: such a
/// device is not spoken of.
///
/// # Errors
/// When the database fails.
pub fn counts_of(db: &mut Conn, user_id: &str, device_id: &str) -> Result<Option<Counts>> {
    use {fallback_keys as f, one_time_keys as o};
    let one_time: Vec<(String, i64)> = on!(db, |c| o::table
        .filter(o::user_id.eq(user_id))
        .filter(o::device_id.eq(device_id))
        .group_by(o::algorithm)
        .select((o::algorithm, diesel::dsl::count_star()))
        .order(o::algorithm)
        .load(c))?;
    let fallback: Vec<(String, bool)> = on!(db, |c| f::table
        .filter(f::user_id.eq(user_id))
        .filter(f::device_id.eq(device_id))
        .select((f::algorithm, f::used))
        .order(f::algorithm)
        .load(c))?;
    if one_time.is_empty() && fallback.is_empty() {
        let identity: Option<String> = on!(db, |c| device_keys::table
            .find((user_id, device_id))
            .select(device_keys::json)
            .first(c)
            .optional())?;
        if !identity.is_some_and(|json| keys::take_messages(&json)) {
            return Ok(None);
        }
    }
    let unused_fallback = fallback
        .into_iter()
        .filter(|(_, used)| !used)
        .map(|(algorithm, _)| algorithm)
        .collect();
    Ok(Some(Counts {
        one_time,
        unused_fallback,
    }))
}

/// The device is gone: nobody is owed its counts any more, but for those in a frozen transaction.
/// Part of the write that deletes the device.
///
/// # Errors
/// When the database fails.
pub fn forget_counts(tx: &mut Tx<'_>, to: &Addressed) -> Result<()> {
    let interests = tx.interests();
    for service in authorities(&interests, to) {
        on!(&mut **tx, |c| diesel::delete(
            owed_counts::table
                .find((service.as_str(), &to.device.user_id, &to.device.device_id))
                .filter(owed_counts::txn.is_null().or(owed_counts::txn.lt(0)))
        )
        .execute(c))?;
    }
    Ok(())
}

/// A transaction that has been composed: what is sent, byte for byte, until it is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = frozen_transactions)]
pub struct Frozen {
    /// For which service.
    pub appservice_id: String,
    /// Its id: digits only on the wire.
    pub txn_id: i64,
    /// The position up to which it carries everything.
    pub cut: i64,
    /// The body.
    pub body: String,
    /// When it was composed, in milliseconds since the epoch.
    pub frozen_at: i64,
}

/// The frozen transaction of a service, if it has one.
///
/// # Errors
/// When the database fails.
pub fn frozen(db: &mut Conn, service: &ServiceId) -> Result<Option<Frozen>> {
    Ok(on!(db, |c| frozen_transactions::table
        .find(service.as_str())
        .select(Frozen::as_select())
        .first(c)
        .optional())?)
}

/// The id for the next transaction: later than the last one, and later than anything a restored backup could have used.
///
/// # Errors
/// When the database fails or the service is not known.
pub fn next_txn_id(db: &mut Conn, service: &ServiceId, now: i64) -> Result<i64> {
    let last: i64 = on!(db, |c| appservices::table
        .find(service.as_str())
        .select(appservices::last_txn)
        .first(c))?;
    let next = (last + 1).max(now.saturating_mul(1000));
    on!(db, |c| diesel::update(
        appservices::table.find(service.as_str())
    )
    .set(appservices::last_txn.eq(next))
    .execute(c))?;
    Ok(next)
}

/// Freeze a transaction: store it and stamp what is in its body. What the service is owed of a kind that is off waits: it is
/// not in the body, so it is not stamped.
///
/// # Errors
/// When the database fails, or one is frozen already.
pub fn freeze(db: &mut Conn, frozen: &Frozen, to: &Service) -> Result<()> {
    let (service, cut, txn) = (&to.id, Position(frozen.cut), frozen.txn_id);
    on!(db, |c| diesel::insert_into(frozen_transactions::table)
        .values(frozen)
        .execute(c))?;
    stamp_owed!(db, owed_events, service, cut, txn)?;
    if to.takes_device_lists {
        stamp_owed!(db, owed_counts, service, cut, txn)?;
        device_lists::stamp(db, service, cut, txn)?;
    }
    if to.takes_to_device {
        crate::inbox::stamp(db, to, cut, txn)?;
    }
    if to.takes_account_data {
        crate::user_data::stamp(db, service, cut, txn)?;
    }
    Ok(())
}

/// The service acknowledged its frozen transaction: everything stamped with it goes, the body too.
///
/// # Errors
/// When the database fails.
pub fn acknowledge(db: &mut Conn, frozen: &Frozen) -> Result<()> {
    let (service, cut, txn) = (
        ServiceId::from(frozen.appservice_id.as_str()),
        Position(frozen.cut),
        frozen.txn_id,
    );
    crate::inbox::acknowledge_service(db, &service, cut, txn)?;
    device_lists::acknowledge(db, &service, cut, txn)?;
    crate::user_data::acknowledge(db, &service, cut, txn)?;
    forget_stamped!(db, owed_events, service, cut, txn)?;
    forget_stamped!(db, owed_counts, service, cut, txn)?;
    on!(db, |c| diesel::delete(
        frozen_transactions::table
            .find(service.as_str())
            .filter(frozen_transactions::txn_id.eq(txn))
    )
    .execute(c))?;
    Ok(())
}
