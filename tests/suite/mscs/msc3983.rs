//! MSC3983: an appservice is queried for a one-time key when none is stored.

use std::time::Duration;

use serde_json::{Value, json};
use tests::signing::Key;
use tests::{Bridge, Person, Stage};

const BOB: &str = "@irc_bob:test";
const ENDPOINT: &str = "/_matrix/app/unstable/org.matrix.msc3983/keys/claim";

fn opted_in() -> Value {
    let users = json!({"users": [{"exclusive": true, "regex": "@irc_.*"}]});
    json!({"namespaces": users, "org.matrix.msc3983": true})
}

/// Create bob with a device, and upload device keys, one one-time key and a fallback key. Returns the device's signing key.
async fn bob(irc: &Bridge) -> Key {
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    let key = Key::of_device(1, "GHOST");
    let fallback = key.signs(BOB, json!({"key": "fallback", "fallback": true}));
    let upload = json!({
        "device_keys": key.device_keys(BOB, "GHOST"),
        "one_time_keys": {"signed_curve25519:S": key.one_time_key(BOB, "stored")},
        "fallback_keys": {"signed_curve25519:F": fallback},
    });
    bob.post("/keys/upload", &upload).await.ok();
    key
}

/// Claim a key of bob's device. Returns the key's id.
async fn claims(who: &Person) -> Option<String> {
    let claim = json!({"one_time_keys": {BOB: {"GHOST": "signed_curve25519"}}});
    let answer = who.post("/keys/claim", &claim).await.ok();
    let keys = answer["one_time_keys"][BOB]["GHOST"].as_object()?;
    assert_eq!(keys.len(), 1, "one key was claimed: {answer}");
    keys.keys().next().cloned()
}

fn answer(keys: Value) -> Value {
    json!({BOB: {"GHOST": keys}})
}

