//! Reads the database directly, in plain SQL on a separate connection: the events, and the rows that wait.

use diesel::connection::SimpleConnection;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, SqliteConnection, sql_query};
use serde_json::Value;

use crate::model::Event;

pub(crate) enum Journal {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

#[derive(QueryableByName)]
struct EventRow {
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = Text)]
    event_id: String,
    #[diesel(sql_type = Text)]
    room_id: String,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Nullable<Text>)]
    state_key: Option<String>,
    #[diesel(sql_type = Text)]
    sender: String,
    #[diesel(sql_type = Text)]
    pdu: String,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    a: String,
    #[diesel(sql_type = Text)]
    b: String,
}

impl Journal {
    pub(crate) fn open(database: &str) -> Journal {
        match database.strip_prefix("sqlite:") {
            Some(path) => {
                let mut db = SqliteConnection::establish(path).expect("the database");
                db.batch_execute("PRAGMA busy_timeout = 10000")
                    .expect("a pragma");
                Journal::Sqlite(db)
            }
            None => Journal::Postgres(PgConnection::establish(database).expect("the database")),
        }
    }

    /// The room events at positions after `after`, and the position of the last of them.
    pub(crate) fn events(&mut self, after: i64) -> (Vec<Event>, i64) {
        let sql = format!(
            "SELECT position, event_id, room_id, kind, state_key, sender, pdu FROM events WHERE position > {after} ORDER BY position"
        );
        let rows: Vec<EventRow> = match self {
            Journal::Sqlite(db) => sql_query(sql).load(db),
            Journal::Postgres(db) => sql_query(sql).load(db),
        }
        .expect("the events");
        let last = rows.last().map_or(after, |row| row.position);
        let event = |row: EventRow| {
            let pdu: Value = serde_json::from_str(&row.pdu).unwrap_or_default();
            Event {
                id: row.event_id,
                room: row.room_id,
                kind: row.kind,
                state_key: row.state_key,
                sender: row.sender,
                content: pdu["content"].clone(),
            }
        };
        (rows.into_iter().map(event).collect(), last)
    }

    /// The rows of a query for two text columns named `a` and `b`.
    pub(crate) fn pairs(&mut self, sql: &str) -> Vec<(String, String)> {
        let rows: Vec<Row> = match self {
            Journal::Sqlite(db) => sql_query(sql).load(db),
            Journal::Postgres(db) => sql_query(sql).load(db),
        }
        .expect("the query runs");
        rows.into_iter().map(|row| (row.a, row.b)).collect()
    }

    /// Run a statement without the server's knowledge.
    pub(crate) fn execute(&mut self, sql: &str) {
        match self {
            Journal::Sqlite(db) => db.batch_execute(sql),
            Journal::Postgres(db) => db.batch_execute(sql),
        }
        .expect("the statement runs");
    }
}
