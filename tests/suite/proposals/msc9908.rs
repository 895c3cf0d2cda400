//! MSC9908, made up for this suite — encrypted messages only for devices that can read them: a device without keys gets none.

use actors::hooks::{NewMessage, ProposalHooks};
use schema::keys;
use understudy::mscs::Msc;

/// The data sheet.
pub(super) static MSC: Msc = Msc {
    title: "Encrypted messages only for devices with keys",
    hooks: ProposalHooks {
        number: 9908,
        check_message: Some(check),
        ..ProposalHooks::NONE
    },
    ..Msc::NONE
};

// ANCHOR: check
fn check(new: &mut NewMessage<'_, '_>) -> actors::Result<Option<&'static str>> {
    let (user, device) = (new.user, new.device);
    let is_lost =
        new.kind == "m.room.encrypted" && keys::device_keys(new.db(), user, device)?.is_none();
    Ok(is_lost.then_some("the device has no keys"))
}
// ANCHOR_END: check
