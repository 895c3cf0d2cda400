//! The format of typing, receipt and presence events, and which appservices may receive them.

use std::collections::BTreeMap;

use schema::receipts::ReceiptRow;
use serde::Serialize;

use crate::runtime::wake::NewReceipt;
use crate::services::{NamespaceClaim, Service};
use crate::sync::Presence;
use crate::{Refusal, Result};

/// An ephemeral event, in the format of clients and appservices.
#[derive(Debug, Serialize)]
pub struct EphemeralEvent<'a, C> {
    content: C,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<&'a str>,
    r#type: &'static str,
}

/// The content of `m.typing`.
#[derive(Debug, Serialize)]
pub struct TypingContent<'a> {
    user_ids: &'a [String],
}

/// The typing event of a room ([spec]); `room_id` is written for appservices only.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#mtyping
pub fn typing<'a>(
    room_id: Option<&'a str>,
    users: &'a [String],
) -> EphemeralEvent<'a, TypingContent<'a>> {
    EphemeralEvent {
        content: TypingContent { user_ids: users },
        room_id,
        sender: None,
        r#type: "m.typing",
    }
}

/// A read receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The user that has read.
    pub user: String,
    /// `m.read` or `m.read.private`.
    pub kind: String,
    /// The id of the event up to which it has read.
    pub event: String,
    /// The time, in milliseconds since the epoch.
    pub ts: i64,
    /// The thread: the id of its root, `main`, or empty for an unthreaded receipt.
    pub thread: String,
}

impl From<ReceiptRow> for Receipt {
    fn from(row: ReceiptRow) -> Self {
        Receipt {
            user: row.user_id,
            kind: row.kind,
            event: row.event_id,
            ts: row.ts,
            thread: row.thread_id,
        }
    }
}

impl From<&NewReceipt> for Receipt {
    fn from(new: &NewReceipt) -> Self {
        Receipt {
            user: new.user.to_string(),
            kind: new.kind.clone(),
            event: new.event.clone(),
            ts: new.ts,
            thread: new.thread.clone(),
        }
    }
}

impl Receipt {
    /// The user that has read.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Whether this user may see it: a private receipt is visible to its own user only. ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#private-read-receipts
    /// Clause: cs.sync.private-receipts
    pub fn is_for(&self, user: &str) -> bool {
        self.kind != "m.read.private" || self.user == user
    }
}

/// The time and thread of a receipt.
#[derive(Debug, Serialize)]
pub struct ReceiptData<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    thread_id: &'a str,
    ts: i64,
}

/// event → receipt type → user → time and thread.
type ReceiptContent<'a> = BTreeMap<&'a str, BTreeMap<&'a str, BTreeMap<&'a str, ReceiptData<'a>>>>;

/// The receipt events of a room ([spec]); `room_id` is written for appservices only. One event can hold only one receipt per user,
/// type and message, so a user's receipts on one message in several threads are in as many events. Clause: as.ephemeral.room-id
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#mreceipt
pub fn receipts<'a>(
    room_id: Option<&'a str>,
    receipts: &'a [Receipt],
) -> Vec<EphemeralEvent<'a, ReceiptContent<'a>>> {
    let mut contents: Vec<ReceiptContent<'a>> = Vec::new();
    for receipt in receipts {
        let read = ReceiptData {
            thread_id: &receipt.thread,
            ts: receipt.ts,
        };
        let has_receipt = |content: &ReceiptContent<'_>| {
            let of_event = content.get(receipt.event.as_str());
            let of_kind = of_event.and_then(|e| e.get(receipt.kind.as_str()));
            of_kind.is_some_and(|k| k.contains_key(receipt.user.as_str()))
        };
        let free = contents.iter().position(|content| !has_receipt(content));
        let free = free.unwrap_or_else(|| {
            contents.push(ReceiptContent::new());
            contents.len() - 1
        });
        let of_event = contents[free].entry(&receipt.event).or_default();
        let of_kind = of_event.entry(&receipt.kind).or_default();
        of_kind.insert(&receipt.user, read);
    }
    let event = |content| EphemeralEvent {
        content,
        room_id,
        sender: None,
        r#type: "m.receipt",
    };
    contents.into_iter().map(event).collect()
}

// ANCHOR: may_receive_private
/// Whether an appservice may receive a user's private data: a private receipt, or presence without a common room. It may for its
/// own users ([spec]), and for users that it only observes if the administrator allows it.
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#pushing-ephemeral-data
/// Clause: as.ephemeral.private-receipts
pub fn may_receive_private(service: &Service, claim: Option<NamespaceClaim>) -> bool {
    claim.is_some_and(|claim| claim.is_exclusive() || service.observes)
}
// ANCHOR_END: may_receive_private

