//! Collects the next transaction: the oldest items that an appservice is owed, at most 100 of most kinds (`rules::limit`) and 1 MiB
//! together (`rules::cut`). Each item is read and checked separately, so that a damaged one does not stop the others.
//!
//! Next on the way of a to-device message: `schema/src/transactions.rs`.

use std::collections::BTreeMap;

use schema::owed::{self, Owed};
use schema::{Conn, Position, inbox};
use serde_json::value::RawValue;

use super::rules::{self, Device};
use crate::services::{Interests, Service};
use crate::wire::{OwedItem, ToDeviceEvent, TransactionDeviceLists};
use crate::{Result, rooms};

/// The rows in one read.
const PAGE: i64 = 1_000;

/// An owed item, ready for a transaction.
pub(super) struct Item {
    position: Position,
    size: usize,
    what: ItemContent,
}

enum ItemContent {
    Event(Box<RawValue>),
    ToDevice(ToDeviceEvent),
    DeviceList { user: String, left: bool },
    Count(Device),
    Other(String, OwedItem),
}

/// The content of one transaction.
#[derive(Default)]
pub(super) struct Slice {
    pub(super) cut: Position,
    pub(super) events: Vec<Box<RawValue>>,
    pub(super) to_device: Vec<ToDeviceEvent>,
    pub(super) lists: TransactionDeviceLists,
    /// The devices whose key counts changed.
    pub(super) counts: Vec<Device>,
    /// The devices over which the appservice decides and that receive a message.
    pub(super) recipients: Vec<Device>,
    /// The items of the kinds that proposals define, by kind.
    pub(super) others: BTreeMap<String, Vec<OwedItem>>,
}

impl Slice {
    /// Whether the transaction would carry nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.has_only_counts() && self.counts.is_empty()
    }

    /// Whether the transaction would carry only key counts.
    pub(super) fn has_only_counts(&self) -> bool {
        self.events.is_empty()
            && self.to_device.is_empty()
            && self.lists == TransactionDeviceLists::default()
            && self.others.is_empty()
    }

    fn add(&mut self, item: Item, is_decided: bool) {
        match item.what {
            ItemContent::Event(json) => self.events.push(json),
            ItemContent::ToDevice(event) => {
                if is_decided {
                    let device = (event.to_user_id.clone(), event.to_device_id.clone());
                    self.recipients.push(device);
                }
                self.to_device.push(event);
            }
            ItemContent::DeviceList { user, left: true } => self.lists.left.push(user),
            ItemContent::DeviceList { user, left: false } => self.lists.changed.push(user),
            ItemContent::Count(device) => self.counts.push(device),
            ItemContent::Other(kind, item) => self.others.entry(kind).or_default().push(item),
        }
    }
}

/// The rows that cannot be sent, with the reasons.
pub(super) type Damaged = Vec<(Owed, String)>;

// ANCHOR: gather
/// The oldest items that the appservice is owed up to `head`, in order of position, until the limit of a kind or the limit of bytes
/// is reached. Clause: as.txn.order
pub(super) fn gather(
    db: &mut Conn,
    interests: &Interests,
    service: &Service,
    head: Position,
    now: i64,
) -> Result<Result<Slice, Damaged>> {
    let (rows, up_to) = oldest(db, service, head)?;
    let (mut items, mut damaged) = (Vec::with_capacity(rows.len()), Vec::new());
    let mut events = events(db, interests, service, &rows, now)?;
    let mut messages = messages(db, &rows)?;
    for row in rows {
        let item = match row.kind.as_str() {
            owed::EVENT => event(events.remove(&row.position)),
            owed::TO_DEVICE | owed::OBSERVED | owed::GRANTED => {
                to_device(messages.remove(&row.position))
            }
            _ => other(&row),
        };
        match item {
            Ok((size, what)) => {
                let is_decided = row.kind == owed::TO_DEVICE;
                let position = row.position();
                items.push((
                    Item {
                        position,
                        size,
                        what,
                    },
                    is_decided,
                ));
            }
            Err(error) => damaged.push((row, rules::reason(error)?)),
        }
    }
    if !damaged.is_empty() {
        return Ok(Err(damaged));
    }
    let sizes: Vec<_> = items.iter().map(|(i, _)| (i.position, i.size)).collect();
    let mut slice = Slice {
        cut: rules::cut(up_to, &sizes),
        ..Slice::default()
    };
    for (item, is_decided) in items {
        if item.position <= slice.cut {
            slice.add(item, is_decided);
        }
    }
    slice.lists.changed.sort_unstable();
    slice.lists.left.sort_unstable();
    Ok(Ok(slice))
}

