//! What the migrations do with the rows of an older version, on both engines.

#[path = "../../tests/src/postgres.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "the kit shows it to its own suite, which uses more of it"
)]
mod postgres;

use diesel::connection::SimpleConnection;
use diesel::migration::{Migration, MigrationSource};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// Runs the migrations whose version is `wanted`.
fn run<DB: diesel::backend::Backend>(
    c: &mut impl MigrationHarness<DB>,
    migrations: EmbeddedMigrations,
    wanted: impl Fn(&str) -> bool,
) {
    // Creates the table in which diesel records the migrations that have run.
    c.applied_migrations()
        .expect("the migrations that have run");
    let mut all: Vec<Box<dyn Migration<DB>>> = migrations.migrations().expect("migrations");
    all.sort_by_key(|m| m.name().version().as_owned());
    for migration in all {
        if wanted(&migration.name().version().to_string()) {
            c.run_migration(&*migration).expect("a migration");
        }
    }
}

#[derive(Debug, PartialEq, QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    user_id: String,
    #[diesel(sql_type = BigInt)]
    left_at: i64,
    #[diesel(sql_type = BigInt)]
    forgotten_at: i64,
}

/// The statements that insert member events of a room, from position 10 on, for each user its memberships one after the other;
/// and the row of each user's last membership.
fn rows() -> String {
    let users: [(&str, &[&str], bool); 6] = [
        ("@joined:test", &["join", "leave", "join"], false),
        ("@left:test", &["invite", "join", "join", "leave"], false),
        (
            "@banned:test",
            &["join", "leave", "invite", "leave", "ban"],
            false,
        ),
        ("@declined:test", &["invite", "leave"], false),
        ("@forgot:test", &["join", "leave"], true),
        ("@invited:test", &["join", "leave", "invite"], false),
    ];
    let (mut sql, mut position) = (String::new(), 9);
    for (user, memberships, forgotten) in users {
        for membership in memberships {
            position += 1;
            sql += &format!(
                "INSERT INTO events (position, event_id, room_id, kind, state_key, sender, origin_server_ts, pdu) VALUES \
                 ({position}, '$e{position}', '!r:test', 'm.room.member', '{user}', '{user}', 0, \
                 '{{\"content\":{{\"membership\":\"{membership}\"}}}}');"
            );
        }
        let last = memberships.last().expect("a membership");
        sql += &format!(
            "INSERT INTO memberships (room_id, user_id, membership, position, event_id, sender, forgotten) VALUES \
             ('!r:test', '{user}', '{last}', {position}, '$e{position}', '{user}', {forgotten});"
        );
    }
    sql
}

#[test]
fn a_migrated_membership_has_the_positions_at_which_its_user_left_and_forgot_the_room() {
    let is_before = |version: &str| version < "0007";
    let look = "SELECT user_id, left_at, forgotten_at FROM memberships ORDER BY position";
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("db");
    let mut lite = SqliteConnection::establish(&file.to_string_lossy()).expect("a database");
    run(&mut lite, SQLITE, is_before);
    lite.batch_execute(&rows()).expect("rows");
    run(&mut lite, SQLITE, |version| !is_before(version));
    let found: Vec<Row> = diesel::sql_query(look).load(&mut lite).expect("rows");
    let row = |user: &str, left_at, forgotten_at| Row {
        user_id: format!("@{user}:test"),
        left_at,
        forgotten_at,
    };
    // The column is used only for users that are not joined, so `joined` keeps 0.
    let expected = vec![
        row("joined", 0, 0),
        row("left", 16, 0),
        row("banned", 18, 0),
        row("declined", 0, 0),
        row("forgot", 25, 26),
        row("invited", 27, 0),
    ];
    assert_eq!(found, expected);

    let mut post = PgConnection::establish(&postgres::new_database()).expect("a database");
    run(&mut post, POSTGRES, is_before);
    post.batch_execute(&rows()).expect("rows");
    run(&mut post, POSTGRES, |version| !is_before(version));
    let found: Vec<Row> = diesel::sql_query(look).load(&mut post).expect("rows");
    assert_eq!(found, expected);
}

#[derive(Debug, PartialEq, QueryableByName)]
struct Version {
    #[diesel(sql_type = BigInt)]
    version: i64,
    #[diesel(sql_type = BigInt)]
    sessions: i64,
    #[diesel(sql_type = BigInt)]
    bytes: i64,
}

/// Two backup versions of one user: the first has two sessions (2 and 3 bytes), the second one (4 bytes). The second is deleted.
fn backups() -> String {
    let mut sql = String::new();
    for (version, deleted, sessions) in [(1, false, vec!["{}", "{ }"]), (2, true, vec!["\"é\""])] {
        sql += &format!(
            "INSERT INTO backup_versions (user_id, version, algorithm, auth_data, etag, sessions, deleted) VALUES \
             ('@alice:test', {version}, 'a', '{{}}', 1, {}, {deleted});",
            sessions.len()
        );
        for (n, json) in sessions.iter().enumerate() {
            sql += &format!(
                "INSERT INTO backup_sessions (user_id, version, room_id, session_id, first_message_index, forwarded_count, \
                 is_verified, json) VALUES ('@alice:test', {version}, '!r:test', 'S{n}', 0, 0, false, '{json}');"
            );
        }
    }
    sql
}

/// Take one migration back.
fn revert<DB: diesel::backend::Backend>(
    c: &mut impl MigrationHarness<DB>,
    migrations: EmbeddedMigrations,
    wanted: &str,
) {
    let all: Vec<Box<dyn Migration<DB>>> = migrations.migrations().expect("migrations");
    for migration in all {
        if migration.name().version().to_string() == wanted {
            c.revert_migration(&*migration).expect("it is taken back");
        }
    }
}

#[test]
fn a_backup_version_knows_the_bytes_of_its_sessions_and_an_older_server_finds_a_deleted_one_empty()
{
    macro_rules! there_and_back {
        ($c:expr, $migrations:expr) => {{
            let c = &mut $c;
            run(c, $migrations, |version| version < "0009");
            c.batch_execute(&backups()).expect("rows");
            run(c, $migrations, |version| version == "0009");
            let look = "SELECT version, sessions, bytes FROM backup_versions ORDER BY version";
            let found: Vec<Version> = diesel::sql_query(look).load(c).expect("rows");
            let row = |version, sessions, bytes| Version { version, sessions, bytes };
            assert_eq!(found, [row(1, 2, 5), row(2, 1, 4)]);

            revert(c, $migrations, "0009");
            let look = "SELECT v.version, v.sessions, (SELECT COUNT(*) FROM backup_sessions s \
                        WHERE s.version = v.version) AS bytes FROM backup_versions v ORDER BY v.version";
            let found: Vec<Version> = diesel::sql_query(look).load(c).expect("rows");
            assert_eq!(found, [row(1, 2, 2), row(2, 0, 0)], "with the rows there are");
        }};
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("db");
    let mut lite = SqliteConnection::establish(&file.to_string_lossy()).expect("a database");
    there_and_back!(lite, SQLITE);
    let mut post = PgConnection::establish(&postgres::new_database()).expect("a database");
    there_and_back!(post, POSTGRES);
}
