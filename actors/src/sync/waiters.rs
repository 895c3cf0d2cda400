//! Waiting requests, indexed by user and room, so that a wake costs in proportion to the requests that it concerns.
//!
//! Memory is bounded in bytes. If a wake, or the rooms of a request, do not fit, requests are woken more often than necessary: they
//! gather again and find nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use schema::Position;
use tokio::sync::oneshot;

/// The most past wakes that are kept, for requests that begin to wait just after them.
const RECENT: usize = 256;

/// The most bytes of past wakes. A bot in 10,000 rooms fills half of this with one change of its keys.
const RECENT_BYTES: usize = 2 << 20;

/// The most bytes of the rooms of all waiting requests. Above it a request is woken by every room.
const ROOM_BYTES: usize = 32 << 20;

/// The bytes that an id takes in a tree besides its text: pointers, lengths, and its share of the nodes.
const ENTRY: usize = 64;

/// The users and rooms that a wake concerns.
#[derive(Debug, Clone, Default)]
struct WakeSubjects {
    users: BTreeSet<String>,
    rooms: BTreeSet<String>,
}

impl WakeSubjects {
    fn concern(&self, user: &str, rooms: &[String]) -> bool {
        self.users.contains(user) || rooms.iter().any(|room| self.rooms.contains(room))
    }

    fn size(&self) -> usize {
        let ids = self.users.iter().chain(&self.rooms);
        ENTRY + ids.map(|id| id.len() + ENTRY).sum::<usize>()
    }
}

/// The rooms of a waiting request.
enum WaitedRooms {
    /// These rooms. Requests in the same room share the text of its id.
    These(Vec<Arc<str>>),
    /// There are too many rooms to store: a wake of any room wakes the request.
    Any,
}

struct Waiter<T> {
    user: String,
    rooms: WaitedRooms,
    wake: oneshot::Sender<T>,
}

/// The waiting requests. `T` is the value sent to a woken request.
pub(super) struct Waiters<T> {
    next: u64,
    waiting: BTreeMap<u64, Waiter<T>>,
    by_user: BTreeMap<String, BTreeSet<u64>>,
    by_room: BTreeMap<Arc<str>, BTreeSet<u64>>,
    /// The requests that any room wakes.
    by_any_room: BTreeSet<u64>,
    /// The estimated bytes of `by_room` and of the rooms of the requests.
    room_bytes: usize,
    /// The last wakes, each with the last committed position at its time. A wake is about changes up to that position.
    recent: VecDeque<(Position, WakeSubjects)>,
    recent_bytes: usize,
    /// The last committed position at the time of the newest wake that was dropped.
    forgotten: Position,
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Waiters {
            next: 0,
            waiting: BTreeMap::new(),
            by_user: BTreeMap::new(),
            by_room: BTreeMap::new(),
            by_any_room: BTreeSet::new(),
            room_bytes: 0,
            recent: VecDeque::new(),
            recent_bytes: 0,
            forgotten: Position::START,
        }
    }
}

impl<T> Waiters<T> {
    /// Whether a request that has gathered up to `seen` may have missed a wake that concerns it.
    pub(super) fn has_missed(&self, user: &str, rooms: &[String], seen: Position) -> bool {
        // Heads only grow, so stop at the first wake at or below `seen`.
        seen < self.forgotten
            || self
                .recent
                .iter()
                .rev()
                .take_while(|(head, _)| *head > seen)
                .any(|(_, subjects)| subjects.concern(user, rooms))
    }

    /// Add a request. The id is valid until it is woken or removed.
    pub(super) fn add(
        &mut self,
        user: String,
        rooms: Vec<String>,
        wake: oneshot::Sender<T>,
    ) -> u64 {
        self.next += 1;
        let id = self.next;
        self.by_user.entry(user.clone()).or_default().insert(id);
        let rooms = self.list_rooms(id, rooms);
        self.waiting.insert(id, Waiter { user, rooms, wake });
        id
    }

