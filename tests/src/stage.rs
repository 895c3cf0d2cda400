//! A stage: an understudy in the test's process, with manual time and counted identifiers, and its users and bridges.

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

/// The time at which a stage starts: 2025-01-01T00:00:00Z.
pub const START: i64 = 1_735_689_600_000;

/// An understudy in the test's process.
pub struct Stage {
    running: Option<Running>,
    options: Options,
    log: Log,
    folder: tempfile::TempDir,
}

/// Whether the suite runs on PostgreSQL: `UNDERSTUDY_TEST_ENGINE` is `postgres`. The default is `sqlite`.
#[must_use]
pub fn on_postgres() -> bool {
    match std::env::var("UNDERSTUDY_TEST_ENGINE").as_deref() {
        Ok("postgres") => true,
        Ok("sqlite") | Err(_) => false,
        Ok(other) => panic!("UNDERSTUDY_TEST_ENGINE={other}: sqlite or postgres"),
    }
}

/// Creates an empty database on the engine that the suite runs on. Returns its URL.
#[must_use]
pub fn new_database(folder: &std::path::Path) -> String {
    if on_postgres() {
        postgres::new_database()
    } else {
        format!("sqlite:{}", folder.join("understudy.db").display())
    }
}

impl Stage {
    /// A stage with the proposals that are on by default.
    pub async fn new() -> Stage {
        Stage::with_mscs(&mscs::by_default()).await
    }

    /// A stage with these proposals.
    pub async fn with_mscs(numbers: &[u16]) -> Stage {
        Stage::with(numbers, |_| {}).await
    }

    /// A stage with these proposals and with changed options.
    pub async fn with(numbers: &[u16], change: impl FnOnce(&mut Options)) -> Stage {
        let folder = tempfile::tempdir().expect("a folder");
        let appservices = folder.path().join("appservices");
        std::fs::create_dir(&appservices).expect("a folder for registrations");
        let enabled = mscs::enabled(&mscs::with_specified(numbers)).expect("known proposals");
        let (hooks, mut proposals) = mscs::hooks(&enabled, &Naming::Unstable.into());
        proposals.counts_policies = true;
        let settings = Settings {
            server_name: "test".try_into().expect("a server name"),
            observe: None,
            proposals,
            // The lowest cost that argon2 allows, because these passwords protect nothing.
            password_cost: (8, 1),
            default_room_version: "11".to_owned(),
            open_registration: true,
            // Off, because with presence each `/sync` of a user would send something to appservices.
            presence: false,
        };
        let mut options = Options {
            database: new_database(folder.path()),
            appservices: Some(appservices),
            settings,
            hooks,
            proposals: enabled,
            clock: Clock::manual(START),
            ids: Ids::counted(1),
            trace: 16 << 20,
            door: Door::default(),
            figures: understudy::figures::Figures::default(),
            metrics: None,
            dev: true,
            lock_wait: Duration::from_secs(10),
            faults: schema::faults::Faults::default(),
            actor_faults: actors::runtime::faults::DeliveryFaults::default(),
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

    /// The server's limits, with their present use.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.running().limits
    }

    /// The server's state.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.running().app
    }

    /// The address at which the server serves metrics and health, if it was started with one.
    #[must_use]
    pub fn metrics(&self) -> Option<std::net::SocketAddr> {
        self.running().metrics
    }

    /// The URL at which the server listens.
    #[must_use]
    pub fn base(&self) -> String {
        format!("http://{}", self.running().addr)
    }

    /// Stops the server and starts it again on the same database. Access tokens stay valid; the address changes.
    pub async fn restart(&mut self) {
        self.quiet().await;
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
        self.log.new_server();
        // A store locks its database until its last thread ends. The new one waits for that.
        self.running = Some(start(&self.options).await);
        self.quiet().await;
    }

    /// Stops the server and starts it again with changed options.
    pub async fn restart_with(&mut self, change: impl FnOnce(&mut Options)) {
        change(&mut self.options);
        self.restart().await;
    }

    /// The folder of registration files.
    #[must_use]
    pub fn registrations(&self) -> PathBuf {
        self.folder.path().join("appservices")
    }

    /// Registers a user with a device.
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

    /// Logs a user in on another device.
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

    /// The same client, at the server's present address.
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

    /// A bridge whose registration has these keys in addition to the usual ones, or in place of them.
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

    /// Creates a room with a user and a bridge's bot, and waits until the bridge has received its events.
    pub async fn shared_room(&self, owner: &Person, bridge: &Bridge) -> String {
        let invite = json!({"invite": [bridge.bot.user_id]});
        let room = owner.creates(invite).await;
        self.quiet().await;
        bridge.bot.joins(&room).await;
        self.quiet().await;
        room
    }

    /// Writes a registration file and waits until it is in force. The file is JSON, which is valid YAML.
    pub async fn register(&self, id: &str, registration: &Value) {
        std::fs::write(self.registration_file(id), registration.to_string())
            .expect("the file is written");
        let loaded = self.reload().await;
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    }

    /// The path of the registration file of this id.
    #[must_use]
    pub fn registration_file(&self, id: &str) -> PathBuf {
        self.folder
            .path()
            .join("appservices")
            .join(format!("{id}.yaml"))
    }

    /// Reads the folder of registration files now.
    pub async fn reload(&self) -> actors::appservices::Loaded {
        let loaded = ask(&self.app().actors.appservices, Reload)
            .await
            .expect("the folder can be read");
        self.settle().await;
        loaded
    }

    /// Begins a step of the transcript, once everything that belongs to the step before has happened.
    pub async fn step(&self, what: &str) {
        self.quiet().await;
        self.log.step(what);
    }

    /// Advances the time, and waits until everything that was due has happened.
    pub async fn advance(&self, time: Duration) {
        self.quiet().await;
        self.options.clock.advance(time);
        self.quiet().await;
    }

    /// Waits until the server is idle, except for work that waits for the outside, and records what the actors did.
    pub async fn quiet(&self) {
        self.settle().await;
        self.log.collect(&self.app().actors.env.trace);
    }

    /// Waits until the server is idle. Runs on the thread of the actors: when it continues, every mailbox has been read.
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
            "the server does not become idle: {} messages in progress, {} writes waiting",
            env.trace.under_way(),
            env.store.waiting()
        );
    }

    /// Compares the transcript with its snapshot.
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
