//! The conformance kit against a server in a process of its own, whose clock runs: no scenario may fail there that passes in the
//! suite. And the exit codes of `conformance` and `compare`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tests::process::{Process, binary, free_port};
use understudy::built_in::SCENARIOS;
use workbench::registrations::merged;
use workbench::remote::Remote;
use workbench::{PASSWORD, Scenario, Verdict, run};

use crate::tidy::root;

/// The scenarios that a server which was not started for each of them cannot play, and what it lacks.
const NOT_PLAYED: &[(&str, &str)] = &[
    ("a_bot_talks_in_an_encrypted_room", "cannot be restarted"),
    (
        "a_ghost_reads_an_encrypted_room_after_an_outage",
        "cannot be restarted",
    ),
    (
        "a_bridge_that_observes_no_longer_is_sent_no_copies",
        "which this server has already",
    ),
    ("a_killed_server_loses_no_message", "cannot be restarted"),
    (
        "a_left_survives_an_outage_and_a_restart",
        "cannot be restarted",
    ),
    ("a_restart_sends_nothing_twice", "cannot be restarted"),
    (
        "a_service_added_late_gets_what_waits",
        "the server has it already",
    ),
    (
        "no_transaction_gets_the_id_of_an_earlier_one",
        "cannot be restarted",
    ),
];

fn scenarios() -> Vec<Scenario> {
    let parse = |(name, text): &(&str, &str)| Scenario::parse(Path::new(name), text);
    let all = SCENARIOS.iter().map(parse);
    all.collect::<Result<_, _>>().expect("scenarios")
}

/// A development server that knows the bridges of all scenarios.
struct Elsewhere {
    server: Process,
    folder: tempfile::TempDir,
    registrations: Vec<PathBuf>,
}

impl Elsewhere {
    fn start() -> Elsewhere {
        let folder = tempfile::tempdir().expect("a folder");
        let appservices = folder.path().join("appservices");
        std::fs::create_dir(&appservices).expect("a folder");
        let listen = "127.0.0.1:1".parse().expect("an address");
        let mut registrations = Vec::new();
        for (id, mut registration) in merged(&scenarios(), listen).expect("they agree") {
            registration["url"] = json!(format!("http://127.0.0.1:{}", free_port()));
            let file = appservices.join(format!("{id}.yaml"));
            std::fs::write(&file, registration.to_string()).expect("a file");
            registrations.push(file);
        }
        let mut program = Command::new(binary());
        program.arg("dev");
        let server = Process::start(program, folder.path(), free_port(), &["--log", "error"]);
        Elsewhere {
            server,
            folder,
            registrations,
        }
    }

    fn registrations(&self) -> String {
        let folder = self.folder.path().join("appservices");
        folder.to_string_lossy().into_owned()
    }
}

