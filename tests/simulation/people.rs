//! Steps of users: rooms, memberships, devices, profiles.

use serde_json::{Value, json};
use tests::person::segment;

use crate::play::name;
use crate::steps::{Kind, Step, chosen};
use crate::world::{Caller, Check, Client, Device, World};

/// The localparts of the users. Their password is `secret`.
pub(crate) const PEOPLE: [&str; 4] = ["alice", "bob", "carol", "dave"];

impl World {
    pub(crate) async fn register_people(&mut self) -> Check {
        let nobody = Caller {
            user: String::new(),
            device: None,
            service: None,
            token: String::new(),
        };
        for (number, person) in PEOPLE.iter().enumerate() {
            let device = format!("D{number}");
            let body = json!({"username": person, "password": "secret", "device_id": device, "auth": {"type": "m.login.dummy"}});
            let answer = self.ask(&nobody, "POST", "/register", Some(&body)).await?;
            let user = format!("@{person}:test");
            self.accounts.insert(user.clone(), None);
            self.add_device(
                &user,
                &device,
                None,
                answer.body["access_token"].as_str().unwrap_or_default(),
            );
        }
        Ok(())
    }

    pub(crate) fn add_device(
        &mut self,
        user: &str,
        id: &str,
        made_by: Option<usize>,
        token: &str,
    ) -> usize {
        self.devices.push(Device {
            user: user.to_owned(),
            id: id.to_owned(),
            made_by,
            token: token.to_owned(),
            alive: true,
            keyed: false,
            claimed: false,
            sync: Client::default(),
        });
        self.devices.len() - 1
    }

    pub(crate) async fn log_in(&mut self, step: Step) -> Check {
        let person = PEOPLE[usize::from(step.a) % PEOPLE.len()];
        let user = format!("@{person}:test");
        if self.deactivated.contains(&user) || self.alive(&user).len() > 3 {
            return Ok(());
        }
        // Sometimes create a deleted device again under the same id.
        let dead = self
            .devices
            .iter()
            .find(|d| d.user == user && !d.alive)
            .map(|d| d.id.clone());
        let alive: Vec<String> = self
            .alive(&user)
            .iter()
            .map(|i| self.devices[*i].id.clone())
            .collect();
        let n = self.number();
        let id = dead
            .filter(|id| step.b % 2 == 0 && !alive.contains(id))
            .unwrap_or_else(|| format!("L{n}"));
        self.say(format!("{person} logs in on {id}"));
        let nobody = Caller {
            user: String::new(),
            device: None,
            service: None,
            token: String::new(),
        };
        let body = json!({"type": "m.login.password", "identifier": {"type": "m.id.user", "user": person},
            "password": "secret", "device_id": id});
        let answer = self.ask(&nobody, "POST", "/login", Some(&body)).await?;
        if let Some(token) = answer.body["access_token"].as_str() {
            self.add_device(&user, &id, None, token);
            self.touched(&user);
        }
        Ok(())
    }

    fn own_device(&self, selector: u8) -> Option<usize> {
        let all: Vec<usize> = (0..self.devices.len())
            .filter(|i| self.devices[*i].alive && self.devices[*i].made_by.is_none())
            .collect();
        chosen(&all, selector).copied()
    }

    pub(crate) fn caller_of(&self, device: usize) -> Caller {
        let device = &self.devices[device];
        Caller {
            user: device.user.clone(),
            device: Some(device.id.clone()),
            service: device.made_by,
            token: device.made_by.map_or_else(
                || device.token.clone(),
                |s| self.services[s].as_token.clone(),
            ),
        }
    }

    pub(crate) async fn rename_device(&mut self, step: Step) -> Check {
        let Some(device) = self.own_device(step.a) else {
            return Ok(());
        };
        let caller = self.caller_of(device);
        self.say(format!("{} renames the device", name(&caller)));
        let path = format!("/devices/{}", segment(&self.devices[device].id));
        let body = json!({"display_name": format!("name {}", step.b)});
        self.ask(&caller, "PUT", &path, Some(&body)).await?;
        self.touched(&caller.user);
        Ok(())
    }

