//! The to-device inbox: one row per message and device, and one copy per interested application service.
//!
//! Nothing leaves before it is acknowledged: an inbox row goes when its device acknowledges it by `since`, or when a
//! service with authority over the device acknowledges the copy that was in its transaction; a copy goes only with its transaction.

use std::collections::{BTreeMap, BTreeSet};

use diesel::prelude::*;
use diesel::sql_types::Bool;

use crate::conn::Engine;
use crate::interests::Service;
use crate::registration::ServiceId;
use crate::tables::{client_transactions, inbox, shared_contents, to_device_copies};
use crate::{Conn, Error, Position, Result, Tx};

/// The transaction of copies that a service has taken without deciding over the device, while the message still waits for the device:
/// no transaction has this number. Such a row has no content; it says that the service has had the message.
pub const DELIVERED: i64 = -2;

/// A message that waits for a device.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = inbox)]
pub struct InboxRow {
    /// Its place in the order.
    pub position: i64,
    /// Who receives it.
    pub user_id: String,
    /// On which device.
    pub device_id: String,
    /// Who sent it.
    pub sender: String,
    /// The event type.
    pub kind: String,
    /// The content, as its bytes came. What is read has it, whether it is shared or not.
    pub content: String,
    /// Which shared content it has: then its own is empty in storage.
    pub shared: Option<i64>,
}

/// A copy that waits for an application service; it carries all that is needed to send it.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = to_device_copies, treat_none_as_default_value = false)]
pub struct CopyRow {
    /// For which service.
    pub appservice_id: String,
    /// The position of the message.
    pub position: i64,
    /// Whether the service had authority over the device when the message came: then its acknowledgement empties the inbox.
    pub explicit: bool,
    /// Who receives it.
    pub user_id: String,
    /// On which device.
    pub device_id: String,
    /// Who sent it.
    pub sender: String,
    /// The event type.
    pub kind: String,
    /// The content, as its bytes came.
    pub content: String,
    /// The transaction it was frozen into.
    pub txn: Option<i64>,
    /// The rule by which the service got it, as it was when the message came.
    pub why: String,
    /// Which shared content it has: then its own is empty in storage.
    pub shared: Option<i64>,
}

/// A content that several rows have, stored once. It goes with the last of them: triggers see to that.
#[derive(Debug, Clone, PartialEq, Eq, Insertable)]
#[diesel(table_name = shared_contents)]
pub struct SharedContent {
    /// What the rows call it: the position of the first of them.
    pub id: i64,
    /// The content, as its bytes came.
    pub content: String,
}

/// Store a content that rows of the same write share.
///
/// # Errors
/// When the database fails.
pub fn share(db: &mut Conn, content: &SharedContent) -> Result<()> {
    on!(db, |c| diesel::insert_into(shared_contents::table)
        .values(content)
        .execute(c))?;
    Ok(())
}

/// The contents with these ids.
fn shared(db: &mut Conn, ids: impl Iterator<Item = i64>) -> Result<BTreeMap<i64, String>> {
    let ids: BTreeSet<i64> = ids.collect();
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let found: Vec<(i64, String)> = on!(db, |c| shared_contents::table
        .filter(shared_contents::id.eq_any(&ids))
        .select((shared_contents::id, shared_contents::content))
        .load(c))?;
    Ok(found.into_iter().collect())
}

/// Give each row that shares a content that content.
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

/// Put messages and their copies down. What they share is stored before, with [`share`].
///
/// # Errors
/// When the database fails.
pub fn append(tx: &mut Tx<'_>, rows: &[InboxRow], copies: &[CopyRow]) -> Result<()> {
    insert_all!(tx, inbox::table, rows);
    insert_all!(tx, to_device_copies::table, copies);
    for copy in copies {
        tx.owes(&ServiceId::from(copy.appservice_id.as_str()));
    }
    Ok(())
}

/// What waits for a device after a position and up to another, oldest first.
///
/// # Errors
/// When the database fails.
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
        .filter(inbox::position.gt(after.0))
        .filter(inbox::position.le(up_to.0))
        .order(inbox::position)
        .limit(limit)
        .select(InboxRow::as_select())
        .load(c))?;
    with_contents!(db, rows)
}

