//! MSC9906, made up for this suite — a filter of `/sync` by words: `org.example.msc9906.words` in the filter of a timeline lets only events
//! pass whose `body` contains one of them, and a parameter asks how many words were given.

use actors::hooks::{FilteredPart, ProposalHooks, SyncAsked, SyncPart};
use actors::wire::Name;
use schema::events::EventRow;
use serde_json::Value;
use understudy::mscs::Msc;

/// The data sheet.
pub(super) static MSC: Msc = Msc {
    title: "Filtering by words",
    names: &[WORDS, COUNT],
    hooks: ProposalHooks {
        number: 9906,
        keeps: Some(keeps),
        sync: Some(sync),
        ..ProposalHooks::NONE
    },
    ..Msc::NONE
};

const WORDS: Name = Name {
    unstable: "org.example.msc9906.words",
    stable: "words",
};

const COUNT: Name = Name {
    unstable: "org.example.msc9906.count",
    stable: "count",
};

fn words(filter: &Value) -> Option<&Vec<Value>> {
    filter["room"]["timeline"][WORDS.unstable].as_array()
}

// ANCHOR: keeps
fn keeps(asked: &SyncAsked<'_>, part: FilteredPart, event: &EventRow) -> bool {
    let Some(words) = words(asked.filter()).filter(|_| part == FilteredPart::Timeline) else {
        return true;
    };
    let event: Value = serde_json::from_str(&event.pdu).unwrap_or_default();
    let body = event["content"]["body"].as_str().unwrap_or_default();
    let mut words = words.iter().filter_map(Value::as_str);
    words.any(|word| body.contains(word))
}
// ANCHOR_END: keeps

fn sync(part: &mut SyncPart<'_>) -> actors::Result<()> {
    if part.param(COUNT.unstable) == Some("true") {
        let count = words(part.filter()).map_or(0, Vec::len);
        part.add(COUNT, count);
    }
    Ok(())
}
