//! Short names in scenarios: `@alice` for a user id, `!room` for the id of a room, `${x}` for a captured value.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What the short names of a scenario stand for.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// The name of the homeserver.
    pub server: String,
    /// The user ids of people whose localpart is not their name.
    pub users: BTreeMap<String, String>,
    /// How the localparts of users that bridges make begin.
    pub ghosts: Vec<String>,
    /// The names of the people, who have the same localparts.
    pub people: BTreeSet<String>,
    /// What tells the users and aliases of this run from those of earlier ones; empty on a server that had none.
    pub run: String,
    /// The ids of rooms, by name without `!`.
    pub rooms: BTreeMap<String, String>,
    /// Captured values.
    pub captured: BTreeMap<String, Value>,
}

impl Names {
    /// The user id for `@alice`; a whole id stays as it is.
    #[must_use]
    pub fn user(&self, short: &str) -> String {
        let name = short.trim_start_matches('@');
        match self.users.get(name) {
            Some(id) => id.clone(),
            None if name.contains(':') => format!("@{name}"),
            None => format!("@{}:{}", self.localpart(name), self.server),
        }
    }

    /// The localpart of a person or a ghost in this run. Other localparts stay as they are.
    #[must_use]
    pub fn localpart(&self, name: &str) -> String {
        let is_ghost = self.ghosts.iter().any(|ghost| name.starts_with(ghost));
        match is_ghost || self.people.contains(name) {
            true => format!("{name}{}", self.run),
            false => name.to_owned(),
        }
    }

    /// The body of a request like [`Names::value`], with its localparts too: `username`, `room_alias_name`, and `user` in the
    /// `identifier` of a login.
    ///
    /// # Errors
    /// If a name is unknown.
    pub fn body(&self, body: &Value) -> Result<Value, String> {
        let mut body = self.value(body)?;
        for pointer in ["/username", "/identifier/user"] {
            if let Some(Value::String(name)) = body.pointer_mut(pointer) {
                *name = self.localpart(name);
            }
        }
        if let Some(Value::String(alias)) = body.get_mut("room_alias_name") {
            alias.push_str(&self.run);
        }
        Ok(body)
    }

    /// The id of `!room`.
    ///
    /// # Errors
    /// If no step has named a room like this.
    pub fn room(&self, short: &str) -> Result<String, String> {
        if short.contains(':') {
            return Ok(short.to_owned());
        }
        let known = self.rooms.get(short.trim_start_matches('!'));
        known
            .cloned()
            .ok_or_else(|| format!("no earlier step creates the room {short}"))
    }

    /// A captured value.
    ///
    /// # Errors
    /// If no step has captured one of this name.
    pub fn captured(&self, name: &str) -> Result<&Value, String> {
        self.captured.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.captured.keys().map(String::as_str).collect();
            match known.is_empty() {
                true => format!("${{{name}}}: no earlier step captures a value"),
                false => format!(
                    "${{{name}}}: not captured by an earlier step; captured are {}",
                    known.join(", ")
                ),
            }
        })
    }

    /// A text with its names replaced.
    ///
    /// # Errors
    /// If a name is unknown.
    pub fn text(&self, text: &str) -> Result<String, String> {
        if is_short(text, '@') {
            return Ok(self.user(text));
        }
        if is_short(text, '#') {
            return Ok(format!("{text}{}:{}", self.run, self.server));
        }
        if is_short(text, '!') {
            return self.room(text);
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            let (name, after) = after
                .split_once('}')
                .ok_or_else(|| format!("{text:?}: a ${{ without its }}"))?;
            match self.captured(name)? {
                Value::String(text) => out.push_str(text),
                other => out.push_str(&other.to_string()),
            }
            rest = after;
        }
        Ok(out + rest)
    }

    /// A JSON value with the names in its texts and keys replaced. A text that is only `${x}` becomes the captured value.
    ///
    /// # Errors
    /// If a name is unknown.
    pub fn value(&self, value: &Value) -> Result<Value, String> {
        Ok(match value {
            Value::String(text) => {
                match text.strip_prefix("${").and_then(|t| t.strip_suffix('}')) {
                    Some(name) if !name.contains('}') => self.captured(name)?.clone(),
                    _ => Value::String(self.text(text)?),
                }
            }
            Value::Array(items) => {
                let items = items.iter().map(|item| self.value(item));
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            Value::Object(members) => {
                let members = members
                    .iter()
                    .map(|(key, value)| Ok((self.text(key)?, self.value(value)?)));
                Value::Object(members.collect::<Result<_, String>>()?)
            }
            other => other.clone(),
        })
    }

    /// The path of a request like [`Names::path`]. A transaction id at its end is that of this run.
    ///
    /// # Errors
    /// If a name is unknown.
    pub fn request(&self, method: &str, path: &str) -> Result<String, String> {
        let path = self.path(path)?;
        if method != "PUT" || !WITH_TRANSACTION.iter().any(|part| path.contains(part)) {
            return Ok(path);
        }
        Ok(match path.split_once('?') {
            Some((path, query)) => format!("{path}{}?{query}", self.run),
            None => path + &self.run,
        })
    }

    /// A path with the names in its segments replaced and percent-encoded.
    ///
    /// # Errors
    /// If a name is unknown.
    pub fn path(&self, path: &str) -> Result<String, String> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let encoded = |part: &str| {
            let is_named = part.starts_with(['@', '!', '#']) || part.contains("${");
            let text = self.text(part)?;
            Ok(if is_named { segment(&text) } else { text })
        };
        let segments = path.split('/').map(encoded);
        let path = segments.collect::<Result<Vec<_>, String>>()?.join("/");
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok(format!("{name}={}", encoded(value)?))
        });
        let query = pairs.collect::<Result<Vec<_>, String>>()?.join("&");
        Ok(match query.is_empty() {
            true => path,
            false => format!("{path}?{query}"),
        })
    }
}

