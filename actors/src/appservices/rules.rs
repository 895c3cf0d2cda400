//! Which registrations are in force, given what is in the folder and what was there before.

use std::collections::{BTreeMap, BTreeSet};

use schema::appservices::ServiceRow;
use schema::interests::{Interests, check_pattern};
use schema::registration::{Namespace, Registration, ServiceId};

use super::Problem;

/// What must be done to bring the registrations in line with the folder.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Registrations in force, with the file each came from, in order of id.
    pub in_force: BTreeMap<ServiceId, (String, Registration)>,
    /// Services whose file is gone.
    pub gone: Vec<ServiceId>,
    /// Services whose registration is not what it was, or that come (back).
    pub changed: BTreeSet<ServiceId>,
    /// Of these, the services whose members and messages are not what they were: to be counted anew and given what they missed.
    pub recounted: BTreeSet<ServiceId>,
    /// Of these, the services that nobody told anything for a while.
    pub away: BTreeSet<ServiceId>,
    /// Files that could not be taken.
    pub problems: Vec<Problem>,
}

/// Read one registration file.
///
/// # Errors
/// A sentence that says what is wrong and, for the syntax, where.
pub fn parse(text: &str) -> Result<Registration, String> {
    let registration: Registration = serde_yaml_ng::from_str(text).map_err(|e| e.to_string())?;
    check(&registration)?;
    Ok(registration)
}

/// What a registration must keep beyond its shape. ([spec])
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
    if sender.is_empty()
        || sender.len() > 200
        || sender
            .chars()
            .any(|c| c.is_control() || c == ':' || c == ' ')
    {
        return Err(
            "sender_localpart must be the part of a user id between '@' and ':'".to_owned(),
        );
    }
    if let Some(url) = &registration.url {
        let rest = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("https://"));
        if rest.is_none_or(|r| r.is_empty() || r.starts_with('/')) {
            return Err(format!(
                "url {url:?} must begin with http:// or https:// and name a host, or be null"
            ));
        }
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

/// Compare the folder with what was known. Files in order of name; each is its registration or why it has none.
///
/// A file that no longer parses keeps the last good version of its service. An `id` or `as_token` belongs to the first file
/// that has it.
#[must_use]
pub fn plan(files: Vec<(String, Result<Registration, String>)>, known: &[ServiceRow]) -> Plan {
    let mut plan = Plan::default();
    let mut tokens: BTreeMap<String, ServiceId> = BTreeMap::new();
    let refuse = |file: &str, why: String| Problem {
        file: file.to_owned(),
        why,
    };
    for (file, parsed) in files {
        let registration = match parsed {
            Ok(registration) => registration,
            Err(why) => {
                plan.problems.push(refuse(&file, why));
                match last_good(known, &file) {
                    Some(registration) => registration,
                    None => continue,
                }
            }
        };
        let id = registration.id.clone();
        if let Some((first, _)) = plan.in_force.get(&id) {
            plan.problems.push(refuse(
                &file,
                format!("id {:?} is taken by {first}", id.as_str()),
            ));
            continue;
        }
        if let Some(other) = tokens.get(&registration.as_token) {
            plan.problems.push(refuse(
                &file,
                format!("its as_token is that of {:?}", other.as_str()),
            ));
            continue;
        }
        tokens.insert(registration.as_token.clone(), id.clone());
        plan.in_force.insert(id, (file, registration));
    }
    for row in known.iter().filter(|row| row.present) {
        let id = ServiceId::from(row.appservice_id.as_str());
        if !plan.in_force.contains_key(&id) {
            plan.gone.push(id);
        }
    }
    for (id, (_, registration)) in &plan.in_force {
        let row = known.iter().find(|row| row.appservice_id == id.as_str());
        let before = row.filter(|row| row.present).and_then(stored);
        if before.as_ref() == Some(registration) {
            continue;
        }
        plan.changed.insert(id.clone());
        if before.as_ref().map(interest) != Some(interest(registration)) {
            plan.recounted.insert(id.clone());
        }
        if before.as_ref().is_none_or(|b| !hears_of_devices(b)) && hears_of_devices(registration) {
            plan.away.insert(id.clone());
        }
    }
    plan
}

/// What of a registration decides who its users are and what it is sent about them.
fn interest(r: &Registration) -> (&[Namespace], &str, bool, bool, bool) {
    let users = &r.namespaces.users;
    let (url, to_device) = (r.url.is_some(), r.wants_to_device());
    (users, &r.sender_localpart, url, to_device, r.msc3202)
}

fn hears_of_devices(r: &Registration) -> bool {
    r.url.is_some() && r.msc3202
}

/// The services that `observe` names and that are not registered: most likely misspelt.
#[must_use]
pub fn unknown_observers<'a>(
    observe: Option<&'a [ServiceId]>,
    interests: &Interests,
) -> Vec<&'a ServiceId> {
    let named = observe.unwrap_or_default().iter();
    named.filter(|id| interests.service(id).is_none()).collect()
}

fn stored(row: &ServiceRow) -> Option<Registration> {
    serde_json::from_str(&row.registration).ok()
}

