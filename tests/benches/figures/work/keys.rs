//! Keys: claims, uploads and queries.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tests::person::segment;

use super::load::{Asked, ask_all};
use crate::figure::{Figure, Mark};
use crate::http::request;
use crate::server::pause;
use crate::world::{
    AS_TOKEN, GHOST, Plan, World, ghost_id, identity_keys, one_time_key, person_id, person_token,
};

fn took(asked: &[Vec<Asked>]) -> Vec<Duration> {
    let all = asked.iter().flatten();
    all.map(|a| a.answered - a.sent).collect()
}

/// Measures `per` requests of each of `senders`.
async fn measured(
    world: &World,
    name: &str,
    goal: &'static str,
    (senders, per): (usize, usize),
    make: impl Fn(usize, usize) -> Vec<u8>,
) -> Figure {
    let mark = Mark::now(world.server());
    let asked = ask_all(world, senders, per, make).await;
    let end = Instant::now();
    pause(Duration::from_millis(300)).await;
    let spent = mark.until(world.server(), end);
    Figure::of(name, goal, spent, senders * per).latency(took(&asked))
}

/// Claims of one-time keys of ghosts, one in each request.
pub(crate) async fn claims() -> Vec<Figure> {
    const KEYS: usize = 100;
    let world = World::new(Plan {
        people: 32,
        ghosts: 100,
        keys: KEYS,
        ..Plan::default()
    })
    .await;
    let claim = |sender: usize, n: usize| {
        let of = ghost_id((sender * 7 + n) % 100);
        let body = json!({"one_time_keys": {of: {GHOST: "signed_curve25519"}}});
        let path = "/_matrix/client/v3/keys/claim";
        request("POST", path, &person_token(sender), &body.to_string())
    };
    ask_all(&world, 32, 10, claim).await;
    let figure = measured(
        &world,
        "claim of a one-time key, 32 in flight",
        "≤ 0.1 ms",
        (32, 250),
        claim,
    )
    .await;

    // Claims the remaining keys one after the other: no key may be handed out twice.
    let mut connection = world.connect().await;
    let seen = Mutex::new(BTreeSet::new());
    let mut faults = 0;
    for n in 0..500 {
        let answer = connection.ask(&claim(0, n)).await;
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        let of = ghost_id(n % 100);
        let Some(keys) = answer["one_time_keys"][&of][GHOST].as_object() else {
            continue;
        };
        for key in keys.keys() {
            let new = seen
                .lock()
                .expect("no panic")
                .insert((of.clone(), key.clone()));
            faults += usize::from(!new);
        }
    }
    vec![Figure { faults, ..figure }]
}

/// Uploads of a device's identity keys with 50 one-time keys.
pub(crate) async fn uploads() -> Vec<Figure> {
    let world = World::new(Plan {
        ghosts: 800,
        ..Plan::default()
    })
    .await;
    let upload = |first: usize, per: usize| {
        move |sender: usize, n: usize| {
            let user = ghost_id(first + sender * per + n);
            let keys: Map<_, _> = (0..50)
                .map(|k| {
                    let id = format!("signed_curve25519:AAAA{k:03}");
                    (id, one_time_key(&user, GHOST, k))
                })
                .collect();
            let body = json!({"device_keys": identity_keys(&user, GHOST), "one_time_keys": keys});
            let path = format!(
                "/_matrix/client/v3/keys/upload?user_id={}&device_id={GHOST}",
                segment(&user)
            );
            request("POST", &path, AS_TOKEN, &body.to_string())
        }
    };
    ask_all(&world, 8, 10, upload(0, 10)).await;
    let name = "upload of a device with 50 one-time keys, 8 in flight";
    vec![measured(&world, name, "≤ 0.8 ms", (8, 75), upload(100, 75)).await]
}

/// Queries for the devices of 20 users.
pub(crate) async fn queries() -> Vec<Figure> {
    let world = World::new(Plan {
        people: 200,
        ..Plan::default()
    })
    .await;
    let query = |sender: usize, n: usize| {
        let of: Map<_, _> = (0..20)
            .map(|i| (person_id((sender * 31 + n * 20 + i) % 200), json!([])))
            .collect();
        let body = json!({"device_keys": of});
        let path = "/_matrix/client/v3/keys/query";
        request("POST", path, &person_token(sender), &body.to_string())
    };
    ask_all(&world, 8, 20, query).await;
    vec![
        measured(
            &world,
            "query of 20 users, 8 in flight",
            "≤ 0.2 ms",
            (8, 250),
            query,
        )
        .await,
    ]
}
