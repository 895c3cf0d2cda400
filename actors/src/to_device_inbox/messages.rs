//! Messages to the to-device inbox.

use std::collections::BTreeMap;

use actix::Message;
use ruma::{OwnedDeviceId, OwnedTransactionId, OwnedUserId};
use schema::Position;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{Identity, Result};

pub use crate::runtime::wake::Acknowledged;

/// The addressed devices of a user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// One device.
    Device(OwnedDeviceId),
    /// Every device that the user has when the message arrives: `*` on the wire.
    All,
}

impl Serialize for Target {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Target::Device(id) => id.as_str(),
            Target::All => "*",
        })
    }
}

/// user → device or all → content; contents keep their bytes.
pub type ToDeviceMessages = BTreeMap<OwnedUserId, BTreeMap<Target, Box<RawValue>>>;

/// Put each message into the inbox of each addressed device, once per transaction id. ([spec])
///
/// Replies with the position of the last row; by then the rows are committed. A repeated `txn` of the same sender deposits
/// nothing and gets a reply again. Messages to devices that do not exist are dropped.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3sendtodeviceeventtypetxnid
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Position>")]
pub struct Deposit {
    /// The sender.
    pub from: Identity,
    /// The client's transaction id of this request.
    pub txn: OwnedTransactionId,
    /// The event type, any text.
    pub event_type: String,
    /// The contents for each user and device.
    pub messages: ToDeviceMessages,
}

/// A device has received everything up to this position, as its `since` token shows.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct Acknowledge {
    /// The owner of the device.
    pub user: OwnedUserId,
    /// The device.
    pub device: OwnedDeviceId,
    /// The position up to which it has received everything.
    pub up_to: Position,
}
