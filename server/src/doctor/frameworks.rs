//! What the known frameworks need from a registration: read in their source, and seen in what they do.

use actors::services::{MSC3202, PUSH_EPHEMERAL, RECEIVE_EPHEMERAL, Registration};

/// A library that application services are built with.
#[derive(Debug, PartialEq, Eq)]
pub struct Framework {
    /// Its name.
    pub name: &'static str,
    /// What it needs to do all it can.
    pub needs: &'static [Need],
}

/// One of these keys, or something does not work.
#[derive(Debug, PartialEq, Eq)]
pub struct Need {
    /// Any of them will do.
    pub any_of: &'static [&'static str],
    /// What the service goes without.
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
/// It reads the name before alone.
const OLD_EPHEMERAL: Need = Need {
    any_of: &[PUSH_EPHEMERAL],
    without: FLEETING,
};

// ANCHOR: frameworks
/// Every framework there is something to say about.
pub const ALL: &[Framework] = &[
    Framework {
        name: "mautrix-go",
        needs: &[
            // It drops to-device messages unless its own registration has the stable key, whatever is sent.
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
    // matrix-hookshot is built with it.
    Framework {
        name: "matrix-bot-sdk",
        needs: &[ANY_TO_DEVICE, OLD_EPHEMERAL, DEVICE_LISTS],
    },
    // The two that follow do not encrypt.
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

/// The framework of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Framework> {
    ALL.iter().find(|f| f.name == name)
}

impl Need {
    /// Whether the registration has none of the keys.
    #[must_use]
    pub fn is_unmet(&self, registration: &Registration) -> bool {
        !self.any_of.iter().any(|key| registration.says(key))
    }

    /// The keys as a person reads them.
    #[must_use]
    pub fn keys(&self) -> String {
        self.any_of.join(" or ")
    }
}
