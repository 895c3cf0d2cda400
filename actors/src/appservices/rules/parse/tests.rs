//! Registration files as they occur: which are accepted, and the message for those that are not.

use super::*;

fn yaml(id: &str, token: &str, more: &str) -> String {
    format!(
        "id: {id}\nurl: null\nas_token: {token}\nhs_token: h\nsender_localpart: {id}bot\nnamespaces: {{}}\n{more}"
    )
}

/// The usual file with one replacement.
fn with(from: &str, to: &str) -> String {
    let text = yaml("irc", "t", "").replace(from, to);
    assert!(text.contains(to), "{from}");
    text
}

/// Clause: as.registration.keys
#[test]
fn bad_files_say_what_is_wrong() {
    let users = |patterns: &str| with("{}", &format!("{{users: {patterns}}}"));
    let cases = [
        ("id: [".to_owned(), "line 2"),
        (String::new(), "the file is empty"),
        ("\n\n".to_owned(), "the file is empty"),
        ("# id: irc".to_owned(), "a map of keys"),
        ("- id: irc".to_owned(), "a map of keys"),
        ("id: irc".to_owned(), "missing field `as_token`"),
        (with("id: irc", "id: ~"), "missing field `id`"),
        (with("id: irc", "id: [irc]"), "id must be a string"),
        (with("url: null\n", ""), "missing field `url`"),
        (with("url: null", "url: 7"), "url 7"),
        (with("url: null", "url: localhost:29300"), "url"),
        (with("url: null", "url: http://"), "url"),
        (
            with("url: null", "url: http://localhost:99999"),
            "not a valid port",
        ),
        (with("url: null", "url: http://localhost/?a=b"), "no query"),
        (with("url: null", "url: http://local host"), "no spaces"),
        (
            users("[{exclusive: true, regex: '('}]"),
            "namespaces.users: \"(\"",
        ),
        (users("{exclusive: true, regex: a}"), "must be a list"),
        (users("['@irc_.*']"), "exclusive, which is true or false"),
        (users("[{regex: '@irc_.*'}]"), "exclusive, which"),
        (users("[{exclusive: true}]"), "must have a regex"),
        (users("[{exclusive: 1, regex: a}]"), "exclusive, which"),
        (with("namespaces: {}\n", ""), "missing field `namespaces`"),
        (with("namespaces: {}", "namespaces: all"), "must be a map"),
        (yaml("irc", "\"\"", ""), "as_token"),
        (yaml("irc", "'a b'", ""), "as_token"),
        (with("ircbot", "'@ircbot:test'"), "sender_localpart"),
        (with("ircbot", "'@ircbot'"), "sender_localpart"),
        (with("ircbot", "''"), "sender_localpart"),
        (with("ircbot", "ircböt"), "sender_localpart"),
        (with("id: irc", "id: a|b"), "id must"),
        (yaml("irc", "t", "id: irc"), "duplicate"),
        (
            yaml("irc", "123456789012345678901234", ""),
            "put a string in quotes",
        ),
        (
            yaml("irc", "t", "receive_ephemeral: maybe"),
            "receive_ephemeral must be true or false, not \"maybe\"",
        ),
        (
            yaml("irc", "t", "org.understudy.counts: often\n"),
            "unknown variant `often`, expected one of `recipients`, `changed`, `always`",
        ),
    ];
    for (text, expected) in cases {
        let why = parse(&text).expect_err(&text);
        assert!(why.contains(expected), "{text}: {why}");
        assert!(!why.contains('\n'), "one line: {why}");
    }
}

/// Clause: as.registration.url-path
#[test]
fn files_of_old_generators_are_accepted() {
    let usual = parse(&yaml("irc", "t", "")).expect("a registration");
    let same = [
        with("url: null", "url: ''"),
        with("url: null", "url: '  '"),
        with("url: null", "url: ~"),
        with("namespaces: {}", "namespaces:"),
        with("namespaces: {}", "namespaces: []"),
        with(
            "namespaces: {}",
            "namespaces: {users: null, aliases: [], rooms: ~}",
        ),
        with("id: irc", "id: !!python/unicode 'irc'"),
        yaml("irc", "t", "protocols: null\nrate_limited: null"),
        yaml("irc", "t", "receive_ephemeral: no\norg.matrix.msc3202: ~"),
    ];
    for text in same {
        assert_eq!(parse(&text), Ok(usual.clone()), "{text}");
    }
    let says_yes = yaml("irc", "t", "receive_ephemeral: yes\nprotocols: irc");
    let registration = parse(&says_yes).expect("a registration");
    assert!(registration.receive_ephemeral);
    assert_eq!(registration.protocols, Some(vec!["irc".to_owned()]));
    let url = parse(&with("url: null", "url: ' HTTP://localhost:1/base/ '"));
    let endpoint = url
        .expect("a registration")
        .endpoint("/_matrix/app/v1/ping");
    assert_eq!(
        endpoint.as_deref(),
        Some("HTTP://localhost:1/base/_matrix/app/v1/ping")
    );
}

#[test]
fn a_string_that_looks_like_a_number_stays_as_it_is_written() {
    for token in [
        "0123",
        "48e7",
        "0x1F",
        "1_000",
        "18446744073709551615",
        "true",
    ] {
        let registration = parse(&yaml("7", token, "")).expect(token);
        assert_eq!(registration.as_token, token);
        assert_eq!(registration.id.as_str(), "7");
    }
}

#[test]
fn the_id_of_a_broken_file_is_found_if_it_can_be_read() {
    let cases = [
        (with("url: null", "url: 7"), Some("irc")),
        (with("namespaces: {}", "namespaces: {"), Some("irc")),
        ("id: \"irc\" # ours\nurl: [".to_owned(), Some("irc")),
        ("id: irc # ours\nurl: [".to_owned(), Some("irc")),
        ("{\"url\": null, \"id\": \"irc\", ".to_owned(), Some("irc")),
        ("id: [".to_owned(), None),
        ("url: null\n  id: irc\n[".to_owned(), None),
        (String::new(), None),
    ];
    for (text, expected) in cases {
        let broken = read(&text).expect_err(&text);
        assert_eq!(
            broken.id.as_ref().map(ServiceId::as_str),
            expected,
            "{text}"
        );
    }
}

#[test]
fn real_registrations_are_accepted_with_all_their_flags() {
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
