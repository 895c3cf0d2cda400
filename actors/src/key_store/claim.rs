//! Claiming one-time and fallback keys. `KeyStore::change` (`mod.rs`) runs the write, and `Changed::announce` after its commit.
//!
//! Next on the way of a claim: `schema/src/keys.rs`.

use actix::{Context, Handler, ResponseFuture};
use ruma::{DeviceId, OneTimeKeyAlgorithm, OwnedOneTimeKeyId, UserId};
use schema::facts::{ClaimedKey, Fact};
use schema::{Tx, accounts, keys};
use serde_json::value::RawValue;

use super::changed::Changed;
use super::rules::upload as rule;
use super::{Claim, ClaimFallback, Claimed, KeyStore, Keys, Wanted};
use crate::Result;
use crate::hooks::{Change, ReportsChanges};

impl Handler<Claim> for KeyStore {
    type Result = ResponseFuture<Result<Claimed>>;

    fn handle(&mut self, msg: Claim, _: &mut Context<Self>) -> Self::Result {
        let from = if msg.or_fallback {
            KeySource::Any
        } else {
            KeySource::OneTime
        };
        let checked = rule::check_claim(&msg.wanted);
        self.change(checked.map(|()| move |tx: &mut Tx<'_>| claim(tx, &msg.wanted, from)))
    }
}

impl Handler<ClaimFallback> for KeyStore {
    type Result = ResponseFuture<Result<Claimed>>;

    fn handle(&mut self, msg: ClaimFallback, _: &mut Context<Self>) -> Self::Result {
        let from = KeySource::Fallback;
        let checked = rule::check_claim(&msg.wanted);
        self.change(checked.map(|()| move |tx: &mut Tx<'_>| claim(tx, &msg.wanted, from)))
    }
}

/// The keys that a claim may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeySource {
    /// One-time keys only.
    OneTime,
    /// A one-time key, or else the fallback key.
    Any,
    /// The fallback key only, because one-time keys have been looked for already.
    Fallback,
}

// ANCHOR: claim
/// Take a key from each device. Returns the claimed keys, the devices without a key, and whom to notify.
/// Clause: cs.keys.fallback, cs.keys.missing
pub(super) fn claim(
    tx: &mut Tx<'_>,
    wanted: &Wanted,
    from: KeySource,
) -> Result<(Claimed, Changed)> {
    let (mut claimed, mut changed) = (Claimed::default(), Changed::default());
    for (user, devices) in wanted {
        for (device, algorithm) in devices {
            let taken = take(tx, user, device, algorithm, from)?;
            if taken.as_ref().is_some_and(|t| t.counts_changed)
                && let Some(to) = accounts::device(tx, user.as_str(), device.as_str())?
            {
                changed.counts(tx, &to, user)?;
            }
            tx.note(|| {
                [Fact::Claimed {
                    user: user.to_string(),
                    device: device.to_string(),
                    algorithm: algorithm.to_string(),
                    key: taken
                        .as_ref()
                        .map_or(ClaimedKey::Missing, |taken| taken.from),
                }]
            });
            match taken {
                Some(Taken { key, from, .. }) => {
                    tx.changed(&Change::Claimed {
                        user: user.as_str(),
                        device: device.as_str(),
                        algorithm: algorithm.as_str(),
                        key: key.keys().next().map_or("", |id| id.as_str()),
                        is_fallback: from == ClaimedKey::Fallback,
                    })?;
                    let of_user = claimed.one_time_keys.entry(user.clone()).or_default();
                    of_user.insert(device.clone(), key);
                }
                None => {
                    let of_user = claimed.missing.entry(user.clone()).or_default();
                    of_user.insert(device.clone(), algorithm.clone());
                }
            }
        }
    }
    Ok((claimed, changed))
}
// ANCHOR_END: claim

struct Taken {
    key: Keys,
    from: ClaimedKey,
    counts_changed: bool,
}

fn take(
    tx: &mut Tx<'_>,
    user: &UserId,
    device: &DeviceId,
    algorithm: &OneTimeKeyAlgorithm,
    from: KeySource,
) -> Result<Option<Taken>> {
    let (user, device, algorithm) = (user.as_str(), device.as_str(), algorithm.as_str());
    if from != KeySource::Fallback
        && let Some((key_id, json)) = keys::take_one_time_key(tx, user, device, algorithm)?
    {
        let hash = rule::hash(algorithm, &key_id, &json);
        keys::remember_claimed(tx, user, device, hash)?;
        return Ok(Some(Taken {
            key: one_key(algorithm, &key_id, json)?,
            from: ClaimedKey::OneTime,
            counts_changed: true,
        }));
    }
    if from != KeySource::OneTime
        && let Some(fallback) = keys::fallback_key(tx, user, device, algorithm)?
    {
        if !fallback.used {
            keys::mark_fallback_key_used(tx, user, device, algorithm)?;
            let hash = rule::hash(algorithm, &fallback.key_id, &fallback.json);
            keys::remember_claimed(tx, user, device, hash)?;
        }
        return Ok(Some(Taken {
            key: one_key(algorithm, &fallback.key_id, fallback.json)?,
            from: ClaimedKey::Fallback,
            counts_changed: !fallback.used,
        }));
    }
    Ok(None)
}

fn one_key(algorithm: &str, key_id: &str, json: String) -> Result<Keys> {
    let id = OwnedOneTimeKeyId::try_from(format!("{algorithm}:{key_id}"))
        .map_err(|e| schema::Error::Damaged(format!("key id {key_id:?}: {e}")))?;
    Ok(Keys::from([(id, RawValue::from_string(json)?)]))
}
