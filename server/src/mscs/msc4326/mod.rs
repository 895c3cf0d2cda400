//! MSC4326 — device masquerading for application services. ([proposal]) Accepted; part of the specification since v1.17.
//!
//! | on the wire until it is accepted | after |
//! |---|---|
//! | `org.matrix.msc3202.device_id` (query parameter) | `device_id` |
//! | `ORG.MATRIX.MSC4326.M_UNKNOWN_DEVICE` (error code) | `M_UNKNOWN_DEVICE` |
//!
//! *Where* every endpoint that takes an appservice's token. *Registration* no flag. *Versions* no flag.
//!
//! matrix-bot-sdk sends the unstable parameter alone, mautrix-python sends both.
//!
//! [proposal]: https://github.com/matrix-org/matrix-spec-proposals/pull/4326

use actors::hooks::ProposalHooks;
use actors::wire::Name;

use super::sheet::Msc;

/// The data sheet of this proposal: its number, title, link and names.
pub const MSC: Msc = Msc {
    title: "Device masquerading for appservices",
    names: &[DEVICE_ID, UNKNOWN_DEVICE],
    specified: Some("v1.17"),
    routes: |routes| routes.asserts_device(DEVICE_ID).error(UNKNOWN_DEVICE),
    hooks: ProposalHooks {
        number: 4326,
        ..ProposalHooks::NONE
    },
    ..Msc::NONE
};

/// Clause: as.acting.older-name
const DEVICE_ID: Name = Name {
    unstable: "org.matrix.msc3202.device_id",
    stable: "device_id",
};
/// Clause: as.acting.unknown-device
const UNKNOWN_DEVICE: Name = Name {
    unstable: "ORG.MATRIX.MSC4326.M_UNKNOWN_DEVICE",
    stable: "M_UNKNOWN_DEVICE",
};
