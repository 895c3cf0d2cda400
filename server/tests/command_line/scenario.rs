//! Scenarios as their author meets them: what a run prints, and how it ends.

use std::process::Output;

use super::{folder, refuses, understudy};

/// Runs a scenario file with this text.
fn run(text: &str, more: &[&str]) -> Output {
    let folder = folder();
    std::fs::write(folder.path().join("first.yaml"), text).expect("written");
    let mut command = understudy();
    command.current_dir(folder.path());
    let run = command.args(["scenario", "run", "first.yaml"]).args(more);
    run.output().expect("it runs")
}

const RIGHT: &str = "title: Alice is alice\npeople: {alice: {}}\nsteps:\n\
    - request: {by: alice, get: /account/whoami, expect: {body: {user_id: \"@alice\"}}}\n";

#[test]
fn a_scenario_that_passes_is_a_line() {
    let output = run(RIGHT, &[]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        said,
        "passed   first.yaml  Alice is alice\n1 passed, 0 skipped, 0 failed\n"
    );
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let said = run(RIGHT, &["--transcript"]).stdout;
    let said = String::from_utf8_lossy(&said);
    assert!(
        said.contains("\nalice/ALICE → GET /account/whoami\n  ← 200 {\"user_id\": \"@alice:test\""),
        "{said}"
    );
}

#[test]
fn a_scenario_that_fails_is_a_block_and_an_exit_code() {
    let output = run(&RIGHT.replace("\"@alice\"", "\"@bob\""), &[]);
    refuses(&output, "1 of 1 scenarios failed");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("FAILED   first.yaml  Alice is alice\n\nfirst.yaml:4: request: {by: alice"),
        "{said}"
    );
    assert!(
        said.contains("expected  \"@bob:test\"") && said.contains("came      \"@alice:test\""),
        "{said}"
    );

    let output = run("title: x\nsteps:\n- alice: syncs\n", &[]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.starts_with("FAILED   first.yaml:3: unknown step or name \"alice\""),
        "{said}"
    );
    let down = run(
        RIGHT,
        &["--server", "http://127.0.0.1:9", "--server-name", "test"],
    );
    refuses(&down, "no answer from http://127.0.0.1:9");
}
