//! The keys under which an appservice is owed items. Reads only; the rows are those of [`crate::owed`].

use diesel::prelude::*;

use crate::owed::has_key;
use crate::store::kept::Keep as _;
use crate::tables::owed;
use crate::{Conn, Result, ServiceId};

/// The keys of the items of one kind that an appservice is owed and that no transaction carries.
pub fn of_kind(db: &mut Conn, service: &ServiceId, kind: &str) -> Result<Vec<String>> {
    Ok(on!(db, |c| owed::table
        .filter(owed::appservice_id.eq(service.as_str()))
        .filter(owed::kind.eq(kind))
        .filter(has_key())
        .filter(owed::txn.is_null().or(owed::txn.lt(0)))
        .select(owed::key)
        .kept()
        .load(c))?)
}

/// A page of the keys under which an appservice is owed this `item` of this kind, also if a transaction carries it: in order,
/// those after `after`.
pub fn with_item(
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
        .order(owed::key)
        .limit(limit)
        .select(owed::key)
        .kept()
        .load(c))?)
}
