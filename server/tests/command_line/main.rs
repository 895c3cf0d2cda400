//! The binary as a person meets it.

mod doctor;
mod for_tests;
mod running;
mod scenario;

use std::process::{Command, Output, Stdio};

fn understudy() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_understudy"));
    command.stdin(Stdio::null());
    command
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// One line that says what and where, and exit code 1.
fn refuses(output: &Output, what: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("understudy: "), "{said}");
    assert!(said.contains(what), "{said}");
}
