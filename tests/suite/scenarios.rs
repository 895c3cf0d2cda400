//! The scenarios of `tests/scenarios`, each played against a server of its own, with its transcript; and what a scenario that is
//! wrong says. A new scenario needs its file, and its name in the list of `server/src/built_in.rs`.

use std::path::{Path, PathBuf};

use serde_json::json;
use tests::Stage;
use tests::process::free_port;
use tests::stage::new_database;
use understudy::embedded::Embedded;
use workbench::remote::Remote;
use workbench::{Outcome, PASSWORD, Scenario, Verdict, run, run_file};

use crate::tidy::root;

fn embedded() -> Embedded {
    Embedded::on(None, new_database)
}

fn inside(folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).expect("a folder");
    let paths = entries.map(|entry| entry.expect("a file").path());
    let mut all: Vec<PathBuf> = paths
        .filter(|p| p.extension().is_some_and(|e| e == ending))
        .collect();
    all.sort();
    all
}

/// The name of a scenario: that of its file, or of its proposal's folder.
fn stem(path: &Path) -> String {
    let name = match path.ends_with("scenario.yaml") {
        true => path.parent().and_then(Path::file_name),
        false => path.file_stem(),
    };
    name.expect("a name").to_string_lossy().into_owned()
}

fn snapshot(folder: &str, name: &str, text: &str) {
    let mut settings = insta::Settings::new();
    settings.set_omit_expression(true);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_snapshot_path(root().join(folder));
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// All scenarios: those of the kit, and those in the folders of proposals.
fn all() -> Vec<PathBuf> {
    let mut files = inside("tests/scenarios", "yaml");
    for folder in std::fs::read_dir(root().join("server/src/mscs")).expect("a folder") {
        let file = folder.expect("an entry").path().join("scenario.yaml");
        let is_template = file.parent().is_some_and(|f| f.ends_with("template"));
        if file.exists() && !is_template {
            files.push(file);
        }
    }
    files.sort();
    files
}

/// Plays every fourth scenario, beginning with this one.
async fn pass_from(first: usize) {
    let mut wrong = Vec::new();
    let mut played = Vec::new();
    for file in all().iter().skip(first).step_by(4) {
        match run_file(file, &embedded(), PASSWORD).await {
            Ok((scenario, outcome)) => {
                if outcome.verdict != Verdict::Passed {
                    wrong.push(outcome.shown(&scenario));
                }
                played.push((stem(file), outcome.transcript));
            }
            Err(problem) => wrong.push(problem),
        }
    }
    assert!(!played.is_empty(), "there are scenarios");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (name, transcript) in &played {
        snapshot("tests/snapshots/scenarios", name, transcript);
    }
}

// In four parts, which run at the same time.
macro_rules! parts {
    ($($name:ident: $first:literal,)*) => {
        $(#[actix_web::test]
        async fn $name() {
            pass_from($first).await;
        })*
    };
}

parts! {
    every_scenario_passes_and_its_transcript_stays_as_it_is_1: 0,
    every_scenario_passes_and_its_transcript_stays_as_it_is_2: 1,
    every_scenario_passes_and_its_transcript_stays_as_it_is_3: 2,
    every_scenario_passes_and_its_transcript_stays_as_it_is_4: 3,
}

#[test]
fn every_transcript_of_a_scenario_has_its_scenario() {
    let names: Vec<String> = all().iter().map(|file| stem(file)).collect();
    for kept in inside("tests/snapshots/scenarios", "snap") {
        assert!(
            names.contains(&stem(&kept)),
            "{}: no scenario has this name",
            kept.display()
        );
    }
}

#[test]
fn every_scenario_is_part_of_the_conformance_kit() {
    let files = inside("tests/scenarios", "yaml");
    let files: Vec<String> = files.iter().map(|file| stem(file)).collect();
    let listed = understudy::built_in::SCENARIOS
        .iter()
        .map(|(name, _)| *name);
    assert_eq!(
        files,
        listed.collect::<Vec<_>>(),
        "the list in server/src/built_in.rs"
    );
}

#[test]
fn the_schema_for_editors_matches_what_is_read() {
    let made = format!("{:#}\n", workbench::schema::schema());
    let file = root().join("tests/scenarios/schema.json");
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(&file, &made).expect("the schema is written");
    }
    let kept = std::fs::read_to_string(&file).expect("the schema");
    assert!(
        kept == made,
        "{}: write what `understudy scenario schema` prints",
        file.display()
    );
}

async fn played(steps: &str) -> Outcome {
    let head = "title: A scenario that is wrong\npeople: {alice: {}}\nbridges: {irc: {}}\nsteps:\n";
    let scenario = Scenario::parse(Path::new("wrong.yaml"), &format!("{head}{steps}"));
    run(&scenario.expect("it can be read"), &embedded(), PASSWORD).await
}

async fn failure(steps: &str) -> String {
    match played(steps).await.verdict {
        Verdict::Failed(why) => why,
        other => panic!("{other:?}"),
    }
}

