//! What clients and appservices see when the storage fails, or when a write affects others than its caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use schema::faults::{Fault, Faults, Point};
use serde_json::{Value, json};
use tests::person::segment;
use tests::signing::Key;
use tests::stage::on_postgres;
use tests::{Bridge, Person, Stage, until};
use understudy::mscs;

/// Faults that happen at one point while the returned flag is set.
fn switch(point: Point, fault: Fault) -> (Arc<AtomicBool>, Faults) {
    let on = Arc::new(AtomicBool::new(false));
    let chosen = Arc::clone(&on);
    let faults = Faults::chosen_by(move |at| {
        if at == point && chosen.load(Ordering::Acquire) {
            fault
        } else {
            Fault::None
        }
    });
    (on, faults)
}

async fn stage_with(faults: Faults) -> Stage {
    Stage::with(&mscs::by_default(), |options| options.faults = faults).await
}

/// How many times an appservice was sent a message with this body.
fn times_sent(irc: &Bridge, what: &str) -> usize {
    let events = irc.receiver.items(0, "events");
    events
        .iter()
        .filter(|e| e["content"]["body"].as_str() == Some(what))
        .count()
}

/// Upload cross-signing keys of a user, each signed as required.
async fn uploads_signing_keys(person: &Person, usages: &[(&str, &Key)], master: &Key) {
    let me = &person.user_id;
    let mut body = serde_json::Map::new();
    for (usage, key) in usages {
        let unsigned = key.as_cross_signing_key(me, usage);
        let signed = if *usage == "master" {
            unsigned
        } else {
            master.signs(me, unsigned)
        };
        body.insert(format!("{usage}_key"), signed);
    }
    let password = format!("{}-password", me[1..].split(':').next().expect("a name"));
    let first = person
        .post("/keys/device_signing/upload", &Value::Object(body.clone()))
        .await;
    if first.status == 401 {
        let auth = json!({"type": "m.login.password", "session": first.body["session"], "password": password,
            "identifier": {"type": "m.id.user", "user": me}});
        body.insert("auth".to_owned(), auth);
        let body = Value::Object(body);
        let again = person.post("/keys/device_signing/upload", &body);
        again.await.ok();
    }
}

#[actix_web::test]
async fn a_key_or_signature_that_only_its_owner_sees_delays_no_service() {
    let stage = Stage::new().await;
    let (irc, xmpp) = (stage.bridge("irc").await, stage.bridge("xmpp").await);
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let (master, user_signing, theirs) = (
        Key::cross_signing(1),
        Key::cross_signing(2),
        Key::cross_signing(3),
    );
    uploads_signing_keys(&alice, &[("master", &master)], &master).await;
    uploads_signing_keys(&bob, &[("master", &theirs)], &theirs).await;
    let rooms = [
        (&irc, alice.gathers(&[&irc.bot]).await),
        (&xmpp, bob.gathers(&[&xmpp.bot]).await),
    ];
    stage.quiet().await;

    // Upload only a new user-signing key.
    uploads_signing_keys(&alice, &[("user_signing", &user_signing)], &master).await;
    for (service, room) in &rooms {
        alice_or(&alice, &bob, service)
            .says(room, "after-the-key")
            .await;
    }
    stage.quiet().await;
    for (service, _) in &rooms {
        assert_eq!(times_sent(service, "after-the-key"), 1, "{}", service.id);
    }

    // Upload only a signature over another user's master key.
    let signed = user_signing.signs(
        &alice.user_id,
        theirs.as_cross_signing_key(&bob.user_id, "master"),
    );
    let upload = json!({&bob.user_id: {&theirs.public: signed}});
    let answer = alice.post("/keys/signatures/upload", &upload).await.ok();
    assert_eq!(answer["failures"], json!({}));
    for (service, room) in &rooms {
        alice_or(&alice, &bob, service)
            .says(room, "after-the-signature")
            .await;
    }
    stage.quiet().await;
    for (service, _) in &rooms {
        assert_eq!(
            times_sent(service, "after-the-signature"),
            1,
            "{}",
            service.id
        );
    }
}

/// The user that shares a room with an appservice.
fn alice_or(alice: &Person, bob: &Person, service: &Bridge) -> Person {
    if service.id == "irc" { alice } else { bob }.clone()
}

