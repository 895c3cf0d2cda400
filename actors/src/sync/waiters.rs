//! Who waits for news, found by what the news are about: the cost of a wake is that of those it concerns.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use schema::Position;
use tokio::sync::oneshot;

/// How many past wakes are remembered for those who begin to wait just after them.
const RECENT: usize = 256;

/// What a wake speaks of: ids of users and rooms.
#[derive(Debug, Clone, Default)]
struct News {
    users: BTreeSet<String>,
    rooms: BTreeSet<String>,
}

impl News {
    fn concern(&self, user: &str, rooms: &[String]) -> bool {
        self.users.contains(user) || rooms.iter().any(|room| self.rooms.contains(room))
    }
}

struct Waiter<T> {
    user: String,
    rooms: Vec<String>,
    wake: oneshot::Sender<T>,
}

/// Those who wait, by user and by room. `T` is what they are given when they are woken.
pub(super) struct Waiters<T> {
    next: u64,
    waiting: BTreeMap<u64, Waiter<T>>,
    by_user: BTreeMap<String, BTreeSet<u64>>,
    by_room: BTreeMap<String, BTreeSet<u64>>,
    /// The last wakes, each with the head at the time: what it spoke of is not above that.
    recent: VecDeque<(Position, News)>,
    /// The head at the last wake that is no longer remembered.
    forgotten: Position,
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Waiters {
            next: 0,
            waiting: BTreeMap::new(),
            by_user: BTreeMap::new(),
            by_room: BTreeMap::new(),
            recent: VecDeque::new(),
            forgotten: Position::START,
        }
    }
}

impl<T> Waiters<T> {
    /// Whether someone who has seen everything up to `seen` may have missed a wake that was for them.
    pub(super) fn has_missed(&self, user: &str, rooms: &[String], seen: Position) -> bool {
        // Heads only grow, so the first that was seen ends the search.
        seen < self.forgotten
            || self
                .recent
                .iter()
                .rev()
                .take_while(|(head, _)| *head > seen)
                .any(|(_, news)| news.concern(user, rooms))
    }

    /// Someone waits. The number is theirs until they are woken or give up.
    pub(super) fn add(
        &mut self,
        user: String,
        rooms: Vec<String>,
        wake: oneshot::Sender<T>,
    ) -> u64 {
        self.next += 1;
        let id = self.next;
        self.by_user.entry(user.clone()).or_default().insert(id);
        for room in &rooms {
            self.by_room.entry(room.clone()).or_default().insert(id);
        }
        self.waiting.insert(id, Waiter { user, rooms, wake });
        id
    }

    /// Someone waits no longer.
    pub(super) fn remove(&mut self, id: u64) {
        drop(self.take(id));
    }

    fn take(&mut self, id: u64) -> Option<oneshot::Sender<T>> {
        let waiter = self.waiting.remove(&id)?;
        unlist(&mut self.by_user, &waiter.user, id);
        for room in &waiter.rooms {
            unlist(&mut self.by_room, room, id);
        }
        Some(waiter.wake)
    }

    /// Take out everybody whom these news concern, and remember them for those who come too late. `head` is the present one.
    pub(super) fn woken<'a>(
        &mut self,
        users: impl Iterator<Item = &'a str>,
        rooms: impl Iterator<Item = &'a str>,
        head: Position,
    ) -> Vec<oneshot::Sender<T>> {
        let news = News {
            users: users.map(str::to_owned).collect(),
            rooms: rooms.map(str::to_owned).collect(),
        };
        let mut found: BTreeSet<u64> = BTreeSet::new();
        for user in &news.users {
            found.extend(self.by_user.get(user).into_iter().flatten());
        }
        for room in &news.rooms {
            found.extend(self.by_room.get(room).into_iter().flatten());
        }
        self.recent.push_back((head, news));
        if self.recent.len() > RECENT
            && let Some((head, _)) = self.recent.pop_front()
        {
            self.forgotten = head;
        }
        found.into_iter().filter_map(|id| self.take(id)).collect()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

fn unlist(index: &mut BTreeMap<String, BTreeSet<u64>>, key: &str, id: u64) {
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

    /// A small generator, so that a failing schedule can be run again.
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

    /// The index wakes exactly whom a search through everybody would find, whatever comes in which order.
    #[test]
    fn the_index_agrees_with_a_search_through_everybody() {
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
                            sender.send(()).expect("whoever is woken waits");
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
        }
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
