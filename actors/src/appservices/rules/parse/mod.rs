//! Parses a registration file. Files from old generators are accepted where they are unambiguous; otherwise the file is refused
//! with a message of one line.

use schema::ServiceId;
use serde::Deserialize;
use serde_json::{Map, Value};
use serde_yaml_ng::Value as Yaml;

use crate::services::{
    MSC3202, MSC4190, PUSH_EPHEMERAL, RECEIVE_EPHEMERAL, Registration, check_pattern,
};

/// Why a file is not a valid registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// One line that says what is wrong and, for a syntax error, where.
    pub why: String,
    /// The id of the appservice in the file, as far as it can be read.
    pub id: Option<ServiceId>,
}

impl Broken {
    /// A file that cannot be read at all.
    pub fn unreadable(why: impl Into<String>) -> Broken {
        let why = why.into();
        Broken { why, id: None }
    }
}

/// Boolean keys; `null` means false.
const FLAGS: [&str; 4] = [RECEIVE_EPHEMERAL, PUSH_EPHEMERAL, MSC3202, MSC4190];

/// The prefix of experiments' keys, which are boolean too.
const EXPERIMENTS: &str = "org.understudy.";

/// The only key of a registration file that this server adds and whose value is not a boolean: the policy for key counts.
const COUNTS: &str = "org.understudy.counts";

/// Keys whose value is a string even if it looks like something else: `0123` is not a number here.
#[derive(Deserialize)]
struct Texts {
    id: Option<String>,
    as_token: Option<String>,
    hs_token: Option<String>,
    sender_localpart: Option<String>,
}

/// Parse a registration file.
///
/// # Errors
/// A sentence that says what is wrong and, for a syntax error, where.
pub fn parse(text: &str) -> Result<Registration, String> {
    read(text).map_err(|broken| broken.why)
}

/// Parse a registration file.
///
/// # Errors
/// What is wrong with it, and the id of the appservice if it can be read.
pub(crate) fn read(text: &str) -> Result<Registration, Broken> {
    registration(text).map_err(|why| Broken {
        why: why.replace('\n', " "),
        id: id_in(text),
    })
}

/// Clause: as.registration.keys
fn registration(text: &str) -> Result<Registration, String> {
    if text.trim().is_empty() {
        return Err("the file is empty".to_owned());
    }
    let value: Yaml = serde_yaml_ng::from_str(text).map_err(|e| {
        let why = e.to_string();
        let is_number = why.contains("128");
        why + if is_number {
            "; put a string in quotes"
        } else {
            ""
        }
    })?;
    let Value::Object(mut keys) = json(value) else {
        return Err("a registration is a map of keys: id, url, as_token and so on".to_owned());
    };
    texts(text, &mut keys)?;
    url(&mut keys)?;
    for key in FLAGS {
        flag(&mut keys, key)?;
    }
    let experiments = keys
        .keys()
        .filter(|key| key.starts_with(EXPERIMENTS) && *key != COUNTS);
    for key in Vec::from_iter(experiments.cloned()) {
        flag(&mut keys, &key)?;
    }
    flag(&mut keys, "rate_limited")?;
    namespaces(&mut keys)?;
    if let Some(Value::String(one)) = keys.get("protocols") {
        let one = vec![Value::from(one.as_str())];
        keys.insert("protocols".to_owned(), one.into());
    }
    let registration = serde_json::from_value(Value::Object(keys)).map_err(|e| e.to_string())?;
    check(&registration)?;
    Ok(registration)
}

/// Convert YAML to JSON. Tags, which old generators in Python write, are ignored.
fn json(value: Yaml) -> Value {
    match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(b) => b.into(),
        Yaml::Number(n) => serde_json::to_value(n).unwrap_or_default(),
        Yaml::String(s) => s.into(),
        Yaml::Sequence(items) => items.into_iter().map(json).collect(),
        Yaml::Mapping(map) => {
            let keys = map.into_iter().filter_map(|(key, value)| match json(key) {
                Value::String(key) => Some((key, json(value))),
                Value::Null | Value::Array(_) | Value::Object(_) => None,
                other => Some((other.to_string(), json(value))),
            });
            Value::Object(keys.collect())
        }
        Yaml::Tagged(tagged) => json(tagged.value),
    }
}

/// Take the values of string keys from the text of the file, so that a number stays as it is written.
fn texts(text: &str, keys: &mut Map<String, Value>) -> Result<(), String> {
    let read: Option<Texts> = serde_yaml_ng::from_str(text).ok();
    let as_written = read.map_or([None, None, None, None], |t| {
        [t.id, t.as_token, t.hs_token, t.sender_localpart]
    });
    let names = ["id", "as_token", "hs_token", "sender_localpart"];
    for (name, written) in names.into_iter().zip(as_written) {
        match (keys.get(name), written) {
            (None | Some(Value::Null), _) => return Err(format!("missing field `{name}`")),
            (Some(Value::String(_)), _) => {}
            (Some(Value::Number(_) | Value::Bool(_)), Some(written)) => {
                keys.insert(name.to_owned(), written.into());
            }
            (Some(_), _) => return Err(format!("{name} must be a string")),
        }
    }
    Ok(())
}

/// Check the URL. The key must be present. Old generators write an empty string for an appservice without URL.
/// Clause: as.registration.url-null
fn url(keys: &mut Map<String, Value>) -> Result<(), String> {
    let url = match keys.get("url") {
        None => {
            let why =
                "missing field `url`: write `url: null` if nothing is to be sent to the service";
            return Err(why.to_owned());
        }
        Some(Value::Null) => Value::Null,
        Some(Value::String(url)) => match url.trim() {
            "" => Value::Null,
            url => url.into(),
        },
        Some(other) => return Err(format!("url {other} must be a string or null")),
    };
    keys.insert("url".to_owned(), url);
    Ok(())
}

