//! The state of a simulation: the server, the users, the bridges, and what the model knows about them.

use std::collections::{BTreeMap, BTreeSet};

use actors::Clock;
use serde_json::Value;
use tests::person::{Answer, Person};
use tests::transcript::Log;

use crate::backups::Backup;
use crate::bridges::{Bridges, Mode};
use crate::journal::Journal;
use crate::model::{Claim, History, Registration};
use crate::names::Names;
use crate::server::Server;

/// A promise that was broken, and how.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub(crate) promise: &'static str,
    pub(crate) what: String,
}

pub(crate) type Check<T = ()> = Result<T, Broken>;

pub(crate) fn broken<T>(promise: &'static str, what: impl Into<String>) -> Check<T> {
    Err(Broken {
        promise,
        what: what.into(),
    })
}

/// The sender of a request: a user's device, or an appservice that acts as one of its users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) user: String,
    pub(crate) device: Option<String>,
    /// The appservice whose token is used. `None` for a user's device.
    pub(crate) service: Option<usize>,
    pub(crate) token: String,
}

/// A device, and the state of its client.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) user: String,
    pub(crate) id: String,
    /// The appservice that created it.
    pub(crate) made_by: Option<usize>,
    pub(crate) token: String,
    pub(crate) alive: bool,
    pub(crate) keyed: bool,
    /// Whether its one-time-key counts have changed since the appservice's registration last changed.
    pub(crate) claimed: bool,
    pub(crate) sync: Client,
}

/// How far a client has synced.
#[derive(Debug, Clone, Default)]
pub(crate) struct Client {
    /// The `since` token of its last sync, and how many events and key changes there were when it received the token.
    pub(crate) used: Option<(String, usize, usize)>,
    /// The `next_batch` token of its last sync, and how many events and key changes there were then.
    pub(crate) next: Option<(String, usize, usize)>,
    /// The to-device messages in the last response.
    pub(crate) given: Vec<usize>,
    /// The typing users, by room, as of the last responses.
    pub(crate) typing: BTreeMap<String, BTreeSet<String>>,
}

/// Whether an appservice may or must be sent something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    May,
    Must,
}

/// A to-device message to one device.
#[derive(Debug, Clone)]
pub(crate) struct ToDevice {
    pub(crate) n: u64,
    pub(crate) device: usize,
    /// How many events there were when the server accepted the message.
    pub(crate) at: usize,
    pub(crate) due: BTreeMap<usize, Due>,
    /// Whether `/sync` must deliver it: no appservice to which it is due decides over the device, and it has not been acknowledged.
    pub(crate) waits: bool,
    /// Whether an appservice to which it is due decides over the device, or did earlier.
    pub(crate) decided: bool,
    /// The number of the transaction that contained the message, by appservice.
    pub(crate) took: BTreeMap<usize, usize>,
    pub(crate) synced: bool,
    /// Whether it was acknowledged by `since`, or its device is gone.
    pub(crate) gone: bool,
    /// Whether no later event may be sent to an appservice before the message. False if the step that sent it allows that, and
    /// after a change of registrations or proposals.
    pub(crate) prompt: bool,
    /// Whether its row was damaged on the disk. It is then lost for its device too, because its content is stored once.
    pub(crate) damaged: bool,
}

/// A change of a user's keys, for all users or only for one.
#[derive(Debug, Clone)]
pub(crate) struct KeyChange {
    pub(crate) user: String,
    pub(crate) only_for: Option<String>,
    /// Whether the change must be reported to those who share a room with the user. Otherwise it may be.
    pub(crate) certain: bool,
    /// The appservices that shared a room with the user at the time of the change, and how many transactions each had been sent by
    /// then.
    pub(crate) due: BTreeMap<usize, usize>,
    /// The users that shared a room with the user at the time of the change.
    pub(crate) seen_by: BTreeSet<String>,
}

/// The state of a registration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileState {
    Good,
    Broken,
    Absent,
}

