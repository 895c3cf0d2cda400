//! Tests of the doctor: registrations and the findings expected for them.

use serde_json::{Value, json};

use super::*;

fn registration(id: &str, keys: Value) -> Value {
    let mut value = json!({
        "id": id, "url": "http://127.0.0.1:29300", "as_token": format!("{id}-as-token-0123456789"),
        "hs_token": format!("{id}-hs-token-0123456789"), "sender_localpart": format!("{id}bot"), "namespaces": {},
        "receive_ephemeral": true, "de.sorunome.msc2409.push_ephemeral": true, "org.matrix.msc3202": true,
    });
    for (key, new) in keys.as_object().into_iter().flatten() {
        value[key] = new.clone();
    }
    value
}

fn users(patterns: &[(bool, &str)]) -> Value {
    let list: Vec<Value> = patterns
        .iter()
        .map(|(exclusive, regex)| json!({"exclusive": exclusive, "regex": regex}))
        .collect();
    json!({"namespaces": {"users": list}})
}

fn file(name: &str, text: impl ToString) -> RegistrationFile {
    RegistrationFile {
        name: name.to_owned(),
        text: Ok(text.to_string()),
    }
}

fn context() -> ExaminationContext {
    ExaminationContext {
        server_name: Some("example.org".to_owned()),
        known_keys: vec!["com.example.flag"],
        ..ExaminationContext::default()
    }
}

fn alone(registration: &Value) -> Vec<Finding> {
    rules::examine(&[file("a.yaml", registration)], &context())
}

fn compared(a: &Value, b: &Value) -> Vec<Finding> {
    rules::examine(&[file("a.yaml", a), file("b.yaml", b)], &context())
}

/// Check that this is the only finding, and that its text contains these words.
fn only(findings: &[Finding], code: &str, words: &str) {
    let codes: Vec<_> = findings.iter().map(|f| f.code).collect();
    assert_eq!(codes, [code], "{findings:?}");
    assert!(findings[0].what.contains(words), "{findings:?}");
}

#[test]
fn a_good_registration_has_nothing() {
    let good = registration("irc", users(&[(true, r"@irc_.*:example\.org")]));
    assert_eq!(alone(&good), []);
    let other = registration("tg", users(&[(true, "@tg_.*"), (false, "@irc_.*")]));
    assert_eq!(compared(&good, &other), []);
}