    fn list_rooms(&mut self, id: u64, rooms: Vec<String>) -> WaitedRooms {
        // Count each room in full, also if other requests wait in it: an upper bound without lookups.
        let bytes: usize = rooms.iter().map(|room| room_size(room)).sum();
        if self.room_bytes + bytes > ROOM_BYTES {
            self.by_any_room.insert(id);
            return WaitedRooms::Any;
        }
        self.room_bytes += bytes;
        let mut listed = Vec::with_capacity(rooms.len());
        for room in rooms {
            let known = self.by_room.get_key_value(room.as_str());
            let room = known.map_or_else(|| Arc::from(room), |(known, _)| Arc::clone(known));
            let ids = self.by_room.entry(Arc::clone(&room)).or_default();
            ids.insert(id);
            listed.push(room);
        }
        WaitedRooms::These(listed)
    }

    /// Remove a request.
    pub(super) fn remove(&mut self, id: u64) {
        drop(self.take(id));
    }

    fn take(&mut self, id: u64) -> Option<oneshot::Sender<T>> {
        let waiter = self.waiting.remove(&id)?;
        unlist(&mut self.by_user, &waiter.user, id);
        match waiter.rooms {
            WaitedRooms::Any => {
                self.by_any_room.remove(&id);
            }
            WaitedRooms::These(rooms) => {
                for room in &rooms {
                    self.room_bytes -= room_size(room);
                    unlist(&mut self.by_room, room, id);
                }
            }
        }
        Some(waiter.wake)
    }

    /// Remove and return the requests that a wake concerns, and keep the wake for requests that come just after it.
    pub(super) fn woken<'a>(
        &mut self,
        users: impl Iterator<Item = &'a str>,
        rooms: impl Iterator<Item = &'a str>,
        head: Position,
    ) -> Vec<oneshot::Sender<T>> {
        let subjects = WakeSubjects {
            users: users.map(str::to_owned).collect(),
            rooms: rooms.map(str::to_owned).collect(),
        };
        let mut found: BTreeSet<u64> = BTreeSet::new();
        for user in &subjects.users {
            found.extend(self.by_user.get(user).into_iter().flatten());
        }
        for room in &subjects.rooms {
            found.extend(self.by_room.get(room.as_str()).into_iter().flatten());
        }
        if !subjects.rooms.is_empty() {
            found.extend(&self.by_any_room);
        }
        self.remember(head, subjects);
        found.into_iter().filter_map(|id| self.take(id)).collect()
    }

    /// Keep a wake. The oldest ones are dropped above the limits, and this one too if it is larger than them: then every request
    /// that has gathered up to less than its head gathers again.
    fn remember(&mut self, head: Position, subjects: WakeSubjects) {
        self.recent_bytes += subjects.size();
        self.recent.push_back((head, subjects));
        while (self.recent.len() > RECENT || self.recent_bytes > RECENT_BYTES)
            && let Some((head, subjects)) = self.recent.pop_front()
        {
            self.recent_bytes -= subjects.size();
            self.forgotten = head;
        }
    }

    /// The number of waiting requests.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

fn room_size(room: &str) -> usize {
    room.len() + 2 * ENTRY
}

