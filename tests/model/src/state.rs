//! What there is: the database, the process, and the world outside.

use std::collections::BTreeSet;
use std::fmt;

use crate::MESSAGES;

/// A place in the one order of everything that is stored. The messages have the positions 1, 2 and 3.
pub type Position = u8;

/// A set of messages, or of transaction ids.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Set(u8);

impl Set {
    /// The empty set.
    pub const NONE: Set = Set(0);

    /// The set of one.
    pub fn one(number: u8) -> Set {
        Set(1 << number)
    }

    /// Every number between two.
    pub fn between(from: Position, up_to: Position) -> Set {
        (from..=up_to).map(Set::one).fold(Set::NONE, Set::or)
    }

    /// Those in either set.
    pub fn or(self, other: Set) -> Set {
        Set(self.0 | other.0)
    }

    /// Those in both sets.
    pub fn and(self, other: Set) -> Set {
        Set(self.0 & other.0)
    }

    /// Those that are not in the other set.
    pub fn without(self, other: Set) -> Set {
        Set(self.0 & !other.0)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether this is one of them.
    pub fn has(self, number: u8) -> bool {
        self.0 & (1 << number) != 0
    }

    /// All of them, in order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Position> {
        (1..=MESSAGES).filter(move |number| self.has(*number))
    }
}

impl FromIterator<Position> for Set {
    fn from_iter<I: IntoIterator<Item = Position>>(positions: I) -> Set {
        positions.into_iter().map(Set::one).fold(Set::NONE, Set::or)
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let positions: Vec<String> = self.iter().map(|position| position.to_string()).collect();
        write!(f, "{{{}}}", positions.join(", "))
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An application service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Its namespace is exclusive: it decides over the ghost's device.
    Bridge,
    /// It observes both users, and decides over neither device.
    Watcher,
}

/// Both services.
pub const SERVICES: [Service; 2] = [Service::Bridge, Service::Watcher];

/// A device to which messages are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Device {
    /// The device of a ghost of the bridge.
    Ghost,
    /// A person's own device, which takes its messages by `/sync`.
    Phone,
}

/// Both devices.
pub const DEVICES: [Device; 2] = [Device::Ghost, Device::Phone];

impl Device {
    /// The service that decides over the device. (`authority` in `actors/src/services/authority.rs`)
    pub fn decided_by(self) -> Option<Service> {
        match self {
            Device::Ghost => Some(Service::Bridge),
            Device::Phone => None,
        }
    }

    /// Whether a service gets a copy of what is sent to the device.
    pub fn concerns(self, service: Service) -> bool {
        service == Service::Watcher || self.decided_by() == Some(service)
    }
}

/// A transaction, as it is frozen and sent. The items are its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Transaction {
    /// Its id.
    pub id: u8,
    /// The messages that it carries.
    pub items: Set,
    /// The position up to which it carries everything that the service was owed.
    pub cut: Position,
}

/// The rows of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rows {
    /// What it is owed and no transaction carries. (`owed`, without a stamp)
    pub waiting: Set,
    /// What its frozen transaction carries. (`owed`, stamped)
    pub carried: Set,
    /// Its frozen transaction. (`frozen_transactions`)
    pub frozen: Option<Transaction>,
    /// The last id that was used. (`appservices.last_txn`)
    pub last_id: u8,
    /// The position up to which it has acknowledged. (`appservices.acknowledged`)
    pub acknowledged: Position,
}

/// What is on the disk, and so survives a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Database {
    /// Set that neither the device nor the service that decides over it has acknowledged. (`inbox`)
    pub inbox: Set,
    /// Set that are acknowledged, and stay for a service that is owed a copy. (`inbox`, with the mark `acknowledged`)
    pub for_services: Set,
    /// The rows of each service.
    pub of: [Rows; 2],
    /// Devices that were deleted.
    pub deleted: [bool; 2],
}

/// What a sender does. (`SenderState` in `actors/src/appservice_sender/mod.rs`)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sender {
    /// It has looked, or has just started.
    #[default]
    Idle,
    /// It has a frozen transaction and sends it next: for the first time, or again.
    Ready(Transaction),
    /// The request is under way.
    Sending(Transaction),
    /// The answer was a 2xx.
    Answered(Transaction),
}

