//! The types of a scenario file. `spec-notes/src/scenarios.md` explains the format to its users.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::sentence;

/// The head of a scenario: everything but its steps.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// What the scenario shows, as a sentence.
    pub title: String,
    /// The clauses that it exercises: ids of `spec-notes/clauses.toml`, or addresses.
    #[serde(default)]
    pub spec: Vec<String>,
    /// The proposals that the server must have switched on, besides its usual ones.
    #[serde(default)]
    pub mscs: Vec<u16>,
    /// What a homeserver must have, so that the scenario is played on it and not skipped.
    #[serde(default)]
    pub needs: Needs,
    /// The people, by name.
    #[serde(default)]
    pub people: BTreeMap<String, PersonHead>,
    /// The bridges, by id.
    #[serde(default)]
    pub bridges: BTreeMap<String, BridgeHead>,
    /// The steps, each still untyped.
    pub steps: Vec<serde_yaml_ng::Value>,
}

/// What a homeserver must have.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Needs {
    /// Names in the answer to `GET /_matrix/client/versions`: flags in `unstable_features` that must be `true`, or versions of the
    /// specification.
    pub versions: Vec<String>,
}

/// A person.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PersonHead {
    /// The id of the first device; the name in capitals if it is not given.
    pub device: Option<String>,
}

/// A bridge.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BridgeHead {
    /// Regular expressions of the users that are the bridge's alone; `@{id}_.*` if it is not given.
    pub users: Option<Vec<String>>,
    /// Regular expressions of the users of others that concern the bridge.
    pub observes: Vec<String>,
    /// Regular expressions of the room aliases that are the bridge's alone.
    pub aliases: Vec<String>,
    /// Further keys of the registration, or other values for the usual ones.
    pub registration: Map<String, Value>,
    /// Whether the bridge is added only by a step.
    pub late: bool,
}

/// A step.
#[derive(Debug, Clone)]
pub enum Step {
    /// `alice: joins !r`.
    Deed(String, String),
    /// A request.
    Request(Request),
    /// A message to a device.
    ToDevice(ToDevice),
    /// An event.
    Event(Event),
    /// An encrypted message to a device.
    Olm(Olm),
    /// An encrypted message that a device has received.
    Decrypted(Decrypted),
    /// A `/sync`, and what it answers.
    Sync(Sync),
    /// The answer to a `/sync` that has waited.
    SyncEnds(SyncEnds),
    /// Another registration of a bridge.
    Registration(Registration),
    /// The next transaction of a bridge.
    Transaction(Transaction),
    /// What is in the transactions of a bridge.
    Receives(Receives),
    /// How a bridge answers requests other than transactions.
    Answer(Answer),
    /// A request other than a transaction that a bridge received.
    Asked(Asked),
    /// A captured value, and what it must be.
    Check(Check),
    /// Time passes.
    Wait(Duration),
    /// `server: is killed` or `is restarted`.
    Server(ServerDeed),
}

/// What happens to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerDeed {
    /// It is killed and started again.
    IsKilled,
    /// It is stopped and started again.
    IsRestarted,
}

/// A request of a client.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Request {
    /// The client; `anonymous` for a request without a token.
    pub by: String,
    /// The path of a `GET`.
    pub get: Option<String>,
    /// The path of a `PUT`.
    pub put: Option<String>,
    /// The path of a `POST`.
    pub post: Option<String>,
    /// The path of a `DELETE`.
    pub delete: Option<String>,
    /// The body.
    pub body: Option<Value>,
    /// What is expected of the answer; a 2xx if it is not given.
    pub expect: Expected,
    /// Values of the answer's body that later steps use: a name and a JSON pointer.
    pub capture: BTreeMap<String, String>,
}

/// What is expected of an answer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expected {
    /// The HTTP status; any 2xx if it is not given.
    pub status: Option<u16>,
    /// The body.
    #[serde(deserialize_with = "given")]
    pub body: Option<Value>,
}

/// An expectation that is written, even if it is empty.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Request {
    /// The method and the path.
    ///
    /// # Errors
    /// If there is not exactly one of `get`, `put`, `post` and `delete`.
    pub fn line(&self) -> Result<(&'static str, &str), String> {
        let given = [
            ("GET", &self.get),
            ("PUT", &self.put),
            ("POST", &self.post),
            ("DELETE", &self.delete),
        ];
        let mut given = given
            .into_iter()
            .filter_map(|(method, path)| path.as_deref().map(|path| (method, path)));
        match (given.next(), given.next()) {
            (Some((_, path)), None) if !path.starts_with('/') => {
                Err(format!("the path {path:?} does not begin with /"))
            }
            (Some(line), None) => Ok(line),
            _ => Err("a request has exactly one of get, put, post and delete".to_owned()),
        }
    }
}

