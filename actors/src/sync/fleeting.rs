//! What is never written down: who is typing and who is online.
//!
//! A change takes a position all the same, in a write that stores nothing else: so the tokens of clients order it like everything
//! else, and no answer needs a memory of what each client was told. The memory is changed inside that write, before its commit:
//! who sees the position sees the change. A restart forgets all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use schema::Position;

use super::online::Online;
use super::queries::unread::Memory;

/// How many rooms and users are remembered before those of which there is nothing to say are forgotten.
const LIMIT: usize = 4096;

/// A user's presence. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#presence
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// `online`, `unavailable` or `offline`.
    pub state: String,
    /// What the user says about it.
    pub message: Option<String>,
    /// When it was set, by [`Clock::monotonic`](crate::Clock::monotonic): only how long ago that was is ever said.
    pub since: i64,
}

/// Something and where in the order it changed last.
#[derive(Debug, Clone)]
struct Changed<T> {
    at: Position,
    now: T,
}

/// Things by name, and the names in the order of their last change.
#[derive(Debug)]
struct Ordered<T> {
    by_name: BTreeMap<String, Changed<T>>,
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
    /// Go back to what was known of a name before: the write that changed it was rolled back.
    fn restore(&mut self, name: &str, before: Option<Changed<T>>) {
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
        let old = self.by_name.insert(name.to_owned(), Changed { at, now });
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

/// Who is typing and who is online.
#[derive(Debug, Default)]
pub struct Fleeting {
    inner: Mutex<Inner>,
    unread: Memory,
    online: Online,
}

impl Fleeting {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing is left half done by a panic: each change is one assignment.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was counted lately for clients.
    pub(super) fn unread(&self) -> &Memory {
        &self.unread
    }

    /// Which users are online because they sync.
    pub(super) fn online(&self) -> &Online {
        &self.online
    }

    /// The user is typing in a room until a time, or is not. A position is taken only if that is news; then it is returned.
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

    /// How to undo the next change of who is typing in a room.
    pub(super) fn undo_typing(&self, room: &str) -> impl FnOnce(&Fleeting) + Send + 'static {
        let (room, before) = (
            room.to_owned(),
            self.inner().typing.by_name.get(room).cloned(),
        );
        move |fleeting| fleeting.inner().typing.restore(&room, before)
    }

    /// How to undo the next change of a user's presence.
    pub(super) fn undo_presence(&self, user: &str) -> impl FnOnce(&Fleeting) + Send + 'static {
        let (user, before) = (
            user.to_owned(),
            self.inner().presence.by_name.get(user).cloned(),
        );
        move |fleeting| fleeting.inner().presence.restore(&user, before)
    }

    /// Whether the user's typing in a room has ended by now without a word.
    pub(super) fn has_typing_ended(&self, room: &str, user: &str, now: i64) -> bool {
        let inner = self.inner();
        inner
            .typing
            .get(room)
            .and_then(|users| users.get(user))
            .is_some_and(|until| *until <= now)
    }

    /// Who is typing in a room, in order.
    #[must_use]
    pub fn typing(&self, room: &str) -> Vec<String> {
        let inner = self.inner();
        inner
            .typing
            .get(room)
            .map(|users| users.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// The rooms in which somebody began or ceased to type after a position and up to another, in that order.
    #[must_use]
    pub fn rooms_with_typing(&self, after: Position, up_to: Position) -> Vec<String> {
        self.inner().typing.changed(after, up_to)
    }

    /// The user is online, or is not. Whether that is news; only then a position is taken.
    pub(super) fn set_presence(
        &self,
        user: &str,
        presence: Presence,
        take: impl FnOnce() -> Position,
    ) -> bool {
        let mut inner = self.inner();
        let is_news = match inner.presence.get_mut(user) {
            Some(known)
                if (&known.state, &known.message) == (&presence.state, &presence.message) =>
            {
                known.since = presence.since;
                false
            }
            Some(_) => true,
            None => true,
        };
        if is_news {
            let at = take();
            inner
                .presence
                .put(user, at, presence, |p| p.state != "offline");
        }
        is_news
    }

    /// A user's presence; `None` when the user never said.
    #[must_use]
    pub fn presence(&self, user: &str) -> Option<Presence> {
        self.inner().presence.get(user).cloned()
    }

    /// The users whose presence changed after a position and up to another, in that order.
    #[must_use]
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
    fn only_a_change_of_who_is_typing_takes_a_position() {
        let fleeting = Fleeting::default();
        let untaken = || -> Position { panic!("no position is taken") };
        assert_eq!(fleeting.set_typing("!r", "@a", None, untaken), None);
        assert_eq!(
            fleeting.set_typing("!r", "@a", Some(10), at(1)),
            Some(Position(1))
        );
        assert_eq!(fleeting.set_typing("!r", "@a", Some(20), untaken), None);
        assert_eq!(
            fleeting.set_typing("!r", "@b", Some(20), at(2)),
            Some(Position(2))
        );
        assert_eq!(fleeting.typing("!r"), ["@a", "@b"]);
        assert!(
            !fleeting.has_typing_ended("!r", "@a", 19),
            "it was said again"
        );
        assert!(fleeting.has_typing_ended("!r", "@a", 20));
        assert_eq!(
            fleeting.rooms_with_typing(Position(0), Position(1)),
            [""; 0]
        );
        assert_eq!(fleeting.rooms_with_typing(Position(1), Position(2)), ["!r"]);
        assert_eq!(
            fleeting.set_typing("!r", "@a", None, at(3)),
            Some(Position(3))
        );
        assert_eq!(
            fleeting.set_typing("!r", "@b", None, at(4)),
            Some(Position(4))
        );
        assert_eq!(fleeting.rooms_with_typing(Position(3), Position(9)), ["!r"]);
        assert!(fleeting.typing("!r").is_empty());
    }

    #[test]
    fn what_there_is_nothing_to_say_of_is_forgotten_in_the_end() {
        let fleeting = Fleeting::default();
        for i in 0..=LIMIT {
            let room = format!("!{i}");
            let p = i as i64 * 2;
            fleeting.set_typing(&room, "@a", Some(10), at(p));
            if i != 7 {
                fleeting.set_typing(&room, "@a", None, at(p + 1));
            }
        }
        let kept = fleeting.rooms_with_typing(Position(-1), Position(i64::MAX));
        assert_eq!(kept, ["!7", &format!("!{LIMIT}")]);
    }

    #[test]
    fn presence_said_again_is_no_news() {
        let fleeting = Fleeting::default();
        let online = |since| Presence {
            state: "online".to_owned(),
            message: None,
            since,
        };
        assert!(fleeting.set_presence("@a", online(1), at(5)));
        assert!(!fleeting.set_presence("@a", online(2), at(6)));
        assert_eq!(fleeting.presence("@a"), Some(online(2)));
        assert_eq!(
            fleeting.users_with_presence(Position(4), Position(9)),
            ["@a"]
        );
        assert!(
            fleeting
                .users_with_presence(Position(5), Position(9))
                .is_empty()
        );
    }
}
