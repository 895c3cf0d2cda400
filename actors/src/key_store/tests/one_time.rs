//! Identity keys, one-time keys and fallback keys.

use std::collections::VecDeque;

use futures_util::future::join_all;
use ruma::OneTimeKeyAlgorithm;

use super::*;

fn count(counts: &OneTimeKeyCounts) -> u64 {
    counts[&OneTimeKeyAlgorithm::SignedCurve25519].into()
}

/// The names of the keys claimed from this device.
fn names(claimed: &Claimed, of: &Identity) -> Vec<String> {
    let device = of.device.as_ref().expect("a device");
    let keys = claimed
        .one_time_keys
        .get(&of.user)
        .and_then(|devices| devices.get(device));
    keys.into_iter()
        .flatten()
        .map(|(id, _)| {
            id.as_str()
                .trim_start_matches("signed_curve25519:")
                .to_owned()
        })
        .collect()
}

async fn claim(stage: &Stage, of: &Identity) -> Claimed {
    let device = of.device.as_ref().expect("a device");
    let wanted = wanted(&[(&of.user, device.as_str())]);
    let message = Claim {
        wanted,
        or_fallback: true,
    };
    stage.ask(message).await.expect("an answer")
}

/// Clause: cs.keys.bytes
#[actix::test]
async fn keys_come_out_as_they_went_in() {
    let stage = stage().await;
    let alice = stage.device("@alice:test", "LAPTOP").await;
    let bob = stage.device("@bob:test", "PHONE").await;
    let mut object = identity(&alice);
    object["org.example.unknown"] = json!({"a": [1, null]});
    let mut message = upload(&alice);
    message.device_keys = Some(raw(&object));
    stage.ask(message.clone()).await.expect("taken in");

    let seen = stage
        .query(
            &bob,
            &["@alice:test", "@bob:test", "@nobody:test", "@x:elsewhere"],
        )
        .await;
    object["unsigned"] = json!({"device_display_name": "a name"});
    assert_eq!(
        value(&seen.device_keys[&alice.user][alice.needs_device().expect("one")]),
        object
    );
    // Every user of this server has an entry; devices without keys have none.
    let users: Vec<(&str, usize)> = seen
        .device_keys
        .iter()
        .map(|(user, devices)| (user.as_str(), devices.len()))
        .collect();
    assert_eq!(
        users,
        [("@alice:test", 1), ("@bob:test", 0), ("@nobody:test", 0)]
    );

    // The same keys in another notation change nothing.
    let log = stage.logged().await;
    message.device_keys = Some(
        RawValue::from_string(
            serde_json::to_string_pretty(&{
                let mut same = object.clone();
                same.as_object_mut().expect("an object").remove("unsigned");
                same
            })
            .expect("JSON"),
        )
        .expect("JSON"),
    );
    stage.ask(message.clone()).await.expect("taken in");
    assert_eq!(stage.logged().await, log);

    message.device_keys = Some(raw(&identity(&alice)));
    stage.ask(message).await.expect("taken in");
    assert_eq!(
        stage.logged_since(log.len()).await,
        [(schema::device_log::Kind::Keys, "@alice:test".to_owned())]
    );
}

/// Clause: cs.keys.same-id
#[actix::test]
async fn an_upload_is_all_or_nothing() {
    let stage = stage().await;
    let alice = stage.device("@alice:test", "LAPTOP").await;
    let mut first = upload(&alice);
    first.one_time_keys = keys(&["A", "B"]);
    assert_eq!(count(&stage.ask(first.clone()).await.expect("taken in")), 2);
    assert_eq!(count(&stage.ask(first).await.expect("the same again")), 2);

    let mut clash = upload(&alice);
    clash.device_keys = Some(raw(&identity(&alice)));
    clash.fallback_keys = keys(&["F"]);
    clash.one_time_keys = keys(&["B", "C"]);
    let (id, _) = keys(&["B"]).pop_first().expect("a key");
    clash
        .one_time_keys
        .insert(id, raw(&json!({"key": "another", "signatures": {}})));
    let log = stage.logged().await;
    assert!(matches!(
        refusal(stage.ask(clash).await),
        Refusal::Unknown(_)
    ));

    assert_eq!(stage.logged().await, log);
    assert_eq!(count(&stage.ask(upload(&alice)).await.expect("counts")), 2);
    let taken = [claim(&stage, &alice).await, claim(&stage, &alice).await];
    assert_eq!(taken.map(|c| names(&c, &alice)), [["A"], ["B"]]);
    assert!(names(&claim(&stage, &alice).await, &alice).is_empty());
}

