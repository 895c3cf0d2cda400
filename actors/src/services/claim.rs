//! How a namespace claims a user.

/// How a namespace claims a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// The service's own user; always exclusive.
    Sender,
    /// The first pattern that matches is exclusive.
    Exclusive,
    /// The first pattern that matches is not exclusive.
    Shared,
}

impl Claim {
    /// Whether no other service and no person may be this user.
    #[must_use]
    pub fn is_exclusive(self) -> bool {
        self != Claim::Shared
    }
}
