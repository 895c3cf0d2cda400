//! Answers on a real store, with actors around it.

use std::sync::Arc;
use std::time::Duration;

use ruma::{OwnedRoomId, OwnedUserId, UserId};
use schema::accounts::{self, UserRow};
use schema::interests::{Interests, Proposals};
use schema::sessions::{Maker, ensure_device};
use schema::{Options, Store, user_data};
use serde_json::{Value, json};

use super::*;
use crate::rooms::{
    Action, ChangeMembership, CreateRoom, Enter, Entrance, InitialState, Mark, MarkKind, MarkRead,
    Preset, SendEvent,
};
use crate::start::{Parts, start};
use crate::to_device_inbox::{Deposit, Target};
use crate::trace::Trace;
use crate::wire::Hooks;
use crate::{Actors, Clock, Identity, Ids, Settings, ask};

struct House {
    actors: Actors,
    _folder: tempfile::TempDir,
}

fn user(name: &str) -> OwnedUserId {
    UserId::parse(format!("@{name}:test")).expect("a user id")
}

/// `ann` is ann on her only device; `ann/TWO` is another one.
fn by(name: &str) -> Identity {
    let (name, device) = name.split_once('/').unwrap_or((name, "ONE"));
    Identity {
        user: user(name),
        device: Some(device.into()),
        appservice: None,
    }
}

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("JSON")
}

fn question(name: &str, since: Option<&str>) -> Question {
    Question {
        by: by(name),
        since: since.map(str::to_owned),
        filter: None,
        full_state: false,
        timeout: Duration::ZERO,
        state_at: StateAt::Start,
    }
}

fn next(answer: &Value) -> &str {
    answer["next_batch"].as_str().expect("a token")
}

/// The bodies of a room's messages in an answer; other events by their type.
fn timeline(answer: &Value, section: &str, room: &OwnedRoomId) -> Vec<String> {
    let events = &answer["rooms"][section][room.as_str()]["timeline"]["events"];
    let events = events.as_array().cloned().unwrap_or_default();
    let name = |event: &Value| {
        let text = event["content"]["body"].as_str().or(event["type"].as_str());
        text.unwrap_or_default().to_owned()
    };
    events.iter().map(name).collect()
}

