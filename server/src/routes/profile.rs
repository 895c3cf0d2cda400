//! Profiles. ([spec])
//!
//! `displayname` and `avatar_url` are fields like any other; the paths with these names are those of the fields.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#profiles

use actors::accounts::{SetProfile, queries};
use actors::ask;
use actors::rooms::ProfileChanged;
use ruma::OwnedUserId;
use ruma::api::client::profile::{
    delete_profile_field, get_profile, get_profile_field, set_profile_field,
};
use ruma::profile::{ProfileFieldValue, UserProfile};
use serde_json::Value;

use super::bodies::OfField;
use super::questions;
use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::http::registry::Routes;
use crate::state::App;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .on(get)
        .on(get_field)
        .on(put_field)
        .content()
        .on(delete_field)
}

/// All fields of a profile.
///
/// `GET /_matrix/client/*/profile/{userId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuserid
async fn get(
    app: App,
    caller: Caller,
    request: get_profile::v3::Request,
) -> Result<get_profile::v3::Response> {
    questions::about_users(&app, &caller, [&*request.user_id]).await?;
    let fields = queries::profile(&app.actors.env, &request.user_id).await?;
    let mut response = get_profile::v3::Response::new();
    response.data = fields.into_iter().collect::<UserProfile>();
    Ok(response)
}

/// One field of a profile.
///
/// `GET /_matrix/client/*/profile/{userId}/{keyName}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuseridkeyname
async fn get_field(
    app: App,
    caller: Caller,
    request: get_profile_field::v3::Request,
) -> Result<get_profile_field::v3::Response> {
    questions::about_users(&app, &caller, [&*request.user_id]).await?;
    let name = request.field.as_str();
    let value = queries::profile_field(&app.actors.env, &request.user_id, name).await?;
    let value = ProfileFieldValue::new(name, value).map_err(actors::Error::from)?;
    Ok(get_profile_field::v3::Response::new(value))
}

/// Set one field of a profile.
///
/// `PUT /_matrix/client/*/profile/{userId}/{keyName}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3profileuseridkeyname
async fn put_field(
    app: App,
    caller: Caller,
    OfField(request): OfField<set_profile_field::v3::Request>,
) -> Result<set_profile_field::v3::Response> {
    let name = request.value.field_name().as_str().to_owned();
    let value = request.value.value().into_owned();
    change(&app, &caller, request.user_id, name, Some(value)).await?;
    Ok(set_profile_field::v3::Response::new())
}

/// Delete one field of a profile.
///
/// `DELETE /_matrix/client/*/profile/{userId}/{keyName}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3profileuseridkeyname
async fn delete_field(
    app: App,
    caller: Caller,
    request: delete_profile_field::v3::Request,
) -> Result<delete_profile_field::v3::Response> {
    let name = request.field.as_str().to_owned();
    change(&app, &caller, request.user_id, name, None).await?;
    Ok(delete_profile_field::v3::Response::new())
}

/// Two actors own the data that changes, so two messages are sent: the first changes the profile, the second sends member events
/// with the new profile to the user's rooms.
async fn change(
    app: &App,
    caller: &Caller,
    user: OwnedUserId,
    field: String,
    value: Option<Value>,
) -> Result<()> {
    let message = SetProfile {
        who: caller.identity()?.clone(),
        user: user.clone(),
        field,
        value,
    };
    ask(&app.actors.accounts, message).await?;
    ask(&app.actors.rooms, ProfileChanged { user }).await?;
    Ok(())
}
