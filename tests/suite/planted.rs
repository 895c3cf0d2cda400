//! The patches that put repaired faults back, to show that the simulation finds them. Each must still apply.

use std::path::Path;
use std::process::Command;

#[test]
fn every_planted_fault_can_be_put_back() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    let folder = root.join("tests/simulation/planted");
    let mut patches: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder of planted faults")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "patch"))
        .collect();
    patches.sort();
    assert!(patches.len() > 20, "{patches:?}");
    let mut wrong = Vec::new();
    for patch in patches {
        let checked = Command::new("git")
            .args(["apply", "--check"])
            .arg(&patch)
            .current_dir(root)
            .output();
        let checked = match checked {
            Ok(checked) => checked,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("SKIPPED: there is no git, so no planted fault was looked at");
                return;
            }
            Err(error) => panic!("git does not run: {error}"),
        };
        if !checked.status.success() {
            let why = String::from_utf8_lossy(&checked.stderr).into_owned();
            wrong.push(format!("{}: {why}", patch.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "write these patches again, so that they put the same faults back:\n{}",
        wrong.join("\n")
    );
}
