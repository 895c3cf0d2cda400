//! Figures about what is owed, for operators. No function writes.

use std::collections::BTreeMap;

use diesel::prelude::*;

use crate::owed::{ASIDE, DELIVERED, OFF};
use crate::store::kept::Keep as _;
use crate::tables::{appservices, frozen_transactions, owed};
use crate::{Conn, Result};

/// The most items that are counted for each appservice.
pub const COUNTED: i64 = 10_000;

/// What an appservice is owed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwedKind {
    /// The id of the appservice.
    pub service: String,
    /// The kind of the items.
    pub kind: String,
    /// `waiting`; `sent`, in a transaction that is not acknowledged; `off`, of a kind that is switched off for the appservice;
    /// `aside`, because they cannot be sent.
    pub state: &'static str,
}

/// How much each appservice is owed: the oldest [`COUNTED`] items of each are counted. The cost does not grow with users or with what
/// was delivered.
pub fn owed(db: &mut Conn) -> Result<BTreeMap<OwedKind, i64>> {
    let services: Vec<String> = on!(db, |c| appservices::table
        .select(appservices::appservice_id)
        .kept()
        .load(c))?;
    let mut counts = BTreeMap::new();
    for service in services {
        let items: Vec<(String, Option<i64>)> = on!(db, |c| owed::table
            .filter(owed::appservice_id.eq(&service))
            .filter(owed::txn.is_null().or(owed::txn.ne(DELIVERED)))
            .order(owed::position)
            .limit(COUNTED)
            .select((owed::kind, owed::txn))
            .load(c))?;
        for (kind, txn) in items {
            let state = match txn {
                None => "waiting",
                Some(OFF) => "off",
                Some(ASIDE) => "aside",
                Some(_) => "sent",
            };
            let service = service.clone();
            *counts
                .entry(OwedKind {
                    service,
                    kind,
                    state,
                })
                .or_default() += 1;
        }
    }
    Ok(counts)
}

/// When the transaction of each appservice that has one was frozen, in milliseconds since the epoch.
pub fn frozen_at(db: &mut Conn) -> Result<Vec<(String, i64)>> {
    Ok(on!(db, |c| frozen_transactions::table
        .select((
            frozen_transactions::appservice_id,
            frozen_transactions::frozen_at
        ))
        .kept()
        .load(c))?)
}
