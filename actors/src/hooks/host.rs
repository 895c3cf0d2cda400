//! What hooks may ask of actors.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{OwnedOneTimeKeyId, OwnedRoomId, OwnedUserId};
use schema::{Position, ServiceId, Tx};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::Result;
use crate::runtime::wake::ProposalEphemeral;

/// What hooks may ask of actors. [`Env`](crate::Env) implements it (`host.rs`), so that hooks depend on no actor.
pub(crate) trait Host: Send + Sync {
    /// The time in milliseconds since the epoch.
    fn now(&self) -> i64;
    /// The server's name.
    fn server_name(&self) -> String;
    /// After the commit, wake the `/sync` requests of users and of rooms.
    fn wake(&self, tx: &mut Tx<'_>, users: Vec<OwnedUserId>, rooms: Vec<OwnedRoomId>);
    /// After the commit, wake the senders of appservices.
    fn wake_services(&self, tx: &mut Tx<'_>, services: BTreeSet<ServiceId>, up_to: Position);
    /// After the commit, look at the timers again.
    fn set_timer(&self, tx: &mut Tx<'_>);
    /// After the commit, send an ephemeral event to appservices.
    fn send_ephemeral(&self, tx: &mut Tx<'_>, event: ProposalEphemeral);
    /// Put a message into the inbox of a device, or of all devices of a user.
    fn send_to_device(&self, tx: &mut Tx<'_>, message: ToDeviceMessage<'_>) -> Result<()>;
    /// Add an event to a room, with all checks. Returns its id.
    fn send_event(&self, tx: &mut Tx<'_>, event: RoomEvent<'_>) -> Result<String>;
    /// Create a device.
    fn create_device(
        &self,
        tx: &mut Tx<'_>,
        user: &str,
        device: &str,
        name: Option<&str>,
    ) -> Result<()>;
    /// Delete a device with its keys and its messages. Returns whether it existed.
    fn delete_device(&self, tx: &mut Tx<'_>, user: &str, device: &str) -> Result<bool>;
    /// Store keys of a device.
    fn upload_keys(
        &self,
        tx: &mut Tx<'_>,
        user: &str,
        device: &str,
        keys: &DeviceKeys,
    ) -> Result<()>;
    /// Store account data.
    fn put_account_data(
        &self,
        tx: &mut Tx<'_>,
        user: &str,
        room: &str,
        kind: &str,
        content: &Value,
    ) -> Result<()>;
}

/// Keys of a device, as in a request to `/keys/upload`, with the bytes that the client signed.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct DeviceKeys {
    /// The identity keys.
    #[serde(default)]
    pub device_keys: Option<Box<RawValue>>,
    /// One-time keys by id.
    #[serde(default)]
    pub one_time_keys: BTreeMap<OwnedOneTimeKeyId, Box<RawValue>>,
    /// Fallback keys by id.
    #[serde(default)]
    pub fallback_keys: BTreeMap<OwnedOneTimeKeyId, Box<RawValue>>,
}

/// A to-device message that a hook sends.
#[derive(Debug, Clone, Copy)]
pub struct ToDeviceMessage<'a> {
    /// The sender.
    pub from: &'a str,
    /// The recipient.
    pub user: &'a str,
    /// The recipient's device; `None` for all devices.
    pub device: Option<&'a str>,
    /// The event type.
    pub kind: &'a str,
    /// The content.
    pub content: &'a Value,
}

/// A room event that a hook sends.
#[derive(Debug, Clone, Copy)]
pub struct RoomEvent<'a> {
    /// The room.
    pub room: &'a str,
    /// The sender, a user of this server.
    pub sender: &'a str,
    /// The event type.
    pub kind: &'a str,
    /// The state key of a state event.
    pub state_key: Option<&'a str>,
    /// The content.
    pub content: &'a Value,
    /// The sending device and its transaction id: `/sync` shows the latter to the former.
    pub origin: Option<(&'a str, &'a str)>,
    /// The `origin_server_ts`, in milliseconds since the epoch; `None` for now.
    pub at: Option<i64>,
    /// Keys of the event beside its content, as of [`NewEvent::set_top_level`](super::NewEvent::set_top_level).
    pub top_level: &'a [(&'a str, Value)],
}

impl RoomEvent<'_> {
    /// An event with nothing set, for the fields that an event leaves out.
    pub const NONE: RoomEvent<'static> = RoomEvent {
        room: "",
        sender: "",
        kind: "",
        state_key: None,
        content: &Value::Null,
        origin: None,
        at: None,
        top_level: &[],
    };
}
