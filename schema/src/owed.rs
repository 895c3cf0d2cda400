//! What each appservice is owed: one row for each item, of every kind, in one order.
//!
//! Owner: `appservice_sender`; it is the sender's outbox. Other actors owe into it in the write that makes the fact, with [`owe`],
//! [`owe_all`] or [`owe_latest`]. A row is in one of these states, by its `txn`: it waits (none), a transaction carries it (its id), or
//! it has one of the marks [`ASIDE`], [`DELIVERED`] and [`OFF`].
//!
//! Next on the way of a to-device message: `actors/src/runtime/wake.rs`.

use diesel::prelude::*;
use diesel::sql_types::Bool;

use crate::ServiceId;
use crate::store::deferred::Deferrable;
use crate::tables::{inbox, owed};
use crate::{Conn, Position, Result, Tx};

/// The mark of a row that cannot be sent: it is set aside, with a reason in [`crate::set_aside`].
pub const ASIDE: i64 = -1;

/// The mark of a to-device message that a service has taken without deciding over the device, while the message still waits for
/// the device: should the service come to decide over it, the message is not owed again.
pub const DELIVERED: i64 = -2;

/// The mark of a row whose kind is off.
pub const OFF: i64 = -3;

/// An event of a room. The row's position is the event's, and its item is empty.
pub const EVENT: &str = "event";

/// A message to a device that the service decides over. The row's position is the message's, and its item is empty.
pub const TO_DEVICE: &str = "to_device";

/// A message to a device of an account that the service registered and does not decide over.
pub const OBSERVED: &str = "to_device_observed";

/// A message to a device of a user that the service observes because the configuration grants it.
pub const GRANTED: &str = "to_device_granted";

/// A change of a device list. The key is the user, the item [`CHANGED`] or [`LEFT`].
pub const DEVICE_LIST: &str = "device_list";

/// The item of a [`DEVICE_LIST`] row: the user's devices or keys changed, or the service shares a room with the user now.
pub const CHANGED: &str = "changed";

/// The item of a [`DEVICE_LIST`] row: the service shares no room with the user any more.
pub const LEFT: &str = "left";

/// The key counts of a device. The key is the user and the device; the counts are read when they are sent.
pub const COUNT: &str = "count";

/// Between the parts of a key.
const SEPARATOR: char = '\u{1f}';

/// The key with these parts.
#[must_use]
pub fn key(parts: &[&str]) -> String {
    parts.join(&SEPARATOR.to_string())
}

/// The parts of a key.
pub fn parts(key: &str) -> impl Iterator<Item = &str> {
    key.split(SEPARATOR)
}

/// Written out, so that the index over rows with a key is found.
fn has_key() -> diesel::expression::SqlLiteral<Bool> {
    diesel::dsl::sql("key <> ''")
}

/// One item that a service is owed.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = owed, treat_none_as_default_value = false)]
pub struct Owed {
    /// Its place in the order.
    pub position: i64,
    /// The service.
    pub appservice_id: String,
    /// The kind: one of this file's, or a proposal's own.
    pub kind: String,
    /// What the item is about, where a later item about the same replaces it; else empty.
    pub key: String,
    /// What is needed to send it, beside what the position leads to.
    pub item: String,
    /// The rule by which the service is owed it; empty where the kind says it.
    pub why: String,
    /// The transaction that carries it, or a mark.
    pub txn: Option<i64>,
}

impl Owed {
    /// A new item for this service. It waits.
    #[must_use]
    pub fn new(service: &ServiceId, position: Position, kind: &str) -> Owed {
        Owed {
            position: position.0,
            appservice_id: service.to_string(),
            kind: kind.to_owned(),
            key: String::new(),
            item: String::new(),
            why: String::new(),
            txn: None,
        }
    }

    /// Its place in the order.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.position)
    }

    /// The parts of its key.
    pub fn key_parts(&self) -> impl Iterator<Item = &str> {
        parts(&self.key)
    }
}

/// What the record of a write calls such a row: `owed irc (exclusive_namespace)`.
impl std::fmt::Display for Owed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let about = if self.why.is_empty() {
            &self.kind
        } else {
            &self.why
        };
        let off = if self.txn == Some(OFF) { ", off" } else { "" };
        write!(f, "owed {} ({about}{off})", self.appservice_id)
    }
}

/// Owe an item.
pub fn owe(tx: &mut Tx<'_>, row: &Owed) -> Result<()> {
    tx.owes(&row.appservice_id, row.position());
    let new = on!(&mut **tx, |c| diesel::insert_into(owed::table)
        .values(row)
        .on_conflict_do_nothing()
        .execute(c))?;
    tx.added(format_args!("{row}"), new);
    Ok(())
}