fn last_good(known: &[ServiceRow], file: &str) -> Option<Registration> {
    known
        .iter()
        .find(|row| row.present && row.file == file)
        .and_then(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(id: &str, token: &str, more: &str) -> String {
        format!(
            "id: {id}\nurl: null\nas_token: {token}\nhs_token: h\nsender_localpart: {id}bot\nnamespaces: {{}}\n{more}"
        )
    }

    fn known(id: &str, file: &str, present: bool) -> ServiceRow {
        let registration = parse(&yaml(id, id, "")).expect("a registration");
        ServiceRow {
            appservice_id: id.to_owned(),
            registration: serde_json::to_string(&registration).expect("JSON"),
            file: file.to_owned(),
            present,
            last_txn: 0,
        }
    }

    #[test]
    fn bad_files_say_what_is_wrong() {
        let cases = [
            ("id: [", "line 1"),
            ("id: irc", "missing field"),
            (
                &yaml("irc", "t", "").replace(
                    "namespaces: {}",
                    "namespaces: {users: [{exclusive: true, regex: '('}]}",
                ),
                "namespaces.users",
            ),
            (
                &yaml("irc", "t", "").replace("url: null", "url: localhost:29300"),
                "url",
            ),
            (&yaml("irc", "\"\"", ""), "as_token"),
            (
                &yaml("irc", "t", "org.understudy.counts: often\n"),
                "unknown variant `often`, expected one of `recipients`, `changed`, `always`",
            ),
            (
                &yaml("irc", "t", "").replace("id: irc", "id: a|b"),
                "id must",
            ),
        ];
        for (text, expected) in cases {
            let why = parse(text).expect_err(text);
            assert!(why.contains(expected), "{text}: {why}");
        }
    }

    #[test]
    fn real_registrations_are_taken_with_all_their_flags() {
        let text = yaml(
            "irc",
            "t",
            "org.matrix.msc3202: true\nde.sorunome.msc2409.push_ephemeral: true\nio.element.msc4190: true\nsomething: else\n",
        );
        let registration = parse(&text).expect("a registration");
        assert!(
            registration.msc3202
                && registration.push_ephemeral
                && registration.msc4190
                && !registration.receive_ephemeral
        );
        assert_eq!(registration.other["something"], "else");
    }

    #[test]
    fn the_folder_decides_and_a_broken_file_harms_nobody() {
        let file = |name: &str, text: &str| (name.to_owned(), parse(text));
        let rows = [
            known("broken", "a.yaml", true),
            known("gone", "b.yaml", true),
            known("back", "c.yaml", false),
            known("same", "d.yaml", true),
        ];
        let plan = plan(
            vec![
                file("a.yaml", "id: ["),
                file("c.yaml", &yaml("back", "back", "")),
                file("d.yaml", &yaml("same", "same", "")),
                file("e.yaml", &yaml("same", "other", "")),
                file("f.yaml", &yaml("thief", "same", "")),
                file("g.yaml", &yaml("new", "new", "")),
            ],
            &rows,
        );
        let ids: Vec<_> = plan.in_force.keys().map(ToString::to_string).collect();
        assert_eq!(ids, ["back", "broken", "new", "same"]);
        assert_eq!(plan.gone, [ServiceId::from("gone")]);
        assert_eq!(
            plan.changed,
            [ServiceId::from("back"), ServiceId::from("new")].into()
        );
        let files: Vec<_> = plan.problems.iter().map(|p| p.file.as_str()).collect();
        assert_eq!(files, ["a.yaml", "e.yaml", "f.yaml"]);
        assert_eq!(plan.recounted, plan.changed);
    }

    #[test]
    fn only_what_concerns_users_has_them_counted_again() {
        let users = "namespaces: {users: [{exclusive: true, regex: '@a.*'}]}";
        let of = |text: &str| parse(text).expect("a registration");
        let with_url =
            |more: &str| yaml("a", "a", more).replace("url: null", "url: http://localhost:1");
        let before = with_url("org.matrix.msc3202: true");
        // The text it becomes; whether its users are counted again; whether it was away.
        let cases = [
            (before.replace("localhost:1", "localhost:2"), false, false),
            (before.replace("hs_token: h", "hs_token: i"), false, false),
            (before.replace("namespaces: {}", users), true, false),
            (before.replace("abot", "bot"), true, false),
            (with_url("receive_ephemeral: true"), true, false),
            (yaml("a", "a", "org.matrix.msc3202: true"), true, false),
        ];
        let row = |text: &str| ServiceRow {
            registration: serde_json::to_string(&of(text)).expect("JSON"),
            ..known("a", "a.yaml", true)
        };
        let planned = |before: &str, after: &str| {
            let files = vec![("a.yaml".to_owned(), Ok(of(after)))];
            let plan = plan(files, &[row(before)]);
            assert_eq!(plan.changed.len(), 1);
            (!plan.recounted.is_empty(), !plan.away.is_empty())
        };
        for (after, recounted, away) in &cases {
            assert_eq!(planned(&before, after), (*recounted, *away), "{after}");
        }
        let deaf = with_url("receive_ephemeral: true");
        assert_eq!(
            planned(&deaf, &before),
            (true, true),
            "it asks for device lists now"
        );
    }

    #[test]
    fn a_grant_to_nobody_is_named() {
        let all = vec![(parse(&yaml("irc", "t", "")).expect("a registration"), true)];
        let interests = Interests::compile("test", all, Default::default()).expect("patterns");
        let observe = ["irc".into(), "ircc".into()];
        assert_eq!(unknown_observers(Some(&observe), &interests), [&observe[1]]);
        assert!(unknown_observers(None, &interests).is_empty());
    }
}