/// Clause: as.proxy.claim, as.proxy.claim-fallback
#[actix_web::test]
async fn a_claim_takes_the_stored_key_then_asks_the_service_then_takes_the_fallback_key() {
    let stage = Stage::with_mscs(&[4203, 3202, 3983]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge_with("irc", opted_in()).await;
    let key = bob(&irc).await;

    stage.step("a stored one-time key: nobody is asked").await;
    let first = claims(&alice).await;
    assert_eq!(first.as_deref(), Some("signed_curve25519:S"));

    stage.step("none is stored: the service has one").await;
    let from_service = key.one_time_key(BOB, "service");
    let (second, ()) = tokio::join!(claims(&alice), async {
        let question = irc.is_asked().await;
        assert_eq!(question.path, ENDPOINT);
        let keys = json!({"signed_curve25519:A": from_service});
        question.answers(200, &answer(keys));
    });
    assert_eq!(second.as_deref(), Some("signed_curve25519:A"));

    stage.step("the service has none: the fallback key").await;
    let (third, ()) = tokio::join!(claims(&alice), async {
        irc.is_asked().await.answers(200, &json!({}));
    });
    assert_eq!(third.as_deref(), Some("signed_curve25519:F"));
    stage
        .transcript(
            "a_claim_takes_the_stored_key_then_asks_the_service_then_takes_the_fallback_key",
        )
        .await;
}

#[actix_web::test]
async fn keys_in_an_answer_are_used_only_if_they_were_claimed_and_signed() {
    let stage = Stage::with_mscs(&[4203, 3202, 3983]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge_with("irc", opted_in()).await;
    let key = bob(&irc).await;
    claims(&alice).await;

    let fine = key.one_time_key(BOB, "fine");
    let forged = Key::of_device(9, "GHOST").one_time_key(BOB, "forged");
    let mut changed = fine.clone();
    changed["key"] = json!("changed");
    let bad = [
        json!("not an object"),
        json!({"one_time_keys": answer(json!({"signed_curve25519:A": fine}))}),
        json!({"@alice:test": {"LAPTOP": {"signed_curve25519:A": fine}}}),
        json!({BOB: {"OTHER": {"signed_curve25519:A": fine}}}),
        answer(json!({"curve25519:A": "fine"})),
        answer(json!({"no id": fine})),
        answer(json!({"signed_curve25519:A": forged})),
        answer(json!({"signed_curve25519:A": changed})),
        answer(json!({"signed_curve25519:A": {"key": "unsigned"}})),
        answer(json!({"signed_curve25519:A": {"key": "unsigned", "signatures": {}}})),
        answer(json!({"signed_curve25519:A": "text"})),
        answer(json!({"signed_curve25519:A": null})),
    ];
    for bad in bad {
        irc.receiver.to_questions(Some((200, bad.clone())));
        let got = claims(&alice).await;
        assert_eq!(got.as_deref(), Some("signed_curve25519:F"), "{bad}");
    }
    // If the appservice answers with two keys, the first is used and the second is discarded.
    let two =
        json!({"signed_curve25519:A": fine, "signed_curve25519:B": key.one_time_key(BOB, "b")});
    irc.receiver.to_questions(Some((200, answer(two))));
    let got = claims(&alice).await;
    assert_eq!(got.as_deref(), Some("signed_curve25519:A"));

    // The appservice answers with a key that was used already. It is not used again.
    irc.receiver
        .to_questions(Some((200, answer(json!({"signed_curve25519:A": fine})))));
    let got = claims(&alice).await;
    assert_eq!(got.as_deref(), Some("signed_curve25519:F"));

    // For a device without stored keys, no signature can be verified, so only the form of the key is checked.
    let other = |key: Value| json!({BOB: {"OTHER": {"signed_curve25519:O": key}}});
    let claim = json!({"one_time_keys": {BOB: {"OTHER": "signed_curve25519"}}});
    for (key, given) in [(json!({"key": "k"}), false), (fine, true)] {
        irc.receiver.to_questions(Some((200, other(key))));
        let answer = alice.post("/keys/claim", &claim).await.ok();
        let keys = &answer["one_time_keys"][BOB]["OTHER"];
        assert_eq!(keys.is_object(), given, "{answer}");
    }
}

#[actix_web::test]
async fn concurrent_claims_never_share_a_key() {
    let stage = Stage::with_mscs(&[4203, 3202, 3983]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let carol = stage.person("carol", "LAPTOP").await;
    let irc = stage.bridge_with("irc", opted_in()).await;
    let key = bob(&irc).await;
    claims(&alice).await;
    let given = |n: &str| {
        let id = format!("signed_curve25519:{n}");
        answer(json!({id: key.one_time_key(BOB, n)}))
    };
    let (first, second, ()) = tokio::join!(claims(&alice), claims(&carol), async {
        let (one, two) = (irc.is_asked().await, irc.is_asked().await);
        one.answers(200, &given("A"));
        two.answers(200, &given("B"));
    });
    assert_ne!(first, second);
    assert!(first.is_some() && second.is_some());
}

/// Clause: as.proxy.claim-fallback
#[actix_web::test]
async fn a_storm_of_claims_on_a_service_that_hangs_ends_in_the_fallback_key() {
    const CLAIMS: usize = 100;
    let stage = Stage::with_mscs(&[4203, 3202, 3983]).await;
    let alice = stage.person("alice", "LAPTOP").await.aside();
    let irc = stage.bridge_with("irc", opted_in()).await;
    bob(&irc).await;
    claims(&alice).await;
    irc.receiver.to_questions(None);
    let storm = futures_util::future::join_all((0..CLAIMS).map(|_| claims(&alice)));
    let time_passes = async {
        irc.is_asked().await;
        loop {
            stage.advance(Duration::from_secs(1)).await;
        }
    };
    let keys = tokio::select! {
        keys = storm => keys,
        () = time_passes => unreachable!("it passes for ever"),
    };
    let fallback = |key: &Option<String>| key.as_deref() == Some("signed_curve25519:F");
    assert!(keys.iter().all(fallback), "{keys:?}");
    // The appservice was sent as many queries as the limit allows at once, and then none for a moment. The other claims did not
    // wait.
    let asked = 1 + irc.receiver.held_questions();
    assert!(asked <= 32, "{asked} questions for {CLAIMS} claims");
}

#[actix_web::test]
async fn only_a_service_with_the_opt_in_is_queried_and_not_again_after_an_error() {
    let stage = Stage::with_mscs(&[4203, 3202, 3983]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge_with("irc", opted_in()).await;
    bob(&irc).await;
    claims(&alice).await;
    // A claim by the appservice itself does not query the appservice.
    let own = irc.bot.playing(BOB, None);
    assert_eq!(claims(&own).await.as_deref(), Some("signed_curve25519:F"));
    assert_eq!(irc.receiver.questions().len(), 0);

    let unknown = json!({"errcode": "M_UNRECOGNIZED"});
    irc.receiver.to_questions(Some((404, unknown)));
    for _ in 0..3 {
        let got = claims(&alice).await;
        assert_eq!(got.as_deref(), Some("signed_curve25519:F"));
    }
    assert_eq!(irc.receiver.questions().len(), 1, "the error is remembered");
    stage.advance(Duration::from_secs(10 * 60)).await;
    claims(&alice).await;
    assert_eq!(
        irc.receiver.questions().len(),
        2,
        "and the service is queried again later"
    );

    // An answer with an error status counts as no key.
    stage.advance(Duration::from_secs(10 * 60)).await;
    irc.receiver.to_questions(Some((500, json!({}))));
    let got = claims(&alice).await;
    assert_eq!(got.as_deref(), Some("signed_curve25519:F"));

    // The appservice is not queried without the opt-in in its registration, in a shared namespace, or without the proposal.
    for (mscs, keys) in [
        (&[3983][..], json!({"org.matrix.msc3983": "true"})),
        (
            &[3983],
            json!({"org.matrix.msc3983": true, "namespaces": {"users": [{"exclusive": false, "regex": "@irc_.*"}]}}),
        ),
        (&[], json!({"org.matrix.msc3983": true})),
    ] {
        let stage = Stage::with_mscs(mscs).await;
        let alice = stage.person("alice", "LAPTOP").await;
        let mut registration = opted_in();
        for (name, value) in keys.as_object().into_iter().flatten() {
            registration[name] = value.clone();
        }
        let irc = stage.bridge_with("irc", registration).await;
        bob(&irc).await;
        let got = [claims(&alice).await, claims(&alice).await];
        assert_eq!(got[1].as_deref(), Some("signed_curve25519:F"));
        assert_eq!(irc.receiver.questions().len(), 0, "{mscs:?} {keys}");
    }
}
