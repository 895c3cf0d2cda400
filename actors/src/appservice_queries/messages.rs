//! Messages to the actor that sends queries to appservices.

use std::sync::Arc;

use actix::Message;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ruma::{RoomAliasId, UserId};
use schema::ServiceId;
use serde::{Serialize, Serializer};
use tokio::sync::oneshot;

use crate::runtime::trace::Busy;

/// Characters that are not percent-encoded in a path segment. `@` and `:` are among them, so that a user id stays readable in
/// the appservice's log.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'@')
    .remove(b':');

/// A query to an appservice: one HTTP request, `POST` with a body or `GET` without.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question {
    /// The start of the path, from `/_matrix` on. If the appservice does not know the endpoint, no request is sent there for a
    /// while.
    pub endpoint: &'static str,
    /// The percent-encoded rest of the path, and the query string. Often empty if there is a body.
    pub rest: String,
    /// The JSON body to post.
    pub body: Option<String>,
    /// Which other requests get the answer to this question.
    pub sharing: Sharing,
}

/// Which other requests get the answer to a question. A missing answer is cached for a moment in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sharing {
    /// All requests with the same question, and later ones for a while: the answer says whether something exists.
    Remembered,
    /// Requests with the same question while it is under way. Later ones send it again.
    Joined,
    /// Only the request that asked: the answer can be used once.
    Alone,
}

impl Question {
    /// Whether a user exists; the appservice may create it. ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/application-service-api/#get_matrixappv1usersuserid
    pub fn user(user: &UserId) -> Question {
        Question::existence("/_matrix/app/v1/users/", user.as_str())
    }

    /// Whether an alias exists; the appservice may create it and its room. ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/application-service-api/#get_matrixappv1roomsroomalias
    pub fn alias(alias: &RoomAliasId) -> Question {
        Question::existence("/_matrix/app/v1/rooms/", alias.as_str())
    }

    /// The description of a third-party protocol, and the fields of its users and rooms. ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/application-service-api/#get_matrixappv1thirdpartyprotocolprotocol
    pub fn protocol(protocol: &str) -> Question {
        Question::existence("/_matrix/app/v1/thirdparty/protocol/", protocol)
    }

    fn existence(endpoint: &'static str, id: &str) -> Question {
        Question {
            endpoint,
            rest: utf8_percent_encode(id, SEGMENT).to_string(),
            body: None,
            sharing: Sharing::Remembered,
        }
    }

    /// A look-up. The path is the endpoint and `segment`, followed by the query.
    pub fn look_up<'a>(
        endpoint: &'static str,
        segment: &str,
        query: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Question {
        let mut rest = utf8_percent_encode(segment, SEGMENT).to_string();
        for (i, (name, value)) in query.into_iter().enumerate() {
            rest.push(if i == 0 { '?' } else { '&' });
            rest.extend(utf8_percent_encode(name, SEGMENT));
            rest.push('=');
            rest.extend(utf8_percent_encode(value, SEGMENT));
        }
        Question {
            endpoint,
            rest,
            body: None,
            sharing: Sharing::Joined,
        }
    }

    /// A question with a JSON body.
    pub fn post(endpoint: &'static str, body: String, sharing: Sharing) -> Question {
        Question {
            endpoint,
            rest: String::new(),
            body: Some(body),
            sharing,
        }
    }

    /// The whole path with its query string.
    pub fn path(&self) -> String {
        format!("{}{}", self.endpoint, self.rest)
    }
}

/// Serialized for the trace as the request: `GET /_matrix/app/v1/users/@irc_bob:example.org`.
impl Serialize for Question {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.body {
            None => serializer.collect_str(&format_args!("GET {}", self.path())),
            Some(body) => serializer.collect_str(&format_args!("POST {} {body}", self.path())),
        }
    }
}

/// The result of a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Answer {
    /// A 2xx with its whole body, which need not be JSON.
    Yes(Arc<str>),
    /// The user, alias or other thing does not exist.
    No,
    /// The appservice does not know the endpoint.
    Unsupported,
    /// There is no answer, for this reason: a time-out, no connection, an error, or too many requests under way to the
    /// appservice.
    Failed(Arc<str>),
}

impl Answer {
    pub(crate) fn failed(why: impl Into<Arc<str>>) -> Answer {
        Answer::Failed(why.into())
    }
}

/// Send a [`Question`] to an appservice, once for all requests that send it at the same time.
///
/// Replies at once, with the answer if it is cached and else with a future of it. Never an error: an appservice that is not
/// registered, has no `url` or has too many requests under way gives the answer [`Answer::Failed`].
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "crate::Result<PendingAnswer>")]
pub struct Ask {
    /// The appservice.
    pub service: ServiceId,
    /// The question.
    pub question: Question,
}

/// An answer, or a future of it.
#[derive(Debug)]
pub enum PendingAnswer {
    /// The cached answer.
    Known(Answer),
    /// The answer will be sent on this channel.
    Asked(oneshot::Receiver<Delivered>),
}

/// An answer on its way to the caller. It counts as work under way until it arrives.
pub struct Delivered(
    pub(super) Answer,
    #[expect(dead_code, reason = "a guard")] pub(super) Busy,
);

impl std::fmt::Debug for Delivered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl PendingAnswer {
    /// The answer, once it is there.
    pub async fn answer(self) -> Answer {
        match self {
            PendingAnswer::Known(answer) => answer,
            PendingAnswer::Asked(receiver) => receiver.await.map_or_else(
                |_| Answer::failed("the server is shutting down"),
                |delivered| delivered.0,
            ),
        }
    }
}

/// The result of a [`Question`], as a development server records it in the trace.
#[derive(Debug, Clone, Serialize)]
pub struct Answered {
    /// The appservice.
    pub service: ServiceId,
    /// The question.
    pub question: Question,
    /// The number of requests that waited for the answer.
    pub askers: usize,
    /// The answer.
    pub answer: Answer,
}

/// What is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThirdPartyKind {
    /// Users.
    User,
    /// Rooms.
    Location,
}

impl ThirdPartyKind {
    pub(super) fn endpoint(self) -> &'static str {
        match self {
            ThirdPartyKind::User => "/_matrix/app/v1/thirdparty/user/",
            ThirdPartyKind::Location => "/_matrix/app/v1/thirdparty/location/",
        }
    }

    pub(super) fn reverse(self) -> &'static str {
        self.endpoint().trim_end_matches('/')
    }
}
