//! What a scenario plays with: the homeserver, the people and the bridges, and what they know.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;

use crate::client::{self, Client, Reply};
use crate::crypto::Crypto;
use crate::format::{BridgeHead, Head};
use crate::homeserver::{Done, Halt, Homeserver, Registered};
use crate::listener::{Attempt, Listener, pause};
use crate::log::Log;
use crate::names::Names;
use crate::registrations::registration;
use crate::scenario::ActorName;
use crate::sections::{SECTIONS, items};

/// The password of everybody, unless the user of the workbench gives another one.
pub const PASSWORD: &str = "understudy-scenario";

/// A client of the scenario.
pub struct Actor {
    /// The client.
    pub client: Client,
    /// The position of its last `/sync`.
    pub since: Option<String>,
    /// The keys of its device.
    pub crypto: Option<Crypto>,
    /// The ids of the events that it has decrypted.
    pub read: BTreeSet<String>,
    /// The to-device messages that it has decrypted, until a step expects them.
    pub decrypted: Vec<Value>,
    /// What could not be decrypted.
    pub failures: Vec<String>,
    /// A `/sync` that waits: its entry in the record, and the answer.
    pub(crate) waiting: Option<JoinHandle<Result<(usize, Reply), String>>>,
}

/// A bridge of the scenario.
pub struct Bridge {
    /// Its HTTP server.
    pub listener: Listener,
    /// What it needs to make requests.
    pub registered: Registered,
    /// Its registration.
    pub(crate) registration: Value,
    /// How many attempts came before the first step.
    pub before: usize,
    /// How many attempts the steps have looked at.
    pub seen: usize,
    /// How many attempts were given to its devices.
    pub fed: usize,
    /// How many items of each section the steps have found.
    pub found: BTreeMap<&'static str, usize>,
}

/// What a scenario plays with.
pub struct World {
    /// The homeserver.
    pub server: Box<dyn Homeserver>,
    /// The record.
    pub log: Log,
    /// What short names stand for.
    pub names: Names,
    /// The clients, by name.
    pub actors: BTreeMap<String, Actor>,
    /// The bridges, by id.
    pub bridges: BTreeMap<String, Bridge>,
    /// The HTTP servers of bridges that take no part, but that the homeserver knows: it need not find one of them down.
    pub(crate) idle: Vec<Listener>,
    /// The encrypted events that each person or bridge has received.
    pub encrypted: BTreeMap<String, Vec<Value>>,
    pub(crate) head: Head,
    /// The first device of each person.
    first: BTreeMap<String, String>,
    http: reqwest::Client,
    password: String,
    next_txn: usize,
    /// How many `/sync` requests were made.
    syncs: u32,
}

