//! Requests that many tests make: rooms, events, to-device messages.

use serde_json::{Value, json};

use crate::person::{Answer, Person, segment};

fn text(answer: &Value, key: &str) -> String {
    let text = answer[key].as_str();
    text.unwrap_or_else(|| panic!("no {key} in {answer}"))
        .to_owned()
}

impl Person {
    /// Creates a room. Returns its id.
    pub async fn creates(&self, room: Value) -> String {
        text(&self.post("/createRoom", &room).await.ok(), "room_id")
    }

    /// Creates a room, invites these users and lets them join. Returns its id.
    pub async fn gathers(&self, guests: &[&Person]) -> String {
        let invite: Vec<&str> = guests.iter().map(|g| g.user_id.as_str()).collect();
        let room = self.creates(json!({ "invite": invite })).await;
        for guest in guests {
            guest.joins(&room).await;
        }
        room
    }

    /// `POST /rooms/{room}/{what}`: `join`, `invite`, `kick`, …
    pub async fn does(&self, room: &str, what: &str, body: Value) -> Answer {
        let path = format!("/rooms/{}/{what}", segment(room));
        self.post(&path, &body).await
    }

    /// Creates a private room and invites these users. Returns its id.
    pub async fn invites_to_a_room(&self, users: &[&str]) -> String {
        let room = json!({"preset": "private_chat", "invite": users});
        self.creates(room).await
    }

    /// Invites a user.
    pub async fn invites(&self, room: &str, user: &str) {
        let body = json!({ "user_id": user });
        self.does(room, "invite", body).await.ok();
    }

    /// Joins a room.
    pub async fn joins(&self, room: &str) {
        self.does(room, "join", json!({})).await.ok();
    }

    /// Leaves a room.
    pub async fn leaves(&self, room: &str) {
        self.does(room, "leave", json!({})).await.ok();
    }

    /// The content of a user's member event in a room.
    pub async fn membership(&self, room: &str, user: &str) -> Value {
        let (room, user) = (segment(room), segment(user));
        let path = format!("/rooms/{room}/state/m.room.member/{user}");
        self.get(&path).await.ok()
    }

    /// Sends an event. Returns its id.
    pub async fn sends(&self, room: &str, kind: &str, txn: &str, content: Value) -> String {
        let (room, txn) = (segment(room), segment(txn));
        let path = format!("/rooms/{room}/send/{kind}/{txn}");
        text(&self.put(&path, &content).await.ok(), "event_id")
    }

    /// Sends a text, with itself as the transaction id: it must not have been sent before. Returns the event id.
    pub async fn says(&self, room: &str, words: &str) -> String {
        let content = json!({"msgtype": "m.text", "body": words});
        self.sends(room, "m.room.message", words, content).await
    }

    /// Sends a state event with an empty state key. Returns its id.
    pub async fn sets(&self, room: &str, kind: &str, content: Value) -> String {
        let path = format!("/rooms/{}/state/{kind}", segment(room));
        text(&self.put(&path, &content).await.ok(), "event_id")
    }

    /// Sends an `m.example` to a device of a user, or to all of the user's devices with `*`.
    pub async fn sends_to_device(&self, txn: &str, user: &str, device: &str, content: Value) {
        let path = format!("/sendToDevice/m.example/{txn}");
        let body = json!({"messages": {user: {device: content}}});
        self.put(&path, &body).await.ok();
    }

    /// Sends a number to a device of a user.
    pub async fn sends_number(&self, user: &str, device: &str, n: i64) {
        let content = json!({ "n": n });
        self.sends_to_device(&n.to_string(), user, device, content)
            .await;
    }
}

/// The numbers in these events that [`Person::sends_number`] sent.
#[must_use]
pub fn numbers(events: &[Value]) -> Vec<i64> {
    let numbers = events.iter().filter_map(|e| e["content"]["n"].as_i64());
    numbers.collect()
}
