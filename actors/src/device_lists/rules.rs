//! Which users an appservice starts and stops tracking.
//!
//! Next on the way of a leave: `schema/src/tracked.rs`.

/// What an appservice is told about a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Query the user's devices again, and track them from now on.
    Changed,
    /// Stop tracking the user.
    Left,
    /// The appservice need not be told anything.
    Nothing,
}

/// What holds for an appservice and a user when the pass decides about them. Clause: as.lists.not-own
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present {
    /// The user is the appservice's own: its sender, or in one of its user namespaces.
    pub own: bool,
    /// The appservice tracks the user: it was sent or is owed the user's devices.
    pub tracked: bool,
    /// The appservice has a joined member in a room where the user is joined or invited (`shares_a_room` in
    /// `schema/src/service_rooms.rs`).
    pub shares: bool,
    /// The user's devices, keys or signatures changed since the last verdict.
    pub keys_changed: bool,
}

// ANCHOR: verdict
/// A user is in `changed` when their devices changed or when they come to share a room, and in `left` when no shared room
/// remains. ([spec], for application services [MSC3202])
///
/// The verdict depends on the present state, not on the state at the event: only the net effect matters, and a pass that is
/// repeated after a crash has the same result. An appservice's own users are always tracked and never `left`.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user
/// [MSC3202]: https://github.com/matrix-org/matrix-spec-proposals/pull/3202
/// Clause: as.lists.changed, as.lists.changed-on-meeting, as.lists.left, as.lists.left-not-before
pub fn verdict(present: Present) -> Verdict {
    match present {
        Present {
            own: true,
            keys_changed,
            ..
        } => {
            if keys_changed {
                Verdict::Changed
            } else {
                Verdict::Nothing
            }
        }
        Present {
            shares: true,
            tracked: false,
            ..
        }
        | Present {
            shares: true,
            keys_changed: true,
            ..
        } => Verdict::Changed,
        Present {
            shares: false,
            tracked: true,
            ..
        } => Verdict::Left,
        Present { .. } => Verdict::Nothing,
    }
}
// ANCHOR_END: verdict

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let of = |own, tracked, shares, keys_changed| {
            verdict(Present {
                own,
                tracked,
                shares,
                keys_changed,
            })
        };
        // own, tracked, shares, keys changed
        assert_eq!(
            of(true, false, false, true),
            Verdict::Changed,
            "its own user's devices, in no room at all"
        );
        assert_eq!(
            of(true, true, false, false),
            Verdict::Nothing,
            "its own user is never left"
        );
        assert_eq!(
            of(false, false, true, false),
            Verdict::Changed,
            "newly shared"
        );
        assert_eq!(
            of(false, true, true, false),
            Verdict::Nothing,
            "one more shared room"
        );
        assert_eq!(
            of(false, true, true, true),
            Verdict::Changed,
            "a new device"
        );
        assert_eq!(
            of(false, true, false, false),
            Verdict::Left,
            "the last shared room is gone"
        );
        assert_eq!(
            of(false, true, false, true),
            Verdict::Left,
            "gone, whatever their devices do"
        );
        assert_eq!(
            of(false, false, false, true),
            Verdict::Nothing,
            "a stranger's new device"
        );
    }
}
