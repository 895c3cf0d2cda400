//! What a user may see of a room's events and state. The only such decision in the server; pure.

use schema::Position;

/// The history visibility of a room: which users may see an event. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Visibility {
    /// Users that were joined at the event.
    Joined,
    /// Users that were joined or invited at the event.
    Invited,
    /// Users that were joined at the event or at any later time.
    Shared,
    /// All users.
    WorldReadable,
}

impl Visibility {
    /// Parse `history_visibility`; an unknown value counts as the default, `shared`.
    pub fn named(name: Option<&str>) -> Visibility {
        match name {
            Some("joined") => Visibility::Joined,
            Some("invited") => Visibility::Invited,
            Some("world_readable") => Visibility::WorldReadable,
            _ => Visibility::Shared,
        }
    }
}

/// A user's current relation to a room.
#[derive(Debug, Clone, Copy, Default)]
pub struct PresentAccess {
    /// Whether the user is joined.
    pub is_joined: bool,
    /// Where the user was last no longer joined; 0 for never.
    pub left_at: Position,
    /// Where the user last forgot the room; 0 for never.
    pub forgotten_at: Position,
    /// Whether the room is world-readable now.
    pub is_world_readable: bool,
}

/// The latest state of a room that a user may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateAccess {
    /// The current state.
    Now,
    /// The state when the user left.
    Until(Position),
}

impl PresentAccess {
    /// Whether the user forgot the room and has not joined it since; the user may then see nothing that needs a membership.
    /// ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidforget
    pub fn has_forgotten(&self) -> bool {
        !self.is_joined && self.forgotten_at > self.left_at
    }

    /// The latest state of the room that the user may see: the current state if the user is joined or the room is world-readable;
    /// after the user left, the state at that time. `None` for no state. ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstate
    pub fn state(&self) -> Option<StateAccess> {
        if self.is_joined || self.is_world_readable {
            Some(StateAccess::Now)
        } else if self.left_at > Position::START && !self.has_forgotten() {
            Some(StateAccess::Until(self.left_at))
        } else {
            None
        }
    }
}

/// What a user may see of a range of a room's history. **All code that shows events or past state decides with this and nothing
/// else.** It is computed from the changes of the room's history visibility and of the user's membership. The memberships begin
/// with the one in force before the range, the visibilities with the first of the room.
#[derive(Debug, Clone, Default)]
pub struct HistoryAccess {
    /// The history visibility from each position on, oldest first.
    pub rules: Vec<(Position, Visibility)>,
    /// The user's membership from each position on, oldest first.
    pub memberships: Vec<(Position, String)>,
    /// The range in which the lists are complete: after the first position, up to the second. Nothing outside is visible.
    pub known: (Position, Position),
    /// The user's current relation to the room.
    pub present: PresentAccess,
}

impl HistoryAccess {
    /// The user's membership at a position, after the event there; `leave` for none, which is what clients expect.
    pub fn membership(&self, at: Position) -> &str {
        self.last(at).unwrap_or("leave")
    }

    fn last(&self, at: Position) -> Option<&str> {
        let before = self.memberships.partition_point(|(p, _)| *p <= at);
        self.memberships[..before].last().map(|(_, m)| m.as_str())
    }

    fn rule(&self, at: Position) -> Visibility {
        let before = self.rules.partition_point(|(p, _)| *p <= at);
        self.rules[..before]
            .last()
            .map_or(Visibility::Shared, |(_, rule)| *rule)
    }

    /// Whether the user may see the event at a position: if it may see the state there, or the event is its own leave, declined
    /// invite, withdrawn knock or ban. ([spec]) Clause: cs.rooms.visibility
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-5
    pub fn sees(&self, at: Position) -> bool {
        self.is_own_end(at) || self.sees_state(at)
    }

    /// Whether the user may see the room's state as of the event at a position. ([spec])
    ///
    /// For an event that changes the history visibility or the user's own membership, the more permissive of before and after
    /// counts.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-5
    pub fn sees_state(&self, at: Position) -> bool {
        self.knows(at)
            && [at.before(), at].into_iter().any(|rule| {
                [at.before(), at]
                    .into_iter()
                    .any(|own| self.allows(self.rule(rule), own, at))
            })
    }

    /// Whether the user may see all state as of the event at a position: it was joined there, or the room was world-readable. Other
    /// users, also invited ones, see of that state only the events that they may see. ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-5
    pub fn sees_whole_state(&self, at: Position) -> bool {
        self.knows(at)
            && [at.before(), at]
                .into_iter()
                .any(|then| self.allows_whole_state(then))
    }

