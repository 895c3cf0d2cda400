//! Databases of earlier versions, stored as SQL. The present version must deliver the items that appservices are owed in these
//! databases.

use std::path::Path;

use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};

use crate::postgres;
use crate::stage::{new_database, on_postgres};

/// A database of an earlier version as SQL statements, for each engine.
#[derive(Debug, Clone, Copy)]
pub struct Stored {
    /// The statements for SQLite.
    pub sqlite: &'static str,
    /// The statements for PostgreSQL.
    pub postgres: &'static str,
}

impl Stored {
    /// Creates the database on the engine that the suite runs on. Returns its URL.
    ///
    /// # Panics
    /// If a statement fails.
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
