//! Steps of clients that sync, and the checks that compare the responses with the model.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tests::person::segment;

use crate::play::name;
use crate::steps::{Step, chosen};
use crate::world::{Check, World, broken};

/// The types of state events that an invite or a knock may show to a user that is not in the room.
const STRIPPED: [&str; 9] = [
    "m.room.create",
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.room.join_rules",
    "m.room.encryption",
    "m.room.member",
    "m.room.third_party_invite",
];

/// One sync: its user and device, its start, and whether its filter asks for messages only.
struct Synced {
    user: String,
    device: usize,
    /// The number of events up to the `since` token of this sync. `None` for an initial sync.
    from: Option<usize>,
    only_messages: bool,
}

pub(crate) fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

impl World {
    pub(crate) async fn sync(&mut self, step: Step) -> Check {
        let all: Vec<usize> = (0..self.devices.len())
            .filter(|i| self.devices[*i].alive && self.devices[*i].made_by.is_none())
            .collect();
        let Some(device) = chosen(&all, step.a).copied() else {
            return Ok(());
        };
        self.sync_device(device, step.b % 10 == 0, step.b % 10 == 1, step.b % 3 == 2)
            .await
    }

    pub(crate) async fn sync_device(
        &mut self,
        device: usize,
        again: bool,
        first: bool,
        only_messages: bool,
    ) -> Check {
        let caller = self.caller_of(device);
        let client = self.devices[device].sync.clone();
        let from = if again {
            client.used.clone()
        } else {
            client.next.clone()
        }
        .filter(|_| !first);
        let what = match (&from, again) {
            (None, _) => "for the first time",
            (_, true) => "again from the same token",
            _ => "on",
        };
        self.say(format!(
            "{} syncs {what}, only messages: {only_messages}",
            name(&caller)
        ));
        let mut filter = json!({"room": {"include_leave": first, "timeline": {"limit": 200}}});
        if only_messages {
            filter["room"]["timeline"]["types"] = json!(["m.room.message", "m.room.encrypted"]);
        }
        let mut path = format!("/sync?timeout=0&filter={}", segment(&filter.to_string()));
        if let Some((since, _, _)) = &from {
            path.push_str(&format!("&since={}", segment(since)));
        }
        let answer = self.ask(&caller, "GET", &path, None).await?;
        let Some(next) = answer.body["next_batch"]
            .as_str()
            .filter(|_| answer.status == 200)
        else {
            return broken(
                "a device that is there can sync",
                format!("{}: {answer:?}", name(&caller)),
            );
        };
        let next = (
            next.to_owned(),
            self.history.events.len(),
            self.key_changes.len(),
        );
        if !again && !first {
            self.acknowledge(device);
        }
        self.check_messages(device, &answer.body)?;
        let synced = Synced {
            user: caller.user.clone(),
            device,
            from: from.as_ref().map(|(_, events, _)| *events),
            only_messages,
        };
        self.check_rooms(&synced, &answer.body)?;
        self.check_lists(&synced, from.as_ref().map(|f| f.2), &answer.body)?;
        self.check_typing(&synced, &answer.body)?;
        let client = &mut self.devices[device].sync;
        client.used = from;
        client.next = Some(next);
        Ok(())
    }

    /// Record in the model that a sync with the next token acknowledges the to-device messages that came with it.
    fn acknowledge(&mut self, device: usize) {
        for m in std::mem::take(&mut self.devices[device].sync.given) {
            let message = &mut self.messages[m];
            message.gone = true;
            message.waits = false;
            message.synced = true;
            if message.decided {
                // The device has read the message itself. A transaction may still carry a copy to an appservice.
                message
                    .due
                    .values_mut()
                    .for_each(|due| *due = crate::world::Due::May);
            }
        }
    }

