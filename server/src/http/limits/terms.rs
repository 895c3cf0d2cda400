//! The terms of an endpoint: its limits and the origins that may call it. They are registered with the route, so that no spelling
//! of a path can evade them.

/// The limit that a request counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// The limit on requests that only read, which is the larger one.
    Read,
    /// The limit on requests that change something.
    Change,
}

/// The largest body, in bytes, of an ordinary request. An event has at most 64 KiB as canonical JSON, and up to three times that
/// with a client's escapes.
pub const BODY: usize = 256 << 10;

/// The largest body of a request without a token: a log-in, a registration.
pub const ANONYMOUS_BODY: usize = 64 << 10;

/// The largest body of a request that carries many things: keys, messages to devices, a page of key backup, the first state of
/// a room.
pub const LARGE_BODY: usize = 8 << 20;

/// The terms of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The limit that a request counts against.
    pub cost: Cost,
    /// The largest body in bytes; 0 where the body is ignored and not read.
    pub body: usize,
    /// Whether an absent body counts as `{}`.
    pub empty: bool,
    /// Whether the body carries content that is stored as JSON text, so that an escaped U+0000 is allowed.
    pub content: bool,
    /// Whether only pages of the server's own origin may call it.
    pub own_origin: bool,
    /// Whether it replaces the state that requests reach, or waits for that, and so is not waited for before it.
    pub replaces: bool,
}

impl Terms {
    /// The default terms for a method and required token.
    #[must_use]
    pub fn of(method: &str) -> Terms {
        let reads = method == "GET";
        Terms {
            cost: if reads { Cost::Read } else { Cost::Change },
            body: if reads { 0 } else { BODY },
            // With PUT the body is the value itself: a state event without one is a mistake.
            empty: method != "PUT",
            content: false,
            own_origin: false,
            replaces: false,
        }
    }

    /// The largest body for a caller with or without a token.
    #[must_use]
    pub fn body_for(self, anonymous: bool) -> usize {
        if anonymous {
            self.body.min(ANONYMOUS_BODY)
        } else {
            self.body
        }
    }
}
