//! Data that clients store with an account: account data, tags, filters. ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#client-config

use actors::accounts::{SetAccountData, SetFilter, SetTag, queries};
use actors::ask;
use ruma::UserId;
use ruma::api::client::config::{
    get_global_account_data, get_room_account_data, set_global_account_data, set_room_account_data,
};
use ruma::api::client::filter::{FilterDefinition, get_filter};
use ruma::api::client::tag::{create_tag, delete_tag, get_tags};
use ruma::serde::Raw as RawJson;
use serde_json::{Value, json};

use super::bodies::Kept;
use crate::http::answer::Json;
use crate::http::caller::{Auth, Caller};
use crate::http::error::{Error, Result};
use crate::http::incoming::{Raw, variable};
use crate::http::registry::Routes;
use crate::state::App;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    let routes = routes
        .on_path(get_global)
        .on_path(put_global)
        .content()
        .on_path(get_of_room)
        .on_path(put_of_room)
        .content()
        .on_json(tags)
        .on(put_tag)
        .empty()
        .on(delete_tag)
        .on_json(filter);
    ["/_matrix/client/v3", "/_matrix/client/r0"]
        .into_iter()
        .fold(routes, |routes, version| {
            let path = format!("{version}/user/{{user_id}}/filter");
            routes.raw("POST", &path, Auth::User, put_filter)
        })
}

/// Get global account data.
///
/// `GET /_matrix/client/*/user/{userId}/account_data/{type}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridaccount_datatype
async fn get_global(
    app: App,
    caller: Caller,
    path: Vec<String>,
    request: get_global_account_data::v3::Request,
) -> Result<get_global_account_data::v3::Response> {
    let (requester, owner) = (&caller.identity()?.user, &request.user_id);
    let kind = variable(path, 1);
    let content = queries::account_data(&app.actors.env, requester, owner, None, &kind).await?;
    Ok(get_global_account_data::v3::Response::new(
        RawJson::from_json(content),
    ))
}

/// Set global account data.
///
/// `PUT /_matrix/client/*/user/{userId}/account_data/{type}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridaccount_datatype
async fn put_global(
    app: App,
    caller: Caller,
    path: Vec<String>,
    request: set_global_account_data::v3::Request,
) -> Result<set_global_account_data::v3::Response> {
    let message = SetAccountData {
        who: caller.identity()?.clone(),
        user: request.user_id,
        room: None,
        kind: variable(path, 1),
        content: request.data.into_json(),
    };
    ask(&app.actors.accounts, message).await?;
    Ok(set_global_account_data::v3::Response::new())
}

/// Get account data of a room.
///
/// `GET /_matrix/client/*/user/{userId}/rooms/{roomId}/account_data/{type}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridroomsroomidaccount_datatype
async fn get_of_room(
    app: App,
    caller: Caller,
    path: Vec<String>,
    request: get_room_account_data::v3::Request,
) -> Result<get_room_account_data::v3::Response> {
    let (requester, owner) = (&caller.identity()?.user, &request.user_id);
    let (room, kind) = (Some(&*request.room_id), variable(path, 2));
    let content = queries::account_data(&app.actors.env, requester, owner, room, &kind).await?;
    Ok(get_room_account_data::v3::Response::new(
        RawJson::from_json(content),
    ))
}

/// Set account data of a room.
///
/// `PUT /_matrix/client/*/user/{userId}/rooms/{roomId}/account_data/{type}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridroomsroomidaccount_datatype
async fn put_of_room(
    app: App,
    caller: Caller,
    path: Vec<String>,
    request: set_room_account_data::v3::Request,
) -> Result<set_room_account_data::v3::Response> {
    let message = SetAccountData {
        who: caller.identity()?.clone(),
        user: request.user_id,
        room: Some(request.room_id),
        kind: variable(path, 2),
        content: request.data.into_json(),
    };
    ask(&app.actors.accounts, message).await?;
    Ok(set_room_account_data::v3::Response::new())
}

/// The tags of a room.
///
/// `GET /_matrix/client/*/user/{userId}/rooms/{roomId}/tags` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridroomsroomidtags
async fn tags(app: App, caller: Caller, request: get_tags::v3::Request) -> Result<Json> {
    let (requester, owner) = (&caller.identity()?.user, &request.user_id);
    let tags = queries::tags(&app.actors.env, requester, owner, &request.room_id).await?;
    Ok(Json(json!({"tags": tags}).to_string()))
}

/// Set a tag of a room.
///
/// `PUT /_matrix/client/*/user/{userId}/rooms/{roomId}/tags/{tag}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridroomsroomidtagstag
async fn put_tag(
    app: App,
    caller: Caller,
    Kept { request, body }: Kept<create_tag::v3::Request>,
) -> Result<create_tag::v3::Response> {
    let info = serde_json::from_str(body.get()).map_err(actors::Error::from)?;
    let message = SetTag {
        who: caller.identity()?.clone(),
        user: request.user_id,
        room: request.room_id,
        tag: request.tag,
        info: Some(info),
    };
    ask(&app.actors.accounts, message).await?;
    Ok(create_tag::v3::Response::new())
}

/// Delete a tag of a room.
///
/// `DELETE /_matrix/client/*/user/{userId}/rooms/{roomId}/tags/{tag}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3useruseridroomsroomidtagstag
async fn delete_tag(
    app: App,
    caller: Caller,
    request: delete_tag::v3::Request,
) -> Result<delete_tag::v3::Response> {
    let message = SetTag {
        who: caller.identity()?.clone(),
        user: request.user_id,
        room: request.room_id,
        tag: request.tag,
        info: None,
    };
    ask(&app.actors.accounts, message).await?;
    Ok(delete_tag::v3::Response::new())
}

/// Store a filter, with the keys that ruma does not know: a proposal may.
///
/// `POST /_matrix/client/*/user/{userId}/filter` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter
async fn put_filter(app: App, caller: Caller, request: Raw) -> Result<Json> {
    let user = UserId::parse(&*request.path[0]).map_err(|e| Error::invalid_param(e.to_string()))?;
    let _: FilterDefinition = request.json()?;
    let message = SetFilter {
        who: caller.identity()?.clone(),
        user,
        filter: request.json::<Value>()?.to_string(),
    };
    let id = ask(&app.actors.accounts, message).await?;
    Json::write(&json!({"filter_id": id}))
}

/// Get a filter.
///
/// `GET /_matrix/client/*/user/{userId}/filter/{filterId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridfilterfilterid
async fn filter(app: App, caller: Caller, request: get_filter::v3::Request) -> Result<Json> {
    let (requester, owner) = (&caller.identity()?.user, &request.user_id);
    let filter = queries::filter(&app.actors.env, requester, owner, &request.filter_id).await?;
    Ok(Json(filter))
}
