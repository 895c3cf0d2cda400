//! The model: the rules of the specification, computed by brute force from the list of all events. It follows the text of the
//! specification and uses no code of the server.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// An event, in the order in which events were committed.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) room: String,
    pub(crate) kind: String,
    pub(crate) state_key: Option<String>,
    pub(crate) sender: String,
    pub(crate) content: Value,
}

/// The parts of a registration file that the model uses.
#[derive(Debug, Clone)]
pub(crate) struct Registration {
    pub(crate) id: String,
    pub(crate) sender: String,
    /// The user namespaces: a prefix of user ids each, and whether it is exclusive.
    pub(crate) users: Vec<(String, bool)>,
    pub(crate) has_url: bool,
    /// `receive_ephemeral`, which includes to-device messages where MSC4203 is on.
    pub(crate) wants_to_device: bool,
    /// The opt-in to device lists and one-time-key counts of MSC3202.
    pub(crate) wants_device_lists: bool,
    /// Whether the operator allows it to observe messages to users of its non-exclusive namespaces.
    pub(crate) observes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    Own,
    Shared,
}

impl Registration {
    /// How the appservice's namespaces claim a user, if they do.
    pub(crate) fn claims(&self, user: &str) -> Option<Claim> {
        if user == self.sender {
            return Some(Claim::Own);
        }
        let pattern = self
            .users
            .iter()
            .find(|(start, _)| user.starts_with(start.as_str()));
        pattern.map(|(_, exclusive)| {
            if *exclusive {
                Claim::Own
            } else {
                Claim::Shared
            }
        })
    }
}

/// All room events so far, and what follows from them.
#[derive(Default)]
pub(crate) struct History {
    pub(crate) events: Vec<Event>,
    /// The membership after the last event, by room and user.
    now: BTreeMap<String, BTreeMap<String, String>>,
}

impl History {
    pub(crate) fn push(&mut self, event: Event) {
        if let Some(user) = event
            .state_key
            .as_ref()
            .filter(|_| event.kind == "m.room.member")
        {
            let membership = event.content["membership"].as_str().unwrap_or("leave");
            let room = self.now.entry(event.room.clone()).or_default();
            room.insert(user.clone(), membership.to_owned());
        }
        self.events.push(event);
    }

    /// The state event of this type and state key that was current before the event with number `before`.
    pub(crate) fn state(&self, before: usize, room: &str, kind: &str, key: &str) -> Option<usize> {
        let is_it =
            |e: &Event| e.room == room && e.kind == kind && e.state_key.as_deref() == Some(key);
        (0..before.min(self.events.len()))
            .rev()
            .find(|i| is_it(&self.events[*i]))
    }

    /// A user's membership before the event with this number.
    pub(crate) fn membership(&self, before: usize, room: &str, user: &str) -> &str {
        let event = self.state(before, room, "m.room.member", user);
        event.map_or("leave", |i| {
            self.events[i].content["membership"]
                .as_str()
                .unwrap_or("leave")
        })
    }

    pub(crate) fn is_joined(&self, before: usize, room: &str, user: &str) -> bool {
        self.membership(before, room, user) == "join"
    }

    pub(crate) fn visibility(&self, before: usize, room: &str) -> &str {
        let event = self.state(before, room, "m.room.history_visibility", "");
        let said = event.and_then(|i| self.events[i].content["history_visibility"].as_str());
        said.unwrap_or("shared")
    }

    /// The users joined to a room before the event with this number.
    pub(crate) fn joined(&self, before: usize, room: &str) -> Vec<&str> {
        let mut users: Vec<&str> = self.events[..before.min(self.events.len())]
            .iter()
            .filter(|e| e.room == room && e.kind == "m.room.member")
            .filter_map(|e| e.state_key.as_deref())
            .collect();
        users.sort_unstable();
        users.dedup();
        users.retain(|user| self.is_joined(before, room, user));
        users
    }

    pub(crate) fn rooms(&self) -> Vec<&str> {
        let mut rooms = Vec::new();
        for event in &self.events {
            if !rooms.contains(&event.room.as_str()) {
                rooms.push(event.room.as_str());
            }
        }
        rooms
    }

    /// Whether a user may see an event. ([spec](https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility))
    pub(crate) fn may_see(&self, user: &str, number: usize) -> bool {
        let event = &self.events[number];
        let room = event.room.as_str();
        if event.kind == "m.room.member" && event.state_key.as_deref() == Some(user) {
            return true;
        }
        // An event that changes the visibility, or the user's membership, is judged by the state before and after it.
        [number, number + 1].into_iter().any(|at| {
            let membership = self.membership(at, room, user);
            let joined_later = || self.was_joined(number, self.events.len(), room, user);
            match self.visibility(at, room) {
                "world_readable" => true,
                _ if membership == "join" => true,
                "shared" => joined_later(),
                "invited" => membership == "invite",
                _ => false,
            }
        })
    }

    /// Whether a user may see a state event as part of the room's state: at some moment it was current, and the user was in the
    /// room or the room was `world_readable`.
    pub(crate) fn may_see_state(&self, user: &str, number: usize) -> bool {
        let event = &self.events[number];
        let (room, key) = (
            event.room.as_str(),
            event.state_key.as_deref().unwrap_or_default(),
        );
        let end = (number + 1..self.events.len())
            .find(|i| {
                let later = &self.events[*i];
                later.room == event.room
                    && later.kind == event.kind
                    && later.state_key.as_deref() == Some(key)
            })
            .unwrap_or(self.events.len());
        self.may_see(user, number)
            || self.was_joined(number + 1, end, room, user)
            || self.was_open(number + 1, end, room)
    }

