//! Freezes a transaction in one write, so that the rows that are marked and the body that is sent always agree.
//!
//! Last on the way of a leave: [`next`] stops below a line that `held_by` finds; `gather.rs` collects the `left`.
//! Last on the way of a claim: [`slice`] holds counts back; the delay is `delay_counts` in `mod.rs`.
//!
//! Next on the way of a to-device message: `actors/src/appservice_sender/gather.rs`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::device_lists::held::{self, OpenLine};
use schema::owed::{self, Owed};
use schema::transactions::{self, Frozen};
use schema::{Position, Tx, back_fill, set_aside};
use serde_json::value::RawValue;

use super::counts::{self, SIGNED_CURVE25519};
use super::gather::{self, gather};
use super::rules;
use crate::Result;
use crate::dialects::{Dialects, Topic};
use crate::hooks::Hooks;
use crate::services::{CarriesInterests, Service};
use crate::wire::{Name, TransactionBody, TransactionContent};

/// Typing, receipts and presence: under the stable name for registrations with the stable flag, under the older name for those
/// with the older flag. (MSC2409) Clause: as.ephemeral.opt-in
pub const EPHEMERAL: Name = Name {
    unstable: "de.sorunome.msc2409.ephemeral",
    stable: "ephemeral",
};

/// The parameters of the next transaction.
#[derive(Clone)]
pub(super) struct Parameters {
    pub(super) now: i64,
    pub(super) hooks: Hooks,
    /// Counts, for each appservice, the keys of the transaction bodies: stable names and older ones.
    pub(super) dialects: Dialects,
    pub(super) ephemeral: Vec<Box<RawValue>>,
    /// Whether counts may be sent without anything else.
    pub(super) counts_alone: bool,
    /// Whether the sender looks for the first time since the start or since the registration changed. It then tries rows again that
    /// were set aside, and updates the marks of rows whose kind was switched on or off for the appservice.
    pub(super) is_first: bool,
}

/// What the sender can send next.
#[derive(Debug)]
pub(super) enum Next {
    /// This frozen transaction, which is sent until it is acknowledged.
    Frozen(Frozen),
    /// Only key counts, which wait briefly for other items.
    OnlyCounts,
    /// Nothing.
    Nothing,
}

/// The result of looking for something to send: what was found, the position up to which the write looked, and what holds back the
/// items above that position.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) next: Next,
    pub(super) looked: Position,
    pub(super) held: Option<HeldBy>,
}

/// What holds back items that an appservice is owed. The sender is woken when it has ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum HeldBy {
    /// The line of the device-list log at this position, until `device_lists` has read it.
    Line(Position),
    /// The back-fill of the appservice.
    BackFill,
}

/// The result of composing a transaction.
enum Composed {
    /// A transaction with this body, which carries everything that the appservice is owed up to the position.
    Body(Position, TransactionBody),
    /// Only counts.
    OnlyCounts,
    /// Nothing.
    Nothing,
    /// Nothing, because of rows that cannot be sent, each with the reason. Once these are set aside, composing starts again.
    Without(gather::Damaged),
}

// ANCHOR: next
/// The frozen transaction of the appservice, or the next one, frozen now. Clause: as.txn.one-at-a-time
pub(super) fn next(tx: &mut Tx<'_>, service: &Service, wanted: &Parameters) -> Result<Found> {
    // Nothing was looked at, so the sender must still look for every announced item.
    let not_looked = |next, held| {
        Ok(Found {
            next,
            looked: Position::START,
            held,
        })
    };
    if wanted.is_first {
        owed::resume(tx, &service.id, &service.kinds())?;
        set_aside::forget(tx, &service.id)?;
    }
    if let Some(frozen) = transactions::frozen(tx, &service.id)? {
        return not_looked(Next::Frozen(frozen), None);
    }
    // The back-fill owes older messages, which must be sent first. Its end wakes this sender.
    if back_fill::get(tx, &service.id)?.is_some() {
        return not_looked(Next::Nothing, Some(HeldBy::BackFill));
    }
    // A leave and its `left` are sent in one transaction, so look at nothing above a line of the device-list log that concerns this
    // appservice and has not been read yet.
    let (newest, interests) = (tx.head(), tx.interests());
    let line = held::held_by(tx, &interests, service, newest)?;
    let head = OpenLine::settled_up_to(line, newest);
    let held = line.map(|line| HeldBy::Line(line.position));
    let found = |next| {
        Ok(Found {
            next,
            looked: head,
            held,
        })
    };
    let (cut, body) = match slice_without(tx, service, wanted, head)? {
        Composed::Body(cut, body) => (cut, body),
        Composed::OnlyCounts => return found(Next::OnlyCounts),
        Composed::Nothing | Composed::Without(_) => return found(Next::Nothing),
    };
    let txn_id = transactions::next_txn_id(tx, &service.id, wanted.now)?;
    let names = body.names().map(|name| (Topic::Transaction, name));
    wanted.dialects.count(&service.id, names);
    let frozen = Frozen {
        appservice_id: service.id.to_string(),
        txn_id,
        cut: cut.0,
        body: body.into_json(),
        frozen_at: wanted.now,
    };
    transactions::freeze(tx, &frozen, &service.id)?;
    found(Next::Frozen(frozen))
}
// ANCHOR_END: next