/// Clause: cs.keys.once
#[actix::test]
async fn a_key_that_was_claimed_is_never_handed_out_again() {
    let stage = stage().await;
    let alice = stage.device("@alice:test", "LAPTOP").await;
    let mut first = upload(&alice);
    first.one_time_keys = keys(&["A"]);
    first.fallback_keys = keys(&["F"]);
    stage.ask(first.clone()).await.expect("taken in");
    assert_eq!(names(&claim(&stage, &alice).await, &alice), ["A"]);

    // The client got no answer, signs its keys again and uploads them again.
    let mut again = first.clone();
    for key in again.one_time_keys.values_mut() {
        let mut signed: Value = serde_json::from_str(key.get()).expect("a key");
        signed["signatures"] = json!({"@alice:test": {"ed25519:LAPTOP": "fresh"}});
        *key = raw(&signed);
    }
    assert_eq!(count(&stage.ask(again).await.expect("accepted")), 0);
    assert_eq!(names(&claim(&stage, &alice).await, &alice), ["F"]);

    // A fallback key that was replaced and is uploaded again counts as used.
    let mut other = upload(&alice);
    other.fallback_keys = keys(&["G"]);
    stage.ask(other).await.expect("taken in");
    let mut back = upload(&alice);
    back.fallback_keys = first.fallback_keys.clone();
    stage.ask(back).await.expect("taken in");
    let unused =
        stage.actors.env.store.read(|db| {
            schema::keys::fallback_key(db, "@alice:test", "LAPTOP", "signed_curve25519")
        });
    let fallback = unused.await.expect("a read").expect("a key");
    assert_eq!((fallback.key_id.as_str(), fallback.used), ("F", true));
}

/// Clause: cs.keys.fallback-one
#[actix::test]
async fn bad_uploads_are_refused() {
    let stage = stage().await;
    let alice = stage.device("@alice:test", "LAPTOP").await;
    let bob = stage.device("@bob:test", "PHONE").await;
    let mut nowhere = upload(&alice);
    nowhere.from.device = None;
    assert_eq!(refusal(stage.ask(nowhere).await), Refusal::NoDevice);
    let mut gone = upload(&alice);
    gone.from.device = Some("GONE".into());
    assert_eq!(
        refusal(stage.ask(gone.clone()).await),
        Refusal::UnknownToken
    );
    gone.from.appservice = Some(ServiceId::from("irc"));
    assert_eq!(refusal(stage.ask(gone).await), Refusal::UnknownDevice);
    let mut others = upload(&alice);
    others.device_keys = Some(raw(&identity(&bob)));
    assert!(matches!(
        refusal(stage.ask(others).await),
        Refusal::InvalidParam(_)
    ));
    let many: Vec<String> = (0..501).map(|i| format!("{i:04}")).collect();
    let mut full = upload(&alice);
    full.one_time_keys = keys(&many.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(matches!(
        refusal(stage.ask(full).await),
        Refusal::TooMany(_)
    ));
    assert_eq!(count(&stage.ask(upload(&alice)).await.expect("counts")), 0);
}

/// Clause: cs.keys.once
#[actix::test]
async fn many_claims_at_once_take_each_key_once() {
    let stage = stage().await;
    let alice = stage.device("@alice:test", "LAPTOP").await;
    let all: Vec<String> = (0..60).map(|i| format!("{i:02}")).collect();
    let mut message = upload(&alice);
    message.one_time_keys = keys(&all.iter().map(String::as_str).collect::<Vec<_>>());
    message.fallback_keys = keys(&["F"]);
    stage.ask(message).await.expect("taken in");
    let claims = join_all((0..100).map(|_| claim(&stage, &alice))).await;
    let taken: Vec<String> = claims.iter().flat_map(|c| names(c, &alice)).collect();
    assert_eq!(taken[..60], all);
    assert!(taken.len() == 100 && taken[60..].iter().all(|name| name == "F"));
}

/// Clause: as.counts.changed
#[actix::test]
async fn counts_are_owed_when_they_change_and_only_then() {
    let stage = stage().await;
    stage.service().await;
    let ghost = stage.device("@irc_bob:test", "GHOST").await;
    let alice = stage.device("@alice:test", "LAPTOP").await;
    let settle = || {
        let write = |tx: &mut Tx<'_>| {
            let to = accounts::device(tx, "@irc_bob:test", "GHOST")?.expect("the device");
            counts::forget_counts(tx, &["irc".into()], &to.device)
        };
        stage.actors.env.store.write(write)
    };
    let mut message = upload(&ghost);
    message.one_time_keys = keys(&["A"]);
    message.fallback_keys = keys(&["F"]);
    stage.ask(message.clone()).await.expect("taken in");
    assert_eq!(stage.owed().await, ["GHOST"]);
    settle().await.expect("settled");

    // A repeated upload, an upload by a user of no appservice, and one without keys change no count that an appservice is owed.
    stage.ask(message).await.expect("taken in");
    claim(&stage, &alice).await;
    assert!(stage.owed().await.is_empty());

    // Claiming the one-time key, and the fallback key for the first time, changes the counts that the appservice is owed; claiming
    // the fallback key again does not.
    for owed in [true, true, false] {
        assert_eq!(names(&claim(&stage, &ghost).await, &ghost).len(), 1);
        assert_eq!(stage.owed().await.len(), usize::from(owed));
        settle().await.expect("settled");
    }
    // The same fallback key stays used; another one is unused.
    for (name, owed) in [("F", false), ("G", true)] {
        let mut message = upload(&ghost);
        message.fallback_keys = keys(&[name]);
        stage.ask(message).await.expect("taken in");
        assert_eq!(stage.owed().await.len(), usize::from(owed), "{name}");
    }
}

