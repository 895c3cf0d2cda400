//! Steps of bridges and of the operator: ghosts and their devices, the mode of a bridge, time, faults of the storage, restarts.

use std::time::Duration;

use schema::faults::{Fault, Point};
use serde_json::json;
use tests::person::segment;

use crate::bridges::Mode;
use crate::play::name;
use crate::server::Armed;
use crate::steps::{Step, chosen};
use crate::world::{Check, Due, World};

impl World {
    pub(crate) async fn ghost(&mut self, step: Step) -> Check {
        let s = usize::from(step.a) % 4;
        if self.services[s].in_force.is_none() {
            return Ok(());
        }
        let user = format!("@{}_{}:test", self.services[s].registration.id, step.b % 3);
        let (bot, local) = (
            self.as_bot(s),
            user.trim_start_matches('@')
                .trim_end_matches(":test")
                .to_owned(),
        );
        self.say(format!("{} registers {local}", name(&bot)));
        let body = json!({"type": "m.login.application_service", "username": local, "inhibit_login": true});
        let answer = self.ask(&bot, "POST", "/register", Some(&body)).await?;
        if answer.status == 200 || answer.body["errcode"] == "M_USER_IN_USE" {
            self.accounts.entry(user).or_insert(Some(s));
        }
        Ok(())
    }

    /// Users that an appservice registered and that are in its namespaces now, each with the appservice.
    fn ghosts(&self) -> Vec<(usize, String)> {
        let all = self
            .accounts
            .iter()
            .filter_map(|(user, s)| Some((s.as_ref().copied()?, user.clone())));
        all.filter(|(s, user)| {
            self.services[*s]
                .in_force
                .as_ref()
                .is_some_and(|r| r.claims(user).is_some())
        })
        .collect()
    }

    pub(crate) async fn ghost_device(&mut self, step: Step) -> Check {
        let ghosts = self.ghosts();
        let Some((s, user)) = ghosts
            .get(usize::from(step.a) % ghosts.len().max(1))
            .cloned()
        else {
            return Ok(());
        };
        let id = format!("G{}", step.b % 2);
        let caller = self.as_user(s, &user, None);
        self.say(format!("{} creates the device {id}", name(&caller)));
        let answer = self
            .ask(&caller, "PUT", &format!("/devices/{id}"), Some(&json!({})))
            .await?;
        let there = self
            .alive(&user)
            .into_iter()
            .find(|i| self.devices[*i].id == id);
        if answer.status < 300 && there.is_none() {
            let device = self.add_device(&user, &id, Some(s), "");
            self.touched(&user);
            self.absorb().await?;
            self.upload(device, 2, true, step.c % 2 == 0).await?;
        }
        Ok(())
    }

    pub(crate) async fn delete_ghost_device(&mut self, step: Step) -> Check {
        let of_service = |i: &usize| {
            let d = &self.devices[*i];
            d.alive
                && d.made_by.is_some_and(|s| {
                    self.services[s]
                        .in_force
                        .as_ref()
                        .is_some_and(|r| r.claims(&d.user).is_some())
                })
        };
        let all: Vec<usize> = (0..self.devices.len()).filter(of_service).collect();
        let Some(device) = chosen(&all, step.a).copied() else {
            return Ok(());
        };
        let caller = self.caller_of(device);
        self.say(format!("{} deletes the device", name(&caller)));
        let path = format!("/devices/{}", segment(&self.devices[device].id));
        let bot = self.as_user(caller.service.unwrap_or(0), &caller.user, None);
        if self
            .ask(&bot, "DELETE", &path, Some(&json!({})))
            .await?
            .status
            == 200
        {
            self.device_gone(device);
        }
        Ok(())
    }

    pub(crate) fn bridge(&mut self, step: Step) {
        let modes = [
            Mode::Good,
            Mode::Status(500),
            Mode::DiesAfter,
            Mode::Garbage,
            Mode::Hangs,
            Mode::DiesBefore,
            Mode::Status(413),
            Mode::Status(429),
        ];
        let (s, mode) = (
            usize::from(step.a) % self.services.len(),
            modes[usize::from(step.b) % modes.len()],
        );
        let id = self.services[s].registration.id.clone();
        self.say(format!("the bridge {id} is {mode:?}"));
        self.bridges.set_mode(&id, mode);
    }

    pub(crate) async fn advance(&mut self, step: Step) -> Check {
        let millis = [200, 2_000, 31_000, 300_000][usize::from(step.a) % 4];
        self.say(format!("{millis} ms pass"));
        self.pass(millis).await
    }

