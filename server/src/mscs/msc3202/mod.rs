//! MSC3202 — device-list changes and key counts for application services. ([proposal])
//!
//! | on the wire until it is accepted | after |
//! |---|---|
//! | `org.matrix.msc3202.device_lists` | `device_lists` |
//! | `org.matrix.msc3202.device_one_time_keys_count` | `device_one_time_keys_count` |
//! | `org.matrix.msc3202.device_unused_fallback_key_types` | `device_unused_fallback_key_types` |
//!
//! *Where* `PUT /_matrix/app/v1/transactions/{txnId}`. *Registration* `org.matrix.msc3202: true`. *Versions* no flag.
//!
//! A count says an explicit `0`; the types of a used fallback key are `[]`.
//!
//! [proposal]: https://github.com/matrix-org/matrix-spec-proposals/pull/3202

use actors::wire::{Body, Name, Pending};

use super::Msc;

/// The data sheet.
pub const MSC: Msc = Msc {
    number: 3202,
    title: "Encrypted appservices",
    names: &[DEVICE_LISTS, COUNTS, FALLBACK],
    switches: |on| on.device_lists = true,
    registration: &["org.matrix.msc3202"],
    transaction: add_device_lists,
    ..Msc::NONE
};

const DEVICE_LISTS: Name = Name {
    unstable: "org.matrix.msc3202.device_lists",
    stable: "device_lists",
};
const COUNTS: Name = Name {
    unstable: "org.matrix.msc3202.device_one_time_keys_count",
    stable: "device_one_time_keys_count",
};
const FALLBACK: Name = Name {
    unstable: "org.matrix.msc3202.device_unused_fallback_key_types",
    stable: "device_unused_fallback_key_types",
};

fn add_device_lists(pending: &Pending, body: &mut Body) {
    body.put(DEVICE_LISTS, &pending.device_lists);
    body.put(COUNTS, &pending.one_time_key_counts);
    body.put(FALLBACK, &pending.unused_fallback_key_types);
}