/// Convert `yes`, `no`, `on` and `off`, which are strings in YAML 1.2 and booleans in older versions.
fn flag(keys: &mut Map<String, Value>, name: &str) -> Result<(), String> {
    let Some(value) = keys.get(name) else {
        return Ok(());
    };
    match yes_or_no(value) {
        Some(value) => keys.insert(name.to_owned(), value.into()),
        None if value.is_null() => keys.remove(name),
        None => return Err(format!("{name} must be true or false, not {value}")),
    };
    Ok(())
}

fn yes_or_no(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// A list that is `null` or missing is empty. So are namespaces that are `null`, or `[]`, as PHP writes an empty map.
fn namespaces(keys: &mut Map<String, Value>) -> Result<(), String> {
    let mut spaces = match keys.remove("namespaces") {
        None => return Err("missing field `namespaces`".to_owned()),
        Some(Value::Null) => Map::new(),
        Some(Value::Array(list)) if list.is_empty() => Map::new(),
        Some(Value::Object(spaces)) => spaces,
        Some(_) => return Err("namespaces must be a map of users, aliases and rooms".to_owned()),
    };
    for name in ["users", "aliases", "rooms"] {
        match spaces.get_mut(name) {
            None => {}
            Some(Value::Null) => drop(spaces.remove(name)),
            Some(Value::Array(list)) => {
                for pattern in list {
                    let is_whole = pattern.get("regex").is_some_and(Value::is_string);
                    let exclusive = pattern.get("exclusive").and_then(yes_or_no);
                    let (Some(exclusive), true) = (exclusive, is_whole) else {
                        return Err(format!(
                            "namespaces.{name}: {pattern} must have a regex, which is a string, and exclusive, which is true or false"
                        ));
                    };
                    pattern["exclusive"] = exclusive.into();
                }
            }
            Some(_) => return Err(format!("namespaces.{name} must be a list")),
        }
    }
    keys.insert("namespaces".to_owned(), spaces.into());
    Ok(())
}

/// The id in a text that need not be valid YAML: the value of `id` at the top level.
fn id_in(text: &str) -> Option<ServiceId> {
    #[derive(Deserialize)]
    struct Id {
        id: String,
    }
    if let Ok(Id { id }) = serde_yaml_ng::from_str(text) {
        return Some(id.into());
    }
    let in_json = text.trim_start().starts_with('{');
    let after = |line: &'_ str| -> Option<String> {
        let (_, rest) = if in_json {
            line.split_once("\"id\"")?
        } else {
            line.split_once("id")
                .filter(|(before, _)| before.is_empty())?
        };
        let value = rest.trim_start().strip_prefix(':')?.trim_start();
        let end = match value.chars().next()? {
            quote @ ('"' | '\'') => return Some(value[1..].split(quote).next()?.to_owned()),
            _ => value.find(" #").unwrap_or(value.len()),
        };
        Some(value[..end].trim_end().to_owned())
    };
    let id = text.lines().find_map(after)?;
    (!id.is_empty() && !id.starts_with(['[', '{', '&', '*', '!'])).then(|| id.into())
}

/// The requirements on a registration besides its types. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#registration
fn check(registration: &Registration) -> Result<(), String> {
    let id = registration.id.as_str();
    if id.is_empty() || id.len() > 255 || id.chars().any(|c| c.is_control() || c == '|') {
        return Err(
            "id must have 1 to 255 characters, no '|' and no control characters".to_owned(),
        );
    }
    for (name, token) in [
        ("as_token", &registration.as_token),
        ("hs_token", &registration.hs_token),
    ] {
        if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
            return Err(format!(
                "{name} must not be empty and must be printable ASCII without spaces"
            ));
        }
    }
    let sender = &registration.sender_localpart;
    let fits = |c: char| c.is_ascii_graphic() && c != ':';
    if sender.is_empty()
        || sender.len() > 200
        || sender.starts_with('@')
        || !sender.chars().all(fits)
    {
        return Err(
            "sender_localpart must be the part of a user id between '@' and ':', in ASCII"
                .to_owned(),
        );
    }
    if let Some(url) = &registration.url {
        check_url(url)?;
    }
    let spaces = &registration.namespaces;
    for (list, name) in [
        (&spaces.users, "users"),
        (&spaces.aliases, "aliases"),
        (&spaces.rooms, "rooms"),
    ] {
        for namespace in list {
            check_pattern(&namespace.regex)
                .map_err(|e| format!("namespaces.{name}: {:?}: {e}", namespace.regex))?;
        }
    }
    Ok(())
}

fn check_url(url: &str) -> Result<(), String> {
    let scheme = |scheme: &str| {
        let begins = url.get(..scheme.len())?;
        begins
            .eq_ignore_ascii_case(scheme)
            .then(|| &url[scheme.len()..])
    };
    let rest = scheme("http://").or_else(|| scheme("https://"));
    let host = rest.map_or("", |rest| rest.split('/').next().unwrap_or_default());
    if host.is_empty() {
        return Err(format!(
            "url {url:?} must begin with http:// or https:// and name a host, or be null"
        ));
    }
    if url.contains(['?', '#']) || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!(
            "url {url:?} must have no query, no fragment and no spaces, since paths are appended to it"
        ));
    }
    let port = host.rsplit_once(':').map(|(_, port)| port);
    match port.filter(|port| !port.ends_with(']')) {
        Some(port) if !port.is_empty() && port.parse::<u16>().is_err() => {
            Err(format!("url {url:?}: {port:?} is not a valid port"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
