//! Both engines have the same tables, and frequent queries use indexes. Reads the catalogues of the databases.

#[path = "../../../tests/src/postgres.rs"]
#[expect(unreachable_pub, reason = "the kit shows it to its own suite")]
mod postgres;

mod hot_queries;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use schema::{OpenError, Store, StoreOptions};

const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");

#[derive(QueryableByName)]
struct Column {
    #[diesel(sql_type = Text)]
    table_name: String,
    #[diesel(sql_type = Text)]
    column_name: String,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Bool)]
    required: bool,
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

/// Table → column → type, and whether it is NOT NULL.
type Shape = BTreeMap<String, BTreeMap<String, (String, bool)>>;

fn shape(columns: Vec<Column>) -> Shape {
    let mut shape = Shape::new();
    for column in columns {
        let kind = match column.kind.to_uppercase().as_str() {
            "INTEGER" | "BIGINT" => "BigInt",
            "BOOLEAN" => "Bool",
            "TEXT" => "Text",
            other => panic!(
                "{}.{}: {other}: only text, big integers and booleans are stored",
                column.table_name, column.column_name
            ),
        };
        shape
            .entry(column.table_name)
            .or_default()
            .insert(column.column_name, (kind.to_owned(), column.required));
    }
    shape.remove("__diesel_schema_migrations");
    shape
}

fn sqlite() -> (tempfile::TempDir, SqliteConnection) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut c = SqliteConnection::establish(&folder.path().join("db").to_string_lossy())
        .expect("a database");
    c.run_pending_migrations(SQLITE).expect("migrations");
    (folder, c)
}

fn sqlite_shape(c: &mut SqliteConnection) -> Shape {
    let sql = "SELECT m.name AS table_name, p.name AS column_name, p.type AS kind, p.\"notnull\" <> 0 AS required \
               FROM sqlite_master m JOIN pragma_table_info(m.name) p \
               WHERE m.type = 'table' AND m.name NOT LIKE '\\_\\_%' ESCAPE '\\'";
    shape(diesel::sql_query(sql).load(c).expect("the catalogue"))
}

fn postgres_connection() -> PgConnection {
    let mut c = PgConnection::establish(&postgres::new_database()).expect("a database");
    c.run_pending_migrations(POSTGRES).expect("migrations");
    c
}

fn postgres_shape(c: &mut PgConnection) -> Shape {
    let sql = "SELECT table_name::text, column_name::text, data_type::text AS kind, is_nullable = 'NO' AS required \
               FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> '__diesel_schema_migrations'";
    shape(diesel::sql_query(sql).load(c).expect("the catalogue"))
}

/// The tables that `tables.rs` declares.
fn declared() -> Shape {
    let mut shape = Shape::new();
    let mut table = String::new();
    for line in include_str!("../../src/tables.rs").lines().map(str::trim) {
        if let Some((column, kind)) = line.strip_suffix(',').and_then(|l| l.split_once(" -> ")) {
            let (kind, required) = match kind
                .strip_prefix("Nullable<")
                .and_then(|k| k.strip_suffix('>'))
            {
                Some(inner) => (inner, false),
                None => (kind, true),
            };
            shape
                .entry(table.clone())
                .or_default()
                .insert(column.to_owned(), (kind.to_owned(), required));
        } else if line.ends_with(") {") {
            table = line.split(' ').next().expect("a name").to_owned();
        }
    }
    shape
}

#[test]
fn both_engines_have_the_tables_that_are_declared() {
    let (_folder, mut lite) = sqlite();
    let lite = sqlite_shape(&mut lite);
    assert_eq!(
        lite,
        declared(),
        "tables.rs declares what the migrations create on SQLite"
    );
    assert_eq!(
        postgres_shape(&mut postgres_connection()),
        lite,
        "PostgreSQL has the same tables"
    );
}