/// A message to a device.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToDevice {
    /// The client that sends it.
    pub by: String,
    /// The user.
    pub to: String,
    /// The device, or `*`.
    pub device: String,
    /// The type of the event.
    #[serde(rename = "type", default = "example")]
    pub kind: String,
    /// The content.
    #[serde(default)]
    pub content: Map<String, Value>,
}

fn example() -> String {
    "m.example".to_owned()
}

/// An encrypted message to a device.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Olm {
    /// The client that sends it.
    pub by: String,
    /// The user.
    pub to: String,
    /// The device.
    pub device: String,
    /// The type that is encrypted.
    #[serde(rename = "type")]
    pub kind: String,
    /// The content that is encrypted.
    #[serde(default)]
    pub content: Map<String, Value>,
}

/// An encrypted message that a device has received.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decrypted {
    /// The client whose device decrypts it.
    pub by: String,
    /// The user who sent it.
    pub from: String,
    /// The type that was encrypted.
    #[serde(rename = "type")]
    pub kind: String,
    /// What is expected of the content that was encrypted.
    #[serde(default, deserialize_with = "given")]
    pub content: Option<Value>,
    /// Values of what was encrypted that later steps use: a name and a JSON pointer, such as `/content/body`.
    #[serde(default)]
    pub capture: BTreeMap<String, String>,
    /// How long to wait for it.
    #[serde(default)]
    pub within: Within,
}

/// An event in a room.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// The client that sends it.
    pub by: String,
    /// The room.
    pub room: String,
    /// The type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The state key of a state event.
    pub state_key: Option<String>,
    /// The content.
    #[serde(default)]
    pub content: Map<String, Value>,
    /// The name under which the event's id is captured.
    pub capture: Option<String>,
}

/// A `/sync`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sync {
    /// The client.
    pub by: String,
    /// Whether to begin without a `since`.
    #[serde(default)]
    pub from_start: bool,
    /// What is expected of the answer.
    #[serde(default, deserialize_with = "given")]
    pub expect: Option<Value>,
    /// Values of the answer that later steps use: a name and a JSON pointer.
    #[serde(default)]
    pub capture: BTreeMap<String, String>,
    /// How long to wait for such an answer.
    #[serde(default)]
    pub within: Within,
}

/// The answer to a `/sync` that has waited.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncEnds {
    /// The client.
    pub by: String,
    /// What is expected of the answer.
    #[serde(default, deserialize_with = "given")]
    pub expect: Option<Value>,
    /// Values of the answer that later steps use: a name and a JSON pointer.
    #[serde(default)]
    pub capture: BTreeMap<String, String>,
    /// How long to wait for the answer.
    #[serde(default)]
    pub within: Within,
}

/// Another registration of a bridge.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// The bridge.
    pub bridge: String,
    /// The members that have other values from now on.
    pub members: Map<String, Value>,
}

/// A transaction of a bridge.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transaction {
    /// The bridge.
    pub to: String,
    /// What is expected of the body. Sections can be named as they are once accepted, whatever the names on the wire.
    #[serde(default, deserialize_with = "given")]
    pub body: Option<Value>,
    /// Whether earlier transactions that do not match are passed over.
    #[serde(default)]
    pub later: bool,
    /// Whether it must be the one before once more, byte for byte.
    #[serde(default)]
    pub repeated: bool,
    /// The status with which the bridge answered.
    pub answered: Option<u16>,
    /// Values of the body that later steps use: a name and a JSON pointer.
    #[serde(default)]
    pub capture: BTreeMap<String, String>,
    /// How long to wait for it.
    #[serde(default)]
    pub within: Within,
}

/// What is in the transactions of a bridge, however the server divides it among them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Receives {
    /// The bridge.
    pub bridge: String,
    /// To-device messages.
    pub to_device: Vec<Value>,
    /// Events.
    pub events: Vec<Value>,
    /// Ephemeral events.
    pub ephemeral: Vec<Value>,
    /// Users whose devices changed.
    pub changed: Vec<Value>,
    /// Users whose devices need not be tracked any more.
    pub left: Vec<Value>,
    /// Whether the order does not matter.
    pub in_any_order: bool,
    /// How long to wait for them.
    pub within: Within,
}

