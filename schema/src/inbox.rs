//! The to-device inbox: one row for each message and device. An appservice that is owed the message has a row in
//! [`crate::owed`] at the same position.
//!
//! Owner: `to_device_inbox`. No row is deleted before it is acknowledged: by its device, with `since`, or by the appservice
//! that decides over the device, with a 2xx to the transaction that carried it. As the row alone holds the content, it also
//! stays until every appservice that is owed it has acknowledged it.
//!
//! Next on the way of a to-device message: `schema/src/owed.rs`.

use std::collections::{BTreeMap, BTreeSet};

use diesel::prelude::*;
use diesel::sql_types::Bool;

use crate::ServiceId;
use crate::owed::{DELIVERED, Owed, TO_DEVICE};
use crate::store::deferred::Deferrable;
use crate::store::facts::{self, Deposited, Fact, Settlement};
use crate::store::kept::Keep as _;
use crate::tables::{inbox, owed, shared_contents};
use crate::{Conn, Error, Position, Result, Tx};

/// A to-device message that waits for a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = inbox, treat_none_as_default_value = false)]
pub struct InboxRow {
    /// Its position.
    pub position: i64,
    /// The recipient.
    pub user_id: String,
    /// The recipient's device.
    pub device_id: String,
    /// The user that sent it.
    pub sender: String,
    /// The event type.
    pub kind: String,
    /// The content, with the bytes that the client sent. Functions that read rows fill it in when it is shared.
    pub content: String,
    /// The id of the shared content, if there is one. `content` is empty in the database then.
    pub shared: Option<i64>,
    /// The first by id of the appservices that decide over the device and get a copy, determined when the message came in, or later
    /// by [`decide`]; empty if there is none.
    pub decided_by: String,
    /// Whether it is acknowledged. The row then stays only because an appservice is still owed the message.
    pub acknowledged: bool,
}

impl InboxRow {
    /// The fact that it was put into the inbox.
    fn is_deposited(&self) -> Fact {
        Fact::Deposited(Deposited {
            position: self.position,
            user: self.user_id.clone(),
            device: self.device_id.clone(),
            sender: self.sender.clone(),
            kind: self.kind.clone(),
            decided_by: self.decided_by.clone(),
            message_id: facts::message_id(&self.content),
        })
    }
}

/// A content that several rows share, stored once. Triggers delete it together with the last row that uses it.
#[derive(Debug, Clone, PartialEq, Eq, Insertable)]
#[diesel(table_name = shared_contents)]
pub struct SharedContent {
    /// The position of the first row that uses it.
    pub id: i64,
    /// The content, with the bytes that the client sent.
    pub content: String,
}

/// Stores a content for rows of the same write.
pub fn share(db: &mut Conn, content: &SharedContent) -> Result<()> {
    on!(db, |c| diesel::insert_into(shared_contents::table)
        .values(content)
        .kept()
        .execute(c))?;
    Ok(())
}

/// The shared contents with these ids.
fn shared(db: &mut Conn, ids: impl Iterator<Item = i64>) -> Result<BTreeMap<i64, String>> {
    let ids: BTreeSet<i64> = ids.collect();
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let found: Vec<(i64, String)> = on!(db, |c| shared_contents::table
        .filter(shared_contents::id.eq_any(&ids))
        .select((shared_contents::id, shared_contents::content))
        .kept_for(ids.len())
        .load(c))?;
    Ok(found.into_iter().collect())
}

/// Fills in the content of the rows that share one.
macro_rules! with_contents {
    ($db:expr, $rows:expr) => {{
        let mut rows = $rows;
        let contents = shared($db, rows.iter().filter_map(|row| row.shared))?;
        for row in rows.iter_mut().filter(|row| row.shared.is_some()) {
            let content = row.shared.and_then(|id| contents.get(&id));
            row.content = content
                .cloned()
                .ok_or_else(|| Error::Damaged(format!("{} has no content", row.position)))?;
        }
        Ok(rows)
    }};
}

