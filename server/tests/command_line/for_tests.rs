//! A development server as another program's tests start it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::{folder, understudy};

/// A server in memory that a test started, and what it printed.
struct Started {
    child: Child,
    stdout: BufReader<ChildStdout>,
    ready: Value,
}

impl Started {
    fn new(args: &[&str], temporary: &Path) -> Started {
        let mut child = understudy()
            .args([
                "dev",
                "--port",
                "0",
                "--print-json",
                "--database",
                ":memory:",
            ])
            .args(args)
            .env("TMPDIR", temporary)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        let ready = serde_json::from_str(&line).expect("one line of JSON");
        Started {
            child,
            stdout,
            ready,
        }
    }

    fn text(&self, name: &str) -> &str {
        self.ready[name].as_str().expect(name)
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &id]).status();
        assert!(sent.expect("a signal can be sent").success());
    }

    /// Wait for the end. Nothing else may have been printed.
    fn ends(mut self) -> Option<i32> {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("text");
        assert_eq!(rest, "", "one line and nothing else");
        self.child.wait().expect("it ends").code()
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    entries.map(|e| e.expect("an entry").path()).collect()
}

#[test]
fn one_line_of_json_says_all_that_a_program_needs() {
    let temporary = folder();
    let server = Started::new(&[], temporary.path());
    assert_eq!(server.ready["pid"], server.child.id());
    assert_eq!(server.text("database"), ":memory:");
    assert_eq!(server.text("server_name"), "localhost");
    assert_eq!(server.ready["users"][0]["user_id"], "@alice:localhost");
    assert!(server.ready["users"][1]["access_token"].is_string());
    let base = format!("http://{}", server.text("address"));
    assert_eq!(server.text("base_url"), base);
    assert_eq!(server.text("development"), format!("{base}/_understudy"));
    assert!(Path::new(server.text("appservices")).is_dir());
    std::net::TcpStream::connect(server.text("address")).expect("it listens");
    server.signal("-TERM");
    assert_eq!(server.ends(), Some(0));
}

#[test]
fn it_ends_when_its_parent_does_and_leaves_nothing_behind() {
    let temporary = folder();
    let mut server = Started::new(&["--exit-with-parent"], temporary.path());
    let folder = PathBuf::from(server.text("appservices"));
    assert!(folder.starts_with(temporary.path()) && folder.is_dir());
    // As the system does when the parent ends.
    drop(server.child.stdin.take());
    assert_eq!(server.ends(), Some(0));
    assert_eq!(entries(temporary.path()), Vec::<PathBuf>::new());
}

#[test]
fn without_that_option_the_end_of_standard_input_means_nothing() {
    let temporary = folder();
    let mut server = Started::new(&[], temporary.path());
    drop(server.child.stdin.take());
    assert!(server.child.try_wait().expect("its state").is_none());
    std::net::TcpStream::connect(server.text("address")).expect("it still listens");
    server.signal("-TERM");
    assert_eq!(server.ends(), Some(0));
}

#[test]
fn what_a_killed_server_leaves_the_next_one_removes() {
    let temporary = folder();
    let killed = Started::new(&[], temporary.path());
    let left = PathBuf::from(killed.text("appservices"));
    killed.signal("-KILL");
    killed.ends();
    assert!(left.exists(), "it could not remove it");
    let database = format!("understudy-db-{}-", killed_id(&left));
    let memory = Path::new("/dev/shm");
    let names = match memory.is_dir() {
        true => entries(memory),
        false => Vec::new(),
    };
    let named = |p: &&PathBuf| p.display().to_string().contains(&database);
    assert_eq!(names.iter().find(named), None, "its database has no file");

    let next = Started::new(&[], temporary.path());
    assert!(!left.exists());
    next.signal("-INT");
    assert_eq!(next.ends(), Some(0));
    assert_eq!(entries(temporary.path()), Vec::<PathBuf>::new());
}