/// Plays every fourth scenario of the kit, beginning with this one.
async fn none_fails_from(first: usize) {
    let elsewhere = Elsewhere::start();
    let found = Remote::find(&elsewhere.server.base, &elsewhere.registrations, None).await;
    let remote = found.expect("it answers");
    let mut wrong = Vec::new();
    for scenario in scenarios().iter().skip(first).step_by(4) {
        let outcome = run(scenario, &remote, PASSWORD).await;
        let name = scenario.file.to_string_lossy().into_owned();
        let lacks = NOT_PLAYED.iter().find(|(of, _)| *of == name);
        match (&outcome.verdict, lacks) {
            (Verdict::Passed, None) => {}
            (Verdict::Skipped(why), Some((_, lacks))) if why.contains(lacks) => {}
            _ => wrong.push(outcome.shown(scenario)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// In four parts, which run at the same time: they mostly wait.
macro_rules! parts {
    ($($name:ident: $first:literal,)*) => {
        $(#[actix_web::test]
        async fn $name() {
            none_fails_from($first).await;
        })*
    };
}

parts! {
    no_scenario_fails_against_a_server_whose_clock_runs_1: 0,
    no_scenario_fails_against_a_server_whose_clock_runs_2: 1,
    no_scenario_fails_against_a_server_whose_clock_runs_3: 2,
    no_scenario_fails_against_a_server_whose_clock_runs_4: 3,
}

fn understudy(args: &[&str]) -> Output {
    let run = Command::new(binary())
        .args(args)
        .current_dir(root())
        .output();
    run.expect("the program runs")
}

/// The exit code, and what was printed.
fn code(args: &[&str]) -> (Option<i32>, String) {
    let done = understudy(args);
    let shown = [done.stdout, done.stderr].concat();
    (
        done.status.code(),
        String::from_utf8_lossy(&shown).into_owned(),
    )
}

/// A scenario that no server can pass.
fn wrong(folder: &Path) -> String {
    let file = folder.join("wrong.yaml");
    let steps = "- alice: creates room !r\n- event: {by: alice, room: \"!r\", type: m.x, content: {}, capture: x}\n";
    let text = format!(
        "title: Wrong\npeople: {{alice: {{}}}}\nsteps:\n{steps}- check: {{value: \"${{x}}\", is: other}}\n"
    );
    std::fs::write(&file, text).expect("a file");
    file.to_string_lossy().into_owned()
}

#[test]
fn the_score_of_a_server_decides_the_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let wrong = wrong(folder.path());
    let (passed, shown) = code(&["conformance", "--only", "a_ghost_and_a_person_talk"]);
    assert_eq!(passed, Some(0), "{shown}");
    assert!(shown.contains("1 passed, 0 failed, 0 skipped"), "{shown}");
    let (failed, shown) = code(&[
        "conformance",
        "--only",
        "wrong",
        &wrong,
        "--format",
        "markdown",
    ]);
    assert_eq!(failed, Some(1), "{shown}");
    assert!(shown.contains("| `wrong` | failed | <code>"), "{shown}");
    for misuse in [
        &["conformance", "--only", "no such scenario"][..],
        &["conformance", "--server", "http://127.0.0.1:9"],
        &["conformance", "--sever", "http://127.0.0.1:9"],
        &["conformance", "none.yaml"],
    ] {
        let (code, shown) = code(misuse);
        assert_eq!(code, Some(2), "{misuse:?}: {shown}");
    }
}

#[test]
fn a_registration_that_cannot_be_played_is_found_before_the_server_is_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("irc.yaml");
    std::fs::write(
        &file,
        "{id: irc, url: 'https://irc', as_token: a, hs_token: b, sender_localpart: irc}",
    )
    .expect("a file");
    let file = file.to_string_lossy().into_owned();
    let (code, shown) = code(&[
        "conformance",
        "--server",
        "http://127.0.0.1:9",
        "--registration",
        &file,
    ]);
    assert_eq!(code, Some(2), "{shown}");
    assert!(
        shown.ends_with(
            "the url is \"https://irc\"; the bridge of a scenario listens at http://HOST:PORT\n"
        ),
        "{shown}"
    );
}

#[test]
fn two_servers_are_compared_and_the_difference_decides_the_exit_code() {
    let elsewhere = Elsewhere::start();
    let folder = tempfile::tempdir().expect("a folder");
    let registrations = elsewhere.registrations();
    let with = |files: &[&str], more: &[&str]| {
        let on = [
            "--with",
            &elsewhere.server.base,
            "--with-registration",
            &registrations,
        ];
        code(&[&["compare"], files, &on[..], more].concat())
    };
    let equal = [
        "tests/scenarios/a_leave_is_said_in_the_transaction_that_carries_it.yaml",
        "tests/scenarios/a_ghost_and_a_person_talk.yaml",
        "tests/scenarios/a_bot_talks_in_an_encrypted_room.yaml",
    ];
    let (same, shown) = with(&equal, &[]);
    assert_eq!(same, Some(0), "{shown}");
    assert!(shown.contains("ended early on http://127.0.0.1"), "{shown}");
    assert!(
        shown.ends_with("3 scenarios: 0 differ, 3 do not; 1 ended early\n"),
        "{shown}"
    );

    // Only the server in this process is called `test`.
    let file = folder.path().join("differs.yaml");
    let steps = "- request: {by: alice, get: /account/whoami, expect: {body: {user_id: \"@alice:test\"}}}\n";
    std::fs::write(
        &file,
        format!("title: The name of the server\npeople: {{alice: {{}}}}\nsteps:\n{steps}"),
    )
    .expect("a file");
    let file = file.to_string_lossy().into_owned();
    let (differs, shown) = with(&[&file], &["--json"]);
    assert_eq!(differs, Some(1), "{shown}");
    let shown: Value =
        serde_json::from_str(shown.split("\nunderstudy:").next().unwrap_or_default())
            .expect("JSON");
    assert_eq!(shown["different"], 1);
    assert_eq!(
        shown["scenarios"][0]["differences"][0]["sides"][0],
        "as expected"
    );
    let (misuse, shown) = code(&["compare", &file]);
    assert_eq!(misuse, Some(2), "{shown}");
    let (down, shown) = code(&[
        "compare",
        &file,
        "--with",
        "http://127.0.0.1:9",
        "--with-name",
        "test",
    ]);
    assert_eq!(down, Some(2), "{shown}");
    assert_eq!(shown.lines().count(), 1, "{shown}");
}
