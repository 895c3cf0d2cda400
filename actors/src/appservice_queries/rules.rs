//! Which appservices are asked about a user or an alias, what an answer means, and how long it is valid. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::services::{Interests, Service};

use ruma::{OwnedRoomAliasId, OwnedUserId, RoomAliasId, UserId};
use schema::ServiceId;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::messages::{Answer, Sharing, ThirdPartyKind};

/// The time-out of a question, and of all questions of one request together. A client waits meanwhile: long enough for an
/// appservice to create an account, a device and keys, shorter than the time-outs of clients. ([spec])
///
/// Deviation: the request goes on without what was not answered; the specification would retry, and answer 408.
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#querying
/// Clause: own.query.hanging
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// The most questions to one appservice under way. Further ones fail at once.
pub const UNDER_WAY: usize = 32;

/// The most questions of one request under way to one appservice, so that no request uses up [`UNDER_WAY`]. Further ones wait.
pub const AT_ONCE: usize = 8;

/// The most unknown users of one request that are asked about. More are likely to be guesses.
pub const NAMES: usize = 100;

/// How long it is assumed that something does not exist. A remote user may be created, and a person who tries again in a minute
/// should succeed.
const NO: Duration = Duration::from_secs(60);

/// How long a failure is cached, and a success after which the user or alias still does not exist: long enough to join many
/// requests.
const SHORTLY: Duration = Duration::from_secs(10);

/// How long it is assumed that an appservice does not know an endpoint. An update may add it.
const UNSUPPORTED: Duration = Duration::from_secs(10 * 60);

// ANCHOR: to_ask
/// The appservices to ask about a user who does not exist, in order: those with a user namespace that matches. ([spec])
///
/// If one claims the user exclusively, only it is asked, since no other could create the user. The appservice that sends the
/// request is not asked: it knows the answer, and would wait for itself. Clause: as.query.user
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#querying
pub fn to_ask_about_user(
    interests: &Interests,
    requester: Option<&ServiceId>,
    user: &UserId,
) -> Vec<ServiceId> {
    let claims = interests.in_user(user.as_str());
    let claims = claims.into_iter().map(|(s, c)| (s, c.is_exclusive()));
    to_ask(claims.collect(), requester)
}

/// The appservices to ask about an alias of this server, by the same rules. Clause: as.query.alias
pub fn to_ask_about_alias(
    interests: &Interests,
    requester: Option<&ServiceId>,
    alias: &RoomAliasId,
) -> Vec<ServiceId> {
    to_ask(interests.in_alias(alias.as_str()), requester)
}

fn to_ask(claims: Vec<(&Arc<Service>, bool)>, requester: Option<&ServiceId>) -> Vec<ServiceId> {
    let owned = claims.iter().any(|(_, exclusive)| *exclusive);
    claims
        .into_iter()
        .filter(|(_, exclusive)| *exclusive == owned)
        .map(|(service, _)| service)
        .filter(|service| service.is_reachable() && Some(&service.id) != requester)
        .map(|service| service.id.clone())
        .collect()
}
// ANCHOR_END: to_ask

/// The meaning of an HTTP answer. ([spec]) Clause: as.query.yes, as.query.no, as.query.unknown-route
///
/// `M_UNRECOGNIZED` means that the appservice does not know the endpoint. So does a 404 that is not a Matrix error, except
/// where a 404 is the expected answer: many appservices send one for "no such user" without a Matrix error.
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#unknown-routes
pub fn answer(sharing: Sharing, status: u16, body: String) -> Answer {
    #[derive(Deserialize)]
    struct MatrixError {
        errcode: String,
    }
    let errcode = || serde_json::from_str(&body).map_or(String::new(), |e: MatrixError| e.errcode);
    match status {
        200..300 => Answer::Yes(body.into()),
        405 => Answer::Unsupported,
        404 => match errcode().as_str() {
            "M_UNRECOGNIZED" => Answer::Unsupported,
            "" if sharing != Sharing::Remembered => Answer::Unsupported,
            _ => Answer::No,
        },
        _ => Answer::failed(format!("answered {status}")),
    }
}

/// How long an answer is cached; `None` if only the waiting requests get it.
pub fn remembered_for(sharing: Sharing, answer: &Answer) -> Option<Duration> {
    match (answer, sharing) {
        (Answer::Unsupported, _) => Some(UNSUPPORTED),
        (Answer::Failed(_), _) => Some(SHORTLY),
        // If the user or alias is asked about again, the appservice has not created it in spite of its answer.
        (Answer::Yes(_), Sharing::Remembered) => Some(SHORTLY),
        (Answer::No, Sharing::Remembered) => Some(NO),
        (Answer::Yes(_) | Answer::No, Sharing::Joined | Sharing::Alone) => None,
    }
}

