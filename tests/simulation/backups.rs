//! Steps with backups of room keys: storing sessions, replacing them, deleting them, and reading them back.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tests::person::segment;

use crate::play::name;
use crate::steps::Step;
use crate::world::{Caller, Check, World, broken};

/// What the model knows about a user's key backup: its current version, and the first message index of each session in that
/// version, by room and session.
#[derive(Debug, Clone)]
pub(crate) struct Backup {
    version: String,
    sessions: BTreeMap<(String, String), u8>,
    /// Whether a request that changes the backup got no answer, so that the contents of the backup are unknown.
    unsure: bool,
}

impl World {
    pub(crate) async fn backup(&mut self, step: Step) -> Check {
        let caller = self.device_caller(step.a);
        let Some(backup) = self.backups.get(&caller.user).cloned() else {
            return self.begin_backup(&caller).await;
        };
        match step.b % 8 {
            0 => self.begin_backup(&caller).await,
            1 => self.forget_backup(&caller, &backup, step.c).await,
            2..=4 => self.put_session(&caller, &backup, step).await,
            _ => self.read_backup(&caller, &backup).await,
        }
    }

    async fn begin_backup(&mut self, caller: &Caller) -> Check {
        self.say(format!("{} begins a backup of keys", name(caller)));
        let body = json!({"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {"public_key": "abcdefg", "signatures": {}}});
        let answer = self
            .ask(caller, "POST", "/room_keys/version", Some(&body))
            .await?;
        if let Some(version) = answer.body["version"].as_str() {
            let backup = Backup {
                version: version.to_owned(),
                sessions: BTreeMap::new(),
                unsure: false,
            };
            self.backups.insert(caller.user.clone(), backup);
        }
        Ok(())
    }

    /// Store one session. A stored session is replaced only by one with a lower first message index.
    /// ([spec](https://spec.matrix.org/v1.19/client-server-api/#backup-algorithm-mmegolm_backupv1curve25519-aes-sha2))
    async fn put_session(&mut self, caller: &Caller, backup: &Backup, step: Step) -> Check {
        let (room, session, index) = (self.room(step.c), format!("s{}", step.c % 5), step.d % 4);
        self.say(format!(
            "{} backs up {session} of {room} from message {index}",
            name(caller)
        ));
        let path = format!(
            "/room_keys/keys/{}/{session}?version={}",
            segment(&room),
            segment(&backup.version)
        );
        let data = json!({"ciphertext": format!("c{index}"), "ephemeral": "e", "mac": "m"});
        let body = json!({"first_message_index": index, "forwarded_count": 0, "is_verified": false, "session_data": data});
        let before = self.unanswered;
        let answer = self.ask(caller, "PUT", &path, Some(&body)).await?;
        let unsure = before != self.unanswered && answer.status != 200;
        let Some(backup) = self.backups.get_mut(&caller.user) else {
            return Ok(());
        };
        backup.unsure |= unsure;
        if answer.status == 200 {
            let stored = backup.sessions.entry((room, session)).or_insert(index);
            *stored = index.min(*stored);
        }
        Ok(())
    }

    async fn forget_backup(&mut self, caller: &Caller, backup: &Backup, selector: u8) -> Check {
        let whole = selector % 2 == 0;
        let version = segment(&backup.version);
        let path = if whole {
            format!("/room_keys/version/{version}")
        } else {
            format!("/room_keys/keys?version={version}")
        };
        self.say(format!("{} asks DELETE {path}", name(caller)));
        let before = self.unanswered;
        let answer = self.ask(caller, "DELETE", &path, None).await?;
        let again = before != self.unanswered;
        match self.backups.get_mut(&caller.user) {
            // A deletion that is sent again finds nothing the second time.
            Some(_) if whole && (answer.status == 200 || (again && answer.status == 404)) => {
                self.backups.remove(&caller.user);
                let path = format!("/room_keys/version/{version}");
                let gone = self.ask(caller, "GET", &path, None).await?;
                if gone.status != 404 {
                    return broken("a backup that was deleted is gone", format!("{gone:?}"));
                }
            }
            Some(backup) if answer.status == 200 => backup.sessions.clear(),
            _ => {}
        }
        Ok(())
    }

    /// Check that the backup holds what was stored, read as a whole and room by room.
    async fn read_backup(&mut self, caller: &Caller, backup: &Backup) -> Check {
        self.say(format!("{} reads the backup of keys", name(caller)));
        let version = segment(&backup.version);
        let path = format!("/room_keys/keys?version={version}");
        let whole = self.ask(caller, "GET", &path, None).await?;
        let mut found = BTreeMap::new();
        for (room, part) in whole.body["rooms"].as_object().into_iter().flatten() {
            found.extend(sessions(room, part));
        }
        let mut by_room = BTreeMap::new();
        for room in backup.sessions.keys().map(|(room, _)| room) {
            let path = format!("/room_keys/keys/{}?version={version}", segment(room));
            let part = self.ask(caller, "GET", &path, None).await?;
            by_room.extend(sessions(room, &part.body));
        }
        let path = format!("/room_keys/version/{version}");
        let info = self.ask(caller, "GET", &path, None).await?;
        let count = info.body["count"].as_u64();
        let expected = u64::try_from(backup.sessions.len()).ok();
        let same = found == backup.sessions && by_room == backup.sessions && count == expected;
        if !backup.unsure && whole.status == 200 && !same {
            let what = format!(
                "{}: {:?}; whole {found:?}; by room {by_room:?}; counted {count:?}",
                name(caller),
                backup.sessions
            );
            return broken("a backup holds what was stored in it", what);
        }
        if whole.status != 200 {
            return broken("a backup that was begun is there", format!("{whole:?}"));
        }
        Ok(())
    }
}

fn sessions(room: &str, part: &Value) -> Vec<((String, String), u8)> {
    let all = part["sessions"].as_object().into_iter().flatten();
    all.filter_map(|(session, data)| {
        let index = u8::try_from(data["first_message_index"].as_u64()?).ok()?;
        // The bytes belong to the session that was kept.
        let whole = data["session_data"]["ciphertext"] == format!("c{index}");
        whole.then(|| ((room.to_owned(), session.clone()), index))
    })
    .collect()
}
