//! What a user may see of a room: decided here, once, for everything that shows events or state. Pure.

use schema::Position;

/// The rule of a room about its past. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Visibility {
    /// Who was joined when it happened.
    Joined,
    /// Who was joined or invited when it happened.
    Invited,
    /// Who is joined then or at any later time.
    Shared,
    /// Everybody.
    WorldReadable,
}

impl Visibility {
    /// The rule by its name; an unknown one is the default, `shared`.
    #[must_use]
    pub fn named(name: Option<&str>) -> Visibility {
        match name {
            Some("joined") => Visibility::Joined,
            Some("invited") => Visibility::Invited,
            Some("world_readable") => Visibility::WorldReadable,
            _ => Visibility::Shared,
        }
    }
}

/// A user's relation to a room as it is now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Present {
    /// Whether the user is joined.
    pub is_joined: bool,
    /// Where the user last ceased to be joined; 0 for never.
    pub left_at: Position,
    /// Where the user last forgot the room; 0 for never.
    pub forgotten_at: Position,
    /// Whether everybody may see the room's present.
    pub is_world_readable: bool,
}

/// Up to when a user may see a room's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateAccess {
    /// As it is.
    Now,
    /// As it was when the user left.
    Until(Position),
}

impl Present {
    /// Whether the user forgot the room and has not joined it since: what it could see as a member is closed to it. ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidforget
    #[must_use]
    pub fn has_forgotten(&self) -> bool {
        !self.is_joined && self.forgotten_at > self.left_at
    }

    /// Up to when the user may see the room's state: its present if the user is joined or the room is open to the world, after
    /// leaving what it was then. `None` for nothing of it. ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstate
    #[must_use]
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

/// What a user may see of a stretch of a room's history. **Everything that shows events or past state asks this and nothing
/// else.** It is made of how the room's rule and the user's membership came about; each list begins with what was in force before
/// the stretch.
#[derive(Debug, Clone, Default)]
pub struct HistoryAccess {
    /// Since when which rule was in force, oldest first.
    pub rules: Vec<(Position, Visibility)>,
    /// Since when the user had which membership, oldest first.
    pub memberships: Vec<(Position, String)>,
    /// The lists are complete after the first position and up to the second; nothing is seen outside.
    pub known: (Position, Position),
    /// What the user is to the room now.
    pub present: Present,
}

impl HistoryAccess {
    /// The user's membership at a position, the event there included; `leave` for none, as clients are told.
    #[must_use]
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

    /// Whether the user may see the event at a position: where it may see the state there, and the event by which it left,
    /// declined an invite, took back a knock or was banned. ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-5
    #[must_use]
    pub fn sees(&self, at: Position) -> bool {
        self.is_own_end(at) || self.sees_state(at)
    }

    /// Whether the user may see the room's state as of the event at a position. ([spec])
    ///
    /// An event that changes the rule, or the user's own membership, counts for the user who may see what was before or after it.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-5
    #[must_use]
    pub fn sees_state(&self, at: Position) -> bool {
        self.knows(at)
            && [at.before(), at].into_iter().any(|rule| {
                [at.before(), at]
                    .into_iter()
                    .any(|own| self.allows(self.rule(rule), own, at))
            })
    }

    /// Whether the user may see all state as of the event at a position: it was joined there, or the room was open to the world. Others,
    /// an invited user among them, see of the state there those events that they may see. ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-5
    #[must_use]
    pub fn sees_whole_state(&self, at: Position) -> bool {
        self.knows(at)
            && [at.before(), at].into_iter().any(|then| {
                self.rule(then) == Visibility::WorldReadable
                    || self.allows(Visibility::Joined, then, at)
            })
    }

    /// Whether the user may see the state that the event at a position replaced: where it could see the state just before, and
    /// its own membership.
    #[must_use]
    pub fn sees_replaced(&self, at: Position) -> bool {
        let before = at.before();
        self.own(at).is_some() || (self.knows(at) && self.allows(self.rule(before), before, at))
    }

    /// Whether the user was joined at this position or at any time before it, as far as that is known.
    #[must_use]
    pub fn has_been_joined_by(&self, at: Position) -> bool {
        let mut before = self.memberships.iter().take_while(|(p, _)| *p <= at);
        before.any(|(_, membership)| membership == "join")
    }

    fn knows(&self, at: Position) -> bool {
        let (after, up_to) = self.known;
        after < at && at <= up_to
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

    /// Whether the user is joined at any time after a position.
    fn is_joined_after(&self, at: Position) -> bool {
        self.present.is_joined || (self.present.left_at > at && !self.present.has_forgotten())
    }

    fn is_own_end(&self, at: Position) -> bool {
        matches!(self.own(at), Some("leave" | "ban"))
    }

    /// The membership that the event at a position gives to the user, if it is one of its member events.
    fn own(&self, at: Position) -> Option<&str> {
        let found = self.memberships.binary_search_by_key(&at, |(p, _)| *p);
        found.ok().map(|i| self.memberships[i].1.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The user is invited at 10, joins at 20, leaves at 30, and comes back, if at all, at 50.
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
            present: Present {
                is_joined: back,
                left_at: Position(30),
                ..Present::default()
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
        // The event that opens the room is open itself; so is the one that closes it.
        access.rules.push((Position(10), Visibility::WorldReadable));
        access.rules.push((Position(20), Visibility::Joined));
        let seen = [9, 10, 15, 20, 21].map(|p| access.sees(Position(p)));
        assert_eq!(seen, [false, true, true, true, false]);
        // What opens the room does not show what it replaced, what closes it does.
        let replaced = [10, 15, 20, 21].map(|p| access.sees_replaced(Position(p)));
        assert_eq!(replaced, [false, true, true, false]);
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
        // An invite opens nothing, a join does.
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