impl Deferrable for Owed {
    fn insert_all(db: &mut Conn, rows: &[Owed]) -> Result<()> {
        insert_all!(db, owed::table, rows);
        Ok(())
    }
}

/// Owe many items at once, none of which is owed already.
pub fn owe_all(tx: &mut Tx<'_>, rows: Vec<Owed>) {
    for row in &rows {
        tx.owes(&row.appservice_id, row.position());
        tx.added(format_args!("{row}"), 1);
    }
    tx.batch.deferred.rows().extend(rows);
}

/// Owe an item that replaces an earlier one with the same key: it waits again, at the new position, even where a transaction carries
/// the earlier one.
pub fn owe_latest(tx: &mut Tx<'_>, row: &Owed) -> Result<()> {
    tx.owes(&row.appservice_id, row.position());
    let replaced: Vec<Option<i64>> = on!(&mut **tx, |c| diesel::delete(
        owed::table
            .filter(owed::appservice_id.eq(&row.appservice_id))
            .filter(owed::kind.eq(&row.kind))
            .filter(owed::key.eq(&row.key))
            .filter(has_key())
    )
    .returning(owed::txn)
    .load(c))?;
    let waited = replaced.iter().filter(|txn| txn.is_none_or(|t| t < 0));
    tx.removed(format_args!("{row}"), waited.count());
    tx.added(format_args!("{row}"), 1);
    on!(&mut **tx, |c| diesel::insert_into(owed::table)
        .values(row)
        .execute(c))?;
    Ok(())
}

// ANCHOR: waiting
/// The oldest items that wait for a service after a position and up to another, in order: what the next transaction may carry.
pub fn waiting(
    db: &mut Conn,
    service: &ServiceId,
    after: Position,
    up_to: Position,
    limit: i64,
) -> Result<Vec<Owed>> {
    Ok(on!(db, |c| owed::table
        .filter(owed::appservice_id.eq(service.as_str()))
        .filter(owed::txn.is_null())
        .filter(owed::position.gt(after.0))
        .filter(owed::position.le(up_to.0))
        .order(owed::position)
        .limit(limit)
        .select(Owed::as_select())
        .load(c))?)
}

/// Everything that waits up to the cut is in the body of this transaction.
pub fn stamp(db: &mut Conn, service: &ServiceId, cut: Position, txn: i64) -> Result<()> {
    let carried = on!(db, |c| diesel::update(
        owed::table
            .filter(owed::appservice_id.eq(service.as_str()))
            .filter(owed::txn.is_null())
            .filter(owed::position.le(cut.0))
    )
    .set(owed::txn.eq(txn))
    .execute(c))?;
    db.added(format_args!("frozen {service} {txn}"), carried);
    Ok(())
}

/// The position of the first to-device message that a transaction carries.
pub fn first_message(db: &mut Conn, service: &ServiceId, txn: i64) -> Result<Option<Position>> {
    let first: Option<i64> = on!(db, |c| owed::table
        .filter(owed::appservice_id.eq(service.as_str()))
        .filter(owed::txn.eq(txn))
        .filter(owed::kind.eq_any([TO_DEVICE, OBSERVED, GRANTED]))
        .select(diesel::dsl::min(owed::position))
        .first(c))?;
    Ok(first.map(Position))
}

/// The service took this transaction: what it carried is forgotten. What was replaced meanwhile waits again and stays. A message that
/// the service observed, and that still waits for its device, stays as a mark.
pub fn forget(db: &mut Conn, service: &ServiceId, txn: i64) -> Result<()> {
    let for_device = diesel::dsl::exists(
        inbox::table
            .filter(inbox::position.eq(owed::position))
            .filter(diesel::dsl::not(inbox::acknowledged)),
    );
    on!(db, |c| diesel::update(
        owed::table
            .filter(owed::appservice_id.eq(service.as_str()))
            .filter(owed::txn.eq(txn))
            .filter(owed::kind.eq_any([OBSERVED, GRANTED]))
            .filter(for_device)
    )
    .set(owed::txn.eq(DELIVERED))
    .execute(c))?;
    on!(db, |c| diesel::delete(
        owed::table
            .filter(owed::appservice_id.eq(service.as_str()))
            .filter(owed::txn.eq(txn))
    )
    .execute(c))?;
    Ok(())
}
// ANCHOR_END: waiting

