//! Freezing what a service is owed: one write, so that what is in the body, what is stamped and what is sent are the same, whatever
//! happens around it.

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
use crate::services::{CarriesInterests, Service};
use crate::wire::{Body, Hooks, Name, Pending};

/// Typing, receipts and presence: stable for who asks by the stable flag, under the old name for who asks by the old one. (MSC2409)
pub const EPHEMERAL: Name = Name {
    unstable: "de.sorunome.msc2409.ephemeral",
    stable: "ephemeral",
};

/// What the next transaction is made with.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) now: i64,
    pub(super) hooks: Hooks,
    /// Where the names in the body are counted.
    pub(super) dialects: Dialects,
    pub(super) ephemeral: Vec<Box<RawValue>>,
    /// Whether counts may go without anything else.
    pub(super) counts_alone: bool,
    /// Whether this is the first look since the start or since the registration changed: what was set aside is tried again, and what
    /// is owed of a kind that is on or off now waits or does not.
    pub(super) is_first: bool,
}

/// What there is to send.
#[derive(Debug)]
pub(super) enum Next {
    /// This, until it is acknowledged.
    Frozen(Frozen),
    /// Only counts, which wait a little for company.
    OnlyCounts,
    /// Nothing.
    Nothing,
}

/// What was found, up to which position was looked, and the line of the device-list log that holds something back, if one does.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) next: Next,
    pub(super) looked: Position,
    pub(super) held: Option<Position>,
}

/// What a transaction can carry.
enum Slice {
    /// This, up to a position.
    Body(Position, Body),
    /// Only counts.
    OnlyCounts,
    /// Nothing.
    Nothing,
    /// These rows cannot be sent, for these reasons: without them there is another slice.
    Without(gather::Damaged),
}

// ANCHOR: next
/// The frozen transaction of the service, or the next one, frozen now.
pub(super) fn next(tx: &mut Tx<'_>, service: &Service, wanted: &Wanted) -> Result<Found> {
    let unheld = |next| {
        Ok(Found {
            next,
            looked: Position::START,
            held: None,
        })
    };
    if wanted.is_first {
        owed::resume(tx, &service.id, &service.kinds())?;
        set_aside::forget(tx, &service.id)?;
    }
    if let Some(frozen) = transactions::frozen(tx, &service.id)? {
        return unheld(Next::Frozen(frozen));
    }
    // The older messages before the newer ones: whoever finishes the back-fill wakes this service.
    if back_fill::get(tx, &service.id)?.is_some() {
        return unheld(Next::Nothing);
    }
    // A leave and its `left` travel together: nothing above an open line that concerns this service is looked at.
    let (newest, interests) = (tx.head(), tx.interests());
    let line = held::held_by(tx, &interests, service, newest)?;
    let head = OpenLine::settled_up_to(line, newest);
    let held = line.map(|line| line.position);
    let found = |next| {
        Ok(Found {
            next,
            looked: head,
            held,
        })
    };
    let (cut, body) = match slice_without(tx, service, wanted, head)? {
        Slice::Body(cut, body) => (cut, body),
        Slice::OnlyCounts => return found(Next::OnlyCounts),
        Slice::Nothing | Slice::Without(_) => return found(Next::Nothing),
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
/// The next slice, without what cannot be sent: such a row is set aside, with the reason, and what follows goes on. Where it is not
/// known which row of a slice is the cause, its oldest is tried alone.
fn slice_without(
    tx: &mut Tx<'_>,
    service: &Service,
    wanted: &Wanted,
    head: Position,
) -> Result<Slice> {
    let (mut up_to, mut alone) = (head, None);
    loop {
        let aside = match contained(|| slice(tx, service, wanted, up_to))? {
            Ok(Slice::Without(rows)) => rows,
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
            tracing::error!(service = %service.id, kind, position, why, "this cannot be sent to the service, and is set aside");
            set_aside::put(tx, &item, &why, wanted.now)?;
        }
        (up_to, alone) = (head, None);
    }
}

/// The outcome of composing something: a panic and a damaged value are reasons, and a failure of the database is an error.
fn contained<T>(compose: impl FnOnce() -> Result<T>) -> Result<Result<T, String>> {
    match catch_unwind(AssertUnwindSafe(compose)) {
        Ok(Ok(done)) => Ok(Ok(done)),
        Ok(Err(error)) => rules::reason(error).map(Err),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            let text = text.unwrap_or_else(|| "no reason was given".to_owned());
            Ok(Err(format!("composing it panicked: {text}")))
        }
    }
}

// ANCHOR_END: set_aside

/// What the next transaction can carry up to a position.
fn slice(tx: &mut Tx<'_>, service: &Service, wanted: &Wanted, head: Position) -> Result<Slice> {
    let interests = tx.interests();
    let slice = match gather(tx, &interests, service, head, wanted.now)? {
        Ok(slice) => slice,
        Err(damaged) => return Ok(Slice::Without(damaged)),
    };
    if slice.is_empty() && wanted.ephemeral.is_empty() {
        return Ok(Slice::Nothing);
    }
    // Counts alone wait a little for company, but not those of a device that has run out of keys.
    if slice.has_only_counts()
        && wanted.ephemeral.is_empty()
        && !wanted.counts_alone
        && !schema::counts::is_drained(tx, &slice.counts, SIGNED_CURVE25519)?
    {
        return Ok(Slice::OnlyCounts);
    }
    let cut = slice.cut;
    let body = compose(tx, service, slice, wanted.ephemeral.clone(), &wanted.hooks)?;
    Ok(Slice::Body(cut, body))
}

fn compose(
    tx: &mut Tx<'_>,
    service: &Service,
    slice: gather::Slice,
    ephemeral: Vec<Box<RawValue>>,
    hooks: &Hooks,
) -> Result<Body> {
    let counts = counts::told(tx, service, &slice.counts, &slice.recipients)?;
    let pending = Pending {
        registration: service.registration.clone(),
        events: slice.events,
        ephemeral,
        to_device: slice.to_device,
        device_lists: slice.lists,
        others: slice.others,
        one_time_key_counts: counts.one_time,
        unused_fallback_key_types: counts.unused_fallback,
    };
    let mut body = Body::new(hooks.naming);
    // Always there, also when it is empty: bridges refuse a body without it.
    body.put_always("events", &pending.events);
    if !pending.ephemeral.is_empty() {
        if pending.registration.receive_ephemeral {
            body.put_always(EPHEMERAL.stable, &pending.ephemeral);
        }
        if pending.registration.push_ephemeral {
            body.put_always(EPHEMERAL.unstable, &pending.ephemeral);
        }
    }
    for add in &hooks.transaction {
        add(&pending, &mut body);
    }
    Ok(body)
}

/// The service took its transaction: forget what it carried and freeze what comes next, in one write. Answers where its first
/// to-device message was, if it had one, and what comes next.
pub(super) fn acknowledge(
    tx: &mut Tx<'_>,
    service: &Service,
    taken: &Frozen,
    then: Option<&Wanted>,
) -> Result<(Option<Position>, Option<Found>)> {
    let first = owed::first_message(tx, &service.id, taken.txn_id)?;
    transactions::acknowledge(tx, taken)?;
    let found = then.map(|wanted| next(tx, service, wanted)).transpose()?;
    Ok((first, found))
}