    pub(crate) async fn pass(&mut self, millis: u64) -> Check {
        self.settle().await?;
        self.clock.advance(Duration::from_millis(millis));
        self.elapsed += i64::try_from(millis).unwrap_or(0);
        Ok(())
    }

    /// Set the wall clock of the machine forwards or backwards.
    pub(crate) fn step_wall(&mut self, step: Step) {
        let minutes = [-60, 10, -3, 60][usize::from(step.a) % 4];
        self.say(format!("the wall clock is set by {minutes} minutes"));
        self.clock.set_wall(self.clock.now() + minutes * 60_000);
    }

    /// Damage the content of one to-device message that an appservice is owed. Only this message may be lost; later messages must
    /// still be delivered.
    pub(crate) async fn damage(&mut self) -> Check {
        let waiting = "SELECT CAST(i.position AS TEXT) AS a, i.content AS b FROM inbox i JOIN owed o ON o.position = i.position \
             WHERE o.txn IS NULL AND i.decided_by <> '' ORDER BY i.position LIMIT 1";
        self.settle().await?;
        let Some((position, content)) = self.journal.pairs(waiting).pop() else {
            return Ok(());
        };
        self.say(format!(
            "the message {content} that waits is damaged on the disk"
        ));
        let content: serde_json::Value = serde_json::from_str(&content).unwrap_or_default();
        // The content stays at the start of the damaged text, so that `check_inbox` can tell which message the row holds.
        self.journal.execute(&format!(
            "UPDATE inbox SET content = content || '{{' WHERE position = {position}"
        ));
        let damaged = self
            .messages
            .iter_mut()
            .filter(|m| Some(m.n) == content["n"].as_u64());
        for message in damaged {
            message.due.values_mut().for_each(|due| *due = Due::May);
            message.damaged = true;
        }
        Ok(())
    }

    pub(crate) fn storage(&mut self, step: Step) {
        let points = [
            Point::Begin,
            Point::Job,
            Point::BeforeCommit,
            Point::AfterCommit,
            Point::ReadBegin,
        ];
        let faults = [
            Fault::End,
            Fault::Refuse,
            Fault::End,
            Fault::Full,
            Fault::Lost,
        ];
        let armed = Armed {
            point: points[usize::from(step.a) % points.len()],
            fault: faults[usize::from(step.b) % faults.len()],
            after: u32::from(step.c % 12),
            panics: step.d % 16 == 0,
        };
        // Only readers panic. If the writer panicked, the model could not know what it had committed.
        let armed = if armed.panics {
            Armed {
                point: Point::ReadBegin,
                ..armed
            }
        } else {
            armed
        };
        self.say(format!(
            "the storage will meet {:?} at {:?} number {}",
            armed.fault, armed.point, armed.after
        ));
        self.server.faults.arm(Some(armed));
    }

    pub(crate) async fn restart(&mut self, step: Step) -> Check {
        let (kill, switches) = (step.a % 2 == 0, step.b % 8);
        let to_device = switches != 1 && switches != 3;
        let device_lists = switches != 2 && switches != 3;
        self.start_anew(kill, to_device, device_lists).await
    }

    pub(crate) async fn start_anew(
        &mut self,
        kill: bool,
        to_device: bool,
        device_lists: bool,
    ) -> Check {
        let end = if kill { "is killed" } else { "is stopped" };
        self.say(format!(
            "the server {end} and starts with to-device {to_device}, device lists {device_lists}"
        ));
        self.absorb().await?;
        if kill {
            self.server.kill().await;
        } else {
            self.server.stop().await;
        }
        let numbers = understudy::mscs::by_default();
        let on = |n: &u16| (*n != 4203 || to_device) && (*n != 3202 || device_lists);
        let numbers: Vec<u16> = numbers.into_iter().filter(on).collect();
        self.server.switch(&numbers);
        self.server.faults.arm(None);
        self.forget_typing();
        self.start().await?;
        let changed = (to_device, device_lists) != (self.to_device_on, self.device_lists_on);
        (self.to_device_on, self.device_lists_on) = (to_device, device_lists);
        self.settle().await?;
        if changed {
            self.judge_again(true);
        }
        self.check_tokens().await
    }

    /// Forget who types, in the model: the server keeps typing in memory only.
    pub(crate) fn forget_typing(&mut self) {
        self.typing.clear();
        for device in &mut self.devices {
            device.sync.typing.clear();
        }
    }
}
