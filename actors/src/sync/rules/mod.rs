//! The specification's rules for `/sync`, as pure functions: the timeline and its state, device lists, ephemeral events.

mod ephemeral;
pub(super) mod filter;
pub(super) mod token;

use std::collections::{BTreeMap, BTreeSet};

use schema::Position;
use schema::events::EventRow;
use serde_json::Value;
use serde_json::value::RawValue;

pub use ephemeral::*;

/// Whether the content of an event has a text under `key` that is not empty.
pub(crate) fn has_text(content: &RawValue, key: &str) -> bool {
    let content: Value = serde_json::from_str(content.get()).unwrap_or_default();
    content[key].as_str().is_some_and(|text| !text.is_empty())
}

/// The timeline of a room in one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline<'a> {
    /// The events, oldest first.
    pub events: Vec<&'a EventRow>,
    /// Whether there are wanted events between `since` and the first one that are not included.
    pub limited: bool,
    /// The position just before the first event: where to paginate backwards from, and the point in time of `state`.
    pub start: Position,
    /// The state events after `start` that are not wanted, newest first. The client gets them in `state`.
    pub left_out: Vec<&'a EventRow>,
}

/// The timeline of a room: the last `limit` events in a range of its history for which `wanted` returns `true`. ([spec])
///
/// `newest_first` holds the events of the range; if `cut_short`, only the newest of them. `head` is the end of the range: a
/// timeline without events starts there. If `state_first`, the client applies `state` before the timeline. An older event in the
/// timeline would then replace an unwanted event in `state` with the same type and state key, so the timeline begins after it.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#syncing
/// Clause: cs.sync.limited
pub fn timeline(
    newest_first: &[EventRow],
    cut_short: bool,
    limit: usize,
    head: Position,
    state_first: bool,
    wanted: impl Fn(&EventRow) -> bool,
) -> Timeline<'_> {
    let (mut events, mut left_out): (Vec<&EventRow>, Vec<&EventRow>) = Default::default();
    let mut overtaken = BTreeSet::new();
    let mut limited = cut_short;
    for event in newest_first {
        let key = event.state_key.as_ref().map(|key| (&event.kind, key));
        if !wanted(event) {
            left_out.extend(key.is_some().then_some(event));
            overtaken.extend(key);
            continue;
        }
        if events.len() == limit || key.is_some_and(|key| state_first && overtaken.contains(&key)) {
            limited = true;
            break;
        }
        events.push(event);
    }
    events.reverse();
    let start = events
        .first()
        .map_or(head, |first| Position(first.position).before());
    left_out.retain(|event| event.position > start.0);
    Timeline {
        events,
        limited,
        start,
        left_out,
    }
}

/// The last event for each type and state key, in order of position.
pub fn latest_state<'a>(events: impl Iterator<Item = &'a EventRow>) -> Vec<&'a EventRow> {
    let mut latest: BTreeMap<(&str, &str), &EventRow> = BTreeMap::new();
    for event in events {
        let Some(state_key) = event.state_key.as_deref() else {
            continue;
        };
        let slot = latest.entry((&event.kind, state_key)).or_insert(event);
        if slot.position < event.position {
            *slot = event;
        }
    }
    let mut latest: Vec<&EventRow> = latest.into_values().collect();
    latest.sort_by_key(|event| event.position);
    latest
}

/// The changes of a user that can matter to the device lists of the syncing user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserChanges {
    /// The user's device list changed.
    pub keys: bool,
    /// The syncing user's own signatures on the user's keys changed; for that the two need not share a room.
    pub own_view: bool,
    /// The two now share a room that they did not share before.
    pub met: bool,
    /// The two no longer share a room that they shared before.
    pub parted: bool,
}

/// The list of `device_lists` that a user is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceListChange {
    /// Query the user's devices again.
    Changed,
    /// Stop tracking the user's devices.
    Left,
}

/// The list that a user belongs in, given its changes and whether the two share a room now. ([spec])
///
/// Rooms that are not encrypted count too: a client may turn encryption on at any time. Clause: cs.lists.changed, cs.lists.left
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user
pub fn device_list_change(changes: UserChanges, share_a_room: bool) -> Option<DeviceListChange> {
    if changes.own_view {
        Some(DeviceListChange::Changed)
    } else if share_a_room {
        (changes.keys || changes.met).then_some(DeviceListChange::Changed)
    } else {
        changes.parted.then_some(DeviceListChange::Left)
    }
}

