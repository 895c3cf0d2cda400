//! The world of a workload: users with tokens and a bridge with ghosts, written into the database before the server starts.

use std::time::Duration;

use actors::services::{Interests, Proposals, Registration};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use schema::ServiceId;
use schema::accounts::{self, UserRow};
use schema::keys::OneTimeKey;
use schema::sessions::{self, DeviceCreator};
use schema::{Store, Tx, device_log, keys};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tests::Person;

use crate::http::{Connection, StubBridge};
use crate::server::{Kind, Scene, Server, pause};

/// The bridge's token.
pub(crate) const AS_TOKEN: &str = "as-token";

/// The device id of the ghosts.
pub(crate) const GHOST: &str = "GHOST";

/// The number of rows in one write while the database is filled.
const PIECE: usize = 5_000;

/// The size of a world.
#[derive(Clone, Copy, Default)]
pub(crate) struct Plan {
    /// The number of users that do not belong to the bridge, each with a device and a token.
    pub(crate) people: usize,
    /// The number of ghosts with a device.
    pub(crate) ghosts: usize,
    /// The number of ghosts without a device.
    pub(crate) silent: usize,
    /// The number of one-time keys of each ghost's device. If it is not 0, the device has identity keys too.
    pub(crate) keys: usize,
    /// Whether the bridge has no URL, so that the devices of its ghosts use `/sync`.
    pub(crate) pulls: bool,
    /// Whether the database is PostgreSQL.
    pub(crate) postgres: bool,
}

/// A server, a bridge and users.
pub(crate) struct World {
    // Dropped before the folder: the server uses it.
    server: Option<Server>,
    kind: Kind,
    folder: TempDir,
    database: String,
    registration: Value,
    people: usize,
    pub(crate) bridge: StubBridge,
}

/// The user id of a user that does not belong to the bridge.
pub(crate) fn person_id(i: usize) -> String {
    format!("@p{i}:bench")
}

/// The access token of such a user.
pub(crate) fn person_token(i: usize) -> String {
    format!("token-{i}")
}

/// The user id of a ghost.
pub(crate) fn ghost_id(i: usize) -> String {
    format!("@irc_{i}:bench")
}

/// The id of the bridge.
pub(crate) fn service() -> ServiceId {
    ServiceId::from("irc")
}

fn registration(url: Option<&str>) -> Value {
    json!({
        "id": "irc", "url": url, "as_token": AS_TOKEN, "hs_token": "hs-token", "sender_localpart": "ircbot",
        "rate_limited": false, "receive_ephemeral": true, "org.matrix.msc3202": true, "io.element.msc4190": true,
        "namespaces": {"users": [{"exclusive": true, "regex": "@irc_.*"}]},
    })
}

/// The registration of a further appservice, with the namespace `@svc{i}_.*`. No request concerns its users.
pub(crate) fn other_registration(i: usize, url: &str) -> Value {
    json!({
        "id": format!("svc{i}"), "url": url, "as_token": format!("svc{i}-token"), "hs_token": "hs-token",
        "sender_localpart": format!("svc{i}bot"), "receive_ephemeral": true, "org.matrix.msc3202": true,
        "namespaces": {"users": [{"exclusive": true, "regex": format!("@svc{i}_.*:bench")}]},
    })
}

/// Identity keys of a device, as a server checks them.
pub(crate) fn identity_keys(user: &str, device: &str) -> Value {
    json!({
        "user_id": user, "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {
            format!("curve25519:{device}"): "3C5BFWi2Y8MaVvjM8M22DBmh24PmgR0nPvJOIArzgyI",
            format!("ed25519:{device}"): "lEuiRJBit0IG6nUf5pUzWTUEsRVVe/HJkoKuEww9ULI",
        },
        "signatures": {user: {format!("ed25519:{device}"):
            "dSO80A01XiigH3uBiDVx/EjzaoycHcjq9lfQX0uWsqxl2giMIiSPR8a4d291W1ihKJL/a+myXS367WT6NAIcBA"}},
    })
}

/// A signed one-time key.
pub(crate) fn one_time_key(user: &str, device: &str, n: usize) -> Value {
    json!({
        "key": format!("{n:08}EjlxjKQyzJoOqrR0jvsLNvbLCDVJnRfRPKxBQg"),
        "signatures": {user: {format!("ed25519:{device}"):
            "IQeCEPb9HFk217cU9kw9EOiusC6kMIkoIRnbnfOh5Oc63S1ghgyjShBGpu34blQomoalCyXWyhaaT3MrLZYQAA"}},
    })
}

impl World {
    /// Fills a database and starts a server on it.
    pub(crate) async fn new(plan: Plan) -> World {
        World::of(plan, Kind::Serve).await
    }

    /// The same with a development server.
    pub(crate) async fn in_development(plan: Plan) -> World {
        World::of(plan, Kind::Development).await
    }

    /// The yardstick with the same users.
    pub(crate) async fn yardstick(plan: Plan) -> World {
        World::of(plan, Kind::Yardstick).await
    }

    async fn of(plan: Plan, kind: Kind) -> World {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder on a disk");
        let appservices = folder.path().join("appservices");
        std::fs::create_dir(&appservices).expect("a folder");
        let bridge = StubBridge::start().await;
        let registration = registration((!plan.pulls).then_some(&bridge.url));
        std::fs::write(appservices.join("irc.yaml"), registration.to_string()).expect("written");
        let database = if plan.postgres {
            tests::postgres::new_database()
        } else {
            format!("sqlite:{}", folder.path().join("understudy.db").display())
        };
        let mut world = World {
            folder,
            database,
            registration,
            bridge,
            kind,
            people: plan.people,
            server: None,
        };
        if kind == Kind::Yardstick {
            world.start().await;
        } else {
            world.change(async |store| fill(store, plan).await).await;
        }
        world
    }

