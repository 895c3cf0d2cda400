//! What may be looked up without queueing behind writes: whose token, which users and devices exist.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ruma::{DeviceId, OwnedDeviceId, UserId};
use schema::{accounts, sessions};
use sha2::{Digest, Sha256};

use crate::{Env, Error, Identity, Result, Secret};

/// The form in which a token is stored: a token has enough chance in it that one plain hash hides it.
pub(crate) fn token_hash(token: &Secret) -> String {
    STANDARD_NO_PAD.encode(Sha256::digest(token.reveal()))
}

/// Whose access token this is: a user on a device, or nobody's. Tokens of application services are not known here.
///
/// # Errors
/// When the database fails.
pub async fn who(env: &Env, token: &Secret) -> Result<Option<Identity>> {
    let hash = token_hash(token);
    if let Some(known) = env.known.token(&hash) {
        return Ok(Some(known));
    }
    let before = env.known.before();
    let key = hash.clone();
    let found = env
        .store
        .read(move |db| sessions::whose_token(db, &key))
        .await?;
    let Some((user, device)) = found else {
        return Ok(None);
    };
    let user = parse_user(&user)?;
    let device = OwnedDeviceId::from(device);
    env.known
        .learn_token(before, hash, user.clone(), device.clone());
    Ok(Some(Identity {
        user,
        device: Some(device),
        appservice: None,
    }))
}

/// Whether this account exists here and has not been deactivated.
///
/// # Errors
/// When the database fails.
pub async fn user_exists(env: &Env, user: &UserId) -> Result<bool> {
    if env.known.has_user(user) {
        return Ok(true);
    }
    let before = env.known.before();
    let id = user.to_string();
    let exists = env
        .store
        .read(move |db| accounts::is_active(db, &id))
        .await?;
    if exists {
        env.known.learn_user(before, user);
    }
    Ok(exists)
}

/// Whether this user has this device.
///
/// # Errors
/// When the database fails.
pub async fn device_exists(env: &Env, user: &UserId, device: &DeviceId) -> Result<bool> {
    if env.known.has_device(user, device) {
        return Ok(true);
    }
    let before = env.known.before();
    let (id, name) = (user.to_string(), device.to_string());
    let exists = env
        .store
        .read(move |db| accounts::has_device(db, &id, &name))
        .await?;
    if exists {
        env.known.learn_device(before, user, device);
    }
    Ok(exists)
}

/// A user id that the database holds.
pub(crate) fn parse_user(id: &str) -> Result<ruma::OwnedUserId> {
    UserId::parse(id)
        .map_err(|e| Error::Storage(schema::Error::Damaged(format!("user id {id:?}: {e}"))))
}
