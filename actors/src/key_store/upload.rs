//! Handles uploads of a device's identity keys, one-time keys and fallback keys.

use actix::{Context, Handler, ResponseFuture};
use schema::accounts::Addressed;
use schema::{Tx, accounts, counts, keys, signing_keys};

use super::changed::Changed;
use super::rules::signing::signature_for_device;
use super::rules::upload as rule;
use super::{KeyStore, OneTimeKeyCounts, Upload, rules};
use crate::hooks::{Change, Hooks, ReportsChanges};
use crate::{Identity, Refusal, Result};

impl Handler<Upload> for KeyStore {
    type Result = ResponseFuture<Result<OneTimeKeyCounts>>;

    fn handle(&mut self, msg: Upload, _: &mut Context<Self>) -> Self::Result {
        let checked = check(&msg, &self.env.hooks);
        self.change(checked.map(|()| move |tx: &mut Tx<'_>| upload(tx, &msg)))
    }
}

/// The checks that need no database: the form of the keys, and their owner.
pub(super) fn check(msg: &Upload, hooks: &Hooks) -> Result<()> {
    let device = msg.from.needs_device()?;
    if let Some(json) = &msg.device_keys {
        let keys = rule::check_device_keys(json, &msg.from.user, device)?;
        if let Some(signer) = hooks.device_signer(&keys)? {
            signature_for_device(&keys, &signer)?;
        }
    }
    rule::check_keys(&msg.one_time_keys)?;
    rule::check_keys(&msg.fallback_keys)?;
    rule::check_fallback_keys(&msg.fallback_keys)
}

/// Part of a write that is not the key store's: check keys and store them.
pub(crate) fn upload_in(tx: &mut Tx<'_>, msg: &Upload, hooks: &Hooks) -> Result<Changed> {
    check(msg, hooks)?;
    Ok(upload(tx, msg)?.1)
}

// ANCHOR: upload
/// Store the keys of a device. Returns the number of its one-time keys, and what changed. Clause: cs.keys.device
pub(super) fn upload(tx: &mut Tx<'_>, msg: &Upload) -> Result<(OneTimeKeyCounts, Changed)> {
    let (user, device) = (msg.from.user.as_str(), msg.from.needs_device()?.as_str());
    let to = accounts::device(tx, user, device)?.ok_or_else(|| gone(&msg.from))?;
    let mut changed = Changed::default();

    let before = keys::device_keys(tx, user, device)?;
    if let Some(json) = &msg.device_keys
        && !before
            .as_deref()
            .is_some_and(|b| rules::is_same(b, json.get()))
    {
        put_device_keys(tx, &to, before.as_deref(), json.get())?;
        changed.device_lists(tx, &msg.from.user)?;
    }
    let fallback = put_fallback_keys(tx, &to, msg)?;
    let (counts, added) = add_one_time_keys(tx, &to, msg)?;
    let first = before.is_none()
        && msg
            .device_keys
            .as_ref()
            .is_some_and(|new| keys::take_messages(new.get()));
    if first || fallback || added {
        changed.counts(tx, &to, &msg.from.user)?;
    }
    Ok((counts, changed))
}
// ANCHOR_END: upload

/// The refusal if the device was deleted between the request and its write.
fn gone(from: &Identity) -> Refusal {
    match from.appservice {
        Some(_) => Refusal::UnknownDevice,
        None => Refusal::UnknownToken,
    }
}

/// Store identity keys. If the signed part has changed, signatures over and by the old keys are deleted.
fn put_device_keys(
    tx: &mut Tx<'_>,
    to: &Addressed,
    before: Option<&str>,
    json: &str,
) -> Result<()> {
    let (user, device) = (&to.device.user_id, &to.device.device_id);
    if let Some(before) = before
        && !rules::is_same_signed_part(&rules::canonical(before)?, &rules::canonical(json)?)
    {
        signing_keys::forget_signatures_over(tx, user, device)?;
        signing_keys::forget_signatures_by(tx, user, &format!("ed25519:{device}"))?;
    }
    keys::put_device_keys(tx, user, device, json)?;
    tx.changed(&Change::DeviceKeys {
        user,
        device,
        keys: json,
    })
}

/// Store fallback keys. Returns whether any is new. A key that is stored already stays used or unused. A key that was claimed, and
/// replaced since, counts as used when it is uploaded again.
fn put_fallback_keys(tx: &mut Tx<'_>, to: &Addressed, msg: &Upload) -> Result<bool> {
    let (user, device) = (&to.device.user_id, &to.device.device_id);
    let claimed = keys::claimed(tx, user, device, &rule::hashes(&msg.fallback_keys))?;
    let mut any = false;
    for (id, key) in &msg.fallback_keys {
        let (algorithm, key_id) = rule::split(id.as_str());
        let known = keys::fallback_key(tx, user, device, algorithm)?;
        if known
            .as_ref()
            .is_some_and(|k| k.key_id == key_id && rule::is_same_key(&k.json, key.get()))
        {
            continue;
        }
        if known.is_none() {
            let count = keys::count_fallback_keys(tx, user, device)?;
            rule::check_fallback_count(count)?;
        }
        let used = claimed.contains(&rule::hash(algorithm, key_id, key.get()));
        keys::put_fallback_key(tx, user, device, algorithm, key_id, key.get(), used)?;
        any = true;
    }
    Ok(any)
}

/// Store one-time keys. Returns the key counts afterwards, and whether any of the keys was new.
fn add_one_time_keys(
    tx: &mut Tx<'_>,
    to: &Addressed,
    msg: &Upload,
) -> Result<(OneTimeKeyCounts, bool)> {
    let (user, device) = (&to.device.user_id, &to.device.device_id);
    if msg.one_time_keys.is_empty() {
        let counts = counts::counts_of(tx, user, device)?;
        let counts = counts.map_or_else(Vec::new, |c| c.one_time);
        return Ok((
            rule::counts(counts.iter().map(|(a, n)| (a.as_str(), *n))),
            false,
        ));
    }
    let known = keys::one_time_keys(tx, user, device, rule::PER_DEVICE as i64)?;
    let claimed = keys::claimed(tx, user, device, &rule::hashes(&msg.one_time_keys))?;
    let new = rule::new_one_time_keys(&known, &claimed, &msg.one_time_keys)?;
    keys::add_one_time_keys(tx, user, device, &new)?;
    if !new.is_empty() {
        keys::trim_claimed(tx, user, device, rule::CLAIMED_KEPT)?;
        let ids: Vec<&str> = new.iter().map(|key| key.key_id.as_str()).collect();
        let ids = &ids[..];
        tx.changed(&Change::OneTimeKeys { user, device, ids })?;
    }
    let all = known.iter().chain(&new);
    Ok((
        rule::counts(all.map(|k| (k.algorithm.as_str(), 1))),
        !new.is_empty(),
    ))
}
