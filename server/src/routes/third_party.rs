//! Third-party networks, as described by the appservices that bridge to them. ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#third-party-networks

use std::collections::BTreeMap;

use actors::appservice_queries::{ThirdPartyKind, third_party};
use ruma::api::client::thirdparty::{
    get_location_for_protocol, get_location_for_room_alias, get_protocol, get_protocols,
    get_user_for_protocol, get_user_for_user_id,
};

use crate::http::answer::Json;
use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::http::registry::Routes;
use crate::state::App;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .on_json(protocols)
        .on_json(protocol)
        .on_json(users)
        .on_json(locations)
        .on_json(behind_user)
        .on_json(behind_alias)
}

/// All protocols.
///
/// `GET /_matrix/client/*/thirdparty/protocols` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyprotocols
async fn protocols(app: App, caller: Caller, _: get_protocols::v3::Request) -> Result<Json> {
    caller.limit_questions(1)?;
    let (env, to) = (&app.actors.env, &app.actors.appservice_queries);
    let found = app.outside(third_party::protocols(env, to)).await?;
    Json::write(&found)
}

/// One protocol. Clause: as.network.unknown
///
/// `GET /_matrix/client/*/thirdparty/protocol/{protocol}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyprotocolprotocol
async fn protocol(app: App, caller: Caller, request: get_protocol::v3::Request) -> Result<Json> {
    caller.limit_questions(1)?;
    let (env, to) = (&app.actors.env, &app.actors.appservice_queries);
    let found = app
        .outside(third_party::protocol(env, to, &request.protocol))
        .await?;
    Json::write(&found)
}

/// The users with these fields on a network.
///
/// `GET /_matrix/client/*/thirdparty/user/{protocol}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyuserprotocol
async fn users(
    app: App,
    caller: Caller,
    request: get_user_for_protocol::v3::Request,
) -> Result<Json> {
    look_up(
        &app,
        &caller,
        ThirdPartyKind::User,
        &request.protocol,
        request.fields,
    )
    .await
}

/// The rooms with these fields on a network.
///
/// `GET /_matrix/client/*/thirdparty/location/{protocol}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartylocationprotocol
async fn locations(
    app: App,
    caller: Caller,
    request: get_location_for_protocol::v3::Request,
) -> Result<Json> {
    let (protocol, fields) = (request.protocol, request.fields);
    look_up(&app, &caller, ThirdPartyKind::Location, &protocol, fields).await
}

async fn look_up(
    app: &App,
    caller: &Caller,
    kind: ThirdPartyKind,
    protocol: &str,
    mut fields: BTreeMap<String, String>,
) -> Result<Json> {
    caller.limit_questions(1)?;
    // All query parameters are fields, except those that identify the caller. In particular, the access token must not reach the
    // appservice.
    fields.retain(|name, _| !caller.is_asserted_by(name));
    let (env, to) = (&app.actors.env, &app.actors.appservice_queries);
    let found = third_party::look_up(env, to, kind, protocol, &fields);
    Json::write(&app.outside(found).await?)
}

/// The third-party users behind a Matrix user.
///
/// `GET /_matrix/client/*/thirdparty/user` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyuser
async fn behind_user(
    app: App,
    caller: Caller,
    request: get_user_for_user_id::v3::Request,
) -> Result<Json> {
    caller.limit_questions(1)?;
    let (env, to) = (&app.actors.env, &app.actors.appservice_queries);
    let found = third_party::behind_user(env, to, &request.userid);
    Json::write(&app.outside(found).await?)
}

/// The third-party rooms behind a room alias.
///
/// `GET /_matrix/client/*/thirdparty/location` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartylocation
async fn behind_alias(
    app: App,
    caller: Caller,
    request: get_location_for_room_alias::v3::Request,
) -> Result<Json> {
    caller.limit_questions(1)?;
    let (env, to) = (&app.actors.env, &app.actors.appservice_queries);
    let found = third_party::behind_alias(env, to, &request.alias);
    Json::write(&app.outside(found).await?)
}