    /// The running server.
    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().expect("it runs")
    }

    /// Stops the server, changes its database directly, and starts the server again.
    pub(crate) async fn change(&mut self, change: impl AsyncFnOnce(&Store)) {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
        let store =
            Store::open(&self.database, &schema::StoreOptions::default()).expect("a database");
        let registration = self.registration.clone();
        // The counts of the bridge's members in rooms can be updated only with its namespaces in force.
        let swapped = store.write_alone(move |tx| {
            let registration: Registration = serde_json::from_value(registration.clone())?;
            let proposals = Proposals {
                to_device: true,
                device_lists: true,
                ..Proposals::default()
            };
            let interests = Interests::compile("bench", vec![(registration, false)], &proposals);
            actors::services::swap_interests(tx, interests.expect("patterns"));
            Ok::<_, schema::Error>(())
        });
        swapped.await.expect("written");
        change(&store).await;
        // The bridge is not informed of these changes.
        let skipped = store.write(|tx| {
            let head = tx.head();
            device_log::set_cursor(tx, head)
        });
        skipped.await.expect("written");
        store.close();
        self.start().await;
    }

    async fn start(&mut self) {
        let scene = Scene {
            folder: self.folder.path(),
            database: &self.database,
            bridge: &self.bridge.url,
            people: self.people,
        };
        self.server = Some(Server::start(self.kind, scene).await);
    }

    /// Writes registration files while the server is stopped, because a running server reads a new file at once.
    async fn write(&mut self, registrations: Vec<Value>) {
        let folder = self.folder.path().join("appservices");
        let write = |value: &Value| {
            let file = folder.join(value["id"].as_str().expect("an id"));
            std::fs::write(file.with_extension("yaml"), value.to_string()).expect("written");
        };
        self.change(async |_| registrations.iter().for_each(write))
            .await;
    }

    /// Changes a key of the bridge's registration and restarts the server.
    pub(crate) async fn register(&mut self, key: &str, value: &str) {
        self.registration[key] = json!(value);
        self.write(vec![self.registration.clone()]).await;
    }

    /// Registers this number of further appservices and restarts the server.
    pub(crate) async fn register_others(&mut self, count: usize) {
        let url = self.bridge.url.clone();
        let all = (0..count).map(|i| other_registration(i, &url));
        self.write(all.collect()).await;
    }

    /// Waits until the server uses almost no CPU.
    pub(crate) async fn settled(&self) {
        let mut before = Duration::ZERO;
        loop {
            pause(Duration::from_millis(400)).await;
            let now = self.server().cpu();
            if now - before < Duration::from_millis(10) {
                return;
            }
            before = now;
        }
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.server().addr).await
    }

    /// A client of a user, for requests that are not measured.
    pub(crate) fn person(&self, i: usize) -> Person {
        let id = person_id(i);
        Person::at(&self.server().base(), &id, Some("D"), &person_token(i))
    }

    /// A client of a ghost, for requests that are not measured.
    pub(crate) fn ghost(&self, i: usize) -> Person {
        let bot = Person::at(&self.server().base(), "@ircbot:bench", None, AS_TOKEN);
        bot.playing(&ghost_id(i), None)
    }
}

/// Calls `each` for each number, many times in one write.
pub(crate) async fn in_pieces(
    store: &Store,
    count: usize,
    each: impl Fn(&mut Tx<'_>, usize) -> schema::Result<()> + Copy + Send + 'static,
) {
    for start in (0..count).step_by(PIECE) {
        let piece =
            store.write(move |tx| (start..count.min(start + PIECE)).try_for_each(|i| each(tx, i)));
        piece.await.expect("written");
    }
}

async fn fill(store: &Store, plan: Plan) {
    in_pieces(store, plan.people, |tx, i| {
        accounts::register(tx, &UserRow::new(&person_id(i), 0))?;
        sessions::ensure_device(tx, &person_id(i), "D", None, &DeviceCreator::Person)?;
        let hash = STANDARD_NO_PAD.encode(Sha256::digest(person_token(i)));
        sessions::replace_token(tx, &person_id(i), "D", &hash, 0)?;
        let json = identity_keys(&person_id(i), "D").to_string();
        keys::put_device_keys(tx, &person_id(i), "D", &json)
    })
    .await;
    in_pieces(store, plan.ghosts + plan.silent, move |tx, i| {
        let user = ghost_id(i);
        let row = UserRow {
            appservice_id: Some(service().to_string()),
            ..UserRow::new(&user, 0)
        };
        accounts::register(tx, &row)?;
        if i >= plan.ghosts {
            return Ok(());
        }
        sessions::ensure_device(tx, &user, GHOST, None, &DeviceCreator::Service(service()))?;
        if plan.keys > 0 {
            keys::put_device_keys(tx, &user, GHOST, &identity_keys(&user, GHOST).to_string())?;
        }
        let all: Vec<OneTimeKey> = (0..plan.keys)
            .map(|n| OneTimeKey {
                algorithm: "signed_curve25519".to_owned(),
                key_id: format!("{n:06}"),
                json: one_time_key(&user, GHOST, n).to_string(),
            })
            .collect();
        keys::add_one_time_keys(tx, &user, GHOST, &all)
    })
    .await;
}
