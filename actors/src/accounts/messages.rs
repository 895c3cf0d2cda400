//! What may be said to the keeper of accounts.

use actix::Message;
use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId};
use schema::Position;
use schema::ServiceId;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{Identity, Result, Secret};

pub use super::rules::push_rules::PushRuleChange;

/// What a client sends to confirm a request: one stage of interactive authentication. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api
#[derive(Debug, Clone, Serialize)]
pub struct Auth {
    /// The session that an earlier 401 named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The stage.
    pub stage: Stage,
    /// The rest of the request, in an order that does not depend on the client: what tells a repeated request from another.
    #[serde(skip)]
    pub request: Secret,
}

/// One stage of interactive authentication.
#[derive(Debug, Clone, Serialize)]
pub enum Stage {
    /// None: the client asks how far its session is.
    Poll,
    /// `m.login.dummy`
    Dummy,
    /// `m.login.password`
    Password {
        /// A localpart or a full user id.
        user: String,
        /// The password.
        password: Secret,
    },
    /// `m.login.password` for a mail address or a telephone number, which belong to no account here.
    ThirdPartyPassword,
    /// Any other: never enough.
    Other,
}

/// Check that the user confirms a request that no message of this actor carries, such as new cross-signing keys.
///
/// A session counts for the user and the operation that it was opened for. Application services need not confirm.
/// Answers [`crate::Refusal::Unconfirmed`] with what is still needed.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct Confirm {
    /// Who asks.
    pub who: Identity,
    /// For what, in words that tell one request from another.
    pub operation: String,
    /// What came with the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
}

/// A device that has just got an access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// Whose.
    pub user: OwnedUserId,
    /// Its id.
    pub device: OwnedDeviceId,
    /// Its token, which is stored nowhere in this form.
    pub token: Secret,
}

/// A new account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Its id.
    pub user: OwnedUserId,
    /// Its first device, unless none was wanted.
    pub login: Option<LoggedIn>,
}

/// Who registers.
#[derive(Debug, Clone, Serialize)]
pub enum Registrant {
    /// A person, who confirms with `m.login.dummy`.
    Person {
        /// What came with the request.
        #[serde(skip_serializing_if = "Option::is_none")]
        auth: Option<Auth>,
        /// The password to be.
        #[serde(skip_serializing_if = "Option::is_none")]
        password: Option<Secret>,
        /// The address that asks: open sessions are counted by it.
        #[serde(skip)]
        address: String,
    },
    /// A service, for a user of its own; it need not confirm.
    Service(ServiceId),
    /// The operator of this server, for a person: closed registration stays closed for everybody else.
    Operator {
        /// The password to be.
        password: Secret,
    },
}

/// Make an account, and a device with a token unless that is inhibited. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3register
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Registered>")]
pub struct Register {
    /// Who registers.
    pub by: Registrant,
    /// The localpart; a person who leaves it out gets one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The id of the first device; made up where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<OwnedDeviceId>,
    /// What to call that device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Make no device and no token.
    pub inhibit_login: bool,
}

/// Whether a person could register this localpart now. Refused as the registration would be. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3registeravailable
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct Available {
    /// The localpart.
    pub username: String,
}

/// What a log-in is based on. `user` is a localpart or a full user id.
#[derive(Debug, Clone, Serialize)]
pub enum Credentials {
    /// A person's password.
    Password {
        /// Who.
        user: String,
        /// The password.
        password: Secret,
    },
    /// The token of a service that the user belongs to.
    Service {
        /// The service.
        service: ServiceId,
        /// Who.
        user: String,
    },
}

/// Give a device a new token; the device is made if it is missing, and keeps its keys if not. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3login
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<LoggedIn>")]
pub struct LogIn {
    /// What the log-in is based on.
    pub credentials: Credentials,
    /// The device; made up where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<OwnedDeviceId>,
    /// What to call a device that is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

/// Delete the device that asks, and its token. Without a device there is nothing to end. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logout
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct LogOut {
    /// Who.
    pub who: Identity,
}

/// Delete all devices of the user, and their tokens. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logoutall
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct LogOutAll {
    /// Who.
    pub who: Identity,
}

/// Name a device. A service makes it if it is missing. Answers whether it was made. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3devicesdeviceid
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<bool>")]
pub struct PutDevice {
    /// Who.
    pub who: Identity,
    /// The device.
    pub device: OwnedDeviceId,
    /// What to call it; stays as it is where this is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

/// Delete devices, as far as they exist, with all that is theirs. A person confirms with the password. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3delete_devices
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct DeleteDevices {
    /// Who.
    pub who: Identity,
    /// Which.
    pub devices: Vec<OwnedDeviceId>,
    /// What came with the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
}

/// Change the password, confirmed with the old one; by choice, delete every other device. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpassword
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct ChangePassword {
    /// Who.
    pub who: Identity,
    /// The password to be.
    pub new_password: Secret,
    /// Whether every other device is deleted.
    pub logout_devices: bool,
    /// What came with the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
}

/// Give the account up, confirmed with the password: devices, profile, account data, cross-signing keys
/// and backups go, the id stays taken. ([spec])
///
/// The rooms are left by another message, to another actor.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct Deactivate {
    /// Who.
    pub who: Identity,
    /// Whether users that join a room from now on see what is left of a redacted event.
    pub erase: bool,
    /// What came with the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
}

/// Set or take away one field of a profile. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3profileuseridkeyname
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct SetProfile {
    /// Who asks.
    pub who: Identity,
    /// Whose profile.
    pub user: OwnedUserId,
    /// Which field.
    pub field: String,
    /// To what; `None` takes it away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<serde_json::Value>,
}

/// Put account data, global or of a room. Answers its position. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridaccount_datatype
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Position>")]
pub struct SetAccountData {
    /// Who asks.
    pub who: Identity,
    /// Whose.
    pub user: OwnedUserId,
    /// For which room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<OwnedRoomId>,
    /// The event type.
    pub kind: String,
    /// An object, as its bytes came.
    pub content: Box<RawValue>,
}

/// Put a tag on a room, or take it away: `m.tag` is account data of the room. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridroomsroomidtagstag
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct SetTag {
    /// Who asks.
    pub who: Identity,
    /// Whose.
    pub user: OwnedUserId,
    /// Which room.
    pub room: OwnedRoomId,
    /// The tag.
    pub tag: String,
    /// What is said of it; `None` takes it away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<serde_json::Value>,
}

/// Keep a filter. Answers its id: the same filter has the same id. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<String>")]
pub struct SetFilter {
    /// Who asks.
    pub who: Identity,
    /// Whose.
    pub user: OwnedUserId,
    /// The filter, an object.
    pub filter: String,
}

/// Change the user's push rules, which are the account data `m.push_rules`. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#push-rules-api
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct ChangePushRules {
    /// Whose.
    pub who: Identity,
    /// How.
    pub change: PushRuleChange,
}

/// A device was used: by its own token, or by a service that names it. Nothing depends on it, so it may be lost. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#identity-assertion
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct DeviceSeen {
    /// Whose.
    pub user: OwnedUserId,
    /// Which.
    pub device: OwnedDeviceId,
    /// Where the request came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
}

/// Forget what client transaction ids were answered more than a day ago. The actor says it to itself, by the clock.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct PruneTransactions;