#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) registration: Registration,
    /// The registration that is in force. `None` while its file is absent.
    pub(crate) in_force: Option<Registration>,
    pub(crate) as_token: String,
    pub(crate) hs_token: String,
    pub(crate) file: String,
    pub(crate) file_state: FileState,
    pub(crate) received: Received,
    /// All user namespaces that the appservice ever had. A transaction in flight may have been composed under earlier ones.
    pub(crate) ever: Vec<(String, bool)>,
}

impl Service {
    /// Whether a namespace of the appservice matches a user, or matched it earlier.
    pub(crate) fn ever_claims(&self, user: &str) -> bool {
        user == self.registration.sender
            || self.ever.iter().any(|(start, _)| user.starts_with(start))
    }
}

/// What an appservice was sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Received {
    /// The id and the body of each transaction, in the order of their first attempts.
    pub(crate) transactions: Vec<(String, std::sync::Arc<str>)>,
    /// The number of the last event sent.
    pub(crate) last_event: Option<usize>,
    /// The transaction that contained each event, by the event's number.
    pub(crate) events: BTreeMap<usize, usize>,
    /// The list that named each user last: `changed` or `left`.
    pub(crate) named_in: BTreeMap<String, &'static str>,
    /// The transactions that reported changes of each user's keys: they named the user in `changed`, or in `left` while the user
    /// was not the appservice's own. A `left` ends the tracking, so it replaces a `changed`.
    pub(crate) reported: BTreeMap<String, Vec<usize>>,
    /// The last count of one-time keys of each device.
    pub(crate) counts: BTreeMap<(String, String), i64>,
    /// All users that ever shared a room with the appservice.
    pub(crate) knew: BTreeSet<String>,
}

pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) bridges: Bridges,
    pub(crate) journal: Journal,
    pub(crate) log: Log,
    pub(crate) clock: Clock,
    pub(crate) history: History,
    /// The appservices to which each event is due, by the event's number.
    pub(crate) due: Vec<BTreeMap<usize, Due>>,
    /// The appservices and users whose last shared room each event ended, by the event's number.
    pub(crate) ended: Vec<Vec<(usize, String)>>,
    /// Ids of events that the server accepted, and whose rows were not checked yet.
    pub(crate) answered: Vec<String>,
    /// The seeds of the cross-signing keys, by user.
    pub(crate) cross_signing: BTreeMap<String, u8>,
    /// The seeds of the user-signing keys, by user.
    pub(crate) user_signing: BTreeMap<String, u8>,
    /// The signatures on master keys: the signing key, and the signed key.
    pub(crate) signed: BTreeSet<(String, String)>,
    pub(crate) position: i64,
    pub(crate) devices: Vec<Device>,
    /// The accounts, and the appservice that registered each, if one did.
    pub(crate) accounts: BTreeMap<String, Option<usize>>,
    pub(crate) deactivated: BTreeSet<String>,
    pub(crate) services: Vec<Service>,
    pub(crate) messages: Vec<ToDevice>,
    pub(crate) key_changes: Vec<KeyChange>,
    /// One-time keys that were handed out.
    pub(crate) claimed: BTreeSet<String>,
    pub(crate) forgotten: BTreeSet<(String, String)>,
    /// The time until which each user is typing, by room and user.
    pub(crate) typing: BTreeMap<(String, String), i64>,
    /// Milliseconds that have passed, independent of the wall clock.
    pub(crate) elapsed: i64,
    pub(crate) attempts: usize,
    pub(crate) to_device_on: bool,
    pub(crate) device_lists_on: bool,
    pub(crate) counter: u64,
    pub(crate) refusals: u32,
    pub(crate) recording: bool,
    /// What each step tried.
    pub(crate) narration: Vec<String>,
    pub(crate) names: Names,
    /// Backups of room keys, by user.
    pub(crate) backups: BTreeMap<String, Backup>,
    template: Option<Person>,
    /// How many requests got no answer, or one that leaves their outcome open.
    pub(crate) unanswered: u32,
}

