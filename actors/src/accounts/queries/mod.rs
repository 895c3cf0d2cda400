//! Reads about accounts, which do not wait for writes.

pub mod ignored;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ruma::push::Ruleset;
use ruma::{DeviceId, OwnedDeviceId, RoomId, UserId};
use schema::accounts::DeviceRow;
use schema::{accounts, sessions, user_data};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::accounts::rules::profile::Profile;
use crate::accounts::rules::{self, push_rules};
use crate::{Env, Error, Identity, Refusal, Result, Secret};

/// The stored form of a token. Tokens are random enough that one unsalted hash protects them.
pub(crate) fn token_hash(token: &Secret) -> String {
    STANDARD_NO_PAD.encode(Sha256::digest(token.reveal()))
}

/// The user and device of an access token. `None` also for tokens of application services.
pub async fn identity_of(env: &Env, token: &Secret) -> Result<Option<Identity>> {
    let hash = token_hash(token);
    if let Some(known) = env.identities.token(&hash) {
        return Ok(Some(known));
    }
    let before = env.identities.before();
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
    env.identities
        .learn_token(before, hash, user.clone(), device.clone());
    Ok(Some(Identity {
        user,
        device: Some(device),
        appservice: None,
    }))
}

/// Whether this account exists and is not deactivated.
pub async fn user_exists(env: &Env, user: &UserId) -> Result<bool> {
    if env.identities.has_user(user) {
        return Ok(true);
    }
    let before = env.identities.before();
    let id = user.to_string();
    let exists = env
        .store
        .read(move |db| accounts::is_active(db, &id))
        .await?;
    if exists {
        env.identities.learn_user(before, user);
    }
    Ok(exists)
}

/// Whether this user has this device.
pub async fn device_exists(env: &Env, user: &UserId, device: &DeviceId) -> Result<bool> {
    if env.identities.has_device(user, device) {
        return Ok(true);
    }
    let before = env.identities.before();
    let (id, name) = (user.to_string(), device.to_string());
    let exists = env
        .store
        .read(move |db| accounts::has_device(db, &id, &name))
        .await?;
    if exists {
        env.identities.learn_device(before, user, device);
    }
    Ok(exists)
}

/// Parse a user id from the database.
pub(crate) fn parse_user(id: &str) -> Result<ruma::OwnedUserId> {
    UserId::parse(id)
        .map_err(|e| Error::Storage(schema::Error::Damaged(format!("user id {id:?}: {e}"))))
}

/// All devices of a user, in order of id. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devices
pub async fn devices(env: &Env, user: &UserId) -> Result<Vec<DeviceRow>> {
    let id = user.to_string();
    let rows = env
        .store
        .read(move |db| accounts::devices_of(db, &[&id]))
        .await?;
    Ok(rows.into_iter().map(|row| row.device).collect())
}

/// One device of a user. ([spec])
///
/// # Errors
/// [`Refusal::NotFound`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devicesdeviceid
pub async fn device(env: &Env, user: &UserId, device: &DeviceId) -> Result<DeviceRow> {
    let (id, name) = (user.to_string(), device.to_string());
    let row = env
        .store
        .read(move |db| accounts::device(db, &id, &name))
        .await?;
    row.map(|row| row.device)
        .ok_or_else(|| Refusal::NotFound("no such device".into()).into())
}

/// All fields of a user's profile. ([spec])
///
/// # Errors
/// [`Refusal::NotFound`] for an unknown or deactivated user.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuserid
pub async fn profile(env: &Env, user: &UserId) -> Result<Map<String, Value>> {
    let id = user.to_string();
    let row = env
        .store
        .read(move |db| accounts::user(db, &id))
        .await?
        .filter(|row| !row.deactivated)
        .ok_or_else(|| Refusal::NotFound("no such user".into()))?;
    Ok(Profile::of(row)?.fields())
}

/// One field of a user's profile. ([spec])
///
/// # Errors
/// [`Refusal::NotFound`] for an unknown user, or a field that is not set.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuseridkeyname
pub async fn profile_field(env: &Env, user: &UserId, field: &str) -> Result<Value> {
    profile(env, user)
        .await?
        .remove(field)
        .ok_or_else(|| Refusal::NotFound("this field is not set".into()).into())
}

/// The content of account data, global or of a room. ([spec])
///
/// # Errors
/// [`Refusal::Forbidden`] when another user owns it, [`Refusal::NotFound`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridaccount_datatype
pub async fn account_data(
    env: &Env,
    requester: &UserId,
    owner: &UserId,
    room: Option<&RoomId>,
    kind: &str,
) -> Result<Box<RawValue>> {
    rules::own(requester, owner)?;
    stored(env, owner, room, kind)
        .await?
        .ok_or_else(|| Refusal::NotFound("no such account data".into()).into())
}

async fn stored(
    env: &Env,
    owner: &UserId,
    room: Option<&RoomId>,
    kind: &str,
) -> Result<Option<Box<RawValue>>> {
    let (user, room, kind) = (
        owner.to_string(),
        room.map(ToString::to_string).unwrap_or_default(),
        kind.to_owned(),
    );
    let content = env
        .store
        .read(move |db| user_data::get(db, &user, &room, &kind))
        .await?;
    Ok(content.map(RawValue::from_string).transpose()?)
}

/// The tags in a room's `m.tag`, as they were stored; empty if nothing is. ([spec])
///
/// # Errors
/// [`Refusal::Forbidden`] when another user owns it.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridroomsroomidtags
pub async fn tags(
    env: &Env,
    requester: &UserId,
    owner: &UserId,
    room: &RoomId,
) -> Result<Map<String, Value>> {
    rules::own(requester, owner)?;
    let content = stored(env, owner, Some(room), "m.tag").await?;
    // A client may store any content; invalid content counts as no tags, and an invalid tag as none.
    let content: Option<Value> = content.and_then(|raw| serde_json::from_str(raw.get()).ok());
    let Some(Value::Object(mut tags)) = content.map(|mut content| content["tags"].take()) else {
        return Ok(Map::new());
    };
    tags.retain(|_, info| info.is_object());
    Ok(tags)
}

/// A filter, as JSON. ([spec])
///
/// # Errors
/// [`Refusal::Forbidden`] when another user owns it, [`Refusal::NotFound`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridfilterfilterid
pub async fn filter(
    env: &Env,
    requester: &UserId,
    owner: &UserId,
    filter_id: &str,
) -> Result<String> {
    rules::own(requester, owner)?;
    let (user, filter_id) = (owner.to_string(), filter_id.to_owned());
    env.store
        .read(move |db| user_data::filter(db, &user, &filter_id))
        .await?
        .ok_or_else(|| Refusal::NotFound("no such filter".into()).into())
}

/// The stored push rules of a user, or the server's defaults. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrules
pub async fn push_rules(env: &Env, user: &UserId) -> Result<Ruleset> {
    let content = stored(env, user, None, push_rules::KIND).await?;
    let content = push_rules::Content::of(user, content.as_deref().map(RawValue::get))?;
    Ok(content.global)
}
