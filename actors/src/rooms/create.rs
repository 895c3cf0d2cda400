//! Creating a room with its initial state, in one write.

use actix::{Context, Handler, ResponseFuture};
use ruma::{OwnedRoomId, RoomAliasId, RoomId};
use schema::Tx;

use super::effects::Effects;
use super::members::content_for;
use super::messages::CreateRoom;
use super::names;
use super::open::OpenRoom;
use super::rules::draft::Draft;
use super::rules::plan::plan;
use super::rules::plan::{RoomPlan, object};
use super::rules::rules_of;
use super::{Rooms, refused};
use crate::{Env, Error, Refusal, Result};

impl Handler<CreateRoom> for Rooms {
    type Result = ResponseFuture<Result<OwnedRoomId>>;

    fn handle(&mut self, msg: CreateRoom, _: &mut Context<Self>) -> Self::Result {
        let default = &self.env.settings.default_room_version;
        let version = msg.version.clone().unwrap_or_else(|| default.clone());
        let plan = match rules_of(&version).and_then(|_| plan(&msg, &version)) {
            Ok(plan) => plan,
            Err(error) => return refused(error),
        };
        let now = self.env.clock.now();
        self.commit(move |env, tx, effects| {
            create(env, tx, &msg, &version, plan.clone(), now, effects)
        })
    }
}

/// Create a room from a plan. ([spec])
///
/// # Errors
/// [`Refusal::InvalidRoomState`] when the authorisation rules refuse the initial state; those of [`names::claim`] for the alias;
/// [`Refusal::Forbidden`] when an invite is not allowed.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom
pub(crate) fn create(
    env: &Env,
    tx: &mut Tx<'_>,
    request: &CreateRoom,
    version: &str,
    plan: RoomPlan,
    now: i64,
    effects: &mut Effects,
) -> Result<OwnedRoomId> {
    let creator = &request.by.user;
    let state = |kind: &str, key: &str, content| Draft::state(creator, kind, key, content, now);
    let server = &env.settings.server_name;

    // From version 12 on, the id is the hash of the create event.
    let id = match version {
        "12" => None,
        _ => Some(named_room(&format!("!{}:{server}", env.ids.room()))?),
    };
    let first = state("m.room.create", "", plan.create);
    let (mut room, first) =
        OpenRoom::create(env, tx, version, id, &first, request.public).map_err(not_a_beginning)?;

    let alias = request
        .alias
        .as_ref()
        .map(|local| named_alias(&format!("#{local}:{server}")))
        .transpose()?;
    if let Some(alias) = &alias
        && !names::claim(tx, &request.by, alias, room.id())?
    {
        return Err(Refusal::RoomInUse.into());
    }
    // After the alias: a service that is interested in the alias is owed every event of the room.
    room.begin(tx, first, effects)?;

    let join = content_for(tx, creator, "join", None)?;
    room.append(tx, &state("m.room.member", creator.as_str(), join), effects)?;
    let mut begin = |tx: &mut Tx<'_>, effects: &mut Effects, kind: &str, key: &str, content| {
        room.append(tx, &state(kind, key, content), effects)
            .map_err(not_a_beginning)
    };
    begin(tx, effects, "m.room.power_levels", "", plan.power_levels)?;
    if let Some(alias) = &alias {
        let content = object(serde_json::json!({ "alias": alias }))?;
        begin(tx, effects, "m.room.canonical_alias", "", content)?;
    }
    for (kind, key, content) in plan.state {
        begin(tx, effects, &kind, &key, content)?;
    }
    for user in request.invite.iter().filter(|user| *user != creator) {
        let mut content = content_for(tx, user, "invite", None)?;
        if request.is_direct {
            content.insert("is_direct".to_owned(), true.into());
        }
        room.append(tx, &state("m.room.member", user.as_str(), content), effects)?;
    }
    Ok(room.id().clone())
}

fn named_room(id: &str) -> Result<OwnedRoomId> {
    RoomId::parse(id).map_err(|e| schema::Error::Damaged(format!("{id}: {e}")).into())
}

fn named_alias(alias: &str) -> Result<ruma::OwnedRoomAliasId> {
    RoomAliasId::parse(alias)
        .map_err(|e| Refusal::InvalidParam(format!("{alias}: {e}").into()).into())
}

/// A refusal by the authorisation rules while a room is created: the requested state is invalid, not the caller's permission.
fn not_a_beginning(error: Error) -> Error {
    match error {
        Error::Refused(Refusal::Forbidden(rule)) => Refusal::InvalidRoomState(rule).into(),
        other => other,
    }
}
