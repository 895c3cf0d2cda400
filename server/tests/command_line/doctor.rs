//! The doctor as a person meets it: what it prints, and how it ends.

use std::path::Path;

use super::{folder, refuses, understudy};

/// A registration that there is nothing to say about, but for what it lacks.
fn registration(id: &str, regex: &str) -> String {
    format!(
        "id: {id}\nurl: http://127.0.0.1:1\nas_token: {id}-as-token-0123456789\nhs_token: {id}-hs-token-0123456789\n\
         sender_localpart: {id}bot\nreceive_ephemeral: true\nde.sorunome.msc2409.push_ephemeral: true\norg.matrix.msc3202: true\n\
         namespaces:\n  users:\n    - exclusive: true\n      regex: '{regex}'\n"
    )
}

/// What the doctor prints about these files, how it ends, and what it says besides.
fn doctor(folder: &Path, files: &[&str], more: &[&str]) -> (Option<i32>, String, String) {
    let output = understudy()
        .current_dir(folder)
        .arg("doctor")
        .args(files)
        .args(more)
        .output()
        .expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn a_doctor_that_finds_nothing() {
    let folder = folder();
    std::fs::write(
        folder.path().join("irc.yaml"),
        registration("irc", "@irc_.*"),
    )
    .expect("written");
    let (code, said, complaint) = doctor(folder.path(), &["irc.yaml"], &["--offline", "--strict"]);
    assert_eq!(
        (code, said.as_str(), complaint.as_str()),
        (
            Some(0),
            "irc.yaml: fine\nno errors, no warnings, no notes\n",
            ""
        )
    );
    // Its service is not there.
    let (code, said, complaint) = doctor(folder.path(), &["irc.yaml"], &["--timeout", "20"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("no-connection: http://127.0.0.1:1 cannot be reached"),
        "{said}"
    );
    assert_eq!(complaint, "understudy: 1 error, no warnings, no notes\n");
}

#[test]
fn a_doctor_that_finds_something() {
    let folder = folder();
    let write =
        |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    write("irc.yaml", &registration("irc", "@irc_.*"));
    write("tg.yaml", &registration("tg", "@[a-z]+_.*"));
    write(
        "sure.yaml",
        &registration("sure", "@sure_.*").replace("sure-hs-token-0123456789", "short"),
    );
    write("words.yaml", "just words");
    std::fs::create_dir(folder.path().join("all")).expect("a folder");
    write("all/tg.yaml", &registration("tg", "@[a-z]+_.*"));
    let offline = &["--offline"][..];
    let cases: &[(&[&str], &[&str], i32, &str)] = &[
        (
            &["irc.yaml", "tg.yaml"],
            offline,
            1,
            "'@[a-z]+_.*' and '@irc_.*' of irc.yaml both claim",
        ),
        (
            &["irc.yaml"],
            &["--offline", "--appservices", "all"],
            1,
            "'@irc_.*' and '@[a-z]+_.*' of tg.yaml both claim",
        ),
        // A file of the folder is not its own neighbour.
        (
            &["all/tg.yaml"],
            &["--offline", "--appservices", "all"],
            0,
            "all/tg.yaml: fine",
        ),
        (&["sure.yaml"], offline, 0, "short-token"),
        (&["sure.yaml"], &["--offline", "--strict"], 1, "short-token"),
        (&["words.yaml"], offline, 1, "unreadable"),
        (&["gone.yaml"], offline, 1, "unreadable: No such file"),
        (&["all"], offline, 1, "unreadable: this is a folder"),
        (
            &["irc.yaml"],
            &["--offline", "--server-name", "example.org"],
            0,
            "irc.yaml: fine",
        ),
    ];
    for (files, more, code, words) in cases {
        let (ended, said, complaint) = doctor(folder.path(), files, more);
        assert_eq!(ended, Some(*code), "{files:?} {more:?}: {said}{complaint}");
        assert!(said.contains(words), "{files:?} {more:?}: {said}");
        assert_eq!(
            complaint.lines().count(),
            usize::from(*code == 1),
            "{complaint}"
        );
    }
    let (code, said, _) = doctor(
        folder.path(),
        &["irc.yaml", "tg.yaml"],
        &["--offline", "--json"],
    );
    let report: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &report["errors"]), (Some(1), &1.into()));
    assert_eq!(
        (
            &report["findings"][0]["code"],
            &report["findings"][0]["file"]
        ),
        (&"overlap".into(), &"tg.yaml".into())
    );
}

#[test]
fn a_doctor_that_is_asked_what_it_does_not_know() {
    let folder = folder();
    let file = folder.path().join("irc.yaml");
    std::fs::write(&file, registration("irc", "@irc_.*")).expect("written");
    let ask = |more: &[&str]| {
        let mut command = understudy();
        command.arg("doctor").arg(&file).arg("--offline").args(more);
        command.output().expect("it runs")
    };
    refuses(&ask(&["--server-name", "not a name"]), "server name");
    refuses(&ask(&["--appservices", "/nowhere"]), "/nowhere");
    refuses(
        &ask(&["--config", "/nowhere/server.toml"]),
        "/nowhere/server.toml",
    );
    for wrong in [
        &["--framework", "none"][..],
        &["--timeout", "0"],
        &["--config", "a", "--server-name", "b"],
    ] {
        let output = ask(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("error: "),
            "{wrong:?}"
        );
    }
    let nothing = understudy().arg("doctor").output().expect("it runs");
    assert_eq!(nothing.status.code(), Some(2));
}

#[test]
fn a_doctor_that_reads_the_servers_configuration() {
    let folder = folder();
    let write =
        |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    std::fs::create_dir(folder.path().join("all")).expect("a folder");
    write("all/tg.yaml", &registration("tg", "@[a-z]+_.*"));
    write("irc.yaml", &registration("irc", r"@irc_.*:elsewhere"));
    write(
        "server.toml",
        "server_name = \"example.org\"\nappservices = \"all\"\n",
    );
    let (code, said, _) = doctor(
        folder.path(),
        &["irc.yaml"],
        &["--offline", "--config", "server.toml"],
    );
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("matches-nobody: users: '@irc_.*:elsewhere' matches nobody: it matches ids of other servers"), "{said}");
}
