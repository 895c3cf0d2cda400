//! Who may read what of a room's past.

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

/// What decides whether a user may read the events of a stretch of a room's history: how the room's rule and the user's
/// membership came about. Each list begins with what was in force before the stretch.
#[derive(Debug, Clone, Default)]
pub struct Vision {
    /// Since when which rule was in force, oldest first.
    pub rules: Vec<(Position, Visibility)>,
    /// Since when the user had which membership, oldest first, up to the present.
    pub memberships: Vec<(Position, String)>,
}

impl Vision {
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

    /// Whether the user may read the event at a position. ([spec])
    ///
    /// An event that changes the rule, or the user's own membership, may be read by who may read it before or after it.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-5
    #[must_use]
    pub fn sees(&self, at: Position) -> bool {
        [at.before(), at].into_iter().any(|rule| {
            [at.before(), at]
                .into_iter()
                .any(|own| self.allows(self.rule(rule), own, at))
        })
    }

    fn allows(&self, rule: Visibility, own: Position, at: Position) -> bool {
        let membership = self.last(own);
        let joined = membership == Some("join");
        match rule {
            Visibility::WorldReadable => true,
            Visibility::Shared => {
                joined || self.memberships.iter().any(|(p, m)| *p > at && m == "join")
            }
            Visibility::Invited => joined || membership == Some("invite"),
            Visibility::Joined => joined,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The user is invited at 10, joins at 20, leaves at 30, and comes back, if at all, at 50.
    fn vision(rule: Visibility, back: bool) -> Vision {
        let mut memberships = vec![
            (Position(10), "invite".to_owned()),
            (Position(20), "join".to_owned()),
            (Position(30), "leave".to_owned()),
        ];
        if back {
            memberships.push((Position(50), "join".to_owned()));
        }
        Vision {
            rules: vec![(Position(1), rule)],
            memberships,
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
            let vision = vision(rule, back);
            let seen = at.map(|p| vision.sees(Position(p)));
            assert_eq!(seen, expected, "{rule:?} back={back}");
        }
    }

    #[test]
    fn who_was_never_there_sees_what_the_world_sees() {
        let mut vision = Vision {
            rules: vec![(Position(1), Visibility::Shared)],
            memberships: Vec::new(),
        };
        assert!(!vision.sees(Position(5)));
        // The event that opens the room is open itself; so is the one that closes it.
        vision.rules.push((Position(10), Visibility::WorldReadable));
        vision.rules.push((Position(20), Visibility::Joined));
        let seen = [9, 10, 15, 20, 21].map(|p| vision.sees(Position(p)));
        assert_eq!(seen, [false, true, true, true, false]);
    }
}