#[test]
fn both_engines_have_the_same_keys_and_indexes() {
    /// The columns of each index and primary key, with its table. Names of primary keys depend on the engine and are left out.
    fn lines(found: Vec<Line>) -> BTreeSet<String> {
        found
            .into_iter()
            .map(|l| l.line)
            .filter(|l| !l.starts_with("__diesel"))
            .collect()
    }
    let (_folder, mut c) = sqlite();
    let sql = "SELECT m.name || '(' || (SELECT group_concat(name, ',') FROM (SELECT name FROM pragma_index_info(i.name) ORDER BY seqno)) \
               || ')' AS line FROM sqlite_master m JOIN pragma_index_list(m.name) i WHERE m.type = 'table' \
               UNION SELECT m.name || '(' || p.name || ')' FROM sqlite_master m JOIN pragma_table_info(m.name) p \
               WHERE m.type = 'table' AND p.pk = 1 AND NOT EXISTS (SELECT 1 FROM pragma_table_info(m.name) q WHERE q.pk = 2)";
    let lite = lines(diesel::sql_query(sql).load(&mut c).expect("the catalogue"));
    let sql = "SELECT t.relname || '(' || string_agg(a.attname, ',' ORDER BY k.n) || ')' AS line FROM pg_index i \
               JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace s ON s.oid = t.relnamespace AND s.nspname = 'public' \
               CROSS JOIN LATERAL unnest(i.indkey::int[]) WITH ORDINALITY AS k(att, n) \
               JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.att GROUP BY i.indexrelid, t.relname";
    let post = lines(
        diesel::sql_query(sql)
            .load(&mut postgres_connection())
            .expect("the catalogue"),
    );
    assert_eq!(lite, post);
}

#[test]
fn text_is_compared_by_its_bytes_on_postgresql() {
    let sql = "SELECT table_name || '.' || column_name AS line FROM information_schema.columns WHERE table_schema = 'public' \
               AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'";
    let wrong: Vec<Line> = diesel::sql_query(sql)
        .load(&mut postgres_connection())
        .expect("the catalogue");
    let wrong: Vec<_> = wrong.into_iter().map(|l| l.line).collect();
    assert!(wrong.is_empty(), "without COLLATE \"C\": {wrong:?}");
}

#[test]
fn migrations_go_down_and_up_again() {
    let (_folder, mut lite) = sqlite();
    let before = sqlite_shape(&mut lite);
    lite.revert_all_migrations(SQLITE).expect("down");
    assert!(sqlite_shape(&mut lite).is_empty());
    lite.run_pending_migrations(SQLITE).expect("up");
    assert_eq!(sqlite_shape(&mut lite), before);

    let mut post = postgres_connection();
    post.revert_all_migrations(POSTGRES).expect("down");
    assert!(postgres_shape(&mut post).is_empty());
    post.run_pending_migrations(POSTGRES).expect("up");
    assert_eq!(postgres_shape(&mut post), before);
}

#[test]
fn a_database_of_a_newer_version_is_refused() {
    let newer = "INSERT INTO __diesel_schema_migrations (version) VALUES ('99999999')";
    let (folder, mut c) = sqlite();
    c.batch_execute(newer).expect("a migration from the future");
    drop(c);
    let url = postgres::new_database();
    let mut c = PgConnection::establish(&url).expect("a database");
    c.run_pending_migrations(POSTGRES).expect("migrations");
    c.batch_execute(newer).expect("a migration from the future");
    for url in [
        format!("sqlite:{}", folder.path().join("db").display()),
        url,
    ] {
        let error = Store::open(&url, &StoreOptions::default())
            .err()
            .expect("it is refused");
        assert!(
            matches!(&error, OpenError::Newer(_, version) if version == "99999999"),
            "{error}"
        );
        assert!(!error.to_string().contains('\n'), "one line: {error}");
    }
}

#[test]
fn one_server_per_postgresql_database() {
    let url = postgres::new_database();
    let options = StoreOptions {
        lock_wait: Duration::ZERO,
        ..StoreOptions::default()
    };
    let first = Store::open(&url, &options).expect("the first");
    assert!(matches!(
        Store::open(&url, &options),
        Err(OpenError::InUse(_))
    ));
    first.close();
    let again = StoreOptions {
        lock_wait: Duration::from_secs(5),
        ..StoreOptions::default()
    };
    assert!(Store::open(&url, &again).is_ok(), "it lets go");
}

