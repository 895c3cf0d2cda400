//! The commands `evidence` and `conformance`, as a user runs them.

use std::path::Path;
use std::process::{Command, Output};

use tests::process::binary;

use crate::tidy::root;

const SCENARIO: &str = "tests/scenarios/a_message_reaches_the_bridge_of_a_ghost.yaml";

fn understudy(args: &[&str]) -> Output {
    let run = Command::new(binary())
        .args(args)
        .current_dir(root())
        .output();
    run.expect("the program runs")
}

fn files(folder: &Path) -> Vec<String> {
    let read = |name| std::fs::read_to_string(folder.join(name)).expect("a file");
    ["index.html", "transcript.txt", "evidence.json"]
        .map(read)
        .to_vec()
}

#[test]
fn the_evidence_of_a_scenario_is_the_same_bytes_each_time() {
    let folder = tempfile::tempdir().expect("a folder");
    for scenario in [
        SCENARIO,
        "tests/scenarios/a_bot_talks_in_an_encrypted_room.yaml",
    ] {
        let of = |name: &str| {
            let out = folder.path().join(name);
            let done = understudy(&["evidence", scenario, "--out", &out.to_string_lossy()]);
            assert!(done.status.success(), "{done:?}");
            files(&out)
        };
        let (first, second) = (of("first"), of("second"));
        assert!(first == second, "{scenario}: the files differ");
    }
}

#[test]
fn the_page_shows_what_a_reviewer_needs_and_loads_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_string_lossy().into_owned();
    let done = understudy(&["evidence", SCENARIO, "--out", &out]);
    assert!(done.status.success(), "{done:?}");
    let [page, _, json] = &files(folder.path())[..] else {
        panic!("three files");
    };
    for part in [
        "<strong class=\"passed\">passed</strong>",
        "<code>de.sorunome.msc2409.to_device</code>",
        "<a href=\"https://github.com/matrix-org/matrix-spec-proposals/pull/4203\">",
        "prefers-color-scheme:dark",
        "marker-end=\"url(#tip)\"",
        &format!("understudy evidence {SCENARIO}"),
    ] {
        assert!(page.contains(part), "{part} is on the page");
    }
    for loads in [" src=", "<link", "<script", "@import", "url(http"] {
        assert!(!page.contains(loads), "{loads} is on the page");
    }
    let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
    assert_eq!(json["verdict"], "passed");
    assert!(
        json["exchanges"]
            .as_array()
            .is_some_and(|all| all.len() > 4)
    );
}

#[test]
fn what_fails_ends_with_a_code_and_what_is_down_is_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let wrong = "title: <b>Wrong</b>\npeople: {alice: {}}\nsteps:\n- alice: joins !r\n";
    std::fs::write(path("wrong.yaml"), wrong).expect("a file");
    let done = understudy(&["evidence", &path("wrong.yaml"), "--out", &path("out")]);
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let page = &files(Path::new(&path("out")))[0];
    assert!(
        page.contains("no earlier step creates the room !r"),
        "{page}"
    );
    assert!(
        !page.contains("<b>") && page.contains("&lt;b&gt;Wrong"),
        "{page}"
    );

    let registration =
        "{id: irc, url: 'http://127.0.0.1:9', as_token: a, hs_token: b, sender_localpart: irc}";
    std::fs::write(path("irc.yaml"), registration).expect("a file");
    let down = ["conformance", "--server", "http://127.0.0.1:9"];
    for (file, expected) in [
        ("irc.yaml", "no answer from http://127.0.0.1:9"),
        ("none.yaml", "No such file"),
    ] {
        let done = understudy(&[&down[..], &["--registration", &path(file)]].concat());
        let shown = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{shown}");
        assert!(
            shown.contains(expected) && shown.lines().count() == 1,
            "{shown}"
        );
    }
}