    /// Whether the user may see the state event that was set at `set` and that the event at `by` replaced: if it may see that event
    /// itself, if it could see all state at some time in between, or if the two are its own member events. State that was hidden,
    /// and was replaced before the user could see it, stays hidden.
    ///
    /// `set` may be before the known range: a membership that is not known there counts as none.
    pub fn sees_replaced(&self, set: Position, by: Position) -> bool {
        if self.own(by).is_some() {
            return true;
        }
        let is_open = |at: Position| set < at && at < by && self.allows_whole_state(at);
        self.knows(by)
            && (self.sees(set)
                || self.allows(self.rule(set), set, set)
                || self.changes().any(is_open))
    }

    /// The first position after this one at which the user may see all state because the visibility or its membership changed.
    pub fn whole_state_after(&self, at: Position) -> Option<Position> {
        self.changes()
            .filter(|then| at < *then && self.allows_whole_state(*then))
            .min()
    }

    /// Whether the user was joined at this position or at any time before it, within the known range.
    pub fn has_been_joined_by(&self, at: Position) -> bool {
        let mut before = self.memberships.iter().take_while(|(p, _)| *p <= at);
        before.any(|(_, membership)| membership == "join")
    }

    fn knows(&self, at: Position) -> bool {
        let (after, up_to) = self.known;
        after < at && at <= up_to
    }

    /// The positions at which the visibility or the membership changed.
    fn changes(&self) -> impl Iterator<Item = Position> {
        let rules = self.rules.iter().map(|(at, _)| *at);
        rules.chain(self.memberships.iter().map(|(at, _)| *at))
    }

    fn allows_whole_state(&self, at: Position) -> bool {
        self.rule(at) == Visibility::WorldReadable || self.allows(Visibility::Joined, at, at)
    }

    fn allows(&self, rule: Visibility, own: Position, at: Position) -> bool {
        let is_closed = self.present.has_forgotten() && own <= self.present.forgotten_at;
        let membership = self.last(own).filter(|_| !is_closed);
        let is_joined = membership == Some("join");
        match rule {
            Visibility::WorldReadable => true,
            Visibility::Shared => is_joined || self.is_joined_after(at),
            Visibility::Invited => is_joined || membership == Some("invite"),
            Visibility::Joined => is_joined,
        }
    }

    /// Whether the user is joined at any time after the position `at`.
    fn is_joined_after(&self, at: Position) -> bool {
        self.present.is_joined || (self.present.left_at > at && !self.present.has_forgotten())
    }

    fn is_own_end(&self, at: Position) -> bool {
        matches!(self.own(at), Some("leave" | "ban"))
    }

