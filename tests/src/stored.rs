//! Databases that an earlier version left, kept as SQL: what it was owed then must be delivered by the version of now.

use std::path::Path;

use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};

use crate::postgres;
use crate::stage::{new_database, on_postgres};

/// A database as an earlier version wrote it, for each engine: statements that make its tables and rows.
#[derive(Debug, Clone, Copy)]
pub struct Stored {
    /// For SQLite.
    pub sqlite: &'static str,
    /// For PostgreSQL.
    pub postgres: &'static str,
}

impl Stored {
    /// Make it anew on the engine that the suite runs on, and answer its URL.
    ///
    /// # Panics
    /// When the engine refuses it.
    #[must_use]
    pub fn restore(self, folder: &Path) -> String {
        let url = new_database(folder);
        if on_postgres() {
            postgres::query(&url, self.postgres);
        } else {
            let path = url.trim_start_matches("sqlite:");
            let mut database = SqliteConnection::establish(path).expect("a new file");
            database.batch_execute(self.sqlite).expect("the statements");
        }
        url
    }
}
