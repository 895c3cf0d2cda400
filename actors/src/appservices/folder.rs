//! The folder of registration files: reading it, and hearing of its changes from the operating system.

use std::path::Path;

use actix::Recipient;
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use schema::registration::Registration;

use super::FolderChanged;
use super::rules::parse;

/// The largest registration file that is read, in bytes.
pub const LARGEST: u64 = 1 << 20;

/// A file's name, and its registration or why it has none.
pub type File = (String, Result<Registration, String>);

/// Every registration file of the folder, in order of name: `*.yaml` and `*.yml`, hidden ones left out.
///
/// # Errors
/// When the folder itself cannot be read. A file that cannot is its own problem.
pub fn read(folder: &Path) -> Result<Vec<File>, String> {
    let failed = |e: std::io::Error| {
        format!(
            "{}: cannot read the folder of registrations: {e}",
            folder.display()
        )
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path
            .file_name()
            .and_then(|n| n.to_str())
            .map(ToOwned::to_owned)
        else {
            continue;
        };
        let is_yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        if is_yaml && !name.starts_with('.') {
            files.push((name, read_file(&path)));
        }
    }
    files.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(files)
}

fn read_file(path: &Path) -> Result<Registration, String> {
    parse(&read_text(path)?)
}

/// The text of a registration file.
///
/// # Errors
/// Why it cannot be read, or that it is too large to be one.
pub fn read_text(path: &Path) -> Result<String, String> {
    let file = std::fs::metadata(path).map_err(|e| e.to_string())?;
    if file.is_dir() {
        return Err("this is a folder; name the files in it".to_owned());
    }
    let size = file.len();
    if size > LARGEST {
        return Err(format!("{size} bytes are too many for a registration"));
    }
    std::fs::read_to_string(path).map_err(|e| e.to_string())
}

/// Tell `to` whenever the folder changes, as long as the watcher lives.
pub(super) fn watch(
    folder: &Path,
    to: Recipient<FolderChanged>,
) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|e| matters(e.kind)) {
            // A nudge: a full mailbox of nudges is simply awake.
            let _ = to.try_send(FolderChanged);
        }
    })?;
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Whether a file may have come, changed or gone. Where the system says when a writer is done, a half-written file is not read.
fn matters(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(_))
        | EventKind::Remove(_) => true,
        EventKind::Access(_) => false,
        _ => !cfg!(target_os = "linux"),
    }
}
