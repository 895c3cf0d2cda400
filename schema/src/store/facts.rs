//! What a write did, for people who look at a development server: the numbers of rows, and facts that the rows no longer show once
//! they are deleted. Recorded only where a report of the write is wanted: see [`Store::record_writes`](crate::Store::record_writes).

use std::collections::BTreeMap;

/// The numbers of rows that a write added, minus those that it removed, by name: `inbox`, or `owed irc (exclusive_namespace)`.
pub type Rows = BTreeMap<String, i64>;

/// What a write did.
#[derive(Debug, Default)]
pub struct Done {
    /// The numbers of rows that it added, minus those that it removed, by name.
    pub rows: Rows,
    /// The facts, in order.
    pub facts: Vec<Fact>,
    /// The last position that it or a write before it took; 0 if it failed.
    pub head: i64,
}

/// A fact about a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// An appservice is owed items.
    Owed {
        /// The appservice.
        service: String,
        /// The kind of the items.
        kind: String,
        /// Their number.
        items: usize,
    },
    /// An appservice is no longer owed an item.
    Settled(Settled),
    /// A to-device message was put into the inbox of a device.
    Deposited(Deposited),
    /// A proposal has kept a to-device message from a device.
    Withheld(Withheld),
    /// A device has acknowledged its messages up to a position.
    Taken {
        /// The owner of the device.
        user: String,
        /// The device.
        device: String,
        /// The position.
        up_to: i64,
    },
    /// A key of a device was claimed.
    Claimed {
        /// The owner of the device.
        user: String,
        /// The device.
        device: String,
        /// The algorithm of the key.
        algorithm: String,
        /// Which key was handed out.
        key: ClaimedKey,
    },
}

/// The key that a claim got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimedKey {
    /// A one-time key.
    OneTime,
    /// The fallback key, because no one-time key was left.
    Fallback,
    /// None: the device has neither.
    Missing,
}

/// An item that an appservice is no longer owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The appservice.
    pub service: String,
    /// The kind of the item.
    pub kind: String,
    /// What the item is about, if a later one about the same replaces it; else empty.
    pub key: String,
    /// What is sent besides the event or message: `left` or `changed` for a device list.
    pub item: String,
    /// The position of the item; 0 if several were settled at once.
    pub position: i64,
    /// The name of the rule because of which it was owed; empty if the kind says it.
    pub why: String,
    /// The number of items.
    pub items: usize,
    /// How it was settled.
    pub how: Settlement,
}

/// How an item was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// The appservice acknowledged the transaction with this id, which carried it.
    Delivered(i64),
    /// A newer item about the same replaced it while it waited.
    Replaced,
    /// A newer item about the same replaced it while the transaction with this id carried it.
    ReplacedInside(i64),
    /// Its device was deleted.
    DeviceDeleted,
    /// It is no longer sent to the appservice: what it is about was deleted, or the registration no longer covers it.
    Withdrawn,
}

/// A to-device message as it was put into the inbox of a device, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deposited {
    /// Its position.
    pub position: i64,
    /// The recipient.
    pub user: String,
    /// The recipient's device.
    pub device: String,
    /// The user that sent it.
    pub sender: String,
    /// The event type.
    pub kind: String,
    /// The appservice whose acknowledgement counts as the device's; empty if there is none.
    pub decided_by: String,
    /// The `org.matrix.msgid` in its content, by which clients name a message in their logs.
    pub message_id: Option<String>,
}

/// A to-device message that a device did not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld {
    /// The recipient.
    pub user: String,
    /// The recipient's device.
    pub device: String,
    /// The user that sent it.
    pub sender: String,
    /// The event type.
    pub kind: String,
    /// The `org.matrix.msgid` in its content.
    pub message_id: Option<String>,
    /// The number of the proposal.
    pub msc: u16,
    /// Its reason.
    pub why: &'static str,
}

/// The `org.matrix.msgid` in the JSON text of a content.
#[must_use]
pub fn message_id(content: &str) -> Option<String> {
    let (_, rest) = content.split_once("\"org.matrix.msgid\"")?;
    let (_, rest) = rest.split_once('"')?;
    let (id, _) = rest.split_once('"')?;
    Some(id.to_owned())
}
