//! What is missing for a device to decrypt an event, from the evidence. The first of these that holds is the verdict.

use schema::events::EventRow;

use super::super::steps::{self, Step, shown};
use super::finding::{Claim, DeviceFinding, KeyMessage};
use crate::appservice_sender::SenderStatus;

/// What is known of the event and of one device.
pub(super) struct Evidence<'a> {
    pub(super) event: &'a EventRow,
    /// When the event was sent, in milliseconds since the epoch.
    pub(super) sent_at: i64,
    /// The position at which the device was created, and when that was, if it was after the start.
    pub(super) born: i64,
    pub(super) born_at: Option<i64>,
    pub(super) known_keys: bool,
    pub(super) claims: &'a [Claim],
    pub(super) messages: &'a [KeyMessage],
    /// When the sender first named the device in a to-device request that the trace holds.
    pub(super) named_at: Option<i64>,
    /// The sender of the appservice that decides over the device.
    pub(super) status: Option<&'a SenderStatus>,
    pub(super) user: &'a str,
    pub(super) device: &'a str,
}

/// One word, one sentence about what is missing, and how that is known.
pub(super) type Conclusion = (&'static str, String, Vec<Step>);

/// The user has no device of this id.
pub(super) fn no_such_device(user: &str, device: String) -> DeviceFinding {
    let missing = format!(
        "{user} has no device {device}: it never existed, or it was deleted, and its messages with it."
    );
    DeviceFinding {
        user: user.to_owned(),
        device,
        known_keys: false,
        counts: Default::default(),
        claims: Vec::new(),
        messages: Vec::new(),
        verdict: "no such device",
        steps: vec![steps::NO_DEVICE.says(missing.clone())],
        missing,
    }
}

/// What is missing.
pub(super) fn conclude(found: &Evidence<'_>) -> Conclusion {
    let mut all = Vec::new();
    let Evidence {
        event,
        user,
        device,
        ..
    } = found;
    let sender = &event.sender;
    if found.born > event.position {
        return born_later(found);
    }
    if !found.known_keys {
        let missing = format!(
            "{user}, device {device}, has uploaded no identity keys, so nothing can be encrypted to it."
        );
        return (
            "no keys",
            missing.clone(),
            vec![steps::ROOM_KEY.says(missing)],
        );
    }
    all.extend(claimed(found));
    // The key of the event was sent before it, if the client did so in time.
    let before = found
        .messages
        .iter()
        .rfind(|message| message.position <= event.position);
    let Some(last) = before.or(found.messages.last()) else {
        let why = match found.claims.last().map(|claim| claim.got) {
            Some("nothing") => format!(
                "{sender} claimed a key of {device} and got none: the device has neither one-time keys nor a fallback key. So no room key could be sent to it."
            ),
            Some(_) => format!(
                "{sender} claimed a key of {device}, but never sent it a message after that: the client of {sender} has to send the room key."
            ),
            None => format!(
                "{sender} never sent {device} an encrypted message, as far as the history reaches: the room key was not shared with it. The client of {sender} did not know the device, or does not share keys with it."
            ),
        };
        all.push(steps::ROOM_KEY.says(why.clone()));
        return ("never sent", why, all);
    };
    let sent = format!(
        "{sender} sent {device} {} that can be the room key; the last before the event, or else the last, is at position {}.",
        plural(found.messages.len()),
        last.position
    );
    all.push(steps::ROOM_KEY.says(sent).at(last.at));
    if last.deleted {
        let missing = format!(
            "The message that can be the room key was deleted with the device {device} before it was delivered."
        );
        all.push(steps::DROPPED.says(missing.clone()));
        return ("deleted", missing, all);
    }
    if !last.acknowledged {
        let missing = unacknowledged(found, last);
        let step = steps::INBOX.says(missing.clone());
        all.push(Step {
            transaction: last.transaction,
            ..step
        });
        return ("sent and not acknowledged", missing, all);
    }
    if last.position > event.position {
        let missing = format!(
            "A message that can be the room key reached {device}, but was sent after the event: it is the key only if the client sent it late."
        );
        all.push(steps::ROOM_KEY.says(missing.clone()));
        return ("sent late", missing, all);
    }
    let by = last.decided_by.as_deref().map_or_else(
        || format!("{device} has taken it with /sync"),
        |service| match last.transaction {
            Some(transaction) => format!("{service} acknowledged it in transaction {transaction}"),
            None => format!("{service} acknowledged it"),
        },
    );
    let missing = format!(
        "Nothing is missing at the server: {by}. The server does not see what was in it; look for the Olm message in the log of the client or bridge, which must have dropped or failed to decrypt it, or for a newer session."
    );
    let step = steps::SETTLED.says(missing.clone());
    all.push(Step {
        transaction: last.transaction,
        ..step
    });
    ("delivered", missing, all)
}

fn plural(messages: usize) -> String {
    match messages {
        1 => "one encrypted message".to_owned(),
        number => format!("{number} encrypted messages"),
    }
}

/// The device did not exist when the event was sent.
fn born_later(found: &Evidence<'_>) -> Conclusion {
    let Evidence { event, device, .. } = found;
    let sender = &event.sender;
    let mut all = Vec::new();
    if let Some(at) = found
        .named_at
        .filter(|at| found.born_at.is_none_or(|born| *at <= born))
    {
        let says = format!(
            "{sender} sent a message to {device} before it existed: the server keeps messages for existing devices only, so that one was not stored."
        );
        all.push(steps::NO_DEVICE.says(says).at(Some(at)));
    }
    let missing = format!(
        "{device} was created after the event was sent ({}), so its room key was not sent to it. It can get the key only from another device, by key forwarding or from the key backup.",
        shown(found.sent_at)
    );
    all.push(steps::ROOM_KEY.says(missing.clone()).at(found.born_at));
    ("device created later", missing, all)
}

/// What the last claim got.
fn claimed(found: &Evidence<'_>) -> Option<Step> {
    let before = found.claims.iter().rfind(|claim| claim.at <= found.sent_at);
    let (last, device) = (before.or(found.claims.last())?, found.device);
    let by = last
        .by
        .as_deref()
        .unwrap_or("A user whose request is not in the trace any more");
    let says = match last.got {
        "fallback key" => format!(
            "{by} claimed a key of {device} and got its fallback key, because no one-time key was left: the device should upload more."
        ),
        "nothing" => format!(
            "{by} claimed a key of {device} and got none: it has neither one-time keys nor a fallback key."
        ),
        _ => format!("{by} claimed a one-time key of {device}."),
    };
    Some(steps::CLAIMS.says(says).at(Some(last.at)))
}

/// The last message has not arrived.
fn unacknowledged(found: &Evidence<'_>, last: &KeyMessage) -> String {
    let device = found.device;
    let Some(service) = &last.decided_by else {
        return format!(
            "The message that can be the room key waits in the inbox: {device} has not acknowledged it with /sync."
        );
    };
    let until = found
        .status
        .and_then(|status| Some((status.next_attempt_at?, status)));
    match (last.transaction, until) {
        (Some(transaction), Some((until, status))) => format!(
            "The message that can be the room key is in transaction {transaction}, which {service} has not acknowledged: {} attempts failed, the last because {}; the next is at {}.",
            status.failed_attempts,
            status.last_error.as_deref().unwrap_or("no answer came"),
            shown(until)
        ),
        (Some(transaction), None) => {
            format!(
                "The message that can be the room key is in transaction {transaction}, which {service} has not acknowledged yet."
            )
        }
        (None, Some((until, status))) => format!(
            "The message that can be the room key waits behind transaction {}, which backs off until {}.",
            status.transaction.unwrap_or_default(),
            shown(until)
        ),
        (None, None) => {
            format!("The message that can be the room key waits to be sent to {service}.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> EventRow {
        EventRow {
            position: 10,
            event_id: "$e".to_owned(),
            room_id: "!r:test".to_owned(),
            kind: "m.room.encrypted".to_owned(),
            state_key: None,
            sender: "@alice:test".to_owned(),
            origin_server_ts: 1_000,
            pdu: "{}".to_owned(),
            replaces: None,
            redacted_by: None,
            device_id: None,
            txn_id: None,
        }
    }

    fn message(position: i64, acknowledged: bool, deleted: bool) -> KeyMessage {
        KeyMessage {
            position,
            at: None,
            r#type: "m.room.encrypted".to_owned(),
            decided_by: None,
            transaction: None,
            acknowledged,
            deleted,
            attempts: 0,
        }
    }

    fn claim(got: &'static str) -> Claim {
        Claim {
            at: 1,
            by: None,
            by_device: None,
            algorithm: "signed_curve25519".to_owned(),
            got,
        }
    }

    #[test]
    fn the_message_before_the_event_decides() {
        type Case<'a> = (&'a str, i64, bool, &'a [KeyMessage], &'a [Claim]);
        let cases: &[Case<'_>] = &[
            (
                "device created later",
                11,
                true,
                &[message(12, true, false)],
                &[],
            ),
            ("no keys", 1, false, &[], &[]),
            ("never sent", 1, true, &[], &[]),
            ("never sent", 1, true, &[], &[claim("nothing")]),
            (
                "delivered",
                1,
                true,
                &[message(9, true, false), message(12, false, false)],
                &[],
            ),
            (
                "sent and not acknowledged",
                1,
                true,
                &[message(5, true, false), message(9, false, false)],
                &[],
            ),
            (
                "sent and not acknowledged",
                1,
                true,
                &[message(12, false, false)],
                &[],
            ),
            ("sent late", 1, true, &[message(12, true, false)], &[]),
            ("deleted", 1, true, &[message(9, false, true)], &[]),
        ];
        let event = event();
        for (expected, born, known_keys, messages, claims) in cases {
            let found = Evidence {
                event: &event,
                sent_at: 1_000,
                born: *born,
                born_at: None,
                known_keys: *known_keys,
                claims,
                messages,
                named_at: None,
                status: None,
                user: "@bob:test",
                device: "DEV",
            };
            let (verdict, missing, steps) = conclude(&found);
            assert_eq!(verdict, *expected, "{missing}");
            assert!(!steps.is_empty() && missing.ends_with('.'), "{missing}");
        }
    }
}
