//! Gathering what a service is owed and freezing it: one write, so that what is in the body, what is stamped and what is sent
//! are the same, whatever happens around it.

use std::collections::BTreeSet;

use schema::appservices::{self, Frozen};
use schema::device_lists;
use schema::interests::{Interests, Service};
use schema::{Conn, Position, Tx, back_fill, inbox, user_data};
use serde_json::value::RawValue;

use super::counts::{self, SIGNED_CURVE25519};
use super::rules::{self, Device, Owed};
use crate::Result;
use crate::dialects::{Dialects, Topic};
use crate::rooms;
use crate::wire::{AccountData, Body, DeviceLists, Hooks, Name, Pending, ToDeviceEvent};

/// Typing, receipts and presence: stable for who asks by the stable flag, under the old name for who asks by the old one. (MSC2409)
pub const EPHEMERAL: Name = Name {
    unstable: "de.sorunome.msc2409.ephemeral",
    stable: "ephemeral",
};

/// Device-list words in one transaction, far above what fits into its bytes with names of usual length.
const LISTS: usize = 10_000;

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

/// What was found, and whether a device-list pass holds something back.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) next: Next,
    pub(super) held: bool,
}

/// What a service is owed up to a position, of every kind that is on.
#[derive(Default)]
struct Gathered {
    events: Vec<(Position, Box<RawValue>)>,
    to_device: Vec<inbox::CopyRow>,
    lists: Vec<device_lists::Owed>,
    counts: Vec<appservices::OwedCount>,
    account_data: Vec<user_data::DataRow>,
}

// ANCHOR: next
/// The frozen transaction of the service, or the next one, frozen now.
pub(super) fn next(tx: &mut Tx<'_>, service: &Service, wanted: Wanted) -> Result<Found> {
    if let Some(frozen) = appservices::frozen(tx, &service.id)? {
        return Ok(Found {
            next: Next::Frozen(frozen),
            held: false,
        });
    }
    // The older messages before the newer ones: whoever finishes the back-fill wakes this service.
    if back_fill::get(tx, &service.id)?.is_some() {
        return Ok(Found {
            next: Next::Nothing,
            held: false,
        });
    }
    // A leave and its `left` travel together: nothing above an open device-list pass is looked at.
    let newest = tx.head();
    let head = device_lists::settled_up_to(tx, newest)?;
    let held = head < newest;
    let interests = tx.interests();
    let owed = gather(tx, &interests, service, head, wanted.now)?;
    let cut = rules::cut(head, &owed.sizes());
    let owed = owed.up_to(cut);
    if owed.is_empty() && wanted.ephemeral.is_empty() {
        return Ok(Found {
            next: Next::Nothing,
            held,
        });
    }
    // Counts alone wait a little for company, but not those of a device that has run out of keys.
    if owed.only_counts()
        && wanted.ephemeral.is_empty()
        && !wanted.counts_alone
        && !schema::counts::is_owed_a_drain(tx, &service.id, SIGNED_CURVE25519, cut)?
    {
        return Ok(Found {
            next: Next::OnlyCounts,
            held,
        });
    }
    let txn_id = appservices::next_txn_id(tx, &service.id, wanted.now)?;
    let body = compose(tx, service, owed, wanted.ephemeral, &wanted.hooks)?;
    let names = body.names().map(|name| (Topic::Transaction, name));
    wanted.dialects.count(&service.id, names);
    let frozen = Frozen {
        appservice_id: service.id.to_string(),
        txn_id,
        cut: cut.0,
        body: body.into_json(),
        frozen_at: wanted.now,
    };
    appservices::freeze(tx, &frozen, service)?;
    Ok(Found {
        next: Next::Frozen(frozen),
        held,
    })
}
// ANCHOR_END: next

/// The oldest of what the service is owed, of every kind that is on. What is owed of a kind that is off waits: it is not looked
/// at, so it limits no other kind.
fn gather(
    db: &mut Conn,
    interests: &Interests,
    service: &Service,
    head: Position,
    now: i64,
) -> Result<Gathered> {
    let one_more = |limit: usize| i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let positions = appservices::owed_events(db, &service.id, head, one_more(rules::ITEMS))?;
    let mut found = Gathered {
        events: rooms::queries::for_appservice(db, interests, &service.id, &positions, now)?,
        ..Gathered::default()
    };
    if service.takes_to_device {
        found.to_device = inbox::owed(db, service, head, one_more(rules::ITEMS))?;
    }
    if service.takes_device_lists {
        found.lists = device_lists::owed(db, &service.id, head, one_more(LISTS))?;
        let most = one_more(rules::COUNTS);
        found.counts = appservices::owed_counts(db, &service.id, head, most)?;
    }
    if service.takes_account_data {
        found.account_data = user_data::owed(db, &service.id, head, one_more(rules::ITEMS))?;
    }
    Ok(found)
}

