//! Users and their devices: look-ups, registration and deactivation. [`crate::sessions`] creates and deletes devices.
//!
//! Owner: `accounts`.

use std::collections::BTreeMap;

use diesel::prelude::*;

use crate::ServiceId;
use crate::store::kept::Keep as _;
use crate::tables::{account_data, devices, erased_users, filters, users};
use crate::{Conn, Position, Result, Tx};

/// A device and what created it.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = devices, treat_none_as_default_value = false)]
pub struct DeviceRow {
    /// The user that owns the device.
    pub user_id: String,
    /// The device id, unique for the user.
    pub device_id: String,
    /// The display name of the device, as its user chose it.
    pub display_name: Option<String>,
    /// The id of the appservice that created it; `None` if none did.
    pub appservice_id: Option<String>,
    /// Whether the user created it by a login or registration of its own. Owning the account then gives no appservice authority
    /// over the device.
    pub own_login: bool,
    /// The position at which the device was created. It distinguishes devices that had the same id one after the other.
    pub born: i64,
    /// The time of its last recorded request, in milliseconds since the epoch.
    pub last_seen_ts: Option<i64>,
    /// The IP address of that request.
    pub last_seen_ip: Option<String>,
}

/// A device with the appservice that registered its user. Which appservices have authority over the device depends on both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressed {
    /// The device.
    pub device: DeviceRow,
    /// The id of the appservice that registered the user; `None` if none did.
    pub account_of: Option<String>,
}

/// All devices of these users.
pub fn devices_of(db: &mut Conn, user_ids: &[&str]) -> Result<Vec<Addressed>> {
    // A macro, because a query that selects a row struct is bound to one engine.
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
        let rows: Vec<(DeviceRow, Option<String>)> = on!(db, |c| joined!()
            .filter(devices::user_id.eq_any(part))
            .order(order)
            .kept_for(part.len())
            .load(c))?;
        all.extend(
            rows.into_iter()
                .map(|(device, account_of)| Addressed { device, account_of }),
        );
    }
    Ok(all)
}

/// A device, with the appservice that registered its user.
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
    /// The hash of the password as a PHC string; `None` if the user cannot log in with a password.
    pub password_hash: Option<String>,
    /// The id of the appservice that registered the user; `None` if none did.
    pub appservice_id: Option<String>,
    /// The time of the registration, in milliseconds since the epoch.
    pub created_at: i64,
    /// Whether the account is deactivated. Its user id stays taken.
    pub deactivated: bool,
    /// The profile field `displayname`.
    pub display_name: Option<String>,
    /// The profile field `avatar_url`.
    pub avatar_url: Option<String>,
    /// The other profile fields, a JSON object.
    pub profile: String,
}

/// An account, also if it is deactivated.
pub fn user(db: &mut Conn, user_id: &str) -> Result<Option<UserRow>> {
    Ok(on!(db, |c| users::table
        .find(user_id)
        .select(UserRow::as_select())
        .first(c)
        .optional())?)
}

/// A page of user ids, in order: up to `limit` of those that come after `after`.
pub fn ids_after(db: &mut Conn, after: &str, limit: i64) -> Result<Vec<String>> {
    Ok(on!(db, |c| users::table
        .filter(users::user_id.gt(after))
        .order(users::user_id)
        .limit(limit)
        .select(users::user_id)
        .load(c))?)
}

/// Whether this account exists and is not deactivated.
pub fn is_active(db: &mut Conn, user_id: &str) -> Result<bool> {
    let deactivated: Option<bool> = on!(db, |c| users::table
        .find(user_id)
        .select(users::deactivated)
        .first(c)
        .optional())?;
    Ok(deactivated == Some(false))
}

/// Those of these accounts that exist, each with whether it is deactivated.
pub fn existing(db: &mut Conn, user_ids: &[String]) -> Result<BTreeMap<String, bool>> {
    let mut all = BTreeMap::new();
    for part in user_ids.chunks(500) {
        let found: Vec<(String, bool)> = on!(db, |c| users::table
            .filter(users::user_id.eq_any(part))
            .select((users::user_id, users::deactivated))
            .kept_for(part.len())
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

/// Registers an account. Returns `false` and changes nothing if the user id is taken.
pub fn register(db: &mut Conn, row: &UserRow) -> Result<bool> {
    let new = on!(db, |c| diesel::insert_into(users::table)
        .values(row)
        .on_conflict_do_nothing()
        .kept()
        .execute(c))?;
    db.added(format_args!("users"), new);
    Ok(new == 1)
}

/// Registers the sender user of an appservice, unless the user exists. Returns whether it was created.
pub fn ensure_sender(db: &mut Conn, user_id: &str, service: &ServiceId, now: i64) -> Result<bool> {
    let row = UserRow {
        appservice_id: Some(service.to_string()),
        ..UserRow::new(user_id, now)
    };
    register(db, &row)
}

impl UserRow {
    /// A new account without a password, a profile or an appservice.
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

/// Replaces the hash of the account's password.
pub fn set_password(db: &mut Conn, user_id: &str, password_hash: &str) -> Result<()> {
    on!(db, |c| diesel::update(users::table.find(user_id))
        .set(users::password_hash.eq(password_hash))
        .kept()
        .execute(c))?;
    Ok(())
}

/// Replaces the account's profile. `others` is a JSON object of the fields other than `displayname` and `avatar_url`.
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
        .kept()
        .execute(c))?;
    Ok(())
}

/// Deactivates an account: its user id stays taken; its profile, account data and filters are deleted. The hash of the password
/// is kept, so that a login reports the deactivation only to a client that knows the password.
pub fn deactivate(db: &mut Conn, user_id: &str) -> Result<()> {
    set_profile(db, user_id, None, None, "{}")?;
    change!(db, |c| {
        diesel::update(users::table.find(user_id))
            .set(users::deactivated.eq(true))
            .kept()
            .execute(c)?;
        diesel::delete(account_data::table.filter(account_data::user_id.eq(user_id))).execute(c)?;
        diesel::delete(filters::table.filter(filters::user_id.eq(user_id))).execute(c)
    })?;
    Ok(())
}

/// Records that a deactivated user wants its events to be erased: users that join a room from now on see the user's events in
/// redacted form. ([spec])
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
        .kept()
        .execute(c))?;
    Ok(())
}

/// The position at which a user asked for its events to be erased; `None` if it did not.
pub fn erased_at(db: &mut Conn, user_id: &str) -> Result<Option<Position>> {
    let position: Option<i64> = on!(db, |c| erased_users::table
        .find(user_id)
        .select(erased_users::position)
        .first(c)
        .optional())?;
    Ok(position.map(Position))
}
