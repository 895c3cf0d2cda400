//! What may be said to the to-device inbox.

use std::collections::BTreeMap;

use actix::Message;
use ruma::{OwnedDeviceId, OwnedTransactionId, OwnedUserId};
use schema::Position;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{Identity, Result};

pub use crate::runtime::wake::Acknowledged;

/// Which devices of a user a message is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// One device.
    Device(OwnedDeviceId),
    /// Every device the user has when the message arrives: `*` on the wire.
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

/// user → device or all → content, each content as its bytes came.
pub type Messages = BTreeMap<OwnedUserId, BTreeMap<Target, Box<RawValue>>>;

/// Put each message into the inbox of each addressed device, once per transaction id. ([spec])
///
/// Replies with the position of the last row; by then the rows are on disk. A repeated `txn` from the same sender
/// replies again and deposits nothing. Messages to devices that do not exist are dropped.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3sendtodeviceeventtypetxnid
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Position>")]
pub struct Deposit {
    /// Who sends.
    pub from: Identity,
    /// The sender's own id for this request.
    pub txn: OwnedTransactionId,
    /// The event type, any text.
    pub event_type: String,
    /// What, to whom.
    pub messages: Messages,
}

/// A device has received everything up to this position: its `since` says so.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct Acknowledge {
    /// Whose device.
    pub user: OwnedUserId,
    /// Which device.
    pub device: OwnedDeviceId,
    /// Up to where.
    pub up_to: Position,
}