/// The paths that end with a transaction id.
const WITH_TRANSACTION: [&str; 3] = ["/send/", "/sendToDevice/", "/redact/"];

/// Whether a text is a short name with this first character.
fn is_short(text: &str, sigil: char) -> bool {
    let name = text.strip_prefix(sigil).unwrap_or_default();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._=+-".contains(c);
    !name.is_empty() && name.chars().all(allowed)
}

/// Percent-encodes a segment of a path.
#[must_use]
pub fn segment(text: &str) -> String {
    let encoded = text.bytes().map(|b| match b {
        b if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    });
    encoded.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_replaced_in_values_and_paths() {
        let mut names = Names {
            server: "test".to_owned(),
            ..Names::default()
        };
        names.rooms.insert("r".to_owned(), "!room1:test".to_owned());
        names.captured.insert("n".to_owned(), json!({"x": 1}));
        names.captured.insert("e".to_owned(), json!("$1"));
        let value = json!({"@bob": ["!r", "${n}", "event ${e}"], "email": "a@b", "#": "# x"});
        let expected =
            json!({"@bob:test": ["!room1:test", {"x": 1}, "event $1"], "email": "a@b", "#": "# x"});
        assert_eq!(names.value(&value), Ok(expected));
        assert_eq!(
            names.path("/rooms/!r/event/${e}?user_id=@bob&limit=1"),
            Ok("/rooms/%21room1%3Atest/event/%241?user_id=%40bob%3Atest&limit=1".to_owned())
        );
        assert_eq!(
            names.text("${x}"),
            Err("${x}: not captured by an earlier step; captured are e, n".to_owned())
        );
        assert!(names.text("!s").is_err());
    }

    #[test]
    fn people_ghosts_and_aliases_have_new_names_in_each_run() {
        let names = Names {
            server: "test".to_owned(),
            ghosts: vec!["irc_".to_owned()],
            people: BTreeSet::from(["alice".to_owned()]),
            run: "-7".to_owned(),
            ..Names::default()
        };
        let body = json!({"username": "irc_bob", "room_alias_name": "lobby", "identifier": {"user": "alice"}, "invite": ["@carol"]});
        let expected = json!({"username": "irc_bob-7", "room_alias_name": "lobby-7", "identifier": {"user": "alice-7"}, "invite": ["@carol:test"]});
        assert_eq!(names.body(&body), Ok(expected));
        let sent = names.request("PUT", "/sendToDevice/m.x/1?x=y");
        assert_eq!(sent, Ok("/sendToDevice/m.x/1-7?x=y".to_owned()));
        let path = names.path("/directory/room/#lobby?user_id=@alice");
        assert_eq!(
            path,
            Ok("/directory/room/%23lobby-7%3Atest?user_id=%40alice-7%3Atest".to_owned())
        );
    }
}
