//! The changes that actors report to hooks.

use ruma::CanonicalJsonObject;
use schema::inbox::InboxRow;
use schema::owed::Owed;
use schema::{Position, ServiceId};
use serde_json::Value;

use crate::Identity;

/// A change that a write has made.
#[derive(Debug)]
#[non_exhaustive]
pub enum Change<'a> {
    /// An event was added to a room.
    Event {
        /// The room.
        room: &'a str,
        /// The event type.
        kind: &'a str,
        /// The state key of a state event.
        state_key: Option<&'a str>,
        /// The sender.
        sender: &'a str,
        /// The device that sent it, if it was sent with a transaction id.
        device: Option<&'a str>,
        /// The event id.
        id: &'a str,
        /// The content.
        content: &'a CanonicalJsonObject,
        /// The position of the event.
        position: Position,
    },
    /// A user's membership in a room changed. `before` and `after` are values of `membership`; `before` is empty for none.
    Membership {
        /// The room.
        room: &'a str,
        /// The user.
        user: &'a str,
        /// The membership before.
        before: &'a str,
        /// The membership now.
        after: &'a str,
        /// The id of the member event.
        event: &'a str,
    },
    /// A device was created, renamed or deleted.
    Device {
        /// The owner.
        user: &'a str,
        /// The device.
        device: &'a str,
        /// What happened to it.
        now: DeviceChange,
    },
    /// A user was registered or deactivated.
    Account {
        /// The user.
        user: &'a str,
        /// Whether the account can be used now.
        is_active: bool,
    },
    /// The identity keys of a device were uploaded for the first time, or changed.
    DeviceKeys {
        /// The owner.
        user: &'a str,
        /// The device.
        device: &'a str,
        /// The keys as JSON.
        keys: &'a str,
    },
    /// A one-time key or a fallback key was claimed.
    Claimed {
        /// The owner of the device.
        user: &'a str,
        /// The device.
        device: &'a str,
        /// The algorithm of the key.
        algorithm: &'a str,
        /// The id of the key, with its algorithm: `signed_curve25519:AAAAAQ`. A one-time key is deleted already.
        key: &'a str,
        /// Whether it is the fallback key.
        is_fallback: bool,
    },
    /// One-time keys were stored that the device did not have before.
    OneTimeKeys {
        /// The owner of the device.
        user: &'a str,
        /// The device.
        device: &'a str,
        /// Their ids, without the algorithm.
        ids: &'a [&'a str],
    },
    /// A read receipt was set.
    Receipt {
        /// The room.
        room: &'a str,
        /// The user.
        user: &'a str,
        /// `m.read` or `m.read.private`.
        kind: &'a str,
        /// The event up to which the user has read.
        event: &'a str,
        /// The thread, `main`, or empty for none.
        thread: &'a str,
    },
    /// The keys of a user that other users see changed: device keys, cross-signing keys or signatures.
    Keys {
        /// The user.
        user: &'a str,
    },
    /// Account data was stored.
    AccountData {
        /// The user.
        user: &'a str,
        /// The room; empty for global data.
        room: &'a str,
        /// The type.
        kind: &'a str,
        /// The content as JSON.
        content: &'a str,
    },
    /// A field of a profile was set, or deleted if there is no value.
    Profile {
        /// The user.
        user: &'a str,
        /// The name of the field.
        field: &'a str,
        /// Its value.
        value: Option<&'a Value>,
    },
    /// To-device messages were put into inboxes by one request.
    ToDevice {
        /// The sender.
        from: &'a Identity,
        /// The event type.
        kind: &'a str,
        /// One row for each device, each with its position. The content is empty where several rows share one.
        messages: &'a [InboxRow],
    },
    /// To-device messages were acknowledged: by `since` of their device, or by an appservice that decides over the device. They are
    /// about to be deleted.
    ToDeviceReceived {
        /// The messages.
        messages: &'a [InboxRow],
    },
    /// A device has seen everything up to a position, as its `since` token shows. Reported only if a proposal has `follows_syncs`, for
    /// each request to `/sync` with a token.
    Synced {
        /// The owner of the device.
        user: &'a str,
        /// The device.
        device: &'a str,
        /// The position.
        up_to: Position,
    },
    /// An appservice acknowledged a transaction.
    Delivered {
        /// The appservice.
        service: &'a ServiceId,
        /// The transaction's id.
        txn: i64,
        /// What it carried.
        items: &'a [Owed],
        /// The body of its answer, if that is JSON and not larger than the `answer_bytes` of a proposal.
        answer: Option<&'a Value>,
    },
}

/// What happened to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChange {
    /// It was created.
    Created,
    /// Its display name was changed.
    Renamed,
    /// It was deleted, with its keys and messages.
    Deleted,
}