/// The service is owed nothing under this key any more, but for what a transaction carries.
pub fn forget_key(db: &mut Conn, service: &ServiceId, kind: &str, key: &str) -> Result<()> {
    let gone = on!(db, |c| diesel::delete(
        owed::table
            .filter(owed::appservice_id.eq(service.as_str()))
            .filter(owed::kind.eq(kind))
            .filter(owed::key.eq(key))
            .filter(has_key())
            .filter(owed::txn.is_null().or(owed::txn.lt(0)))
    )
    .execute(c))?;
    db.removed(format_args!("owed {service} ({kind})"), gone);
    Ok(())
}

/// The service is owed nothing of a kind any more whose key begins with this part, but for what a transaction carries.
pub fn forget_part(db: &mut Conn, service: &ServiceId, kind: &str, part: &str) -> Result<()> {
    let (from, to) = (format!("{part}{SEPARATOR}"), format!("{part} "));
    let gone = on!(db, |c| diesel::delete(
        owed::table
            .filter(owed::appservice_id.eq(service.as_str()))
            .filter(owed::kind.eq(kind))
            .filter(owed::key.ge(from))
            .filter(owed::key.lt(to))
            .filter(has_key())
            .filter(owed::txn.is_null().or(owed::txn.lt(0)))
    )
    .execute(c))?;
    db.removed(format_args!("owed {service} ({kind})"), gone);
    Ok(())
}

/// Everything that a service is owed is forgotten.
pub fn forget_service(db: &mut Conn, service: &ServiceId) -> Result<()> {
    let gone = on!(db, |c| diesel::delete(
        owed::table.filter(owed::appservice_id.eq(service.as_str()))
    )
    .execute(c))?;
    db.removed(format_args!("owed {service} (everything)"), gone);
    Ok(())
}

/// The keys of a kind under which a service is owed something that no transaction carries.
pub fn keys(db: &mut Conn, service: &ServiceId, kind: &str) -> Result<Vec<String>> {
    Ok(on!(db, |c| owed::table
        .filter(owed::appservice_id.eq(service.as_str()))
        .filter(owed::kind.eq(kind))
        .filter(has_key())
        .filter(owed::txn.is_null().or(owed::txn.lt(0)))
        .select(owed::key)
        .load(c))?)
}

/// The next keys of a kind, in order, under which a service is owed this item, in no transaction yet.
pub fn keys_with(
    db: &mut Conn,
    service: &ServiceId,
    (kind, item): (&str, &str),
    after: &str,
    limit: i64,
) -> Result<Vec<String>> {
    Ok(on!(db, |c| owed::table
        .filter(owed::appservice_id.eq(service.as_str()))
        .filter(owed::kind.eq(kind))
        .filter(owed::key.gt(after))
        .filter(has_key())
        .filter(owed::item.eq(item))
        .filter(owed::txn.is_null().or(owed::txn.lt(0)))
        .order(owed::key)
        .limit(limit)
        .select(owed::key)
        .load(c))?)
}

/// Set an item aside that waits for a service.
pub(crate) fn set_aside(db: &mut Conn, item: &Owed) -> Result<()> {
    let gone = on!(db, |c| diesel::update(
        owed::table
            .find((item.position, &item.appservice_id, &item.kind, &item.key))
            .filter(owed::txn.is_null())
    )
    .set(owed::txn.eq(ASIDE))
    .execute(c))?;
    db.removed(format_args!("{item}"), gone);
    db.added(format_args!("set aside {}", item.appservice_id), gone);
    Ok(())
}

/// Bring the marks in line with the kinds that are on for the service now: a kind that is off does not wait, and everything that was
/// off, or set aside, waits again where its kind is on.
pub fn resume(db: &mut Conn, service: &ServiceId, on: &[&str]) -> Result<()> {
    let id = service.as_str();
    on!(db, |c| diesel::update(
        owed::table
            .filter(owed::appservice_id.eq(id))
            .filter(owed::txn.is_null())
            .filter(owed::kind.ne_all(on))
    )
    .set(owed::txn.eq(OFF))
    .execute(c))?;
    on!(db, |c| diesel::update(
        owed::table
            .filter(owed::appservice_id.eq(id))
            .filter(owed::txn.eq_any([ASIDE, OFF]))
            .filter(owed::kind.eq_any(on))
    )
    .set(owed::txn.eq(None::<i64>))
    .execute(c))?;
    Ok(())
}

/// How many to-device messages a service is owed, those that a transaction carries, that are set aside or off included.
pub fn count_messages(db: &mut Conn, service: &ServiceId) -> Result<i64> {
    Ok(on!(db, |c| owed::table
        .filter(owed::appservice_id.eq(service.as_str()))
        .filter(owed::kind.eq_any([TO_DEVICE, OBSERVED, GRANTED]))
        .filter(owed::txn.is_null().or(owed::txn.ne(DELIVERED)))
        .count()
        .get_result(c))?)
}