#[actix_web::test]
async fn a_full_disk_refuses_writes_and_nothing_else_until_there_is_room() {
    for point in [Point::Job, Point::BeforeCommit] {
        let (full, faults) = switch(point, Fault::Full);
        let stage = stage_with(faults).await;
        let irc = stage.bridge("irc").await;
        let alice = stage.person("alice", "LAPTOP").await;
        let room = alice.gathers(&[&irc.bot]).await;
        stage.quiet().await;

        full.store(true, Ordering::Release);
        let path = format!("/rooms/{}/send/m.x/1", segment(&room));
        let refused = alice.put(&path, &json!({"body": "once"})).await;
        refused.is_refused(503, "M_LIMIT_EXCEEDED");
        assert!(refused.body["retry_after_ms"].is_u64());
        alice.get("/account/whoami").await.ok();
        alice.get("/sync").await.ok();

        full.store(false, Ordering::Release);
        alice.put(&path, &json!({"body": "once"})).await.ok();
        stage.advance(Duration::from_secs(60)).await;
        assert_eq!(times_sent(&irc, "once"), 1, "{point:?}");
    }
}

#[actix_web::test]
async fn a_write_that_fails_once_is_delivered_once() {
    for fault in [Fault::Refuse, Fault::Full] {
        let (on, faults) = switch(Point::BeforeCommit, fault);
        let stage = stage_with(faults).await;
        let irc = stage.bridge("irc").await;
        let alice = stage.person("alice", "LAPTOP").await;
        let room = alice.gathers(&[&irc.bot]).await;
        alice.says(&room, "one").await;
        // For a while, the acknowledgement and all other writes of the server fail.
        on.store(true, Ordering::Release);
        stage.advance(Duration::from_secs(1)).await;
        on.store(false, Ordering::Release);
        alice.says(&room, "two").await;
        stage.advance(Duration::from_secs(60)).await;
        assert_eq!(
            (times_sent(&irc, "one"), times_sent(&irc, "two")),
            (1, 1),
            "{fault:?}"
        );
    }
}

/// No write succeeds when the appservice answers. The acknowledgement then waits for its second attempt, which does not keep the
/// server from being idle.
#[actix_web::test]
async fn an_acknowledgement_that_cannot_be_written_lets_the_server_become_idle() {
    let (on, faults) = switch(Point::BeforeCommit, Fault::Refuse);
    let stage = stage_with(faults).await;
    let irc = stage.bridge("irc").await;
    let alice = stage.person("alice", "LAPTOP").await;
    let room = alice.gathers(&[&irc.bot]).await;
    stage.quiet().await;
    irc.receiver.at_once(None);
    alice.says(&room, "one").await;
    stage.quiet().await;
    on.store(true, Ordering::Release);
    irc.answers(200).await;
    irc.receiver.at_once(Some(200));
    stage.advance(Duration::from_secs(5)).await;
    on.store(false, Ordering::Release);
    alice.says(&room, "two").await;
    stage.advance(Duration::from_secs(60)).await;
    assert_eq!((times_sent(&irc, "one"), times_sent(&irc, "two")), (1, 1));
}

#[actix_web::test]
async fn typing_whose_write_fails_is_shown_once_it_is_repeated() {
    let (on, faults) = switch(Point::BeforeCommit, Fault::Refuse);
    let stage = stage_with(faults).await;
    let (alice, bob) = (
        stage.person("alice", "LAPTOP").await,
        stage.person("bob", "PHONE").await,
    );
    let made = alice
        .post("/createRoom", &json!({"preset": "public_chat"}))
        .await
        .ok();
    let room = made["room_id"].as_str().expect("a room").to_owned();
    let at = segment(&room);
    bob.post(&format!("/rooms/{at}/join"), &json!({}))
        .await
        .ok();
    let typing = format!("/rooms/{at}/typing/{}", segment(&alice.user_id));
    let starts = json!({"typing": true, "timeout": 30_000});
    on.store(true, Ordering::Release);
    let failed = alice.put(&typing, &starts).await;
    failed.is_refused(503, "M_LIMIT_EXCEEDED");
    on.store(false, Ordering::Release);
    let before = bob.get("/sync").await.ok();
    assert!(
        before["rooms"]["join"][&room]["ephemeral"]["events"]
            .as_array()
            .is_none_or(Vec::is_empty)
    );
    alice.put(&typing, &starts).await.ok();
    let since = before["next_batch"].as_str().expect("a token");
    let after = bob.get(&format!("/sync?since={since}")).await.ok();
    let events = &after["rooms"]["join"][&room]["ephemeral"]["events"];
    assert_eq!(
        events[0]["content"]["user_ids"],
        json!([alice.user_id]),
        "{after}"
    );
}

