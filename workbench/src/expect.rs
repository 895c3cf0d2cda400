//! What a scenario expects of a value, and where a value differs from it.
//!
//! An object matches if it has the expected members; it may have more. An array matches element by element. These are special:
//!
//! | expected | matches |
//! |---|---|
//! | `$any` | every value that is there |
//! | `$absent` | a member that is not there |
//! | `$empty` | a member that is not there, or is empty |
//! | `{$contains: [a, b]}` | an array with an element for each of these, in any order, and perhaps more |
//! | `{$in_any_order: [a, b]}` | the same, and no more |
//! | `{$length: 2}` | an array, an object or a text of this length |
//! | `{$regex: "^a"}` | a text that the expression finds |
//! | `{$not: a}` | what `a` does not match |
//! | `{$exactly: {a: 1}}` | this value alone |

use regex::Regex;
use serde_json::{Map, Value};

/// A place at which a value differs from what is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The place, as a JSON pointer.
    pub at: String,
    /// What is expected there.
    pub expected: String,
    /// What is there.
    pub came: String,
}

/// The operators of an object with one member.
pub const OPERATORS: [&str; 6] = [
    "$contains",
    "$in_any_order",
    "$length",
    "$regex",
    "$not",
    "$exactly",
];

/// The words that stand for a value.
const WORDS: [&str; 3] = ["$any", "$absent", "$empty"];