    /// Check that a sync delivers each to-device message that waits for the device, once.
    fn check_messages(&mut self, device: usize, body: &Value) -> Check {
        let given: Vec<u64> = list(&body["to_device"]["events"])
            .iter()
            .filter_map(|e| e["content"]["n"].as_u64())
            .collect();
        let waiting: Vec<usize> = (0..self.messages.len())
            .filter(|m| self.messages[*m].device == device && !self.messages[*m].gone)
            .collect();
        let mut found = Vec::new();
        for n in &given {
            match waiting.iter().find(|m| self.messages[**m].n == *n) {
                Some(m) if !found.contains(m) => found.push(*m),
                _ => {
                    return broken(
                        "a device is given what waits for it, once",
                        format!("message {n}, of {given:?}"),
                    );
                }
            }
        }
        // A damaged message is left out of the response, but counts towards the limit of messages in a response.
        let damaged = waiting
            .iter()
            .filter(|m| self.messages[**m].damaged)
            .count();
        let full = given.len() + damaged >= 100;
        if let Some(m) = waiting
            .iter()
            .find(|m| self.messages[**m].waits && !found.contains(m) && !full)
        {
            let sent = &self.messages[*m];
            return broken(
                "what waits for a device reaches it",
                format!("message {} to {}", sent.n, self.devices[device].id),
            );
        }
        self.devices[device].sync.given = found;
        Ok(())
    }

    fn check_rooms(&mut self, synced: &Synced, body: &Value) -> Check {
        let end = self.history.events.len();
        let rooms: Vec<String> = self
            .history
            .rooms()
            .into_iter()
            .map(str::to_owned)
            .collect();
        for room in &rooms {
            let (joined, left) = (&body["rooms"]["join"][room], &body["rooms"]["leave"][room]);
            for part in [joined, left] {
                for event in list(&part["timeline"]["events"]) {
                    self.check_seen(&synced.user, &event, false)?;
                }
                for event in list(&part["state"]["events"]) {
                    self.check_seen(&synced.user, &event, true)?;
                }
            }
            for (kind, key) in [("invite", "invite_state"), ("knock", "knock_state")] {
                for event in list(&body["rooms"][kind][room][key]["events"]) {
                    if !STRIPPED.contains(&event["type"].as_str().unwrap_or_default()) {
                        return broken(
                            "nobody sees state that is hidden",
                            format!("{} in {kind}: {event}", synced.user),
                        );
                    }
                }
            }
            self.check_complete(synced, room, joined)?;
            let (before, now) = (
                synced
                    .from
                    .map(|f| self.history.membership(f, room, &synced.user)),
                self.history.membership(end, room, &synced.user),
            );
            let was_there = matches!(before, Some("join" | "invite" | "knock"));
            if was_there && matches!(now, "leave" | "ban") && left.is_null() {
                return broken(
                    "every device hears of a room that was left",
                    format!(
                        "{} of {}: {room}",
                        self.devices[synced.device].id, synced.user
                    ),
                );
            }
        }
        Ok(())
    }

    /// Check that a user may see an event that it is shown.
    fn check_seen(&self, user: &str, event: &Value, as_state: bool) -> Check {
        self.check_seen_by(&[user.to_owned()], event, as_state)
    }

    /// Check that one of these users may see an event, and the content that it replaced. Several users, because an appservice reads
    /// for all its users.
    pub(crate) fn check_seen_by(&self, users: &[String], event: &Value, as_state: bool) -> Check {
        self.check_id_seen_by(users, &event["event_id"], event, as_state)?;
        let unsigned = &event["unsigned"];
        if unsigned["prev_content"].is_null() {
            return Ok(());
        }
        self.check_id_seen_by(users, &unsigned["replaces_state"], event, true)
    }

    /// Check that one of these users may see the event with this id, which `event` is or contains.
    fn check_id_seen_by(
        &self,
        users: &[String],
        id: &Value,
        event: &Value,
        as_state: bool,
    ) -> Check {
        let user = &users[0];
        let id = id.as_str().unwrap_or_default();
        let Some(at) = self.history.events.iter().position(|e| e.id == id) else {
            return broken(
                "clients are shown what was committed",
                format!("{user}: {event}"),
            );
        };
        let may = users.iter().any(|user| match as_state {
            true => self.history.may_see_state(user, at),
            false => self.history.may_see(user, at),
        });
        if may {
            Ok(())
        } else {
            let what = if as_state {
                "nobody sees state that is hidden"
            } else {
                "nobody sees an event that is hidden"
            };
            broken(what, format!("{user} is shown {event}"))
        }
    }