/// The oldest rows that wait, at most the limit of each kind, and a position up to which no other row waits.
fn oldest(db: &mut Conn, service: &Service, head: Position) -> Result<(Vec<Owed>, Position)> {
    let mut taken: Vec<Owed> = Vec::new();
    let mut of_kind: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut after = Position::START;
    loop {
        let mut page = owed::waiting(db, &service.id, after, head, PAGE)?;
        let is_last = i64::try_from(page.len()).unwrap_or(PAGE) < PAGE;
        if let (false, Some(last)) = (is_last, page.last().map(|row| row.position)) {
            // Keep rows at the same position together, by dropping those at the page's last position: the page may hold only some
            // of them.
            page.retain(|row| row.position < last);
        }
        for row in page {
            let (name, limit) = rules::limit(&row.kind);
            let count = of_kind.entry(name).or_default();
            // Rows at one position go together, whatever their number.
            let is_first = taken
                .first()
                .is_none_or(|first| first.position == row.position);
            if *count >= limit && !is_first {
                let up_to = row.position().before();
                taken.retain(|row| row.position() <= up_to);
                return Ok((taken, up_to));
            }
            *count += 1;
            after = row.position();
            taken.push(row);
        }
        if is_last {
            return Ok((taken, head));
        }
    }
}
// ANCHOR_END: gather

/// The events of these rows, by position.
fn events(
    db: &mut Conn,
    interests: &Interests,
    service: &Service,
    rows: &[Owed],
    now: i64,
) -> Result<BTreeMap<i64, Result<Box<RawValue>>>> {
    let of_events = rows.iter().filter(|row| row.kind == owed::EVENT);
    let positions: Vec<Position> = of_events.map(Owed::position).collect();
    let events = rooms::queries::for_appservice(db, interests, &service.id, &positions, now)?;
    let by_position = events.into_iter();
    Ok(by_position.map(|(at, json)| (at.0, json)).collect())
}

/// The messages of these rows, by position.
fn messages(db: &mut Conn, rows: &[Owed]) -> Result<BTreeMap<i64, inbox::InboxRow>> {
    let kinds = [owed::TO_DEVICE, owed::OBSERVED, owed::GRANTED];
    let of_messages = rows.iter().filter(|row| kinds.contains(&row.kind.as_str()));
    let positions: Vec<Position> = of_messages.map(Owed::position).collect();
    let found = inbox::at(db, &positions)?.into_iter();
    Ok(found.map(|row| (row.position, row)).collect())
}

fn gone(what: &str) -> crate::Error {
    schema::Error::Damaged(format!("the {what} is gone")).into()
}

fn event(json: Option<Result<Box<RawValue>>>) -> Result<(usize, ItemContent)> {
    let json = json.ok_or_else(|| gone("event"))??;
    Ok((json.get().len() + 1, ItemContent::Event(json)))
}

fn to_device(row: Option<inbox::InboxRow>) -> Result<(usize, ItemContent)> {
    const NAMES: usize = 80;
    let row = row.ok_or_else(|| gone("message"))?;
    let size = row.content.len()
        + row.kind.len()
        + row.sender.len()
        + row.user_id.len()
        + row.device_id.len()
        + NAMES;
    let event = ToDeviceEvent {
        r#type: row.kind,
        sender: row.sender,
        to_user_id: row.user_id,
        to_device_id: row.device_id,
        content: RawValue::from_string(row.content)?,
    };
    Ok((size, ItemContent::ToDevice(event)))
}

/// An item of a kind whose row contains all of it.
fn other(row: &Owed) -> Result<(usize, ItemContent)> {
    const NAMES: usize = 60;
    let key = row.key.as_str();
    let mut parts = row.key_parts().map(str::to_owned);
    Ok(match row.kind.as_str() {
        owed::DEVICE_LIST => {
            let (user, left) = (key.to_owned(), row.item == owed::LEFT);
            (key.len() + 3, ItemContent::DeviceList { user, left })
        }
        // The size counts one line in each of two maps, each with the user id.
        owed::COUNT => {
            let device = (parts.next(), parts.next());
            let (Some(user), Some(device)) = device else {
                return Err(schema::Error::Damaged(format!("key {key:?}")).into());
            };
            (2 * key.len() + 80, ItemContent::Count((user, device)))
        }
        kind => {
            let item = OwedItem {
                key: parts.collect(),
                value: RawValue::from_string(row.item.clone())?,
            };
            let size = key.len() + row.item.len() + NAMES;
            (size, ItemContent::Other(kind.to_owned(), item))
        }
    })
}
