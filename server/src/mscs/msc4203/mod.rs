//! MSC4203 — to-device messages for application services. ([proposal])
//!
//! | on the wire until it is accepted | after |
//! |---|---|
//! | `de.sorunome.msc2409.to_device` | `to_device` |
//!
//! *Where* `PUT /_matrix/app/v1/transactions/{txnId}`. *Registration* no flag of its own; any of `receive_ephemeral`,
//! `de.sorunome.msc2409.push_ephemeral` and `org.matrix.msc3202` asks for it. *Versions* no flag.
//!
//! Each item is an event as in `/sync`, plus `to_user_id` and `to_device_id`.
//!
//! [proposal]: https://github.com/matrix-org/matrix-spec-proposals/pull/4203

use actors::hooks::ProposalHooks;
use actors::wire::{Name, TransactionBody, TransactionContent};

use super::sheet::Msc;

/// The data sheet of this proposal: its number, title, link and names.
pub const MSC: Msc = Msc {
    title: "Sending to-device events to appservices",
    names: &[TO_DEVICE],
    switches: |on| on.to_device = true,
    registration: &[
        "receive_ephemeral",
        "de.sorunome.msc2409.push_ephemeral",
        "org.matrix.msc3202",
    ],
    by_default: true,
    hooks: ProposalHooks {
        number: 4203,
        transaction: add_to_device,
        ..ProposalHooks::NONE
    },
    ..Msc::NONE
};

/// Clause: as.to-device.name
const TO_DEVICE: Name = Name {
    unstable: "de.sorunome.msc2409.to_device",
    stable: "to_device",
};

fn add_to_device(content: &TransactionContent, body: &mut TransactionBody) {
    body.put(TO_DEVICE, &content.to_device);
}
