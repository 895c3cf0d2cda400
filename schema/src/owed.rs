//! The items that each appservice is owed: one row for each item, of all kinds, in one order.
//!
//! Owner: `appservice_sender`, whose outbox it is. Other actors insert rows with [`owe`], [`owe_all`] or [`owe_latest`], in the
//! write that makes the fact. The state of a row is its `txn`: without one it waits; with an id the transaction of that id
//! carries it; else it has one of the marks [`ASIDE`], [`DELIVERED`] and [`OFF`].
//!
//! Next on the way of a to-device message: `actors/src/runtime/wake/mod.rs`.

use diesel::prelude::*;
use diesel::sql_types::Bool;

use crate::ServiceId;
use crate::store::deferred::Deferrable;
use crate::store::facts::{Fact, Settled, Settlement};
use crate::store::kept::Keep as _;
use crate::tables::{inbox, owed};
use crate::{Conn, Position, Result, Tx};

/// The mark of an item that was set aside because it cannot be sent. [`crate::set_aside`] holds the reason.
pub const ASIDE: i64 = -1;

/// The mark of a to-device message that an appservice has received although it does not decide over the device, while the message
/// still waits for the device. If the appservice later decides over the device, the message is not owed again.
pub const DELIVERED: i64 = -2;

/// The mark of an item that is not sent, because its kind is switched off for the appservice.
pub const OFF: i64 = -3;

/// A room event. The row has the position of the event, and its `item` is empty.
pub const EVENT: &str = "event";

/// A message to a device that the appservice decides over. The row has the position of the message, and its `item` is empty.
pub const TO_DEVICE: &str = "to_device";

/// A message to a device of a user that the appservice registered, without authority over the device.
pub const OBSERVED: &str = "to_device_observed";

/// A message to a device of a user that the configuration allows the appservice to observe.
pub const GRANTED: &str = "to_device_granted";

/// A change of a device list. The key is the user id, the item [`CHANGED`] or [`LEFT`].
pub const DEVICE_LIST: &str = "device_list";

/// The item of a [`DEVICE_LIST`] row: the user's devices or keys changed, or the appservice now shares a room with the user.
pub const CHANGED: &str = "changed";

/// The item of a [`DEVICE_LIST`] row: the appservice no longer shares a room with the user.
pub const LEFT: &str = "left";

/// The key counts of a device. The key is the user id and the device id; the counts are read when they are sent.
pub const COUNT: &str = "count";

/// Separates the parts of a key.
const SEPARATOR: char = '\u{1f}';

/// Joins the parts of a key.
#[must_use]
pub fn key(parts: &[&str]) -> String {
    parts.join(&SEPARATOR.to_string())
}

/// Splits a key into its parts.
pub fn parts(key: &str) -> impl Iterator<Item = &str> {
    key.split(SEPARATOR)
}

/// A literal condition, so that the query can use the partial index over rows with a key.
pub(crate) fn has_key() -> diesel::expression::SqlLiteral<Bool> {
    diesel::dsl::sql("key <> ''")
}

/// An item that an appservice is owed.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = owed, treat_none_as_default_value = false)]
pub struct Owed {
    /// Its position.
    pub position: i64,
    /// The id of the appservice.
    pub appservice_id: String,
    /// One of the kinds of this module, or the kind of a proposal.
    pub kind: String,
    /// Identifies what the item is about, such as a device, if a later item about the same replaces it; else empty.
    pub key: String,
    /// What is needed to send the item, besides the event or message that is stored at its position.
    pub item: String,
    /// The name of the rule because of which the appservice is owed the item; empty if the kind says it.
    pub why: String,
    /// The id of the transaction that carries the item, or one of the marks of this module; `None` while the item waits.
    pub txn: Option<i64>,
}

impl Owed {
    /// A new item that waits.
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

