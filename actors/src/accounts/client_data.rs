//! Data that clients store with an account: profile, account data, tags, filters, push rules.

use actix::{Context, Handler, ResponseFuture};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schema::{Position, Tx, accounts, user_data};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::account_data::{self, Put};
use super::messages::{ChangePushRules, SetAccountData, SetFilter, SetProfile, SetTag};
use super::rules::profile::Profile;
use super::rules::push_rules;
use super::{Accounts, rules};
use crate::hooks::{Change, ReportsChanges};
use crate::runtime::lengths::NAME;
use crate::{Refusal, Result, guarded};

/// The largest content of account data, of tags or of a filter, in bytes.
const CONTENT_BYTES: usize = 65_536;

/// The most pieces of account data, and the most filters, that a user may store: far more than clients create.
const KEPT: i64 = 10_000;

/// The most bytes of account data that a user may store, for all rooms together: the first `/sync` sends all of it at once.
const ACCOUNT_BYTES: i64 = 16 << 20;

/// Account data types that only the server writes. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridaccount_datatype
const MANAGED: [&str; 2] = ["m.fully_read", push_rules::KIND];

impl Handler<SetProfile> for Accounts {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: SetProfile, _: &mut Context<Self>) -> Self::Result {
        let write = self.env.store.write(move |tx| {
            rules::own(&msg.who.user, &msg.user)?;
            let user = msg.user.as_str();
            let row = accounts::user(tx, user)?.filter(|row| !row.deactivated);
            let row = row.ok_or_else(|| Refusal::NotFound("no such user".into()))?;
            let profile = Profile::of(row)?.with(&msg.field, msg.value.clone())?;
            accounts::set_profile(
                tx,
                user,
                profile.display_name.as_deref(),
                profile.avatar_url.as_deref(),
                &Value::Object(profile.others).to_string(),
            )?;
            tx.changed(&Change::Profile {
                user,
                field: &msg.field,
                value: msg.value.as_ref(),
            })
        });
        guarded(&self.env, "accounts", write)
    }
}

impl Handler<SetAccountData> for Accounts {
    type Result = ResponseFuture<Result<Position>>;

    fn handle(&mut self, msg: SetAccountData, _: &mut Context<Self>) -> Self::Result {
        let (env, user) = (self.env.clone(), msg.user.clone());
        let write = self.env.store.write(move |tx| put(tx, &msg));
        guarded(&self.env, "accounts", async move {
            let put = write.await?;
            env.wake.services(&put.services, Some(put.position));
            env.wake.users(vec![user]);
            Ok(put.position)
        })
    }
}

fn put(tx: &mut Tx<'_>, msg: &SetAccountData) -> Result<Put> {
    rules::own(&msg.who.user, &msg.user)?;
    if MANAGED.contains(&msg.kind.as_str()) {
        let text = format!(
            "{} is written by the server; use its own endpoint",
            msg.kind
        );
        return Err(Refusal::ManagedByServer(text.into()).into());
    }
    if !msg.content.get().trim_start().starts_with('{') {
        return Err(Refusal::BadJson("account data must be an object".into()).into());
    }
    let room = msg.room.as_ref().map_or("", |room| room.as_str());
    keep(tx, msg.user.as_str(), room, &msg.kind, msg.content.get())
}

/// Part of a write: store account data, within the limits.
fn keep(tx: &mut Tx<'_>, user: &str, room: &str, kind: &str, content: &str) -> Result<Put> {
    if kind.is_empty() || kind.len() > NAME || room.len() > NAME {
        return Err(Refusal::InvalidParam("a type has 1 to 255 bytes".into()).into());
    }
    rules::no_nul(kind)?;
    rules::no_nul(room)?;
    if content.len() > CONTENT_BYTES {
        return Err(Refusal::TooLarge("account data has at most 64 KiB".into()).into());
    }
    let stored = user_data::get(tx, user, room, kind)?;
    if stored.is_none() && user_data::count(tx, user)? >= KEPT {
        return Err(Refusal::TooMany(
            "this account has 10,000 pieces of account data, which is the most".into(),
        )
        .into());
    }
    let before = stored.as_ref().map_or(0, String::len);
    if content.len() > before {
        let others = user_data::bytes_besides(tx, user, room, kind)?;
        if others + i64::try_from(content.len()).unwrap_or(i64::MAX) > ACCOUNT_BYTES {
            return Err(Refusal::TooLarge("an account keeps at most 16 MiB of data".into()).into());
        }
    }
    account_data::put(tx, user, room, kind, content)
}

impl Handler<SetTag> for Accounts {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: SetTag, _: &mut Context<Self>) -> Self::Result {
        let (env, user) = (self.env.clone(), msg.user.clone());
        let write = self.env.store.write(move |tx| tag(tx, &msg));
        guarded(&self.env, "accounts", async move {
            let put = write.await?;
            env.wake.services(&put.services, Some(put.position));
            env.wake.users(vec![user]);
            Ok(())
        })
    }
}