/// The process id in the name of a temporary folder.
fn killed_id(appservices: &Path) -> String {
    let folder = appservices.parent().and_then(Path::file_name);
    let name = folder.expect("a name").to_string_lossy().into_owned();
    name.split('-').nth(2).expect("a process id").to_owned()
}

#[test]
fn a_folder_that_is_given_is_kept() {
    let (temporary, given) = (folder(), folder());
    let appservices = given.path().join("here");
    let path = appservices.display().to_string();
    let server = Started::new(&["--appservices", &path], temporary.path());
    assert_eq!(server.text("appservices"), path);
    server.signal("-TERM");
    assert_eq!(server.ends(), Some(0));
    assert!(appservices.is_dir());
    assert_eq!(entries(given.path()), [appservices]);
    assert_eq!(entries(temporary.path()), Vec::<PathBuf>::new());
}

/// Run a command against a server. Returns its exit code and what it printed.
fn tell(server: &Started, args: &[&str]) -> (Option<i32>, String) {
    let done = understudy()
        .args(args)
        .args(["--server", server.text("base_url")])
        .output()
        .expect("it runs");
    let text = [done.stdout, done.stderr].concat();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    (done.status.code(), text)
}

#[test]
fn each_route_for_tests_is_a_command_too() {
    let temporary = folder();
    let server = Started::new(&[], temporary.path());
    let says = |args: &[&str], expected: &str| {
        assert_eq!(tell(&server, args), (Some(0), expected.to_owned()));
    };
    says(&["snapshot"], r#"{"id":"1"}"#);
    says(&["restore", "1"], "{}");
    says(&["reset"], "{}");
    says(
        &[
            "faults",
            "add",
            "status=500",
            "--times",
            "2",
            "--service",
            "a",
        ],
        r#"{"id":1}"#,
    );
    let listed = r#"[{"id":1,"service":"a","fault":{"status":500},"times":2,"seed":0,"requests":0,"injected":0}]"#;
    says(&["faults"], listed);
    says(&["faults", "clear", "1"], r#"{"removed":1}"#);
    let (code, frozen) = tell(&server, &["clock", "freeze"]);
    assert!(
        code == Some(0) && frozen.contains(r#""frozen":true"#),
        "{frozen}"
    );
    says(&["clock"], &frozen);
    let (_, later) = tell(&server, &["clock", "advance", "5"]);
    assert_ne!(later, frozen);

    let fails = |args: &[&str], why: &str| {
        let (code, text) = tell(&server, args);
        println!("{text}");
        assert!(code == Some(1) && text.ends_with(why), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    };
    fails(&["restore", "9"], "404: there is no such snapshot");
    fails(&["retry", "a/b"], "404: no such application service");
    fails(
        &["faults", "add", "status=7"],
        "400: a status is a number from 200 to 599",
    );
    server.signal("-TERM");
    assert_eq!(server.ends(), Some(0));

    let nobody = ["reset", "--server", "http://127.0.0.1:1"];
    let output = understudy().args(nobody).output().expect("it runs");
    super::refuses(&output, "http://127.0.0.1:1: ");
}

#[test]
fn after_a_reset_the_users_have_the_tokens_that_were_printed() {
    use std::io::Write;
    let temporary = folder();
    let server = Started::new(&[], temporary.path());
    let token = server.ready["users"][0]["access_token"].as_str();
    let token = token.expect("a token").to_owned();
    for _ in 0..20 {
        let begun = std::time::Instant::now();
        assert_eq!(tell(&server, &["reset"]).0, Some(0));
        println!(
            "a reset, with the start of the command: {:?}",
            begun.elapsed()
        );
    }
    let mut stream = std::net::TcpStream::connect(server.text("address")).expect("it listens");
    let request = format!(
        "GET /_matrix/client/v3/account/whoami HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains("@alice:localhost"), "{answer}");
    server.signal("-TERM");
    assert_eq!(server.ends(), Some(0));
}