fn unlist<K: Ord + std::borrow::Borrow<str>>(
    index: &mut BTreeMap<K, BTreeSet<u64>>,
    key: &str,
    id: u64,
) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small random generator with a seed, so that a failing schedule can be repeated.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (self.0 >> 33) % sides
        }

        fn names(&mut self, kind: char, most: u64) -> Vec<String> {
            (0..self.roll(most + 1))
                .map(|_| format!("{kind}{}", self.roll(6)))
                .collect()
        }
    }

    /// The index wakes exactly the requests that a linear search would find, whatever the schedule.
    #[test]
    fn the_index_agrees_with_a_linear_search() {
        for seed in 0..200 {
            let mut dice = Dice(seed);
            let mut waiters = Waiters::<()>::default();
            let mut twin: BTreeMap<u64, (String, Vec<String>, oneshot::Receiver<()>)> =
                BTreeMap::new();
            for step in 0..60 {
                match dice.roll(4) {
                    0 | 1 => {
                        let user = format!("u{}", dice.roll(6));
                        let rooms = dice.names('r', 4);
                        let (wake, woken) = oneshot::channel();
                        let id = waiters.add(user.clone(), rooms.clone(), wake);
                        twin.insert(id, (user, rooms, woken));
                    }
                    2 => {
                        if let Some(id) = twin.keys().nth(dice.roll(8) as usize).copied() {
                            waiters.remove(id);
                            twin.remove(&id);
                        }
                    }
                    _ => {
                        let (users, rooms) = (dice.names('u', 2), dice.names('r', 2));
                        let senders = waiters.woken(
                            users.iter().map(String::as_str),
                            rooms.iter().map(String::as_str),
                            Position(step),
                        );
                        for sender in senders {
                            sender.send(()).expect("a woken request waits");
                        }
                        twin.retain(|_, (user, theirs, woken)| {
                            let expected =
                                users.contains(user) || theirs.iter().any(|r| rooms.contains(r));
                            assert_eq!(
                                woken.try_recv().is_ok(),
                                expected,
                                "seed {seed} step {step}"
                            );
                            !expected
                        });
                    }
                }
                assert_eq!(waiters.len(), twin.len());
            }
            for id in twin.into_keys() {
                waiters.remove(id);
            }
            assert!(waiters.by_user.is_empty() && waiters.by_room.is_empty());
            assert_eq!(waiters.room_bytes, 0);
        }
    }

    fn rooms_of_a_bot() -> Vec<String> {
        (0..10_000)
            .map(|n| format!("!{n:026}:example.org"))
            .collect()
    }

    #[test]
    fn a_bot_in_many_rooms_is_remembered_in_bounded_memory() {
        let (mut waiters, rooms) = (Waiters::<()>::default(), rooms_of_a_bot());
        let none = || std::iter::empty::<&str>();
        for head in 1..=256 {
            waiters.woken(none(), rooms.iter().map(String::as_str), Position(head));
            assert!(waiters.recent_bytes <= RECENT_BYTES, "{head}");
        }
        assert!(
            waiters.has_missed("u1", &[], Position(200)),
            "what was not remembered may have been for anybody"
        );
        assert!(waiters.has_missed("u1", &rooms[7..8], Position(255)));
        assert!(!waiters.has_missed("u1", &rooms, Position(256)));
        // One wake that is larger than the limit.
        let many: Vec<String> = (0..4)
            .flat_map(|n| rooms.iter().map(move |r| format!("{n}{r}")))
            .collect();
        waiters.woken(none(), many.iter().map(String::as_str), Position(257));
        assert_eq!(waiters.recent_bytes, 0);
        assert!(waiters.has_missed("u1", &[], Position(256)));
        assert!(!waiters.has_missed("u1", &[], Position(257)));
    }

    #[test]
    fn requests_of_bots_in_many_rooms_wait_in_bounded_memory_and_miss_nothing() {
        let (mut waiters, rooms) = (Waiters::<()>::default(), rooms_of_a_bot());
        let mut waiting = Vec::new();
        for n in 0..30 {
            let (wake, woken) = oneshot::channel();
            let id = waiters.add(format!("bot{n}"), rooms.clone(), wake);
            waiting.push((id, woken));
            assert!(waiters.room_bytes <= ROOM_BYTES);
        }
        assert!(!waiters.by_any_room.is_empty(), "some are beyond the bound");
        let one = rooms[9_999..].iter().map(String::as_str);
        let senders = waiters.woken(std::iter::empty(), one, Position(1));
        assert_eq!(senders.len(), 30, "all are woken, remembered or not");
        for (id, _) in waiting {
            waiters.remove(id);
        }
        assert_eq!((waiters.room_bytes, waiters.by_any_room.len()), (0, 0));
    }

    #[test]
    fn a_wake_just_before_the_wait_is_not_missed() {
        let mut waiters = Waiters::<()>::default();
        let none = || std::iter::empty::<&str>();
        waiters.woken(["u1"].into_iter(), none(), Position(5));
        waiters.woken(none(), ["r1"].into_iter(), Position(8));
        let rooms = ["r1".to_owned()];
        let cases = [
            ("u1", &[][..], 4, true),
            ("u1", &[][..], 5, false),
            ("u2", &rooms[..], 7, true),
            ("u2", &rooms[..], 8, false),
            ("u2", &[][..], 0, false),
        ];
        for (user, rooms, seen, expected) in cases {
            assert_eq!(
                waiters.has_missed(user, rooms, Position(seen)),
                expected,
                "{user} {seen}"
            );
        }
        for head in 9..9 + RECENT as i64 {
            waiters.woken(none(), ["r2"].into_iter(), Position(head));
        }
        assert!(
            waiters.has_missed("u2", &[], Position(7)),
            "what is forgotten may have been for anybody"
        );
        assert!(!waiters.has_missed("u2", &[], Position(8)));
    }
}