impl Gathered {
    fn sizes(&self) -> [Owed; 5] {
        let events = self
            .events
            .iter()
            .map(|(p, json)| (*p, json.get().len() + 1))
            .collect();
        let to_device = self
            .to_device
            .iter()
            .map(|row| (Position(row.position), copy_size(row)))
            .collect();
        let lists = self
            .lists
            .iter()
            .map(|row| (Position(row.position), row.user_id.len() + 3))
            .collect();
        // A line in each of two maps, each with the user's name.
        let counts = self
            .counts
            .iter()
            .map(|row| {
                (
                    Position(row.position),
                    2 * (row.user_id.len() + row.device_id.len()) + 80,
                )
            })
            .collect();
        let account_data = self
            .account_data
            .iter()
            .map(|row| (Position(row.position), data_size(row)))
            .collect();
        [
            Owed {
                items: events,
                limit: rules::ITEMS,
            },
            Owed {
                items: to_device,
                limit: rules::ITEMS,
            },
            Owed {
                items: lists,
                limit: LISTS,
            },
            Owed {
                items: counts,
                limit: rules::COUNTS,
            },
            Owed {
                items: account_data,
                limit: rules::ITEMS,
            },
        ]
    }

    fn up_to(mut self, cut: Position) -> Gathered {
        self.events.retain(|(p, _)| *p <= cut);
        self.to_device.retain(|row| row.position <= cut.0);
        self.lists.retain(|row| row.position <= cut.0);
        self.counts.retain(|row| row.position <= cut.0);
        self.account_data.retain(|row| row.position <= cut.0);
        self
    }

    fn is_empty(&self) -> bool {
        self.only_counts() && self.counts.is_empty()
    }

    fn only_counts(&self) -> bool {
        self.events.is_empty()
            && self.to_device.is_empty()
            && self.lists.is_empty()
            && self.account_data.is_empty()
    }

    /// The devices whose counts changed.
    fn changed_counts(&self) -> Vec<Device> {
        let device = |row: &appservices::OwedCount| (row.user_id.clone(), row.device_id.clone());
        self.counts.iter().map(device).collect()
    }

    /// The devices that the service decides over and that receive a message.
    fn recipients(&self) -> Vec<Device> {
        let explicit = self.to_device.iter().filter(|row| row.explicit);
        explicit
            .map(|row| (row.user_id.clone(), row.device_id.clone()))
            .collect()
    }
}

fn copy_size(row: &inbox::CopyRow) -> usize {
    const NAMES: usize = 80;
    row.content.len()
        + row.kind.len()
        + row.sender.len()
        + row.user_id.len()
        + row.device_id.len()
        + NAMES
}

fn data_size(row: &user_data::DataRow) -> usize {
    const NAMES: usize = 60;
    row.content.len() + row.kind.len() + row.user_id.len() + row.room_id.len() + NAMES
}

fn compose(
    tx: &mut Tx<'_>,
    service: &Service,
    owed: Gathered,
    ephemeral: Vec<Box<RawValue>>,
    hooks: &Hooks,
) -> Result<Body> {
    let counts = counts::told(tx, service, &owed.changed_counts(), &owed.recipients())?;
    let (left, changed) = owed
        .lists
        .into_iter()
        .partition::<Vec<_>, _>(|word| word.is_left);
    let names = |words: Vec<device_lists::Owed>| {
        words
            .into_iter()
            .map(|w| w.user_id)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    };
    let pending = Pending {
        registration: service.registration.clone(),
        events: owed.events.into_iter().map(|(_, json)| json).collect(),
        ephemeral,
        to_device: owed
            .to_device
            .into_iter()
            .map(to_device_event)
            .collect::<Result<_>>()?,
        device_lists: DeviceLists {
            changed: names(changed),
            left: names(left),
        },
        account_data: owed
            .account_data
            .into_iter()
            .map(account_data)
            .collect::<Result<_>>()?,
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

fn to_device_event(row: inbox::CopyRow) -> Result<ToDeviceEvent> {
    Ok(ToDeviceEvent {
        r#type: row.kind,
        sender: row.sender,
        to_user_id: row.user_id,
        to_device_id: row.device_id,
        content: RawValue::from_string(row.content)?,
    })
}

fn account_data(row: user_data::DataRow) -> Result<AccountData> {
    Ok(AccountData {
        user_id: row.user_id,
        room_id: Some(row.room_id).filter(|room| !room.is_empty()),
        r#type: row.kind,
        content: RawValue::from_string(row.content)?,
    })
}

/// The service took its transaction: forget what it carried and freeze what comes next, in one write.
pub(super) fn acknowledge(
    tx: &mut Tx<'_>,
    service: &Service,
    taken: &Frozen,
    then: Option<Wanted>,
) -> Result<Option<Found>> {
    appservices::acknowledge(tx, taken)?;
    then.map(|wanted| next(tx, service, wanted)).transpose()
}
