//! Steps with device keys, one-time keys and cross-signing keys.

use serde_json::{Value, json};
use tests::signing::Key;

use crate::play::name;
use crate::steps::{Step, chosen};
use crate::world::{Caller, Check, World, broken};

impl World {
    fn device_of(&self, caller: &Caller) -> Option<usize> {
        let is_it = |i: &usize| {
            let d = &self.devices[*i];
            d.alive && d.user == caller.user && Some(&d.id) == caller.device.as_ref()
        };
        (0..self.devices.len()).find(is_it)
    }

    pub(crate) async fn upload_keys(&mut self, step: Step) -> Check {
        let caller = self.device_caller(step.a);
        let Some(device) = self.device_of(&caller) else {
            return Ok(());
        };
        self.upload(
            device,
            usize::from(step.b % 4),
            step.c % 4 == 0,
            step.d % 2 == 0,
        )
        .await
    }

    /// Upload `many` one-time keys. Also upload device keys if the device has none, or if `others` asks for new ones.
    pub(crate) async fn upload(
        &mut self,
        device: usize,
        many: usize,
        others: bool,
        fallback: bool,
    ) -> Check {
        let caller = self.caller_of(device);
        let id = self.devices[device].id.clone();
        self.say(format!("{} uploads {many} one-time keys, fallback key: {fallback}, other device keys: {others}", name(&caller)));
        let signatures = json!({&caller.user: {format!("ed25519:{id}"): "c2lnbmVk"}});
        let key = |n: u64| json!({"key": format!("key{n}"), "signatures": signatures});
        let mut body = json!({"one_time_keys": {}});
        for _ in 0..many {
            let n = self.number();
            body["one_time_keys"][format!("signed_curve25519:K{n}")] = key(n);
        }
        if fallback {
            let n = self.number();
            let mut last = key(n);
            last["fallback"] = json!(true);
            body["fallback_keys"] = json!({format!("signed_curve25519:F{n}"): last});
        }
        let whole = others || !self.devices[device].keyed;
        if whole {
            let n = self.number();
            body["device_keys"] = json!({
                "user_id": caller.user, "device_id": id, "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
                "keys": {format!("curve25519:{id}"): format!("curve{n}"), format!("ed25519:{id}"): format!("ed{n}")},
                "signatures": signatures,
            });
        }
        let answer = self
            .ask(&caller, "POST", "/keys/upload", Some(&body))
            .await?;
        if answer.status == 200 {
            self.devices[device].claimed |= many > 0;
            if whole {
                self.devices[device].keyed = true;
                self.keys_changed(&caller.user, None);
            }
        }
        Ok(())
    }