    /// The membership that the event at a position sets, if it is a member event of this user.
    fn own(&self, at: Position) -> Option<&str> {
        let found = self.memberships.binary_search_by_key(&at, |(p, _)| *p);
        found.ok().map(|i| self.memberships[i].1.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The access of a user that is invited at position 10, joins at 20, leaves at 30 and, if `back`, joins again at 50.
    fn access(rule: Visibility, back: bool) -> HistoryAccess {
        let mut memberships = vec![
            (Position(10), "invite".to_owned()),
            (Position(20), "join".to_owned()),
            (Position(30), "leave".to_owned()),
        ];
        if back {
            memberships.push((Position(50), "join".to_owned()));
        }
        HistoryAccess {
            rules: vec![(Position(1), rule)],
            memberships,
            known: (Position::START, Position(i64::MAX)),
            present: PresentAccess {
                is_joined: back,
                left_at: Position(30),
                ..PresentAccess::default()
            },
        }
    }

    #[test]
    fn what_each_rule_shows() {
        use Visibility::{Invited, Joined, Shared, WorldReadable};
        // Events at 5, 10 (the invite), 15, 25, 30 (the leave), 40, 60.
        let at = [5, 10, 15, 25, 30, 40, 60];
        let cases = [
            (WorldReadable, false, [true; 7]),
            (Shared, false, [true, true, true, true, true, false, false]),
            (Shared, true, [true; 7]),
            (
                Invited,
                false,
                [false, true, true, true, true, false, false],
            ),
            (Invited, true, [false, true, true, true, true, false, true]),
            (
                Joined,
                false,
                [false, false, false, true, true, false, false],
            ),
            (Joined, true, [false, false, false, true, true, false, true]),
        ];
        for (rule, back, expected) in cases {
            let access = access(rule, back);
            let seen = at.map(|p| access.sees(Position(p)));
            assert_eq!(seen, expected, "{rule:?} back={back}");
        }
    }

    #[test]
    fn a_user_that_was_never_there_sees_what_the_world_sees() {
        let mut access = HistoryAccess {
            rules: vec![(Position(1), Visibility::Shared)],
            known: (Position::START, Position(i64::MAX)),
            ..HistoryAccess::default()
        };
        assert!(!access.sees(Position(5)));
        // The event that makes the room world-readable can be read by all users itself, and so can the one that ends this.
        access.rules.push((Position(10), Visibility::WorldReadable));
        access.rules.push((Position(20), Visibility::Joined));
        let seen = [9, 10, 15, 20, 21].map(|p| access.sees(Position(p)));
        assert_eq!(seen, [false, true, true, true, false]);
        // The event that makes the room world-readable does not reveal the state that it replaced. The event that ends this does.
        let replaced = [(5, 10), (5, 15), (5, 20), (5, 25), (20, 25), (21, 25)]
            .map(|(set, by)| access.sees_replaced(Position(set), Position(by)));
        assert_eq!(replaced, [false, true, true, true, true, false]);
        assert_eq!(access.present.state(), None);
    }

    #[test]
    fn a_declined_invite_shows_itself_and_no_state() {
        for rule in [Visibility::Shared, Visibility::Joined] {
            let access = HistoryAccess {
                rules: vec![(Position(1), rule)],
                memberships: vec![
                    (Position(10), "invite".to_owned()),
                    (Position(20), "leave".to_owned()),
                ],
                known: (Position::START, Position(i64::MAX)),
                ..HistoryAccess::default()
            };
            let seen = [5, 10, 15, 20, 25].map(|p| access.sees(Position(p)));
            assert_eq!(seen, [false, false, false, true, false], "{rule:?}");
            assert!(!access.sees_state(Position(20)), "{rule:?}");
            assert_eq!(access.present.state(), None);
        }
    }

    #[test]
    fn an_invite_shows_no_state_of_before_it() {
        let invited = access(Visibility::Invited, false);
        let seen = [5, 15, 25, 40].map(|p| invited.sees_whole_state(Position(p)));
        assert_eq!(seen, [false, false, true, false]);
        assert!(invited.sees_state(Position(15)) && !invited.sees(Position(5)));
        let open = access(Visibility::WorldReadable, false);
        assert!(open.sees_whole_state(Position(5)));
    }

    #[test]
    fn state_that_was_replaced_before_the_user_could_see_it_is_hidden() {
        use Visibility::{Invited, Joined, Shared};
        // Set before the invite at 10, and replaced before or after the join at 20; set after the invite; set and replaced after
        // the leave at 30; set after it, and replaced after the join at 50.
        let cases = [(5, 15), (5, 25), (12, 15), (35, 40), (35, 60)];
        let cases = cases.map(|(set, by)| (Position(set), Position(by)));
        let seen = |access: &HistoryAccess| cases.map(|(set, by)| access.sees_replaced(set, by));
        for (rule, expected) in [
            (Shared, [true; 5]),
            (Invited, [false, true, true, false, true]),
            (Joined, [false, true, false, false, true]),
        ] {
            let mut access = access(rule, true);
            assert_eq!(seen(&access), expected, "{rule:?}");
            // The user's own invite, which its join replaced.
            assert!(access.sees_replaced(Position(10), Position(20)), "{rule:?}");
            // This also holds if the known range begins after the state events at 5.
            access.known.0 = Position(10);
            assert_eq!(seen(&access), expected, "{rule:?}");
        }
        // State that was hidden when it was set does not become visible through a wider visibility later.
        let mut access = access(Joined, true);
        access.rules.push((Position(12), Shared));
        assert_eq!(seen(&access), [false, true, true, true, true]);
    }

    #[test]
    fn forgetting_closes_what_was_seen_until_the_user_joins_again() {
        let mut access = access(Visibility::Shared, false);
        assert_eq!(
            access.present.state(),
            Some(StateAccess::Until(Position(30)))
        );
        access.present.forgotten_at = Position(40);
        let seen = [5, 25, 30].map(|p| access.sees(Position(p)));
        assert_eq!(seen, [false, false, true]);
        assert_eq!(access.present.state(), None);
        // An invite does not make that state visible, a join does.
        access.memberships.push((Position(45), "invite".to_owned()));
        assert!(!access.sees(Position(25)));
        access.memberships.push((Position(50), "join".to_owned()));
        access.present.is_joined = true;
        assert!([5, 25, 60].into_iter().all(|p| access.sees(Position(p))));
        access.memberships.push((Position(70), "leave".to_owned()));
        access.present.is_joined = false;
        access.present.left_at = Position(70);
        assert!([5, 25, 60].into_iter().all(|p| access.sees(Position(p))));
        assert!(!access.sees(Position(71)));
    }

    #[test]
    fn what_is_not_known_is_not_seen() {
        let mut access = access(Visibility::Shared, true);
        access.known = (Position(20), Position(40));
        let seen = [20, 25, 40, 41].map(|p| access.sees(Position(p)));
        assert_eq!(seen, [false, true, true, false]);
    }
}
