//! Steps that read of a room in some other way than by syncing, and what those who left it, or never were in it, may still read.

use std::collections::BTreeSet;

use serde_json::json;
use tests::person::segment;

use crate::clients::list;
use crate::play::name;
use crate::steps::Step;
use crate::world::{Caller, Check, World, broken};

impl World {
    /// Who left which room, and by which event: those with a device, in the order of the events.
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

    /// Somebody who left a room, and by which event.
    pub(crate) fn leaver(&self, selector: u8) -> Option<(usize, String, String)> {
        let all = self.leavers();
        all.get(usize::from(selector) % all.len().max(1)).cloned()
    }

    /// A person leaves a room, or takes back a knock, or declines an invite, and forgets it.
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

    /// In the end each of them looks: at first and with the rooms that they left, and around the event by which they left.
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
        // Sometimes those who left look back at the event by which they did.
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

    /// Read of a room, around an event, in one of five ways.
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
            // A room that the whole world may read is theirs too.
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