impl Receives {
    /// The items by section.
    #[must_use]
    pub fn items(&self) -> [(&'static str, &[Value]); 5] {
        [
            ("to_device", self.to_device.as_slice()),
            ("events", self.events.as_slice()),
            ("ephemeral", self.ephemeral.as_slice()),
            ("changed", self.changed.as_slice()),
            ("left", self.left.as_slice()),
        ]
    }
}

/// How a bridge answers requests other than transactions.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The bridge.
    pub bridge: String,
    /// Method and path; `*` stands for one or more characters.
    pub to: String,
    /// The status.
    #[serde(default = "ok")]
    pub status: u16,
    /// The body.
    #[serde(default)]
    pub body: Map<String, Value>,
    /// Requests that the bridge makes before it answers.
    #[serde(default)]
    pub first: Vec<Request>,
}

fn ok() -> u16 {
    200
}

/// A request other than a transaction that a bridge received.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The bridge.
    pub bridge: String,
    /// Method and path, `*` stands for one or more characters.
    pub request: String,
    /// What is expected of the body.
    #[serde(default, deserialize_with = "given")]
    pub body: Option<Value>,
    /// How often it came; at least once if it is not given.
    pub times: Option<usize>,
    /// How long to wait for it.
    #[serde(default)]
    pub within: Within,
}

/// A value, and what it must be.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The value.
    pub value: Value,
    /// What is expected of it.
    pub is: Value,
}

/// How long to wait for something on a server that cannot say that nothing more will come.
#[derive(Debug, Clone, Copy)]
pub struct Within(pub Duration);

impl Default for Within {
    fn default() -> Within {
        Within(Duration::from_secs(5))
    }
}

impl<'de> Deserialize<'de> for Within {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Within, D::Error> {
        time(String::deserialize(deserializer)?).map(Within)
    }
}

fn time<E: serde::de::Error>(text: String) -> Result<Duration, E> {
    sentence::duration(&text).map_err(E::custom)
}

/// The keys of the steps that are no sentences.
pub const KEYS: [&str; 15] = [
    "request",
    "to_device",
    "olm",
    "decrypted",
    "event",
    "sync",
    "sync_ends",
    "transaction",
    "receives",
    "answer",
    "asked",
    "check",
    "wait",
    "registration",
    "server",
];

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Step, D::Error> {
        deserializer.deserialize_map(OneKey)
    }
}

/// Reads a step: a map with one key.
struct OneKey;

impl<'de> Visitor<'de> for OneKey {
    type Value = Step;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a step: one of `NAME: sentence`")?;
        KEYS.iter().try_for_each(|key| write!(f, ", `{key}: …`"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Step, A::Error> {
        let key: String = map
            .next_key()?
            .ok_or_else(|| A::Error::custom("an empty step"))?;
        let step = match key.as_str() {
            "request" => Step::Request(map.next_value()?),
            "to_device" => Step::ToDevice(map.next_value()?),
            "olm" => Step::Olm(map.next_value()?),
            "decrypted" => Step::Decrypted(map.next_value()?),
            "event" => Step::Event(map.next_value()?),
            "sync" => Step::Sync(map.next_value()?),
            "sync_ends" => Step::SyncEnds(map.next_value()?),
            "registration" => Step::Registration(map.next_value()?),
            "transaction" => Step::Transaction(map.next_value()?),
            "receives" => Step::Receives(map.next_value()?),
            "answer" => Step::Answer(map.next_value()?),
            "asked" => Step::Asked(map.next_value()?),
            "check" => Step::Check(map.next_value()?),
            "wait" => Step::Wait(time(map.next_value()?)?),
            "server" => Step::Server(match map.next_value::<String>()?.as_str() {
                "is killed" => ServerDeed::IsKilled,
                "is restarted" => ServerDeed::IsRestarted,
                other => {
                    let known = "known: is killed | is restarted";
                    return Err(A::Error::custom(format!(
                        "unknown sentence {other:?}; {known}"
                    )));
                }
            }),
            _ => {
                let value: Value = map.next_value()?;
                let Value::String(sentence) = value else {
                    return Err(A::Error::custom(format!(
                        "unknown step {key:?}; known: NAME: sentence | {}",
                        KEYS.join(" | ")
                    )));
                };
                Step::Deed(key, sentence)
            }
        };
        match map.next_key::<String>()? {
            None => Ok(step),
            Some(more) => Err(A::Error::custom(format!(
                "a step has one key; {more:?} belongs to the next step, or deeper"
            ))),
        }
    }
}