/// The device has seen everything up to this position. How many rows went.
///
/// # Errors
/// When the database fails.
pub fn acknowledge_device(
    db: &mut Conn,
    user_id: &str,
    device_id: &str,
    up_to: Position,
) -> Result<usize> {
    let gone = on!(db, |c| diesel::delete(
        inbox::table
            .filter(inbox::user_id.eq(user_id))
            .filter(inbox::device_id.eq(device_id))
            .filter(inbox::position.le(up_to.0))
    )
    .execute(c))?;
    if gone > 0 {
        on!(db, |c| diesel::delete(
            to_device_copies::table
                .filter(to_device_copies::user_id.eq(user_id))
                .filter(to_device_copies::device_id.eq(device_id))
                .filter(to_device_copies::position.le(up_to.0))
                .filter(to_device_copies::txn.eq(DELIVERED))
        )
        .execute(c))?;
    }
    Ok(gone)
}

/// The device is gone: nobody is left to read its rows, and copies that are not in a frozen transaction go too.
///
/// # Errors
/// When the database fails.
pub fn forget_device(db: &mut Conn, user_id: &str, device_id: &str) -> Result<()> {
    on!(db, |c| diesel::delete(
        inbox::table
            .filter(inbox::user_id.eq(user_id))
            .filter(inbox::device_id.eq(device_id))
    )
    .execute(c))?;
    on!(db, |c| diesel::delete(
        to_device_copies::table
            .filter(to_device_copies::user_id.eq(user_id))
            .filter(to_device_copies::device_id.eq(device_id))
            .filter(
                to_device_copies::txn
                    .is_null()
                    .or(to_device_copies::txn.lt(0))
            )
    )
    .execute(c))?;
    Ok(())
}

/// The rule of a copy that a service has only because the configuration lets it observe.
pub const GRANTED: &str = "granted";

/// The oldest copies a service is owed up to a position, that is sent to-device messages at all. Those that a grant gave it wait
/// while the grant is withdrawn, and hold nothing else up.
///
/// # Errors
/// When the database fails.
pub fn owed(db: &mut Conn, service: &Service, up_to: Position, limit: i64) -> Result<Vec<CopyRow>> {
    let granted = service.observes;
    let rows: Vec<CopyRow> = on!(db, |c| to_device_copies::table
        .filter(to_device_copies::appservice_id.eq(service.id.as_str()))
        .filter(to_device_copies::position.le(up_to.0))
        .filter(to_device_copies::txn.is_null())
        .filter(
            to_device_copies::why
                .ne(GRANTED)
                .or(granted.into_sql::<Bool>())
        )
        .order(to_device_copies::position)
        .limit(limit)
        .select(CopyRow::as_select())
        .load(c))?;
    with_contents!(db, rows)
}

/// These copies are in the body of this transaction: all that [`owed`] finds up to the cut.
///
/// # Errors
/// When the database fails.
pub fn stamp(db: &mut Conn, service: &Service, cut: Position, txn: i64) -> Result<usize> {
    let granted = service.observes;
    Ok(on!(db, |c| diesel::update(
        to_device_copies::table
            .filter(to_device_copies::appservice_id.eq(service.id.as_str()))
            .filter(to_device_copies::position.le(cut.0))
            .filter(to_device_copies::txn.is_null())
            .filter(
                to_device_copies::why
                    .ne(GRANTED)
                    .or(granted.into_sql::<Bool>())
            )
    )
    .set(to_device_copies::txn.eq(txn))
    .execute(c))?)
}

// ANCHOR: acknowledge
/// The service acknowledged this transaction: its copies go, and the inbox rows behind those it had authority over.
///
/// Where it had none the message goes on waiting for its device, and the copy stays as a mark: should the service come to decide over
/// the device, what it has had is not copied for it again.
///
/// # Errors
/// When the database fails.
pub fn acknowledge_service(
    db: &mut Conn,
    service: &ServiceId,
    cut: Position,
    txn: i64,
) -> Result<usize> {
    let taken: Vec<(i64, bool)> = on!(db, |c| to_device_copies::table
        .filter(to_device_copies::appservice_id.eq(service.as_str()))
        .filter(to_device_copies::position.le(cut.0))
        .filter(to_device_copies::txn.eq(txn))
        .select((to_device_copies::position, to_device_copies::explicit))
        .load(c))?;
    let of = |explicit| {
        let rows = taken.iter().filter(move |(_, e)| *e == explicit);
        rows.map(|(position, _)| *position).collect::<Vec<_>>()
    };
    let (behind, observed) = (of(true), of(false));
    match db.changing() {
        Engine::Sqlite(c) => {
            for position in &behind {
                diesel::delete(inbox::table.find(position)).execute(c)?;
            }
        }
        Engine::Postgres(c) => {
            diesel::delete(inbox::table.filter(inbox::position.eq_any(&behind))).execute(c)?;
        }
    }
    mark_delivered(db, service, &observed)?;
    // Another service's acknowledgement empties the inbox: nothing is left to be copied, and the marks go.
    forget_marks(db, &behind)?;
    Ok(forget_stamped!(db, to_device_copies, service, cut, txn)?)
}
// ANCHOR_END: acknowledge