    /// Its position.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.position)
    }

    /// The fact that it is not owed any more.
    pub(crate) fn settled(self, items: usize, how: Settlement) -> Fact {
        Fact::Settled(Settled {
            service: self.appservice_id,
            kind: self.kind,
            key: self.key,
            item: self.item,
            position: self.position,
            why: self.why,
            items,
            how,
        })
    }

    /// The fact that it, or as many as this, is owed.
    fn is_owed(&self, items: usize) -> Option<Fact> {
        let (service, kind) = (self.appservice_id.clone(), self.kind.clone());
        (items > 0).then_some(Fact::Owed {
            service,
            kind,
            items,
        })
    }

    /// The parts of its key.
    pub fn key_parts(&self) -> impl Iterator<Item = &str> {
        parts(&self.key)
    }
}

/// Formats the name under which the trace of a write counts such a row: `owed irc (exclusive_namespace)`.
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

/// Inserts an owed item, unless it exists.
pub fn owe(tx: &mut Tx<'_>, row: &Owed) -> Result<()> {
    tx.owes(&row.appservice_id, row.position());
    let new = on!(&mut **tx, |c| diesel::insert_into(owed::table)
        .values(row)
        .on_conflict_do_nothing()
        .kept()
        .execute(c))?;
    tx.added(format_args!("{row}"), new);
    tx.note(|| row.is_owed(new));
    Ok(())
}

impl Deferrable for Owed {
    fn insert_all(db: &mut Conn, rows: &[Owed]) -> Result<()> {
        insert_all!(db, owed::table, rows);
        Ok(())
    }
}

/// Adds many owed items to the deferred rows of the transaction, as `inbox::append` does. None of them may exist. Clause: as.txn.queue
pub fn owe_all(tx: &mut Tx<'_>, rows: Vec<Owed>) {
    for row in &rows {
        tx.owes(&row.appservice_id, row.position());
        tx.added(format_args!("{row}"), 1);
        tx.note(|| row.is_owed(1));
    }
    tx.batch.deferred.rows().extend(rows);
}

/// Inserts an item and deletes an earlier one with the same key. The item waits at its new position, even if a transaction
/// carries the earlier one.
pub fn owe_latest(tx: &mut Tx<'_>, row: &Owed) -> Result<()> {
    tx.owes(&row.appservice_id, row.position());
    let replaced: Vec<(i64, Option<i64>)> = on!(&mut **tx, |c| diesel::delete(
        owed::table
            .filter(owed::appservice_id.eq(&row.appservice_id))
            .filter(owed::kind.eq(&row.kind))
            .filter(owed::key.eq(&row.key))
            .filter(has_key())
    )
    .returning((owed::position, owed::txn))
    .kept()
    .load(c))?;
    let waited = replaced.iter().filter(|(_, txn)| txn.is_none_or(|t| t < 0));
    tx.removed(format_args!("{row}"), waited.count());
    tx.added(format_args!("{row}"), 1);
    tx.note(|| {
        let gone = replaced.into_iter().map(|(position, txn)| {
            let carried = txn.filter(|txn| *txn > 0);
            let how = carried.map_or(Settlement::Replaced, Settlement::ReplacedInside);
            Owed {
                position,
                ..row.clone()
            }
            .settled(1, how)
        });
        gone.chain(row.is_owed(1))
    });
    on!(&mut **tx, |c| diesel::insert_into(owed::table)
        .values(row)
        .kept()
        .execute(c))?;
    Ok(())
}

// ANCHOR: waiting
/// The oldest items that wait for an appservice, after `after` and up to `up_to`, in order: what its next transaction can
/// carry.
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

/// Records that the transaction with this id carries every item that waits at a position up to `cut`.
pub fn stamp(db: &mut Conn, service: &ServiceId, cut: Position, txn: i64) -> Result<()> {
    let carried = on!(db, |c| diesel::update(
        owed::table
            .filter(owed::appservice_id.eq(service.as_str()))
            .filter(owed::txn.is_null())
            .filter(owed::position.le(cut.0))
    )
    .set(owed::txn.eq(txn))
    .kept()
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
        .kept()
        .get_result(c))?;
    Ok(first.map(Position))
}

