//! Transaction ids: what a request does is done once.

use schema::{Tx, client_transactions};

use super::lengths::{check_name, check_nul};
use crate::{Identity, Result};

/// Part of a write: run `act` once per transaction id; a repetition gets the stored answer. ([spec]) Clause: cs.api.transaction-id
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#transaction-identifiers
pub(crate) fn once(
    tx: &mut Tx<'_>,
    by: &Identity,
    scope: &str,
    txn: &str,
    now: i64,
    act: impl FnOnce(&mut Tx<'_>) -> Result<String>,
) -> Result<String> {
    check_name("the transaction id", txn)?;
    check_nul("the path", scope)?;
    let sender = by.transaction_sender();
    if let Some(before) = client_transactions::stored_response(tx, &sender, scope, txn)? {
        return Ok(before);
    }
    let answer = act(tx)?;
    client_transactions::remember(tx, &sender, scope, txn, &answer, now);
    Ok(answer)
}