impl Deferrable for InboxRow {
    fn insert_all(db: &mut Conn, rows: &[InboxRow]) -> Result<()> {
        insert_all!(db, inbox::table, rows);
        Ok(())
    }
}

/// Adds messages to the deferred rows of the transaction, which are inserted before its next statement through [`Tx`], or at its
/// end (`store/deferred.rs`). The caller stores shared contents first, with [`share`], and owes the messages to appservices, with
/// [`crate::owed::owe_all`].
pub fn append(tx: &mut Tx<'_>, rows: Vec<InboxRow>) {
    tx.added(format_args!("inbox"), rows.len());
    tx.note(|| rows.iter().map(InboxRow::is_deposited));
    tx.batch.deferred.rows().extend(rows);
}

/// The messages at these positions, in order.
pub fn at(db: &mut Conn, positions: &[Position]) -> Result<Vec<InboxRow>> {
    if positions.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<InboxRow> = on!(db, |c| inbox::table
        .filter(inbox::position.eq_any(positions.iter().map(|p| p.0)))
        .order(inbox::position)
        .select(InboxRow::as_select())
        .kept_for(positions.len())
        .load(c))?;
    with_contents!(db, rows)
}

/// The unacknowledged messages to a device after `after` and up to `up_to`, oldest first. Clause: cs.to-device.order
pub fn after(
    db: &mut Conn,
    user_id: &str,
    device_id: &str,
    after: Position,
    up_to: Position,
    limit: i64,
) -> Result<Vec<InboxRow>> {
    let rows: Vec<InboxRow> = on!(db, |c| inbox::table
        .filter(inbox::user_id.eq(user_id))
        .filter(inbox::device_id.eq(device_id))
        .filter(inbox::acknowledged.eq(false))
        .filter(inbox::position.gt(after.0))
        .filter(inbox::position.le(up_to.0))
        .order(inbox::position)
        .limit(limit)
        .select(InboxRow::as_select())
        .load(c))?;
    with_contents!(db, rows)
}

/// Whether an appservice is owed the message of a row. `owed::txn` is null while the message waits, the id of a transaction that
/// carries it, or a negative mark (`owed.rs`).
macro_rules! is_owed {
    () => {
        diesel::dsl::exists(
            owed::table
                .filter(owed::position.eq(inbox::position))
                .filter(owed::txn.is_null().or(owed::txn.ne(DELIVERED))),
        )
    };
}

/// Acknowledges the messages to a device up to a position: deletes those that no appservice is owed and marks the others.
/// Returns how many were acknowledged. Clause: cs.to-device.kept
pub fn acknowledge_device(
    db: &mut Conn,
    user_id: &str,
    device_id: &str,
    up_to: Position,
) -> Result<usize> {
    macro_rules! seen {
        () => {
            inbox::table
                .filter(inbox::user_id.eq(user_id))
                .filter(inbox::device_id.eq(device_id))
                .filter(inbox::acknowledged.eq(false))
                .filter(inbox::position.le(up_to.0))
        };
    }
    let range: (Option<i64>, Option<i64>) = on!(db, |c| seen!()
        .select((
            diesel::dsl::min(inbox::position),
            diesel::dsl::max(inbox::position)
        ))
        .first(c))?;
    let (Some(oldest), Some(newest)) = range else {
        return Ok(0);
    };
    let gone = on!(db, |c| diesel::delete(
        seen!().filter(diesel::dsl::not(is_owed!()))
    )
    .execute(c))?;
    let stay = on!(db, |c| diesel::update(seen!())
        .set(inbox::acknowledged.eq(true))
        .kept()
        .execute(c))?;
    db.removed(format_args!("inbox"), gone + stay);
    db.added(format_args!("inbox for services"), stay);
    let (user, device) = (user_id.to_owned(), device_id.to_owned());
    let up_to = newest;
    db.note(|| {
        [Fact::Taken {
            user,
            device,
            up_to,
        }]
    });
    forget_marks(db, Position(oldest), Position(newest))?;
    Ok(gone + stay)
}