/// Deletes the items that an acknowledged transaction carried. An item that was replaced in the meantime waits again, so it stays.
/// A message to a device over which the appservice does not decide stays with the mark [`DELIVERED`] while it waits for the device.
pub fn forget(db: &mut Conn, service: &ServiceId, txn: i64) -> Result<()> {
    if db.is_recording() {
        let delivered: Vec<Owed> = on!(db, |c| owed::table
            .filter(owed::appservice_id.eq(service.as_str()))
            .filter(owed::txn.eq(txn))
            .select(Owed::as_select())
            .load(c))?;
        db.note(|| {
            delivered
                .into_iter()
                .map(|row| row.settled(1, Settlement::Delivered(txn)))
        });
    }
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
    .kept()
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

/// Deletes the item under this key, unless a transaction carries it.
pub fn forget_key(db: &mut Conn, service: &ServiceId, kind: &str, key: &str) -> Result<()> {
    let gone = on!(db, |c| diesel::delete(
        owed::table
            .filter(owed::appservice_id.eq(service.as_str()))
            .filter(owed::kind.eq(kind))
            .filter(owed::key.eq(key))
            .filter(has_key())
            .filter(owed::txn.is_null().or(owed::txn.lt(0)))
    )
    .kept()
    .execute(c))?;
    withdrawn(db, service, (kind, key), gone);
    Ok(())
}

/// Records that this many items were deleted that were not sent.
fn withdrawn(db: &mut Conn, service: &ServiceId, (kind, key): (&str, &str), items: usize) {
    db.removed(format_args!("owed {service} ({kind})"), items);
    db.note(|| {
        (items > 0).then(|| {
            let key = key.to_owned();
            let row = Owed {
                key,
                ..Owed::new(service, Position::START, kind)
            };
            row.settled(items, Settlement::Withdrawn)
        })
    });
}

/// Deletes the items of a kind whose key begins with this part, except those that a transaction carries.
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
    .kept()
    .execute(c))?;
    withdrawn(db, service, (kind, part), gone);
    Ok(())
}

/// Deletes everything that an appservice is owed.
pub fn forget_service(db: &mut Conn, service: &ServiceId) -> Result<()> {
    let gone = on!(db, |c| diesel::delete(
        owed::table.filter(owed::appservice_id.eq(service.as_str()))
    )
    .execute(c))?;
    db.removed(format_args!("owed {service} (everything)"), gone);
    Ok(())
}

/// Sets aside an item that waits.
pub(crate) fn set_aside(db: &mut Conn, item: &Owed) -> Result<()> {
    let gone = on!(db, |c| diesel::update(
        owed::table
            .find((item.position, &item.appservice_id, &item.kind, &item.key))
            .filter(owed::txn.is_null())
    )
    .set(owed::txn.eq(ASIDE))
    .kept()
    .execute(c))?;
    db.removed(format_args!("{item}"), gone);
    db.added(format_args!("set aside {}", item.appservice_id), gone);
    Ok(())
}

/// Called with the kinds that are switched on for the appservice now: items of other kinds get the mark [`OFF`], and items of these
/// kinds that have the mark [`OFF`] or [`ASIDE`] wait again.
pub fn resume(db: &mut Conn, service: &ServiceId, on: &[&str]) -> Result<()> {
    let id = service.as_str();
    on!(db, |c| diesel::update(
        owed::table
            .filter(owed::appservice_id.eq(id))
            .filter(owed::txn.is_null())
            .filter(owed::kind.ne_all(on))
    )
    .set(owed::txn.eq(OFF))
    .kept()
    .execute(c))?;
    on!(db, |c| diesel::update(
        owed::table
            .filter(owed::appservice_id.eq(id))
            .filter(owed::txn.eq_any([ASIDE, OFF]))
            .filter(owed::kind.eq_any(on))
    )
    .set(owed::txn.eq(None::<i64>))
    .kept()
    .execute(c))?;
    Ok(())
}
