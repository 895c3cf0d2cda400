//! The temporary folder of a server: removed when the server ends, or by the next server if it could not remove it.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The start of the name of each temporary folder.
const PREFIX: &str = "understudy-dev-";

/// The file in a temporary folder that its server keeps locked.
const LOCK: &str = "lock";

/// A temporary folder that only this user can open. Dropping it removes it.
pub(crate) struct TemporaryFolder {
    path: PathBuf,
    /// Locked until the process ends, so that another server knows that the folder is used.
    _lock: File,
}

impl TemporaryFolder {
    /// Make a folder, and remove those of servers that were killed.
    ///
    /// # Errors
    /// A folder cannot be made below the system's folder for temporary files.
    pub(crate) fn make() -> io::Result<TemporaryFolder> {
        TemporaryFolder::below(&std::env::temp_dir())
    }

    fn below(folder: &Path) -> io::Result<TemporaryFolder> {
        remove_left_over(folder);
        for number in 0.. {
            let name = format!("{PREFIX}{}-{number}", std::process::id());
            // It has its real name only once it is locked: before, another server could take it for left over.
            let (new, path) = (folder.join(format!(".{name}")), folder.join(&name));
            match DirBuilder::new().mode(0o700).create(&new) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made?,
            }
            let lock = File::create(new.join(LOCK))?;
            lock.try_lock().map_err(io::Error::from)?;
            if std::fs::rename(&new, &path).is_ok() {
                return Ok(TemporaryFolder { path, _lock: lock });
            }
            std::fs::remove_dir_all(&new)?;
            if !path.exists() {
                break;
            }
        }
        Err(io::Error::other("the folder cannot be renamed"))
    }

    /// The path of the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // The next server that makes such a folder tries again.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Remove the folders whose server has ended. What cannot be removed stays.
fn remove_left_over(folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|e| e.file_name().to_string_lossy().starts_with(PREFIX)) {
        let lock = File::open(entry.path().join(LOCK));
        if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_removed_with_its_server_or_by_the_next_one() {
        let base = tempfile::tempdir().expect("a folder");
        let names = || std::fs::read_dir(base.path()).expect("a list").count();
        let first = TemporaryFolder::below(base.path()).expect("a folder");
        let second = TemporaryFolder::below(base.path()).expect("another");
        assert_eq!(names(), 2, "a folder in use stays");
        assert_ne!(first.path(), second.path());
        drop(second);
        assert_eq!(names(), 1);

        // A killed server: its lock is released and its folder stays.
        let killed = base.path().join(format!("{PREFIX}1-0"));
        std::fs::create_dir(&killed).expect("a folder");
        std::fs::write(killed.join(LOCK), "").expect("its lock");
        let third = TemporaryFolder::below(base.path()).expect("a folder");
        assert!(!killed.exists() && third.path().exists() && first.path().exists());
    }
}
