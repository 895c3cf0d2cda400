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
//! A count of zero is sent as an explicit `0`; the types of a used fallback key as `[]`.
//!
//! One framework, matrix-bot-sdk, reads the users in `left` under a name that the proposal does not define, `removed`. A
//! registration with `org.understudy.left_as_removed: true` gets them under both names.
//!
//! [proposal]: https://github.com/matrix-org/matrix-spec-proposals/pull/3202

use actors::hooks::ProposalHooks;
use actors::wire::{Name, TransactionBody, TransactionContent, TransactionDeviceLists};
use serde::Serialize;

use super::sheet::Msc;

/// The data sheet of this proposal: its number, title, link and names.
pub const MSC: Msc = Msc {
    title: "Encrypted appservices",
    names: &[DEVICE_LISTS, COUNTS, FALLBACK],
    switches: |on| on.device_lists = true,
    registration: &["org.matrix.msc3202", LEFT_AS_REMOVED],
    by_default: true,
    hooks: ProposalHooks {
        number: 3202,
        transaction: add_device_lists,
        ..ProposalHooks::NONE
    },
    ..Msc::NONE
};

/// Clause: as.lists.name
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

/// A registration key of this server alone: send `left` also as `removed`, the name that matrix-bot-sdk reads.
const LEFT_AS_REMOVED: &str = "org.understudy.left_as_removed";

/// The device lists of a transaction.
#[derive(Serialize)]
struct Sent<'a> {
    #[serde(flatten)]
    lists: &'a TransactionDeviceLists,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<&'a [String]>,
}

fn add_device_lists(content: &TransactionContent, body: &mut TransactionBody) {
    let lists = &content.device_lists;
    let removed = !lists.left.is_empty() && content.registration.has_flag(LEFT_AS_REMOVED);
    let removed = removed.then_some(lists.left.as_slice());
    body.put(DEVICE_LISTS, &Sent { lists, removed });
    body.put(COUNTS, &content.one_time_key_counts);
    body.put(FALLBACK, &content.unused_fallback_key_types);
}
