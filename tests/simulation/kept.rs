//! The schedules that failed before. Each file in `kept/` is one: its first line holds the promise that it broke and the reason,
//! and each further line holds a step, as a failure prints it.

use std::path::Path;

use crate::Named;
use crate::steps::Step;

/// All kept schedules, sorted by name.
pub(crate) fn all() -> Vec<Named> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("simulation/kept");
    let files = std::fs::read_dir(&folder).expect("the folder of kept schedules");
    let mut paths: Vec<_> = files
        .map(|file| file.expect("an entry of the folder").path())
        .collect();
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Named {
    let name = path.file_stem().map(|name| name.to_string_lossy());
    let name = name.expect("a name").into_owned();
    let text = std::fs::read_to_string(path).expect("a file of text");
    let step = |line: &str| {
        Step::parse(line).unwrap_or_else(|| panic!("kept/{name}.txt: {line:?} is not a step"))
    };
    let lines = text.lines().skip(1).filter(|line| !line.is_empty());
    let steps = lines.map(step).collect();
    Named {
        again: format!(
            "KEPT={name} cargo test -p understudy-tests --test simulation -- --nocapture"
        ),
        name,
        steps,
    }
}