/// Whether a text is written like a word or an operator, and not like an id or a captured value.
fn is_special(text: &str) -> bool {
    let rest = text.strip_prefix('$').unwrap_or_default();
    (1..=20).contains(&rest.len()) && rest.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

/// Checks the words and the operators of an expectation. One that is misspelt, or has another operand than it needs, could match
/// whatever comes. A `${…}` stands for a value that is known later.
///
/// # Errors
/// If one is wrong: what was expected in its place.
pub fn check(expected: &Value) -> Result<(), String> {
    match expected {
        Value::String(word) if is_special(word) && !WORDS.contains(&word.as_str()) => Err(format!(
            "unknown word {word:?}; known: {}",
            WORDS.join(" | ")
        )),
        Value::Array(items) => items.iter().try_for_each(check),
        Value::Object(members) => match (operator(members), members.keys().find(|k| is_special(k)))
        {
            (Some((name, operand)), _) => check_operand(name, operand),
            (None, Some(name)) if OPERATORS.contains(&name.as_str()) => Err(format!(
                "{name} stands alone in its object; write several checks for several"
            )),
            (None, Some(name)) => Err(format!(
                "unknown operator {name:?}; known: {}",
                OPERATORS.join(" | ")
            )),
            (None, None) => members.values().try_for_each(check),
        },
        _ => Ok(()),
    }
}

fn check_operand(name: &str, operand: &Value) -> Result<(), String> {
    let is_known_later = operand.as_str().is_some_and(|text| text.contains("${"));
    let needs = |what: &str| Err(format!("{name} needs {what}, not {operand}"));
    match (name, operand) {
        ("$not", _) => check(operand),
        ("$exactly", _) => Ok(()),
        _ if is_known_later => Ok(()),
        ("$contains", Value::Array(items)) if items.is_empty() => needs("a list with an element"),
        ("$contains" | "$in_any_order", Value::Array(items)) => items.iter().try_for_each(check),
        ("$contains" | "$in_any_order", _) => needs("a list"),
        ("$length", _) if operand.is_u64() => Ok(()),
        ("$length", _) => needs("a number"),
        (_, Value::String(pattern)) => Regex::new(pattern).map(|_| ()).map_err(|e| {
            let why = e.to_string();
            let last = why.lines().last().unwrap_or_default();
            format!("{name} needs a regular expression, not {operand}: {last}")
        }),
        _ => needs("a text"),
    }
}

/// All differences of `value` from `expected`.
#[must_use]
pub fn differences(expected: &Value, value: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(expected, Some(value), "", &mut found);
    found
}

/// Whether `value` is as expected.
#[must_use]
pub fn matches(expected: &Value, value: &Value) -> bool {
    differences(expected, value).is_empty()
}

/// Differences as lines of text, for a person to read.
#[must_use]
pub fn shown(differences: &[Difference]) -> String {
    let place = |at: &str| if at.is_empty() { "all" } else { at }.to_owned();
    let width = differences.iter().map(|d| place(&d.at).chars().count());
    let width = width.max().unwrap_or(0);
    let lines = differences.iter().map(|d| {
        let (at, gap) = (place(&d.at), " ".repeat(width));
        format!(
            "{at:width$}  expected  {}\n{gap}  came      {}",
            d.expected, d.came
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

fn compare(expected: &Value, value: Option<&Value>, at: &str, found: &mut Vec<Difference>) {
    let mut differs = |expected: String| {
        let came = value.map_or("nothing".to_owned(), ToString::to_string);
        found.push(Difference {
            at: at.to_owned(),
            expected,
            came,
        });
    };
    match (expected, value) {
        (Value::String(word), value) if word == "$absent" => {
            if value.is_some() {
                differs("nothing".to_owned());
            }
        }
        (Value::String(word), value) if word == "$empty" => {
            if !value.is_none_or(is_empty) {
                differs("nothing, or empty".to_owned());
            }
        }
        (Value::String(word), Some(_)) if word == "$any" => {}
        (Value::Object(members), value) if operator(members).is_some() => {
            let (name, operand) = operator(members).unwrap_or(("", &Value::Null));
            if let Some(expected) = refusal(name, operand, value) {
                differs(expected);
            }
        }
        (Value::Object(members), Some(Value::Object(present))) => {
            for (key, expected) in members {
                let escaped = key.replace('~', "~0").replace('/', "~1");
                compare(
                    expected,
                    present.get(key),
                    &format!("{at}/{escaped}"),
                    found,
                );
            }
        }
        (Value::Array(items), Some(Value::Array(present))) => {
            for (i, expected) in items.iter().enumerate() {
                compare(expected, present.get(i), &format!("{at}/{i}"), found);
            }
            for (i, more) in present.iter().enumerate().skip(items.len()) {
                found.push(Difference {
                    at: format!("{at}/{i}"),
                    expected: "nothing".to_owned(),
                    came: more.to_string(),
                });
            }
        }
        (Value::Object(_), None) if expects_nothing(expected) => {}
        (expected, value) if value == Some(expected) => {}
        (expected, _) => differs(expected.to_string()),
    }
}

/// Whether an expectation is about members alone that must not be there, so that the object need not be there either.
fn expects_nothing(expected: &Value) -> bool {
    match expected {
        Value::String(word) => matches!(word.as_str(), "$absent" | "$empty"),
        Value::Object(members) => !members.is_empty() && members.values().all(expects_nothing),
        _ => false,
    }
}

/// The operator of an object such as `{$regex: …}`, and what it is applied to.
fn operator(members: &Map<String, Value>) -> Option<(&str, &Value)> {
    let (name, operand) = members.iter().next().filter(|_| members.len() == 1)?;
    OPERATORS
        .contains(&name.as_str())
        .then_some((name.as_str(), operand))
}

/// What an operator expects, if the value is not like that.
fn refusal(name: &str, operand: &Value, value: Option<&Value>) -> Option<String> {
    let there = value.unwrap_or(&Value::Null);
    match name {
        "$contains" | "$in_any_order" => {
            let present = there.as_array().map_or(&[][..], Vec::as_slice);
            let wanted = operand.as_array().map_or(&[][..], Vec::as_slice);
            let all = there.is_array() && each_has_its_own(wanted, present);
            let no_more = name == "$contains" || present.len() == wanted.len();
            let how = if name == "$contains" {
                "an array that contains"
            } else {
                "in any order"
            };
            (!all || !no_more).then(|| format!("{how} {operand}"))
        }
        "$length" => {
            let length = match there {
                Value::Array(items) => items.len(),
                Value::Object(members) => members.len(),
                Value::String(text) => text.chars().count(),
                _ => return Some(format!("something of length {operand}")),
            };
            (operand.as_u64() != Some(length as u64))
                .then(|| format!("length {operand}, not {length}"))
        }
        "$regex" => {
            let pattern = operand.as_str().unwrap_or_default();
            let is_found = Regex::new(pattern)
                .is_ok_and(|regex| there.as_str().is_some_and(|text| regex.is_match(text)));
            (!is_found).then(|| format!("a text that /{pattern}/ finds"))
        }
        "$not" => {
            let is_so = value.is_some_and(|value| matches(operand, value));
            is_so.then(|| format!("not {operand}"))
        }
        _ => (value != Some(operand)).then(|| format!("exactly {operand}")),
    }
}

/// Whether each pattern matches an element that no other pattern takes.
fn each_has_its_own(patterns: &[Value], present: &[Value]) -> bool {
    let Some((first, rest)) = patterns.split_first() else {
        return true;
    };
    (0..present.len()).any(|i| {
        matches(first, &present[i])
            && each_has_its_own(rest, &[&present[..i], &present[i + 1..]].concat())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_must_not_be_there_is_not_there_either_in_an_object_that_is_not_there() {
        let expected = json!({"rooms": {"join": {"!r": "$absent"}, "leave": "$empty"}});
        assert!(matches(&expected, &json!({})));
        assert!(matches(&expected, &json!({"rooms": {"join": {}}})));
        assert!(!matches(&expected, &json!({"rooms": {"join": {"!r": {}}}})));
        assert!(!matches(&json!({"rooms": {"join": {}}}), &json!({})));
    }

    #[test]
    fn objects_match_partially_and_arrays_wholly() {
        let value = json!({"a": [1, {"b": 2, "c": 3}], "d": "text"});
        assert!(matches(&json!({"a": [1, {"b": 2}]}), &value));
        assert!(matches(
            &json!({"a": "$any", "e": "$absent", "d": {"$regex": "^te"}}),
            &value
        ));
        let wrong = differences(&json!({"a": [1], "d": 4, "e": 5}), &value);
        let wrong: Vec<&str> = wrong.iter().map(|d| d.at.as_str()).collect();
        assert_eq!(wrong, ["/a/1", "/d", "/e"]);
    }

    #[test]
    fn what_could_match_whatever_comes_is_refused() {
        for (wrong, why) in [
            (
                json!({"a": [{"$contains": {"n": 1}}]}),
                "$contains needs a list, not {\"n\":1}",
            ),
            (
                json!({"$contains": []}),
                "$contains needs a list with an element, not []",
            ),
            (
                json!({"$in_any_order": null}),
                "$in_any_order needs a list, not null",
            ),
            (json!({"$length": -1}), "$length needs a number, not -1"),
            (json!({"$regex": 1}), "$regex needs a text, not 1"),
            (
                json!({"$not": {"$regex": "("}}),
                "$regex needs a regular expression, not \"(\": error: unclosed group",
            ),
            (
                json!({"$not": "$anny"}),
                "unknown word \"$anny\"; known: $any | $absent | $empty",
            ),
            (
                json!({"$not": {"$length": 1, "a": 1}}),
                "$length stands alone in its object; write several checks for several",
            ),
        ] {
            assert_eq!(check(&wrong), Err(why.to_owned()));
        }
        let unknown = check(&json!({"$contain": []})).unwrap_err();
        assert!(
            unknown.starts_with("unknown operator \"$contain\"; known: "),
            "{unknown}"
        );
        for right in [
            json!(null),
            json!("$1"),
            json!({"${e}": "${x}", "a": "$absent"}),
            json!({"$contains": "${list}"}),
            json!({"$regex": "^${x}$"}),
            json!({"$exactly": {"$length": "x"}}),
        ] {
            assert_eq!(check(&right), Ok(()));
        }
    }

    #[test]
    fn operators_say_what_they_expect() {
        let value = json!([{"n": 1}, {"n": 2}]);
        assert!(matches(&json!({"$contains": [{"n": 2}]}), &value));
        assert!(matches(&json!({"$in_any_order": [{"n": 2}, {}]}), &value));
        assert!(!matches(
            &json!({"$in_any_order": [{"n": 2}, {"n": 2}]}),
            &value
        ));
        assert!(matches(&json!({"$length": 2}), &value));
        assert!(!matches(&json!({"$not": {"$length": 2}}), &value));
        assert!(!matches(&json!({"$exactly": [{}, {}]}), &value));
        let wrong = differences(&json!({"$in_any_order": [{"n": 2}]}), &value);
        assert_eq!(wrong[0].expected, "in any order [{\"n\":2}]");
    }
}
