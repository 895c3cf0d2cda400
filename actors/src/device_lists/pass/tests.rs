//! After any sequence of joins, leaves, new devices, deliveries and interrupted passes over the device-list log, an appservice
//! tracks exactly the users who share a room with one of its joined members.

use std::collections::{BTreeMap, BTreeSet};

use crate::services::{CarriesInterests, Interests, Proposals};

use crate::device_lists::held::OpenLine;
use schema::memberships::{self, MembershipRow};
use schema::{Position, Store, StoreOptions, device_log, owed, tracked};
use serde_json::json;

use super::*;

const USERS: [&str; 6] = [
    "@irc_a:test",
    "@irc_b:test",
    "@ircbot:test",
    "@alice:test",
    "@bob:test",
    "@carol:test",
];
const ROOMS: [&str; 3] = ["!a:test", "!b:test", "!c:test"];
const MEMBERSHIPS: [&str; 4] = ["join", "leave", "invite", "ban"];

fn interests() -> Interests {
    let service = |id: &str, users: serde_json::Value| {
        let registration = json!({"id": id, "url": "http://localhost:1", "as_token": id, "hs_token": id,
            "sender_localpart": format!("{id}bot"), "namespaces": {"users": users}, "org.matrix.msc3202": true});
        (
            serde_json::from_value(registration).expect("a registration"),
            false,
        )
    };
    let all = vec![
        service("irc", json!([{"exclusive": true, "regex": "@irc_.*"}])),
        service("other", json!([{"exclusive": true, "regex": "@bob.*"}])),
    ];
    let proposals = Proposals {
        to_device: true,
        device_lists: true,
        ..Proposals::default()
    };
    Interests::compile("test", all, &proposals).expect("patterns compile")
}

/// The highest position whose items a transaction of this appservice may carry.
fn settled(tx: &mut Tx<'_>, service: &ServiceId) -> Result<Position> {
    let (interests, head) = (tx.interests(), tx.head());
    let about = interests.service(service).expect("it is registered");
    let line = crate::device_lists::held::held_by(tx, &interests, about, head)?;
    Ok(OpenLine::settled_up_to(line, head))
}

/// An appservice that applies the changes that it receives.
#[derive(Default)]
struct Bridge {
    tracks: BTreeSet<String>,
}

impl Bridge {
    /// Deliver one transaction: everything owed up to a position, acknowledged.
    fn takes(&mut self, tx: &mut Tx<'_>, service: &ServiceId, txn: i64) -> Result<()> {
        let cut = settled(tx, service)?;
        for row in owed::waiting(tx, service, Position::START, cut, 1000)? {
            let user = row.key;
            if row.item == owed::LEFT {
                // A `left` can replace a `changed` of the same user while both wait. Then the appservice did not track the user,
                // and this changes nothing.
                self.tracks.remove(&user);
            } else {
                self.tracks.insert(user);
            }
        }
        owed::stamp(tx, service, cut, txn)?;
        owed::forget(tx, service, txn)?;
        Ok(())
    }
}

pub(crate) fn move_to(tx: &mut Tx<'_>, room: &str, user: &str, membership: &str) -> Result<()> {
    let before = memberships::get(tx, room, user)?
        .map(|m| m.membership)
        .unwrap_or_default();
    if before == membership {
        return Ok(());
    }
    let event = tx.next_position();
    let row = MembershipRow {
        room_id: room.to_owned(),
        user_id: user.to_owned(),
        membership: membership.to_owned(),
        position: event.0,
        event_id: "$e".to_owned(),
        sender: user.to_owned(),
        display_name: None,
        avatar_url: None,
        left_at: 0,
        forgotten_at: 0,
    };
    memberships::put(tx, &row)?;
    let interests = tx.interests();
    let own = interests.in_user(user).into_iter();
    let own = own.map(|(service, _)| service.id.clone()).collect();
    device_log::membership_changed(tx, room, user, &own, (&before, membership), event)?;
    Ok(())
}

/// A whole pass, in the same writes as [`run`].
pub(crate) fn drain(tx: &mut Tx<'_>) -> Result<()> {
    let mut after = String::new();
    for _ in 0..10_000 {
        match step(tx, &after)?.rest {
            Rest::Nothing => return Ok(()),
            Rest::More => after.clear(),
            Rest::InRoom(user) => after = user,
        }
    }
    panic!("the pass does not end");
}

/// The users who share a room with a joined member of the appservice, found by checking every membership.
fn brute(
    all: &BTreeMap<(&str, &str), &str>,
    interests: &Interests,
    service: &ServiceId,
) -> BTreeSet<String> {
    let own = |user: &str| interests.claim(service, user).is_some();
    let in_room = |room: &str, user: &str, words: &[&str]| {
        all.get(&(room, user)).is_some_and(|w| words.contains(w))
    };
    let here: Vec<&str> = ROOMS
        .into_iter()
        .filter(|r| USERS.iter().any(|u| own(u) && in_room(r, u, &["join"])))
        .collect();
    let shares =
        |user: &&str| !own(user) && here.iter().any(|r| in_room(r, user, &["join", "invite"]));
    USERS
        .iter()
        .copied()
        .filter(shares)
        .map(ToOwned::to_owned)
        .collect()
}

