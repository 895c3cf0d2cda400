//! Reads for `/sync`, `/keys/changes` and presence, which do not wait for writes.

pub(super) mod ask;
pub(super) mod devices;
pub(super) mod events;
pub(super) mod gather;
pub(super) mod history;
pub(super) mod personal;
pub(super) mod pieces;
pub(super) mod room;
pub(super) mod unread;

use ruma::UserId;
use schema::{Conn, accounts};

use self::devices::SyncDeviceLists;
use crate::sync::rules::token::Token;
use crate::sync::volatile::Presence;
use crate::{Actors, Env, Error, Refusal, Result};

/// The users whose devices changed between two tokens, and those that need not be tracked any more. ([spec])
///
/// # Errors
/// [`Refusal::InvalidParam`] for an invalid token.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3keyschanges
/// Clause: cs.lists.between
pub async fn key_changes(
    env: &Env,
    user: &UserId,
    from: &str,
    to: &str,
) -> Result<SyncDeviceLists> {
    let (user, from, to) = (user.to_string(), Token::parse(from)?, Token::parse(to)?);
    let after = from.position;
    let is_long_ago = env.store.read(move |db| devices::is_long_ago(db, after));
    let look = move |db: &mut Conn| {
        let to = to.below(schema::sync::head(db)?);
        devices::changes(db, &user, after, to.position)
    };
    if is_long_ago.await? {
        env.store.read_slow(look).await
    } else {
        env.store.read(look).await
    }
}

/// A user's presence, for a user that shares a room with it; offline if it was never set. ([spec])
///
/// # Errors
/// [`Refusal::NotFound`] for an unknown user; [`Refusal::Forbidden`] without a common room.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3presenceuseridstatus
pub async fn presence(actors: &Actors, by: &UserId, of: &UserId) -> Result<Presence> {
    let env = &actors.env;
    let (by, user) = (by.to_string(), of.to_string());
    env.store
        .read(move |db| {
            if !accounts::is_active(db, &user)? {
                return Err(Refusal::NotFound("no such user".into()).into());
            }
            if by != user && !schema::sync::shares_a_room(db, &by, &user)? {
                return Err(Refusal::Forbidden("you share no room with this user".into()).into());
            }
            Ok::<_, Error>(())
        })
        .await?;
    let now = env.clock.monotonic();
    Ok(actors.volatile.presence(of.as_str()).unwrap_or(Presence {
        state: "offline".to_owned(),
        message: None,
        since: now,
    }))
}