impl House {
    async fn new() -> House {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("db").display());
        let actors = start(Parts {
            store: Store::open(&url, &Options::default()).expect("a store"),
            clock: Clock::manual(1_000),
            ids: Ids::counted(7),
            trace: Trace::new(0),
            settings: Settings {
                server_name: "test".try_into().expect("a name"),
                observe: None,
                proposals: Proposals::default(),
                password_cost: (8, 1),
                default_room_version: "11".to_owned(),
                open_registration: true,
            },
            hooks: Hooks::default(),
            appservices: None,
            fatal: Arc::new(|why| panic!("{why}")),
        })
        .await
        .expect("actors");
        let house = House {
            actors,
            _folder: folder,
        };
        for name in ["ann", "ann/TWO", "bob", "cat"] {
            let Identity { user, device, .. } = by(name);
            house
                .write(move |tx| {
                    let device = device.expect("a device");
                    accounts::register(tx, &UserRow::new(user.as_str(), 0))?;
                    ensure_device(tx, user.as_str(), device.as_str(), None, &Maker::Person)
                })
                .await;
        }
        house
    }

    async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&mut Tx<'_>) -> schema::Result<T> + Send + 'static,
    ) -> T {
        self.actors.env.store.write(write).await.expect("a write")
    }

    async fn ask(&self, question: Question) -> Result<Value> {
        let json = answer(&self.actors, question, || ()).await?;
        Ok(serde_json::from_str(&json).expect("JSON"))
    }

    async fn sync(&self, name: &str, since: Option<&str>) -> Value {
        self.ask(question(name, since)).await.expect("an answer")
    }

    /// A request that waits: it is waiting when this returns.
    async fn wait(&self, name: &str, since: &str) -> tokio::task::JoinHandle<Value> {
        let question = Question {
            timeout: Duration::from_secs(30),
            ..question(name, Some(since))
        };
        let before = self.waiting().await;
        let actors = self.actors.clone();
        let waiting = actix::spawn(async move {
            let json = answer(&actors, question, || ()).await.expect("an answer");
            serde_json::from_str(&json).expect("JSON")
        });
        while self.waiting().await == before {
            tokio::task::yield_now().await;
        }
        waiting
    }

    async fn waiting(&self) -> usize {
        ask(&self.actors.sync, Observe)
            .await
            .expect("a view")
            .waiting
    }

    async fn room(&self, creator: &str) -> OwnedRoomId {
        let wishes = CreateRoom {
            preset: Some(Preset::Public),
            ..CreateRoom::new(by(creator))
        };
        ask(&self.actors.rooms, wishes).await.expect("a room")
    }

    async fn say(&self, name: &str, room: &OwnedRoomId, text: &str) {
        let message = SendEvent {
            by: by(name),
            room: room.clone(),
            kind: "m.room.message".to_owned(),
            txn: text.into(),
            content: raw(&json!({"msgtype": "m.text", "body": text})),
            at: None,
        };
        ask(&self.actors.rooms, message).await.expect("said");
    }

    async fn join(&self, name: &str, room: &OwnedRoomId) {
        let message = Enter {
            by: by(name),
            room: room.clone().into(),
            how: Entrance::Join,
            reason: None,
        };
        ask(&self.actors.rooms, message).await.expect("joined");
    }

    async fn act(&self, name: &str, action: Action, target: &str, room: &OwnedRoomId) {
        let message = ChangeMembership {
            by: by(name),
            room: room.clone(),
            user: user(target),
            action,
            reason: None,
        };
        ask(&self.actors.rooms, message).await.expect("done");
    }

    async fn send_to(&self, name: &str, texts: impl IntoIterator<Item = String>) {
        for text in texts {
            let Identity { user, device, .. } = by(name);
            let to = Target::Device(device.expect("a device"));
            let content = raw(&json!({ "text": text }));
            let message = Deposit {
                from: by("cat"),
                txn: text.as_str().into(),
                event_type: "m.test".to_owned(),
                messages: [(user, [(to, content)].into())].into(),
            };
            ask(&self.actors.to_device_inbox, message)
                .await
                .expect("deposited");
        }
    }

    async fn type_in(&self, name: &str, room: &OwnedRoomId, seconds: Option<u64>) -> Result<()> {
        let message = SetTyping {
            user: user(name),
            room: room.clone(),
            time: seconds.map(Duration::from_secs),
        };
        ask(&self.actors.sync, message).await
    }
}

