//! MSC9907, made up for this suite — appservices that are spared. A registration lists what its transactions leave out: types of events
//! and of to-device messages, and `device_lists` and `key_counts`.

use actors::hooks::{OwedDraft, ProposalHooks};
use actors::services::Service;
use understudy::mscs::Msc;

/// The data sheet.
pub(super) static MSC: Msc = Msc {
    title: "Appservices that are spared",
    registration: &[SPARED],
    hooks: ProposalHooks {
        number: 9907,
        owes_to: Some(owes_to),
        ..ProposalHooks::NONE
    },
    ..Msc::NONE
};

const SPARED: &str = "org.example.msc9907.spared";

// ANCHOR: owes_to
fn owes_to(service: &Service, draft: &OwedDraft<'_>) -> bool {
    let what = match draft {
        OwedDraft::Event(event) => event.kind.as_str(),
        OwedDraft::ToDevice { kind, .. } => kind,
        OwedDraft::DeviceList { .. } => "device_lists",
        OwedDraft::Count { .. } => "key_counts",
    };
    let spared = service.registration.other.get(SPARED);
    let spared = spared.and_then(|list| list.as_array());
    !spared.is_some_and(|list| list.iter().any(|entry| entry == what))
}
// ANCHOR_END: owes_to
