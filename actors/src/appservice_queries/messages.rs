//! What may be said to the actor that puts questions to services.

use std::sync::Arc;

use actix::Message;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ruma::{RoomAliasId, UserId};
use schema::ServiceId;
use serde::{Serialize, Serializer};
use tokio::sync::oneshot;

use crate::runtime::trace::Busy;

/// What stands for itself in a segment of a path; `@` and `:` do, so that a user id stays readable in the service's log.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'@')
    .remove(b':');

/// A question to a service: one HTTP request towards it, `POST` with a body and `GET` without.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question {
    /// Where the path begins, from `/_matrix` on. A service that does not know it is not asked there again for a while.
    pub endpoint: &'static str,
    /// What follows, percent-encoded: more segments of the path, a query. Often empty where there is a body.
    pub rest: String,
    /// The JSON to post.
    pub body: Option<String>,
    /// Whom its answer serves.
    pub sharing: Sharing,
}

/// Whom the answer to a question serves. That there was none is remembered for a moment in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sharing {
    /// It says whether something exists: everybody who asks meanwhile, and for a while afterwards.
    Remembered,
    /// Everybody who asks the same while the request is under way; afterwards the service is asked anew.
    Joined,
    /// Only who asked: what it holds can be used once.
    Alone,
}

impl Question {
    /// Does this user exist, and if not, will you make it? ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/application-service-api/#get_matrixappv1usersuserid
    #[must_use]
    pub fn user(user: &UserId) -> Question {
        Question::existence("/_matrix/app/v1/users/", user.as_str())
    }

    /// Does this alias exist, and if not, will you make it and its room? ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/application-service-api/#get_matrixappv1roomsroomalias
    #[must_use]
    pub fn alias(alias: &RoomAliasId) -> Question {
        Question::existence("/_matrix/app/v1/rooms/", alias.as_str())
    }

    /// What is this network called, and what has a user or a room there? ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/application-service-api/#get_matrixappv1thirdpartyprotocolprotocol
    #[must_use]
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

    /// A look-up: `segment` follows the endpoint, then the query.
    #[must_use]
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

    /// A question that posts this JSON.
    #[must_use]
    pub fn post(endpoint: &'static str, body: String, sharing: Sharing) -> Question {
        Question {
            endpoint,
            rest: String::new(),
            body: Some(body),
            sharing,
        }
    }

    /// The whole path, with its query.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}{}", self.endpoint, self.rest)
    }
}

/// In a trace it looks like the request that it is: `GET /_matrix/app/v1/users/@irc_bob:example.org`.
impl Serialize for Question {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.body {
            None => serializer.collect_str(&format_args!("GET {}", self.path())),
            Some(body) => serializer.collect_str(&format_args!("POST {} {body}", self.path())),
        }
    }
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Answer {
    /// A 2xx, and its whole body: not necessarily JSON.
    Yes(Arc<str>),
    /// What was asked about does not exist.
    No,
    /// The service does not know the endpoint.
    Unsupported,
    /// None, and why: no time, no connection, an error, or more under way than the service may be asked at once.
    Failed(Arc<str>),
}

impl Answer {
    pub(crate) fn failed(why: impl Into<Arc<str>>) -> Answer {
        Answer::Failed(why.into())
    }
}

/// Put a question to a service, once for everybody who asks it meanwhile.
///
/// Replies at once, with the answer where it is remembered and else with what will bring it. Never refused: a service that is
/// not there, has no `url` or is asked too much at once has not answered.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "crate::Result<Pending>")]
pub struct Ask {
    /// Whom.
    pub service: ServiceId,
    /// What.
    pub question: Question,
}

/// An answer that is there or under way.
#[derive(Debug)]
pub enum Pending {
    /// It is remembered.
    Known(Answer),
    /// It will come.
    Asked(oneshot::Receiver<Told>),
}

/// An answer on its way to who asked: something is under way until it has arrived.
pub struct Told(
    pub(super) Answer,
    #[expect(dead_code, reason = "a guard")] pub(super) Busy,
);

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Pending {
    /// The answer, when it is there.
    pub async fn answer(self) -> Answer {
        match self {
            Pending::Known(answer) => answer,
            Pending::Asked(told) => told
                .await
                .map_or_else(|_| Answer::failed("the server stops"), |told| told.0),
        }
    }
}

/// What came of a question, as a development server records it among the messages.
#[derive(Debug, Clone, Serialize)]
pub struct Answered {
    /// Which service was asked.
    pub service: ServiceId,
    /// What.
    pub question: Question,
    /// How many had asked by then.
    pub askers: usize,
    /// What it said.
    pub answer: Answer,
}

/// What kind of thing is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// People.
    User,
    /// Rooms.
    Location,
}

impl Kind {
    pub(super) fn endpoint(self) -> &'static str {
        match self {
            Kind::User => "/_matrix/app/v1/thirdparty/user/",
            Kind::Location => "/_matrix/app/v1/thirdparty/location/",
        }
    }

    pub(super) fn reverse(self) -> &'static str {
        self.endpoint().trim_end_matches('/')
    }
}
