//! The cross-signing keys of users, and signatures over keys that were uploaded separately.
//!
//! Owner: `key_store`.

use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::store::kept::Keep as _;
use crate::tables::{cross_signing_keys, key_signatures};
use crate::{Conn, Result};

/// The most users in one statement.
const USERS: usize = 500;

/// A cross-signing key.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = cross_signing_keys)]
pub struct SigningKeyRow {
    /// The user that owns the key.
    pub user_id: String,
    /// Its usage: `master`, `self_signing` or `user_signing`.
    pub usage: String,
    /// The public key, in base64 as the client wrote it.
    pub public_key: String,
    /// The key object, with the bytes that the client sent.
    pub json: String,
}

/// A cross-signing key of a user.
pub fn signing_key(db: &mut Conn, user_id: &str, usage: &str) -> Result<Option<SigningKeyRow>> {
    Ok(on!(db, |c| cross_signing_keys::table
        .find((user_id, usage))
        .select(SigningKeyRow::as_select())
        .first(c)
        .optional())?)
}

/// The cross-signing keys of these users.
pub fn signing_keys(db: &mut Conn, user_ids: &[&str]) -> Result<Vec<SigningKeyRow>> {
    use cross_signing_keys as t;
    let mut all = Vec::new();
    for part in user_ids.chunks(USERS) {
        all.extend(on!(db, |c| t::table
            .filter(t::user_id.eq_any(part))
            .select(SigningKeyRow::as_select())
            .kept_for(part.len())
            .load(c))?);
    }
    Ok(all)
}

/// Inserts or replaces a cross-signing key.
pub fn put_signing_key(db: &mut Conn, row: &SigningKeyRow) -> Result<()> {
    use cross_signing_keys as t;
    on!(db, |c| diesel::insert_into(t::table)
        .values(row)
        .on_conflict((t::user_id, t::usage))
        .do_update()
        .set((
            t::public_key.eq(excluded(t::public_key)),
            t::json.eq(excluded(t::json))
        ))
        .kept()
        .execute(c))?;
    Ok(())
}

/// Deletes the cross-signing key of a user for a usage.
pub fn remove_signing_key(db: &mut Conn, user_id: &str, usage: &str) -> Result<()> {
    on!(db, |c| diesel::delete(
        cross_signing_keys::table.find((user_id, usage))
    )
    .execute(c))?;
    Ok(())
}

/// A signature over a key, made by the owner of the key or by another user, and uploaded separately from the key.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = key_signatures)]
pub struct SignatureRow {
    /// The user that owns the signed key.
    pub target_user: String,
    /// The user that made the signature.
    pub signer_user: String,
    /// The signed key: a device id, or the public key of a cross-signing key.
    pub target_key: String,
    /// The key that made the signature: `ed25519:` and a device id or a public key.
    pub signer_key: String,
    /// The signature in base64.
    pub signature: String,
}

impl SignatureRow {
    fn stored(mut self) -> SignatureRow {
        if self.signer_user == self.target_user {
            self.signer_user.clear();
        }
        self
    }

    fn loaded(mut self) -> SignatureRow {
        if self.signer_user.is_empty() {
            self.signer_user.clone_from(&self.target_user);
        }
        self
    }
}

/// Inserts or replaces a signature. Returns whether anything changed.
pub fn put_signature(db: &mut Conn, signature: &SignatureRow) -> Result<bool> {
    use key_signatures as t;
    let row = signature.clone().stored();
    let known: Option<String> = on!(db, |c| t::table
        .find((
            &row.target_user,
            &row.signer_user,
            &row.target_key,
            &row.signer_key
        ))
        .select(t::signature)
        .first(c)
        .optional())?;
    if known.as_ref() == Some(&row.signature) {
        return Ok(false);
    }
    on!(db, |c| diesel::insert_into(t::table)
        .values(&row)
        .on_conflict((t::target_user, t::signer_user, t::target_key, t::signer_key))
        .do_update()
        .set(t::signature.eq(excluded(t::signature)))
        .kept()
        .execute(c))?;
    Ok(true)
}

/// The signatures over keys of these users that `reader` may see: those that each owner made, and those that `reader` made.
pub fn signatures_for(db: &mut Conn, reader: &str, user_ids: &[&str]) -> Result<Vec<SignatureRow>> {
    use key_signatures as t;
    let mut all: Vec<SignatureRow> = Vec::new();
    for part in user_ids.chunks(USERS) {
        all.extend(on!(db, |c| t::table
            .filter(t::target_user.eq_any(part))
            .filter(t::signer_user.eq_any(["", reader]))
            .select(SignatureRow::as_select())
            .kept_for(part.len())
            .load(c))?);
    }
    Ok(all.into_iter().map(SignatureRow::loaded).collect())
}

/// The signatures over keys of these users that `signers` made.
pub fn signatures_by(
    db: &mut Conn,
    signers: &[&str],
    user_ids: &[&str],
) -> Result<Vec<SignatureRow>> {
    use key_signatures as t;
    let mut all = Vec::new();
    for part in user_ids.chunks(USERS) {
        all.extend(on!(db, |c| t::table
            .filter(t::target_user.eq_any(part))
            .filter(t::signer_user.eq_any(signers))
            .select(SignatureRow::as_select())
            .kept_for(part.len().max(signers.len()))
            .load(c))?);
    }
    Ok(all)
}

/// The other users over whose keys a user made signatures with this key.
pub fn signed_by(db: &mut Conn, user_id: &str, signer_key: &str) -> Result<Vec<String>> {
    use key_signatures as t;
    Ok(on!(db, |c| t::table
        .filter(t::signer_user.eq(user_id))
        .filter(t::signer_key.eq(signer_key))
        .select(t::target_user)
        .distinct()
        .order(t::target_user)
        .load(c))?)
}

/// Deletes the signatures over a key that was replaced.
pub fn forget_signatures_over(db: &mut Conn, user_id: &str, key: &str) -> Result<()> {
    use key_signatures as t;
    on!(db, |c| diesel::delete(
        t::table
            .filter(t::target_user.eq(user_id))
            .filter(t::target_key.eq(key))
    )
    .execute(c))?;
    Ok(())
}

/// Deletes the signatures that a user made with a key that was replaced.
pub fn forget_signatures_by(db: &mut Conn, user_id: &str, signer_key: &str) -> Result<()> {
    use key_signatures as t;
    change!(db, |c| {
        diesel::delete(
            t::table
                .filter(t::target_user.eq(user_id))
                .filter(t::signer_user.eq(""))
                .filter(t::signer_key.eq(signer_key)),
        )
        .execute(c)?;
        diesel::delete(
            t::table
                .filter(t::signer_user.eq(user_id))
                .filter(t::signer_key.eq(signer_key)),
        )
        .execute(c)
    })?;
    Ok(())
}

/// Deletes the cross-signing keys of a deactivated user, and all signatures over its keys and by it.
pub fn forget_user(db: &mut Conn, user_id: &str) -> Result<()> {
    change!(db, |c| {
        diesel::delete(cross_signing_keys::table.filter(cross_signing_keys::user_id.eq(user_id)))
            .execute(c)?;
        diesel::delete(key_signatures::table.filter(key_signatures::target_user.eq(user_id)))
            .execute(c)?;
        diesel::delete(key_signatures::table.filter(key_signatures::signer_user.eq(user_id)))
            .execute(c)
    })?;
    Ok(())
}
