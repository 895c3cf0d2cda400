//! Users and their devices, as they are looked up and as an account begins and ends. How devices come and go: [`crate::sessions`].
//!
//! Owner: `accounts`.

use std::collections::BTreeMap;

use diesel::prelude::*;

use crate::ServiceId;
use crate::tables::{account_data, devices, erased_users, filters, users};
use crate::{Conn, Position, Result, Tx};

/// A device, and who made it.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = devices, treat_none_as_default_value = false)]
pub struct DeviceRow {
    /// Whose device it is.
    pub user_id: String,
    /// Its id, unique for the user.
    pub device_id: String,
    /// What its owner calls it.
    pub display_name: Option<String>,
    /// The application service that created it, if one did.
    pub appservice_id: Option<String>,
    /// Whether a person's own login made it: then no service has authority over it by owning the account.
    pub own_login: bool,
    /// The position at which it was created: the same id may be deleted and created again.
    pub born: i64,
    /// Milliseconds since the epoch of its last request, as far as recorded.
    pub last_seen_ts: Option<i64>,
    /// Where that request came from.
    pub last_seen_ip: Option<String>,
}

/// A device with the service that registered its account, which is what authority over it depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressed {
    /// The device.
    pub device: DeviceRow,
    /// The service that registered the user, if one did.
    pub account_of: Option<String>,
}

/// All devices of these users.
pub fn devices_of(db: &mut Conn, user_ids: &[&str]) -> Result<Vec<Addressed>> {
    // A macro, since a query with a selected row struct is bound to one engine.
    macro_rules! joined {
        () => {
            devices::table
                .inner_join(users::table.on(users::user_id.eq(devices::user_id)))
                .select((DeviceRow::as_select(), users::appservice_id))
        };
    }
    let order = (devices::user_id, devices::device_id);
    let mut all = Vec::new();
    for part in user_ids.chunks(500) {
        let rows: Vec<(DeviceRow, Option<String>)> = match part {
            // One user is the common case, and the only one whose statement can be cached.
            [one] => on!(db, |c| joined!()
                .filter(devices::user_id.eq(one))
                .order(order)
                .load(c))?,
            some => on!(db, |c| joined!()
                .filter(devices::user_id.eq_any(some))
                .order(order)
                .load(c))?,
        };
        all.extend(
            rows.into_iter()
                .map(|(device, account_of)| Addressed { device, account_of }),
        );
    }
    Ok(all)
}

/// One device, with the service that registered its account.
pub fn device(db: &mut Conn, user_id: &str, device_id: &str) -> Result<Option<Addressed>> {
    let row: Option<(DeviceRow, Option<String>)> = on!(db, |c| devices::table
        .inner_join(users::table.on(users::user_id.eq(devices::user_id)))
        .filter(devices::user_id.eq(user_id))
        .filter(devices::device_id.eq(device_id))
        .select((DeviceRow::as_select(), users::appservice_id))
        .first(c)
        .optional())?;
    Ok(row.map(|(device, account_of)| Addressed { device, account_of }))
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = users, treat_none_as_default_value = false)]
pub struct UserRow {
    /// The full user id.
    pub user_id: String,
    /// The hash of the password, in the form of the PHC; `None` where nobody can log in with one.
    pub password_hash: Option<String>,
    /// The application service that registered it, if one did.
    pub appservice_id: Option<String>,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// Whether it was given up: the id stays taken.
    pub deactivated: bool,
    /// The profile field `displayname`.
    pub display_name: Option<String>,
    /// The profile field `avatar_url`.
    pub avatar_url: Option<String>,
    /// The other profile fields, a JSON object.
    pub profile: String,
}

/// An account, given up or not.
pub fn user(db: &mut Conn, user_id: &str) -> Result<Option<UserRow>> {
    Ok(on!(db, |c| users::table
        .find(user_id)
        .select(UserRow::as_select())
        .first(c)
        .optional())?)
}

/// The ids of the accounts after one, in order: for a look at all of them, page by page.
pub fn ids_after(db: &mut Conn, after: &str, limit: i64) -> Result<Vec<String>> {
    Ok(on!(db, |c| users::table
        .filter(users::user_id.gt(after))
        .order(users::user_id)
        .limit(limit)
        .select(users::user_id)
        .load(c))?)
}

/// Whether this account exists and is not given up.
pub fn is_active(db: &mut Conn, user_id: &str) -> Result<bool> {
    let deactivated: Option<bool> = on!(db, |c| users::table
        .find(user_id)
        .select(users::deactivated)
        .first(c)
        .optional())?;
    Ok(deactivated == Some(false))
}

