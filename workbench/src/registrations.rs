//! The registrations of the bridges of scenarios: made for a homeserver, and compared with what a homeserver has.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::format::BridgeHead;
use crate::scenario::Scenario;

/// The namespaces of a registration.
const NAMESPACES: [&str; 3] = ["users", "aliases", "rooms"];

/// Keys that say how a homeserver and a bridge find each other. They may differ from those in a scenario.
const CHOSEN: [&str; 7] = [
    "id",
    "url",
    "as_token",
    "hs_token",
    "sender_localpart",
    "rate_limited",
    "namespaces",
];

/// The registration of a bridge.
#[must_use]
pub fn registration(id: &str, url: &str, bridge: &BridgeHead) -> Value {
    let default = vec![format!("@{id}_.*")];
    let of = |all: &[String], exclusive: bool| {
        let all = all
            .iter()
            .map(|regex| json!({"exclusive": exclusive, "regex": regex}));
        all.collect::<Vec<Value>>()
    };
    let mut users = of(bridge.users.as_ref().unwrap_or(&default), true);
    users.extend(of(&bridge.observes, false));
    let mut registration = json!({
        "id": id, "url": url, "as_token": format!("{id}-as-token"), "hs_token": format!("{id}-hs-token"),
        "sender_localpart": format!("{id}bot"), "rate_limited": false,
        "namespaces": {"users": users, "aliases": of(&bridge.aliases, true), "rooms": []},
        "receive_ephemeral": true, "org.matrix.msc3202": true, "io.element.msc4190": true,
    });
    for (key, value) in &bridge.registration {
        registration[key] = value.clone();
    }
    registration
}

/// One registration for each bridge of several scenarios, with the namespaces that any of them needs. The first bridge listens at
/// this address, each further one at the next port.
///
/// # Errors
/// If two scenarios need different registrations of the same bridge, or there are not enough ports.
pub fn merged<'a>(
    scenarios: impl IntoIterator<Item = &'a Scenario>,
    mut listen: SocketAddr,
) -> Result<BTreeMap<String, Value>, String> {
    let mut all: BTreeMap<String, Value> = BTreeMap::new();
    for scenario in scenarios {
        for (id, bridge) in &scenario.head.bridges {
            let wanted = registration(id, "", bridge);
            let Some(known) = all.get_mut(id) else {
                all.insert(id.clone(), wanted);
                continue;
            };
            if let Some(why) = lacks(known, &wanted, false) {
                return Err(format!(
                    "{}: {id}: in another scenario it {why}",
                    scenario.file.display()
                ));
            }
            for of in NAMESPACES {
                let of_all =
                    |registration: &Value| registration["namespaces"][of].as_array().cloned();
                let mut all = of_all(known).unwrap_or_default();
                let more = of_all(&wanted).unwrap_or_default();
                let more: Vec<Value> = more.into_iter().filter(|one| !all.contains(one)).collect();
                all.extend(more);
                known["namespaces"][of] = json!(all);
            }
        }
    }
    let (first, number) = (listen, all.len());
    for (i, registration) in all.values_mut().enumerate() {
        let port = u16::try_from(i).ok();
        let port = port
            .and_then(|i| first.port().checked_add(i))
            .ok_or_else(|| {
                format!("{first}: {number} bridges need a port each, and the last port is 65535")
            })?;
        listen.set_port(port);
        registration["url"] = json!(format!("http://{listen}"));
    }
    Ok(all)
}

