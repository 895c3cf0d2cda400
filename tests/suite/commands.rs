//! What the commands of scenarios do with files, names and pipes, as a user runs them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tests::process::binary;

use crate::tidy::root;

const PLAIN: &str = "title: Plain\npeople: {alice: {}}\nsteps:\n- alice: syncs\n";

fn understudy(folder: &Path, args: &[&str]) -> Output {
    let run = Command::new(binary())
        .args(args)
        .current_dir(folder)
        .output();
    run.expect("the program runs")
}

/// The exit code, and the only line on standard error.
fn refused(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let done = understudy(folder, args);
    let why = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(why.lines().count(), 1, "{args:?}: {why}");
    (done.status.code(), why.trim_end().to_owned())
}

fn write(folder: &Path, name: &str, text: &str) {
    let file = folder.join(name);
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    std::fs::write(file, text).expect("a file");
}

#[test]
fn a_scenario_writes_only_where_it_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let aside = folder.join("aside");
    let bridge = format!(
        "title: x\nbridges: {{\"{}\": {{}}}}\nsteps:\n- wait: 1 s\n",
        aside.display()
    );
    write(folder, "bridge.yaml", &bridge);
    for args in [
        &["scenario", "run", "bridge.yaml"][..],
        &["evidence", "bridge.yaml"],
        &["scenario", "registrations", "bridge.yaml", "--out", "out"],
    ] {
        let done = understudy(folder, args);
        assert_eq!(done.status.code(), Some(1), "{done:?}");
    }
    assert!(!folder.join("aside.yaml").exists() && !folder.join("out").exists());

    // Without its ending, the name is `..`.
    write(folder, "...yaml", PLAIN);
    let (code, why) = refused(folder, &["evidence", "...yaml"]);
    assert_eq!(
        (code, why.as_str()),
        (
            Some(1),
            "understudy: \"..\" cannot name a folder: give --out"
        )
    );
    assert!(!folder.join("index.html").exists());
}

#[test]
fn the_evidence_of_each_proposal_has_a_folder_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    for name in ["msc1", "msc2"] {
        write(folder, &format!("{name}/scenario.yaml"), PLAIN);
        let file = format!("{name}/scenario.yaml");
        let done = understudy(folder, &["evidence", &file]);
        assert!(done.status.success(), "{done:?}");
    }
    for name in ["msc1", "msc2"] {
        let page = format!("evidence/{name}/index.html");
        assert!(folder.join(page).exists(), "{name}");
    }
}

#[test]
fn registrations_have_tokens_that_cannot_be_guessed_and_replace_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let text = "title: x\nbridges: {irc: {}, mirror: {}}\nsteps:\n- wait: 1 s\n";
    write(folder, "two.yaml", text);
    let command = ["scenario", "registrations", "two.yaml"];
    let out = [&command[..], &["--out", "out"]].concat();
    let done = understudy(folder, &out);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(
        String::from_utf8_lossy(&done.stdout),
        "out/irc.yaml\nout/mirror.yaml\n"
    );
    let irc = folder.join("out/irc.yaml");
    let read = || std::fs::read_to_string(&irc).expect("a file");
    let first = read();
    let registration = workbench::homeserver::registration(&irc).expect("YAML");
    for token in ["as_token", "hs_token"] {
        let token = registration[token].as_str().expect("a token");
        assert!(token.len() >= 32, "{token}");
    }
    let mode = std::fs::metadata(&irc)
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    std::fs::remove_file(folder.join("out/mirror.yaml")).expect("a file");
    let (code, why) = refused(folder, &out);
    assert_eq!(code, Some(1), "{why}");
    assert!(
        why.starts_with("understudy: out/irc.yaml: it exists"),
        "{why}"
    );
    assert!(read() == first && !folder.join("out/mirror.yaml").exists());
    let done = understudy(folder, &[&out[..], &["--force"]].concat());
    assert!(done.status.success() && read() != first, "{done:?}");

    let last = [&command[..], &["--listen", "127.0.0.1:65535"]].concat();
    let (code, why) = refused(folder, &last);
    assert_eq!(code, Some(1), "{why}");
    assert!(why.contains("2 bridges need a port each"), "{why}");
}

#[test]
fn a_closed_pipe_ends_no_command() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "plain.yaml", PLAIN);
    let kept = root().join("docker/registration.example.yaml");
    let kept = kept.to_string_lossy().into_owned();
    for args in [
        &["mscs"][..],
        &["doctor", "--offline", &kept],
        &["scenario", "schema"],
        &["scenario", "run", "plain.yaml", "--transcript"],
        &["scenario", "registrations"],
        &["scenario", "registrations", "--out", "out"],
        &["conformance", "--only", "a_ghost_and_a_person_talk"],
        &["evidence", "plain.yaml"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(binary());
        command.args(args).current_dir(folder.path()).stdout(writer);
        let done = command.stderr(Stdio::piped()).output().expect("it runs");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success() && said.is_empty(), "{args:?}: {said}");
    }
    for file in ["index.html", "transcript.txt", "evidence.json"] {
        let file = folder.path().join("evidence/plain").join(file);
        assert!(file.exists(), "{file:?}");
    }
}

#[test]
fn the_evidence_of_an_encrypted_scenario_that_fails_is_the_same_bytes_each_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let text = "\
title: Wrong
people: {alice: {device: LAPTOP}, bob: {device: PHONE}}
steps:
- alice: uploads its keys
- bob: uploads its keys
- alice: creates room !r, inviting @bob, encrypted
- bob: joins !r
- alice: encrypts \"hello\" in !r
- sync: {by: bob, expect: {to_device: {events: []}, rooms: {join: {\"!r\": {timeline: {events: []}}}}}}
";
    write(folder, "wrong.yaml", text);
    let of = |out: &str| {
        let done = understudy(folder, &["evidence", "wrong.yaml", "--out", out]);
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        ["index.html", "evidence.json"]
            .map(|name| std::fs::read_to_string(folder.join(out).join(name)).expect("a file"))
    };
    let (first, second) = (of("first"), of("second"));
    assert!(
        first[1].contains("‹Olm message of alice/LAPTOP 1›"),
        "{}",
        first[1]
    );
    assert!(first == second, "{}\n{}", first[1], second[1]);
}
