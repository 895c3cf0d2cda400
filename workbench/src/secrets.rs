//! Passwords and tokens in what is printed. The journal of a development server hides the values of the same keys
//! (`server/src/http/recording.rs`).

use std::collections::BTreeSet;

use serde_json::Value;

/// What stands in place of a secret.
const HIDDEN: &str = "…";

/// A secret of this length is also hidden where it is only part of a text.
const LONG: usize = 8;

/// Whether the value of this key is a secret.
fn is_secret(key: &str) -> bool {
    ["password", "token", "secret"]
        .iter()
        .any(|end| key.ends_with(end))
}

/// Adds the secrets in a JSON value.
pub(crate) fn collect(json: &Value, found: &mut BTreeSet<String>) {
    match json {
        Value::Object(members) => {
            for (key, value) in members {
                match value {
                    Value::String(secret) if is_secret(key) && !secret.is_empty() => {
                        found.insert(secret.clone());
                    }
                    value => collect(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}

/// A text without these secrets.
pub(crate) fn without(text: &str, secrets: &BTreeSet<String>) -> String {
    let mut secrets: Vec<&String> = secrets.iter().collect();
    // One can be part of another one, so the longest come first.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.iter().fold(text.to_owned(), |text, secret| {
        let json = Value::from(secret.as_str()).to_string();
        let text = text.replace(&json, &format!("\"{HIDDEN}\""));
        match secret.len() >= LONG {
            true => text.replace(secret.as_str(), HIDDEN),
            false => text,
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_hidden_wherever_they_stand() {
        let mut found = BTreeSet::new();
        let body = json!({"auth": [{"password": "p\""}], "access_token": "a-long-token", "tokens": "t", "token": ""});
        collect(&body, &mut found);
        let text = format!("{body} GET /x?access_token=a-long-token");
        assert_eq!(
            without(&text, &found),
            "{\"access_token\":\"…\",\"auth\":[{\"password\":\"…\"}],\"token\":\"\",\"tokens\":\"t\"} GET /x?access_token=…"
        );
    }
}
