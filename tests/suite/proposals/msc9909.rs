//! MSC9909, made up for this suite — rejections. An appservice names in its answer to a transaction the events that it rejects, and the
//! server remembers which.

use actors::hooks::{Change, Part, ProposalHooks};
use serde_json::Value;
use understudy::mscs::Msc;

/// The data sheet.
pub(super) static MSC: Msc = Msc {
    title: "Rejections",
    hooks: ProposalHooks {
        number: 9909,
        answer_bytes: 4_096,
        changed: Some(changed),
        ..ProposalHooks::NONE
    },
    ..Msc::NONE
};

// ANCHOR: changed
fn changed(part: &mut Part<'_, '_>, change: &Change<'_>) -> actors::Result<()> {
    let Change::Delivered {
        service, answer, ..
    } = change
    else {
        return Ok(());
    };
    let rejected = answer.and_then(|answer| answer["org.example.msc9909.rejected"].as_array());
    for event in rejected.into_iter().flatten().filter_map(Value::as_str) {
        part.put(&format!("{service}|{event}"), &true)?;
    }
    Ok(())
}
// ANCHOR_END: changed
