//! The messages of the rooms actor.

use actix::Message;
use ruma::{
    OwnedEventId, OwnedRoomAliasId, OwnedRoomId, OwnedRoomOrAliasId, OwnedTransactionId,
    OwnedUserId,
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{Identity, Result};

/// A named set of initial join rule, history visibility and guest access. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Preset {
    /// Invited users may join.
    Private,
    /// Like `Private`; users invited at creation get the creator's power level.
    Trusted,
    /// Every user may join.
    Public,
}

/// A state event for a new room.
#[derive(Debug, Clone, Serialize)]
pub struct InitialState {
    /// Its type.
    pub kind: String,
    /// Its state key.
    pub state_key: String,
    /// Its content.
    pub content: Box<RawValue>,
}

/// Create a room with its initial state and invites, in one write: all or nothing. ([spec])
///
/// Replies with the room's id.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<OwnedRoomId>")]
pub struct CreateRoom {
    /// The creator, who is also the first member.
    pub by: Identity,
    /// The room version; `None` for the server's default.
    pub version: Option<String>,
    /// `None` for [`Preset::Public`] if `public`, else [`Preset::Private`].
    pub preset: Option<Preset>,
    /// Whether the room directory lists it.
    pub public: bool,
    /// Keys to add to the content of the create event.
    pub creation_content: Option<Box<RawValue>>,
    /// State events to send after those of the preset, in this order.
    pub initial_state: Vec<InitialState>,
    /// Users to invite.
    pub invite: Vec<OwnedUserId>,
    /// Whether the invites have `is_direct` set.
    pub is_direct: bool,
    /// The room's name.
    pub name: Option<String>,
    /// The room's topic.
    pub topic: Option<String>,
    /// The localpart of the room's alias.
    pub alias: Option<String>,
    /// Overrides for the default power levels, by top-level key.
    pub power_levels: Option<Box<RawValue>>,
}

impl CreateRoom {
    /// A private room with default state, without name, alias or invites.
    pub fn new(by: Identity) -> CreateRoom {
        CreateRoom {
            by,
            version: None,
            preset: None,
            public: false,
            creation_content: None,
            initial_state: Vec::new(),
            invite: Vec::new(),
            is_direct: false,
            name: None,
            topic: None,
            alias: None,
            power_levels: None,
        }
    }
}

/// Send a message event, once per transaction id. ([spec])
///
/// Replies with the event's id; a repeated `txn` from the same sender replies the same and sends nothing.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<OwnedEventId>")]
pub struct SendEvent {
    /// The sender.
    pub by: Identity,
    /// The room to send to.
    pub room: OwnedRoomId,
    /// The event type.
    pub kind: String,
    /// The transaction id that the client chose.
    pub txn: OwnedTransactionId,
    /// The content.
    pub content: Box<RawValue>,
    /// The `origin_server_ts`, in milliseconds since the epoch; ignored unless an appservice sends. `None` for now.
    pub at: Option<i64>,
}

/// Send a state event. ([spec])
///
/// Replies with the event's id; the id of the current state event if it has the same sender and content.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<OwnedEventId>")]
pub struct SetState {
    /// The sender.
    pub by: Identity,
    /// The room.
    pub room: OwnedRoomId,
    /// The event type.
    pub kind: String,
    /// The state key.
    pub state_key: String,
    /// The content.
    pub content: Box<RawValue>,
    /// The `origin_server_ts`, in milliseconds since the epoch; ignored unless an appservice sends. `None` for now.
    pub at: Option<i64>,
}

/// Redact an event, once per transaction id. ([spec])
///
/// Replies with the id of the redaction event.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidredacteventidtxnid
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<OwnedEventId>")]
pub struct Redact {
    /// The sender of the redaction.
    pub by: Identity,
    /// The room.
    pub room: OwnedRoomId,
    /// The event to redact.
    pub event: OwnedEventId,
    /// The transaction id that the client chose.
    pub txn: OwnedTransactionId,
    /// The content: `reason`, and what else the client adds. `redacts` in it is replaced.
    pub content: Box<RawValue>,
}