impl World {
    /// A world without people and bridges.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(
        server: Box<dyn Homeserver>,
        head: Head,
        password: &str,
        log: Log,
    ) -> Result<World, String> {
        if !server.is_fresh() {
            log.hide_secrets();
        }
        Ok(World {
            names: Names {
                server: server.name(),
                ghosts: head.bridges.keys().map(|id| format!("{id}_")).collect(),
                people: head.people.keys().cloned().collect(),
                run: match server.is_fresh() {
                    true => String::new(),
                    false => format!("-{}", now()),
                },
                ..Names::default()
            },
            server,
            log,
            actors: BTreeMap::new(),
            bridges: BTreeMap::new(),
            idle: Vec::new(),
            encrypted: BTreeMap::new(),
            http: client::http()?,
            password: password.to_owned(),
            next_txn: 0,
            syncs: 0,
            first: BTreeMap::new(),
            head,
        })
    }

    /// Registers the people and the bridges.
    ///
    /// # Errors
    /// If the homeserver refuses, or lacks what the scenario needs.
    pub async fn begin(&mut self) -> Done {
        self.has_what_is_needed().await?;
        for (id, bridge) in self.head.bridges.clone() {
            if !bridge.late {
                self.add_bridge(&id, &bridge).await?;
            } else if self.server.place(&id)?.is_some() {
                let why = format!("a step adds {id}, and the server has it already");
                return Err(Halt::Skipped(why));
            }
        }
        for (name, person) in self.head.people.clone() {
            let device = person.device.unwrap_or_else(|| name.to_uppercase());
            self.register_person(&name, &device).await?;
        }
        Ok(())
    }

    async fn has_what_is_needed(&self) -> Done {
        let needed = &self.head.needs.versions;
        if needed.is_empty() {
            return Ok(());
        }
        let path = "/_matrix/client/versions";
        let answer = self.anonymous("workbench").must("GET", path, None).await?;
        let versions = answer["versions"].as_array();
        let is_there = |name: &str| {
            answer["unstable_features"][name] == true
                || versions.is_some_and(|all| all.iter().any(|version| version == name))
        };
        match needed.iter().find(|name| !is_there(name)) {
            None => Ok(()),
            Some(name) => Err(Halt::Skipped(format!(
                "the server has no {name} in GET {path}"
            ))),
        }
    }

    /// A transaction id that this scenario has not used.
    pub fn txn(&mut self) -> String {
        self.next_txn += 1;
        match self.server.is_fresh() {
            true => format!("txn{}", self.next_txn),
            false => format!("txn{}{}", self.next_txn, self.names.run),
        }
    }

    /// The filter of a `/sync`, without push rules. Some homeservers answer the same request again from a cache (Synapse for two
    /// minutes), so on a server elsewhere each leaves out a further type that does not exist.
    pub(crate) fn filter(&mut self) -> Value {
        self.syncs += 1;
        let mut left_out = vec!["m.push_rules".to_owned()];
        if !self.server.is_fresh() {
            left_out.push(format!("org.example.{}", self.syncs));
        }
        json!({"account_data": {"not_types": left_out}})
    }

    fn anonymous(&self, name: &str) -> Client {
        Client::new(
            name,
            &self.server.base(),
            self.http.clone(),
            self.log.clone(),
        )
    }

    async fn register_person(&mut self, name: &str, device: &str) -> Done {
        let client = self.anonymous(&format!("{name}/{device}"));
        let localpart = self.names.localpart(name);
        let mut body = json!({
            "username": localpart, "password": self.password, "device_id": device, "auth": {"type": "m.login.dummy"},
        });
        let mut reply = client.ask("POST", "/register", Some(&body)).await?;
        if reply.status == 401 && reply.body["session"].is_string() {
            body["auth"]["session"] = reply.body["session"].clone();
            reply = client.ask("POST", "/register", Some(&body)).await?;
        }
        let reply = match reply.is_ok() {
            true => reply.body,
            false if reply.body["errcode"] == "M_EXCLUSIVE" => {
                let why = "the name is in a namespace of a bridge: use a ghost of the bridge";
                return Err(Halt::Failed(format!("{name} cannot be registered: {why}")));
            }
            false => {
                let refused = format!("{name} cannot be registered ({})", reply.shown());
                let login = self.login(&client, name, device).await;
                login.map_err(|why| Halt::Skipped(format!("{refused}, nor log in: {why}")))?
            }
        };
        self.add_person(name, client, &reply)
    }

    async fn login(&self, client: &Client, localpart: &str, device: &str) -> Result<Value, String> {
        let body = json!({
            "type": "m.login.password", "identifier": {"type": "m.id.user", "user": localpart},
            "password": self.password, "device_id": device,
        });
        client.must("POST", "/login", Some(&body)).await
    }

    /// What confirms a request of a person that needs it: the password.
    pub(crate) fn confirmation(&self, user: &str, session: &Value) -> Value {
        json!({
            "type": "m.login.password", "identifier": {"type": "m.id.user", "user": user},
            "password": self.password, "session": session,
        })
    }

    fn add_person(&mut self, name: &str, mut client: Client, login: &Value) -> Done {
        let field = |key: &str| login[key].as_str().unwrap_or_default().to_owned();
        client.user = field("user_id");
        client.token = field("access_token");
        client.device = Some(field("device_id"));
        self.names
            .users
            .insert(name.to_owned(), client.user.clone());
        self.first
            .entry(name.to_owned())
            .or_insert_with(|| client.name.clone());
        self.actors.insert(client.name.clone(), Actor::new(client));
        Ok(())
    }

    /// Logs a person in on another device.
    ///
    /// # Errors
    /// If the homeserver refuses.
    pub async fn log_in(&mut self, person: &str, device: &str) -> Done {
        let client = self.anonymous(&format!("{person}/{device}"));
        let user = self.names.user(person);
        let login = self.login(&client, &user, device).await?;
        self.add_person(person, client, &login)
    }

    /// Adds a bridge whose registration waits for a step.
    ///
    /// # Errors
    /// If the homeserver refuses.
    pub async fn add_late(&mut self, id: &str) -> Done {
        let bridge = self.head.bridges.get(id).cloned().unwrap_or_default();
        self.add_bridge(id, &bridge).await
    }

    async fn add_bridge(&mut self, id: &str, bridge: &BridgeHead) -> Done {
        if self.bridges.contains_key(id) {
            return Err(Halt::Failed(format!("the bridge {id} is there already")));
        }
        let place = self.server.place(id)?;
        let address = place.as_ref().map_or("127.0.0.1:0", |place| &place.address);
        let mut listener = Listener::start(id, address, self.server.work(), self.log.clone())?;
        let registration = registration(id, &listener.url, bridge);
        // What waits for the bridge can be sent before its registration is reported to be in force.
        let token = place.as_ref().map(|place| place.hs_token.as_str());
        let token = token.or(registration["hs_token"].as_str());
        listener.trust(token.unwrap_or_default());
        for secret in token.into_iter().chain(registration["as_token"].as_str()) {
            self.log.hide(secret);
        }
        let registered = match self.server.register(id, &registration).await {
            Ok(registered) => registered,
            Err(why) => {
                listener.close().await;
                return Err(why);
            }
        };
        let sender = format!("@{}:{}", registered.sender, self.names.server);
        self.names.users.insert(format!("{id}bot"), sender);
        let bridge = Bridge {
            listener,
            registered,
            registration,
            before: 0,
            seen: 0,
            fed: 0,
            found: BTreeMap::new(),
        };
        self.bridges.insert(id.to_owned(), bridge);
        Ok(())
    }

    /// Gives members of the registration of a bridge other values, while the homeserver runs.
    ///
    /// # Errors
    /// If the homeserver refuses, or has its registrations from elsewhere.
    pub(crate) async fn change(&mut self, id: &str, members: &Map<String, Value>) -> Done {
        if !self.server.is_fresh() {
            let why = format!("it changes the registration of {id}, which this server has already");
            return Err(Halt::Skipped(why));
        }
        let mut registration = self.bridge(id)?.registration.clone();
        for (key, value) in members {
            registration[key] = value.clone();
        }
        let registered = self.server.register(id, &registration).await?;
        let bridge = self.bridge(id)?;
        bridge
            .listener
            .trust(registration["hs_token"].as_str().unwrap_or_default());
        let before = std::mem::replace(&mut bridge.registered, registered);
        let token = bridge.registered.as_token.clone();
        bridge.registration = registration;
        for actor in self.actors.values_mut() {
            if actor.client.token == before.as_token {
                actor.client.token.clone_from(&token);
            }
        }
        Ok(())
    }

    /// A bridge.
    ///
    /// # Errors
    /// If there is none of this id.
    pub fn bridge(&mut self, id: &str) -> Result<&mut Bridge, String> {
        let known: Vec<String> = self.bridges.keys().cloned().collect();
        let bridge = self.bridges.get_mut(id);
        bridge.ok_or_else(|| format!("no bridge {id:?}; there are {}", known.join(", ")))
    }

    /// The full name of an actor: that of the first device of a person.
    #[must_use]
    pub fn resolved(&self, name: &str) -> String {
        self.first
            .get(name)
            .cloned()
            .unwrap_or_else(|| name.to_owned())
    }

    /// A client. The users of a bridge are known by their names alone.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn actor(&mut self, name: &str) -> Result<&mut Actor, String> {
        let name = self.resolved(name);
        let name = name.as_str();
        if !self.actors.contains_key(name) {
            let parts = ActorName::read(name);
            let known = || {
                let known = self.actors.keys().chain(self.bridges.keys());
                known.map(String::as_str).collect::<Vec<_>>().join(", ")
            };
            let bridge = self.bridges.get(&parts.owner);
            let bridge = bridge
                .ok_or_else(|| format!("no client is called {name:?}; there are {}", known()))?;
            let mut client = self.anonymous(name);
            client.token = bridge.registered.as_token.clone();
            let short = match &parts.ghost {
                Some(ghost) if ghost.starts_with('@') => ghost.clone(),
                Some(ghost) => format!("{}_{ghost}", parts.owner),
                None => format!("{}bot", parts.owner),
            };
            client.user = self.names.user(&short);
            client.device = parts.device.clone();
            if parts.ghost.is_some() || parts.device.is_some() {
                client
                    .query
                    .push(("user_id".to_owned(), client.user.clone()));
            }
            if let Some(device) = parts.device {
                client.query.push(("device_id".to_owned(), device.clone()));
                if !self.server.is_fresh() {
                    // The name before MSC4326 was accepted, for homeservers that know no other.
                    client
                        .query
                        .push(("org.matrix.msc3202.device_id".to_owned(), device));
                }
            }
            self.actors.insert(name.to_owned(), Actor::new(client));
        }
        let actor = self.actors.get_mut(name);
        actor.ok_or_else(|| format!("no client is called {name:?}"))
    }

    /// The client of an actor; `anonymous` has no token.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn client(&mut self, name: &str) -> Result<Client, String> {
        match name {
            "anonymous" => Ok(self.anonymous(name)),
            _ => Ok(self.actor(name)?.client.clone()),
        }
    }

    /// The bridge of an actor, if a bridge plays it.
    #[must_use]
    pub fn bridge_of(&self, actor: &str) -> Option<String> {
        let owner = ActorName::read(actor).owner;
        self.bridges.contains_key(&owner).then_some(owner)
    }

    /// Ends the homeserver and starts it again.
    ///
    /// # Errors
    /// If it cannot be restarted from here.
    pub async fn restart(&mut self, kill: bool) -> Done {
        let open = |bridge: &Bridge| bridge.listener.attempts().iter().any(|a| a.answered == 0);
        if !kill && self.bridges.values().any(open) {
            let why = "a server is stopped only after it has the answers that it waits for: answer the held transaction";
            return Err(Halt::Failed(why.to_owned()));
        }
        self.server.restart(kill).await?;
        self.http = client::http()?;
        let base = self.server.base();
        for actor in self.actors.values_mut() {
            actor.client = actor.client.moved(&base, self.http.clone());
        }
        Ok(())
    }

    /// Whether to look again for something that is not there yet.
    ///
    /// # Errors
    /// If the homeserver does not come to rest.
    pub async fn may_come(&self, since: Instant, within: Duration, settled: bool) -> bool {
        let goes_on = !settled && since.elapsed() < within;
        if goes_on {
            pause(Duration::from_millis(50)).await;
        }
        goes_on
    }

    /// Stops the bridges and the homeserver.
    pub async fn end(&mut self) {
        self.bridges.values().for_each(Bridge::release_all);
        for waiting in self.actors.values_mut().filter_map(|a| a.waiting.take()) {
            waiting.abort();
        }
        self.server.stop().await;
        for bridge in self.bridges.values_mut() {
            bridge.listener.close().await;
        }
        for mut idle in self.idle.drain(..) {
            idle.close().await;
        }
    }
}

