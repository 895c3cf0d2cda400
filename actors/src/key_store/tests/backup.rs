//! Backups of room keys.

use ruma::{OwnedRoomId, UInt};

use super::queries::{backup, sessions};
use super::*;

fn session(first_message_index: u32) -> Value {
    json!({"first_message_index": first_message_index, "forwarded_count": 0, "is_verified": false,
        "session_data": {"ciphertext": "x"}})
}

fn room() -> OwnedRoomId {
    "!room:test".try_into().expect("a room id")
}

fn store(of: &Identity, version: &str, all: &[(&str, Value)]) -> StoreSessions {
    let sessions = all
        .iter()
        .map(|(id, key)| ((*id).to_owned(), raw(key)))
        .collect();
    StoreSessions {
        user: of.user.clone(),
        version: version.to_owned(),
        rooms: Sessions::from([(room(), sessions)]),
    }
}

fn state(etag: &str, count: u32) -> BackupState {
    BackupState {
        etag: etag.to_owned(),
        count: UInt::from(count),
    }
}

async fn create(stage: &Stage, of: &Identity) -> String {
    let message = CreateBackup {
        user: of.user.clone(),
        description: raw(&json!({"algorithm": "a", "auth_data": {"k": 1}})),
    };
    stage.ask(message).await.expect("a version")
}

/// Clause: cs.backup.same-algorithm
#[actix::test]
async fn versions_come_and_go() {
    let stage = stage().await;
    let alice = stage.device("@alice:test", "LAPTOP").await;
    let env = &stage.actors.env;
    assert!(matches!(
        refusal(backup(env, &alice.user, None).await),
        Refusal::NotFound(_)
    ));
    assert_eq!(create(&stage, &alice).await, "1");
    assert_eq!(create(&stage, &alice).await, "2");
    let current = backup(env, &alice.user, None).await.expect("a version");
    assert_eq!(
        (current.version.as_str(), &current.state),
        ("2", &state("0", 0))
    );
    assert_eq!(
        current.description.get(),
        r#"{"algorithm":"a","auth_data":{"k":1}}"#
    );

    let update = |version: &str, description: Value| UpdateBackup {
        user: alice.user.clone(),
        version: version.to_owned(),
        description: raw(&description),
    };
    let new = json!({"algorithm": "a", "auth_data": {"k": 2}, "version": "1"});
    stage.ask(update("1", new.clone())).await.expect("changed");
    let older = backup(env, &alice.user, Some("1".to_owned()))
        .await
        .expect("a version");
    assert_eq!(
        older.description.get(),
        r#"{"algorithm":"a","auth_data":{"k":2}}"#
    );
    assert!(matches!(
        refusal(stage.ask(update("2", new.clone())).await),
        Refusal::InvalidParam(_)
    ));
    let other = json!({"algorithm": "b", "auth_data": {}});
    assert!(matches!(
        refusal(stage.ask(update("1", other)).await),
        Refusal::InvalidParam(_)
    ));

    let delete = DeleteBackup {
        user: alice.user.clone(),
        version: "2".to_owned(),
    };
    stage.ask(delete.clone()).await.expect("deleted");
    assert!(matches!(
        refusal(stage.ask(delete).await),
        Refusal::NotFound(_)
    ));
    let current = backup(env, &alice.user, None).await.expect("a version");
    assert_eq!(current.version, "1");
    // The number of a deleted version is not used again.
    assert_eq!(create(&stage, &alice).await, "3");
}

/// Clause: cs.backup.better
#[actix::test]
async fn the_better_key_of_a_session_stays() {
    let stage = stage().await;
    let alice = stage.device("@alice:test", "LAPTOP").await;
    let version = create(&stage, &alice).await;
    let put = |all: &[(&str, Value)]| stage.ask(store(&alice, &version, all));
    assert_eq!(
        put(&[("S", session(5)), ("T", session(0))])
            .await
            .expect("stored"),
        state("1", 2)
    );
    // Not better: neither the key nor the etag changes.
    assert_eq!(
        put(&[("S", session(5))]).await.expect("stored"),
        state("1", 2)
    );
    assert_eq!(
        put(&[("S", session(6))]).await.expect("stored"),
        state("1", 2)
    );
    assert_eq!(
        put(&[("S", session(4))]).await.expect("stored"),
        state("2", 2)
    );

    let env = &stage.actors.env;
    let get = |part: SessionSelection| sessions(env, &alice.user, version.clone(), part);
    let one = queries::session(env, &alice.user, version.clone(), room(), "S".to_owned());
    assert_eq!(value(&one.await.expect("one")), session(4));
    assert_eq!(
        get(SessionSelection::All).await.expect("all")[&room()].len(),
        2
    );
    let elsewhere: OwnedRoomId = "!other:test".try_into().expect("a room id");
    assert!(
        get(SessionSelection::Room(elsewhere))
            .await
            .expect("none")
            .is_empty()
    );
    let missing = queries::session(env, &alice.user, version.clone(), room(), "X".to_owned());
    assert!(matches!(refusal(missing.await), Refusal::NotFound(_)));

    let delete = |part: SessionSelection| {
        stage.ask(DeleteSessions {
            user: alice.user.clone(),
            version: version.clone(),
            part,
        })
    };
    assert_eq!(
        delete(SessionSelection::Session(room(), "S".to_owned()))
            .await
            .expect("gone"),
        state("3", 1)
    );
    assert_eq!(
        delete(SessionSelection::Session(room(), "S".to_owned()))
            .await
            .expect("gone"),
        state("3", 1)
    );
    assert_eq!(
        delete(SessionSelection::All).await.expect("gone"),
        state("4", 0)
    );
}

/// Clause: cs.backup.current
#[actix::test]
async fn only_the_current_version_is_written_to() {
    let stage = stage().await;
    let alice = stage.device("@alice:test", "LAPTOP").await;
    let none = stage.ask(store(&alice, "1", &[("S", session(1))])).await;
    assert!(matches!(refusal(none), Refusal::NotFound(_)));
    create(&stage, &alice).await;
    create(&stage, &alice).await;
    let older = stage.ask(store(&alice, "1", &[("S", session(1))])).await;
    let current = "2".to_owned();
    assert_eq!(refusal(older), Refusal::WrongBackupVersion { current });
    let broken = store(&alice, "2", &[("S", session(1)), ("T", json!({}))]);
    assert!(matches!(
        refusal(stage.ask(broken).await),
        Refusal::BadJson(_)
    ));
    let all = sessions(
        &stage.actors.env,
        &alice.user,
        "2".to_owned(),
        SessionSelection::All,
    )
    .await;
    assert!(all.expect("an answer").is_empty());
}
