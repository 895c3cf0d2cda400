//! A database of an earlier version is migrated with everything that its appservices are owed.

use serde_json::json;
use tests::bridge::Receiver;
use tests::transcript::Log;
use tests::{Stage, Stored, numbers};
use understudy::experiments;

use crate::to_device::inbox_of;

/// From before everything owed was stored in one table. `irc` and `mirror` each have a frozen transaction that was refused, and
/// more behind it: messages (one that its device has read, one that was delivered and that its device has not read, a large one
/// that two devices share), events, device lists, counts and account data. `late` is in the middle of its back-fill.
const BEFORE_OWED: Stored = Stored {
    sqlite: include_str!("../fixtures/before-owed/sqlite.sql"),
    postgres: include_str!("../fixtures/before-owed/postgres.sql"),
};

const COUNTS: &str = "org.matrix.msc3202.device_one_time_keys_count";
const TO_DEVICE: &str = "de.sorunome.msc2409.to_device";
const ACCOUNT_DATA: &str = "org.understudy.account_data";

#[actix_web::test]
async fn what_an_earlier_version_owed_is_delivered() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = BEFORE_OWED.restore(folder.path());
    let log = Log::default();
    let receiver = |id: &str| Receiver::start(id, &format!("{id}-hs-token"), None, log.clone());
    let (irc, mirror, late) = (receiver("irc"), receiver("mirror"), receiver("late"));
    let stage = Stage::with(&understudy::mscs::by_default(), |options| {
        let proposals = &mut options.settings.proposals;
        experiments::switch_on(&["account_data"], &mut options.hooks, proposals).expect("known");
        options.settings.observe = Some(vec!["mirror".into()]);
        options.database = database;
        let files = options.appservices.clone().expect("a folder");
        for (receiver, id, pattern, exclusive) in [
            (&irc, "irc", "@irc_.*", true),
            (&mirror, "mirror", "@(alice|bob).*", false),
            (&late, "late", "@late_.*", true),
        ] {
            let registration = json!({
                "id": id, "url": receiver.url, "as_token": format!("{id}-as-token"), "hs_token": format!("{id}-hs-token"),
                "sender_localpart": format!("{id}bot"), "rate_limited": false, "receive_ephemeral": true,
                "org.matrix.msc3202": true, ACCOUNT_DATA: id == "irc",
                "namespaces": {"users": [{"exclusive": exclusive, "regex": pattern}]},
            });
            std::fs::write(files.join(format!("{id}.yaml")), registration.to_string()).expect("a file");
        }
    })
    .await;
    stage.advance(std::time::Duration::from_secs(1)).await;
    stage.quiet().await;

    // The frozen transactions come first, under their ids.
    assert_eq!(irc.received()[0].id(), "1735689601000000");
    assert_eq!(mirror.received()[0].id(), "1735689601000002");
    assert_eq!(numbers(&irc.items(0, TO_DEVICE)), [1, 2, 3, 4, 5]);
    assert_eq!(
        numbers(&mirror.items(0, TO_DEVICE)),
        [5, 6],
        "messages that were delivered before are not sent again"
    );
    assert_eq!(numbers(&late.items(0, TO_DEVICE)), [8, 9, 10, 11]);
    for receiver in [&irc, &mirror] {
        let events = receiver.items(0, "events");
        let said = events.iter().filter_map(|e| e["content"]["body"].as_str());
        assert_eq!(said.collect::<Vec<_>>(), ["event 1", "event 2", "event 3"]);
    }
    assert!(
        irc.device_lists(0, "changed")
            .contains(&"@alice:test".to_owned())
    );
    assert_eq!(irc.device_lists(0, "left"), ["@bob:test"]);
    assert!(
        mirror
            .device_lists(0, "changed")
            .contains(&"@irc_dan:test".to_owned())
    );
    let mut counts = irc
        .taken(0)
        .into_iter()
        .map(|body| body[COUNTS]["@irc_dan:test"]["GHOST"].clone());
    assert_eq!(counts.next_back(), Some(json!({"signed_curve25519": 2})));
    assert_eq!(numbers(&irc.items(0, ACCOUNT_DATA)), [7]);

    // The inboxes hold the messages that waited for the devices, without those that were acknowledged.
    let (alice, bob) = (
        stage.log_in("alice", "LAPTOP").await,
        stage.log_in("bob", "PHONE").await,
    );
    assert_eq!(numbers(&inbox_of(&alice).await), [100]);
    assert_eq!(numbers(&inbox_of(&bob).await), [6]);
    for (user, device) in [("@irc_dan:test", "GHOST"), ("@late_eve:test", "TV")] {
        let path = format!("/_understudy/explain?user={user}&device={device}");
        let said = alice.aside().get(&path).await.ok();
        assert_eq!(
            (&said["inbox"]["count"], &said["copies"]["count"]),
            (&json!(0), &json!(0)),
            "{said}"
        );
    }
}