#[actix_web::test]
async fn typing_whose_end_cannot_be_written_ends_with_the_next_attempt() {
    let on = Arc::new(AtomicBool::new(false));
    let armed = Arc::clone(&on);
    let faults = Faults::chosen_by(move |at| {
        if at == Point::BeforeCommit && armed.swap(false, Ordering::AcqRel) {
            Fault::Refuse
        } else {
            Fault::None
        }
    });
    let stage = stage_with(faults).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let made = alice.post("/createRoom", &json!({})).await.ok();
    let room = made["room_id"].as_str().expect("a room").to_owned();
    let typing = format!(
        "/rooms/{}/typing/{}",
        segment(&room),
        segment(&alice.user_id)
    );
    let starts = json!({"typing": true, "timeout": 30_000});
    alice.put(&typing, &starts).await.ok();
    let first = alice.get("/sync?set_presence=offline").await.ok();
    let since = first["next_batch"].as_str().expect("a token");
    let sync = format!("/sync?set_presence=offline&timeout=0&since={since}");
    let typing = |answer: &Value| {
        answer["rooms"]["join"][&room]["ephemeral"]["events"][0]["content"].clone()
    };
    assert_eq!(typing(&first), json!({"user_ids": [alice.user_id]}));

    stage.quiet().await;
    on.store(true, Ordering::Release);
    let clock = stage.app().actors.env.clock.clone();
    clock.advance(Duration::from_secs(30));
    until("a write is refused", || !on.load(Ordering::Acquire)).await;
    assert_eq!(typing(&alice.get(&sync).await.ok()), Value::Null);

    let mut ended = Value::Null;
    for _ in 0..20 {
        clock.advance(Duration::from_secs(1));
        ended = typing(&alice.get(&sync).await.ok());
        if !ended.is_null() {
            break;
        }
    }
    assert_eq!(ended, json!({"user_ids": []}));
}

#[actix_web::test]
async fn readers_whose_sessions_end_reconnect_and_no_read_fails() {
    if !on_postgres() {
        return;
    }
    let mut database = String::new();
    let stage = Stage::with(&mscs::by_default(), |o| database = o.database.clone()).await;
    let alice = stage.person("alice", "LAPTOP").await;
    for _ in 0..3 {
        // End all sessions except the writer's, which holds the server's lock.
        tests::postgres::query(
            &database,
            "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a WHERE a.datname = current_database() \
             AND a.pid <> pg_backend_pid() AND NOT EXISTS \
             (SELECT 1 FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'advisory')",
        );
        for _ in 0..20 {
            alice.get("/account/whoami").await.ok();
            alice.get("/sync").await.ok();
        }
    }
}

#[actix_web::test]
async fn while_no_reader_has_a_connection_reads_are_refused_and_then_served_again() {
    if !on_postgres() {
        return;
    }
    let mut database = String::new();
    let stage = Stage::with(&mscs::by_default(), |o| database = o.database.clone()).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let name = database.rsplit('/').next().expect("a name").to_owned();
    let admin = database.replace(&name, "postgres");
    let allow = |allowed: bool| {
        let limit = if allowed { -1 } else { 1 };
        // A connection limit does not apply to superusers, but this does.
        let may =
            format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed} CONNECTION LIMIT {limit}");
        tests::postgres::query(&admin, &may);
    };
    allow(false);
    let readers = format!(
        "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a WHERE a.datname = '{name}' AND NOT EXISTS \
         (SELECT 1 FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'advisory')"
    );
    tests::postgres::query(&admin, &readers);
    let mut refused = 0;
    for _ in 0..20 {
        let answer = alice.get("/sync").await;
        if answer.status != 200 {
            answer.is_refused(503, "M_LIMIT_EXCEEDED");
            refused += 1;
        }
    }
    assert!(refused > 10, "{refused} of 20 were refused");
    allow(true);
    let mut served = false;
    for _ in 0..2_000 {
        served = alice.get("/sync").await.status == 200;
        if served {
            break;
        }
        tests::bridge::pause().await;
    }
    assert!(served, "the readers came back");
    until("nothing waits", || {
        stage.app().actors.env.store.waiting() == 0
    })
    .await;
}