    pub(crate) async fn delete_device(&mut self, step: Step) -> Check {
        let Some(device) = self.own_device(step.a) else {
            return Ok(());
        };
        if self.alive(&self.devices[device].user).len() < 2 {
            return Ok(());
        }
        let caller = self.caller_of(device);
        self.say(format!("{} logs out", name(&caller)));
        self.ask(&caller, "POST", "/logout", Some(&json!({})))
            .await?;
        self.device_gone(device);
        Ok(())
    }

    /// Record in the model that a device, and the to-device messages that waited for it, are deleted.
    pub(crate) fn device_gone(&mut self, device: usize) {
        self.devices[device].alive = false;
        for message in self.messages.iter_mut().filter(|m| m.device == device) {
            message.waits = false;
            message.gone = true;
            for due in message.due.values_mut() {
                *due = crate::world::Due::May;
            }
        }
        let user = self.devices[device].user.clone();
        if self.devices[device].keyed {
            self.keys_changed(&user, None);
        } else {
            self.touched(&user);
        }
    }

    pub(crate) async fn deactivate(&mut self, step: Step) -> Check {
        let user = format!("@{}:test", PEOPLE[2 + usize::from(step.a) % 2]);
        let devices = self.alive(&user);
        let Some(first) = devices.first().copied() else {
            return Ok(());
        };
        let caller = self.caller_of(first);
        self.say(format!("{user} deactivates the account"));
        let answer = self
            .confirmed(&caller, "/account/deactivate", json!({}))
            .await?;
        if matches!(answer, 200 | 401 | 403) {
            self.deactivated.insert(user);
            for device in devices {
                self.device_gone(device);
            }
        }
        Ok(())
    }

    /// Send a request and confirm it with the user's password, if the server asks for that.
    pub(crate) async fn confirmed(
        &mut self,
        caller: &Caller,
        path: &str,
        mut body: Value,
    ) -> Check<u16> {
        let first = self.ask(caller, "POST", path, Some(&body)).await?;
        if first.status != 401 || first.body["session"].is_null() {
            return Ok(first.status);
        }
        body["auth"] = json!({"type": "m.login.password", "session": first.body["session"], "password": "secret",
            "identifier": {"type": "m.id.user", "user": caller.user}});
        Ok(self.ask(caller, "POST", path, Some(&body)).await?.status)
    }

    pub(crate) async fn create_room(&mut self, step: Step) -> Check {
        let caller = self.caller(step.a);
        let (n, invited) = (self.number(), self.user(step.c));
        let visibility = ["shared", "joined", "invited", "world_readable"][usize::from(step.d % 4)];
        let allowed = self.room(step.d / 4);
        let rule = match step.b % 5 {
            0 => json!({"join_rule": "public"}),
            1 | 2 => json!({"join_rule": "invite"}),
            3 => json!({"join_rule": "knock"}),
            _ => {
                let rule = ["restricted", "knock_restricted"][usize::from(step.b / 5 % 2)];
                json!({"join_rule": rule, "allow": [{"type": "m.room_membership", "room_id": allowed}]})
            }
        };
        self.say(format!(
            "{} creates a room: {visibility}, {rule}, inviting {invited}",
            name(&caller)
        ));
        let state =
            |kind: &str, content: Value| json!({"type": kind, "state_key": "", "content": content});
        let mut initial = vec![
            state(
                "m.room.history_visibility",
                json!({"history_visibility": visibility}),
            ),
            state("m.room.join_rules", rule),
        ];
        if step.c % 2 == 0 {
            initial.push(state(
                "m.room.encryption",
                json!({"algorithm": "m.megolm.v1.aes-sha2"}),
            ));
        }
        let mut body = json!({"room_alias_name": format!("room{n}"), "preset": "private_chat", "initial_state": initial});
        if invited != caller.user {
            body["invite"] = json!([invited]);
        }
        self.ask(&caller, "POST", "/createRoom", Some(&body))
            .await
            .map(drop)
    }

