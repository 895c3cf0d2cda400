//! MSC9908, made up for this suite — encrypted messages only for devices that can read them: a device without keys gets none.

use actors::hooks::{NewMessage, ProposalHooks};
use schema::keys;
use understudy::http::around::{Answer, Next, Seen};
use understudy::http::caller::Caller;
use understudy::http::error::Result;
use understudy::mscs::Msc;
use understudy::state::App;

/// The data sheet.
pub(super) static MSC: Msc = Msc {
    title: "Encrypted messages only for devices with keys",
    routes: |routes| routes.around("PUT", "/sendToDevice/{type}/{txn}", around),
    hooks: ProposalHooks {
        number: 9908,
        check_message: Some(check),
        ..ProposalHooks::NONE
    },
    ..Msc::NONE
};

const ANYWAY: &str = "org.example.msc9908.anyway";

async fn around(_: App, _: Caller, mut request: Seen, next: Next) -> Result<Answer> {
    if request.take_param(ANYWAY).is_some() {
        request.carried.insert(ANYWAY.to_owned(), true.into());
    }
    next.run(request).await
}

// ANCHOR: check
fn check(new: &mut NewMessage<'_, '_>) -> actors::Result<Option<&'static str>> {
    let (user, device) = (new.user, new.device);
    let is_lost = new.kind == "m.room.encrypted"
        && new.carried(ANYWAY).is_none()
        && keys::device_keys(new.db(), user, device)?.is_none();
    Ok(is_lost.then_some("the device has no keys"))
}
// ANCHOR_END: check
