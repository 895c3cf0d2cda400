//! State that is only in memory: typing and presence.
//!
//! A change of typing or presence gets a position like every stored change, in a write that stores nothing else. So a client's
//! token says which of these changes the client has received, and the server need not record that. The memory is changed inside
//! that write, before its commit, so that a reader that sees the position sees the change. A restart loses all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use schema::Position;

use super::online::Online;
use super::queries::unread::UnreadCache;

/// The number of rooms, and of users, above which those without typing users, or offline, are dropped.
const LIMIT: usize = 4096;

/// A user's presence. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#presence
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// `online`, `unavailable` or `offline`.
    pub state: String,
    /// The status message.
    pub message: Option<String>,
    /// When it was set, by [`Clock::monotonic`](crate::Clock::monotonic): only the time since then is sent.
    pub since: i64,
}

/// A value, with the position of its last change.
#[derive(Debug, Clone)]
struct LastChange<T> {
    at: Position,
    now: T,
}

/// Values by name, and the names in the order of their last change.
#[derive(Debug)]
struct Ordered<T> {
    by_name: BTreeMap<String, LastChange<T>>,
    order: BTreeSet<(Position, String)>,
}

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Ordered {
            by_name: BTreeMap::new(),
            order: BTreeSet::new(),
        }
    }
}

impl<T: Clone> Ordered<T> {
    /// Restore the earlier value of a name, after the write that changed it was rolled back.
    fn restore(&mut self, name: &str, before: Option<LastChange<T>>) {
        if let Some(undone) = self.by_name.remove(name) {
            self.order.remove(&(undone.at, name.to_owned()));
        }
        if let Some(before) = before {
            self.order.insert((before.at, name.to_owned()));
            self.by_name.insert(name.to_owned(), before);
        }
    }

    fn get(&self, name: &str) -> Option<&T> {
        self.by_name.get(name).map(|changed| &changed.now)
    }

    fn get_mut(&mut self, name: &str) -> Option<&mut T> {
        self.by_name.get_mut(name).map(|changed| &mut changed.now)
    }

    fn put(&mut self, name: &str, at: Position, now: T, is_worth_keeping: impl Fn(&T) -> bool) {
        let old = self.by_name.insert(name.to_owned(), LastChange { at, now });
        if let Some(old) = old {
            self.order.remove(&(old.at, name.to_owned()));
        }
        self.order.insert((at, name.to_owned()));
        if self.by_name.len() > LIMIT {
            self.by_name
                .retain(|_, changed| is_worth_keeping(&changed.now));
            let kept = &self.by_name;
            self.order.retain(|(_, name)| kept.contains_key(name));
        }
    }

    fn changed(&self, after: Position, up_to: Position) -> Vec<String> {
        let first = (Position(after.0.saturating_add(1)), String::new());
        self.order
            .range(first..)
            .take_while(|(at, _)| *at <= up_to)
            .map(|(_, name)| name.clone())
            .collect()
    }
}

#[derive(Debug, Default)]
struct Inner {
    /// room → user → when the typing ends, by [`Clock::monotonic`](crate::Clock::monotonic).
    typing: Ordered<BTreeMap<String, i64>>,
    presence: Ordered<Presence>,
}

/// The users that are typing, and the presence of users.
#[derive(Debug, Default)]
pub struct VolatileState {
    inner: Mutex<Inner>,
    unread: UnreadCache,
    online: Online,
}

impl VolatileState {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic leaves nothing half done, since each change is one assignment.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cache of unread counts.
    pub(super) fn unread(&self) -> &UnreadCache {
        &self.unread
    }

    /// The users that have a request to `/sync` under way.
    pub(super) fn online(&self) -> &Online {
        &self.online
    }

    /// Set until when a user is typing in a room; `None` if the user is not typing. Only if the user began or stopped typing, the
    /// change gets a position, which is returned.
    pub(super) fn set_typing(
        &self,
        room: &str,
        user: &str,
        until: Option<i64>,
        take: impl FnOnce() -> Position,
    ) -> Option<Position> {
        let mut inner = self.inner();
        let known = inner
            .typing
            .get_mut(room)
            .and_then(|users| users.get_mut(user));
        match (known, until) {
            (None, None) => return None,
            (Some(known), Some(until)) => {
                *known = until;
                return None;
            }
            _ => {}
        }
        let mut users = inner.typing.get(room).cloned().unwrap_or_default();
        match until {
            Some(until) => users.insert(user.to_owned(), until),
            None => users.remove(user),
        };
        let at = take();
        inner.typing.put(room, at, users, |users| !users.is_empty());
        Some(at)
    }

