//! The stage: an understudy with manual time and counted identifiers, and the people and bridges on it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actors::accounts::{Register, Registrant};
use actors::appservices::Reload;
use actors::wire::Naming;
use actors::{Clock, Ids, Settings, ask};
use serde_json::{Value, json};
use understudy::http::door::Door;
use understudy::http::limits::Limits;
use understudy::mscs;
use understudy::serve::{self, Options, Running};
use understudy::state::App;

use crate::bridge::{Bridge, Receiver, pause};
use crate::person::Person;
use crate::postgres;
use crate::transcript::Log;

/// Where the stage's time stands still at first: 2025-01-01T00:00:00Z.
pub const START: i64 = 1_735_689_600_000;

/// An understudy in this process.
pub struct Stage {
    running: Option<Running>,
    options: Options,
    log: Log,
    folder: tempfile::TempDir,
}

/// Which engine the suite runs on: `UNDERSTUDY_TEST_ENGINE`, `sqlite` unless it says `postgres`.
#[must_use]
pub fn on_postgres() -> bool {
    match std::env::var("UNDERSTUDY_TEST_ENGINE").as_deref() {
        Ok("postgres") => true,
        Ok("sqlite") | Err(_) => false,
        Ok(other) => panic!("UNDERSTUDY_TEST_ENGINE={other}: sqlite or postgres"),
    }
}

/// The URL of a new, empty database of the engine that the suite runs on.
#[must_use]
pub fn new_database(folder: &std::path::Path) -> String {
    if on_postgres() {
        postgres::new_database()
    } else {
        format!("sqlite:{}", folder.join("understudy.db").display())
    }
}

impl Stage {
    /// With the proposals switched on that are on by default.
    pub async fn new() -> Stage {
        Stage::with_mscs(&mscs::by_default()).await
    }

    /// With these proposals switched on.
    pub async fn with_mscs(numbers: &[u16]) -> Stage {
        Stage::with(numbers, |_| {}).await
    }

    /// With these proposals, and whatever else the story needs.
    pub async fn with(numbers: &[u16], change: impl FnOnce(&mut Options)) -> Stage {
        let folder = tempfile::tempdir().expect("a folder");
        let appservices = folder.path().join("appservices");
        std::fs::create_dir(&appservices).expect("a folder for registrations");
        let enabled = mscs::enabled(numbers).expect("known proposals");
        let (hooks, mut proposals) = mscs::hooks(&enabled, Naming::Unstable);
        proposals.counts_policies = true;
        let settings = Settings {
            server_name: "test".try_into().expect("a server name"),
            observe: None,
            proposals,
            // As cheap as argon2 goes: these passwords protect nobody.
            password_cost: (8, 1),
            default_room_version: "11".to_owned(),
            open_registration: true,
            // What is told to services is told by the story, not by who happens to sync.
            presence: false,
        };
        let mut options = Options {
            database: new_database(folder.path()),
            appservices: Some(appservices),
            settings,
            hooks,
            proposals: numbers.to_vec(),
            clock: Clock::manual(START),
            ids: Ids::counted(1),
            trace: 16 << 20,
            door: Door::default(),
            dev: true,
            lock_wait: Duration::from_secs(10),
            faults: schema::faults::Faults::default(),
            actor_faults: actors::runtime::faults::Faults::default(),
            fatal: Arc::new(|why| panic!("{why}")),
        };
        change(&mut options);
        let running = start(&options).await;
        let stage = Stage {
            running: Some(running),
            options,
            log: Log::default(),
            folder,
        };
        stage.quiet().await;
        stage
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the server runs")
    }

