//! The folder of registration files: reads it, and watches it for changes.

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

/// The name of a file, with its registration or the reason why it has none.
pub type File = (String, Result<Registration, Broken>);

/// Every registration file of the folder, in order of name: `*.yaml` and `*.yml`, without hidden files.
///
/// # Errors
/// The folder cannot be read. A file that cannot be read has its error in the list.
pub fn read(folder: &Path) -> Result<Vec<File>, String> {
    let failed = |e: std::io::Error| format!("cannot read the folder of registrations: {e}");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().map(|n| n.to_string_lossy().into_owned()) else {
            continue;
        };
        let is_yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        // A file that was deleted since the folder was listed is skipped; a link without a target is an error.
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
/// The reason why it cannot be read, or that it is too large.
pub fn read_text(path: &Path) -> Result<String, String> {
    let file = std::fs::metadata(path).map_err(|e| e.to_string())?;
    if file.is_dir() {
        return Err("this is a folder; give the path of a file".to_owned());
    }
    let size = file.len();
    if size > LARGEST {
        return Err(format!("{size} bytes are too many for a registration"));
    }
    std::fs::read_to_string(path).map_err(|e| e.to_string())
}

/// How long the folder must be unchanged before it is read, so that many changes lead to one reading.
const QUIET: Duration = Duration::from_millis(25);

/// The longest time from a change of the folder until it is read, even while more changes follow.
const LONGEST: Duration = Duration::from_millis(500);

/// A watch on the folder, until it is dropped.
pub(super) struct FolderWatch {
    _watcher: RecommendedWatcher,
    moved: Arc<AtomicBool>,
}

impl FolderWatch {
    /// Send `to` a message whenever the folder changes; several changes at once lead to one message.
    pub(super) fn start(
        folder: &Path,
        to: Recipient<FolderChanged>,
    ) -> Result<FolderWatch, String> {
        let (nudge, nudges) = sync_channel(1);
        let moved = Arc::new(AtomicBool::new(false));
        let (itself, gone) = (folder.to_owned(), Arc::clone(&moved));
        let on_event = move |event: notify::Result<notify::Event>| {
            // An event that could not be parsed may have been a change.
            if event.as_ref().is_ok_and(|e| !matters(e)) {
                return;
            }
            if event.is_ok_and(|e| e.paths.contains(&itself)) {
                gone.store(true, Ordering::Release);
            }
            // A full channel already holds a message, which is enough.
            let _ = nudge.try_send(());
        };
        let mut watcher = notify::recommended_watcher(on_event).map_err(|e| e.to_string())?;
        let watch = watcher.watch(folder, RecursiveMode::NonRecursive);
        watch.map_err(|e| e.to_string())?;
        std::thread::Builder::new()
            .name("registrations".to_owned())
            .spawn(move || pass_on(&nudges, &to))
            .map_err(|e| e.to_string())?;
        Ok(FolderWatch {
            _watcher: watcher,
            moved,
        })
    }

    /// Whether the folder itself was removed or renamed. Another folder may then have its path, which is not watched.
    pub(super) fn is_over(&self) -> bool {
        self.moved.load(Ordering::Acquire)
    }
}

/// Wait until the folder is quiet, then send one message. This uses real time, since it waits for the operating system.
fn pass_on(nudges: &Receiver<()>, to: &Recipient<FolderChanged>) {
    while nudges.recv().is_ok() {
        let begun = Instant::now();
        while begun.elapsed() < LONGEST && nudges.recv_timeout(QUIET).is_ok() {}
        // Repeat if the mailbox is full, since no other message would report the change.
        while let Err(SendError::Full(_)) = to.try_send(FolderChanged) {
            std::thread::park_timeout(QUIET);
        }
    }
}

/// Whether an event may be a file that was created, changed, deleted or made readable. Where the system reports that a file was
/// closed after writing, only that counts, so a half-written file is not read. A link is complete when it is created.
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

/// Whether this is a link to a file.
fn is_link(path: &Path) -> bool {
    let is_link = |file: std::fs::Metadata| file.is_symlink() || file.nlink() > 1;
    path.symlink_metadata().is_ok_and(is_link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_no_readable_file_is_reported_as_a_problem() {
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
        for ((name, why), (file, expected)) in read.into_iter().zip(expected) {
            assert!(name == file && why.contains(expected), "{name}: {why}");
        }
        assert!(super::read(&path("nowhere")).is_err());
    }
}
