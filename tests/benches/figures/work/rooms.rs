//! Room events to a bridge, and users that leave its rooms.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use schema::memberships::{self, MembershipRow};
use schema::{Position, ServiceId, Tx, device_log, rooms};
use serde_json::{Value, json};
use tests::Person;
use tests::person::segment;

use super::load::{Run, deliver};
use super::to_device::send_to;
use crate::figure::{Figure, Mark, Spent, percentiles};
use crate::http::{Connection, request};
use crate::server::pause;
use crate::world::{AS_TOKEN, Plan, World, ghost_id, in_pieces, person_id, person_token};

/// How often the users leave and join again.
const ROUNDS: usize = 40;

/// The number of users that leave at once.
const LEAVERS: usize = 8;

pub(crate) async fn room(world: &World, owner: usize) -> String {
    let body = json!({"preset": "public_chat"});
    let made = world.person(owner).post("/createRoom", &body).await.ok();
    made["room_id"].as_str().expect("a room").to_owned()
}

pub(crate) async fn join(who: &Person, room: &str) {
    let path = format!("/join/{}", segment(room));
    assert_eq!(who.post(&path, &json!({})).await.status, 200);
}

/// Creates a room of a user with a ghost in it. Returns its id as a segment of a path.
pub(crate) async fn room_with_ghost(world: &World, owner: usize) -> String {
    let room = room(world, owner).await;
    join(&world.ghost(0), &room).await;
    segment(&room)
}

/// Messages of users in rooms of their own, each with a ghost in it.
pub(crate) async fn events(postgres: bool) -> Vec<Figure> {
    let world = World::new(Plan {
        people: 16,
        ghosts: 1,
        postgres,
        ..Plan::default()
    })
    .await;
    let mut rooms = Vec::new();
    for owner in 0..16 {
        rooms.push(room_with_ghost(&world, owner).await);
    }
    let send = |series: &str, sender: usize, n: usize| {
        let path = format!(
            "/_matrix/client/v3/rooms/{}/send/m.room.encrypted/{series}{n}",
            rooms[sender]
        );
        let body = json!({
            "algorithm": "m.megolm.v1.aes-sha2", "sender": sender, "n": n, "ciphertext": "c".repeat(300),
            "session_id": "session", "device_id": "D", "sender_key": "key",
        });
        request("PUT", &path, &person_token(sender), &body.to_string())
    };
    let engine = if postgres { ", PostgreSQL" } else { "" };
    let yardstick = World::yardstick(Plan {
        people: 16,
        ..Plan::default()
    })
    .await;
    let mut figures = Vec::new();
    for (senders, total) in [(1, 800), (16, 4_800)] {
        let (warm, series) = (format!("warm{senders}."), format!("f{senders}."));
        deliver(&world, senders, 20, 1, |s, n| send(&warm, s, n)).await;
        let run: Run = deliver(&world, senders, total / senders, 1, |s, n| {
            send(&series, s, n)
        })
        .await;
        // The yardstick knows no rooms, so it is measured with a to-device message instead.
        deliver(&yardstick, senders, 20, 1, |s, n| send_to(0, s, n, &warm)).await;
        let least = deliver(&yardstick, senders, total / senders, 1, |s, n| {
            send_to(0, s, n, &series)
        })
        .await;
        let (name, each) = (
            format!("room event to a bridge, {senders} in flight{engine}"),
            run.each(),
        );
        let figure = run.figure(name, "≤ 0.4 ms", 1);
        figures.push(figure.beside(each, least.each()));
    }
    figures
}

fn joined(tx: &mut Tx<'_>, room_id: &str, user_id: &str) -> schema::Result<Position> {
    let position = tx.next_position();
    let row = MembershipRow {
        room_id: room_id.to_owned(),
        user_id: user_id.to_owned(),
        membership: "join".to_owned(),
        position: position.0,
        event_id: format!("$filled-{}", position.0),
        sender: user_id.to_owned(),
        display_name: None,
        avatar_url: None,
        left_at: 0,
        forgotten_at: 0,
    };
    memberships::put(tx, &row)?;
    Ok(position)
}

/// Creates a room with this number of members: its owner, the users that leave, a ghost, and users that only fill it. The
/// leaving users and the ghost are also in `others` other rooms each.
async fn filled(members: usize, others: usize) -> (World, String) {
    let mut world = World::new(Plan {
        people: members - 1,
        ghosts: 1,
        ..Plan::default()
    })
    .await;
    let id = room(&world, 0).await;
    for leaver in 1..=LEAVERS {
        join(&world.person(leaver), &id).await;
    }
    let (room, fillers) = (id.clone(), members - LEAVERS - 2);
    world
        .change(async |store| {
            let (to, counted) = (room.clone(), room.clone());
            // The owner and the leaving users have joined already.
            let to: &'static str = to.leak();
            in_pieces(store, fillers, move |tx, i| {
                joined(tx, to, &person_id(i + 1 + LEAVERS)).map(drop)
            })
            .await;
            let count = store.write(move |tx| {
                let mut row = rooms::room(tx, &counted)?.expect("the room");
                row.joined += i64::try_from(fillers).expect("not so many");
                rooms::advance(tx, &row)
            });
            count.await.expect("written");
            in_pieces(store, others, |tx, i| {
                for leaver in 1..=LEAVERS {
                    joined(tx, &format!("!theirs{i}:bench"), &person_id(leaver))?;
                }
                let (room, ghost) = (format!("!bridged{i}:bench"), ghost_id(0));
                let at = joined(tx, &room, &ghost)?;
                let own = [ServiceId::from("irc")].into();
                device_log::membership_changed(tx, &room, &ghost, &own, ("leave", "join"), at)
                    .map(drop)
            })
            .await;
        })
        .await;
    let before = world.bridge.count();
    join(&world.ghost(0), &id).await;
    named(&world, before, "changed", members - 1).await;
    (world, id)
}