    /// The server's limits, and what was used of them.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.running().limits
    }

    /// The server's parts, for a look inside.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.running().app
    }

    /// Where the server listens.
    #[must_use]
    pub fn base(&self) -> String {
        format!("http://{}", self.running().addr)
    }

    /// Stop the server and start it again on the same database: everybody's tokens stay good, the address changes.
    pub async fn restart(&mut self) {
        self.quiet().await;
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
        self.log.new_server();
        // A store that is let go of is locked until its last thread ends; the new one waits for that.
        self.running = Some(start(&self.options).await);
        self.quiet().await;
    }

    /// Stop the server and start it again with something else switched on.
    pub async fn restart_with(&mut self, change: impl FnOnce(&mut Options)) {
        change(&mut self.options);
        self.restart().await;
    }

    /// The folder of registrations.
    #[must_use]
    pub fn registrations(&self) -> PathBuf {
        self.folder.path().join("appservices")
    }

    /// A person with a device.
    pub async fn person(&self, name: &str, device: &str) -> Person {
        let register = Register {
            by: Registrant::Operator {
                password: format!("{name}-password").into(),
            },
            username: Some(name.to_owned()),
            device: Some(device.into()),
            display_name: None,
            inhibit_login: false,
        };
        let made = ask(&self.app().actors.accounts, register)
            .await
            .expect("a person can be made");
        let login = made.login.expect("a device");
        self.settle().await;
        Person::new(
            &format!("{name}/{device}"),
            made.user.as_str(),
            Some(device),
            login.token.reveal(),
            &self.base(),
            self.log.clone(),
        )
    }

    /// The same person on another device.
    pub async fn log_in(&self, name: &str, device: &str) -> Person {
        let credentials = actors::accounts::Credentials::Password {
            user: name.to_owned(),
            password: format!("{name}-password").into(),
        };
        let log_in = actors::accounts::LogIn {
            credentials,
            device: Some(device.into()),
            display_name: None,
        };
        let login = ask(&self.app().actors.accounts, log_in)
            .await
            .expect("a person can log in");
        self.settle().await;
        Person::new(
            &format!("{name}/{device}"),
            login.user.as_str(),
            Some(device),
            login.token.reveal(),
            &self.base(),
            self.log.clone(),
        )
    }

    /// Somebody known, at the server's address of now.
    #[must_use]
    pub fn again(&self, person: &Person) -> Person {
        person.moved_to(&self.base())
    }

    /// A bridge with the exclusive namespace `@{id}_.*`, the sender `{id}bot`, and every opt-in flag.
    pub async fn bridge(&self, id: &str) -> Bridge {
        let users = json!([{"exclusive": true, "regex": format!("@{id}_.*")}]);
        self.bridge_with(id, json!({"namespaces": {"users": users}}))
            .await
    }

    /// A bridge whose registration has these keys besides, or instead of, the usual ones.
    pub async fn bridge_with(&self, id: &str, keys: Value) -> Bridge {
        let trace = self.app().actors.env.trace.clone();
        let receiver =
            Receiver::start(id, &format!("{id}-hs-token"), Some(trace), self.log.clone());
        let mut registration = json!({
            "id": id, "url": receiver.url, "as_token": format!("{id}-as-token"), "hs_token": format!("{id}-hs-token"),
            "sender_localpart": format!("{id}bot"), "rate_limited": false, "namespaces": {},
            "receive_ephemeral": true, "org.matrix.msc3202": true,
        });
        for (key, value) in keys.as_object().into_iter().flatten() {
            registration[key] = value.clone();
        }
        self.register(id, &registration).await;
        let sender = format!(
            "@{}:test",
            registration["sender_localpart"]
                .as_str()
                .unwrap_or_default()
        );
        let token = registration["as_token"].as_str().unwrap_or_default();
        let bot = Person::new(id, &sender, None, token, &self.base(), self.log.clone());
        Bridge {
            id: id.to_owned(),
            receiver,
            bot,
            server_name: "test".to_owned(),
        }
    }

    /// A room of a person and a bridge's bot, which the bridge has been told of.
    pub async fn shared_room(&self, owner: &Person, bridge: &Bridge) -> String {
        let invite = json!({"invite": [bridge.bot.user_id]});
        let room = owner.creates(invite).await;
        self.quiet().await;
        bridge.bot.joins(&room).await;
        self.quiet().await;
        room
    }

    /// Write a registration file and wait until it is in force. JSON is YAML.
    pub async fn register(&self, id: &str, registration: &Value) {
        std::fs::write(self.registration_file(id), registration.to_string())
            .expect("the file is written");
        let loaded = self.reload().await;
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    }

    /// Where the registration of this id stands.
    #[must_use]
    pub fn registration_file(&self, id: &str) -> PathBuf {
        self.folder
            .path()
            .join("appservices")
            .join(format!("{id}.yaml"))
    }

    /// Read the folder now.
    pub async fn reload(&self) -> actors::appservices::Loaded {
        let loaded = ask(&self.app().actors.appservices, Reload)
            .await
            .expect("the folder can be read");
        self.settle().await;
        loaded
    }

    /// The next step of the story: what was said before belongs to the step before.
    pub async fn step(&self, what: &str) {
        self.quiet().await;
        self.log.step(what);
    }

    /// Move time on, and let everything happen that was waiting for it.
    pub async fn advance(&self, time: Duration) {
        self.quiet().await;
        self.options.clock.advance(time);
        self.quiet().await;
    }

    /// Wait until nothing is under way that does not wait for the world outside, and take down what the actors said.
    pub async fn quiet(&self) {
        self.settle().await;
        self.log.collect(&self.app().actors.env.trace);
    }

    /// Wait until nothing is under way. On the arbiter's own thread: when this looks, every mailbox has been read.
    async fn settle(&self) {
        let env = &self.app().actors.env;
        let (mut still, mut version) = (0, env.trace.version());
        for _ in 0..10_000 {
            pause().await;
            let now = env.trace.version();
            let calm = env.trace.under_way() <= 0 && env.store.waiting() == 0 && now == version;
            version = now;
            still = if calm { still + 1 } else { 0 };
            if still == 3 {
                return;
            }
        }
        panic!(
            "the stage does not come to rest: {} under way, {} writes wait",
            env.trace.under_way(),
            env.store.waiting()
        );
    }

    /// Compare the whole story with its snapshot.
    pub async fn transcript(&self, name: &str) {
        self.quiet().await;
        let mut settings = insta::Settings::new();
        settings.set_omit_expression(true);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots"));
        let text = self.log.text();
        settings.bind(|| insta::assert_snapshot!(name, text));
    }
}

async fn start(options: &Options) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    serve::serve(listener, options.clone())
        .await
        .expect("the server starts")
}