    pub(crate) async fn membership_of_another(&mut self, step: Step) -> Check {
        let room = self.room(step.b);
        let caller = self.member(&room, step.a);
        let user = self.user(step.c);
        let what = match step.kind {
            Kind::Invite => "invite",
            Kind::Kick => "kick",
            _ if step.d % 3 == 0 => "unban",
            _ => "ban",
        };
        self.say(format!("{} {what}s {user}, {room}", name(&caller)));
        let path = format!("/rooms/{}/{what}", segment(&room));
        self.ask(&caller, "POST", &path, Some(&json!({"user_id": user})))
            .await
            .map(drop)
    }

    pub(crate) async fn own_membership(&mut self, step: Step) -> Check {
        let room = self.room(step.b);
        let mut caller = self.caller(step.a);
        if matches!(step.kind, Kind::Leave) && step.c % 4 != 0 {
            caller = self.member(&room, step.a);
        } else if matches!(step.kind, Kind::Join | Kind::Leave) && (step.c / 4) % 4 != 0 {
            // Mostly accept or decline an invite, or retract a knock.
            let end = self.history.events.len();
            let waits = |c: &Caller| match self.history.membership(end, &room, &c.user) {
                "invite" => true,
                "knock" => step.kind == Kind::Leave,
                _ => false,
            };
            let all: Vec<Caller> = self.callers().into_iter().filter(waits).collect();
            if let Some(one) = chosen(&all, step.a) {
                caller = one.clone();
            }
        }
        let (path, words) = match step.kind {
            Kind::Join => (format!("/rooms/{}/join", segment(&room)), "joins"),
            Kind::Leave => (format!("/rooms/{}/leave", segment(&room)), "leaves"),
            Kind::Knock => (format!("/knock/{}", segment(&room)), "knocks at"),
            _ => (format!("/rooms/{}/forget", segment(&room)), "forgets"),
        };
        self.say(format!("{} {words} {room}", name(&caller)));
        let answer = self.ask(&caller, "POST", &path, Some(&json!({}))).await?;
        if step.kind == Kind::Forget && answer.status == 200 {
            self.forgotten.insert((room, caller.user));
        }
        Ok(())
    }

    /// Try to join a room by sending a membership event with a forged `join_authorised_via_users_server`. In most steps the room has
    /// the join rule that reads this key, and the sender is not joined to the room.
    pub(crate) async fn forged_join(&mut self, step: Step) -> Check {
        let (mut room, mut caller) = (self.room(step.b), self.caller(step.a));
        let end = self.history.events.len();
        if step.d % 4 != 0 {
            let restricted = |room: &str| {
                let rule = self.history.state(end, room, "m.room.join_rules", "");
                let rule = rule.map(|i| &self.history.events[i].content["join_rule"]);
                rule.and_then(Value::as_str)
                    .is_some_and(|rule| rule.contains("restricted"))
            };
            let mut rooms = self.history.rooms();
            rooms.retain(|room| restricted(room));
            if let Some(one) = chosen(&rooms, step.b) {
                room = (*one).to_owned();
            }
            let mut callers = self.callers();
            callers.retain(|c| !self.history.is_joined(end, &room, &c.user));
            if let Some(one) = chosen(&callers, step.a) {
                caller = one.clone();
            }
        }
        let inside: Vec<String> = self
            .history
            .joined(end, &room)
            .into_iter()
            .map(str::to_owned)
            .collect();
        let Some(sponsor) = chosen(&inside, step.c) else {
            return Ok(());
        };
        self.say(format!(
            "{} sends its own join as a state event of {room}, authorised by {sponsor}",
            name(&caller)
        ));
        let path = format!(
            "/rooms/{}/state/m.room.member/{}",
            segment(&room),
            segment(&caller.user)
        );
        let body = json!({"membership": "join", "join_authorised_via_users_server": sponsor});
        self.ask(&caller, "PUT", &path, Some(&body)).await.map(drop)
    }

