//! Key backups: their versions, and the session keys in each version.

use actors::ask;
use actors::key_store::queries::{self, Backup};
use actors::key_store::{
    BackupState, CreateBackup, DeleteBackup, DeleteSessions, SessionSelection, Sessions,
    StoreSessions, UpdateBackup,
};
use ruma::OwnedUserId;
use ruma::api::client::backup::{
    add_backup_keys, add_backup_keys_for_room, add_backup_keys_for_session, create_backup_version,
    delete_backup_keys, delete_backup_keys_for_room, delete_backup_keys_for_session,
    delete_backup_version, get_backup_info, get_backup_keys, get_backup_keys_for_room,
    get_backup_keys_for_session, get_latest_backup_info, update_backup_version,
};
use ruma::serde::Raw;
use serde_json::value::RawValue;

use crate::http::answer::Pieces;
use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::http::limits::LARGE_BODY;
use crate::http::registry::Routes;
use crate::state::App;

mod sessions;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    let versions = routes
        .on(create)
        .on(current)
        .on(version)
        .on(update)
        .on(delete);
    let stored = versions
        .on(put_all)
        .takes(LARGE_BODY)
        .content()
        .on(put_room)
        .takes(LARGE_BODY)
        .content()
        .on(put_session)
        .content();
    let read = stored
        .on_pieces(get_all)
        .on_pieces(get_room)
        .on(get_session);
    read.on(delete_all).on(delete_room).on(delete_session)
}

fn user(caller: &Caller) -> Result<OwnedUserId> {
    Ok(caller.identity()?.user.clone())
}

/// Create a backup version, which becomes the current one.
///
/// `POST /_matrix/client/*/room_keys/version` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3room_keysversion
async fn create(
    app: App,
    caller: Caller,
    request: create_backup_version::v3::Request,
) -> Result<create_backup_version::v3::Response> {
    let create = CreateBackup {
        user: user(&caller)?,
        description: request.algorithm.into_json(),
    };
    let version = ask(&app.actors.key_store, create).await?;
    Ok(create_backup_version::v3::Response::new(version))
}

/// The current version of the caller's key backup.
///
/// `GET /_matrix/client/*/room_keys/version` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keysversion
async fn current(
    app: App,
    caller: Caller,
    _: get_latest_backup_info::v3::Request,
) -> Result<get_latest_backup_info::v3::Response> {
    let Backup {
        version,
        description,
        state,
    } = queries::backup(&app.actors.env, &user(&caller)?, None).await?;
    Ok(get_latest_backup_info::v3::Response::new(
        Raw::from_json(description),
        state.count,
        state.etag,
        version,
    ))
}

/// One version of the caller's key backup.
///
/// `GET /_matrix/client/*/room_keys/version/{version}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keysversionversion
async fn version(
    app: App,
    caller: Caller,
    request: get_backup_info::v3::Request,
) -> Result<get_backup_info::v3::Response> {
    let Backup {
        version,
        description,
        state,
    } = queries::backup(&app.actors.env, &user(&caller)?, Some(request.version)).await?;
    Ok(get_backup_info::v3::Response::new(
        Raw::from_json(description),
        state.count,
        state.etag,
        version,
    ))
}

/// Replace the `auth_data` of a backup version.
///
/// `PUT /_matrix/client/*/room_keys/version/{version}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keysversionversion
async fn update(
    app: App,
    caller: Caller,
    request: update_backup_version::v3::Request,
) -> Result<update_backup_version::v3::Response> {
    let update = UpdateBackup {
        user: user(&caller)?,
        version: request.version,
        description: request.algorithm.into_json(),
    };
    ask(&app.actors.key_store, update).await?;
    Ok(update_backup_version::v3::Response::new())
}

/// Delete a backup version and the session keys in it.
///
/// `DELETE /_matrix/client/*/room_keys/version/{version}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keysversionversion
async fn delete(
    app: App,
    caller: Caller,
    request: delete_backup_version::v3::Request,
) -> Result<delete_backup_version::v3::Response> {
    let delete = DeleteBackup {
        user: user(&caller)?,
        version: request.version,
    };
    ask(&app.actors.key_store, delete).await?;
    Ok(delete_backup_version::v3::Response::new())
}

async fn store(
    app: &App,
    caller: &Caller,
    version: String,
    rooms: Sessions,
) -> Result<BackupState> {
    let store = StoreSessions {
        user: user(caller)?,
        version,
        rooms,
    };
    Ok(ask(&app.actors.key_store, store).await?)
}

/// Store session keys of any rooms in a key backup.
///
/// `PUT /_matrix/client/*/room_keys/keys` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeys
async fn put_all(
    app: App,
    caller: Caller,
    request: add_backup_keys::v3::Request,
) -> Result<add_backup_keys::v3::Response> {
    let rooms = request.rooms.into_iter();
    let rooms = rooms.map(|(room, backup)| (room, bytes(backup.sessions)));
    let state = store(&app, &caller, request.version, rooms.collect()).await?;
    Ok(add_backup_keys::v3::Response::new(state.etag, state.count))
}