/// How a user enters a room on its own initiative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Entrance {
    /// Become a joined member.
    Join,
    /// Ask to be invited.
    Knock,
}

/// Join a room, or knock on it, by its id or an alias. ([spec])
///
/// Replies with the room's id. A user that has the membership already gets the same reply, and nothing is sent.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3joinroomidoralias
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<OwnedRoomId>")]
pub struct Enter {
    /// The requesting user.
    pub by: Identity,
    /// The room.
    pub room: OwnedRoomOrAliasId,
    /// Join or knock.
    pub how: Entrance,
    /// The `reason` in the event.
    pub reason: Option<String>,
}

/// A change to a membership other than join and knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Action {
    /// To `invite`.
    Invite,
    /// To `leave`, by the user itself; also how an invite is declined.
    Leave,
    /// From `join`, `invite` or `knock` to `leave`, by another user.
    Kick,
    /// To `ban`.
    Ban,
    /// From `ban` to `leave`.
    Unban,
}

/// Change a user's membership in a room. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#room-membership
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct ChangeMembership {
    /// The sender of the member event.
    pub by: Identity,
    /// The room.
    pub room: OwnedRoomId,
    /// The user whose membership changes; for [`Action::Leave`], the sender.
    pub user: OwnedUserId,
    /// The change.
    pub action: Action,
    /// The `reason` in the event.
    pub reason: Option<String>,
}

/// Forget a room that the user has left: `/sync` no longer shows it, and the user can no longer read its history. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidforget
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct Forget {
    /// The requesting user.
    pub by: Identity,
    /// The room.
    pub room: OwnedRoomId,
}

/// Create an alias for a room. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directoryroomroomalias
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct PutAlias {
    /// The requesting user.
    pub by: Identity,
    /// The alias.
    pub alias: OwnedRoomAliasId,
    /// The room.
    pub room: OwnedRoomId,
}

/// Delete an alias. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3directoryroomroomalias
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct DeleteAlias {
    /// The requesting user.
    pub by: Identity,
    /// The alias.
    pub alias: OwnedRoomAliasId,
}

/// Add a room to the directory or remove it. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directorylistroomroomid
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct SetListed {
    /// The requesting user.
    pub by: Identity,
    /// The room.
    pub room: OwnedRoomId,
    /// Whether the directory lists it from now on.
    pub listed: bool,
}

/// The kinds of marks that say how far a user has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ReadMarkerKind {
    /// `m.read`: a receipt that other members see.
    Read,
    /// `m.read.private`: a receipt that only the user's own devices see.
    ReadPrivate,
    /// `m.fully_read`: account data with the event up to which the user has read everything.
    FullyRead,
}

/// A receipt or the fully-read marker.
#[derive(Debug, Clone, Serialize)]
pub struct ReadMarker {
    /// Receipt or marker.
    pub kind: ReadMarkerKind,
    /// The id of the event. A mark for an event that is not in the room is ignored.
    pub event: String,
    /// The thread: `main`, the id of its root event, or empty for an unthreaded receipt.
    pub thread: String,
}

/// Set receipts and the fully-read marker. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#receipts
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct MarkRead {
    /// The requesting user.
    pub by: Identity,
    /// The room.
    pub room: OwnedRoomId,
    /// The marks to set.
    pub marks: Vec<ReadMarker>,
}

/// A committed write changed a user's display name or avatar. A new member event is sent to each room that the user is joined
/// to. ([spec])
///
/// Replies after the first 100 rooms; the others follow. A room that refuses the event is skipped.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#events-on-change-of-profile-information
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct ProfileChanged {
    /// The user.
    pub user: OwnedUserId,
}

/// A committed write deactivated a user's account. The user leaves each joined room, declines each invite and takes back each
/// knock. ([spec])
///
/// Replies after the first 100 rooms; the others follow. A room that refuses the event is skipped.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct UserDeactivated {
    /// The user.
    pub user: OwnedUserId,
}