/// Of these copies, those whose message still waits become marks.
fn mark_delivered(db: &mut Conn, service: &ServiceId, observed: &[i64]) -> Result<()> {
    if observed.is_empty() {
        return Ok(());
    }
    let waiting: Vec<i64> = on!(db, |c| inbox::table
        .filter(inbox::position.eq_any(observed))
        .select(inbox::position)
        .load(c))?;
    on!(db, |c| diesel::update(
        to_device_copies::table
            .filter(to_device_copies::appservice_id.eq(service.as_str()))
            .filter(to_device_copies::position.eq_any(&waiting))
    )
    .set((
        to_device_copies::txn.eq(DELIVERED),
        to_device_copies::content.eq("")
    ))
    .execute(c))?;
    Ok(())
}

/// These messages are gone, so nothing is copied again: their marks go.
fn forget_marks(db: &mut Conn, gone: &[i64]) -> Result<()> {
    if gone.is_empty() {
        return Ok(());
    }
    // The number is written out: an index over these rows alone finds them.
    let is_mark = diesel::dsl::sql::<diesel::sql_types::Bool>("txn = -2");
    on!(db, |c| diesel::delete(
        to_device_copies::table
            .filter(to_device_copies::position.eq_any(gone))
            .filter(is_mark)
    )
    .execute(c))?;
    Ok(())
}

/// How many contents are stored apart from the rows that have them.
///
/// # Errors
/// When the database fails.
pub fn count_shared(db: &mut Conn) -> Result<i64> {
    Ok(on!(db, |c| shared_contents::table.count().get_result(c))?)
}

/// How many copies wait for a service, frozen ones and those set aside included.
///
/// # Errors
/// When the database fails.
pub fn count_owed(db: &mut Conn, service: &ServiceId) -> Result<i64> {
    Ok(on!(db, |c| to_device_copies::table
        .filter(to_device_copies::appservice_id.eq(service.as_str()))
        .filter(
            to_device_copies::txn
                .is_null()
                .or(to_device_copies::txn.ne(DELIVERED))
        )
        .count()
        .get_result(c))?)
}

/// What this sender was answered when it used this transaction id before.
///
/// # Errors
/// When the database fails.
pub fn answered(db: &mut Conn, sender: &str, scope: &str, txn_id: &str) -> Result<Option<String>> {
    Ok(on!(db, |c| client_transactions::table
        .find((sender, scope, txn_id))
        .select(client_transactions::response)
        .first(c)
        .optional())?)
}

/// Remember what this sender was answered. `scope` is the endpoint with its path.
///
/// # Errors
/// When the database fails.
pub fn remember(
    db: &mut Conn,
    sender: &str,
    scope: &str,
    txn_id: &str,
    response: &str,
    now: i64,
) -> Result<()> {
    let row = (
        client_transactions::sender.eq(sender),
        client_transactions::scope.eq(scope),
        client_transactions::txn_id.eq(txn_id),
        client_transactions::response.eq(response),
        client_transactions::created_at.eq(now),
    );
    on!(db, |c| diesel::insert_into(client_transactions::table)
        .values(&row)
        .on_conflict_do_nothing()
        .execute(c))?;
    Ok(())
}

/// Under which sender the answers to a device's requests are remembered.
#[must_use]
pub fn sender_of(user_id: &str, device_id: &str) -> String {
    format!("{user_id}|{device_id}")
}

/// The device is gone: its transaction ids are free for the next one of its name. ([spec])
///
/// # Errors
/// When the database fails.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#transaction-identifiers
pub fn forget_answers(db: &mut Conn, user_id: &str, device_id: &str) -> Result<()> {
    let sender = sender_of(user_id, device_id);
    on!(db, |c| diesel::delete(
        client_transactions::table.filter(client_transactions::sender.eq(&sender))
    )
    .execute(c))?;
    Ok(())
}

