//! What happened to an item and a service, rule by rule.

use std::time::Duration;

use serde_json::{Value, json};
use tests::person::segment;
use tests::{Bridge, Person, Stage};

use crate::counts::upload;

async fn scene() -> (Stage, Person, Bridge) {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    (stage, alice, irc)
}

/// What happened to something and `irc`.
async fn fate(alice: &Person, about: &str) -> Value {
    let path = format!("/_understudy/fate?service=irc&{about}");
    alice.aside().get(&path).await.ok()
}

/// The sentences of the steps under this rule.
fn says(fate: &Value, rule: &str) -> Vec<String> {
    let steps = fate["steps"].as_array().expect("steps").iter();
    let under = steps.filter(|step| step["rule"] == rule);
    under
        .map(|step| step["says"].as_str().unwrap_or_default().to_owned())
        .collect()
}

async fn event(alice: &Person, room: &str, text: &str) -> String {
    let path = format!("/rooms/{}/send/m.room.message/{text}", segment(room));
    let sent = alice
        .put(&path, &json!({"body": text, "msgtype": "m.text"}))
        .await
        .ok();
    segment(sent["event_id"].as_str().expect("an id"))
}

#[actix_web::test]
async fn an_event_is_delivered_at_attempt_3_and_another_waits_behind_a_transaction_that_backs_off()
{
    let (stage, alice, irc) = scene().await;
    let room = stage.shared_room(&alice, &irc).await;
    irc.receiver.at_once(Some(500));
    let first = event(&alice, &room, "first").await;
    stage.quiet().await;
    stage.advance(Duration::from_secs(1)).await;
    irc.receiver.at_once(Some(200));
    stage.advance(Duration::from_secs(2)).await;
    let delivered = fate(&alice, &format!("event={first}")).await;
    assert_eq!(delivered["verdict"], "delivered", "{delivered}");
    let last = delivered["steps"]
        .as_array()
        .and_then(|steps| steps.last())
        .expect("a step");
    assert_eq!(
        (&last["attempt"], &last["says"]),
        (&json!(3), &json!("Attempt 3 was answered 200: irc has it."))
    );
    assert!(
        last["transaction"].as_i64() > Some(0) && last["at"].as_i64() > Some(tests::stage::START)
    );
    assert_eq!(says(&delivered, "the same bytes until a 2xx").len(), 3);

    irc.receiver.at_once(Some(502));
    let second = event(&alice, &room, "second").await;
    stage.quiet().await;
    let third = event(&alice, &room, "third").await;
    stage.quiet().await;
    let carried = fate(&alice, &format!("event={second}")).await;
    assert_eq!(carried["verdict"], "waiting", "{carried}");
    let backs_off = says(&carried, "the same bytes until a 2xx");
    assert_eq!(backs_off.len(), 2, "{carried}");
    assert!(
        backs_off[1].contains("backs off until 2025-01-01 00:00:0"),
        "{carried}"
    );
    let behind = fate(&alice, &format!("event={third}")).await;
    assert_eq!(behind["verdict"], "waiting", "{behind}");
    let waits = says(&behind, "one transaction at a time");
    assert!(
        waits[0].contains("which backs off until 2025-01-01 00:00:0"),
        "{behind}"
    );
    assert!(
        waits[0]
            .contains("1 attempts failed, the last because the application service answered 502"),
        "{behind}"
    );
    let text = "It waits behind transaction";
    assert!(waits[0].starts_with(text), "{behind}");
}

