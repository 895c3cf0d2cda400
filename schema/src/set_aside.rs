//! What a service is owed and cannot be sent, because a transaction with it cannot be composed: the row is set aside with the
//! reason, and what follows goes on.
//!
//! The owed row stays in its own table under the transaction [`ASIDE`], and so does what stands behind it: nothing was acknowledged.
//! It is tried again when the server starts, perhaps a version that can compose it.

use diesel::prelude::*;
use diesel::sql_types::Bool;

use crate::inbox::GRANTED;
use crate::interests::Service;
use crate::registration::ServiceId;
use crate::tables::{
    owed_account_data, owed_counts, owed_device_lists, owed_events, set_aside, to_device_copies,
};
use crate::{Conn, Position, Result};

/// The transaction of rows that are set aside: no transaction has this number.
pub const ASIDE: i64 = -1;

/// The longest reason that is kept, in characters.
const LONGEST: usize = 500;

/// Which kind of row is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An event.
    Event,
    /// A to-device message.
    ToDevice,
    /// A change of a device list.
    DeviceList,
    /// The key counts of a device.
    Count,
    /// A piece of account data.
    AccountData,
}

impl Kind {
    const fn text(self) -> &'static str {
        match self {
            Kind::Event => "event",
            Kind::ToDevice => "to_device",
            Kind::DeviceList => "device_list",
            Kind::Count => "count",
            Kind::AccountData => "account_data",
        }
    }
}

/// A row that is set aside, and why.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = set_aside)]
pub struct Aside {
    /// The service that is owed it.
    pub appservice_id: String,
    /// Its place in the order.
    pub position: i64,
    /// `event`, `to_device`, `device_list`, `count` or `account_data`.
    pub kind: String,
    /// Why it cannot be sent.
    pub why: String,
    /// When it was set aside, in milliseconds since the epoch.
    pub at: i64,
}

/// Set a row aside that waits for a service.
///
/// # Errors
/// When the database fails.
pub fn put(
    db: &mut Conn,
    service: &ServiceId,
    kind: Kind,
    position: Position,
    why: &str,
    now: i64,
) -> Result<()> {
    macro_rules! stamp {
        ($table:ident) => {
            change!(db, |c| diesel::update(
                $table::table
                    .filter($table::appservice_id.eq(service.as_str()))
                    .filter($table::position.eq(position.0))
                    .filter($table::txn.is_null())
            )
            .set($table::txn.eq(ASIDE))
            .execute(c))?
        };
    }
    match kind {
        Kind::Event => stamp!(owed_events),
        Kind::ToDevice => stamp!(to_device_copies),
        Kind::DeviceList => stamp!(owed_device_lists),
        Kind::Count => stamp!(owed_counts),
        Kind::AccountData => stamp!(owed_account_data),
    };
    let row = Aside {
        appservice_id: service.to_string(),
        position: position.0,
        kind: kind.text().to_owned(),
        // PostgreSQL holds no U+0000 in a text.
        why: why.chars().filter(|c| *c != '\0').take(LONGEST).collect(),
        at: now,
    };
    on!(db, |c| diesel::insert_into(set_aside::table)
        .values(&row)
        .on_conflict_do_nothing()
        .execute(c))?;
    Ok(())
}

/// The oldest row that waits for a service up to a position, of the kinds that are on.
///
/// # Errors
/// When the database fails.
pub fn oldest_owed(
    db: &mut Conn,
    service: &Service,
    up_to: Position,
) -> Result<Option<(Kind, Position)>> {
    macro_rules! oldest {
        ($kind:expr, $table:ident, $is_on:expr) => {{
            let position: Option<i64> = on!(db, |c| $table::table
                .filter($table::appservice_id.eq(service.id.as_str()))
                .filter($table::position.le(up_to.0))
                .filter($table::txn.is_null())
                .order($table::position)
                .select($table::position)
                .first(c)
                .optional())?;
            let position = position.filter(|_| $is_on);
            position.map(|position| ($kind, Position(position)))
        }};
    }
    let (lists, data) = (service.takes_device_lists, service.takes_account_data);
    let all = [
        oldest!(Kind::Event, owed_events, true),
        oldest_copy(db, service, up_to)?.map(|position| (Kind::ToDevice, position)),
        oldest!(Kind::DeviceList, owed_device_lists, lists),
        oldest!(Kind::Count, owed_counts, lists),
        oldest!(Kind::AccountData, owed_account_data, data),
    ];
    Ok(all
        .into_iter()
        .flatten()
        .min_by_key(|(_, position)| *position))
}

fn oldest_copy(db: &mut Conn, service: &Service, up_to: Position) -> Result<Option<Position>> {
    use to_device_copies as t;
    if !service.takes_to_device {
        return Ok(None);
    }
    let granted = service.observes;
    let position: Option<i64> = on!(db, |c| t::table
        .filter(t::appservice_id.eq(service.id.as_str()))
        .filter(t::position.le(up_to.0))
        .filter(t::txn.is_null())
        .filter(t::why.ne(GRANTED).or(granted.into_sql::<Bool>()))
        .order(t::position)
        .select(t::position)
        .first(c)
        .optional())?;
    Ok(position.map(Position))
}

/// Everything that was set aside for a service waits again.
///
/// # Errors
/// When the database fails.
pub fn try_again(db: &mut Conn, service: &ServiceId) -> Result<()> {
    if count(db, service)? == 0 {
        return Ok(());
    }
    macro_rules! unstamp {
        ($($table:ident)*) => {$(
            change!(db, |c| diesel::update(
                $table::table
                    .filter($table::appservice_id.eq(service.as_str()))
                    .filter($table::txn.eq(ASIDE))
            )
            .set($table::txn.eq(None::<i64>))
            .execute(c))?;
        )*};
    }
    unstamp!(owed_events to_device_copies owed_device_lists owed_counts owed_account_data);
    forget(db, service)
}

/// Forget the reasons.
///
/// # Errors
/// When the database fails.
pub fn forget(db: &mut Conn, service: &ServiceId) -> Result<()> {
    on!(db, |c| diesel::delete(
        set_aside::table.filter(set_aside::appservice_id.eq(service.as_str()))
    )
    .execute(c))?;
    Ok(())
}

/// How many rows are set aside for a service.
///
/// # Errors
/// When the database fails.
pub fn count(db: &mut Conn, service: &ServiceId) -> Result<i64> {
    Ok(on!(db, |c| set_aside::table
        .filter(set_aside::appservice_id.eq(service.as_str()))
        .count()
        .get_result(c))?)
}

/// The oldest rows that are set aside for a service.
///
/// # Errors
/// When the database fails.
pub fn oldest(db: &mut Conn, service: &ServiceId, limit: i64) -> Result<Vec<Aside>> {
    Ok(on!(db, |c| set_aside::table
        .filter(set_aside::appservice_id.eq(service.as_str()))
        .order(set_aside::position)
        .limit(limit)
        .select(Aside::as_select())
        .load(c))?)
}