#[test]
fn a_writer_that_lost_its_connection_ends_the_process_and_nothing_answered_is_lost() {
    let url = postgres::new_database();
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let fatal = move |why: &str| {
        let _ = tell.lock().map(|t| t.send(why.to_owned()));
    };
    let options = StoreOptions {
        fatal: std::sync::Arc::new(fatal),
        ..StoreOptions::default()
    };
    let store = Store::open(&url, &options).expect("the store");
    let wait = |write| {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
            .block_on(write)
    };
    let put = |key: &'static str| {
        store.write(move |tx| {
            schema::scratch::put(tx, &schema::scratch::ScratchRow::new(1, key, "1"))
        })
    };
    wait(put("answered")).expect("a write");

    let mut c = PgConnection::establish(&url).expect("another connection");
    c.batch_execute(
        "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
         WHERE l.locktype = 'advisory' AND d.datname = current_database()",
    )
    .expect("the writer's session is ended");
    assert!(wait(put("refused")).is_err(), "the write fails");
    let why = told
        .recv_timeout(Duration::from_secs(10))
        .expect("the process is told to end");
    assert!(why.contains("lost"), "{why}");

    let again = Store::open(&url, &StoreOptions::default()).expect("it starts again");
    let kept = wait_read(&again, "answered");
    assert!(kept.is_some() && wait_read(&again, "refused").is_none());
}

#[test]
fn a_statement_that_fails_fails_its_own_write_alone() {
    let store =
        Store::open(&postgres::new_database(), &StoreOptions::default()).expect("the store");
    let (go, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let first = store.write(move |_| {
        // Waits until the writes below are queued, so that they share a transaction.
        let _ = held.lock().map(|held| held.recv());
        Ok::<_, schema::Error>(())
    });
    let writes: Vec<_> = (0..40)
        .map(|i| {
            // Too large for a row of the index, and not compressible.
            let mut state = 1_u64;
            let long = (0..if i == 20 { 3_000 } else { 0 }).map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                char::from(b'a' + u8::try_from(state % 26).unwrap_or_default())
            });
            let key = format!("{i}{}", long.collect::<String>());
            store.write(move |tx| {
                schema::scratch::put(tx, &schema::scratch::ScratchRow::new(1, &key, "1"))?;
                Ok::<_, schema::Error>(tx.next_position())
            })
        })
        .collect();
    drop(go);
    let answers = async {
        first.await.expect("the first write");
        let mut last = schema::Position::START;
        for (i, write) in writes.into_iter().enumerate() {
            match write.await {
                Ok(position) => {
                    assert!(i != 20 && position > last);
                    last = position;
                }
                Err(error) => assert!(i == 20 && !error.is_temporary(), "{i}: {error}"),
            }
        }
    };
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(answers);
}

#[test]
fn a_reader_whose_session_ended_starts_another_and_refuses_no_read() {
    let url = postgres::new_database();
    let store = Store::open(&url, &StoreOptions::default()).expect("the store");
    for _ in 0..3 {
        postgres::query(
            &url,
            "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a WHERE a.datname = current_database() \
             AND a.pid <> pg_backend_pid() AND NOT EXISTS \
             (SELECT 1 FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'advisory')",
        );
        for _ in 0..10 {
            assert!(wait_read(&store, "nothing").is_none());
        }
    }
}

fn wait_read(store: &Store, key: &'static str) -> Option<String> {
    let read = store.read(move |db| schema::scratch::get(db, 1, key));
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(read)
        .expect("a read")
        .map(|row| row.value)
}

#[test]
fn slow_reads_leave_a_reader_to_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", folder.path().join("db").display());
    let store = Store::open(&url, &StoreOptions::default()).expect("it opens");
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Arc::new(std::sync::Mutex::new(gate));
    // Each waits until the sender is dropped.
    let slow: Vec<_> = (0..4)
        .map(|n| {
            let gate = std::sync::Arc::clone(&gate);
            store.read_slow(move |_| {
                let _ = gate.lock().map(|gate| gate.recv());
                Ok::<_, schema::Error>(n)
            })
        })
        .collect();
    for _ in 0..3 {
        assert_eq!(wait_read(&store, "nothing"), None);
    }
    drop(open);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    for (n, read) in slow.into_iter().enumerate() {
        assert_eq!(runtime.block_on(read).expect("a read"), n);
    }
}
