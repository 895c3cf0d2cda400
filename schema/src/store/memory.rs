//! A database in memory: SQLite files on a memory file system, in a private folder that is removed as soon as every connection has
//! them open. Nothing is left behind, however the process ends.
//!
//! SQLite has databases in memory of its own (`vfs=memdb`). Measured beside this, they answered as many writes per second, within
//! what varies from run to run. But they have no write-ahead log, so that a reader waits for the writer, and cannot be filled with a
//! copy.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Position;

/// The state in which a database in memory starts.
#[derive(Clone)]
pub struct Image {
    /// What [`Store::image`](crate::Store::image) returned, or `None` for an empty database.
    pub bytes: Option<Arc<[u8]>>,
    /// The next position is above this one, so that no position of an earlier database is used again.
    pub above: Position,
}

/// A private folder with the files of the database. Dropping it removes the names of the files; the connections keep the files.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes the folder, and in it the file of the database with this content.
    pub(crate) fn with(bytes: Option<&[u8]>) -> io::Result<Folder> {
        let memory = Path::new("/dev/shm");
        let folder = make(memory).or_else(|_| make(&std::env::temp_dir()))?;
        if let Some(bytes) = bytes {
            std::fs::write(folder.file(), bytes)?;
        } else {
            File::create(folder.file())?;
        }
        Ok(folder)
    }

    /// The path of the database.
    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("understudy.db")
    }
}

/// Makes a folder that only this user can open.
fn make(below: &Path) -> io::Result<Folder> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = below.join(format!("understudy-db-{}-{number}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(Folder(folder)),
            // A process that was killed while it opened its database had the same id.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that cannot be removed costs a little memory, and nothing else.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
