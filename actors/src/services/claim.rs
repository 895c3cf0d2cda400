//! How a namespace claims a user.

/// How a namespace claims a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NamespaceClaim {
    /// The user is the appservice's own sender, which is always exclusive.
    Sender,
    /// The first pattern that matches is exclusive.
    Exclusive,
    /// The first pattern that matches is not exclusive.
    Shared,
}

impl NamespaceClaim {
    /// Whether no other appservice and no person may use this user id.
    pub fn is_exclusive(self) -> bool {
        self != NamespaceClaim::Shared
    }
}