/// Deletes the to-device messages to a deleted device, and the rows by which appservices are owed these messages. An item that a
/// frozen transaction carries stays owed until the transaction is acknowledged. Clause: cs.to-device.deleted-device
pub fn forget_device(db: &mut Conn, user_id: &str, device_id: &str) -> Result<()> {
    let theirs: Vec<i64> = on!(db, |c| inbox::table
        .filter(inbox::user_id.eq(user_id))
        .filter(inbox::device_id.eq(device_id))
        .select(inbox::position)
        .load(c))?;
    for positions in theirs.chunks(500) {
        let gone: Vec<Owed> = on!(db, |c| diesel::delete(
            owed::table
                .filter(owed::position.eq_any(positions))
                .filter(owed::txn.is_null().or(owed::txn.lt(0)))
        )
        .returning(Owed::as_returning())
        .load(c))?;
        for row in &gone {
            db.removed(format_args!("owed {} (to_device)", row.appservice_id), 1);
        }
        // What was delivered already is not counted again.
        let gone = gone.into_iter().filter(|row| row.txn != Some(DELIVERED));
        db.note(|| gone.map(|row| row.settled(1, Settlement::DeviceDeleted)));
    }
    let gone = on!(db, |c| diesel::delete(
        inbox::table
            .filter(inbox::user_id.eq(user_id))
            .filter(inbox::device_id.eq(device_id))
    )
    .execute(c))?;
    db.removed(format_args!("inbox"), gone);
    Ok(())
}

// ANCHOR: acknowledge
/// Called when an appservice has acknowledged the transaction that carried the messages between two positions. Deletes the messages
/// to devices over which the appservice decides. Also deletes the messages that their device acknowledged earlier, if they stayed
/// only for this appservice. A second call changes nothing. Clause: as.to-device.exclusive, own.inbox.until-acknowledged
pub fn acknowledge_service(
    db: &mut Conn,
    service: &ServiceId,
    from: Position,
    up_to: Position,
) -> Result<()> {
    macro_rules! between {
        () => {
            inbox::table
                .filter(inbox::position.ge(from.0))
                .filter(inbox::position.le(up_to.0))
        };
    }
    macro_rules! decided {
        () => {
            between!()
                .filter(inbox::decided_by.eq(service.as_str()))
                .filter(inbox::decided_by.ne(""))
                .filter(diesel::dsl::not(inbox::acknowledged))
        };
    }
    let gone = on!(db, |c| diesel::delete(
        decided!().filter(diesel::dsl::not(is_owed!()))
    )
    .execute(c))?;
    // A row that remains is still owed: to this appservice, or only to others. In the second case it is marked as acknowledged.
    let own = diesel::dsl::exists(
        owed::table
            .filter(owed::position.eq(inbox::position))
            .filter(owed::appservice_id.eq(service.as_str()))
            .filter(owed::txn.is_null().or(owed::txn.ne(DELIVERED))),
    );
    let stay = on!(db, |c| diesel::update(
        decided!().filter(diesel::dsl::not(own))
    )
    .set(inbox::acknowledged.eq(true))
    .kept()
    .execute(c))?;
    let stayed = on!(db, |c| diesel::delete(
        between!()
            .filter(inbox::acknowledged)
            .filter(diesel::dsl::not(is_owed!()))
    )
    .execute(c))?;
    db.removed(format_args!("inbox"), gone + stay);
    db.added(format_args!("inbox for services"), stay);
    db.removed(format_args!("inbox for services"), stayed);
    forget_marks(db, from, up_to)
}
// ANCHOR_END: acknowledge

