//! The binary as a person meets it: what it says when it starts, why it does not, and how it ends.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{folder, refuses, understudy};

fn dev(data: &Path, listen: &str) -> Command {
    let mut command = understudy();
    command.arg("--data").arg(data).args(["--listen", listen]);
    command
}

#[test]
fn sigterm_ends_it_cleanly_even_when_nobody_reads_what_it_says() {
    let data = folder();
    let mut server = dev(data.path(), "127.0.0.1:0")
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    let mut words = BufReader::new(server.stdout.take().expect("its words"));
    words.read_line(&mut line).expect("a line");
    drop(words);
    assert!(line.starts_with("understudy is ready at http://127.0.0.1:"));
    let killed = Command::new("kill")
        .args(["-TERM", &server.id().to_string()])
        .status()
        .expect("a signal can be sent");
    assert!(killed.success());
    let ended = server.wait().expect("it ends");
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn what_holds_passwords_and_tokens_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let data = folder();
    let mut server = dev(data.path(), "127.0.0.1:0")
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    let mut words = BufReader::new(server.stdout.take().expect("its words"));
    words.read_line(&mut line).expect("a line");
    assert!(line.contains("is ready at"), "{line}");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(data.path()).expect("the folder") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        let mode = entry.metadata().expect("its mode").permissions().mode();
        if name == "people.json" || name.starts_with("understudy.db") && !name.ends_with("lock") {
            assert_eq!(mode & 0o777, 0o600, "{name}");
            found.push(name);
        }
    }
    server.kill().expect("it can be ended");
    server.wait().expect("it ends");
    assert!(
        found.len() >= 3,
        "the people, the database and its log: {found:?}"
    );
}

#[test]
fn a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let data = folder();
    let output = dev(data.path(), &address).output().expect("it runs");
    refuses(&output, &address);
}

#[test]
fn a_folder_that_cannot_be_made() {
    let data = folder();
    let file = data.path().join("file");
    std::fs::write(&file, "").expect("written");
    let output = dev(&file.join("below"), "127.0.0.1:0")
        .output()
        .expect("it runs");
    refuses(&output, &file.display().to_string());
}

#[test]
fn an_address_that_others_can_reach() {
    let data = folder();
    let output = dev(data.path(), "0.0.0.0:0").output().expect("it runs");
    refuses(&output, "--allow-remote");
}

#[test]
fn a_proposal_that_nobody_knows() {
    let data = folder();
    let output = dev(data.path(), "127.0.0.1:0")
        .args(["--enable-msc", "1"])
        .output()
        .expect("it runs");
    refuses(&output, "proposal 1 is not known");
}

#[test]
fn an_experiment_that_nobody_knows() {
    let data = folder();
    let output = dev(data.path(), "127.0.0.1:0")
        .args(["--enable-experiment", "telepathy"])
        .output()
        .expect("it runs");
    refuses(&output, "experiment \"telepathy\" is not known");
    let config = data.path().join("server.toml");
    std::fs::write(
        &config,
        "server_name = \"a\"\nexperiments = [\"telepathy\"]",
    )
    .expect("written");
    let output = understudy()
        .args(["serve", "--config"])
        .arg(&config)
        .output()
        .expect("it runs");
    refuses(&output, "experiment \"telepathy\" is not known");
}

#[test]
fn a_configuration_file_that_is_not_there() {
    let output = understudy()
        .args(["serve", "--config", "/nowhere/server.toml"])
        .output()
        .expect("it runs");
    refuses(&output, "/nowhere/server.toml");
}

