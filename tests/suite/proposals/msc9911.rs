//! MSC9911, made up for this suite — fallback keys in use. The appservices that decide over a device are told when a claim had to take its
//! fallback key, and how many one-time keys it uploaded before.

use actors::hooks::{Change, DurableSection, Part, ProposalHooks};
use actors::services::OwedKind;
use actors::wire::Name;
use serde_json::json;
use understudy::mscs::Msc;

/// The data sheet.
pub(super) static MSC: Msc = Msc {
    title: "Fallback keys in use",
    names: &[IN_USE],
    registration: &[IN_USE.unstable],
    hooks: ProposalHooks {
        number: 9911,
        owes: &[DurableSection {
            kind: OwedKind {
                kind: IN_USE.unstable,
                is_wanted: |registration| registration.has_flag(IN_USE.unstable),
            },
            section: IN_USE,
        }],
        changed: Some(changed),
        ..ProposalHooks::NONE
    },
    ..Msc::NONE
};

const IN_USE: Name = Name {
    unstable: "org.example.msc9911.in_use",
    stable: "in_use",
};

// ANCHOR: changed
fn changed(part: &mut Part<'_, '_>, change: &Change<'_>) -> actors::Result<()> {
    match change {
        Change::OneTimeKeys { user, device, ids } => {
            let key = format!("{user}|{device}");
            let before = part.get(&key)?.map_or(Ok(0), |stored| stored.value())?;
            part.put(&key, &(before + ids.len())).map(drop)
        }
        Change::Claimed {
            user,
            device,
            key,
            is_fallback: true,
            ..
        } => {
            let uploaded = part.get(&format!("{user}|{device}"))?;
            let uploaded: usize = uploaded.map_or(Ok(0), |stored| stored.value())?;
            let item = json!({"user_id": user, "device_id": device, "key": key, "uploaded": uploaded,
                "is_person": part.is_person(user)?});
            let services = part.services_deciding(user, device)?;
            part.owe(&services, IN_USE.unstable, &[user, device], &item)
        }
        _ => Ok(()),
    }
}
// ANCHOR_END: changed