/// Which of these accounts exist, each with whether it is deactivated.
pub fn existing(db: &mut Conn, user_ids: &[String]) -> Result<BTreeMap<String, bool>> {
    let mut all = BTreeMap::new();
    for part in user_ids.chunks(500) {
        let found: Vec<(String, bool)> = on!(db, |c| users::table
            .filter(users::user_id.eq_any(part))
            .select((users::user_id, users::deactivated))
            .load(c))?;
        all.extend(found);
    }
    Ok(all)
}

/// How many devices a user has.
pub fn count_devices(db: &mut Conn, user_id: &str) -> Result<i64> {
    Ok(on!(db, |c| devices::table
        .filter(devices::user_id.eq(user_id))
        .count()
        .get_result(c))?)
}

/// Whether this user has this device.
pub fn has_device(db: &mut Conn, user_id: &str, device_id: &str) -> Result<bool> {
    let found: Option<i64> = on!(db, |c| devices::table
        .find((user_id, device_id))
        .select(devices::born)
        .first(c)
        .optional())?;
    Ok(found.is_some())
}

/// Register an account. Whether its id was free; a taken one is left as it is.
pub fn register(db: &mut Conn, row: &UserRow) -> Result<bool> {
    let new = on!(db, |c| diesel::insert_into(users::table)
        .values(row)
        .on_conflict_do_nothing()
        .execute(c))?;
    db.added(format_args!("users"), new);
    Ok(new == 1)
}

/// The own user of a service exists, whoever registered it. Whether it had to be made.
pub fn ensure_sender(db: &mut Conn, user_id: &str, service: &ServiceId, now: i64) -> Result<bool> {
    let row = UserRow {
        appservice_id: Some(service.to_string()),
        ..UserRow::new(user_id, now)
    };
    register(db, &row)
}

impl UserRow {
    /// An account with nothing in it.
    #[must_use]
    pub fn new(user_id: &str, now: i64) -> UserRow {
        UserRow {
            user_id: user_id.to_owned(),
            password_hash: None,
            appservice_id: None,
            created_at: now,
            deactivated: false,
            display_name: None,
            avatar_url: None,
            profile: "{}".to_owned(),
        }
    }
}

/// From now on this is the hash of the account's password.
pub fn set_password(db: &mut Conn, user_id: &str, password_hash: &str) -> Result<()> {
    on!(db, |c| diesel::update(users::table.find(user_id))
        .set(users::password_hash.eq(password_hash))
        .execute(c))?;
    Ok(())
}

/// From now on this is the account's profile: two fields of their own and an object of the others.
pub fn set_profile(
    db: &mut Conn,
    user_id: &str,
    display_name: Option<&str>,
    avatar_url: Option<&str>,
    others: &str,
) -> Result<()> {
    on!(db, |c| diesel::update(users::table.find(user_id))
        .set((
            users::display_name.eq(display_name),
            users::avatar_url.eq(avatar_url),
            users::profile.eq(others)
        ))
        .execute(c))?;
    Ok(())
}

/// The account is given up: its id stays taken, its profile, account data and filters go. The hash of the password stays, so
/// that only the right one tells that the account is given up.
pub fn deactivate(db: &mut Conn, user_id: &str) -> Result<()> {
    set_profile(db, user_id, None, None, "{}")?;
    change!(db, |c| {
        diesel::update(users::table.find(user_id))
            .set(users::deactivated.eq(true))
            .execute(c)?;
        diesel::delete(account_data::table.filter(account_data::user_id.eq(user_id))).execute(c)?;
        diesel::delete(filters::table.filter(filters::user_id.eq(user_id))).execute(c)
    })?;
    Ok(())
}

/// The user wants its events to be erased: a user that joins a room from now on sees what is left of a redacted event. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate
pub fn erase(tx: &mut Tx<'_>, user_id: &str) -> Result<()> {
    let row = (
        erased_users::user_id.eq(user_id),
        erased_users::position.eq(tx.next_position().0),
    );
    on!(&mut **tx, |c| diesel::insert_into(erased_users::table)
        .values(&row)
        .on_conflict_do_nothing()
        .execute(c))?;
    Ok(())
}

/// Since when a user's events are erased; `None` if they are not.
pub fn erased_at(db: &mut Conn, user_id: &str) -> Result<Option<Position>> {
    let position: Option<i64> = on!(db, |c| erased_users::table
        .find(user_id)
        .select(erased_users::position)
        .first(c)
        .optional())?;
    Ok(position.map(Position))
}
