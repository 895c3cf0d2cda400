//! Explains what happens to a to-device message, and why.

use actors::Refusal;
use actors::to_device_inbox::queries;
use ruma::UserId;

use crate::http::answer::Json;
use crate::http::caller::Caller;
use crate::http::error::{Error, Result};
use crate::http::incoming::Raw;
use crate::state::App;

/// For each appservice, whether it gets copies of messages to a device, with the rule or the reason why not; and the to-device
/// messages that wait for the device now: `GET /_understudy/explain?user=@bob:test&device=DEV`.
pub(super) async fn explain(app: App, _: Caller, request: Raw) -> Result<Json> {
    let param = |name: &'static str| {
        let missing = || Refusal::MissingParam(format!("{name} is missing").into());
        request.param(name).ok_or_else(missing)
    };
    let user =
        UserId::parse(param("user")?).map_err(|e| Error::invalid_param(format!("user: {e}")))?;
    let explained = queries::explain(&app.actors.env, &user, param("device")?.into()).await?;
    Json::write(&explained)
}