fn tag(tx: &mut Tx<'_>, msg: &SetTag) -> Result<Put> {
    rules::own(&msg.who.user, &msg.user)?;
    if msg.tag.is_empty() || msg.tag.len() > NAME {
        return Err(Refusal::InvalidParam("a tag has 1 to 255 bytes".into()).into());
    }
    rules::no_nul(&msg.tag)?;
    let (user, room) = (msg.user.as_str(), msg.room.as_str());
    let stored = user_data::get(tx, user, room, "m.tag")?;
    let content = tagged(stored.as_deref(), &msg.tag, msg.info.clone())?;
    keep(tx, user, room, "m.tag", &content)
}

/// The content of `m.tag` with one tag set, or removed if `info` is `None`; the other tags stay.
fn tagged(stored: Option<&str>, tag: &str, info: Option<Value>) -> Result<String> {
    let mut content: Map<String, Value> = match stored {
        Some(json) => serde_json::from_str(json)?,
        None => Map::new(),
    };
    let tags = content
        .entry("tags")
        .or_insert_with(|| Value::Object(Map::new()));
    if !tags.is_object() {
        // `m.tag` can be set as account data too, with any content.
        *tags = Value::Object(Map::new());
    }
    if let Some(tags) = tags.as_object_mut() {
        match info {
            Some(info) => tags.insert(tag.to_owned(), info),
            None => tags.remove(tag),
        };
    }
    Ok(Value::Object(content).to_string())
}

impl Handler<SetFilter> for Accounts {
    type Result = ResponseFuture<Result<String>>;

    fn handle(&mut self, msg: SetFilter, _: &mut Context<Self>) -> Self::Result {
        let write = self.env.store.write(move |tx| {
            rules::own(&msg.who.user, &msg.user)?;
            let user = msg.user.as_str();
            if msg.filter.len() > CONTENT_BYTES {
                return Err(Refusal::TooLarge("a filter has at most 64 KiB".into()).into());
            }
            let id = filter_id(&msg.filter);
            if user_data::filter(tx, user, &id)?.is_some() {
                return Ok(id);
            }
            if user_data::count_filters(tx, user)? >= KEPT {
                return Err(Refusal::TooMany(
                    "this account has 10,000 filters, which is the most".into(),
                )
                .into());
            }
            user_data::put_filter(tx, user, &id, &msg.filter)?;
            Ok(id)
        });
        guarded(&self.env, "accounts", write)
    }
}

/// The id of a filter is a hash of its text, so that a client that uploads the same filter again does not add a row. It never
/// begins with `{`, which marks an inline filter.
fn filter_id(filter: &str) -> String {
    URL_SAFE_NO_PAD.encode(&Sha256::digest(filter)[..12])
}

impl Handler<ChangePushRules> for Accounts {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: ChangePushRules, _: &mut Context<Self>) -> Self::Result {
        let (env, user) = (self.env.clone(), msg.who.user.clone());
        let write = self.env.store.write(move |tx| {
            let user = &msg.who.user;
            let stored = user_data::get(tx, user.as_str(), "", push_rules::KIND)?;
            let content =
                push_rules::Content::of(user, stored.as_deref())?.with(msg.change.clone())?;
            account_data::put(tx, user.as_str(), "", push_rules::KIND, &content)
        });
        guarded(&self.env, "accounts", async move {
            let put = write.await?;
            env.wake.services(&put.services, Some(put.position));
            env.wake.users(vec![user]);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tags_are_put_and_taken_away_one_by_one() {
        let info = || Some(json!({"order": 0.5}));
        let cases = [
            (
                None,
                "m.favourite",
                info(),
                json!({"tags": {"m.favourite": {"order": 0.5}}}),
            ),
            (
                Some(json!({"tags": {"u.a": {}}})),
                "u.b",
                info(),
                json!({"tags": {"u.a": {}, "u.b": {"order": 0.5}}}),
            ),
            (
                Some(json!({"tags": {"u.a": {}}})),
                "u.a",
                None,
                json!({"tags": {}}),
            ),
            (
                Some(json!({"tags": {"u.a": {}}})),
                "u.b",
                None,
                json!({"tags": {"u.a": {}}}),
            ),
            (
                Some(json!({"tags": 7, "other": 1})),
                "u.b",
                None,
                json!({"tags": {}, "other": 1}),
            ),
        ];
        for (stored, tag, info, expected) in cases {
            let stored = stored.map(|s: Value| s.to_string());
            let content = tagged(stored.as_deref(), tag, info).expect("a content");
            let content: Value = serde_json::from_str(&content).expect("an object");
            assert_eq!(content, expected, "{stored:?} {tag}");
        }
    }

    #[test]
    fn the_same_filter_has_the_same_id() {
        assert_eq!(filter_id("{}"), filter_id("{}"));
        assert_ne!(filter_id("{}"), filter_id(r#"{"room":{}}"#));
    }
}
