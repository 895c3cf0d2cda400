//! The autopsy of an event that a device cannot decrypt: which of the user's devices were sent something that can have been the
//! room key, and what became of it.
//!
//! The server sees to which device a message was sent, by which user and when, but not what is in it: room keys travel in Olm, so
//! every `m.room.encrypted` message of the event's sender to the device can be the key.

mod finding;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schema::events::EventRow;
use schema::facts::{ClaimedKey, Deposited, Settlement};
use schema::{accounts, counts, events, inbox, keys, overview, owed, queues};
use serde::Serialize;
use serde_json::Value;

use super::traced::{Requester, Traced};
use crate::appservice_sender::SenderStatus;
use crate::runtime::history::Timed;
use crate::{Env, Error, Refusal, Result};
use finding::{Claim, DeviceFinding, KeyMessage};
use verdict::{Evidence, conclude};

/// The most claims and messages that are listed for a device.
const LISTED: usize = 50;

/// The type of a message encrypted with Olm.
const ENCRYPTED: &str = "m.room.encrypted";

/// How many positions back an event of a session is looked for.
const BACK: i64 = 100_000;

/// An event that cannot be decrypted, and the devices of a user.
#[derive(Debug, Clone, Serialize)]
pub struct Autopsy {
    /// The id of the event.
    pub event: String,
    /// Its sender.
    pub sender: String,
    /// The device that sent it.
    pub sender_device: Option<String>,
    /// The id of the Megolm session.
    pub session: Option<String>,
    /// The room.
    pub room: String,
    /// When it was sent, in milliseconds since the epoch.
    pub at: i64,
    /// The devices, in order of id.
    pub devices: Vec<DeviceFinding>,
}

/// Which event: by its id, or the newest one of a Megolm session.
#[derive(Debug, Clone)]
pub enum Undecryptable {
    /// The event with this id.
    Event(String),
    /// The newest event that was encrypted with this session.
    Session(String),
}

/// What is read from the database.
struct Read {
    event: EventRow,
    devices: Vec<StoredDevice>,
}

/// What is stored of a device.
struct StoredDevice {
    row: accounts::DeviceRow,
    known_keys: bool,
    counts: BTreeMap<String, i64>,
    /// The messages of the event's sender that wait.
    waiting: Vec<Waits>,
}

/// A message in an inbox, and the transaction that carries it to the appservice that decides.
type Waits = (inbox::InboxRow, Option<i64>);

/// The autopsy of an event for all devices of a user, or for one. `statuses` are those of all senders.
///
/// # Errors
/// [`Refusal::NotFound`] if there is no such event.
pub async fn autopsy(
    env: &Env,
    which: Undecryptable,
    user: String,
    device: Option<String>,
    statuses: Vec<SenderStatus>,
) -> Result<Autopsy> {
    let (owner, only) = (user.clone(), device.clone());
    let read = env.store.read(move |db| {
        let event = match &which {
            Undecryptable::Event(id) => events::by_id(db, id)?,
            Undecryptable::Session(session) => overview::event_of_session(db, session, BACK)?,
        };
        let none = || Refusal::NotFound("there is no such event".into());
        let event = event.ok_or_else(none)?;
        let mut devices = Vec::new();
        for to in accounts::devices_of(db, &[&owner])? {
            let device = to.device;
            if only.as_ref().is_some_and(|only| *only != device.device_id) {
                continue;
            }
            let known = keys::device_keys(db, &owner, &device.device_id)?.is_some();
            let left = counts::counts_of(db, &owner, &device.device_id)?.unwrap_or_default();
            let limit = i64::try_from(LISTED).unwrap_or(i64::MAX);
            let (_, waiting) = queues::waiting_for(db, &owner, &device.device_id, limit)?;
            let mut rows = Vec::new();
            for row in waiting
                .into_iter()
                .filter(|row| row.sender == event.sender && row.kind == ENCRYPTED)
            {
                let decides = row.decided_by.as_str().into();
                let owed = queues::owed_at(db, &decides, row.position, &[owed::TO_DEVICE])?;
                rows.push((row, owed.and_then(|owed| owed.txn).filter(|txn| *txn > 0)));
            }
            devices.push(StoredDevice {
                row: device,
                known_keys: known,
                counts: left.one_time.into_iter().collect(),
                waiting: rows,
            });
        }
        Ok::<_, Error>(Read { event, devices })
    });
    let Read { event, devices } = read.await?;
    let pdu: Value = serde_json::from_str(&event.pdu)?;
    let content = |name: &str| pdu["content"][name].as_str().map(str::to_owned);
    let sender_device = event.device_id.clone().or_else(|| content("device_id"));
    let traced = Traced::now(env);
    let requests = traced.requesters();
    let mut findings = Vec::new();
    for StoredDevice {
        row,
        known_keys,
        counts,
        waiting,
    } in devices
    {
        let claims = claims(env, &requests, &event.sender, &user, &row.device_id);
        let messages = messages(
            env,
            &traced,
            (&event.sender, &user, &row.device_id),
            waiting,
        );
        let evidence = Evidence {
            event: &event,
            sent_at: env
                .history
                .time_of(event.position)
                .unwrap_or(event.origin_server_ts),
            born: row.born,
            born_at: env.history.time_of(row.born),
            known_keys,
            claims: &claims,
            messages: &messages,
            named_at: traced.named_at(&event.sender, &user, &row.device_id),
            status: messages.last().and_then(|last| {
                let decides = last.decided_by.as_deref()?;
                statuses.iter().find(|status| status.service == decides)
            }),
            device: &row.device_id,
            user: &user,
        };
        let (verdict, missing, steps) = conclude(&evidence);
        findings.push(DeviceFinding {
            user: user.clone(),
            device: row.device_id,
            known_keys,
            counts,
            claims,
            messages,
            verdict,
            missing,
            steps,
        });
    }
    if findings.is_empty() {
        findings.extend(device.map(|device| verdict::no_such_device(&user, device)));
    }
    Ok(Autopsy {
        at: event.origin_server_ts,
        event: event.event_id,
        sender: event.sender,
        sender_device,
        session: content("session_id"),
        room: event.room_id,
        devices: findings,
    })
}

