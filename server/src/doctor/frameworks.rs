//! What the known frameworks need from a registration, from their source code and observed behaviour.

use actors::services::{MSC3202, PUSH_EPHEMERAL, RECEIVE_EPHEMERAL, Registration};

/// A library that application services are built with.
#[derive(Debug, PartialEq, Eq)]
pub struct Framework {
    /// The name of the framework.
    pub name: &'static str,
    /// The registration keys that the features of the framework need.
    pub needs: &'static [Need],
}

/// A feature that works only if the registration has one of these keys.
#[derive(Debug, PartialEq, Eq)]
pub struct Need {
    /// Keys of which one is enough.
    pub any_of: &'static [&'static str],
    /// What the appservice does not receive without one of these keys.
    pub without: &'static str,
}

const KEYS: &str = "to-device messages, and so the keys of encrypted rooms";
const LISTS: &str = "device-list changes and key counts";
const FLEETING: &str = "typing, receipts and presence";

const ANY_TO_DEVICE: Need = Need {
    any_of: &[RECEIVE_EPHEMERAL, PUSH_EPHEMERAL, MSC3202],
    without: KEYS,
};
const DEVICE_LISTS: Need = Need {
    any_of: &[MSC3202],
    without: LISTS,
};
/// The need of frameworks that read only the unstable key for ephemeral data.
const OLD_EPHEMERAL: Need = Need {
    any_of: &[PUSH_EPHEMERAL],
    without: FLEETING,
};

// ANCHOR: frameworks
/// All known frameworks.
pub const ALL: &[Framework] = &[
    Framework {
        name: "mautrix-go",
        needs: &[
            // It ignores to-device messages, even if they are sent, unless its own copy of the registration has the stable key.
            Need {
                any_of: &[RECEIVE_EPHEMERAL],
                without: KEYS,
            },
            DEVICE_LISTS,
        ],
    },
    Framework {
        name: "mautrix-python",
        needs: &[
            ANY_TO_DEVICE,
            Need {
                any_of: &[RECEIVE_EPHEMERAL, PUSH_EPHEMERAL],
                without: FLEETING,
            },
            DEVICE_LISTS,
        ],
    },
    // matrix-hookshot uses this framework.
    Framework {
        name: "matrix-bot-sdk",
        needs: &[ANY_TO_DEVICE, OLD_EPHEMERAL, DEVICE_LISTS],
    },
    // The next two frameworks do not encrypt.
    Framework {
        name: "matrix-appservice-bridge",
        needs: &[OLD_EPHEMERAL],
    },
    Framework {
        name: "heisenbridge",
        needs: &[],
    },
];
// ANCHOR_END: frameworks

/// Find a framework by name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Framework> {
    ALL.iter().find(|f| f.name == name)
}

impl Need {
    /// Whether the registration has none of these keys.
    #[must_use]
    pub fn is_unmet(&self, registration: &Registration) -> bool {
        !self.any_of.iter().any(|key| registration.has_flag(key))
    }

    /// The keys, joined for display.
    #[must_use]
    pub fn keys(&self) -> String {
        self.any_of.join(" or ")
    }
}