// ANCHOR: set_aside
/// The content of the next transaction, without rows that cannot be sent: those are set aside with the reason. If it is not known
/// which row is the cause, only the rows at the oldest position are tried. Clause: own.txn.damaged-row
fn slice_without(
    tx: &mut Tx<'_>,
    service: &Service,
    wanted: &Parameters,
    head: Position,
) -> Result<Composed> {
    let (mut up_to, mut alone) = (head, None);
    loop {
        let aside = match contained(|| slice(tx, service, wanted, up_to))? {
            Ok(Composed::Without(rows)) => rows,
            Ok(slice) => return Ok(slice),
            Err(why) => {
                let oldest = owed::waiting(tx, &service.id, Position::START, head, 1)?;
                let Some(oldest) = oldest.into_iter().next() else {
                    return Err(schema::Error::Damaged(why).into());
                };
                if alone != Some(oldest.position) {
                    (up_to, alone) = (oldest.position(), Some(oldest.position));
                    continue;
                }
                vec![(oldest, why)]
            }
        };
        for (item, why) in aside {
            let Owed { kind, position, .. } = &item;
            tracing::error!(service = %service.id, kind, position, why, "this item cannot be sent to the application service and is set aside");
            set_aside::put(tx, &item, &why, wanted.now)?;
        }
        (up_to, alone) = (head, None);
    }
}

/// The result of composing something. A panic or a damaged value becomes a reason; a failure of the database stays an error.
fn contained<T>(compose: impl FnOnce() -> Result<T>) -> Result<Result<T, String>> {
    match catch_unwind(AssertUnwindSafe(compose)) {
        Ok(Ok(done)) => Ok(Ok(done)),
        Ok(Err(error)) => rules::reason(error).map(Err),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            let text = text.unwrap_or_else(|| "unknown reason".to_owned());
            Ok(Err(format!("composing it panicked: {text}")))
        }
    }
}

// ANCHOR_END: set_aside

/// The content of the next transaction, up to a position.
fn slice(
    tx: &mut Tx<'_>,
    service: &Service,
    wanted: &Parameters,
    head: Position,
) -> Result<Composed> {
    let interests = tx.interests();
    let slice = match gather(tx, &interests, service, head, wanted.now)? {
        Ok(slice) => slice,
        Err(damaged) => return Ok(Composed::Without(damaged)),
    };
    if slice.is_empty() && wanted.ephemeral.is_empty() {
        return Ok(Composed::Nothing);
    }
    // If there is nothing but key counts, they wait briefly for other items, unless a device has run out of keys.
    if slice.has_only_counts()
        && wanted.ephemeral.is_empty()
        && !wanted.counts_alone
        && !schema::counts::is_drained(tx, &slice.counts, SIGNED_CURVE25519)?
    {
        return Ok(Composed::OnlyCounts);
    }
    let cut = slice.cut;
    let body = compose(tx, service, slice, wanted.ephemeral.clone(), &wanted.hooks)?;
    Ok(Composed::Body(cut, body))
}

fn compose(
    tx: &mut Tx<'_>,
    service: &Service,
    slice: gather::Slice,
    ephemeral: Vec<Box<RawValue>>,
    hooks: &Hooks,
) -> Result<TransactionBody> {
    let counts = counts::to_send(tx, service, &slice.counts, &slice.recipients)?;
    let pending = TransactionContent {
        registration: service.registration.clone(),
        events: slice.events,
        ephemeral,
        to_device: slice.to_device,
        device_lists: slice.lists,
        others: slice.others,
        one_time_key_counts: counts.one_time,
        unused_fallback_key_types: counts.unused_fallback,
    };
    let mut body = TransactionBody::default();
    // Present even if empty: appservices refuse a body without it. Clause: as.txn.events-key
    body.put_always("events", &pending.events);
    if !pending.ephemeral.is_empty() {
        if pending.registration.receive_ephemeral {
            body.put_always(EPHEMERAL.stable, &pending.ephemeral);
        }
        if pending.registration.push_ephemeral {
            body.put_always(EPHEMERAL.unstable, &pending.ephemeral);
        }
    }
    // The proposals add the rest: `add_to_device` in `server/src/mscs/msc4203` the to-device messages, under the names that
    // the configuration selects; `msc3202` the device lists and key counts.
    hooks.compose(&pending, &mut body);
    Ok(body)
}

/// The appservice has accepted its transaction: delete what it carried and freeze the next one, in one write. Returns the
/// position of its first to-device message, if it had one, and the next transaction.
pub(super) fn acknowledge(
    tx: &mut Tx<'_>,
    service: &Service,
    taken: &Frozen,
    then: Option<&Parameters>,
) -> Result<(Option<Position>, Option<Found>)> {
    let first = owed::first_message(tx, &service.id, taken.txn_id)?;
    transactions::acknowledge(tx, taken)?;
    let found = then.map(|wanted| next(tx, service, wanted)).transpose()?;
    Ok((first, found))
}