/// What a registration lacks of another one, if it lacks something; its namespaces are compared if `whole`.
#[must_use]
pub fn lacks(present: &Value, wanted: &Value, whole: bool) -> Option<String> {
    let members = wanted.as_object().into_iter().flatten();
    for (key, wanted) in members.filter(|(key, _)| !CHOSEN.contains(&key.as_str())) {
        let present = match (key.as_str(), present.get(key)) {
            // The name before it was accepted.
            ("receive_ephemeral", None) => present.get("de.sorunome.msc2409.push_ephemeral"),
            (_, present) => present,
        };
        if present.unwrap_or(&json!(false)) != wanted {
            let present = present.map_or("nothing".to_owned(), Value::to_string);
            return Some(format!("has {present} for `{key}` and not {wanted}"));
        }
    }
    for of in NAMESPACES.into_iter().filter(|_| whole) {
        let known = expressions(present, of);
        let missing = expressions(wanted, of)
            .into_iter()
            .find(|regex| !known.contains(regex));
        if let Some(regex) = missing {
            return Some(format!("lacks the {of} {regex:?}"));
        }
    }
    None
}

/// The expressions of the users, aliases or rooms in a registration.
fn expressions<'a>(registration: &'a Value, of: &str) -> Vec<&'a str> {
    let all = registration["namespaces"][of].as_array();
    all.into_iter()
        .flatten()
        .filter_map(|one| one["regex"].as_str())
        .collect()
}

/// Why a bridge of a scenario cannot listen for a homeserver that has this registration.
///
/// # Errors
/// If a key is missing, or the address is not of the form `http://HOST:PORT`.
pub fn check(registration: &Value) -> Result<(), String> {
    for key in ["id", "as_token", "hs_token", "sender_localpart"] {
        if registration[key].as_str().is_none_or(str::is_empty) {
            return Err(format!("a registration has `{key}`"));
        }
    }
    let url = registration["url"].as_str().unwrap_or_default();
    let address = url
        .strip_prefix("http://")
        .unwrap_or_default()
        .trim_end_matches('/');
    match address.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => Ok(()),
        _ => Err(format!(
            "the url is {url:?}; the bridge of a scenario listens at http://HOST:PORT"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn scenario(bridges: &str) -> Scenario {
        let text = format!("title: x\nbridges: {bridges}\nsteps:\n- irc: is sent nothing more\n");
        Scenario::parse(Path::new("x.yaml"), &text).expect("a scenario")
    }

    #[test]
    fn several_scenarios_have_one_registration_of_a_bridge() {
        let (one, two) = (
            scenario("{irc: {aliases: ['#a']}}"),
            scenario("{irc: {}, mirror: {observes: ['@b']}}"),
        );
        let listen = "127.0.0.1:9900".parse().expect("an address");
        let all = merged([&one, &two], listen).expect("they agree");
        assert_eq!(all["irc"]["url"], "http://127.0.0.1:9900");
        assert_eq!(all["mirror"]["url"], "http://127.0.0.1:9901");
        assert_eq!(expressions(&all["irc"], "aliases"), ["#a"]);
        let last = "127.0.0.1:65535".parse().expect("an address");
        assert!(merged([&scenario("{irc: {}}")], last).is_ok());
        assert_eq!(
            merged([&two], last),
            Err(
                "127.0.0.1:65535: 2 bridges need a port each, and the last port is 65535"
                    .to_owned()
            )
        );
        let other = scenario("{irc: {registration: {org.matrix.msc3202: false}}}");
        let why = merged([&one, &other], listen).expect_err("they differ");
        assert_eq!(
            why,
            "x.yaml: irc: in another scenario it has true for `org.matrix.msc3202` and not false"
        );
    }

    #[test]
    fn what_a_registration_lacks_is_named() {
        let wanted = registration("irc", "", &BridgeHead::default());
        let mut present = wanted.clone();
        assert_eq!(lacks(&present, &wanted, true), None);
        present["namespaces"]["users"] = json!([]);
        assert_eq!(
            lacks(&present, &wanted, true).as_deref(),
            Some("lacks the users \"@irc_.*\"")
        );
        present["io.element.msc4190"] = Value::Null;
        let why = lacks(&present, &wanted, true);
        assert_eq!(
            why.as_deref(),
            Some("has null for `io.element.msc4190` and not true")
        );
        assert_eq!(
            check(&wanted),
            Err("the url is \"\"; the bridge of a scenario listens at http://HOST:PORT".to_owned())
        );
    }
}