/// Waits until transactions have named this number of users. Returns when the last transaction was received, and how many users
/// were named.
async fn named(world: &World, skip: usize, what: &str, people: usize) -> (Instant, usize) {
    let begun = Instant::now();
    let (mut seen, mut names) = (skip, 0);
    loop {
        for taken in world.bridge.taken(seen) {
            seen += 1;
            let body: Value = serde_json::from_slice(&taken.body).expect("JSON");
            let named = body["org.matrix.msc3202.device_lists"][what].as_array();
            names += named.map_or(0, |all| {
                let people = all.iter().filter_map(Value::as_str);
                people.filter(|u| u.starts_with("@p")).count()
            });
            if names >= people {
                return (taken.at, names);
            }
        }
        if begun.elapsed().as_secs() > 30 {
            return (Instant::now(), names);
        }
        pause(Duration::from_millis(1)).await;
    }
}

/// Lets users leave at once and join again, `rounds` times; only the leaving is measured. `who` are the users' tokens and
/// queries, and `people` is the number of users that the bridge is informed of each time.
async fn rounds(
    world: &World,
    room: &str,
    who: &[(String, String)],
    rounds: usize,
    people: usize,
) -> (Spent, Vec<Duration>, usize) {
    let mut connections: Vec<Connection> = Vec::new();
    for _ in who {
        connections.push(world.connect().await);
    }
    let room = segment(room);
    let all = |what: &str| -> Vec<Vec<u8>> {
        let each = who.iter().map(|(token, query)| {
            let path = format!("/_matrix/client/v3/rooms/{room}/{what}{query}");
            request("POST", &path, token, "{}")
        });
        each.collect()
    };
    let (leave, join) = (all("leave"), all("join"));
    let (mut spent, mut times, mut faults) = (Spent::default(), Vec::new(), 0);
    for _ in 0..rounds {
        let skip = world.bridge.count();
        let mark = Mark::now(world.server());
        let sent = Instant::now();
        join_all(connections.iter_mut().zip(&leave).map(|(c, r)| c.ask(r))).await;
        let (at, names) = named(world, skip, "left", people).await;
        faults += names.abs_diff(people);
        pause(Duration::from_millis(15)).await;
        let one = mark.until(world.server(), at);
        spent.cpu += one.cpu;
        spent.wall += one.wall;
        times.push(at - sent);
        let skip = world.bridge.count();
        join_all(connections.iter_mut().zip(&join).map(|(c, r)| c.ask(r))).await;
        let (_, names) = named(world, skip, "changed", people).await;
        faults += names.abs_diff(people);
        pause(Duration::from_millis(15)).await;
    }
    (spent, times, faults)
}

/// Ordinary members leave: in rooms of different sizes, and with different numbers of other rooms.
pub(crate) async fn leaves() -> Vec<Figure> {
    let mut figures = Vec::new();
    for (members, others, at_once) in [
        (10, 1, LEAVERS),
        (1_000, 1, LEAVERS),
        (10_000, 1, LEAVERS),
        (10, 100, LEAVERS),
        (10, 1_000, LEAVERS),
        (1_000, 1, 1),
    ] {
        let (world, room) = filled(members, others).await;
        let who: Vec<_> = (1..=at_once)
            .map(|i| (person_token(i), String::new()))
            .collect();
        rounds(&world, &room, &who, 5, at_once).await;
        let (spent, times, faults) = rounds(&world, &room, &who, ROUNDS, at_once).await;
        let name = format!(
            "leave told as `left`, {at_once} at once, {members} members, {others} other rooms each"
        );
        let goal = if at_once == 1 { "" } else { "≤ 0.5 ms" };
        let mut figure = Figure::of(name, goal, spent, ROUNDS * at_once).latency(times);
        figure.rate = String::new();
        figure.faults = faults;
        figures.push(figure);
    }
    figures
}

/// The bridge's last member leaves a room with 10,000 members, so that all others are named.
pub(crate) async fn last_member() -> Vec<Figure> {
    const MEMBERS: usize = 10_000;
    let (world, room) = filled(MEMBERS, 1).await;
    let query = format!("?user_id={}", segment(&ghost_id(0)));
    let who = [(AS_TOKEN.to_owned(), query)];
    let (spent, times, faults) = rounds(&world, &room, &who, 3, MEMBERS - 1).await;
    let mut figure = Figure::of(
        format!("a bridge's last member leaves a room of {MEMBERS}, a person"),
        "≤ 0.02 ms",
        spent,
        3 * (MEMBERS - 1),
    );
    figure.latency = percentiles(times);
    figure.faults = faults;
    vec![figure]
}