/// Forget what was answered before this time.
///
/// # Errors
/// When the database fails.
pub fn prune_answers(db: &mut Conn, before: i64) -> Result<usize> {
    Ok(on!(db, |c| diesel::delete(
        client_transactions::table.filter(client_transactions::created_at.lt(before))
    )
    .execute(c))?)
}

/// A message that waits, without what it says.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct Waiting {
    /// Its place in the order.
    pub position: i64,
    /// Who receives it.
    pub user_id: String,
    /// On which device.
    pub device_id: String,
    /// How long its own content is, in bytes: copying a row with a shared one copies none.
    pub bytes: i32,
}

diesel::define_sql_function! {
    /// How long a text is, in bytes.
    fn octet_length(text: diesel::sql_types::Text) -> diesel::sql_types::Integer;
}

/// What waits after a position and up to another, whoever it is for: for back-filling.
///
/// # Errors
/// When the database fails.
pub fn page(db: &mut Conn, after: Position, up_to: Position, limit: i64) -> Result<Vec<Waiting>> {
    Ok(on!(db, |c| inbox::table
        .filter(inbox::position.gt(after.0))
        .filter(inbox::position.le(up_to.0))
        .order(inbox::position)
        .limit(limit)
        .select((
            inbox::position,
            inbox::user_id,
            inbox::device_id,
            octet_length(inbox::content)
        ))
        .load(c))?)
}

/// Copy these messages, as far as they still wait, for a service that decides over their devices by this rule. Where it has a
/// copy, that stays as it was decided. How many it had none of.
///
/// # Errors
/// When the database fails.
pub fn copy_waiting(
    db: &mut Conn,
    service: &ServiceId,
    why: &str,
    positions: &[i64],
) -> Result<usize> {
    use diesel::sql_types::{BigInt, Nullable, Text};
    use to_device_copies as t;
    Ok(change!(db, |c| inbox::table
        .filter(inbox::position.eq_any(positions))
        .select((
            service.as_str().into_sql::<Text>(),
            inbox::position,
            true.into_sql::<Bool>(),
            inbox::user_id,
            inbox::device_id,
            inbox::sender,
            inbox::kind,
            inbox::content,
            None::<i64>.into_sql::<Nullable<BigInt>>(),
            why.into_sql::<Text>(),
            inbox::shared,
        ))
        .insert_into(t::table)
        .into_columns((
            t::appservice_id,
            t::position,
            t::explicit,
            t::user_id,
            t::device_id,
            t::sender,
            t::kind,
            t::content,
            t::txn,
            t::why,
            t::shared,
        ))
        .on_conflict_do_nothing()
        .execute(c))?)
}

/// How many messages wait for a device, and the oldest of them.
///
/// # Errors
/// When the database fails.
pub fn waiting_for(
    db: &mut Conn,
    user_id: &str,
    device_id: &str,
    limit: i64,
) -> Result<(i64, Vec<InboxRow>)> {
    let count = on!(db, |c| inbox::table
        .filter(inbox::user_id.eq(user_id))
        .filter(inbox::device_id.eq(device_id))
        .count()
        .get_result(c))?;
    let oldest = after(
        db,
        user_id,
        device_id,
        Position::START,
        Position(i64::MAX),
        limit,
    )?;
    Ok((count, oldest))
}

/// How many copies of a device's messages wait for services, and the oldest of them.
///
/// # Errors
/// When the database fails.
pub fn copies_for(
    db: &mut Conn,
    user_id: &str,
    device_id: &str,
    limit: i64,
) -> Result<(i64, Vec<CopyRow>)> {
    // A macro, since a query with a selected row struct is bound to one engine.
    macro_rules! theirs {
        () => {
            to_device_copies::table
                .filter(to_device_copies::user_id.eq(user_id))
                .filter(to_device_copies::device_id.eq(device_id))
                .filter(
                    to_device_copies::txn
                        .is_null()
                        .or(to_device_copies::txn.ne(DELIVERED)),
                )
        };
    }
    let count = on!(db, |c| theirs!().count().get_result(c))?;
    let oldest = on!(db, |c| theirs!()
        .order((to_device_copies::position, to_device_copies::appservice_id))
        .limit(limit)
        .select(CopyRow::as_select())
        .load(c))?;
    Ok((count, oldest))
}