impl Bridge {
    /// Expects nothing of the transactions up to now.
    pub(crate) fn pass_over(&mut self) {
        let attempts = self.listener.attempts();
        self.seen = attempts.len();
        let bodies: Vec<Value> = attempts
            .iter()
            .filter(|a| a.is_taken())
            .map(Attempt::sections)
            .collect();
        for section in SECTIONS {
            let items = bodies.iter().map(|body| items(body, section).len());
            self.found.insert(section, items.sum());
        }
    }

    /// Answers what is held.
    pub(crate) fn release_all(&self) {
        while self.listener.release(200) {}
    }
}

impl Actor {
    fn new(client: Client) -> Actor {
        Actor {
            client,
            since: None,
            crypto: None,
            read: BTreeSet::new(),
            decrypted: Vec::new(),
            failures: Vec::new(),
            waiting: None,
        }
    }

    /// Gives the device a to-device message.
    pub fn receive(&mut self, event: &Value) {
        match self.crypto.as_mut().map(|crypto| crypto.receive(event)) {
            Some(Ok(clear)) => self.decrypted.extend(clear),
            Some(Err(why)) => self.failures.push(why),
            None => {}
        }
    }
}

/// Milliseconds since 1970, to tell the names of one run from those of another.
#[expect(
    clippy::disallowed_methods,
    reason = "names on a server that others use must differ from run to run"
)]
fn now() -> u128 {
    let now = std::time::SystemTime::now().duration_since(UNIX_EPOCH);
    now.map(|now| now.as_millis()).unwrap_or_default()
}