#[actix_web::test]
async fn what_does_not_concern_a_service_is_said_not_to_with_the_reason() {
    let (stage, alice, irc) = scene().await;
    let room = alice.creates(json!({})).await;
    let private = event(&alice, &room, "private").await;
    stage.quiet().await;
    let of_event = fate(&alice, &format!("event={private}")).await;
    assert_eq!(of_event["verdict"], "not interesting", "{of_event}");
    let why = says(&of_event, "interest in an event");
    assert!(
        why[0].contains(&format!("none of its users has joined {room}")),
        "{of_event}"
    );

    // A user of the service joins later: what came before is still not sent.
    alice.invites(&room, &irc.bot.user_id).await;
    irc.bot.joins(&room).await;
    stage.quiet().await;
    let later = fate(&alice, &format!("event={private}")).await;
    assert_eq!(later["verdict"], "not interesting", "{later}");
    assert!(
        says(&later, "not recorded")[0]
            .contains("When it came, 2025-01-01 00:00:00 UTC, it did not"),
        "{later}"
    );

    let body = json!({"messages": {"@alice:test": {"LAPTOP": {"org.matrix.msgid": "m1"}}}});
    alice.put("/sendToDevice/m.x/t1", &body).await.ok();
    let message = fate(&alice, "to_device=m1").await;
    assert_eq!(message["verdict"], "not interesting", "{message}");
    assert!(
        says(&message, "copies of a to-device message")[0]
            .contains("no pattern of its namespace `users` matches")
    );
    assert!(
        says(&message, "kept until acknowledged")[0]
            .contains("It is in the inbox of @alice:test, device LAPTOP")
    );
    let counts = fate(&alice, "user=@alice:test&device=LAPTOP").await;
    assert_eq!(counts["verdict"], "not interesting", "{counts}");
    let nothing = fate(&alice, "event=$nothing").await;
    assert_eq!(nothing["verdict"], "unknown", "{nothing}");
    alice
        .aside()
        .get("/_understudy/fate?service=irc")
        .await
        .is_refused(400, "M_MISSING_PARAM");
}

#[actix_web::test]
async fn messages_device_lists_and_counts_are_followed_to_their_end() {
    let (mut stage, mut alice, irc) = scene().await;
    stage.shared_room(&alice, &irc).await;
    let bob = irc.bot.playing("@irc_bob:test", Some("GHOST"));
    upload(&bob, 0..2, false).await;
    stage.advance(Duration::from_secs(1)).await;
    let send = async |alice: &Person, id: &str| {
        let body = json!({"messages": {"@irc_bob:test": {"GHOST": {"org.matrix.msgid": id}}}});
        alice
            .put(&format!("/sendToDevice/m.x/{id}"), &body)
            .await
            .ok();
    };
    send(&alice, "m1").await;
    alice
        .put("/devices/LAPTOP", &json!({"display_name": "x"}))
        .await
        .ok();
    stage.quiet().await;
    for (about, rule, reason) in [
        (
            "to_device=m1",
            "copies of a to-device message",
            "the user is in its exclusive namespace",
        ),
        (
            "user=@alice:test",
            "changed, left or nothing",
            "is told in `changed`",
        ),
        (
            "user=@irc_bob:test&device=GHOST",
            "whose counts are sent",
            "irc decides over the device",
        ),
    ] {
        let fate = fate(&alice, about).await;
        assert_eq!(fate["verdict"], "delivered", "{fate}");
        assert!(says(&fate, rule)[0].contains(reason), "{fate}");
        assert!(
            says(&fate, "the same bytes until a 2xx")[0].contains("answered 200"),
            "{fate}"
        );
    }

    // A deleted device takes its messages with it.
    irc.receiver.at_once(Some(500));
    send(&alice, "m2").await;
    stage.quiet().await;
    send(&alice, "m3").await;
    stage.quiet().await;
    irc.bot
        .playing("@irc_bob:test", None)
        .delete("/devices/GHOST")
        .await
        .ok();
    stage.quiet().await;
    let dropped = fate(&alice, "to_device=m3").await;
    assert_eq!(dropped["verdict"], "dropped", "{dropped}");
    assert!(
        says(&dropped, "dropped")[0].contains("Its device was deleted"),
        "{dropped}"
    );
    assert_eq!(fate(&alice, "to_device=m2").await["verdict"], "waiting");

    // After a restart the history is empty, and says so.
    stage.restart().await;
    alice = stage.again(&alice);
    let forgotten = fate(&alice, "to_device=m1").await;
    assert_eq!(forgotten["verdict"], "unknown", "{forgotten}");
    assert!(
        says(&forgotten, "not recorded")[0].contains("begins with the start of the server"),
        "{forgotten}"
    );
}