fn received(answer: &Value) -> Vec<String> {
    let events = answer["to_device"]["events"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    events
        .iter()
        .map(|e| e["content"]["text"].as_str().expect("text").to_owned())
        .collect()
}

#[actix::test]
async fn a_first_answer_has_everything() {
    let house = House::new().await;
    let room = house.room("ann").await;
    house.join("bob", &room).await;
    house.say("bob", &room, "hello").await;
    house.say("ann", &room, "hi").await;
    let answer = house.sync("ann", None).await;
    let joined = &answer["rooms"]["join"][room.as_str()];
    assert_eq!(joined["summary"]["m.joined_member_count"], 2);
    assert_eq!(joined["summary"]["m.heroes"], json!(["@bob:test"]));
    let events = joined["timeline"]["events"].as_array().expect("events");
    assert_eq!(events[0]["type"], "m.room.create");
    assert!(
        events[0].get("room_id").is_none(),
        "no event names its room"
    );
    let mine = events.last().expect("an event");
    assert_eq!(mine["unsigned"]["transaction_id"], "hi");
    assert_eq!(joined["timeline"]["limited"], false);
    assert!(
        joined.get("state").is_none(),
        "all of it is in the timeline"
    );
    assert_eq!(answer["account_data"]["events"][0]["type"], "m.push_rules");
    assert_eq!(
        answer["device_one_time_keys_count"],
        json!({"signed_curve25519": 0})
    );
    assert_eq!(answer["device_unused_fallback_key_types"], json!([]));
    assert!(answer.get("device_lists").is_none());

    let other = house.sync("ann/TWO", None).await;
    let events = &other["rooms"]["join"][room.as_str()]["timeline"]["events"];
    let last = events.as_array().and_then(|e| e.last()).expect("an event");
    assert!(
        last["unsigned"].get("transaction_id").is_none(),
        "another device sent it"
    );
}

#[actix::test]
async fn nothing_new_is_an_answer_when_the_time_is_over() {
    let house = House::new().await;
    house.room("ann").await;
    let first = house.sync("ann", None).await;
    let second = house.sync("ann", Some(next(&first))).await;
    assert_eq!(
        second,
        json!({"next_batch": next(&first), "device_one_time_keys_count": {"signed_curve25519": 0},
            "device_unused_fallback_key_types": []})
    );
    let waiting = house.wait("ann", next(&first)).await;
    house
        .actors
        .env
        .clock
        .advance(Duration::from_millis(29_999));
    assert_eq!(house.waiting().await, 1);
    house.actors.env.clock.advance(Duration::from_millis(1));
    assert_eq!(waiting.await.expect("an answer"), second);
    assert_eq!(house.waiting().await, 0);
}

#[actix::test]
async fn who_waits_hears_of_a_message_at_once() {
    let house = House::new().await;
    let room = house.room("ann").await;
    house.join("bob", &room).await;
    let (ann, bob) = (house.sync("ann", None).await, house.sync("bob", None).await);
    let (ann, bob) = (
        house.wait("ann", next(&ann)).await,
        house.wait("bob", next(&bob)).await,
    );
    house.say("ann", &room, "hello").await;
    for waiting in [ann, bob] {
        let answer = waiting.await.expect("an answer");
        assert_eq!(timeline(&answer, "join", &room), ["hello"]);
        let joined = &answer["rooms"]["join"][room.as_str()];
        assert!(joined.get("summary").is_none(), "nobody came or went");
    }
}

#[actix::test]
async fn who_hangs_up_is_forgotten() {
    let house = House::new().await;
    let first = house.sync("ann", None).await;
    let waiting = house.wait("ann", next(&first)).await;
    waiting.abort();
    while house.waiting().await != 0 {
        tokio::task::yield_now().await;
    }
}

#[actix::test]
async fn messages_stay_until_the_next_token_acknowledges_them() {
    let house = House::new().await;
    let first = house.sync("ann", None).await;
    let waiting = house.wait("ann", next(&first)).await;
    house.send_to("ann", ["one".to_owned()]).await;
    let answer = waiting.await.expect("an answer");
    assert_eq!(received(&answer), ["one"]);
    // The same token again brings the same again.
    assert_eq!(
        received(&house.sync("ann", Some(next(&first))).await),
        ["one"]
    );
    let answer = house.sync("ann", Some(next(&answer))).await;
    assert!(received(&answer).is_empty());
    assert!(
        received(&house.sync("ann", Some(next(&first))).await).is_empty(),
        "they are gone"
    );
}

#[actix::test]
async fn more_messages_than_fit_come_with_the_next_answer() {
    let house = House::new().await;
    let first = house.sync("ann", None).await;
    house.send_to("ann", (0..230).map(|i| i.to_string())).await;
    let mut token = next(&first).to_owned();
    let (mut all, mut sizes) = (Vec::new(), Vec::new());
    loop {
        let answer = house.sync("ann", Some(&token)).await;
        let some = received(&answer);
        if some.is_empty() {
            break;
        }
        sizes.push(some.len());
        all.extend(some);
        next(&answer).clone_into(&mut token);
        assert_eq!(token.contains('_'), sizes.len() < 3, "{token}");
    }
    assert_eq!(sizes, [100, 100, 30]);
    assert_eq!(all, (0..230).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[actix::test]
async fn a_token_that_was_never_handed_out() {
    let house = House::new().await;
    house.send_to("ann", ["one".to_owned()]).await;
    let refused = house.ask(question("ann", Some("x1"))).await;
    assert!(matches!(
        refused,
        Err(Error::Refused(Refusal::InvalidParam(_)))
    ));
    // One from above the head deletes nothing and misses nothing from now on.
    let waiting = house.wait("ann", "s999999").await;
    house.send_to("ann", ["two".to_owned()]).await;
    assert_eq!(received(&waiting.await.expect("an answer")), ["two"]);
    assert_eq!(received(&house.sync("ann", None).await), ["one", "two"]);
}

#[actix::test]
async fn an_invite_a_join_and_a_leave() {
    let house = House::new().await;
    let room = house.room("ann").await;
    house.say("ann", &room, "before").await;
    let first = house.sync("bob", None).await;
    let waiting = house.wait("bob", next(&first)).await;
    house.act("ann", Action::Invite, "bob", &room).await;
    let invited = waiting.await.expect("an answer");
    let state = &invited["rooms"]["invite"][room.as_str()]["invite_state"]["events"];
    let kinds: Vec<&str> = state
        .as_array()
        .expect("events")
        .iter()
        .filter_map(|e| e["type"].as_str())
        .collect();
    assert!(
        kinds.contains(&"m.room.create") && kinds.contains(&"m.room.member"),
        "{kinds:?}"
    );

    house.join("bob", &room).await;
    let joined = house.sync("bob", Some(next(&invited))).await;
    assert!(
        timeline(&joined, "join", &room).contains(&"before".to_owned()),
        "history is shared"
    );
    assert_eq!(joined["device_lists"]["changed"], json!(["@ann:test"]));
    let again = house.sync("bob", Some(next(&joined))).await;
    assert!(again.get("rooms").is_none() && again.get("device_lists").is_none());

    house.act("bob", Action::Leave, "bob", &room).await;
    house.say("ann", &room, "after").await;
    let left = house.sync("bob", Some(next(&joined))).await;
    assert_eq!(timeline(&left, "leave", &room), ["m.room.member"]);
    assert_eq!(left["device_lists"], json!({"left": ["@ann:test"]}));
    assert!(
        house
            .sync("bob", Some(next(&left)))
            .await
            .get("rooms")
            .is_none()
    );
    assert!(
        house.sync("bob", None).await.get("rooms").is_none(),
        "left rooms are not asked for"
    );
    let with_left = Question {
        filter: Some(r#"{"room": {"include_leave": true}}"#.to_owned()),
        ..question("bob", None)
    };
    let all = house.ask(with_left).await.expect("an answer");
    let shown = timeline(&all, "leave", &room);
    assert!(shown.contains(&"before".to_owned()) && !shown.contains(&"after".to_owned()));
}

#[actix::test]
async fn what_was_said_before_one_joined_may_be_hidden() {
    let house = House::new().await;
    let wishes = CreateRoom {
        preset: Some(Preset::Public),
        initial_state: vec![InitialState {
            kind: "m.room.history_visibility".to_owned(),
            state_key: String::new(),
            content: raw(&json!({"history_visibility": "joined"})),
        }],
        ..CreateRoom::new(by("ann"))
    };
    let room = ask(&house.actors.rooms, wishes).await.expect("a room");
    let first = house.sync("bob", None).await;
    house.say("ann", &room, "hidden").await;
    house.join("bob", &room).await;
    house.say("ann", &room, "seen").await;
    for since in [None, Some(next(&first))] {
        let shown = timeline(&house.sync("bob", since).await, "join", &room);
        assert!(!shown.contains(&"hidden".to_owned()), "{shown:?}");
        assert_eq!(shown.last().map(String::as_str), Some("seen"));
    }
    let second = house.sync("bob", Some(next(&first))).await;
    house.act("bob", Action::Leave, "bob", &room).await;
    house.say("ann", &room, "hidden too").await;
    house.join("bob", &room).await;
    let answer = house.sync("bob", Some(next(&second))).await;
    assert_eq!(
        timeline(&answer, "join", &room),
        ["m.room.member", "m.room.member"]
    );
}

#[actix::test]
async fn a_gap_is_said_and_its_state_is_sent() {
    let house = House::new().await;
    let room = house.room("ann").await;
    let first = house.sync("ann", None).await;
    house.join("bob", &room).await;
    for i in 0..12 {
        house.say("ann", &room, &i.to_string()).await;
    }
    let answer = house.sync("ann", Some(next(&first))).await;
    let joined = &answer["rooms"]["join"][room.as_str()];
    assert_eq!(timeline(&answer, "join", &room).len(), 10);
    assert_eq!(joined["timeline"]["limited"], true);
    let state = joined["state"]["events"].as_array().expect("state");
    assert_eq!(state.len(), 1, "only what changed in the gap");
    assert_eq!(state[0]["state_key"], "@bob:test");
    assert_eq!(joined["summary"]["m.joined_member_count"], 2);

    let rest = crate::rooms::queries::messages(
        &house.actors.env,
        &by("ann"),
        &room,
        crate::rooms::queries::Page {
            backwards: true,
            from: Some(
                crate::rooms::rules::parse_token(
                    joined["timeline"]["prev_batch"].as_str().expect("a token"),
                )
                .expect("a place"),
            ),
            to: None,
            limit: 3,
            filter: Default::default(),
        },
    )
    .await
    .expect("a page");
    assert!(
        rest.chunk[0].get().contains(r#""body":"1""#),
        "the page goes on where the answer begins"
    );

    let filter = r#"{"room": {"timeline": {"limit": 1, "types": ["m.room.message"]}}}"#;
    for (at, key) in [
        (StateAt::End, "state_after"),
        (StateAt::EndUnstable, "org.matrix.msc4222.state_after"),
    ] {
        let answer = house
            .ask(Question {
                filter: Some(filter.to_owned()),
                state_at: at,
                ..question("ann", Some(next(&first)))
            })
            .await
            .expect("an answer");
        let joined = &answer["rooms"]["join"][room.as_str()];
        assert_eq!(timeline(&answer, "join", &room), ["11"]);
        assert_eq!(joined[key]["events"][0]["state_key"], "@bob:test");
        assert!(joined.get("state").is_none());
    }
    let whole = Question {
        full_state: true,
        ..question("bob", Some(next(&answer)))
    };
    let whole = house.ask(whole).await.expect("an answer");
    let state = &whole["rooms"]["join"][room.as_str()]["state"]["events"];
    assert!(
        state.as_array().is_some_and(|s| s.len() > 5),
        "the whole state was asked for"
    );
}

#[actix::test]
async fn typing_is_heard_and_ends_by_itself() {
    let house = House::new().await;
    let room = house.room("ann").await;
    house.join("bob", &room).await;
    assert!(matches!(
        house.type_in("cat", &room, Some(5)).await,
        Err(Error::Refused(Refusal::Forbidden(_)))
    ));
    let first = house.sync("ann", None).await;
    let typing = |answer: &Value| {
        answer["rooms"]["join"][room.as_str()]["ephemeral"]["events"][0]["content"]["user_ids"]
            .clone()
    };
    let waiting = house.wait("ann", next(&first)).await;
    house.type_in("bob", &room, Some(5)).await.expect("typing");
    let began = waiting.await.expect("an answer");
    assert_eq!(typing(&began), json!(["@bob:test"]));
    // Who comes now sees it too, and who has seen it does not hear it again.
    assert_eq!(
        typing(&house.sync("ann/TWO", None).await),
        json!(["@bob:test"])
    );
    assert!(
        house
            .sync("ann", Some(next(&began)))
            .await
            .get("rooms")
            .is_none()
    );

    let waiting = house.wait("ann", next(&began)).await;
    house.actors.env.clock.advance(Duration::from_secs(5));
    let ended = waiting.await.expect("an answer");
    assert_eq!(typing(&ended), json!([]));
    house
        .type_in("bob", &room, None)
        .await
        .expect("nothing new");
    assert_eq!(
        next(&house.sync("ann", Some(next(&ended))).await),
        next(&ended)
    );
}

#[actix::test]
async fn receipts_are_heard_but_for_private_ones() {
    let house = House::new().await;
    let room = house.room("ann").await;
    house.join("bob", &room).await;
    house.say("ann", &room, "read me").await;
    let first = house.sync("ann", None).await;
    let events = &first["rooms"]["join"][room.as_str()]["timeline"]["events"];
    let event = events.as_array().and_then(|e| e.last()).expect("an event")["event_id"].clone();
    let event = event.as_str().expect("an id");
    let mark = |kind| MarkRead {
        by: by("bob"),
        room: room.clone(),
        marks: vec![Mark {
            kind,
            event: event.try_into().expect("an id"),
            thread: String::new(),
        }],
    };
    ask(&house.actors.rooms, mark(MarkKind::ReadPrivate))
        .await
        .expect("marked");
    let nothing = house.sync("ann", Some(next(&first))).await;
    assert!(nothing.get("rooms").is_none());
    let own = house.sync("bob", Some(next(&first))).await;
    let receipt = |answer: &Value, kind: &str| {
        answer["rooms"]["join"][room.as_str()]["ephemeral"]["events"][0]["content"][event][kind]
            .clone()
    };
    assert!(receipt(&own, "m.read.private").get("@bob:test").is_some());

    let waiting = house.wait("ann", next(&nothing)).await;
    ask(&house.actors.rooms, mark(MarkKind::Read))
        .await
        .expect("marked");
    let heard = waiting.await.expect("an answer");
    assert_eq!(
        receipt(&heard, "m.read"),
        json!({"@bob:test": {"ts": 1000}})
    );
}

#[actix::test]
async fn account_data_comes_by_room_and_for_all() {
    let house = House::new().await;
    let room = house.room("ann").await;
    let first = house.sync("ann", None).await;
    let there = room.to_string();
    house
        .write(move |tx| {
            user_data::put(tx, "@ann:test", "", "m.direct", r#"{"a":1}"#)?;
            user_data::put(tx, "@ann:test", &there, "m.tag", r#"{"tags":{}}"#)?;
            user_data::put(tx, "@ann:test", "!elsewhere:test", "m.tag", "{}")
        })
        .await;
    let answer = house.sync("ann", Some(next(&first))).await;
    assert_eq!(
        answer["account_data"]["events"],
        json!([{"type": "m.direct", "content": {"a": 1}}])
    );
    let joined = &answer["rooms"]["join"];
    assert_eq!(joined.as_object().map(serde_json::Map::len), Some(1));
    assert_eq!(
        joined[room.as_str()]["account_data"]["events"],
        json!([{"type": "m.tag", "content": {"tags": {}}}])
    );
}

#[actix::test]
async fn whose_devices_changed() {
    let house = House::new().await;
    let room = house.room("ann").await;
    let first = house.sync("ann", None).await;
    house
        .write(|tx| {
            device_lists::keys_changed(tx, "@bob:test")?;
            device_lists::keys_changed(tx, "@ann:test")?;
            device_lists::private_keys_changed(tx, "@cat:test")
        })
        .await;
    let answer = house.sync("ann", Some(next(&first))).await;
    assert_eq!(
        answer["device_lists"],
        json!({"changed": ["@ann:test"]}),
        "bob is a stranger"
    );
    house.join("bob", &room).await;
    house.join("cat", &room).await;
    let met = house.sync("ann", Some(next(&answer))).await;
    assert_eq!(
        met["device_lists"],
        json!({"changed": ["@bob:test", "@cat:test"]})
    );
    house
        .write(|tx| device_lists::keys_changed(tx, "@bob:test"))
        .await;
    house.act("cat", Action::Leave, "cat", &room).await;
    let answer = house.sync("ann", Some(next(&met))).await;
    assert_eq!(
        answer["device_lists"],
        json!({"changed": ["@bob:test"], "left": ["@cat:test"]})
    );
    // The same question, put directly.
    let env = &house.actors.env;
    let lists = queries::key_changes(env, &user("ann"), next(&met), next(&answer)).await;
    assert_eq!(
        lists.expect("lists"),
        DeviceLists {
            changed: vec!["@bob:test".to_owned()],
            left: vec!["@cat:test".to_owned()],
        }
    );
    assert!(
        queries::key_changes(env, &user("ann"), "x", "s1")
            .await
            .is_err()
    );
}

#[actix::test]
async fn presence_is_for_those_who_share_a_room() {
    let house = House::new().await;
    let room = house.room("ann").await;
    house.join("bob", &room).await;
    let (ann, cat) = (house.sync("ann", None).await, house.sync("cat", None).await);
    let waiting = house.wait("ann", next(&ann)).await;
    let message = SetPresence {
        user: user("bob"),
        state: "online".to_owned(),
        message: Some("here".to_owned()),
    };
    ask(&house.actors.sync, message).await.expect("set");
    let answer = waiting.await.expect("an answer");
    let event = &answer["presence"]["events"][0];
    assert_eq!(
        (&event["sender"], &event["content"]["presence"]),
        (&json!("@bob:test"), &json!("online"))
    );
    assert!(
        house
            .sync("cat", Some(next(&cat)))
            .await
            .get("presence")
            .is_none()
    );
}

#[actix::test]
async fn a_service_that_listens_is_told_of_typing_and_receipts() {
    let house = House::new().await;
    let service = |id: &str, listens: bool| {
        let value = json!({"id": id, "url": "http://localhost:9", "as_token": id, "hs_token": id,
            "sender_localpart": format!("{id}bot"), "receive_ephemeral": listens,
            "namespaces": {"users": [{"exclusive": true, "regex": format!("@{id}_.*")}]}});
        (
            serde_json::from_value(value).expect("a registration"),
            false,
        )
    };
    let interests = Interests::compile(
        "test",
        vec![service("irc", true), service("deaf", false)],
        Proposals::default(),
    )
    .expect("patterns");
    house
        .actors
        .env
        .store
        .write_alone(|tx| {
            tx.swap_interests(interests);
            Ok::<_, Error>(())
        })
        .await
        .expect("swapped");
    let (room, elsewhere) = (house.room("ann").await, house.room("ann").await);
    for ghost in ["irc_bob", "deaf_bob"] {
        house.join(ghost, &room).await;
    }
    house.type_in("ann", &room, Some(5)).await.expect("typing");
    house
        .type_in("ann", &elsewhere, Some(5))
        .await
        .expect("typing");
    let take = |id: &str| TakeEphemeral {
        service: ServiceId::from(id),
        limit: 100,
    };
    let sync = house.actors.sync.addr();
    let taken = sync.send(take("irc")).await.expect("words");
    let taken: Vec<&str> = taken.iter().map(|json| json.get()).collect();
    let expected =
        json!({"content": {"user_ids": ["@ann:test"]}, "room_id": room, "type": "m.typing"});
    assert_eq!(taken, [expected.to_string()]);
    assert!(sync.send(take("deaf")).await.expect("words").is_empty());

    let first = house.sync("ann", None).await;
    let events = &first["rooms"]["join"][room.as_str()]["timeline"]["events"];
    let event = events.as_array().and_then(|e| e.last()).expect("an event")["event_id"].clone();
    for (name, kind) in [
        ("ann", MarkKind::ReadPrivate),
        ("irc_bob", MarkKind::ReadPrivate),
    ] {
        let message = MarkRead {
            by: by(name),
            room: room.clone(),
            marks: vec![Mark {
                kind,
                event: event
                    .as_str()
                    .and_then(|e| e.try_into().ok())
                    .expect("an id"),
                thread: String::new(),
            }],
        };
        ask(&house.actors.rooms, message).await.expect("marked");
    }
    let mut taken = Vec::new();
    while taken.is_empty() {
        taken = sync.send(take("irc")).await.expect("words");
        tokio::task::yield_now().await;
    }
    assert_eq!(taken.len(), 1);
    assert!(
        taken[0].get().contains("@irc_bob:test"),
        "its own user's private receipt"
    );
    assert!(!taken[0].get().contains("@ann:test"), "and nobody else's");
}