    /// Returns a function that restores the current typing users of a room.
    pub(super) fn undo_typing(&self, room: &str) -> impl FnOnce(&VolatileState) + Send + 'static {
        let (room, before) = (
            room.to_owned(),
            self.inner().typing.by_name.get(room).cloned(),
        );
        move |volatile| volatile.inner().typing.restore(&room, before)
    }

    /// Returns a function that restores the current presence of a user.
    pub(super) fn undo_presence(&self, user: &str) -> impl FnOnce(&VolatileState) + Send + 'static {
        let (user, before) = (
            user.to_owned(),
            self.inner().presence.by_name.get(user).cloned(),
        );
        move |volatile| volatile.inner().presence.restore(&user, before)
    }

    /// Whether the user's typing in a room has expired.
    pub(super) fn has_typing_ended(&self, room: &str, user: &str, now: i64) -> bool {
        let inner = self.inner();
        inner
            .typing
            .get(room)
            .and_then(|users| users.get(user))
            .is_some_and(|until| *until <= now)
    }

    /// The ids of the users that are typing in a room, sorted.
    pub fn typing(&self, room: &str) -> Vec<String> {
        let inner = self.inner();
        inner
            .typing
            .get(room)
            .map(|users| users.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// The rooms in which a user began or stopped typing after `after` and up to `up_to`, in order of the last such change.
    pub fn rooms_with_typing(&self, after: Position, up_to: Position) -> Vec<String> {
        self.inner().typing.changed(after, up_to)
    }

    /// Set a user's presence. If that changes the presence, `take` is called once for the position of the change. Returns whether
    /// it changed.
    pub(super) fn set_presence(
        &self,
        user: &str,
        presence: Presence,
        take: impl FnOnce() -> Position,
    ) -> bool {
        let mut inner = self.inner();
        let is_changed = match inner.presence.get_mut(user) {
            Some(known)
                if (&known.state, &known.message) == (&presence.state, &presence.message) =>
            {
                known.since = presence.since;
                false
            }
            Some(_) => true,
            None => true,
        };
        if is_changed {
            let at = take();
            inner
                .presence
                .put(user, at, presence, |p| p.state != "offline");
        }
        is_changed
    }

    /// A user's presence; `None` if it was never set.
    pub fn presence(&self, user: &str) -> Option<Presence> {
        self.inner().presence.get(user).cloned()
    }

    /// The users whose presence changed after `after` and up to `up_to`, in that order.
    pub fn users_with_presence(&self, after: Position, up_to: Position) -> Vec<String> {
        self.inner().presence.changed(after, up_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(position: i64) -> impl FnOnce() -> Position {
        move || Position(position)
    }

    #[test]
    fn only_the_beginning_and_the_end_of_typing_take_a_position() {
        let volatile = VolatileState::default();
        let untaken = || -> Position { panic!("no position is taken") };
        assert_eq!(volatile.set_typing("!r", "@a", None, untaken), None);
        assert_eq!(
            volatile.set_typing("!r", "@a", Some(10), at(1)),
            Some(Position(1))
        );
        assert_eq!(volatile.set_typing("!r", "@a", Some(20), untaken), None);
        assert_eq!(
            volatile.set_typing("!r", "@b", Some(20), at(2)),
            Some(Position(2))
        );
        assert_eq!(volatile.typing("!r"), ["@a", "@b"]);
        assert!(
            !volatile.has_typing_ended("!r", "@a", 19),
            "it was said again"
        );
        assert!(volatile.has_typing_ended("!r", "@a", 20));
        assert_eq!(
            volatile.rooms_with_typing(Position(0), Position(1)),
            [""; 0]
        );
        assert_eq!(volatile.rooms_with_typing(Position(1), Position(2)), ["!r"]);
        assert_eq!(
            volatile.set_typing("!r", "@a", None, at(3)),
            Some(Position(3))
        );
        assert_eq!(
            volatile.set_typing("!r", "@b", None, at(4)),
            Some(Position(4))
        );
        assert_eq!(volatile.rooms_with_typing(Position(3), Position(9)), ["!r"]);
        assert!(volatile.typing("!r").is_empty());
    }

    #[test]
    fn rooms_without_typing_users_are_dropped_above_the_limit() {
        let volatile = VolatileState::default();
        for i in 0..=LIMIT {
            let room = format!("!{i}");
            let p = i as i64 * 2;
            volatile.set_typing(&room, "@a", Some(10), at(p));
            if i != 7 {
                volatile.set_typing(&room, "@a", None, at(p + 1));
            }
        }
        let kept = volatile.rooms_with_typing(Position(-1), Position(i64::MAX));
        assert_eq!(kept, ["!7", &format!("!{LIMIT}")]);
    }

    #[test]
    fn the_same_presence_again_is_no_change() {
        let volatile = VolatileState::default();
        let online = |since| Presence {
            state: "online".to_owned(),
            message: None,
            since,
        };
        assert!(volatile.set_presence("@a", online(1), at(5)));
        assert!(!volatile.set_presence("@a", online(2), at(6)));
        assert_eq!(volatile.presence("@a"), Some(online(2)));
        assert_eq!(
            volatile.users_with_presence(Position(4), Position(9)),
            ["@a"]
        );
        assert!(
            volatile
                .users_with_presence(Position(5), Position(9))
                .is_empty()
        );
    }
}