/// Between two positions, deletes the [`DELIVERED`] marks of messages that are deleted or acknowledged: these cannot be owed
/// again.
fn forget_marks(db: &mut Conn, from: Position, up_to: Position) -> Result<()> {
    // The value is a literal, so that the query can use the partial index for it.
    let is_mark = diesel::dsl::sql::<Bool>("txn = -2");
    let waits = diesel::dsl::exists(
        inbox::table
            .filter(inbox::position.eq(owed::position))
            .filter(diesel::dsl::not(inbox::acknowledged)),
    );
    on!(db, |c| diesel::delete(
        owed::table
            .filter(owed::position.ge(from.0))
            .filter(owed::position.le(up_to.0))
            .filter(is_mark)
            .filter(diesel::dsl::not(waits))
    )
    .kept()
    .execute(c))?;
    Ok(())
}

/// Removes an appservice from the inbox: deletes the messages that stayed only for this appservice. In the other rows, it no longer
/// decides over the device.
pub fn forget_service(db: &mut Conn, service: &ServiceId) -> Result<()> {
    on!(db, |c| diesel::delete(
        inbox::table
            .filter(inbox::acknowledged)
            .filter(diesel::dsl::not(is_owed!()))
    )
    .execute(c))?;
    on!(db, |c| diesel::update(
        inbox::table.filter(inbox::decided_by.eq(service.as_str()))
    )
    .set(inbox::decided_by.eq(""))
    .kept()
    .execute(c))?;
    Ok(())
}

/// A waiting message without its content.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct WaitingMessage {
    /// Its position.
    pub position: i64,
    /// The recipient.
    pub user_id: String,
    /// The recipient's device.
    pub device_id: String,
    /// The user that sent it.
    pub sender: String,
    /// The event type.
    pub kind: String,
}

diesel::define_sql_function! {
    /// The length of a text, in bytes.
    fn octet_length(text: diesel::sql_types::Text) -> diesel::sql_types::Integer;
}

/// A page of the unacknowledged messages to all devices, after `after` and up to `up_to`. Used for back-fills.
pub fn page(
    db: &mut Conn,
    after: Position,
    up_to: Position,
    limit: i64,
) -> Result<Vec<WaitingMessage>> {
    Ok(on!(db, |c| inbox::table
        .filter(inbox::position.gt(after.0))
        .filter(inbox::position.le(up_to.0))
        .filter(diesel::dsl::not(inbox::acknowledged))
        .order(inbox::position)
        .limit(limit)
        .select((
            inbox::position,
            inbox::user_id,
            inbox::device_id,
            inbox::sender,
            inbox::kind
        ))
        .load(c))?)
}

/// Assigns waiting messages to an appservice that decides over their devices: the appservice is owed each message. Unless another
/// appservice is stored as deciding over the device, this one is stored. Skips a message that the appservice is owed or was sent
/// already. Also skips a message for which this appservice is stored already and which it is not owed: it has acknowledged that
/// message, and the row is about to be deleted.
pub fn decide(tx: &mut Tx<'_>, service: &ServiceId, why: &str, positions: &[i64]) -> Result<()> {
    let settled: Vec<i64> = on!(&mut **tx, |c| inbox::table
        .left_join(
            owed::table.on(owed::position
                .eq(inbox::position)
                .and(owed::appservice_id.eq(service.as_str())))
        )
        .filter(inbox::position.eq_any(positions))
        .filter(
            owed::position
                .is_not_null()
                .or(inbox::decided_by.eq(service.as_str()))
        )
        .select(inbox::position)
        .kept_for(positions.len())
        .load(c))?;
    let new: Vec<i64> = positions
        .iter()
        .copied()
        .filter(|position| !settled.contains(position))
        .collect();
    on!(&mut **tx, |c| diesel::update(
        inbox::table
            .filter(inbox::position.eq_any(&new))
            .filter(inbox::decided_by.eq(""))
    )
    .set(inbox::decided_by.eq(service.as_str()))
    .kept_for(new.len())
    .execute(c))?;
    let rows = new.into_iter().map(|position| Owed {
        why: why.to_owned(),
        ..Owed::new(service, Position(position), TO_DEVICE)
    });
    let rows = rows.collect();
    crate::owed::owe_all(tx, rows);
    Ok(())
}
