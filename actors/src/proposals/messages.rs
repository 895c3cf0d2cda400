//! Messages to the actor of proposals.

use actix::Message;
use ruma::{OwnedDeviceId, OwnedUserId};
use schema::Position;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::Result;
use crate::hooks::Part;

/// Part of a write that a proposal runs: it answers a value.
pub type RunPart = Box<dyn Fn(&mut Part<'_, '_>) -> Result<Value> + Send>;

/// Run a part of a write for an endpoint of a proposal, in a write of its own. Answers what the part answers, after the commit.
#[derive(Message)]
#[rtype(result = "Result<Value>")]
pub struct WritePart {
    /// The number of the proposal.
    pub number: u16,
    /// What the write is about, for the trace.
    pub about: Value,
    /// The part. It may run twice, after a rollback.
    pub run: RunPart,
}

impl Serialize for WritePart {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            msc: u16,
            about: &'a Value,
        }
        Shown {
            msc: self.number,
            about: &self.about,
        }
        .serialize(serializer)
    }
}

/// A device has seen everything up to a position, as its `since` token shows. Sent only if a proposal follows this.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct Synced {
    /// The owner of the device.
    pub user: OwnedUserId,
    /// The device.
    pub device: OwnedDeviceId,
    /// The position.
    pub up_to: Position,
}
