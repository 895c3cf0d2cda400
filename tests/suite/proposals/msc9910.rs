//! MSC9910, made up for this suite — account data that deletes itself: global data of one type is emptied once all devices of the user have
//! seen it.

use actors::hooks::{Change, Part, ProposalHooks};
use schema::{Position, accounts};
use serde_json::json;
use understudy::mscs::Msc;

/// The data sheet.
pub(super) static MSC: Msc = Msc {
    title: "Account data that deletes itself",
    hooks: ProposalHooks {
        number: 9910,
        follows_syncs: true,
        changed: Some(changed),
        ..ProposalHooks::NONE
    },
    ..Msc::NONE
};

const FAREWELL: &str = "org.example.msc9910.farewell";

// ANCHOR: changed
fn changed(part: &mut Part<'_, '_>, change: &Change<'_>) -> actors::Result<()> {
    match change {
        Change::AccountData { user, kind, .. } if *kind == FAREWELL => {
            part.put(&format!("unseen|{user}"), &true)?;
        }
        Change::Synced {
            user,
            device,
            up_to,
        } => {
            let Some(unseen) = part.get(&format!("unseen|{user}"))? else {
                return Ok(());
            };
            part.put(&format!("{user}|{device}"), &up_to.0)?;
            for to in accounts::devices_of(part.db(), &[user])? {
                let seen = part.get(&format!("{user}|{}", to.device.device_id))?;
                let seen = seen.map(|seen| seen.value().map(Position)).transpose()?;
                if seen.is_none_or(|seen| seen < unseen.position) {
                    return Ok(());
                }
            }
            part.delete(&unseen.key)?;
            part.put_account_data(user, "", FAREWELL, &json!({}))?;
        }
        _ => {}
    }
    Ok(())
}
// ANCHOR_END: changed