/// The offered protocols, each with the appservices that offer it and have a URL. ([spec]) Clause: as.network.protocols
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#registration
pub fn offers(interests: &Interests) -> BTreeMap<String, Vec<ServiceId>> {
    let mut offers: BTreeMap<String, Vec<ServiceId>> = BTreeMap::new();
    for service in interests.services().iter().filter(|s| offers_any(s)) {
        let protocols: BTreeSet<_> = service.registration.protocols.iter().flatten().collect();
        for protocol in protocols {
            offers
                .entry(protocol.clone())
                .or_default()
                .push(service.id.clone());
        }
    }
    offers
}

fn offers_any(service: &Service) -> bool {
    let protocols = &service.registration.protocols;
    service.is_reachable() && protocols.as_ref().is_some_and(|p| !p.is_empty())
}

/// The appservices that may know the third-party identity of a user: those that claim the user and offer a protocol.
pub fn behind_user(interests: &Interests, user: &UserId) -> Vec<ServiceId> {
    let claims = interests.in_user(user.as_str()).into_iter();
    let offering = claims.filter(|(service, _)| offers_any(service));
    offering.map(|(service, _)| service.id.clone()).collect()
}

/// The appservices that may know the third-party location of an alias.
pub fn behind_alias(interests: &Interests, alias: &RoomAliasId) -> Vec<ServiceId> {
    let claims = interests.in_alias(alias.as_str()).into_iter();
    let offering = claims.filter(|(service, _)| offers_any(service));
    offering.map(|(service, _)| service.id.clone()).collect()
}

/// An appservice's description of a protocol, if it is valid, with its unknown fields. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#get_matrixappv1thirdpartyprotocolprotocol
pub fn description(json: &str) -> Option<Map<String, Value>> {
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is checked")]
    struct Shape {
        user_fields: Vec<String>,
        location_fields: Vec<String>,
        field_types: Map<String, Value>,
        instances: Vec<Map<String, Value>>,
    }
    serde_json::from_str::<Shape>(json).ok()?;
    serde_json::from_str(json).ok()
}

// ANCHOR: merge
/// Combine the descriptions of several appservices that offer one protocol: the first describes it, and each adds its
/// instances. ([spec]) Clause: as.network.merged
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyprotocols
pub fn add_description(network: &mut Map<String, Value>, mut more: Map<String, Value>) {
    if network.is_empty() {
        *network = more;
        return;
    }
    let (known, more) = (network.get_mut("instances"), more.get_mut("instances"));
    if let (Some(Value::Array(known)), Some(Value::Array(more))) = (known, more) {
        known.append(more);
    }
}

// ANCHOR_END: merge