/// Whether a user with this membership shares the room with its joined members.
pub fn is_present(membership: Option<&str>) -> bool {
    matches!(membership, Some("join" | "invite"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(position: i64, kind: &str, state_key: Option<&str>) -> EventRow {
        EventRow {
            position,
            event_id: format!("${position}"),
            room_id: "!r:test".to_owned(),
            kind: kind.to_owned(),
            state_key: state_key.map(str::to_owned),
            sender: "@a:test".to_owned(),
            origin_server_ts: 0,
            pdu: String::new(),
            replaces: None,
            redacted_by: None,
            device_id: None,
            txn_id: None,
        }
    }

    /// Positions newest first, cut short, limit; what is shown, limited, start.
    type History = (&'static [i64], bool, usize, &'static [i64], bool, i64);

    /// Clause: cs.sync.limited
    #[test]
    fn a_timeline_holds_the_newest_wanted_events() {
        // (positions newest first, cut short, limit) → (shown, limited, start)
        let cases: &[History] = &[
            (&[], false, 10, &[], false, 99),
            (&[7, 5], false, 10, &[5, 7], false, 4),
            (&[7, 5], false, 2, &[5, 7], false, 4),
            (&[7, 5, 3], false, 2, &[5, 7], true, 4),
            (&[7, 5], true, 2, &[5, 7], true, 4),
            (&[7], false, 0, &[], true, 99),
            // Even positions are not wanted: they count neither as included nor towards the limit.
            (&[8, 7, 5], false, 2, &[5, 7], false, 4),
            (&[8], false, 10, &[], false, 99),
            (&[8], true, 10, &[], true, 99),
        ];
        for (positions, cut_short, limit, shown, limited, start) in cases {
            let rows: Vec<EventRow> = positions.iter().map(|p| event(*p, "m", None)).collect();
            let found = timeline(&rows, *cut_short, *limit, Position(99), true, |e| {
                e.position % 2 == 1
            });
            let events: Vec<i64> = found.events.iter().map(|e| e.position).collect();
            assert_eq!(
                (&events[..], found.limited, found.start.0),
                (*shown, *limited, *start),
                "{positions:?} {cut_short} {limit}"
            );
        }
    }

    #[test]
    fn unwanted_state_events_of_a_timeline_are_listed() {
        let topic = |position| event(position, "m.room.topic", Some(""));
        let name = |position| event(position, "m.room.name", Some(""));
        let message = |position| event(position, "m.room.message", None);
        let rows = [message(9), topic(8), message(7), name(6), message(5)];
        let found = timeline(&rows, false, 10, Position(99), true, |e| {
            e.state_key.is_none()
        });
        let left_out: Vec<i64> = found.left_out.iter().map(|e| e.position).collect();
        assert_eq!(
            (left_out, found.start.0, found.limited),
            (vec![8, 6], 4, false)
        );
        // State events before the start are not listed.
        let found = timeline(&rows, false, 1, Position(99), true, |e| {
            e.state_key.is_none()
        });
        assert_eq!(
            (found.left_out.len(), found.start.0, found.limited),
            (0, 8, true)
        );
        // The topic at 6 would replace the newer, unwanted one at 8, so the timeline starts after it.
        let rows = [message(9), topic(8), message(7), topic(6), message(5)];
        let found = timeline(&rows, false, 10, Position(99), true, |e| e.position != 8);
        let shown: Vec<i64> = found.events.iter().map(|e| e.position).collect();
        assert_eq!((shown, found.start.0, found.limited), (vec![7, 9], 6, true));
        let found = timeline(&rows, false, 10, Position(99), false, |e| e.position != 8);
        assert_eq!(
            (found.events.len(), found.start.0, found.limited),
            (4, 4, false)
        );
        let found = timeline(&rows, false, 10, Position(99), true, |e| e.position != 6);
        assert_eq!((found.events.len(), found.left_out.len()), (4, 1));
    }

    #[test]
    fn the_latest_event_of_each_key_is_the_state() {
        let events = [
            event(1, "m.room.topic", Some("")),
            event(2, "m.room.member", Some("@a:test")),
            event(3, "m.room.message", None),
            event(4, "m.room.topic", Some("")),
            event(5, "m.room.member", Some("@b:test")),
        ];
        let expected = [2, 4, 5];
        for order in [&[0, 1, 2, 3, 4], &[4, 3, 2, 1, 0]] {
            let latest = latest_state(order.iter().map(|i| &events[*i]));
            let latest: Vec<i64> = latest.iter().map(|e| e.position).collect();
            assert_eq!(latest, expected);
        }
    }

    /// Clause: cs.lists.changed, cs.lists.left
    #[test]
    fn device_lists_follow_the_net_change() {
        let changes = |keys, met, parted| UserChanges {
            keys,
            own_view: false,
            met,
            parted,
        };
        let cases = [
            (
                changes(true, false, false),
                true,
                Some(DeviceListChange::Changed),
            ),
            (changes(true, false, false), false, None),
            (
                changes(false, true, false),
                true,
                Some(DeviceListChange::Changed),
            ),
            // They shared a room for a while between the two requests.
            (changes(false, true, false), false, None),
            (
                changes(false, false, true),
                false,
                Some(DeviceListChange::Left),
            ),
            // They still share another room.
            (changes(false, false, true), true, None),
            (
                changes(true, false, true),
                false,
                Some(DeviceListChange::Left),
            ),
            (
                changes(false, true, true),
                true,
                Some(DeviceListChange::Changed),
            ),
            (changes(false, false, false), true, None),
        ];
        for (changes, share, expected) in cases {
            assert_eq!(
                device_list_change(changes, share),
                expected,
                "{changes:?} {share}"
            );
        }
    }

    #[test]
    fn joined_and_invited_users_share_a_room() {
        let cases = [
            (Some("join"), true),
            (Some("invite"), true),
            (Some("knock"), false),
            (Some("leave"), false),
            (Some("ban"), false),
            (None, false),
        ];
        for (membership, expected) in cases {
            assert_eq!(is_present(membership), expected, "{membership:?}");
        }
    }
}
