//! What happened to an item and an appservice: an event, a to-device message, a device list, or the key counts of a device.
//!
//! The database says what waits; the history says how what is gone was settled; the trace says how the attempts went. What none of
//! them holds is said to be unknown.

mod interest;
mod waiting;

use schema::facts::{Settled, Settlement};
use schema::owed::{self, Owed};
use schema::{ServiceId, events, queues};
use serde::Serialize;

use super::steps::{self, Step, shown};
use super::traced::Traced;
use crate::appservice_sender::SenderStatus;
use crate::appservice_sender::rules::is_acknowledged;
use crate::runtime::history::Timed;
use crate::services::CarriesInterests;
use crate::{Env, Error, Result};
use interest::Known;
use waiting::Standing;

/// What is asked about.
#[derive(Debug, Clone)]
pub enum About {
    /// The event with this id.
    Event(String),
    /// The to-device message at this position of the inbox, or with this `org.matrix.msgid`.
    ToDevice(String),
    /// The device list of this user.
    DeviceList(String),
    /// The key counts of this device: its owner, and its id.
    Keys(String, String),
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// The appservice acknowledged it.
    #[serde(rename = "delivered")]
    Delivered,
    /// The appservice is owed it.
    #[serde(rename = "waiting")]
    Waiting,
    /// The appservice was not owed it.
    #[serde(rename = "not interesting")]
    NotInteresting,
    /// The appservice was owed it and will not be sent it.
    #[serde(rename = "dropped")]
    Dropped,
    /// Neither the database nor the history says.
    #[serde(rename = "unknown")]
    Unknown,
}

/// What happened to an item.
#[derive(Debug, Clone, Serialize)]
pub struct Fate {
    /// What was asked about, as text.
    pub what: String,
    /// The appservice.
    pub service: ServiceId,
    /// How it ended.
    pub verdict: Verdict,
    /// How it came to that, in order.
    pub steps: Vec<Step>,
}

/// What happened to an item and this appservice, whose sender has this status; `None` if it has no sender.
///
/// # Errors
/// The database fails.
pub async fn fate(
    env: &Env,
    service: ServiceId,
    status: Option<SenderStatus>,
    about: About,
) -> Result<Fate> {
    let interests = env.store.interests();
    let (history, id, asked) = (env.history.clone(), service.clone(), about.clone());
    let hooks = env.hooks.clone();
    let read = env.store.read(move |db| {
        let known = match &asked {
            About::Event(event) => match events::by_id(db, event)? {
                Some(row) => interest::event(db, &hooks, &interests, &id, &row)?,
                None => Known::default(),
            },
            About::ToDevice(name) => {
                interest::message(db, &hooks, &interests, &history, &id, name)?
            }
            About::DeviceList(user) => interest::device_list(db, &hooks, &interests, &id, user)?,
            About::Keys(user, device) => interest::keys(db, &hooks, &interests, &id, user, device)?,
        };
        let row = match known.position {
            Some(position) => queues::owed_at(db, &id, position, &known.kinds)?,
            None if known.key.is_empty() => None,
            None => queues::owed_under(db, &id, known.kinds[0], &known.key)?,
        };
        let standing = match &row {
            Some(row) => Some(waiting::standing(db, &interests, &id, row)?),
            None => None,
        };
        Ok::<_, Error>((known, row, standing))
    });
    let (mut known, row, standing) = read.await?;
    let what = match about {
        About::Event(event) => format!("event {event}"),
        About::ToDevice(name) => format!("to-device message {name}"),
        About::DeviceList(user) => format!("device list of {user}"),
        About::Keys(user, device) => format!("key counts of {user}, device {device}"),
    };
    let Some(is) = known.is.take() else {
        let says = format!(
            "There is no {what} in the database, and none in the history, which begins with the start of the server."
        );
        return Ok(Fate {
            what,
            service,
            verdict: Verdict::Unknown,
            steps: vec![steps::UNKNOWN.says(says)],
        });
    };
    let at = known
        .position
        .and_then(|position| env.history.time_of(position));
    let mut all = vec![steps::FOUND.says(is).at(at)];
    let settled = settled(env, &service, &known);
    let verdict = match (row, standing, settled) {
        (Some(row), _, _) if row.txn == Some(owed::DELIVERED) => {
            let says = format!(
                "{service} has acknowledged it. It still waits for its device, over which {service} does not decide."
            );
            all.push(steps::SETTLED.says(says));
            Verdict::Delivered
        }
        (Some(row), Some(standing), _) => {
            all.extend(interest::owed_because(
                &service, &row.kind, &row.why, &row.item,
            ));
            all.extend(waits(env, &service, &row, &standing, status.as_ref()));
            Verdict::Waiting
        }
        (_, _, Some(settled)) => {
            let Settled {
                kind, why, item, ..
            } = &settled.what;
            all.extend(interest::owed_because(&service, kind, why, item));
            ended(env, &service, &settled, &mut all)
        }
        _ => unrecorded(env, &service, &known, at, &mut all),
    };
    all.append(&mut known.more);
    Ok(Fate {
        what,
        service,
        verdict,
        steps: all,
    })
}

