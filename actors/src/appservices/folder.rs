//! The folder of registration files: reading it, and hearing of its changes from the operating system.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use crate::services::Registration;

use actix::Recipient;
use actix::prelude::SendError;
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::messages::FolderChanged;
use super::rules::parse::{self, Broken};

/// The largest registration file that is read, in bytes.
pub const LARGEST: u64 = 1 << 20;

/// A file's name, and its registration or why it has none.
pub type File = (String, Result<Registration, Broken>);

/// Every registration file of the folder, in order of name: `*.yaml` and `*.yml`, hidden ones left out.
///
/// # Errors
/// When the folder itself cannot be read. A file that cannot is its own problem.
pub fn read(folder: &Path) -> Result<Vec<File>, String> {
    let failed = |e: std::io::Error| format!("cannot read the folder of registrations: {e}");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().map(|n| n.to_string_lossy().into_owned()) else {
            continue;
        };
        let is_yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        // A file that has gone since the folder was listed is not there; a link to nowhere is.
        if is_yaml && !name.starts_with('.') && path.symlink_metadata().is_ok() {
            let text = read_text(&path).map_err(Broken::unreadable);
            files.push((name, text.and_then(|text| parse::read(&text))));
        }
    }
    files.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(files)
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

/// How long the folder must be quiet before it is read, so that many changes at once are read together.
const QUIET: Duration = Duration::from_millis(25);

/// However much happens, the folder is read this often at least.
const LONGEST: Duration = Duration::from_millis(500);

/// A watch on the folder, as long as it lives.
pub(super) struct Watch {
    _watcher: RecommendedWatcher,
    moved: Arc<AtomicBool>,
}

impl Watch {
    /// Tell `to` whenever the folder changes, once for many changes.
    pub(super) fn start(folder: &Path, to: Recipient<FolderChanged>) -> Result<Watch, String> {
        let (nudge, nudges) = sync_channel(1);
        let moved = Arc::new(AtomicBool::new(false));
        let (itself, gone) = (folder.to_owned(), Arc::clone(&moved));
        let heard = move |event: notify::Result<notify::Event>| {
            // What was not understood may have been anything.
            if event.as_ref().is_ok_and(|e| !matters(e)) {
                return;
            }
            if event.is_ok_and(|e| e.paths.contains(&itself)) {
                gone.store(true, Ordering::Release);
            }
            // One nudge that waits says as much as many.
            let _ = nudge.try_send(());
        };
        let mut watcher = notify::recommended_watcher(heard).map_err(|e| e.to_string())?;
        let watch = watcher.watch(folder, RecursiveMode::NonRecursive);
        watch.map_err(|e| e.to_string())?;
        std::thread::Builder::new()
            .name("registrations".to_owned())
            .spawn(move || pass_on(&nudges, &to))
            .map_err(|e| e.to_string())?;
        Ok(Watch {
            _watcher: watcher,
            moved,
        })
    }

    /// Whether the folder itself was removed or renamed: then another one may stand in its place, which is not watched.
    pub(super) fn is_over(&self) -> bool {
        self.moved.load(Ordering::Acquire)
    }
}

/// Wait until the folder is quiet, then say once that it changed. Real time: it is the operating system that is waited for.
fn pass_on(nudges: &Receiver<()>, to: &Recipient<FolderChanged>) {
    while nudges.recv().is_ok() {
        let begun = Instant::now();
        while begun.elapsed() < LONGEST && nudges.recv_timeout(QUIET).is_ok() {}
        // Where the mailbox is full it is tried again: a change that is not passed on would not be seen.
        while let Err(SendError::Full(_)) = to.try_send(FolderChanged) {
            std::thread::park_timeout(QUIET);
        }
    }
}

/// Whether a file may have come, changed or gone, or become readable. Where the system says when a writer is done, a half-written
/// file is not read; a link is whole when it is made.
fn matters(event: &notify::Event) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(_) | ModifyKind::Metadata(_))
        | EventKind::Remove(_) => true,
        EventKind::Access(_) => false,
        EventKind::Create(_) if cfg!(target_os = "linux") => event.paths.iter().any(|p| is_link(p)),
        _ => !cfg!(target_os = "linux"),
    }
}

/// Whether this is a second name of a file that is there already.
fn is_link(path: &Path) -> bool {
    let is_link = |file: std::fs::Metadata| file.is_symlink() || file.nlink() > 1;
    path.symlink_metadata().is_ok_and(is_link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_a_problem_of_its_own() {
        const GOOD: &str =
            "id: irc\nurl: null\nas_token: a\nhs_token: h\nsender_localpart: bot\nnamespaces: {}\n";
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("good.yaml"), GOOD).expect("written");
        std::fs::write(path(".hidden.yaml"), GOOD).expect("written");
        std::fs::write(path("note.txt"), GOOD).expect("written");
        std::fs::write(path("binary.yml"), [0xff, 0xfe]).expect("written");
        std::fs::write(path("large.yaml"), "#".repeat((1 << 20) + 1)).expect("written");
        std::fs::create_dir(path("folder.yaml")).expect("made");
        std::os::unix::fs::symlink(path("nowhere"), path("nowhere.yaml")).expect("made");
        std::os::unix::fs::symlink(path("good.yaml"), path("link.yaml")).expect("made");
        let files = read(folder.path()).expect("a folder");
        let read: Vec<(&str, &str)> = files
            .iter()
            .map(|(name, read)| match read {
                Ok(registration) => (name.as_str(), registration.id.as_str()),
                Err(broken) => (name.as_str(), broken.why.as_str()),
            })
            .collect();
        let expected = [
            ("binary.yml", "UTF-8"),
            ("folder.yaml", "a folder"),
            ("good.yaml", "irc"),
            ("large.yaml", "too many"),
            ("link.yaml", "irc"),
            ("nowhere.yaml", "No such file"),
        ];
        assert_eq!(read.len(), expected.len(), "{read:?}");
        for ((name, said), (file, words)) in read.into_iter().zip(expected) {
            assert!(name == file && said.contains(words), "{name}: {said}");
        }
        assert!(super::read(&path("nowhere")).is_err());
    }
}