/// What a crash loses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Process {
    /// The sender of each service.
    pub senders: [Sender; 2],
    /// For each service, the position up to which it has acknowledged, if the inbox was sent that and has not acted on it yet: the
    /// message `Acknowledged`. A later one covers an earlier one.
    pub acknowledged: [Option<Position>; 2],
}

/// The network and the service at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Far {
    /// Requests that have not arrived yet.
    pub network: BTreeSet<Transaction>,
    /// The ids that the service has taken, and recognizes.
    pub taken: Set,
    /// The messages that it was given, in order.
    pub given: Vec<Position>,
}

/// A person's device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Phone {
    /// What it has received.
    pub received: Set,
    /// Its `since` token.
    pub since: Position,
}

/// What promises are checked against; no step reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// The transaction that was sent last, until its 2xx is recorded.
    pub sent: Option<Transaction>,
    /// The largest id whose 2xx was recorded.
    pub last_recorded: u8,
    /// The messages of transactions whose 2xx was recorded.
    pub confirmed: Set,
    /// Set to devices that were deleted before any transaction carried the message.
    pub dead: Set,
}

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// The device to which each message was sent: the first has position 1.
    pub messages: Vec<Device>,
    /// The disk.
    pub database: Database,
    /// The memory.
    pub process: Process,
    /// What is at the other end, for each service.
    pub far: [Far; 2],
    /// The person's device.
    pub phone: Phone,
    /// For each service.
    pub history: [History; 2],
}

impl State {
    /// The position of the last message.
    pub fn head(&self) -> Position {
        u8::try_from(self.messages.len()).unwrap_or(MESSAGES)
    }

    /// Whether a device was deleted.
    pub fn is_deleted(&self, device: Device) -> bool {
        self.database.deleted[device as usize]
    }

    /// The messages to a device.
    pub fn to(&self, device: Device) -> Set {
        let numbered = (1..).zip(&self.messages);
        numbered
            .filter(|(_, to)| **to == device)
            .map(|(position, _)| position)
            .collect()
    }

    /// The messages to devices over which a service decides.
    pub fn decided_by(&self, service: Service) -> Set {
        let decided = DEVICES
            .into_iter()
            .filter(|device| device.decided_by() == Some(service));
        decided
            .map(|device| self.to(device))
            .fold(Set::NONE, Set::or)
    }

    /// The messages to devices that exist.
    pub fn alive(&self) -> Set {
        let alive = DEVICES
            .into_iter()
            .filter(|device| !self.is_deleted(*device));
        alive.map(|device| self.to(device)).fold(Set::NONE, Set::or)
    }

    /// What a service is owed: what waits, and what its transaction carries.
    pub fn owed(&self, service: Service) -> Set {
        let rows = &self.database.of[service as usize];
        rows.waiting.or(rows.carried)
    }

    /// What any service is owed.
    pub fn owed_to_any(&self) -> Set {
        SERVICES
            .into_iter()
            .map(|service| self.owed(service))
            .fold(Set::NONE, Set::or)
    }

    /// A number that each piece of work makes larger. It has no other meaning.
    pub(crate) fn progress(&self) -> usize {
        let owed: usize = SERVICES
            .into_iter()
            .map(|service| self.owed(service).len())
            .sum();
        let stages = self.process.senders.iter().map(|sender| match sender {
            Sender::Idle => 0,
            Sender::Ready(_) => 1,
            Sender::Sending(_) => 3,
            Sender::Answered(_) => 4,
        });
        let network: usize = self.far.iter().map(|far| far.network.len()).sum();
        let taken: usize = self
            .far
            .iter()
            .map(|far| far.taken.len() + far.given.len())
            .sum();
        let waiting = self.database.inbox.and(self.to(Device::Phone)).len();
        1_000 + stages.sum::<usize>() + taken + usize::from(self.phone.since)
            - 10 * owed
            - self.process.acknowledged.iter().flatten().count()
            - network
            - waiting
    }
}