/// The entries in an appservice's list of users or locations, with their original bytes; `None` if any is invalid. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#get_matrixappv1thirdpartyuserprotocol
pub fn entries(kind: ThirdPartyKind, json: &str) -> Option<Vec<Box<RawValue>>> {
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is checked")]
    struct User {
        userid: OwnedUserId,
        protocol: String,
        fields: Map<String, Value>,
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is checked")]
    struct Location {
        alias: OwnedRoomAliasId,
        protocol: String,
        fields: Map<String, Value>,
    }
    match kind {
        ThirdPartyKind::User => serde_json::from_str::<Vec<User>>(json).map(drop),
        ThirdPartyKind::Location => serde_json::from_str::<Vec<Location>>(json).map(drop),
    }
    .ok()?;
    serde_json::from_str(json).ok()
}

#[cfg(test)]
mod tests {
    use ruma::{room_alias_id, user_id};
    use serde_json::json;

    use crate::services::Proposals;

    use super::*;

    fn interests() -> Interests {
        let service = |id: &str, url: Option<&str>, namespaces: serde_json::Value| {
            let registration = json!({"id": id, "url": url, "as_token": id, "hs_token": id,
                "sender_localpart": format!("{id}bot"), "namespaces": namespaces});
            let registration = serde_json::from_value(registration).expect("a registration");
            (registration, true)
        };
        let of = |exclusive: bool, users: &str, aliases: &str| {
            json!({"users": [{"exclusive": exclusive, "regex": users}],
                "aliases": [{"exclusive": exclusive, "regex": aliases}]})
        };
        let url = Some("http://localhost:1");
        let all = vec![
            service("irc", url, of(true, "@irc_.*", "#irc_.*")),
            service("mirror", url, of(false, "@.*", "#.*")),
            service("open", url, of(false, "@open_.*", "#open_.*")),
            service("silent", None, of(true, "@silent_.*", "#silent_.*")),
        ];
        Interests::compile("test", all, &Proposals::default()).expect("patterns compile")
    }

    #[test]
    fn an_exclusive_owner_is_asked_alone_and_no_service_is_asked_by_itself() {
        let interests = interests();
        let cases: &[(&UserId, Option<&str>, &[&str])] = &[
            (user_id!("@irc_bob:test"), None, &["irc"]),
            (user_id!("@irc_bob:test"), Some("mirror"), &["irc"]),
            (user_id!("@irc_bob:test"), Some("irc"), &[]),
            (user_id!("@open_bob:test"), None, &["mirror", "open"]),
            (user_id!("@open_bob:test"), Some("mirror"), &["open"]),
            (user_id!("@silent_bob:test"), None, &[]),
            (user_id!("@alice:test"), None, &["mirror"]),
            (user_id!("@irc_bob:elsewhere"), None, &[]),
        ];
        for (user, requester, expected) in cases {
            let requester = requester.map(ServiceId::from);
            let asked = to_ask_about_user(&interests, requester.as_ref(), user);
            let asked: Vec<_> = asked.iter().map(ServiceId::as_str).collect();
            assert_eq!(asked, *expected, "{user} for {requester:?}");
        }
        let alias = room_alias_id!("#irc_rust:test");
        let asked = to_ask_about_alias(&interests, None, alias);
        assert_eq!(asked, [ServiceId::from("irc")]);
    }

    #[test]
    fn what_an_answer_means() {
        use Sharing::{Joined, Remembered};
        let unrecognised = r#"{"errcode":"M_UNRECOGNIZED"}"#;
        let unknown = r#"{"errcode":"M_NOT_FOUND"}"#;
        let cases = [
            (Remembered, 200, "{}", Answer::Yes("{}".into())),
            (Remembered, 204, "", Answer::Yes("".into())),
            (Remembered, 404, unknown, Answer::No),
            (Remembered, 404, "<h1>not found</h1>", Answer::No),
            (Remembered, 404, unrecognised, Answer::Unsupported),
            (Joined, 404, unknown, Answer::No),
            (Joined, 404, "Cannot GET /", Answer::Unsupported),
            (Joined, 405, unrecognised, Answer::Unsupported),
            (Joined, 301, "", Answer::failed("answered 301")),
            (Joined, 500, unrecognised, Answer::failed("answered 500")),
        ];
        for (sharing, status, body, expected) in cases {
            let got = answer(sharing, status, body.to_owned());
            assert_eq!(got, expected, "{status} {body}");
        }
    }

    #[test]
    fn descriptions_are_put_together_and_lists_are_checked() {
        let network = |name: &str| {
            let network = json!({"user_fields": ["nick"], "location_fields": [], "field_types": {},
                "instances": [{"network_id": name}], "of": name});
            description(&network.to_string()).expect("a description")
        };
        let mut both = Map::new();
        add_description(&mut both, network("one"));
        add_description(&mut both, network("two"));
        assert_eq!(both["of"], "one");
        assert_eq!(
            both["instances"],
            json!([{"network_id": "one"}, {"network_id": "two"}])
        );
        for wrong in ["{}", "[]", "null", "", r#"{"instances":[1]}"#] {
            assert!(description(wrong).is_none(), "{wrong}");
        }

        let user =
            r#"[{"userid":"@irc_bob:test","protocol":"irc","fields":{"nick":"bob"},"more":1.50}]"#;
        let location = r##"[{"alias":"#irc_rust:test","protocol":"irc","fields":{}}]"##;
        let raw = entries(ThirdPartyKind::User, user).expect("users");
        assert_eq!(raw[0].get(), &user[1..user.len() - 1], "as it came");
        let cases = [
            (ThirdPartyKind::Location, location, true),
            (ThirdPartyKind::User, "[]", true),
            (ThirdPartyKind::User, location, false),
            (ThirdPartyKind::Location, user, false),
            (
                ThirdPartyKind::User,
                r#"[{"userid":"bob","protocol":"irc","fields":{}}]"#,
                false,
            ),
            (
                ThirdPartyKind::User,
                r#"[{"userid":"@bob:test","protocol":"irc"}]"#,
                false,
            ),
            (ThirdPartyKind::User, "{}", false),
        ];
        for (kind, json, fits) in cases {
            assert_eq!(entries(kind, json).is_some(), fits, "{kind:?} {json}");
        }
    }
}