    pub(crate) async fn state(&mut self, step: Step) -> Check {
        let room = self.room(step.b);
        let caller = self.member(&room, step.a);
        let choose = |of: &[&str]| of[usize::from(step.d) % of.len()].to_owned();
        let (kind, content) = match step.c % 5 {
            0 => ("m.room.name", json!({"name": format!("name {}", step.d)})),
            1 => (
                "m.room.topic",
                json!({"topic": format!("topic {}", step.d)}),
            ),
            2 => (
                "m.room.encryption",
                json!({"algorithm": "m.megolm.v1.aes-sha2"}),
            ),
            3 => (
                "m.room.join_rules",
                json!({"join_rule": choose(&["public", "invite", "knock"])}),
            ),
            _ => {
                let all = ["shared", "joined", "invited", "world_readable"];
                (
                    "m.room.history_visibility",
                    json!({"history_visibility": choose(&all)}),
                )
            }
        };
        self.say(format!(
            "{} sets {kind} of {room} to {content}",
            name(&caller)
        ));
        let path = format!("/rooms/{}/state/{kind}", segment(&room));
        let answer = self.ask(&caller, "PUT", &path, Some(&content)).await?;
        self.expect_event(&answer.body);
        Ok(())
    }

    pub(crate) async fn redact(&mut self, step: Step) -> Check {
        let room = self.room(step.b);
        let caller = self.member(&room, step.a);
        let Some(event) = self.event_of(&room, step.c) else {
            return Ok(());
        };
        if !matches!(event.1.as_str(), "m.room.message" | "m.room.encrypted") {
            return Ok(());
        }
        let n = self.number();
        self.say(format!("{} redacts {} in {room}", name(&caller), event.0));
        let path = format!(
            "/rooms/{}/redact/{}/t{n}",
            segment(&room),
            segment(&event.0)
        );
        let answer = self.ask(&caller, "PUT", &path, Some(&json!({}))).await?;
        self.expect_event(&answer.body);
        Ok(())
    }

    /// One event of a room: its id and type.
    pub(crate) fn event_of(&self, room: &str, selector: u8) -> Option<(String, String)> {
        let all: Vec<_> = self
            .history
            .events
            .iter()
            .filter(|e| e.room == room)
            .collect();
        let one = chosen(&all, selector)?;
        Some((one.id.clone(), one.kind.clone()))
    }

    pub(crate) async fn set_typing(&mut self, step: Step) -> Check {
        let room = self.room(step.b);
        let caller = self.member(&room, step.a);
        let types = step.c % 4 != 0;
        let timeout: i64 = if step.d % 2 == 0 { 5_000 } else { 25_000 };
        self.say(format!(
            "{} types in {room}: {types}, {timeout} ms",
            name(&caller)
        ));
        let path = format!("/rooms/{}/typing/{}", segment(&room), segment(&caller.user));
        let body = json!({"typing": types, "timeout": timeout});
        if self.ask(&caller, "PUT", &path, Some(&body)).await?.status == 200 {
            let key = (room, caller.user);
            if types {
                self.typing.insert(key, self.elapsed + timeout);
            } else {
                self.typing.remove(&key);
            }
        }
        Ok(())
    }

    pub(crate) async fn receipt(&mut self, step: Step) -> Check {
        let room = self.room(step.b);
        let caller = self.member(&room, step.a);
        let Some((event, _)) = self.event_of(&room, step.c) else {
            return Ok(());
        };
        self.say(format!("{} has read {event} in {room}", name(&caller)));
        let path = format!(
            "/rooms/{}/receipt/m.read/{}",
            segment(&room),
            segment(&event)
        );
        self.ask(&caller, "POST", &path, Some(&json!({})))
            .await
            .map(drop)
    }

    pub(crate) async fn about_oneself(&mut self, step: Step) -> Check {
        let caller = self.caller(step.a);
        let user = segment(&caller.user);
        let (path, body) = match step.kind {
            Kind::Presence => (
                format!("/presence/{user}/status"),
                json!({"presence": "online"}),
            ),
            Kind::AccountData => (
                format!("/user/{user}/account_data/m.sim"),
                json!({"n": step.b}),
            ),
            _ => (
                format!("/profile/{user}/displayname"),
                json!({"displayname": format!("name {}", step.b)}),
            ),
        };
        self.say(format!("{} sets {body}", name(&caller)));
        self.ask(&caller, "PUT", &path, Some(&body)).await.map(drop)
    }
}
