//! Room aliases, the public room directory, and the user directory.

use actors::rooms::{DeleteAlias, PutAlias, SetListed, queries};
use actors::{Refusal, ask};
use ruma::api::client::alias::{create_alias, delete_alias, get_alias};
use ruma::api::client::directory::{
    get_public_rooms, get_public_rooms_filtered, get_room_visibility, set_room_visibility,
};
use ruma::api::client::room::Visibility;
use ruma::api::client::user_directory::search_users;
use ruma::directory::Filter;
use ruma::{OwnedServerName, UInt};

use super::questions;
use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::http::registry::Routes;
use crate::state::App;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .on(resolve)
        .on(put)
        .on(delete)
        .on(listed)
        .on(list)
        .empty()
        .on(public)
        .on(public_filtered)
        .reads()
        .on(users)
        .reads()
}

/// The room that an alias points to.
///
/// `GET /_matrix/client/*/directory/room/{roomAlias}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directoryroomroomalias
async fn resolve(
    app: App,
    caller: Caller,
    request: get_alias::v3::Request,
) -> Result<get_alias::v3::Response> {
    let env = &app.actors.env;
    questions::about_alias(&app, &caller, &request.room_alias).await?;
    let room = queries::room_named(env, &request.room_alias).await?;
    let servers = vec![env.settings.server_name.clone()];
    Ok(get_alias::v3::Response::new(room, servers))
}

/// Point an alias to a room.
///
/// `PUT /_matrix/client/*/directory/room/{roomAlias}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directoryroomroomalias
async fn put(
    app: App,
    caller: Caller,
    request: create_alias::v3::Request,
) -> Result<create_alias::v3::Response> {
    let put = PutAlias {
        by: caller.identity()?.clone(),
        alias: request.room_alias,
        room: request.room_id,
    };
    ask(&app.actors.rooms, put).await?;
    Ok(create_alias::v3::Response::new())
}

/// Delete an alias.
///
/// `DELETE /_matrix/client/*/directory/room/{roomAlias}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3directoryroomroomalias
async fn delete(
    app: App,
    caller: Caller,
    request: delete_alias::v3::Request,
) -> Result<delete_alias::v3::Response> {
    let by = caller.identity()?.clone();
    let alias = request.room_alias;
    ask(&app.actors.rooms, DeleteAlias { by, alias }).await?;
    Ok(delete_alias::v3::Response::new())
}

/// Whether the directory lists a room.
///
/// `GET /_matrix/client/*/directory/list/room/{roomId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directorylistroomroomid
async fn listed(
    app: App,
    _: Caller,
    request: get_room_visibility::v3::Request,
) -> Result<get_room_visibility::v3::Response> {
    let visibility = if queries::is_listed(&app.actors.env, &request.room_id).await? {
        Visibility::Public
    } else {
        Visibility::Private
    };
    Ok(get_room_visibility::v3::Response::new(visibility))
}

/// List a room in the directory, or remove it from there.
///
/// `PUT /_matrix/client/*/directory/list/room/{roomId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directorylistroomroomid
async fn list(
    app: App,
    caller: Caller,
    request: set_room_visibility::v3::Request,
) -> Result<set_room_visibility::v3::Response> {
    let set = SetListed {
        by: caller.identity()?.clone(),
        room: request.room_id,
        listed: request.visibility == Visibility::Public,
    };
    ask(&app.actors.rooms, set).await?;
    Ok(set_room_visibility::v3::Response::new())
}

async fn page(
    app: &App,
    server: Option<OwnedServerName>,
    filter: Filter,
    since: Option<String>,
    limit: Option<UInt>,
) -> Result<queries::PublicRooms> {
    let env = &app.actors.env;
    if server.is_some_and(|server| server != env.settings.server_name) {
        return Err(Refusal::NotFound("this server does not federate".into()).into());
    }
    let limit = limit.and_then(|l| usize::try_from(u64::from(l)).ok());
    let criteria = queries::DirectoryCriteria {
        search: filter.generic_search_term,
        types: filter.room_types,
    };
    Ok(queries::public_rooms(env, criteria, since, limit).await?)
}

/// A page of the room directory.
///
/// `GET /_matrix/client/*/publicRooms` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3publicrooms
async fn public(
    app: App,
    _: Caller,
    request: get_public_rooms::v3::Request,
) -> Result<get_public_rooms::v3::Response> {
    let found = page(
        &app,
        request.server,
        Filter::new(),
        request.since,
        request.limit,
    )
    .await?;
    let mut response = get_public_rooms::v3::Response::new(found.chunk);
    response.next_batch = found.next;
    response.total_room_count_estimate = UInt::try_from(found.total).ok();
    Ok(response)
}

/// A page of the room directory, filtered.
///
/// `POST /_matrix/client/*/publicRooms` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3publicrooms
async fn public_filtered(
    app: App,
    _: Caller,
    request: get_public_rooms_filtered::v3::Request,
) -> Result<get_public_rooms_filtered::v3::Response> {
    let found = page(
        &app,
        request.server,
        request.filter,
        request.since,
        request.limit,
    )
    .await?;
    let mut response = get_public_rooms_filtered::v3::Response::new();
    response.chunk = found.chunk;
    response.next_batch = found.next;
    response.total_room_count_estimate = UInt::try_from(found.total).ok();
    Ok(response)
}

/// Search the users that share a room with the caller or are in a public room.
///
/// `POST /_matrix/client/*/user_directory/search` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3user_directorysearch
async fn users(
    app: App,
    caller: Caller,
    request: search_users::v3::Request,
) -> Result<search_users::v3::Response> {
    let limit = usize::try_from(u64::from(request.limit)).unwrap_or(usize::MAX);
    let by = &caller.identity()?.user;
    let found = queries::users(&app.actors.env, by, &request.search_term, limit).await?;
    let results = found.users.into_iter().map(|user| {
        let mut shown = search_users::v3::User::new(user.user);
        shown.display_name = user.display_name;
        shown.avatar_url = user.avatar_url.map(Into::into);
        shown
    });
    Ok(search_users::v3::Response::new(
        results.collect(),
        found.limited,
    ))
}