/// How the item was settled last, as far as the history reaches.
fn settled(env: &Env, service: &ServiceId, known: &Known) -> Option<Timed<Settled>> {
    env.history.settled(|settled| {
        let same = match known.position {
            Some(position) => settled.position == position,
            None => !known.key.is_empty() && settled.key == known.key,
        };
        same && settled.service == service.as_str() && known.kinds.contains(&settled.kind.as_str())
    })
}

/// Why the item still waits.
fn waits(
    env: &Env,
    service: &ServiceId,
    row: &Owed,
    standing: &Standing,
    status: Option<&SenderStatus>,
) -> Vec<Step> {
    let Some(transaction) = row.txn.filter(|txn| *txn > 0) else {
        return standing.steps(service, row, status);
    };
    let says = format!("Transaction {transaction} carries it.");
    let frozen_at = standing.frozen.as_ref().map(|frozen| frozen.frozen_at);
    let carried = steps::CARRIED
        .says(says)
        .in_transaction(transaction)
        .at(frozen_at);
    let mut all = vec![carried];
    all.extend(attempts(env, service, transaction));
    all.extend(waiting::sending(service, transaction, status));
    all
}

/// The attempts at a transaction, each as a step.
fn attempts(env: &Env, service: &ServiceId, transaction: i64) -> Vec<Step> {
    let mut found = Traced::now(env).attempts(service.as_str());
    let found = found.remove(&transaction).unwrap_or_default();
    let steps = found.into_iter().map(|attempt| {
        let number = attempt.attempt;
        let (taken, outcome) = (
            attempt.outcome.parse().is_ok_and(is_acknowledged),
            attempt.outcome,
        );
        let says = match (taken, outcome.parse::<u16>()) {
            (true, _) => format!("Attempt {number} was answered {outcome}: {service} has it."),
            (false, Ok(_)) => format!(
                "Attempt {number} was answered {outcome}, so the same bytes are sent again."
            ),
            (false, Err(_)) => format!("Attempt {number} failed: {outcome}."),
        };
        Step {
            attempt: Some(number),
            at: Some(attempt.at),
            ..steps::ATTEMPT.says(says).in_transaction(transaction)
        }
    });
    steps.collect()
}

/// How an item was settled that is not owed any more.
fn ended(env: &Env, service: &ServiceId, settled: &Timed<Settled>, all: &mut Vec<Step>) -> Verdict {
    let at = Some(settled.at);
    let dropped = |says: &str| steps::DROPPED.says(says).at(at);
    match settled.what.how {
        Settlement::Delivered(transaction) => {
            let says = format!("Transaction {transaction} carried it.");
            all.push(steps::CARRIED.says(says).in_transaction(transaction));
            let attempts = attempts(env, service, transaction);
            if attempts.is_empty() {
                let says = format!(
                    "{service} acknowledged transaction {transaction}. The trace does not hold its attempts any more."
                );
                all.push(steps::SETTLED.says(says).in_transaction(transaction).at(at));
            }
            all.extend(attempts);
            return Verdict::Delivered;
        }
        Settlement::Replaced => all.push(dropped(
            "A newer change of the same replaced it while it waited.",
        )),
        Settlement::ReplacedInside(transaction) => {
            let says = format!(
                "A newer change of the same replaced it while transaction {transaction} carried it."
            );
            all.push(dropped(&says).in_transaction(transaction));
        }
        Settlement::DeviceDeleted => all.push(dropped(
            "Its device was deleted before it was sent, and its messages with it.",
        )),
        Settlement::Withdrawn => {
            let says = "It was withdrawn: its device was deleted, or the registration does not cover it any more.";
            all.push(dropped(says));
        }
    }
    Verdict::Dropped
}

/// Nothing is recorded of the item for the appservice.
fn unrecorded(
    env: &Env,
    service: &ServiceId,
    known: &Known,
    at: Option<i64>,
    all: &mut Vec<Step>,
) -> Verdict {
    all.push(
        known
            .interest
            .step
            .clone()
            .unwrap_or_else(|| steps::UNKNOWN.says("")),
    );
    if !known.interest.holds {
        return Verdict::NotInteresting;
    }
    if let (Some(at), true) = (at, known.position.is_some()) {
        // Since the start every item that was owed is in the history, as far back as it reaches.
        let says = format!(
            "That holds now. When it came, {}, it did not: {service} was not owed it.",
            shown(at)
        );
        all.push(steps::UNKNOWN.says(says).at(Some(at)));
        return Verdict::NotInteresting;
    }
    let says = match env.history.is_on() {
        true => {
            "Nothing of it is owed now, and the history, which begins with the start of the server, does not mention it."
        }
        false => "Nothing of it is owed now. This server keeps no history.",
    };
    all.push(steps::UNKNOWN.says(says));
    Verdict::Unknown
}