#[test]
fn who_may_observe_is_said_by_the_log_and_by_the_list() {
    let data = folder();
    let appservices = data.path().join("appservices");
    std::fs::create_dir(&appservices).expect("a folder");
    for id in ["mirror", "nosy"] {
        let registration = format!(
            "{{id: {id}, url: null, as_token: {id}, hs_token: h, sender_localpart: {id}bot, \
             namespaces: {{users: [{{exclusive: false, regex: '@.*'}}]}}}}"
        );
        std::fs::write(appservices.join(format!("{id}.yaml")), registration).expect("written");
    }
    let config = data.path().join("server.toml");
    let database = data.path().join("understudy.db");
    let text = format!(
        "server_name = \"test\"\nlisten = \"127.0.0.1:0\"\ndatabase = \"sqlite:{}\"\nappservices = \"{}\"\n\
         observe = [\"mirror\", \"mirorr\"]\n",
        database.display(),
        appservices.display()
    );
    std::fs::write(&config, text).expect("written");

    let mut server = understudy()
        .args(["serve", "--config"])
        .arg(&config)
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let log = BufReader::new(server.stderr.take().expect("its log"));
    let mut said = Vec::new();
    for line in log.lines() {
        let line = line.expect("a line");
        let ready = line.contains("ready");
        said.push(line);
        if ready {
            break;
        }
    }
    let stopped = Command::new("kill")
        .args(["-TERM", &server.id().to_string()])
        .status()
        .expect("a signal can be sent");
    assert!(stopped.success());
    server.wait().expect("it ends");
    let line = |words: &[&str]| said.iter().any(|l| words.iter().all(|w| l.contains(w)));
    assert!(
        line(&["WARN", "mirror", "because observe permits it"]),
        "{said:?}"
    );
    assert!(
        line(&["nosy", "add it to observe to permit that"]),
        "{said:?}"
    );
    assert!(line(&["WARN", "mirorr", "not registered"]), "{said:?}");

    let list = understudy()
        .args(["appservices", "--config"])
        .arg(&config)
        .output()
        .expect("it runs");
    let list = String::from_utf8_lossy(&list.stdout);
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 3, "{list}");
    assert!(
        lines[0].starts_with("mirror ") && lines[0].ends_with("observes @.*"),
        "{list}"
    );
    assert!(
        lines[1].starts_with("nosy ") && lines[1].contains("does not grant"),
        "{list}"
    );
    assert_eq!(
        lines[2],
        "mirorr  observe names it, and it is not registered"
    );
}

/// Read what a server says until it has said all of these, and end it.
fn hears(server: &mut std::process::Child, said: impl std::io::Read, words: &[&str]) {
    let mut left: Vec<&str> = words.to_vec();
    let mut heard = Vec::new();
    for line in BufReader::new(said).lines() {
        let line = line.expect("a line");
        left.retain(|word| !line.contains(word));
        heard.push(line);
        if left.is_empty() {
            break;
        }
    }
    let _ = server.kill();
    let _ = server.wait();
    assert!(left.is_empty(), "{left:?} was not said: {heard:?}");
}

#[test]
fn a_server_starts_with_a_broken_registration_and_says_so() {
    let data = folder();
    let appservices = data.path().join("appservices");
    std::fs::create_dir(&appservices).expect("a folder");
    std::fs::write(appservices.join("new.yaml"), "id: [").expect("written");
    let mut server = dev(data.path(), "127.0.0.1:0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let said = server.stdout.take().expect("its words");
    let line = "REGISTRATION NOT TAKEN: new.yaml: ";
    hears(&mut server, said, &["is ready at", line]);

    let config = data.path().join("server.toml");
    let text = format!(
        "server_name = \"localhost\"\nlisten = \"127.0.0.1:0\"\ndatabase = \"sqlite:{}\"\nappservices = \"{}\"\n",
        data.path().join("understudy.db").display(),
        appservices.display()
    );
    std::fs::write(&config, text).expect("written");
    let mut server = understudy()
        .args(["serve", "--config"])
        .arg(&config)
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let said = server.stderr.take().expect("its log");
    let words = ["new.yaml", "nothing is in force from it", "ready"];
    hears(&mut server, said, &words);

    let list = understudy()
        .args(["appservices", "--config"])
        .arg(&config)
        .output()
        .expect("it runs");
    let list = String::from_utf8_lossy(&list.stdout);
    assert!(list.contains("new.yaml: "), "{list}");
}
