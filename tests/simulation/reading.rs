//! Steps that read a room without `/sync`, and what users that left the room, or never were in it, may still read.

use std::collections::BTreeSet;

use serde_json::json;
use tests::person::segment;

use crate::clients::list;
use crate::play::name;
use crate::steps::{Step, chosen};
use crate::world::{Caller, Check, World, broken};

impl World {
    /// The users that left a room and have a device: the device, the room, and the event by which the user left, in event order.
    fn leavers(&self) -> Vec<(usize, String, String)> {
        let end = self.history.events.len();
        let mut found = Vec::new();
        for (number, event) in self.history.events.iter().enumerate() {
            let Some(user) = event
                .state_key
                .as_ref()
                .filter(|_| event.kind == "m.room.member")
            else {
                continue;
            };
            let gone = matches!(event.content["membership"].as_str(), Some("leave" | "ban"));
            let last = self.history.state(end, &event.room, &event.kind, user) == Some(number);
            let device = self
                .alive(user)
                .into_iter()
                .find(|d| self.devices[*d].made_by.is_none());
            if let Some(device) = device.filter(|_| gone && last) {
                found.push((device, event.room.clone(), event.id.clone()));
            }
        }
        found
    }

    /// One of the users that [`World::leavers`] returns.
    pub(crate) fn leaver(&self, selector: u8) -> Option<(usize, String, String)> {
        let all = self.leavers();
        chosen(&all, selector).cloned()
    }

    /// A user that left a room, retracted a knock or declined an invite forgets the room.
    pub(crate) async fn leave_and_forget(&mut self, step: Step) -> Check {
        let Some((device, room, _)) = self.leaver(step.a) else {
            return Ok(());
        };
        let caller = self.caller_of(device);
        self.say(format!("{} forgets {room}", name(&caller)));
        let path = format!("/rooms/{}/forget", segment(&room));
        let answer = self.ask(&caller, "POST", &path, Some(&json!({}))).await?;
        if answer.status == 200 {
            self.forgotten.insert((room, caller.user));
        }
        Ok(())
    }

    /// At the end, check what each user that left a room is shown: by an initial sync with left rooms, and by reads around the
    /// event by which the user left.
    pub(crate) async fn check_leavers(&mut self) -> Check {
        let leavers = self.leavers();
        let devices: BTreeSet<usize> = leavers.iter().map(|(device, _, _)| *device).collect();
        for device in devices {
            self.sync_device(device, false, true, false).await?;
        }
        for (device, room, event) in leavers {
            let caller = self.caller_of(device);
            for way in 0..5 {
                self.read_as(&caller, &room, &event, way).await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn read(&mut self, step: Step) -> Check {
        // Sometimes a user that left reads around the event by which it left.
        let leaver = self.leaver(step.a).filter(|_| step.d % 4 == 0);
        if let Some((device, room, event)) = leaver {
            let caller = self.caller_of(device);
            return self.read_as(&caller, &room, &event, step.c % 5).await;
        }
        let (room, caller) = (self.room(step.b), self.caller(step.a));
        let Some((event, _)) = self.event_of(&room, step.d) else {
            return Ok(());
        };
        self.read_as(&caller, &room, &event, step.c % 5).await
    }

    /// Read a room around an event, through one of five endpoints.
    pub(crate) async fn read_as(
        &mut self,
        caller: &Caller,
        room: &str,
        event: &str,
        way: u8,
    ) -> Check {
        let (r, e) = (segment(room), segment(event));
        let path = match way {
            0 => format!("/rooms/{r}/messages?dir=b&limit=50"),
            1 => format!("/rooms/{r}/state"),
            2 => format!("/rooms/{r}/context/{e}?limit=4"),
            3 => format!("/rooms/{r}/event/{e}"),
            _ => format!("/rooms/{r}/members"),
        };
        self.say(format!("{} reads {path}", name(caller)));
        let answer = self.ask(caller, "GET", &path, None).await?;
        if way == 0
            && self
                .forgotten
                .contains(&(room.to_owned(), caller.user.clone()))
            && answer.status != 403
            // A `world_readable` room may be read by all users.
            && self.history.visibility(self.history.events.len(), room) != "world_readable"
        {
            return broken(
                "who has forgotten a room has no part in it",
                format!("{} {path}: {}", name(caller), answer.status),
            );
        }
        if answer.status != 200 {
            return Ok(());
        }
        let body = &answer.body;
        let (events, state) = match way {
            0 => (list(&body["chunk"]), list(&body["state"])),
            1 => (Vec::new(), list(body)),
            2 => {
                let around = [
                    list(&body["events_before"]),
                    vec![body["event"].clone()],
                    list(&body["events_after"]),
                ];
                (around.concat(), list(&body["state"]))
            }
            3 => (vec![body.clone()], Vec::new()),
            _ => (Vec::new(), list(&body["chunk"])),
        };
        let mut users = vec![caller.user.clone()];
        if let Some(service) = caller.service {
            let registration = &self.services[service].registration;
            users.extend(
                self.accounts
                    .keys()
                    .filter(|u| registration.claims(u).is_some())
                    .cloned(),
            );
        }
        for event in &events {
            self.check_seen_by(&users, event, false)?;
        }
        for event in &state {
            self.check_seen_by(&users, event, true)?;
        }
        Ok(())
    }
}
