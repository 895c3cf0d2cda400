//! Hooks that decide before something is stored: whether an appservice is owed an item, and whether a device gets a message.

use schema::accounts::DeviceRow;
use schema::events::EventRow;
use schema::{Conn, Tx};
use serde_json::Value;

use crate::services::Service;
use crate::{Identity, Result};

/// An item that an appservice would be owed by the rules of the specification and of the proposals that carry the item.
#[derive(Debug, Clone, Copy)]
pub enum OwedDraft<'a> {
    /// An event.
    Event(&'a EventRow),
    /// A copy of a to-device message.
    ToDevice {
        /// The user that sent it.
        sender: &'a str,
        /// The event type.
        kind: &'a str,
        /// The recipient.
        user: &'a str,
        /// The recipient's device.
        device: &'a str,
    },
    /// A change of a user's device list, or that the appservice shares no room with the user any more. Without the former the
    /// appservice does not count as tracking the user.
    DeviceList {
        /// The user.
        user: &'a str,
        /// Whether it is the latter.
        has_left: bool,
    },
    /// The key counts of a device.
    Count {
        /// The owner.
        user: &'a str,
        /// The device.
        device: &'a str,
    },
}

impl<'a> OwedDraft<'a> {
    /// A copy of a message of this sender and type to a device of a user.
    pub(crate) fn message(
        (sender, kind): (&'a str, &'a str),
        (user, device): (&'a str, &'a str),
    ) -> OwedDraft<'a> {
        OwedDraft::ToDevice {
            sender,
            kind,
            user,
            device,
        }
    }

    /// The key counts of a device.
    pub(crate) fn counts(of: &'a DeviceRow) -> OwedDraft<'a> {
        let (user, device) = (&of.user_id, &of.device_id);
        OwedDraft::Count { user, device }
    }
}

/// Whether an appservice is owed an item. Pure: the same item may be asked about again.
pub type OwesTo = fn(&Service, &OwedDraft<'_>) -> bool;

/// A to-device message for one device, before it is in the inbox.
pub struct NewMessage<'a, 'c> {
    pub(super) tx: &'a mut Tx<'c>,
    /// The sender.
    pub from: &'a Identity,
    /// The event type.
    pub kind: &'a str,
    /// The recipient.
    pub user: &'a str,
    /// The recipient's device, which exists; that of each device if the message is to all.
    pub device: &'a str,
    /// The content as JSON.
    pub content: &'a str,
}

impl NewMessage<'_, '_> {
    /// The database, for the reads of `schema`.
    pub fn db(&mut self) -> &mut Conn {
        self.tx
    }

    /// A value that the request carries, from the code around its endpoint.
    pub fn carried(&self, name: &str) -> Option<Value> {
        super::part::carried(self.tx, name)
    }
}

/// Why a device does not get a message; `None` if it does. An error refuses the whole request.
pub type CheckMessage = fn(&mut NewMessage<'_, '_>) -> Result<Option<&'static str>>;
