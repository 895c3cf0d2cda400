//! What an endpoint takes from its caller, and from which pages it may be called. Registered with the route, so that no spelling
//! of a path can change it.

/// The limit that a request counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// Reading: the larger limit.
    Read,
    /// Everything else.
    Change,
}

/// The largest body of an ordinary request. An event has at most 64 KiB as canonical JSON; as a client escapes it, up to three
/// times that.
pub const BODY: usize = 256 << 10;

/// The largest body of a request without a token: a log-in, a registration.
pub const ANONYMOUS_BODY: usize = 64 << 10;

/// The largest body of a request that carries many things: keys, messages to devices, a page of key backup, the first state of
/// a room.
pub const LARGE_BODY: usize = 8 << 20;

/// What an endpoint takes from its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The limit that a request counts against.
    pub cost: Cost,
    /// The largest body in bytes; 0 where a body means nothing and is not read.
    pub body: usize,
    /// Whether no body is as good as `{}`.
    pub empty: bool,
    /// Whether the body carries content that is stored as JSON text: there U+0000 is an escape like any other.
    pub content: bool,
    /// Whether only pages of the server's own origin may call it.
    pub own_origin: bool,
}

impl Terms {
    /// Those of an endpoint that says nothing else.
    #[must_use]
    pub fn of(method: &str) -> Terms {
        let reads = method == "GET";
        Terms {
            cost: if reads { Cost::Read } else { Cost::Change },
            body: if reads { 0 } else { BODY },
            // What is put is the body: a state event without one is a mistake.
            empty: method != "PUT",
            content: false,
            own_origin: false,
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
