//! The responses to requests with a transaction id, kept for a day: a repeated request gets the same response.
//!
//! Owner: `accounts`.

use diesel::prelude::*;

use crate::store::deferred::Deferrable;
use crate::tables::client_transactions;
use crate::{Conn, Result, Tx};

/// The response to a request with a transaction id.
#[derive(Debug, Clone, PartialEq, Eq, Insertable)]
#[diesel(table_name = client_transactions)]
pub(crate) struct ClientTransaction {
    pub(crate) sender: String,
    pub(crate) scope: String,
    pub(crate) txn_id: String,
    pub(crate) response: String,
    pub(crate) created_at: i64,
}

impl Deferrable for ClientTransaction {
    fn insert_all(db: &mut Conn, rows: &[ClientTransaction]) -> Result<()> {
        insert_all!(db, client_transactions::table, rows);
        Ok(())
    }
}

/// The response that this sender got when it used this transaction id before, if it did. Also finds one that the current
/// transaction will commit. Clause: cs.to-device.txn
pub fn stored_response(
    tx: &mut Tx<'_>,
    sender: &str,
    scope: &str,
    txn_id: &str,
) -> Result<Option<String>> {
    let is_it =
        |a: &&ClientTransaction| a.txn_id == txn_id && a.sender == sender && a.scope == scope;
    if let Some(answer) = tx
        .batch
        .deferred
        .rows::<ClientTransaction>()
        .iter()
        .find(is_it)
    {
        return Ok(Some(answer.response.clone()));
    }
    answer(tx.without_deferred(), sender, scope, txn_id)
}

/// The committed response that this sender got when it used this transaction id.
pub fn answer(db: &mut Conn, sender: &str, scope: &str, txn_id: &str) -> Result<Option<String>> {
    Ok(on!(db, |c| client_transactions::table
        .find((sender, scope, txn_id))
        .select(client_transactions::response)
        .first(c)
        .optional())?)
}

/// Stores a response. The transaction id must be new: see [`stored_response`]. `scope` is the endpoint with its path.
pub fn remember(
    tx: &mut Tx<'_>,
    sender: &str,
    scope: &str,
    txn_id: &str,
    response: &str,
    now: i64,
) {
    tx.batch.deferred.rows().push(ClientTransaction {
        sender: sender.to_owned(),
        scope: scope.to_owned(),
        txn_id: txn_id.to_owned(),
        response: response.to_owned(),
        created_at: now,
    });
}

/// The sender under which the responses to a device's requests are stored.
#[must_use]
pub fn sender_of(user_id: &str, device_id: &str) -> String {
    format!("{user_id}|{device_id}")
}

/// Deletes the responses to a deleted device. A new device with the same id can use the transaction ids again. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#transaction-identifiers
pub fn forget_device(db: &mut Conn, user_id: &str, device_id: &str) -> Result<()> {
    let sender = sender_of(user_id, device_id);
    on!(db, |c| diesel::delete(
        client_transactions::table.filter(client_transactions::sender.eq(&sender))
    )
    .execute(c))?;
    Ok(())
}

/// Deletes the responses that are older than `before`. Returns how many there were.
pub fn prune(db: &mut Conn, before: i64) -> Result<usize> {
    Ok(on!(db, |c| diesel::delete(
        client_transactions::table.filter(client_transactions::created_at.lt(before))
    )
    .execute(c))?)
}