/// An empty store with the appservices in force. Its folder is deleted when the first value is dropped.
async fn opened() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", folder.path().join("db").display());
    let store = Store::open(&url, &StoreOptions::default()).expect("the store opens");
    let done = store.write_alone(|tx| {
        crate::services::swap_interests(tx, interests());
        Ok::<_, Error>(())
    });
    done.await.expect("interests in force");
    (folder, store)
}

/// Clause: as.lists.not-own
#[actix::test]
async fn a_service_tracks_exactly_the_users_who_share_a_room() {
    for seed in 0..12u64 {
        let (_folder, store) = opened().await;
        let (compiled, own) = (interests(), interests());
        let checked = store.write_always(move |tx| {
            let mut state = seed * 7919 + 1;
            let mut random = |below: usize| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                usize::try_from(state >> 33).unwrap_or(0) % below
            };
            let mut all = BTreeMap::new();
            let mut bridges: BTreeMap<ServiceId, Bridge> = [
                ("irc".into(), Bridge::default()),
                ("other".into(), Bridge::default()),
            ]
            .into();
            let mut txn = 0;
            for _ in 0..150 {
                match random(10) {
                    0..=5 => {
                        let (room, user, membership) =
                            (ROOMS[random(3)], USERS[random(6)], MEMBERSHIPS[random(4)]);
                        move_to(tx, room, user, membership)?;
                        all.insert((room, user), membership);
                    }
                    6 => device_log::keys_changed(tx, USERS[random(6)]).map(drop)?,
                    // One piece of a pass; the next may come much later.
                    7 => drop(step(tx, "")?),
                    _ => {
                        let services: Vec<ServiceId> = bridges.keys().cloned().collect();
                        let service = &services[random(2)];
                        txn += 1;
                        bridges
                            .get_mut(service)
                            .expect("a bridge")
                            .takes(tx, service, txn)?;
                    }
                }
            }
            drain(tx)?;
            let mut result = Vec::new();
            for (service, mut bridge) in bridges {
                bridge.takes(tx, &service, txn + 1)?;
                let tracked = tracked::tracked_by(tx, &service, "", 1000)?
                    .into_iter()
                    .collect::<BTreeSet<_>>();
                let expected = brute(&all, &compiled, &service);
                result.push((service, tracked, bridge.tracks, expected));
            }
            Ok::<_, Error>(result)
        });
        for (service, tracked, sent, expected) in checked.await.expect("a schedule") {
            assert_eq!(tracked, sent, "seed {seed}: {service}: tracked");
            let is_own = |user: &String| own.claim(&service, user).is_some();
            let others: BTreeSet<_> = sent.into_iter().filter(|user| !is_own(user)).collect();
            assert_eq!(others, expected, "seed {seed}: {service}: sent");
        }
    }
}

/// Clause: as.lists.latest
#[actix::test]
async fn the_bot_and_the_user_leave_at_nearly_the_same_time() {
    let (_folder, store) = opened().await;
    let owed = store.write_always(|tx| {
        let irc = ServiceId::from("irc");
        move_to(tx, ROOMS[0], "@ircbot:test", "join")?;
        move_to(tx, ROOMS[0], "@alice:test", "join")?;
        drain(tx)?;
        Bridge::default().takes(tx, &irc, 1)?;
        // Both have left before any pass runs.
        move_to(tx, ROOMS[0], "@ircbot:test", "leave")?;
        move_to(tx, ROOMS[0], "@alice:test", "leave")?;
        let head = tx.head();
        assert!(settled(tx, &irc)? < head, "nothing is sent before the pass");
        drain(tx)?;
        let head = tx.head();
        Ok::<_, Error>(owed::waiting(tx, &irc, Position::START, head, 10)?)
    });
    let owed: Vec<_> = owed
        .await
        .expect("a schedule")
        .into_iter()
        .map(|row| (row.key, row.item))
        .collect();
    assert_eq!(owed, [("@alice:test".to_owned(), owed::LEFT.to_owned())]);
}

/// Clause: as.lists.left-all
#[actix::test]
async fn the_last_leave_of_a_service_includes_users_who_left_after_it() {
    let (_folder, store) = opened().await;
    let schedule = store.write_always(|tx| {
        let irc = ServiceId::from("irc");
        move_to(tx, ROOMS[0], "@ircbot:test", "join")?;
        move_to(tx, ROOMS[0], "@alice:test", "join")?;
        drain(tx)?;
        Bridge::default().takes(tx, &irc, 1)?;
        // Both have left before any pass runs, and a transaction is made in the middle of the pass.
        move_to(tx, ROOMS[0], "@ircbot:test", "leave")?;
        let ended = tx.head();
        move_to(tx, ROOMS[0], "@alice:test", "leave")?;
        let mut after = String::new();
        while let Rest::InRoom(user) = step(tx, &after)?.rest {
            after = user;
        }
        let cut = settled(tx, &irc)?;
        assert!(cut >= ended, "the end of sharing may be sent");
        Ok::<_, Error>(owed::waiting(tx, &irc, Position::START, cut, 10)?)
    });
    let owed = schedule.await.expect("a schedule");
    let sent: Vec<_> = owed.into_iter().map(|row| (row.key, row.item)).collect();
    let left = owed::LEFT.to_owned();
    assert_eq!(sent, [("@alice:test".to_owned(), left)]);
}