/// The claims for keys of the device, except those of which the trace knows that another user made them.
fn claims(
    env: &Env,
    requests: &BTreeMap<Arc<str>, Requester>,
    sender: &str,
    user: &str,
    device: &str,
) -> Vec<Claim> {
    let of_device = env
        .history
        .claims(LISTED, |claim| claim.user == user && claim.device == device);
    let claims = of_device.into_iter().map(|Timed { at, cause, what }| {
        let by = requests.get(&cause).cloned().unwrap_or_default();
        Claim {
            at,
            by: by.user,
            by_device: by.device,
            algorithm: what.algorithm,
            got: match what.key {
                ClaimedKey::OneTime => "one-time key",
                ClaimedKey::Fallback => "fallback key",
                ClaimedKey::Missing => "nothing",
            },
        }
    });
    claims
        .filter(|claim| claim.by.as_deref().is_none_or(|by| by == sender))
        .collect()
}

/// The encrypted messages of the sender to the device, from the history and from the inbox.
fn messages(
    env: &Env,
    traced: &Traced,
    (sender, user, device): (&str, &str, &str),
    waiting: Vec<Waits>,
) -> Vec<KeyMessage> {
    let fits = |message: &Deposited| {
        message.user == user
            && message.device == device
            && message.sender == sender
            && message.kind == ENCRYPTED
    };
    let mut all: BTreeMap<i64, KeyMessage> = BTreeMap::new();
    for Timed { at, what, .. } in env.history.deposits(LISTED, fits) {
        let settled = env.history.settled(|settled| {
            settled.position == what.position
                && settled.service == what.decided_by
                && settled.kind == owed::TO_DEVICE
        });
        let how = settled.map(|settled| settled.what.how);
        let delivered = match how {
            Some(Settlement::Delivered(transaction)) => Some(transaction),
            _ => None,
        };
        let taken = env.history.taken(user, device, what.position).is_some();
        all.insert(
            what.position,
            KeyMessage {
                position: what.position,
                at: Some(at),
                r#type: what.kind,
                decided_by: Some(what.decided_by).filter(|service| !service.is_empty()),
                transaction: delivered,
                acknowledged: taken || delivered.is_some(),
                deleted: how == Some(Settlement::DeviceDeleted),
                attempts: 0,
            },
        );
    }
    for (row, transaction) in waiting {
        let message = all.entry(row.position).or_insert_with(|| KeyMessage {
            position: row.position,
            at: env.history.time_of(row.position),
            r#type: row.kind.clone(),
            decided_by: Some(row.decided_by.clone()).filter(|service| !service.is_empty()),
            transaction: None,
            acknowledged: row.acknowledged,
            deleted: false,
            attempts: 0,
        });
        message.transaction = message.transaction.or(transaction);
    }
    let services: BTreeSet<String> = all
        .values()
        .filter_map(|message| message.decided_by.clone())
        .collect();
    let attempts: BTreeMap<String, _> = services
        .into_iter()
        .map(|service| (service.clone(), traced.attempts(&service)))
        .collect();
    for message in all.values_mut() {
        let of_service = message
            .decided_by
            .as_ref()
            .and_then(|service| attempts.get(service));
        let of_transaction = of_service
            .zip(message.transaction)
            .and_then(|(all, id)| all.get(&id));
        message.attempts = of_transaction.map_or(0, Vec::len);
    }
    all.into_values().collect()
}
