//! What a service is owed up to a position, of every kind that is on: read and made ready to be composed, row by row, so that a damaged row is
//! known and stops no other.

use schema::appservices;
use schema::device_lists;
use schema::interests::{Interests, Service};
use schema::set_aside::Kind;
use schema::{Conn, Position, inbox, user_data};
use serde_json::value::RawValue;

use super::freeze::reason;
use super::rules::{self, Device, Owed};
use crate::wire::{AccountData, ToDeviceEvent};
use crate::{Result, rooms};

/// Device-list words in one transaction, far above what fits into its bytes with names of usual length.
const LISTS: usize = 10_000;

/// What a service is owed up to a position, of every kind.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) events: Vec<(Position, Box<RawValue>)>,
    pub(super) to_device: Vec<Item<ToDeviceEvent>>,
    /// Where the devices are that receive a message and that the service decides over.
    explicit: Vec<(Position, Device)>,
    pub(super) lists: Vec<device_lists::Owed>,
    counts: Vec<appservices::OwedCount>,
    pub(super) account_data: Vec<Item<AccountData>>,
    /// The rows that cannot be sent, and why: among the others they are missing.
    pub(super) damaged: Vec<(Kind, Position, String)>,
}

/// Something that is owed, as a transaction carries it.
pub(super) struct Item<T> {
    position: Position,
    size: usize,
    pub(super) event: T,
}

fn limit(items: usize) -> i64 {
    // One more than may go shows that there are more.
    i64::try_from(items + 1).unwrap_or(i64::MAX)
}

/// The oldest of what the service is owed, of every kind that is on. What is owed of a kind that is off waits: it is not looked
/// at, so it limits no other kind.
pub(super) fn gather(
    db: &mut Conn,
    interests: &Interests,
    service: &Service,
    head: Position,
    now: i64,
) -> Result<Gathered> {
    let id = &service.id;
    let mut gathered = Gathered::default();
    if service.takes_device_lists {
        gathered.lists = device_lists::owed(db, id, head, limit(LISTS))?;
        gathered.counts = appservices::owed_counts(db, id, head, limit(rules::COUNTS))?;
    }
    let positions = appservices::owed_events(db, id, head, limit(rules::ITEMS))?;
    for (position, json) in rooms::queries::for_appservice(db, interests, id, &positions, now)? {
        match json {
            Ok(json) => gathered.events.push((position, json)),
            Err(error) => gathered.damage(Kind::Event, position, error)?,
        }
    }
    if service.takes_to_device {
        gathered.add_messages(inbox::owed(db, service, head, limit(rules::ITEMS))?)?;
    }
    if service.takes_account_data {
        for row in user_data::owed(db, id, head, limit(rules::ITEMS))? {
            let (position, size) = (Position(row.position), data_size(&row));
            match account_data(row) {
                Ok(event) => gathered.account_data.push(Item {
                    position,
                    size,
                    event,
                }),
                Err(error) => gathered.damage(Kind::AccountData, position, error)?,
            }
        }
    }
    Ok(gathered)
}

impl Gathered {
    fn add_messages(&mut self, rows: Vec<inbox::CopyRow>) -> Result<()> {
        for row in rows {
            let (position, size) = (Position(row.position), copy_size(&row));
            let recipient = (row.user_id.clone(), row.device_id.clone());
            let is_explicit = row.explicit;
            match to_device_event(row) {
                Ok(event) => {
                    self.to_device.push(Item {
                        position,
                        size,
                        event,
                    });
                    if is_explicit {
                        self.explicit.push((position, recipient));
                    }
                }
                Err(error) => self.damage(Kind::ToDevice, position, error)?,
            }
        }
        Ok(())
    }

    fn damage(&mut self, kind: Kind, position: Position, error: crate::Error) -> Result<()> {
        self.damaged.push((kind, position, reason(error)?));
        Ok(())
    }

    /// What there is of each kind: positions and sizes.
    pub(super) fn sizes(&self) -> [Owed; 5] {
        fn of<T>(items: &[T], limit: usize, size: impl Fn(&T) -> (Position, usize)) -> Owed {
            Owed {
                items: items.iter().map(size).collect(),
                limit,
            }
        }
        [
            of(&self.events, rules::ITEMS, |(position, json)| {
                (*position, json.get().len() + 1)
            }),
            of(&self.to_device, rules::ITEMS, |i| (i.position, i.size)),
            of(&self.lists, LISTS, |row| {
                (Position(row.position), row.user_id.len() + 3)
            }),
            // A line in each of two maps, each with the user's name.
            of(&self.counts, rules::COUNTS, |row| {
                let names = row.user_id.len() + row.device_id.len();
                (Position(row.position), 2 * names + 80)
            }),
            of(&self.account_data, rules::ITEMS, |i| (i.position, i.size)),
        ]
    }

    /// Without what is above the cut.
    pub(super) fn up_to(mut self, cut: Position) -> Gathered {
        self.events.retain(|(p, _)| *p <= cut);
        self.to_device.retain(|i| i.position <= cut);
        self.explicit.retain(|(p, _)| *p <= cut);
        self.lists.retain(|row| row.position <= cut.0);
        self.counts.retain(|row| row.position <= cut.0);
        self.account_data.retain(|i| i.position <= cut);
        self
    }

    /// Whether nothing is owed.
    pub(super) fn is_empty(&self) -> bool {
        self.only_counts() && self.counts.is_empty()
    }

    /// Whether nothing but counts is owed.
    pub(super) fn only_counts(&self) -> bool {
        self.events.is_empty()
            && self.to_device.is_empty()
            && self.lists.is_empty()
            && self.account_data.is_empty()
    }

    /// The devices whose counts changed.
    pub(super) fn changed_counts(&self) -> Vec<Device> {
        let device = |row: &appservices::OwedCount| (row.user_id.clone(), row.device_id.clone());
        self.counts.iter().map(device).collect()
    }

    /// The devices that the service decides over and that receive a message.
    pub(super) fn recipients(&self) -> Vec<Device> {
        self.explicit
            .iter()
            .map(|(_, device)| device.clone())
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