/// Clause: as.lists.on-retry
/// Clause: own.lists.with-the-leave
#[actix::test]
async fn a_later_open_line_does_not_separate_a_leave_from_its_left() {
    let (_folder, store) = opened().await;
    for leaver in ["@alice:test", "@ircbot:test"] {
        let schedule = store.write_always(move |tx| {
            let irc = ServiceId::from("irc");
            move_to(tx, ROOMS[0], "@ircbot:test", "join")?;
            move_to(tx, ROOMS[0], "@alice:test", "join")?;
            move_to(tx, ROOMS[1], "@ircbot:test", "leave")?;
            drain(tx)?;
            Bridge::default().takes(tx, &irc, 1)?;
            // No pass runs before the appservice has its first member in another room.
            move_to(tx, ROOMS[0], leaver, "leave")?;
            let left = memberships::get(tx, ROOMS[0], leaver)?.map(|m| m.position);
            move_to(tx, ROOMS[1], "@ircbot:test", "join")?;
            let joined = memberships::get(tx, ROOMS[1], "@ircbot:test")?.map(|m| m.position);
            let mut after = String::new();
            loop {
                after = match step(tx, &after)?.rest {
                    Rest::InRoom(user) => user,
                    _ => String::new(),
                };
                // A transaction between the writes of the pass contains the leave and not the join.
                let cut = settled(tx, &irc)?;
                if Some(cut.0) >= left {
                    assert!(Some(cut.0) < joined, "the pass is in the middle");
                    return Ok::<_, Error>(owed::waiting(tx, &irc, Position::START, cut, 10)?);
                }
            }
        });
        let owed = schedule.await.expect("a schedule");
        let sent: Vec<_> = owed.into_iter().map(|row| (row.key, row.item)).collect();
        let left = owed::LEFT.to_owned();
        assert_eq!(sent, [("@alice:test".to_owned(), left)], "{leaver} left");
    }
}

#[actix::test]
async fn an_open_line_holds_back_only_the_services_that_it_concerns() {
    let (_folder, store) = opened().await;
    let held = store.write_always(|tx| {
        let services = [ServiceId::from("irc"), ServiceId::from("other")];
        let mut all: Vec<(&str, [bool; 2])> = Vec::new();
        let mut after = |tx: &mut Tx<'_>, what| -> Result<()> {
            let head = tx.head();
            let mut held = |service| Ok::<_, Error>(settled(tx, service)? < head);
            all.push((what, [held(&services[0])?, held(&services[1])?]));
            drain(tx)
        };
        move_to(tx, ROOMS[2], "@alice:test", "join")?;
        after(tx, "a join in a room without services")?;
        device_log::keys_changed(tx, "@alice:test")?;
        after(tx, "keys of a stranger")?;
        device_log::keys_changed(tx, "@irc_a:test")?;
        after(tx, "keys of irc's own user")?;
        move_to(tx, ROOMS[0], "@ircbot:test", "join")?;
        after(tx, "irc's first member")?;
        move_to(tx, ROOMS[0], "@alice:test", "invite")?;
        after(tx, "an invite to irc's room")?;
        device_log::keys_changed(tx, "@alice:test")?;
        after(tx, "keys of a user whom irc tracks")?;
        device_log::private_keys_changed(tx, "@alice:test", "@alice:test")?;
        after(tx, "what only the user sees")?;
        move_to(tx, ROOMS[2], "@alice:test", "leave")?;
        after(tx, "a leave of a user whom irc tracks")?;
        move_to(tx, ROOMS[0], "@ircbot:test", "leave")?;
        after(tx, "irc's last member")?;
        for n in 0..300 {
            device_log::keys_changed(tx, &format!("@stranger{n}:test"))?;
        }
        after(tx, "more lines than are looked at")?;
        Ok::<_, Error>(all)
    });
    let held = held.await.expect("a schedule");
    let expected = [
        ("a join in a room without services", [false, false]),
        ("keys of a stranger", [false, false]),
        ("keys of irc's own user", [true, false]),
        ("irc's first member", [true, false]),
        ("an invite to irc's room", [true, false]),
        ("keys of a user whom irc tracks", [true, false]),
        ("what only the user sees", [false, false]),
        ("a leave of a user whom irc tracks", [true, false]),
        ("irc's last member", [true, false]),
        ("more lines than are looked at", [true, true]),
    ];
    assert_eq!(held, expected);
}
