//! Rooms as a whole: their creation, the rooms of the caller, and the members and aliases of a room.

use std::collections::BTreeMap;

use actors::ask;
use actors::rooms::{CreateRoom, InitialState, Preset, queries, rules};
use ruma::api::client::membership::{get_member_events, joined_members, joined_rooms};
use ruma::api::client::peeking::get_current_state;
use ruma::api::client::room::{Visibility, aliases, create_room};
use ruma::serde::Raw;
use serde_json::value::RawValue;

use super::questions;
use crate::http::answer::Json;
use crate::http::caller::Caller;
use crate::http::error::{Error, Result};
use crate::http::limits::LARGE_BODY;
use crate::http::registry::Routes;
use crate::state::App;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .on(create)
        .takes(LARGE_BODY)
        .content()
        .on(joined)
        .on_json(members_joined)
        .on(members)
        .on(names)
        .on(initial_sync)
}

/// Create a room.
///
/// `POST /_matrix/client/*/createRoom` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom
async fn create(
    app: App,
    caller: Caller,
    request: create_room::v3::Request,
) -> Result<create_room::v3::Response> {
    if !request.invite_3pid.is_empty() {
        return Err(Error::Request(
            403,
            "M_FORBIDDEN",
            "there is no identity server to invite through".to_owned(),
        ));
    }
    let preset = match request.preset {
        None => None,
        Some(create_room::v3::RoomPreset::PrivateChat) => Some(Preset::Private),
        Some(create_room::v3::RoomPreset::TrustedPrivateChat) => Some(Preset::Trusted),
        Some(create_room::v3::RoomPreset::PublicChat) => Some(Preset::Public),
        Some(other) => return Err(Error::invalid_param(format!("unknown preset {other}"))),
    };
    let by = caller.identity()?.clone();
    let invited = request.invite.iter().map(|user| &**user);
    questions::about_users(&app, &caller, invited).await?;
    let wishes = CreateRoom {
        by,
        version: request.room_version.map(|v| v.to_string()),
        preset,
        public: request.visibility == Visibility::Public,
        creation_content: request.creation_content.map(Raw::into_json),
        initial_state: request
            .initial_state
            .iter()
            .map(|event| initial_state(event.json()))
            .collect::<Result<_>>()?,
        invite: request.invite,
        is_direct: request.is_direct,
        name: request.name,
        topic: request.topic,
        alias: request.room_alias_name,
        power_levels: request.power_level_content_override.map(Raw::into_json),
    };
    let room = ask(&app.actors.rooms, wishes).await?;
    Ok(create_room::v3::Response::new(room))
}

fn initial_state(event: &RawValue) -> Result<InitialState> {
    #[derive(serde::Deserialize)]
    struct Event {
        r#type: String,
        #[serde(default)]
        state_key: String,
        content: Box<RawValue>,
    }
    let event: Event = serde_json::from_str(event.get())
        .map_err(|e| Error::Request(400, "M_BAD_JSON", format!("initial_state: {e}")))?;
    Ok(InitialState {
        kind: event.r#type,
        state_key: event.state_key,
        content: event.content,
    })
}

/// The rooms that the caller is joined to.
///
/// `GET /_matrix/client/*/joined_rooms` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3joined_rooms
async fn joined(
    app: App,
    caller: Caller,
    _: joined_rooms::v3::Request,
) -> Result<joined_rooms::v3::Response> {
    let rooms = queries::joined_rooms(&app.actors.env, &caller.identity()?.user).await?;
    Ok(joined_rooms::v3::Response::new(rooms))
}

/// The joined members of a room, with display names and avatars. Missing ones are `null`, because some clients require the keys.
///
/// `GET /_matrix/client/*/rooms/{roomId}/joined_members` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidjoined_members
async fn members_joined(
    app: App,
    caller: Caller,
    request: joined_members::v3::Request,
) -> Result<Json> {
    #[derive(serde::Serialize)]
    struct Member {
        display_name: Option<String>,
        avatar_url: Option<String>,
    }
    #[derive(serde::Serialize)]
    struct Answer {
        joined: BTreeMap<String, Member>,
    }
    let by = caller.identity()?;
    let rows = queries::joined_members(&app.actors.env, by, &request.room_id).await?;
    let joined = rows.into_iter().map(|row| {
        let member = Member {
            display_name: row.display_name,
            avatar_url: row.avatar_url,
        };
        (row.user_id, member)
    });
    Json::write(&Answer {
        joined: joined.collect(),
    })
}

/// The member events of a room.
///
/// `GET /_matrix/client/*/rooms/{roomId}/members` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers
async fn members(
    app: App,
    caller: Caller,
    request: get_member_events::v3::Request,
) -> Result<get_member_events::v3::Response> {
    let criteria = queries::MemberCriteria {
        at: request.at.as_deref().map(rules::parse_token).transpose()?,
        with: request.membership.map(|m| m.to_string()),
        without: request.not_membership.map(|m| m.to_string()),
    };
    let by = caller.identity()?;
    let events = queries::members(&app.actors.env, by, &request.room_id, criteria).await?;
    let chunk = events.into_iter().map(Raw::from_json).collect();
    Ok(get_member_events::v3::Response::new(chunk))
}

/// The aliases of a room on this server.
///
/// `GET /_matrix/client/*/rooms/{roomId}/aliases` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidaliases
async fn names(
    app: App,
    caller: Caller,
    request: aliases::v3::Request,
) -> Result<aliases::v3::Response> {
    let by = caller.identity()?;
    let aliases = queries::aliases_of(&app.actors.env, by, &request.room_id).await?;
    Ok(aliases::v3::Response::new(aliases))
}

/// A summary of a room. Some clients use it to find out whether they may see the room.
///
/// `GET /_matrix/client/*/rooms/{roomId}/initialSync` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidinitialsync
async fn initial_sync(
    app: App,
    caller: Caller,
    request: get_current_state::v3::Request,
) -> Result<get_current_state::v3::Response> {
    let by = caller.identity()?;
    let found = queries::initial_sync(&app.actors.env, by, &request.room_id).await?;
    let chunk = found.chunk.into_iter().map(Raw::from_json).collect();
    let mut messages = get_current_state::v3::PaginationChunk::new(chunk, found.end);
    messages.start = Some(found.start);
    let mut response = get_current_state::v3::Response::new(request.room_id);
    response.membership = found.membership.map(Into::into);
    response.messages = Some(messages);
    response.state = found.state.into_iter().map(Raw::from_json).collect();
    response.visibility = Some(if found.is_listed {
        Visibility::Public
    } else {
        Visibility::Private
    });
    let account_data = found.account_data.into_iter();
    response.account_data = account_data.map(Raw::from_json).collect();
    Ok(response)
}
