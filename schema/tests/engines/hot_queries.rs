//! Queries that run for every request or message use an index, on both engines.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Text;

use super::{postgres_connection, sqlite};

/// The function, and its query as SQL.
const HOT: [(&str, &str); 25] = [
    (
        "sync::changed_in",
        "SELECT user_id FROM memberships m WHERE room_id = 'r' AND (membership = 'join' OR membership = 'invite') AND (position > 1 OR \
         EXISTS (SELECT 1 FROM device_list_log l WHERE l.user_id = m.user_id AND l.position > 1 AND l.position <= 9 AND l.kind = 'keys'))",
    ),
    (
        "sync::sharing_among",
        "SELECT DISTINCT user_id FROM memberships t WHERE user_id IN ('a', 'b') AND (membership = 'join' OR membership = 'invite') AND \
         EXISTS (SELECT 1 FROM memberships m WHERE m.room_id = t.room_id AND m.user_id = 'u' AND m.membership = 'join')",
    ),
    (
        "memberships::forgotten_since",
        "SELECT * FROM memberships WHERE user_id = 'u' AND forgotten_at > 1 AND forgotten_at <= 9 AND (forgotten_at > 0) \
         ORDER BY forgotten_at LIMIT 1000",
    ),
    (
        "inbox::after",
        "SELECT * FROM inbox WHERE user_id = 'u' AND device_id = 'd' AND acknowledged = FALSE AND position > 1 AND position <= 9 ORDER BY position LIMIT 100",
    ),
    (
        "owed::waiting",
        "SELECT * FROM owed WHERE appservice_id = 'a' AND txn IS NULL AND position > 1 AND position <= 9 ORDER BY position LIMIT 1000",
    ),
    (
        "owed::stamp",
        "SELECT position FROM owed WHERE appservice_id = 'a' AND txn IS NULL AND position <= 9",
    ),
    (
        "owed::forget",
        "SELECT position FROM owed WHERE appservice_id = 'a' AND txn = 7 AND kind IN ('x', 'y') AND EXISTS \
         (SELECT 1 FROM inbox i WHERE i.position = owed.position AND NOT i.acknowledged)",
    ),
    (
        "owed::owe_latest",
        "SELECT position FROM owed WHERE appservice_id = 'a' AND kind = 'k' AND key = 'x' AND key <> ''",
    ),
    (
        "owed::forget_part",
        "SELECT position FROM owed WHERE appservice_id = 'a' AND kind = 'k' AND key >= 'x' AND key < 'y' AND key <> '' AND (txn IS NULL OR txn < 0)",
    ),
    (
        "inbox::acknowledge_service",
        "SELECT position FROM inbox WHERE position >= 1 AND position <= 9 AND decided_by = 'a' AND decided_by <> '' AND NOT acknowledged \
         AND NOT EXISTS (SELECT 1 FROM owed o WHERE o.position = inbox.position AND (o.txn IS NULL OR o.txn <> -2))",
    ),
    (
        "inbox::acknowledge_service, what stayed",
        "SELECT position FROM inbox WHERE position >= 1 AND position <= 9 AND acknowledged \
         AND NOT EXISTS (SELECT 1 FROM owed o WHERE o.position = inbox.position AND (o.txn IS NULL OR o.txn <> -2))",
    ),
    (
        "inbox::forget_marks",
        "SELECT position FROM owed WHERE position >= 1 AND position <= 9 AND txn = -2 \
         AND NOT EXISTS (SELECT 1 FROM inbox i WHERE i.position = owed.position AND NOT i.acknowledged)",
    ),
    (
        "device_log::open_lines",
        "SELECT covers FROM device_list_log WHERE position > 1 ORDER BY position LIMIT 1",
    ),
    (
        "service_rooms::services_in",
        "SELECT appservice_id FROM appservice_rooms WHERE room_id = 'r' ORDER BY appservice_id",
    ),
    (
        "tracked::trackers_of",
        "SELECT appservice_id FROM tracked WHERE user_id = 'u'",
    ),
    (
        "service_rooms::shares_a_room",
        "SELECT m.room_id FROM memberships m JOIN appservice_rooms a ON a.room_id = m.room_id AND a.appservice_id = 'a' \
         WHERE m.user_id = 'u' AND (m.membership = 'join' OR m.membership = 'invite') LIMIT 1",
    ),
    (
        "keys::claim",
        "SELECT position FROM one_time_keys WHERE user_id = 'u' AND device_id = 'd' AND algorithm = 'x' ORDER BY position LIMIT 1",
    ),
    (
        "sessions::whose_token",
        "SELECT user_id FROM access_tokens WHERE token_hash = 'h'",
    ),
    (
        "client_transactions::answered",
        "SELECT response FROM client_transactions WHERE sender = 's' AND scope = 'e' AND txn_id = 't'",
    ),
    (
        "events::newest_first",
        "SELECT * FROM events WHERE room_id = 'r' AND position <= 9 ORDER BY position DESC LIMIT 10",
    ),
    (
        "inbox::page",
        "SELECT position, user_id, device_id FROM inbox WHERE position > 1 AND position <= 9 ORDER BY position LIMIT 500",
    ),
    (
        "back_fill::get",
        "SELECT * FROM back_fills WHERE appservice_id = 'a'",
    ),
    (
        "service_rooms::joined_page",
        "SELECT DISTINCT user_id FROM memberships WHERE user_id > 'u' AND membership = 'join' ORDER BY user_id LIMIT 1000",
    ),
    (
        "device_log::rooms_changed_since",
        "SELECT room_id FROM device_list_log WHERE position > 1 AND kind = 'member'",
    ),
    (
        "service_rooms::room_after",
        "SELECT room_id FROM appservice_rooms WHERE appservice_id = 'a' AND room_id > 'r' ORDER BY room_id LIMIT 1",
    ),
];

#[test]
fn hot_queries_use_an_index() {
    #[derive(QueryableByName)]
    struct Plan {
        #[diesel(sql_type = Text)]
        detail: String,
    }
    #[derive(QueryableByName)]
    struct PgPlan {
        #[diesel(sql_type = Text, column_name = "QUERY PLAN")]
        line: String,
    }
    let (_folder, mut lite) = sqlite();
    let mut post = postgres_connection();
    // On empty tables the planner prefers to scan. With these settings it uses an index if there is a suitable one.
    post.batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        .expect("settings");
    for (what, sql) in HOT {
        let plan: Vec<Plan> = diesel::sql_query(format!("EXPLAIN QUERY PLAN {sql}"))
            .load(&mut lite)
            .expect("a plan");
        let plan: Vec<String> = plan.into_iter().map(|p| p.detail).collect();
        // A subquery has a line of its own, above its steps.
        let is_indexed =
            |step: &String| step.starts_with("SEARCH") || step.starts_with("CORRELATED");
        assert!(plan.iter().all(is_indexed), "{what}: SQLite: {plan:?}");
        let plan: Vec<PgPlan> = diesel::sql_query(format!("EXPLAIN {sql}"))
            .load(&mut post)
            .expect("a plan");
        let plan: Vec<String> = plan.into_iter().map(|p| p.line).collect();
        assert!(
            plan.iter().all(|step| !step.contains("Seq Scan")),
            "{what}: PostgreSQL: {plan:?}"
        );
    }
}