/// The longest status message, in bytes: it is sent to every member of the user's rooms.
const STATUS_BYTES: usize = 1024;

/// Refuse an unknown presence state and a too long status message. ([spec]) Clause: cs.sync.presence
///
/// # Errors
/// [`Refusal::InvalidParam`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3presenceuseridstatus
pub fn check_presence(state: &str, message: Option<&str>) -> Result<()> {
    if !matches!(state, "online" | "unavailable" | "offline") {
        let text = "presence must be online, unavailable or offline";
        return Err(Refusal::InvalidParam(text.into()).into());
    }
    if message.is_some_and(|message| message.len() > STATUS_BYTES) {
        let text = "a status message has at most 1024 bytes";
        return Err(Refusal::InvalidParam(text.into()).into());
    }
    Ok(())
}

/// The content of `m.presence`.
#[derive(Debug, Serialize)]
pub struct PresenceContent<'a> {
    currently_active: bool,
    last_active_ago: i64,
    presence: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_msg: Option<&'a str>,
}

/// The presence event of a user; `now` is by [`Clock::monotonic`](crate::Clock::monotonic). ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#mpresence
pub fn presence<'a>(
    user_id: &'a str,
    presence: &'a Presence,
    now: i64,
) -> EphemeralEvent<'a, PresenceContent<'a>> {
    EphemeralEvent {
        content: PresenceContent {
            currently_active: presence.state == "online",
            last_active_ago: (now - presence.since).max(0),
            presence: &presence.state,
            status_msg: presence.message.as_deref(),
        },
        room_id: None,
        sender: Some(user_id),
        r#type: "m.presence",
    }
}

#[cfg(test)]
mod tests {

    use crate::services::{Interests, Proposals};

    use super::*;

    fn json(value: &impl Serialize) -> String {
        serde_json::to_string(value).expect("JSON")
    }

    #[test]
    fn ephemeral_events_have_the_format_of_the_specification() {
        let receipt = |user: &str, kind: &str, thread: &str| Receipt {
            user: user.to_owned(),
            kind: kind.to_owned(),
            event: "$e".to_owned(),
            ts: 7,
            thread: thread.to_owned(),
        };
        let all = [
            receipt("@a:test", "m.read", ""),
            receipt("@b:test", "m.read.private", "main"),
            receipt("@a:test", "m.read", "$thread"),
        ];
        assert!(all[0].is_for("@b:test") && all[1].is_for("@b:test") && !all[1].is_for("@a:test"));
        assert_eq!(
            json(&receipts(None, &all)),
            r#"[{"content":{"$e":{"m.read":{"@a:test":{"ts":7}},"m.read.private":{"@b:test":{"thread_id":"main","ts":7}}}},"type":"m.receipt"},{"content":{"$e":{"m.read":{"@a:test":{"thread_id":"$thread","ts":7}}}},"type":"m.receipt"}]"#
        );
        assert_eq!(
            json(&typing(None, &[])),
            r#"{"content":{"user_ids":[]},"type":"m.typing"}"#
        );
        let here = Presence {
            state: "online".to_owned(),
            message: Some("hello".to_owned()),
            since: 10,
        };
        assert_eq!(
            json(&presence("@a:test", &here, 25)),
            r#"{"content":{"currently_active":true,"last_active_ago":15,"presence":"online","status_msg":"hello"},"sender":"@a:test","type":"m.presence"}"#
        );
    }

    #[test]
    fn private_data_is_for_the_services_own_users_and_observed_ones() {
        let value = serde_json::json!({"id": "a", "url": null, "as_token": "a", "hs_token": "a", "sender_localpart": "a",
            "namespaces": {}});
        for observes in [true, false] {
            let all = vec![(
                serde_json::from_value(value.clone()).expect("a registration"),
                observes,
            )];
            let all = Interests::compile("test", all, &Proposals::default()).expect("patterns");
            let service = &all.services()[0];
            let may = |claim| may_receive_private(service, claim);
            assert!(may(Some(NamespaceClaim::Exclusive)) && may(Some(NamespaceClaim::Sender)));
            assert_eq!(may(Some(NamespaceClaim::Shared)), observes);
            assert!(!may(None));
        }
    }

    #[test]
    fn presence_states_and_status_messages_are_checked() {
        assert!(check_presence("online", Some("here")).is_ok());
        assert!(check_presence("unavailable", Some(&"x".repeat(STATUS_BYTES))).is_ok());
        assert!(check_presence("busy", None).is_err() && check_presence("", None).is_err());
        assert!(check_presence("offline", Some(&"x".repeat(STATUS_BYTES + 1))).is_err());
    }
}