#[actix_web::test]
async fn a_failure_names_the_line_and_what_was_expected() {
    let steps = "\
- irc: registers ghost bob with device GHOST
- irc: ignores what it was sent so far
- to_device: {by: alice, to: \"@irc_bob\", device: GHOST, content: {n: 1}}
- transaction:
    to: irc
    body:
      to_device: [{sender: \"@alice\", to_device_id: LAPTOP, content: {n: 2}}]
";
    let shown = failure(steps).await;
    snapshot(
        "tests/snapshots",
        "what_a_scenario_that_fails_prints",
        &shown,
    );
}

#[actix_web::test]
async fn wrong_steps_fail_with_a_line_each() {
    let unknown = failure("- alice: joins !r\n").await;
    assert_eq!(
        unknown,
        "wrong.yaml:5: alice: joins !r\nno earlier step creates the room !r"
    );
    let captured = failure("- alice: syncs\n- check: {value: \"${x}\", is: 1}\n").await;
    assert!(
        captured.ends_with("\n${x}: no earlier step captures a value"),
        "{captured}"
    );
    let pointer = "- request: {by: alice, get: /account/whoami, capture: {x: /nothing}}\n";
    let pointer = failure(pointer).await;
    assert!(
        pointer.contains("\ncapture x: nothing at \"/nothing\""),
        "{pointer}"
    );
    let nobody = failure("- request: {by: carol, get: /account/whoami}\n").await;
    assert!(
        nobody.contains("\nno client is called \"carol\"; there are alice/ALICE, irc"),
        "{nobody}"
    );
    let more =
        failure("- alice: creates room !r, inviting @ircbot\n- irc: is sent nothing more\n").await;
    assert!(more.contains("expected  no further transaction"), "{more}");
    let text = failure(
        "- alice: creates room !r, encrypted\n- alice: uploads its keys\n- alice: decrypts \"x\" from @alice\n",
    )
    .await;
    assert!(text.ends_with("came      no encrypted event"), "{text}");
    let keys = "- alice: uploads its keys\n";
    let olm = "- olm: {by: alice, to: \"@irc_bob\", device: GHOST, type: m.x}\n";
    let none = failure(olm).await;
    assert!(none.contains("\nalice has no keys yet"), "{none}");
    let nowhere = failure(&format!("{keys}{olm}")).await;
    let expected =
        "expected  a device GHOST of @irc_bob:test whose keys are signed\n  came      []";
    assert!(nowhere.ends_with(expected), "{nowhere}");
    let decrypted = "- decrypted: {by: alice, from: \"@irc_bob\", type: m.x, content: {n: 1}}\n";
    let nothing = failure(&format!("{keys}{decrypted}")).await;
    let expected = "expected  {\"content\":{\"n\":1},\"sender\":\"@irc_bob:test\",\"type\":\"m.x\"}\n  came      nothing";
    assert!(nothing.ends_with(expected), "{nothing}");
    let ends = "- sync_ends: {by: alice, within: 1 ms}\n";
    let none = failure(ends).await;
    assert!(
        none.ends_with("add the step `alice: begins to sync` before"),
        "{none}"
    );
    let waits = failure(&format!("- alice: syncs\n- alice: begins to sync\n{ends}")).await;
    assert!(waits.ends_with("came      none; it still waits"), "{waits}");
}

#[actix_web::test]
async fn a_server_that_is_down_is_one_line() {
    let found = Remote::find("http://127.0.0.1:9", &[], Some("test")).await;
    let why = found.expect_err("nothing listens there");
    assert!(
        why.starts_with("GET /_matrix/client/versions: no answer from http://127.0.0.1:9: ")
            && !why.contains('\n'),
        "{why}"
    );
}

#[actix_web::test]
async fn scenarios_are_played_against_a_server_that_runs_elsewhere() {
    let stage = Stage::new().await;
    let registration = json!({
        "id": "irc", "url": format!("http://127.0.0.1:{}", free_port()), "as_token": "one", "hs_token": "two",
        "sender_localpart": "irc-sender", "namespaces": {"users": [{"exclusive": true, "regex": "@irc_.*"}]},
        "receive_ephemeral": true, "org.matrix.msc3202": true, "io.element.msc4190": true,
    });
    stage.register("irc", &registration).await;
    let found = Remote::find(&stage.base(), &[stage.registration_file("irc")], None).await;
    let remote = found.expect("it answers");
    for (name, lacks) in [
        ("a_leave_is_said_in_the_transaction_that_carries_it", ""),
        ("a_message_reaches_the_bridge_of_a_ghost", ""),
        ("a_ghost_and_a_person_talk", ""),
        ("people_talk_in_an_encrypted_room", ""),
        ("a_bot_talks_in_an_encrypted_room", "cannot be restarted"),
        (
            "two_services_get_a_copy_each",
            "no registration that was given has the id mirror",
        ),
        ("a_room_is_created_when_its_alias_is_looked_up", "lacks"),
    ] {
        let file = root().join(format!("tests/scenarios/{name}.yaml"));
        let (scenario, outcome) = run_file(&file, &remote, PASSWORD)
            .await
            .expect("a scenario");
        let shown = outcome.shown(&scenario);
        match (&outcome.verdict, lacks) {
            (Verdict::Passed, "") => {}
            (Verdict::Skipped(why), lacks) if !lacks.is_empty() => {
                assert!(why.contains(lacks), "{shown}");
            }
            _ => panic!("{shown}"),
        }
    }
}

#[test]
fn the_chapter_names_every_step_sentence_and_operator() {
    let chapter = root().join("spec-notes/src/scenarios.md");
    let chapter = std::fs::read_to_string(chapter).expect("the chapter");
    let steps = workbench::format::KEYS.iter().map(|key| format!("`{key}`"));
    let sentences = workbench::sentence::PATTERNS
        .iter()
        .map(|p| format!("`{}`", p.text));
    let operators = workbench::expect::OPERATORS.iter().map(ToString::to_string);
    let all: Vec<String> = steps.chain(sentences).chain(operators).collect();
    let missing: Vec<&String> = all.iter().filter(|text| !chapter.contains(*text)).collect();
    assert!(missing.is_empty(), "scenarios.md does not name {missing:?}");
}