    /// Check that a sync contains everything new of a joined room: each message once, and each change of state.
    fn check_complete(&self, synced: &Synced, room: &str, part: &Value) -> Check {
        let end = self.history.events.len();
        if !self.history.is_joined(end, room, &synced.user) || part["timeline"]["limited"] == true {
            return Ok(());
        }
        let ids = |v: &Value| -> Vec<String> {
            list(v)
                .iter()
                .filter_map(|e| e["event_id"].as_str().map(str::to_owned))
                .collect()
        };
        let (timeline, state) = (
            ids(&part["timeline"]["events"]),
            ids(&part["state"]["events"]),
        );
        let there = |id: &String| timeline.contains(id) || state.contains(id);
        let was = synced
            .from
            .filter(|from| self.history.is_joined(*from, room, &synced.user));
        let from = was.unwrap_or(0);
        for (number, event) in self.history.events.iter().enumerate().skip(from) {
            let is_message = matches!(event.kind.as_str(), "m.room.message" | "m.room.encrypted");
            if event.room != room {
                continue;
            }
            let wanted = is_message || !synced.only_messages;
            if was.is_some()
                && wanted
                && self.history.may_see(&synced.user, number)
                && !timeline.contains(&event.id)
            {
                return broken(
                    "a client misses nothing of a room that it is in",
                    format!("{}: {event:?}", synced.user),
                );
            }
            let current = event
                .state_key
                .as_ref()
                .is_some_and(|key| self.history.state(end, room, &event.kind, key) == Some(number));
            if current && !there(&event.id) {
                return broken(
                    "what changed in the state is in `state` or in the timeline",
                    format!("{}: {event:?}", synced.user),
                );
            }
        }
        if was.is_some() {
            let old = |id: &&String| self.history.events[..from].iter().any(|e| e.id == **id);
            if let Some(id) = timeline.iter().find(old) {
                return broken(
                    "a client is shown each event once",
                    format!("{}: {id} again", synced.user),
                );
            }
        }
        Ok(())
    }

    /// Check `device_lists.changed` against the key changes of the model.
    fn check_lists(&self, synced: &Synced, from: Option<usize>, body: &Value) -> Check {
        let (Some(from), Some(events)) = (from, synced.from) else {
            return Ok(());
        };
        let me = &synced.user;
        let end = self.history.events.len();
        let changed: BTreeSet<String> = list(&body["device_lists"]["changed"])
            .iter()
            .filter_map(|u| u.as_str().map(str::to_owned))
            .collect();
        let mine = |c: &crate::world::KeyChange| match &c.only_for {
            Some(one) => one == me,
            None => c.user == *me || c.seen_by.contains(me),
        };
        for change in self
            .key_changes
            .iter()
            .skip(from)
            .filter(|c| mine(c) && c.certain)
        {
            let still = change.user == *me
                || change.only_for.is_some()
                || self.history.meet(end, me, &change.user);
            if still && !changed.contains(&change.user) && !self.deactivated.contains(&change.user)
            {
                return broken(
                    "a client hears whose keys changed",
                    format!("{me} of {}", change.user),
                );
            }
        }
        for user in &changed {
            let keys = self
                .key_changes
                .iter()
                .skip(from)
                .any(|c| c.user == *user && (c.only_for.is_none() || mine(c)));
            let met = self.history.events[events..].iter().any(|e| {
                e.kind == "m.room.member"
                    && [user, me].contains(&e.state_key.as_ref().unwrap_or(me))
            });
            if !keys && !met {
                return broken(
                    "a client hears only of keys that changed",
                    format!("{me} of {user}"),
                );
            }
        }
        Ok(())
    }

    /// Check that no user is shown typing after its timeout.
    fn check_typing(&mut self, synced: &Synced, body: &Value) -> Check {
        if synced.from.is_none() {
            // After an initial sync, a client knows no typing users.
            self.devices[synced.device].sync.typing.clear();
        }
        for (room, part) in body["rooms"]["join"].as_object().into_iter().flatten() {
            for event in list(&part["ephemeral"]["events"])
                .iter()
                .filter(|e| e["type"] == "m.typing")
            {
                let users = list(&event["content"]["user_ids"])
                    .iter()
                    .filter_map(|u| u.as_str().map(str::to_owned))
                    .collect();
                self.devices[synced.device]
                    .sync
                    .typing
                    .insert(room.clone(), users);
            }
        }
        let shown: &BTreeMap<String, BTreeSet<String>> = &self.devices[synced.device].sync.typing;
        for (room, users) in shown {
            if !self
                .history
                .is_joined(self.history.events.len(), room, &synced.user)
            {
                continue;
            }
            for user in users {
                let until = self.typing.get(&(room.clone(), user.clone()));
                if until.is_none_or(|until| *until < self.elapsed) {
                    return broken(
                        "typing ends when its time is over",
                        format!("{user} types in {room} still, for {}", synced.user),
                    );
                }
            }
        }
        Ok(())
    }
}