fn bytes<T>(
    sessions: impl IntoIterator<Item = (String, Raw<T>)>,
) -> std::collections::BTreeMap<String, Box<RawValue>> {
    let sessions = sessions.into_iter();
    sessions.map(|(id, key)| (id, key.into_json())).collect()
}

/// Store session keys of one room in a key backup.
///
/// `PUT /_matrix/client/*/room_keys/keys/{roomId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeysroomid
async fn put_room(
    app: App,
    caller: Caller,
    request: add_backup_keys_for_room::v3::Request,
) -> Result<add_backup_keys_for_room::v3::Response> {
    let rooms = Sessions::from([(request.room_id, bytes(request.sessions))]);
    let state = store(&app, &caller, request.version, rooms).await?;
    Ok(add_backup_keys_for_room::v3::Response::new(
        state.etag,
        state.count,
    ))
}

/// Store the key of one session in a key backup.
///
/// `PUT /_matrix/client/*/room_keys/keys/{roomId}/{sessionId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeysroomidsessionid
async fn put_session(
    app: App,
    caller: Caller,
    request: add_backup_keys_for_session::v3::Request,
) -> Result<add_backup_keys_for_session::v3::Response> {
    let session = [(request.session_id, request.session_data)];
    let rooms = Sessions::from([(request.room_id, bytes(session))]);
    let state = store(&app, &caller, request.version, rooms).await?;
    Ok(add_backup_keys_for_session::v3::Response::new(
        state.etag,
        state.count,
    ))
}

/// The session keys of all rooms in a key backup.
///
/// `GET /_matrix/client/*/room_keys/keys` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeys
async fn get_all(
    app: App,
    caller: Caller,
    request: get_backup_keys::v3::Request,
) -> Result<Pieces> {
    sessions::answer(&app, &user(&caller)?, request.version, None).await
}

/// The session keys of one room in a key backup.
///
/// `GET /_matrix/client/*/room_keys/keys/{roomId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeysroomid
async fn get_room(
    app: App,
    caller: Caller,
    request: get_backup_keys_for_room::v3::Request,
) -> Result<Pieces> {
    let room = Some(request.room_id);
    sessions::answer(&app, &user(&caller)?, request.version, room).await
}

/// The key of one session in a key backup.
///
/// `GET /_matrix/client/*/room_keys/keys/{roomId}/{sessionId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeysroomidsessionid
async fn get_session(
    app: App,
    caller: Caller,
    request: get_backup_keys_for_session::v3::Request,
) -> Result<get_backup_keys_for_session::v3::Response> {
    let user = user(&caller)?;
    let key = queries::session(
        &app.actors.env,
        &user,
        request.version,
        request.room_id,
        request.session_id,
    )
    .await?;
    Ok(get_backup_keys_for_session::v3::Response::new(
        Raw::from_json(key),
    ))
}

async fn forget(
    app: &App,
    caller: &Caller,
    version: String,
    part: SessionSelection,
) -> Result<BackupState> {
    let delete = DeleteSessions {
        user: user(caller)?,
        version,
        part,
    };
    Ok(ask(&app.actors.key_store, delete).await?)
}

/// Delete the session keys of all rooms from a key backup.
///
/// `DELETE /_matrix/client/*/room_keys/keys` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeys
async fn delete_all(
    app: App,
    caller: Caller,
    request: delete_backup_keys::v3::Request,
) -> Result<delete_backup_keys::v3::Response> {
    let state = forget(&app, &caller, request.version, SessionSelection::All).await?;
    Ok(delete_backup_keys::v3::Response::new(
        state.etag,
        state.count,
    ))
}

/// Delete the session keys of one room from a key backup.
///
/// `DELETE /_matrix/client/*/room_keys/keys/{roomId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeysroomid
async fn delete_room(
    app: App,
    caller: Caller,
    request: delete_backup_keys_for_room::v3::Request,
) -> Result<delete_backup_keys_for_room::v3::Response> {
    let part = SessionSelection::Room(request.room_id);
    let state = forget(&app, &caller, request.version, part).await?;
    Ok(delete_backup_keys_for_room::v3::Response::new(
        state.etag,
        state.count,
    ))
}

/// Delete the key of one session from a key backup.
///
/// `DELETE /_matrix/client/*/room_keys/keys/{roomId}/{sessionId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeysroomidsessionid
async fn delete_session(
    app: App,
    caller: Caller,
    request: delete_backup_keys_for_session::v3::Request,
) -> Result<delete_backup_keys_for_session::v3::Response> {
    let part = SessionSelection::Session(request.room_id, request.session_id);
    let state = forget(&app, &caller, request.version, part).await?;
    Ok(delete_backup_keys_for_session::v3::Response::new(
        state.etag,
        state.count,
    ))
}
