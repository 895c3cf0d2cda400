//! The `/sync` filter of a client, as far as it is supported.

use std::sync::Arc;

use ruma::api::client::filter::{self, FilterDefinition, RoomEventFilter};
use schema::events::EventRow;

use crate::rooms::rules::filter::{lets_pass, matches};
use crate::{Refusal, Result};

/// The default number of timeline events of a room. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#syncing
const TIMELINE: usize = 10;

/// The largest number of timeline events of a room.
const MOST: usize = 100;

/// A client's filter. ([spec])
///
/// Deviation: `event_fields`, `event_format` and `lazy_load_members` are accepted and ignored: more is sent than was asked for,
/// which the specification allows for the last of them.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#filtering
#[derive(Debug, Clone, Default)]
pub struct Filter {
    known: FilterDefinition,
    /// The filter as the client wrote it; `None` for no filter.
    text: Option<Arc<str>>,
}

impl Filter {
    /// Parse a filter from JSON.
    ///
    /// # Errors
    /// [`Refusal::InvalidParam`] for an invalid filter.
    pub fn parse(json: &str) -> Result<Filter> {
        let known = serde_json::from_str(json);
        let text = Some(json.into());
        known.map(|known| Filter { known, text }).map_err(|e| {
            let why = format!(
                "the filter cannot be read: {}",
                e.to_string().replace('\n', " ")
            );
            Refusal::InvalidParam(why.into()).into()
        })
    }

    /// The filter with the keys that this server does not know; `{}` for no filter.
    pub(crate) fn text(&self) -> &str {
        self.text.as_deref().unwrap_or("{}")
    }

    /// Whether an initial sync includes rooms that the user has left.
    pub fn includes_left(&self) -> bool {
        self.known.room.include_leave
    }

    /// The most timeline events of a room.
    pub fn timeline_limit(&self) -> usize {
        self.known
            .room
            .timeline
            .limit
            .and_then(|limit| usize::try_from(limit).ok())
            .map_or(TIMELINE, |limit| limit.min(MOST))
    }

    /// Whether this room is wanted.
    pub fn wants_room(&self, room_id: &str) -> bool {
        let room = &self.known.room;
        listed(room.rooms.as_deref(), &room.not_rooms, |r| {
            r.as_str() == room_id
        })
    }

    /// Whether unread counts are wanted for each thread.
    pub fn wants_thread_counts(&self) -> bool {
        self.known.room.timeline.unread_thread_notifications
    }

    /// Whether every event of a room's timeline is wanted.
    pub fn wants_whole_timeline(&self) -> bool {
        let f = &self.known.room.timeline;
        f.types.is_none()
            && f.not_types.is_empty()
            && f.senders.is_none()
            && f.not_senders.is_empty()
            && f.rooms.is_none()
            && f.not_rooms.is_empty()
            && f.url_filter.is_none()
    }

    /// Whether this event is wanted in a timeline.
    pub fn wants_event(&self, event: &EventRow) -> bool {
        lets_pass(&self.known.room.timeline, event)
    }

    /// Whether this event is wanted as state.
    pub fn wants_state(&self, event: &EventRow) -> bool {
        lets_pass(&self.known.room.state, event)
    }

    /// Whether typing or receipts of a room are wanted.
    pub fn wants_ephemeral(&self, room_id: &str, kind: &str) -> bool {
        wants(&self.known.room.ephemeral, room_id, kind)
    }

    /// Whether this account data is wanted; `room_id` is empty for global data.
    pub fn wants_account_data(&self, room_id: &str, kind: &str) -> bool {
        if room_id.is_empty() {
            wants_global(&self.known.account_data, kind, None)
        } else {
            wants(&self.known.room.account_data, room_id, kind)
        }
    }

    /// Whether this user's presence is wanted.
    pub fn wants_presence(&self, user_id: &str) -> bool {
        wants_global(&self.known.presence, "m.presence", Some(user_id))
    }
}

fn wants(f: &RoomEventFilter, room_id: &str, kind: &str) -> bool {
    listed(f.rooms.as_deref(), &f.not_rooms, |r| r.as_str() == room_id)
        && listed(f.types.as_deref(), &f.not_types, |t| matches(t, kind))
}

fn wants_global(f: &filter::Filter, kind: &str, sender: Option<&str>) -> bool {
    listed(f.types.as_deref(), &f.not_types, |t| matches(t, kind))
        && sender.is_none_or(|sender| {
            listed(f.senders.as_deref(), &f.not_senders, |s| {
                s.as_str() == sender
            })
        })
}

/// Whether an item is in the first list, if there is one, and not in the second.
fn listed<T>(only: Option<&[T]>, not: &[T], is: impl Fn(&T) -> bool) -> bool {
    only.is_none_or(|only| only.iter().any(&is)) && !not.iter().any(&is)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, sender: &str) -> EventRow {
        EventRow {
            position: 1,
            event_id: "$1".to_owned(),
            room_id: "!a:test".to_owned(),
            kind: kind.to_owned(),
            state_key: None,
            sender: sender.to_owned(),
            origin_server_ts: 0,
            pdu: r#"{"content":{}}"#.to_owned(),
            replaces: None,
            redacted_by: None,
            device_id: None,
            txn_id: None,
        }
    }

    #[test]
    fn a_filter_selects_rooms_events_and_data() {
        let filter = Filter::parse(
            r#"{"room": {"rooms": ["!a:test", "!b:test"], "not_rooms": ["!b:test"],
                "timeline": {"limit": 1000, "types": ["m.room.*"], "not_types": ["m.room.topic"], "not_senders": ["@spam:test"]},
                "state": {"types": []}, "ephemeral": {"not_types": ["*"]},
                "account_data": {"types": ["m.tag"]}},
                "account_data": {"not_types": ["m.push_rules"]}, "presence": {"types": []}}"#,
        )
        .expect("a filter");
        assert!(filter.wants_room("!a:test"));
        assert!(
            !filter.wants_room("!b:test"),
            "what is in both lists is out"
        );
        assert!(!filter.wants_room("!c:test"));
        assert_eq!(filter.timeline_limit(), MOST);
        assert!(!filter.wants_whole_timeline());
        assert!(filter.wants_event(&event("m.room.message", "@a:test")));
        assert!(!filter.wants_event(&event("m.room.topic", "@a:test")));
        assert!(!filter.wants_event(&event("m.room.message", "@spam:test")));
        assert!(!filter.wants_event(&event("m.reaction", "@a:test")));
        assert!(!filter.wants_state(&event("m.room.name", "@a:test")));
        assert!(!filter.wants_ephemeral("!a:test", "m.typing"));
        assert!(filter.wants_account_data("!a:test", "m.tag"));
        assert!(!filter.wants_account_data("!a:test", "m.fully_read"));
        assert!(filter.wants_account_data("", "m.direct"));
        assert!(!filter.wants_account_data("", "m.push_rules"));
        assert!(!filter.wants_presence("@a:test"));
    }

    #[test]
    fn no_filter_wants_everything_but_left_rooms() {
        let filter = Filter::parse("{}").expect("a filter");
        assert!(filter.wants_room("!a:test") && filter.wants_whole_timeline());
        assert!(!filter.includes_left());
        assert_eq!(filter.timeline_limit(), TIMELINE);
        assert!(Filter::parse("[]").is_err() && Filter::parse("{").is_err());
    }
}
