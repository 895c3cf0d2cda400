//! Writes files that only their owner may read, because they hold tokens and passwords.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Owner: read and write; others: nothing.
const MODE: u32 = 0o600;

/// Write a file atomically.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = options().truncate(true).open(&new)?;
    // A file left by an interrupted write keeps its old mode, so set it again.
    restrict(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

/// Remove the access of other users to an existing file.
pub(crate) fn restrict(path: &Path) -> io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))
}

/// Create the file of an SQLite database, if it is missing, before SQLite creates it with the default mode. The files that SQLite
/// creates beside it take the same mode. The mode of an existing file is left alone.
pub(crate) fn make_database(url: &str) -> io::Result<()> {
    let Some(path) = url.strip_prefix("sqlite:").filter(|p| *p != ":memory:") else {
        return Ok(());
    };
    let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
    match options().create_new(true).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn options() -> OpenOptions {
    let mut options = File::options();
    options.write(true).create(true).mode(MODE);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        let found = std::fs::metadata(path).expect("a file");
        found.permissions().mode() & 0o777
    }

    #[test]
    fn what_is_written_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let people = folder.path().join("people.json");
        std::fs::write(&people, "old").expect("a file");
        std::fs::write(folder.path().join("people.json.new"), "left behind").expect("a file");
        write(&people, "new").expect("is written");
        assert_eq!(mode(&people), MODE);
        assert_eq!(std::fs::read_to_string(&people).expect("text"), "new");

        let database = folder.path().join("understudy.db");
        let url = format!("sqlite:{}", database.display());
        make_database(&url).expect("is made");
        assert_eq!(mode(&database), MODE);
        std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o640)).expect("mode");
        make_database(&url).expect("is there");
        assert_eq!(mode(&database), 0o640, "the operator's choice");
        make_database("postgres://localhost/understudy").expect("nothing to make");
    }
}
