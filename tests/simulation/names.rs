//! Steps with room aliases, and with the users and rooms that appservices create when they are queried about them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tests::person::{Answer, segment};

use crate::bridges::Mode;
use crate::play::name;
use crate::steps::Step;
use crate::world::{Caller, Check, World, broken};

/// What the model knows about aliases.
#[derive(Default)]
pub(crate) struct Names {
    /// The room of each alias, or `None` if the alias is free. An alias without an entry may be either.
    aliases: BTreeMap<String, Option<String>>,
    /// Rooms that had an alias in an appservice's namespace. Their events may be sent to the appservice.
    pub(crate) claimed: BTreeSet<(usize, String)>,
    /// How many of the queries that appservices received were checked already.
    asked: usize,
}

impl World {
    /// The appservice whose namespace contains an alias.
    fn service_of_alias(&self, alias: &str) -> Option<usize> {
        (0..self.services.len()).find(|s| {
            let start = format!("#{}_", self.services[*s].registration.id);
            self.services[*s].in_force.is_some() && alias.starts_with(&start)
        })
    }

    /// Create, delete or resolve an alias.
    pub(crate) async fn alias(&mut self, step: Step) -> Check {
        let alias = match step.d % 4 {
            0 => {
                let id = &self.services[usize::from(step.c) % 3].registration.id;
                format!("#{id}_{}:test", step.b % 2)
            }
            other => format!("#name{other}:test"),
        };
        let room = self.room(step.b);
        let caller = self.member(&room, step.a);
        match step.c % 4 {
            0 | 1 => self.put_alias(&caller, &alias, &room).await,
            2 => self.delete_alias(&caller, &alias).await,
            _ => {
                let caller = self.caller(step.a);
                self.resolve(&caller, &alias).await
            }
        }
    }