    /// Whether a user was joined at some moment: before the event `from`, or after one of the events up to `to`.
    fn was_joined(&self, from: usize, to: usize, room: &str, user: &str) -> bool {
        let joins = |e: &Event| {
            let is_theirs = e.kind == "m.room.member" && e.state_key.as_deref() == Some(user);
            is_theirs && e.room == room && e.content["membership"] == "join"
        };
        let to = to.min(self.events.len());
        self.is_joined(from, room, user) || (from < to && self.events[from..to].iter().any(joins))
    }

    /// Whether a room was `world_readable` before the event `from`, or after one of the events up to `to`.
    fn was_open(&self, from: usize, to: usize, room: &str) -> bool {
        let opens = |e: &Event| {
            e.room == room
                && e.kind == "m.room.history_visibility"
                && e.content["history_visibility"] == "world_readable"
        };
        let to = to.min(self.events.len());
        self.visibility(from, room) == "world_readable"
            || (from < to && self.events[from..to].iter().any(opens))
    }

    /// Whether an event concerns an appservice: its sender, its target, or a member of the room is a user of the appservice.
    pub(crate) fn concerns(&self, service: &Registration, number: usize) -> bool {
        let event = &self.events[number];
        let target = event
            .state_key
            .as_deref()
            .filter(|_| event.kind == "m.room.member");
        let mut users = vec![event.sender.as_str()];
        users.extend(target);
        users.extend(self.joined(number, &event.room));
        users.extend(self.joined(number + 1, &event.room));
        users.into_iter().any(|user| service.claims(user).is_some())
    }

    /// The users that share a room with an appservice: those that are joined or invited to a room to which a user of the appservice
    /// is joined.
    pub(crate) fn shared(&self, service: &Registration) -> BTreeSet<String> {
        let has_one = |room: &&BTreeMap<String, String>| {
            room.iter()
                .any(|(user, m)| m == "join" && service.claims(user).is_some())
        };
        let there = |room: &BTreeMap<String, String>| {
            let users = room
                .iter()
                .filter(|(_, m)| matches!(m.as_str(), "join" | "invite"));
            users.map(|(user, _)| user.clone()).collect::<Vec<_>>()
        };
        self.now.values().filter(has_one).flat_map(there).collect()
    }

    /// How many users of an appservice are in each room, for rooms with at least one.
    pub(crate) fn present(&self, service: &Registration) -> BTreeMap<String, usize> {
        let count = |room: &BTreeMap<String, String>| {
            room.iter()
                .filter(|(user, m)| *m == "join" && service.claims(user).is_some())
                .count()
        };
        let counts = self
            .now
            .iter()
            .map(|(room, users)| (room.clone(), count(users)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// Whether two users share a room before the event with number `before`.
    pub(crate) fn meet(&self, before: usize, one: &str, other: &str) -> bool {
        self.rooms()
            .into_iter()
            .any(|room| self.is_joined(before, room, one) && self.is_joined(before, room, other))
    }

    /// Why a membership event should have been rejected, if it should. Follows the authorization rules of memberships one by one.
    /// ([spec](https://spec.matrix.org/v1.19/rooms/v11/#authorization-rules))
    pub(crate) fn wrong_membership(&self, number: usize) -> Option<String> {
        let event = &self.events[number];
        let user = event
            .state_key
            .as_deref()
            .filter(|_| event.kind == "m.room.member")?;
        let room = event.room.as_str();
        let before = self.membership(number, room, user);
        let rules = self
            .state(number, room, "m.room.join_rules", "")
            .map(|i| &self.events[i].content);
        let rule = rules
            .and_then(|r| r["join_rule"].as_str())
            .unwrap_or("invite");
        let sender_is_in = self.is_joined(number, room, &event.sender);
        match event.content["membership"].as_str().unwrap_or_default() {
            "join" => {
                let first = !self.events[..number]
                    .iter()
                    .any(|e| e.room == room && e.kind == "m.room.member");
                let condition = || {
                    let allow = rules
                        .and_then(|r| r["allow"].as_array().cloned())
                        .unwrap_or_default();
                    let rooms = allow
                        .iter()
                        .filter_map(|a| a["room_id"].as_str().map(str::to_owned));
                    rooms
                        .collect::<Vec<_>>()
                        .iter()
                        .any(|r| self.is_joined(number, r, user))
                };
                let allowed = match before {
                    "join" | "invite" => true,
                    "ban" => false,
                    _ => first || rule == "public" || (rule.contains("restricted") && condition()),
                };
                if event.sender != user {
                    return Some(format!("{} made {user} join", event.sender));
                }
                (!allowed).then(|| {
                    format!("{user} was {before:?} and joined a room whose rule is {rule:?}")
                })
            }
            "invite" => (!sender_is_in).then(|| format!("{} invited from outside", event.sender)),
            "knock" => (!rule.contains("knock") || matches!(before, "ban" | "join"))
                .then(|| format!("{user} was {before:?} and knocked where the rule is {rule:?}")),
            "leave" if event.sender == user => {
                (before == "ban").then(|| format!("{user} left a ban"))
            }
            "leave" | "ban" => {
                (!sender_is_in).then(|| format!("{} removed {user} from outside", event.sender))
            }
            other => Some(format!("{user} has the membership {other:?}")),
        }
    }
}