#[actix::test]
async fn another_source_can_be_asked_before_the_fallback_key() {
    let stage = stage().await;
    let alice = stage.device("@alice:test", "LAPTOP").await;
    let bob = stage.device("@bob:test", "PHONE").await;
    for (from, one_time) in [(&alice, &["A"][..]), (&bob, &[])] {
        let mut message = upload(from);
        message.one_time_keys = keys(one_time);
        message.fallback_keys = keys(&["F"]);
        stage.ask(message).await.expect("taken in");
    }
    let first = Claim {
        wanted: wanted(&[
            (&alice.user, "LAPTOP"),
            (&alice.user, "NONE"),
            (&bob.user, "PHONE"),
        ]),
        or_fallback: false,
    };
    let first = stage.ask(first).await.expect("an answer");
    assert_eq!(names(&first, &alice), ["A"]);
    assert_eq!(
        first.missing,
        wanted(&[(&alice.user, "NONE"), (&bob.user, "PHONE")])
    );
    let second = ClaimFallback {
        wanted: first.missing,
    };
    let second = stage.ask(second).await.expect("an answer");
    assert_eq!(names(&second, &bob), ["F"]);
    assert_eq!(second.missing, wanted(&[(&alice.user, "NONE")]));
}

/// A simple implementation to compare with: a device as a queue of names and a fallback key.
#[derive(Default)]
struct KeyQueue {
    waiting: VecDeque<String>,
    fallback: Option<String>,
}

/// Clause: cs.keys.oldest-first, cs.keys.fallback, cs.keys.missing
#[actix::test]
async fn claims_take_what_a_plain_queue_would_give() {
    let stage = stage().await;
    let devices = [
        stage.device("@alice:test", "LAPTOP").await,
        stage.device("@alice:test", "PHONE").await,
        stage.device("@bob:test", "LAPTOP").await,
    ];
    let mut queues: [KeyQueue; 3] = Default::default();
    // A linear congruential generator: the same run every time.
    let mut state = 1_u64;
    let mut draw = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).expect("31 bits") % below
    };
    for step in 0..400 {
        let which = draw(3);
        let (device, queue) = (&devices[which], &mut queues[which]);
        match draw(8) {
            // The names have a random order: an earlier upload comes first, whatever its keys are called.
            0 => {
                let fresh: Vec<String> = (0..draw(4))
                    .map(|i| format!("{:03}-{step}-{i}", draw(1000)))
                    .collect();
                let known = queue.waiting.iter().take(draw(2)).cloned();
                let names: Vec<String> = known.chain(fresh.iter().cloned()).collect();
                let mut message = upload(device);
                message.one_time_keys = keys(&names.iter().map(String::as_str).collect::<Vec<_>>());
                let mut fresh = fresh;
                fresh.sort();
                queue.waiting.extend(fresh);
                let counts = stage.ask(message).await.expect("taken in");
                assert_eq!(count(&counts), queue.waiting.len() as u64, "step {step}");
            }
            1 => {
                let name = format!("fallback-{step}");
                let mut message = upload(device);
                message.fallback_keys = keys(&[&name]);
                stage.ask(message).await.expect("taken in");
                queue.fallback = Some(name);
            }
            _ => {
                let expected = queue.waiting.pop_front().or_else(|| queue.fallback.clone());
                let claimed = names(&claim(&stage, device).await, device);
                assert_eq!(claimed, Vec::from_iter(expected), "step {step}");
            }
        }
    }
}
