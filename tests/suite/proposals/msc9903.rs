//! MSC9903, made up for this suite — it counts the changes of each kind, refuses an event type, and tells appservices of each claim once,
//! without a promise that they get it.

use actors::Refusal;
use actors::hooks::{Change, NewEvent, Part, ProposalHooks};
use serde_json::{Value, json};
use understudy::mscs::Msc;

/// The data sheet.
pub(super) static MSC: Msc = Msc {
    title: "Counting changes",
    capabilities: || vec![("org.example.msc9903", json!({"enabled": true}))],
    hooks: ProposalHooks {
        number: 9903,
        changed: Some(changed),
        check_event: Some(check),
        ..ProposalHooks::NONE
    },
    ..Msc::NONE
};

fn changed(part: &mut Part<'_, '_>, change: &Change<'_>) -> actors::Result<()> {
    let shown = format!("{change:?}");
    let kind = shown.split([' ', '{']).next().unwrap_or_default();
    let before = part.get(kind)?.map(|stored| stored.value::<u64>());
    part.put(kind, &(before.transpose()?.unwrap_or_default() + 1))?;
    if let Change::Claimed { user, .. } = change {
        let services = part.services_of_user(user);
        let event = json!({"type": "org.example.msc9903.claimed", "content": {"user_id": user}});
        part.send_ephemeral(&services, user, &event)?;
    }
    Ok(())
}

fn check(new: &mut NewEvent<'_, '_>) -> actors::Result<()> {
    let rules = new.state("m.room.join_rules", "")?;
    let is_public = rules.is_some_and(|r: Value| r["join_rule"] == "public");
    let makes_secret = new.event.kind == "m.room.create"
        && new.event.content.contains_key("org.example.msc9903.secret");
    if makes_secret || new.event.kind == "m.secret" && is_public {
        return Err(Refusal::OfProposal {
            status: 403,
            errcode: "ORG.EXAMPLE.MSC9903.M_TOO_PUBLIC",
            error: "everybody can join this room".into(),
        }
        .into());
    }
    Ok(())
}
