//! What people do in many stories: rooms, events, messages to devices.

use serde_json::{Value, json};

use crate::person::{Answer, Person, segment};

fn text(answer: &Value, key: &str) -> String {
    let text = answer[key].as_str();
    text.unwrap_or_else(|| panic!("no {key} in {answer}"))
        .to_owned()
}

impl Person {
    /// Create a room: its id.
    pub async fn creates(&self, room: Value) -> String {
        text(&self.post("/createRoom", &room).await.ok(), "room_id")
    }

    /// Create a room, invite these guests, and have them join: its id.
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

    /// Create a private room and invite these users: its id.
    pub async fn invites_to_a_room(&self, users: &[&str]) -> String {
        let room = json!({"preset": "private_chat", "invite": users});
        self.creates(room).await
    }

    /// Invite a user.
    pub async fn invites(&self, room: &str, user: &str) {
        let body = json!({ "user_id": user });
        self.does(room, "invite", body).await.ok();
    }

    /// Join a room.
    pub async fn joins(&self, room: &str) {
        self.does(room, "join", json!({})).await.ok();
    }

    /// Leave a room.
    pub async fn leaves(&self, room: &str) {
        self.does(room, "leave", json!({})).await.ok();
    }

    /// The membership of a user in a room, as its event's content.
    pub async fn membership(&self, room: &str, user: &str) -> Value {
        let (room, user) = (segment(room), segment(user));
        let path = format!("/rooms/{room}/state/m.room.member/{user}");
        self.get(&path).await.ok()
    }

    /// Send an event: its id.
    pub async fn sends(&self, room: &str, kind: &str, txn: &str, content: Value) -> String {
        let (room, txn) = (segment(room), segment(txn));
        let path = format!("/rooms/{room}/send/{kind}/{txn}");
        text(&self.put(&path, &content).await.ok(), "event_id")
    }

    /// Send a text that was not sent before, with itself as the transaction's id: the id of the event.
    pub async fn says(&self, room: &str, words: &str) -> String {
        let content = json!({"msgtype": "m.text", "body": words});
        self.sends(room, "m.room.message", words, content).await
    }

    /// Set a piece of state under the empty key: the id of the event.
    pub async fn sets(&self, room: &str, kind: &str, content: Value) -> String {
        let path = format!("/rooms/{}/state/{kind}", segment(room));
        text(&self.put(&path, &content).await.ok(), "event_id")
    }

    /// Send an `m.example` to a device of a user, or to each with `*`.
    pub async fn sends_to_device(&self, txn: &str, user: &str, device: &str, content: Value) {
        let path = format!("/sendToDevice/m.example/{txn}");
        let body = json!({"messages": {user: {device: content}}});
        self.put(&path, &body).await.ok();
    }

    /// Send a number to a device of a user.
    pub async fn sends_number(&self, user: &str, device: &str, n: i64) {
        let content = json!({ "n": n });
        self.sends_to_device(&n.to_string(), user, device, content)
            .await;
    }
}

/// The numbers in these events, as [`Person::sends_number`] sends them.
#[must_use]
pub fn numbers(events: &[Value]) -> Vec<i64> {
    let numbers = events.iter().filter_map(|e| e["content"]["n"].as_i64());
    numbers.collect()
}