impl World {
    pub(crate) async fn new(server: Server, recording: bool) -> World {
        let log = Log::default();
        let bridges = Bridges::start(if recording {
            log.clone()
        } else {
            Log::default()
        })
        .await;
        // The tables exist once the server has started. SQLite's file can be opened before.
        let journal = Journal::open(&server.options.database);
        World {
            clock: server.options.clock.clone(),
            server,
            bridges,
            journal,
            log,
            history: History::default(),
            due: Vec::new(),
            ended: Vec::new(),
            answered: Vec::new(),
            cross_signing: BTreeMap::new(),
            user_signing: BTreeMap::new(),
            signed: BTreeSet::new(),
            position: 0,
            devices: Vec::new(),
            accounts: BTreeMap::new(),
            deactivated: BTreeSet::new(),
            services: Vec::new(),
            messages: Vec::new(),
            key_changes: Vec::new(),
            claimed: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            typing: BTreeMap::new(),
            elapsed: 0,
            attempts: 0,
            to_device_on: true,
            device_lists_on: true,
            counter: 0,
            refusals: 0,
            recording,
            narration: Vec::new(),
            names: Names::default(),
            backups: BTreeMap::new(),
            template: None,
            unanswered: 0,
        }
    }

    /// Describe what is tried now, for the printed schedule.
    pub(crate) fn say(&mut self, text: String) {
        if self.recording {
            self.log.step(&text);
        }
        self.narration.push(text);
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// Restart the server after it ended. Try again if an armed fault kills it at its start.
    pub(crate) async fn revive(&mut self) -> Check {
        for _ in 0..4 {
            self.server.kill().await;
            self.server.faults.arm(None);
            self.forget_typing();
            match self.start().await {
                Err(broken) if broken.what == "killed at its start" => {}
                other => return other,
            }
        }
        broken(
            "the server starts again on its database",
            "it was killed four times",
        )
    }

    pub(crate) async fn start(&mut self) -> Check {
        self.template = None;
        self.bridges.with(|s| s.forget_connections());
        let started = self.server.start().await;
        if let Err(why) = started {
            self.check_fatal()?;
            return broken("the server starts again on its database", why);
        }
        let trace = self.server.app().actors.env.trace.clone();
        self.bridges.with(|s| s.trace = Some(trace));
        self.log.new_server();
        let log = if self.recording {
            self.log.clone()
        } else {
            Log::default()
        };
        self.template = Some(Person::new("", "", None, "", &self.server.base(), log));
        Ok(())
    }

    /// Check that the server has reported a fatal error only if an injected fault justifies it.
    pub(crate) fn check_fatal(&mut self) -> Check {
        let panicked = self.server.faults.take_panicked();
        match self.server.faults.take_fatal() {
            Some(_) if panicked => Ok(()),
            None if panicked => broken(
                "the death of a thread or an actor is noticed",
                "a reader panicked, and the server lived on",
            ),
            Some(why) if !self.server.faults.may_be_fatal() => broken(
                "the server lives on after a fault that has a known outcome",
                why,
            ),
            _ => Ok(()),
        }
    }

    pub(crate) fn person(&self, caller: &Caller) -> Person {
        let template = self.template.as_ref().expect("the server was started");
        match caller.service {
            None => {
                let local = caller
                    .user
                    .trim_start_matches('@')
                    .split(':')
                    .next()
                    .unwrap_or_default();
                let name = format!("{local}/{}", caller.device.as_deref().unwrap_or("-"));
                template.another(&name, &caller.user, caller.device.as_deref(), &caller.token)
            }
            Some(service) => {
                let id = &self.services[service].registration.id;
                let bot = template.another(id, &caller.user, None, &caller.token);
                bot.playing(&caller.user, caller.device.as_deref())
            }
        }
    }

    /// Send a request, and send it again until the answer tells its outcome, as clients do. If the server ends meanwhile, restart
    /// it.
    pub(crate) async fn ask(
        &mut self,
        caller: &Caller,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Check<Answer> {
        for _ in 0..8 {
            if !self.server.is_running() || self.server.faults.is_dead() {
                self.check_fatal()?;
                self.revive().await?;
            }
            let person = self.person(caller);
            let answer = tokio::select! {
                answer = person.try_ask(method, path, body) => answer.ok(),
                () = self.server.faults.death() => None,
            };
            if let Some(answer) = self.judge(answer, method, path)? {
                return Ok(answer);
            }
        }
        broken(
            "a request is answered in the end",
            format!("{method} {path}"),
        )
    }

    /// Returns the answer if it tells the outcome of the request.
    pub(crate) fn judge(
        &mut self,
        answer: Option<Answer>,
        method: &str,
        path: &str,
    ) -> Check<Option<Answer>> {
        let dying = self.server.faults.is_dead() || self.server.faults.has_panicked();
        let Some(answer) = answer.filter(|a| a.status < 500 || !dying) else {
            self.unanswered += 1;
            return Ok(None);
        };
        match answer.status {
            502 | 504 if path.ends_with("/ping") => Ok(Some(answer)),
            // A statement that the database refuses for no known reason is an internal error.
            500 | 503 if answer.status == 503 || self.server.faults.last_refused() => {
                self.refusals += 1;
                if self.refusals > self.server.faults.fired() {
                    let what = format!(
                        "{method} {path} was answered {answer:?}, answer number {} of this kind after {} faults",
                        self.refusals,
                        self.server.faults.fired()
                    );
                    return broken(
                        "whatever statement fails, only the request that caused it fails",
                        what,
                    );
                }
                Ok(None)
            }
            500.. => broken(
                "no request is answered with an internal error",
                format!("{method} {path}: {answer:?}"),
            ),
            _ => Ok(Some(answer)),
        }
    }

    /// Wait until the server is idle.
    pub(crate) async fn settle(&mut self) -> Check {
        for _ in 0..30 {
            if self.server.rests().await {
                break;
            }
            // A failed task is retried after a time, and the server is not idle until then.
            self.clock.advance(std::time::Duration::from_secs(1));
            self.elapsed += 1_000;
        }
        if !self.server.rests().await {
            return broken(
                "the server comes to rest",
                "something is under way for ever",
            );
        }
        if self.recording && self.server.is_running() {
            self.log.collect(&self.server.app().actors.env.trace);
        }
        if self.server.faults.is_dead() || self.server.faults.has_panicked() {
            self.check_fatal()?;
            self.revive().await?;
            self.check_inbox()?;
            if !self.server.rests().await {
                return broken(
                    "the server comes to rest",
                    "something is under way for ever",
                );
            }
        }
        Ok(())
    }

    /// Whether an appservice decides over a device, so that its acknowledgement counts as the device's.
    pub(crate) fn decides(&self, service: usize, device: usize) -> bool {
        let Some(registration) = &self.services[service].in_force else {
            return false;
        };
        let device = &self.devices[device];
        let registered = self.accounts.get(&device.user).copied().flatten() == Some(service);
        registration.claims(&device.user) == Some(Claim::Own)
            || (registered && device.made_by.is_some())
            || device.made_by == Some(service)
    }

    /// Whether an appservice is sent the to-device messages of a device: as its own, or as a copy.
    pub(crate) fn is_sent(&self, service: usize, device: usize) -> bool {
        let Some(registration) = &self.services[service].in_force else {
            return false;
        };
        if !registration.has_url || !registration.wants_to_device {
            return false;
        }
        let observes = registration.claims(&self.devices[device].user) == Some(Claim::Shared)
            && registration.observes;
        self.decides(service, device) || observes
    }

    pub(crate) fn alive(&self, user: &str) -> Vec<usize> {
        let of = |i: &usize| self.devices[*i].alive && self.devices[*i].user == user;
        (0..self.devices.len()).filter(of).collect()
    }

    pub(crate) fn service_mode(&self, service: usize) -> Mode {
        let id = &self.services[service].registration.id;
        self.bridges
            .with(|s| s.modes.get(id).copied().unwrap_or(Mode::Good))
    }
}