    async fn put_alias(&mut self, caller: &Caller, alias: &str, room: &str) -> Check {
        self.say(format!("{} gives {room} the alias {alias}", name(caller)));
        let path = format!("/directory/room/{}", segment(alias));
        let owner = self.service_of_alias(alias);
        // Even if the request gets no answer, the room may have the alias from now on.
        let named: Vec<(usize, String)> = (0..self.services.len())
            .filter(|s| alias.starts_with(&format!("#{}_", self.services[*s].registration.id)))
            .map(|s| (s, room.to_owned()))
            .collect();
        self.names.claimed.extend(named);
        let (unsure, body) = (self.retries(), json!({"room_id": room}));
        let answer = self.ask(caller, "PUT", &path, Some(&body)).await?;
        let unsure = self.retries() != unsure;
        if unsure {
            self.names.aliases.remove(alias);
            return Ok(());
        }
        let before = self.names.aliases.get(alias).cloned();
        match answer.status {
            200 if owner.is_some() && caller.service != owner => broken(
                "a name in an exclusive namespace is its service's to give",
                format!("{alias} was given by {}", name(caller)),
            ),
            200 if matches!(before, Some(Some(_))) => broken(
                "a name that is taken is given to no other room",
                format!("{alias}: {before:?}, and {room}"),
            ),
            200 => {
                let alias = alias.to_owned();
                self.names.aliases.insert(alias, Some(room.to_owned()));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn delete_alias(&mut self, caller: &Caller, alias: &str) -> Check {
        self.say(format!("{} deletes the alias {alias}", name(caller)));
        let path = format!("/directory/room/{}", segment(alias));
        let unsure = self.retries();
        let answer = self.ask(caller, "DELETE", &path, None).await?;
        if self.retries() != unsure {
            self.names.aliases.remove(alias);
        } else if answer.status == 200 {
            self.names.aliases.insert(alias.to_owned(), None);
        } else if answer.status == 404 && matches!(self.names.aliases.get(alias), Some(Some(_))) {
            return broken("a name that was given is there", format!("{alias}: 404"));
        }
        Ok(())
    }

    async fn resolve(&mut self, caller: &Caller, alias: &str) -> Check {
        self.say(format!("{} looks {alias} up", name(caller)));
        let path = format!("/directory/room/{}", segment(alias));
        let answer = self.ask_for_name(caller, &path).await?;
        let found = answer.body["room_id"].as_str();
        match self.names.aliases.get(alias) {
            Some(Some(room)) if found != Some(room) => broken(
                "a name leads to the room that it was given to",
                format!("{alias} of {room}: {answer:?}"),
            ),
            Some(None) if found.is_some() => broken(
                "a name that was taken away leads nowhere",
                format!("{alias}: {answer:?}"),
            ),
            _ => Ok(()),
        }
    }

    /// Send a request during which the server may query an appservice. Bridges that hang work meanwhile: a query to a hanging
    /// bridge times out by the manual clock, which does not advance during a request.
    async fn ask_for_name(&mut self, caller: &Caller, path: &str) -> Check<Answer> {
        let hanging: Vec<String> = (0..self.services.len())
            .filter(|s| self.service_mode(*s) == Mode::Hangs)
            .map(|s| self.services[s].registration.id.clone())
            .collect();
        for id in &hanging {
            self.bridges.set_mode(id, Mode::Good);
        }
        let answer = self.ask(caller, "GET", path, None).await;
        for id in &hanging {
            self.bridges.set_mode(id, Mode::Hangs);
        }
        answer
    }

    /// Counters that change when a request had to be sent again, in which case the first attempt may have taken effect.
    fn retries(&self) -> (u32, u32) {
        (self.unanswered, self.refusals)
    }

    /// Request a user or a room alias in a namespace. The appservice creates it when queried, or answers that it does not exist.
    pub(crate) async fn provision(&mut self, step: Step) -> Check {
        let s = usize::from(step.b) % 4;
        let Some(registration) = self.services[s].in_force.clone() else {
            return Ok(());
        };
        let (id, n) = (registration.id.clone(), self.number());
        let (caller, makes) = (self.caller(step.a), step.c % 3 != 0);
        let is_user = step.d % 2 == 0;
        let local = format!("{id}_new{}", if step.d % 4 < 2 { n } else { 0 });
        self.say(format!(
            "{} requests {} {local}, which its service {}",
            name(&caller),
            if is_user { "the user" } else { "the room" },
            if makes { "creates" } else { "does not know" }
        ));
        let maker = makes.then(|| self.person(&self.as_bot(s)));
        self.bridges.with(|state| match maker {
            Some(bot) => drop(state.makers.insert(id.clone(), bot)),
            None => drop(state.makers.remove(&id)),
        });
        let (user, alias) = (format!("@{local}:test"), format!("#{local}:test"));
        let path = if is_user {
            format!("/profile/{}", segment(&user))
        } else {
            format!("/directory/room/{}", segment(&alias))
        };
        let (unsure, fired) = (self.retries(), self.server.faults.fired());
        let before = self.bridges.with(|state| state.queries.len());
        let good = matches!(self.service_mode(s), Mode::Good | Mode::Hangs);
        let answer = self.ask_for_name(&caller, &path).await?;
        let asked = self.bridges.with(|state| {
            state.makers.remove(&id);
            state.queries[before..].iter().any(|(to, line)| {
                *to == id && (line.contains("/v1/users/") || line.contains("/v1/rooms/"))
            })
        });
        if is_user && answer.status == 200 {
            self.accounts.entry(user.clone()).or_insert(Some(s));
        }
        if let Some(room) = answer.body["room_id"].as_str().filter(|_| !is_user) {
            self.names.claimed.insert((s, room.to_owned()));
        }
        let certain = good && self.retries() == unsure && self.server.faults.fired() == fired;
        let claims = registration.claims(&user).is_some() || !is_user;
        if asked && certain && makes && claims && answer.status != 200 {
            return broken(
                "what a service makes when it is asked is found",
                format!("{path} after {id} had made it: {answer:?}"),
            );
        }
        self.check_queries()
    }

    /// Check that appservices are queried about their own namespaces only.
    fn check_queries(&mut self) -> Check {
        let queries = self
            .bridges
            .with(|state| state.queries[self.names.asked..].to_vec());
        self.names.asked += queries.len();
        for (service, line) in queries {
            let Some(s) = self
                .services
                .iter()
                .position(|s| s.registration.id == service)
            else {
                return broken("nothing is asked of a service that is not registered", line);
            };
            let path = line.split(' ').nth(1).unwrap_or_default();
            let last = |start: &str| {
                let name = path.strip_prefix(start)?;
                Some(percent_encoding(name))
            };
            let wrong = match (
                last("/_matrix/app/v1/users/"),
                last("/_matrix/app/v1/rooms/"),
            ) {
                (Some(user), _) => !self.services[s].ever_claims(&user),
                (_, Some(alias)) => !alias.starts_with(&format!("#{service}_")),
                _ => false,
            };
            if wrong {
                return broken(
                    "a service is asked about its own namespaces only",
                    format!("{service}: {line}"),
                );
            }
        }
        Ok(())
    }
}

/// Decode the percent-encoding of a path segment.
fn percent_encoding(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let code = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten();
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The request by which a bridge creates what the query `path` is about: register the user, or create the room with its alias.
pub(crate) fn to_make(path: &str) -> Option<(&'static str, Value)> {
    let of = |start: &str, sigil: char| {
        let whole = percent_encoding(path.strip_prefix(start)?);
        let local = whole.trim_start_matches(sigil).split(':').next()?;
        Some(local.to_owned())
    };
    if let Some(username) = of("/_matrix/app/v1/users/", '@') {
        let body = json!({"type": "m.login.application_service", "username": username, "inhibit_login": true});
        return Some(("/register", body));
    }
    let alias = of("/_matrix/app/v1/rooms/", '#')?;
    let body = json!({"room_alias_name": alias, "preset": "public_chat"});
    Some(("/createRoom", body))
}