/// Patterns, each with its `exclusive`; the code of the expected finding; words of its text.
type Case<'a> = (&'a [(bool, &'a str)], &'a str, &'a str);

#[test]
fn a_pattern_that_is_not_what_it_seems() {
    let cases: &[Case] = &[
        (
            &[(true, "@irc_.*:example.com")],
            "matches-nobody",
            "ids of other servers, such as @irc_:example.com",
        ),
        (&[(true, "irc_.*")], "matches-nobody", "from their '@' on"),
        (&[(true, "#irc_.*")], "matches-nobody", "from their '@' on"),
        (
            &[(true, "@irc_.*$@")],
            "matches-nobody",
            "no id looks like this",
        ),
        (
            &[(true, "@IRC_.*")],
            "only-unusual",
            "such as @IRC_:example.org",
        ),
        (&[(true, ".*")], "claims-everybody", "exclusively"),
        (&[(true, "@")], "claims-everybody", "exclusively"),
        (
            &[(true, r"@[a-z0-9._=/+-]*:example\.org$")],
            "claims-everybody",
            "exclusively",
        ),
        (
            &[(false, "@.*")],
            "observes-everybody",
            "every user of this server",
        ),
        (
            &[(false, "@irc_.*"), (true, "@irc_bob")],
            "never-exclusive",
            "'@irc_bob' is exclusive",
        ),
        (
            &[(true, "@irc_.*:example.org")],
            "loose-dot",
            "any character",
        ),
        (
            &[(true, "@.*(a.{60}b|b.{60}a)_$")],
            "undecided",
            "too complicated",
        ),
    ];
    for (patterns, code, words) in cases {
        only(&alone(&registration("irc", users(patterns))), code, words);
    }
    // A non-exclusive pattern may precede an exclusive one that matches more.
    assert_eq!(
        alone(&registration(
            "irc",
            users(&[(false, "@irc_bob"), (true, "@irc_.*")])
        )),
        []
    );
}

#[test]
fn aliases_and_rooms_are_looked_at_too() {
    let spaces = |kind: &str, regex: &str| {
        registration(
            "irc",
            json!({"namespaces": {kind: [{"exclusive": true, "regex": regex}]}}),
        )
    };
    only(
        &alone(&spaces("aliases", "#.*")),
        "claims-everybody",
        "every alias",
    );
    only(
        &alone(&spaces("aliases", "@irc_.*")),
        "matches-nobody",
        "from their '#' on",
    );
    only(
        &alone(&spaces("rooms", "#irc_.*")),
        "matches-nobody",
        "no room id",
    );
    assert_eq!(alone(&spaces("rooms", "!Abc_")), []);
    assert_eq!(alone(&spaces("aliases", "#irc_.*")), []);
    let mut other = spaces("aliases", "#irc_[a-m]");
    for key in ["id", "as_token", "hs_token", "sender_localpart"] {
        other[key] = format!("another-{key}-0123456789").into();
    }
    only(
        &compared(&spaces("aliases", "#irc_.*"), &other),
        "overlap",
        "'#irc_[a-m]' and '#irc_.*' of a.yaml both claim #irc_a:example.org exclusively",
    );
}

#[test]
fn namespaces_of_two_services_meet() {
    let irc = registration("irc", users(&[(true, "@irc_.*")]));
    let overlaps = registration("tg", users(&[(true, "@tg_.*"), (true, "@.*_bot:")]));
    only(
        &compared(&irc, &overlaps),
        "overlap",
        "users: '@.*_bot:' and '@irc_.*' of a.yaml both claim @irc_bot:example.org exclusively",
    );
    // The first matching pattern decides, and here it is not exclusive.
    let yields = registration("tg", users(&[(false, "@irc_.*"), (true, "@.*_bot:")]));
    assert_eq!(compared(&irc, &yields), []);
    let claimed = registration("tg", json!({"sender_localpart": "irc_tg"}));
    only(
        &compared(&irc, &claimed),
        "sender-claimed",
        "@irc_tg:example.org, the sender of b.yaml, is in an exclusive namespace of a.yaml",
    );
    only(
        &compared(&claimed, &irc),
        "sender-claimed",
        "the sender of a.yaml",
    );
}

#[test]
fn nobody_says_which_server_it_is() {
    let examine = |a: &str, b: &str| {
        let (a, b) = (
            registration("a", users(&[(true, a)])),
            registration("b", users(&[(true, b)])),
        );
        rules::examine(
            &[file("a.yaml", a), file("b.yaml", b)],
            &ExaminationContext::default(),
        )
    };
    assert_eq!(examine("@a_.*:one", "@a_.*:two"), []);
    only(&examine("@a_.*:one", "@a_.*"), "overlap", "@a_:one");
}

#[test]
fn services_are_told_apart() {
    let a = registration("a", json!({}));
    let same = |key: &str| {
        let mut b = registration("b", json!({}));
        b[key] = a[key].clone();
        compared(&a, &b)
    };
    only(&same("id"), "duplicate-id", "\"a\" is that of a.yaml");
    only(&same("as_token"), "duplicate-as-token", "a.yaml");
    only(&same("hs_token"), "shared-hs-token", "a.yaml");
    only(&same("sender_localpart"), "duplicate-sender", "\"abot\"");
}

#[test]
fn keys_tokens_and_urls() {
    let cases = [
        (
            json!({"push_ephemeral": true}),
            "misspelt",
            "de.sorunome.msc2409.push_ephemeral is",
        ),
        (
            json!({"org.matrix.msc4190": true}),
            "misspelt",
            "io.element.msc4190 is",
        ),
        (
            json!({"org.matrix.msc3220": true}),
            "misspelt",
            "org.matrix.msc3202 is",
        ),
        (
            json!({"recieve_ephemeral": true}),
            "misspelt",
            "receive_ephemeral is",
        ),
        (
            json!({"rate-limited": false}),
            "misspelt",
            "rate_limited is",
        ),
        (
            json!({"namespaces": {"user": []}}),
            "misspelt",
            "no list \"user\"",
        ),
        (
            json!({"hs_token": "irc-as-token-0123456789"}),
            "same-tokens",
            "the same",
        ),
        (
            json!({"hs_token": "secret"}),
            "short-token",
            "hs_token has 6 characters",
        ),
        (
            json!({"sender_localpart": "IrcBot"}),
            "sender-spelling",
            "\"IrcBot\"",
        ),
        (json!({"url": null}), "not-sent", "receive_ephemeral"),
        (
            json!({"url": "http://a/_matrix/app/v1"}),
            "url-path",
            "/_matrix",
        ),
    ];
    for (keys, code, words) in cases {
        only(&alone(&registration("irc", keys)), code, words);
    }
    let silent = json!({"url": null, "receive_ephemeral": false, "de.sorunome.msc2409.push_ephemeral": false, "org.matrix.msc3202": false});
    only(&alone(&registration("irc", silent)), "no-url", "null");
    for unknown in [
        "com.example.flag",
        "org.matrix.msc3983",
        "de.sorunome.msc2409",
        "group",
        "ids",
    ] {
        assert_eq!(
            alone(&registration("irc", json!({unknown: true}))),
            [],
            "{unknown}"
        );
    }
}

#[test]
fn a_framework_goes_without_what_is_not_asked_for() {
    let missing = |name: &str, keys: Value| -> Vec<String> {
        let context = ExaminationContext {
            framework: frameworks::named(name),
            ..context()
        };
        let found = rules::examine(&[file("a.yaml", registration("irc", keys))], &context);
        assert!(found.iter().all(|f| f.code == "missing-flag"), "{found:?}");
        found.into_iter().map(|f| f.what).collect()
    };
    let none = json!({"receive_ephemeral": false, "de.sorunome.msc2409.push_ephemeral": false, "org.matrix.msc3202": false});
    assert_eq!(missing("mautrix-go", json!({})), Vec::<String>::new());
    assert_eq!(
        missing("mautrix-go", json!({"receive_ephemeral": false})),
        [
            "without receive_ephemeral mautrix-go gets no to-device messages, and so the keys of encrypted rooms"
        ]
    );
    assert_eq!(
        missing(
            "matrix-bot-sdk",
            json!({"de.sorunome.msc2409.push_ephemeral": false})
        ),
        [
            "without de.sorunome.msc2409.push_ephemeral matrix-bot-sdk gets no typing, receipts and presence"
        ]
    );
    assert_eq!(missing("mautrix-python", none.clone()).len(), 3);
    assert_eq!(missing("heisenbridge", none.clone()), Vec::<String>::new());
    let notes = alone(&registration("irc", none));
    assert!(notes.iter().all(|f| f.code == "without-flag"), "{notes:?}");
    assert!(notes.iter().any(|f| f.what == "without org.matrix.msc3202, no device-list changes and key counts for mautrix-go, mautrix-python, matrix-bot-sdk"), "{notes:?}");
}

#[test]
fn what_is_no_registration_is_said_in_one_line() {
    let cases = [
        ("", "the file is empty"),
        ("just words", "a map of keys"),
        ("id: [", "line 2"),
        ("- a", "a map of keys"),
        ("id: irc\nurl: 7", "missing field"),
    ];
    for (text, words) in cases {
        let found = rules::examine(&[file("a.yaml", text)], &context());
        only(&found, "unreadable", words);
        assert!(!found[0].what.contains('\n'), "{found:?}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let gone = RegistrationFile::read(&folder.path().join("gone.yaml"));
    only(
        &rules::examine(&[gone], &context()),
        "unreadable",
        "No such file",
    );
    only(
        &rules::examine(&[RegistrationFile::read(folder.path())], &context()),
        "unreadable",
        "folder",
    );
    // A required key under a misspelt name is reported both as missing and as misspelt.
    let text = registration("irc", json!({}))
        .to_string()
        .replace("sender_localpart", "sender_local_part");
    let codes: Vec<_> = rules::examine(&[file("a.yaml", text)], &context())
        .into_iter()
        .map(|f| f.code)
        .collect();
    assert_eq!(codes, ["misspelt", "unreadable"]);
}

#[test]
fn the_registrations_of_a_folder_are_compared_with() {
    let irc = registration("irc", users(&[(true, "@irc_.*")]));
    let neighbour = serde_json::from_value(registration("tg", users(&[(true, "@.*")])))
        .expect("a registration");
    let context = ExaminationContext {
        neighbours: vec![
            ("tg.yaml".to_owned(), Ok(neighbour)),
            (
                "bad.yaml".to_owned(),
                Err(actors::appservices::Broken::unreadable("missing\nfield")),
            ),
        ],
        ..context()
    };
    let found = rules::examine(&[file("irc.yaml", irc)], &context);
    let found: Vec<_> = found.iter().map(|f| (f.code, f.what.as_str())).collect();
    assert_eq!(
        found,
        [
            (
                "sender-claimed",
                "@ircbot:example.org, the sender of irc.yaml, is in an exclusive namespace of tg.yaml"
            ),
            (
                "overlap",
                "users: '@irc_.*' and '@.*' of tg.yaml both claim @irc_:example.org exclusively"
            ),
            ("neighbour", "bad.yaml: missing field"),
        ]
    );
}

#[test]
fn codes_are_their_own() {
    let mut codes: Vec<_> = checks::ALL.iter().map(|c| c.code).collect();
    codes.sort_unstable();
    let all = codes.len();
    codes.dedup();
    assert_eq!(codes.len(), all);
}
