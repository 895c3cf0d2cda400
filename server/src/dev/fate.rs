//! What happened to an item and an appservice, and why a device cannot decrypt an event.

use actors::appservices::SenderStatuses;
use actors::inspection::{self, About, Undecryptable};
use actors::{Refusal, ask};
use schema::ServiceId;

use crate::http::answer::Json;
use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::http::incoming::Raw;
use crate::state::App;

fn wanted<'a>(request: &'a Raw, name: &'static str) -> Result<&'a str> {
    let missing = || Refusal::MissingParam(format!("{name} is missing").into());
    request.param(name).ok_or_else(|| missing().into())
}

/// What happened to an item, rule by rule: `GET /_understudy/fate?service=irc` with `event=$…`, with `to_device=` and the position
/// of a message or its `org.matrix.msgid`, with `user=` for a device list, or with `user=` and `device=` for key counts.
pub(super) async fn fate(app: App, _: Caller, request: Raw) -> Result<Json> {
    let service = ServiceId::from(wanted(&request, "service")?);
    let owned = |name: &str| request.param(name).map(str::to_owned);
    let about = match (
        owned("event"),
        owned("to_device"),
        owned("user"),
        owned("device"),
    ) {
        (Some(event), ..) => About::Event(event),
        (_, Some(message), ..) => About::ToDevice(message),
        (_, _, Some(user), Some(device)) => About::Keys(user, device),
        (_, _, Some(user), None) => About::DeviceList(user),
        _ => {
            return Err(Refusal::MissingParam("event, to_device or user is missing".into()).into());
        }
    };
    let statuses = ask(&app.actors.appservices, SenderStatuses)
        .await?
        .into_iter();
    let status = statuses
        .into_iter()
        .find(|status| status.service == service.as_str());
    Json::write(&inspection::fate(&app.actors.env, service, status, about).await?)
}

/// Why a device cannot decrypt an event: which devices of the user were sent something that can have been the room key, and what
/// became of it: `GET /_understudy/autopsy?event=$…&user=@bob:test`, or with `session=` for the newest event of a Megolm session;
/// `device=` asks about one device.
pub(super) async fn autopsy(app: App, _: Caller, request: Raw) -> Result<Json> {
    let which = match (request.param("event"), request.param("session")) {
        (Some(event), _) => Undecryptable::Event(event.to_owned()),
        (None, Some(session)) => Undecryptable::Session(session.to_owned()),
        (None, None) => {
            return Err(Refusal::MissingParam("event or session is missing".into()).into());
        }
    };
    let (user, device) = (
        wanted(&request, "user")?.to_owned(),
        request.param("device"),
    );
    let device = device.map(str::to_owned);
    let statuses = ask(&app.actors.appservices, SenderStatuses).await?;
    Json::write(&inspection::autopsy(&app.actors.env, which, user, device, statuses).await?)
}
