//! Why an actor did not do what it was asked to: a rule refused it, or something failed.

use std::borrow::Cow;

/// The result of a message to an actor.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The request failed, and nothing of it was done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A rule refused the request.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] schema::Error),
    /// No answer in time. The caller may try again.
    #[error("{0} did not answer in time")]
    Slow(&'static str),
    /// The handler panicked, or the actor has stopped.
    #[error("{0} failed")]
    Failed(&'static str),
}

impl schema::WriteError for Error {
    fn storage(&self) -> Option<&schema::Error> {
        match self {
            Error::Storage(error) => Some(error),
            _ => None,
        }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Error::Storage(error.into())
    }
}

/// A refusal by a rule. Each is one Matrix error, and its text is a lower-case fragment.
///
/// The server crate maps them to HTTP status and `errcode`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A refusal with an error code of a proposal.
    #[error("{error}")]
    OfProposal {
        /// The HTTP status.
        status: u16,
        /// The error code.
        errcode: &'static str,
        /// The text.
        error: Cow<'static, str>,
    },
    /// 403 `M_FORBIDDEN`
    #[error("{0}")]
    Forbidden(Cow<'static, str>),
    /// 404 `M_NOT_FOUND`
    #[error("{0}")]
    NotFound(Cow<'static, str>),
    /// 401 `M_UNKNOWN_TOKEN`
    #[error("unknown access token")]
    UnknownToken,
    /// 403 `M_USER_DEACTIVATED`
    #[error("this account has been deactivated")]
    UserDeactivated,
    /// 400 `M_USER_IN_USE`
    #[error("this user id is taken")]
    UserInUse,
    /// 400 `M_INVALID_USERNAME`
    #[error("{0}")]
    InvalidUsername(Cow<'static, str>),
    /// 400 `M_EXCLUSIVE`
    #[error("{0}")]
    Exclusive(Cow<'static, str>),
    /// 400 `M_WEAK_PASSWORD`
    #[error("{0}")]
    WeakPassword(Cow<'static, str>),
    /// 400 `M_UNKNOWN_DEVICE`: an appservice named a device that does not exist.
    #[error("unknown device")]
    UnknownDevice,
    /// 400 `M_UNKNOWN`: the request needs a device, and its token has none.
    #[error("this request needs a device")]
    NoDevice,
    /// 400 `M_APPSERVICE_LOGIN_UNSUPPORTED`
    #[error("{0}")]
    AppserviceLoginUnsupported(Cow<'static, str>),
    /// 400 `M_BAD_JSON`
    #[error("{0}")]
    BadJson(Cow<'static, str>),
    /// 405 `M_BAD_JSON`: the server manages this type itself.
    #[error("{0}")]
    ManagedByServer(Cow<'static, str>),
    /// 400 `M_MISSING_PARAM`
    #[error("{0}")]
    MissingParam(Cow<'static, str>),
    /// 400 `M_INVALID_PARAM`
    #[error("{0}")]
    InvalidParam(Cow<'static, str>),
    /// 400 `M_INVALID_SIGNATURE`
    #[error("{0}")]
    InvalidSignature(Cow<'static, str>),
    /// 413 `M_TOO_LARGE`
    #[error("{0}")]
    TooLarge(Cow<'static, str>),
    /// 400 `M_TOO_LARGE`: a limit on the number of something is reached.
    #[error("{0}")]
    TooMany(Cow<'static, str>),
    /// 400 `M_ROOM_IN_USE`
    #[error("this alias is taken")]
    RoomInUse,
    /// 400 `M_BAD_ALIAS`: the alias does not point to this room.
    #[error("{0} does not name this room")]
    BadAlias(String),
    /// 409 `M_UNKNOWN`: the alias exists already.
    #[error("this alias is taken")]
    AliasTaken,
    /// 400 `M_UNSUPPORTED_ROOM_VERSION`
    #[error("room version {0} is not supported")]
    UnsupportedRoomVersion(String),
    /// 400 `M_INVALID_ROOM_STATE`
    #[error("{0}")]
    InvalidRoomState(Cow<'static, str>),
    /// 400 `M_DUPLICATE_ANNOTATION`
    #[error("this annotation has been sent before")]
    DuplicateAnnotation,
    /// 403 `M_WRONG_ROOM_KEYS_VERSION`
    #[error("not the current backup version")]
    WrongBackupVersion {
        /// The current version.
        current: String,
    },
    /// 400 `M_URL_NOT_SET`
    #[error("the application service has no url")]
    UrlNotSet,
    /// 502 `M_BAD_STATUS`
    #[error("the application service answered {status}")]
    BadStatus {
        /// Its HTTP status.
        status: u16,
        /// The start of its body.
        body: String,
    },
    /// 502 `M_CONNECTION_FAILED`
    #[error("the application service cannot be reached: {0}")]
    ConnectionFailed(String),
    /// 504 `M_CONNECTION_TIMEOUT`
    #[error("the application service did not answer in time")]
    ConnectionTimeout,
    /// 429 `M_LIMIT_EXCEEDED`
    #[error("too many requests")]
    LimitExceeded {
        /// The time to wait before the next attempt, in milliseconds.
        retry_after_ms: u64,
    },
    /// 400 `M_KEY_TOO_LARGE`: the name of a profile field is too long.
    #[error("{0}")]
    KeyTooLarge(Cow<'static, str>),
    /// 400 `M_PROFILE_TOO_LARGE`
    #[error("{0}")]
    ProfileTooLarge(Cow<'static, str>),
    /// 401 with flows and a session: the user must confirm the request. ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api
    #[error("this request must be confirmed")]
    Unconfirmed(Challenge),
    /// 400 `M_UNKNOWN`
    #[error("{0}")]
    Unknown(Cow<'static, str>),
}

/// What a user must do to confirm a request; the body of the 401.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The session id to send when the request is repeated.
    pub session: String,
    /// The ways to confirm, each a list of stages.
    pub flows: Vec<Vec<&'static str>>,
    /// The completed stages, if the client named an open session.
    pub completed: Option<Vec<&'static str>>,
    /// Why the last stage failed, sent as `M_FORBIDDEN` with the flows; `None` if no stage was tried.
    pub failed: Option<&'static str>,
}