    pub(crate) async fn claim(&mut self, step: Step) -> Check {
        let all: Vec<usize> = (0..self.devices.len())
            .filter(|i| self.devices[*i].alive && self.devices[*i].keyed)
            .collect();
        let Some(target) = chosen(&all, step.b).copied() else {
            return Ok(());
        };
        let caller = self.caller(step.a);
        let (user, id) = (
            self.devices[target].user.clone(),
            self.devices[target].id.clone(),
        );
        self.say(format!("{} claims a key of {user}/{id}", name(&caller)));
        let body = json!({"one_time_keys": {&user: {&id: "signed_curve25519"}}});
        let answer = self
            .ask(&caller, "POST", "/keys/claim", Some(&body))
            .await?;
        let keys = answer.body["one_time_keys"][&user][&id]
            .as_object()
            .cloned()
            .unwrap_or_default();
        for (key, value) in keys {
            if value["fallback"] != true {
                self.devices[target].claimed = true;
                if !self.claimed.insert(format!("{user} {id} {key}")) {
                    return broken(
                        "a one-time key is handed out at most once",
                        format!("{user} {id} {key}"),
                    );
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn query_keys(&mut self, step: Step) -> Check {
        let (caller, user) = (self.caller(step.a), self.user(step.b));
        self.say(format!("{} queries the keys of {user}", name(&caller)));
        let answer = self
            .ask(
                &caller,
                "POST",
                "/keys/query",
                Some(&json!({"device_keys": {&user: []}})),
            )
            .await?;
        for (id, _) in answer.body["device_keys"][&user]
            .as_object()
            .into_iter()
            .flatten()
        {
            let there = self
                .alive(&user)
                .into_iter()
                .any(|i| self.devices[i].id == *id && self.devices[i].keyed);
            if !there {
                return broken(
                    "keys are those of devices that are there",
                    format!("{user} {id}"),
                );
            }
        }
        Ok(())
    }

    pub(crate) async fn cross_sign(&mut self, step: Step) -> Check {
        self.cross_sign_as(self.device_caller(step.a), step).await
    }

    async fn cross_sign_as(&mut self, caller: Caller, step: Step) -> Check {
        let known = self.cross_signing.get(&caller.user).copied();
        let only_user_signing = step.b % 2 == 0 && known.is_some();
        let seed = known
            .filter(|_| only_user_signing || step.b % 4 == 1)
            .unwrap_or(step.c | 1);
        let master = Key::cross_signing(seed);
        let sub = |number: u8, usage: &str| {
            let key = Key::cross_signing(seed.wrapping_add(number));
            master.signs(&caller.user, key.as_cross_signing_key(&caller.user, usage))
        };
        let number = if only_user_signing {
            100 | (step.c & 15)
        } else {
            99
        };
        let user_signing = sub(number, "user_signing");
        let mut body = json!({"user_signing_key": user_signing});
        if !only_user_signing {
            body["master_key"] = master.as_cross_signing_key(&caller.user, "master");
            body["self_signing_key"] = sub(50, "self_signing");
        }
        let what = if only_user_signing {
            "only a user-signing key"
        } else {
            "cross-signing keys"
        };
        self.say(format!("{} uploads {what}", name(&caller)));
        let status = self
            .confirmed(&caller, "/keys/device_signing/upload", body)
            .await?;
        if status == 200 {
            self.cross_signing.insert(caller.user.clone(), seed);
            let uploaded = seed.wrapping_add(number);
            let before = self.user_signing.insert(caller.user.clone(), uploaded);
            let new = !only_user_signing && known != Some(seed);
            if new {
                self.keys_changed(&caller.user, None);
            } else if only_user_signing || before != Some(uploaded) {
                // The same keys again replace a user-signing key that was uploaded alone.
                self.maybe_changed(&caller.user, &caller.user);
            }
            // Replacing a user-signing key removes the signatures that it made.
            let by = format!("{} ", caller.user);
            let signed = self.signed.iter().filter(|(who, _)| who.starts_with(&by));
            let users: Vec<String> = signed
                .filter_map(|(_, of)| of.split(' ').next().map(str::to_owned))
                .collect();
            for user in users {
                self.maybe_changed(&user, &caller.user);
            }
        }
        Ok(())
    }

    /// Record that the keys of `user` may have changed in the view of `only_for`, so that `only_for` may be sent the change but
    /// need not be.
    fn maybe_changed(&mut self, user: &str, only_for: &str) {
        self.keys_changed(user, Some(only_for));
        if let Some(change) = self.key_changes.last_mut() {
            change.certain = false;
        }
    }

    pub(crate) async fn sign_user(&mut self, step: Step) -> Check {
        let people: Vec<Caller> = self
            .callers()
            .into_iter()
            .filter(|c| c.device.is_some() && c.service.is_none())
            .collect();
        let choose = |selector: u8| people[usize::from(selector) % people.len()].clone();
        let (caller, other) = (choose(step.a), choose(step.b));
        if caller.user == other.user {
            return Ok(());
        }
        // Give the signer and the signed user cross-signing keys first.
        for (one, c) in [(&caller, step.c), (&other, step.c.wrapping_add(2))] {
            if !self.cross_signing.contains_key(&one.user) {
                self.cross_sign_as(one.clone(), Step { c, ..step }).await?;
                self.absorb().await?;
            }
        }
        let own = self.user_signing.get(&caller.user).copied();
        let seed = self.cross_signing.get(&other.user).copied();
        let (Some(own), Some(seed)) = (own, seed) else {
            return Ok(());
        };
        let target = other.user;
        self.say(format!(
            "{} signs the master key of {target}",
            name(&caller)
        ));
        let master = Key::cross_signing(seed);
        let signer = Key::cross_signing(own);
        let signed = signer.signs(&caller.user, master.as_cross_signing_key(&target, "master"));
        let body = json!({&target: {&master.public: signed}});
        let answer = self
            .ask(&caller, "POST", "/keys/signatures/upload", Some(&body))
            .await?;
        let nothing = |v: &Value| v.as_object().is_none_or(serde_json::Map::is_empty);
        if answer.status == 200 && nothing(&answer.body["failures"]) {
            self.keys_changed(&target, Some(&caller.user));
            // Uploading a signature again need not be reported as a change.
            let (by, of) = (
                format!("{} {}", caller.user, signer.id),
                format!("{target} {}", master.public),
            );
            let new = self.signed.insert((by, of));
            if let Some(change) = self.key_changes.last_mut() {
                change.certain = new;
            }
        }
        Ok(())
    }
}
