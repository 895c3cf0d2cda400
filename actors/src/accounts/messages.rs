//! The messages of the accounts actor.

use actix::Message;
use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId};
use schema::Position;
use schema::ServiceId;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{Identity, Result, Secret};

pub use super::rules::push_rules::PushRuleChange;

/// The `auth` of a request: one stage of user-interactive authentication. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api
#[derive(Debug, Clone, Serialize)]
pub struct AuthData {
    /// The session from an earlier 401 answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The stage.
    pub stage: AuthStage,
    /// The rest of the request, in a fixed order of keys; a repeated request is recognised by it.
    #[serde(skip)]
    pub request: Secret,
}

/// A stage of user-interactive authentication.
#[derive(Debug, Clone, Serialize)]
pub enum AuthStage {
    /// No stage: the client asks for the state of its session.
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
    /// `m.login.password` with an email address or a phone number, which this server does not support.
    ThirdPartyPassword,
    /// Any other stage; it always fails.
    Other,
}

/// Check the confirmation of a request that another actor handles, such as new cross-signing keys.
///
/// A session is valid for the user and operation that it was opened for. Application services need not confirm.
/// Replies [`crate::Refusal::Unconfirmed`] with the flows when a stage is missing.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct Confirm {
    /// The requesting user.
    pub who: Identity,
    /// A text that identifies the request to confirm.
    pub operation: String,
    /// The `auth` of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthData>,
}

/// A device with its new access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// The user.
    pub user: OwnedUserId,
    /// The id.
    pub device: OwnedDeviceId,
    /// The access token; the database holds only its hash.
    pub token: Secret,
}

/// A new account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The id.
    pub user: OwnedUserId,
    /// Its first device, unless the log-in is inhibited.
    pub login: Option<LoggedIn>,
}

/// The caller of a registration.
#[derive(Debug, Clone, Serialize)]
pub enum Registrant {
    /// A person, who confirms with `m.login.dummy`.
    Person {
        /// The `auth` of the request.
        #[serde(skip_serializing_if = "Option::is_none")]
        auth: Option<AuthData>,
        /// The new password.
        #[serde(skip_serializing_if = "Option::is_none")]
        password: Option<Secret>,
        /// The IP address of the client; open sessions are limited by it.
        #[serde(skip)]
        address: String,
    },
    /// An application service, for a user in its namespaces; it need not confirm.
    Service(ServiceId),
    /// The operator of the server, for a person; allowed also when registration is closed.
    Operator {
        /// The new password.
        password: Secret,
    },
}

/// Create an account, and a device with a token unless that is inhibited. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3register
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Registered>")]
pub struct Register {
    /// The caller of the registration.
    pub by: Registrant,
    /// The localpart; for a person, generated if missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The id of the first device; generated if missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<OwnedDeviceId>,
    /// The display name of that device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Create no device and no token.
    pub inhibit_login: bool,
}

/// Check whether a person could register this localpart now; refused as the registration would be. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3registeravailable
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct Available {
    /// The localpart.
    pub username: String,
}

/// The credentials of a log-in. `user` is a localpart or a full user id.
#[derive(Debug, Clone, Serialize)]
pub enum Credentials {
    /// A person's password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// The token of an application service that claims the user.
    Service {
        /// The appservice whose token the request carries.
        service: ServiceId,
        /// The user.
        user: String,
    },
}

/// Give a device a new token. A missing device is created; an existing one keeps its keys. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3login
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<LoggedIn>")]
pub struct LogIn {
    /// Password, or application service.
    pub credentials: Credentials,
    /// The device id; generated if missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<OwnedDeviceId>,
    /// The display name, if the device is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

/// Delete the device that asks, and its token; nothing if the identity has no device. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logout
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct LogOut {
    /// The user.
    pub who: Identity,
}

/// Delete all devices of the user, and their tokens. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logoutall
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct LogOutAll {
    /// The user.
    pub who: Identity,
}

/// Set the display name of a device; an application service also creates a missing one. Replies whether it was created. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3devicesdeviceid
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<bool>")]
pub struct PutDevice {
    /// The user.
    pub who: Identity,
    /// The device.
    pub device: OwnedDeviceId,
    /// The display name; `None` leaves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

/// Delete devices with their keys, messages and tokens; those that do not exist are ignored. A person confirms with the password.
/// ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3delete_devices
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct DeleteDevices {
    /// The user.
    pub who: Identity,
    /// The devices to delete.
    pub devices: Vec<OwnedDeviceId>,
    /// The `auth` of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthData>,
}

/// Change the password, confirmed with the old one; if asked for, delete all other devices. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpassword
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct ChangePassword {
    /// The user.
    pub who: Identity,
    /// The new password.
    pub new_password: Secret,
    /// Whether to delete all other devices.
    pub logout_devices: bool,
    /// The `auth` of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthData>,
}

/// Deactivate the account, confirmed with the password: devices, profile, account data, cross-signing keys and backups are
/// deleted, and the user id stays taken. ([spec])
///
/// The rooms actor makes the user leave its rooms, on a message of its own.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct Deactivate {
    /// The user.
    pub who: Identity,
    /// Whether users that join a room later see this user's events only in redacted form.
    pub erase: bool,
    /// The `auth` of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthData>,
}

/// Set or remove one field of a profile. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3profileuseridkeyname
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct SetProfile {
    /// The requesting user.
    pub who: Identity,
    /// The owner of the profile.
    pub user: OwnedUserId,
    /// The name of the field.
    pub field: String,
    /// The value; `None` removes the field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<serde_json::Value>,
}

/// Store account data, global or of a room. Replies with its position. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridaccount_datatype
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Position>")]
pub struct SetAccountData {
    /// The requesting user.
    pub who: Identity,
    /// The user.
    pub user: OwnedUserId,
    /// The room; `None` for global data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<OwnedRoomId>,
    /// The event type.
    pub kind: String,
    /// The content, an object, byte for byte as received.
    pub content: Box<RawValue>,
}

/// Set a tag of a room, or remove it: `m.tag` is account data of the room. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridroomsroomidtagstag
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct SetTag {
    /// The requesting user.
    pub who: Identity,
    /// The user.
    pub user: OwnedUserId,
    /// The room.
    pub room: OwnedRoomId,
    /// The tag.
    pub tag: String,
    /// The value of the tag, such as its `order`; `None` removes the tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<serde_json::Value>,
}

/// Store a filter. Replies with its id; an equal filter gets the same id. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<String>")]
pub struct SetFilter {
    /// The requesting user.
    pub who: Identity,
    /// The user.
    pub user: OwnedUserId,
    /// The filter as JSON.
    pub filter: String,
}

/// Change the user's push rules, which are the account data `m.push_rules`. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#push-rules-api
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct ChangePushRules {
    /// The user.
    pub who: Identity,
    /// The change.
    pub change: PushRuleChange,
}

/// A device was used, by its own token or by an application service that acts for it. Losing this message does no harm. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#identity-assertion
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct DeviceSeen {
    /// The user.
    pub user: OwnedUserId,
    /// The device.
    pub device: OwnedDeviceId,
    /// The IP address of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
}

/// Forget the answers to client transactions older than a day. The actor sends it to itself, by the clock.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct PruneTransactions;
