//! What may be said to the keeper of rooms.

use actix::Message;
use ruma::{
    OwnedEventId, OwnedRoomAliasId, OwnedRoomId, OwnedRoomOrAliasId, OwnedTransactionId,
    OwnedUserId,
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{Identity, Result};

/// What a client names instead of a new room's rules. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Preset {
    /// Who is invited may join.
    Private,
    /// The same, and who is invited at creation has the creator's power.
    Trusted,
    /// Anyone may join.
    Public,
}

/// A state event that a new room is to begin with.
#[derive(Debug, Clone, Serialize)]
pub struct InitialState {
    /// Its type.
    pub kind: String,
    /// Its state key.
    pub state_key: String,
    /// Its content.
    pub content: Box<RawValue>,
}

/// Create a room with all that it begins with, in one write: all of it or nothing. ([spec])
///
/// Replies with the room's id.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<OwnedRoomId>")]
pub struct CreateRoom {
    /// Who creates it, and joins it first.
    pub by: Identity,
    /// The room version; `None` for the server's choice.
    pub version: Option<String>,
    /// The rules to begin with; `None` for those that go with `public`.
    pub preset: Option<Preset>,
    /// Whether the directory lists it.
    pub public: bool,
    /// Additions to the content of the create event.
    pub creation_content: Option<Box<RawValue>>,
    /// State to begin with.
    pub initial_state: Vec<InitialState>,
    /// Whom to invite.
    pub invite: Vec<OwnedUserId>,
    /// Whether the invites say that this is a direct chat.
    pub is_direct: bool,
    /// The room's name.
    pub name: Option<String>,
    /// The room's topic.
    pub topic: Option<String>,
    /// The localpart of the room's first alias.
    pub alias: Option<String>,
    /// What replaces the usual power levels, key by key.
    pub power_levels: Option<Box<RawValue>>,
}

impl CreateRoom {
    /// A private room without anything.
    #[must_use]
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
    /// Who sends.
    pub by: Identity,
    /// To which room.
    pub room: OwnedRoomId,
    /// The event type.
    pub kind: String,
    /// The sender's own id for this request.
    pub txn: OwnedTransactionId,
    /// The content.
    pub content: Box<RawValue>,
    /// The time to put on it, in milliseconds since the epoch; only a service may say.
    pub at: Option<i64>,
}

/// Set a piece of a room's state. ([spec])
///
/// Replies with the event's id: that of the event in force when it says the same already.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<OwnedEventId>")]
pub struct SetState {
    /// Who sets it.
    pub by: Identity,
    /// In which room.
    pub room: OwnedRoomId,
    /// The event type.
    pub kind: String,
    /// The state key.
    pub state_key: String,
    /// The content.
    pub content: Box<RawValue>,
    /// The time to put on it, in milliseconds since the epoch; only a service may say.
    pub at: Option<i64>,
}

/// Strip an event of its content, once per transaction id. ([spec])
///
/// Replies with the id of the redaction.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidredacteventidtxnid
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<OwnedEventId>")]
pub struct Redact {
    /// Who redacts.
    pub by: Identity,
    /// In which room.
    pub room: OwnedRoomId,
    /// Which event.
    pub event: OwnedEventId,
    /// The sender's own id for this request.
    pub txn: OwnedTransactionId,
    /// Why.
    pub reason: Option<String>,
}

/// How one comes to a room by oneself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Entrance {
    /// Be joined.
    Join,
    /// Ask to be invited.
    Knock,
}

/// Join a room, or knock on it, by its id or an alias. ([spec])
///
/// Replies with the room's id. Who is joined already is told so and nothing happens.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3joinroomidoralias
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<OwnedRoomId>")]
pub struct Enter {
    /// Who.
    pub by: Identity,
    /// Which room.
    pub room: OwnedRoomOrAliasId,
    /// Join or knock.
    pub how: Entrance,
    /// Why.
    pub reason: Option<String>,
}

/// What is done about somebody's membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Action {
    /// Invite.
    Invite,
    /// Leave by oneself; also how an invite is declined.
    Leave,
    /// Make leave.
    Kick,
    /// Make leave and keep out.
    Ban,
    /// Keep out no longer.
    Unban,
}

/// Change somebody's membership in a room. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#room-membership
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct ChangeMembership {
    /// Who does it.
    pub by: Identity,
    /// In which room.
    pub room: OwnedRoomId,
    /// To whom; to leave, oneself.
    pub user: OwnedUserId,
    /// What.
    pub action: Action,
    /// Why.
    pub reason: Option<String>,
}

/// Forget a room that the user has left: it is told of it no more, and may not read it. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidforget
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct Forget {
    /// Who.
    pub by: Identity,
    /// Which room.
    pub room: OwnedRoomId,
}

/// Name a room. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directoryroomroomalias
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct PutAlias {
    /// Who.
    pub by: Identity,
    /// The name.
    pub alias: OwnedRoomAliasId,
    /// The room.
    pub room: OwnedRoomId,
}

/// Take a name from a room. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3directoryroomroomalias
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct DeleteAlias {
    /// Who.
    pub by: Identity,
    /// The name.
    pub alias: OwnedRoomAliasId,
}

/// List a room in the directory, or no longer. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directorylistroomroomid
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct SetListed {
    /// Who.
    pub by: Identity,
    /// Which room.
    pub room: OwnedRoomId,
    /// Whether it is to be listed.
    pub listed: bool,
}

/// What a mark says about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum MarkKind {
    /// Read up to here; the others may know.
    Read,
    /// Read up to here; nobody else may know.
    ReadPrivate,
    /// The line above which the user has read everything.
    FullyRead,
}

/// How far a user has read.
#[derive(Debug, Clone, Serialize)]
pub struct Mark {
    /// What it says.
    pub kind: MarkKind,
    /// About which event. An id that is none, or names nothing in the room, marks nothing.
    pub event: String,
    /// In which thread: `main`, the id of its first event, or empty for no thread.
    pub thread: String,
}

/// Say how far one has read: receipts and the read marker. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#receipts
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct MarkRead {
    /// Who.
    pub by: Identity,
    /// In which room.
    pub room: OwnedRoomId,
    /// What.
    pub marks: Vec<Mark>,
}

/// A user's display name or avatar changed; the write that changed it is committed. Each room the user is joined to is told
/// by a new member event. ([spec])
///
/// Replies when the first rooms are told; the others follow. A room that refuses the event is passed over.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#events-on-change-of-profile-information
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct ProfileChanged {
    /// Whose.
    pub user: OwnedUserId,
}

/// A user's account is given up; the write that gave it up is committed. The user leaves each room that it is joined to, declines
/// each invite and takes back each knock. ([spec])
///
/// Replies when the first rooms are left; the others follow. A room that cannot be left is passed over.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct UserDeactivated {
    /// Whose.
    pub user: OwnedUserId,
}
