//! Aliases and the room directory.

use std::collections::BTreeSet;

use actix::{Context, Handler, ResponseFuture};
use ruma::canonical_json::CanonicalJsonObject;
use ruma::{OwnedRoomId, RoomAliasId, RoomId};
use schema::aliases::AliasRow;
use schema::{Conn, Tx, aliases, memberships, rooms};

use super::Rooms;
use super::messages::{DeleteAlias, PutAlias, SetListed};
use super::open::OpenRoom;
use super::rules;
use super::rules::parsed;
use crate::services::{CarriesInterests, Service};
use crate::{Env, Identity, Refusal, Result};

impl Handler<PutAlias> for Rooms {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: PutAlias, _: &mut Context<Self>) -> Self::Result {
        self.commit(move |env, tx, _| put(env, tx, &msg))
    }
}

impl Handler<DeleteAlias> for Rooms {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: DeleteAlias, _: &mut Context<Self>) -> Self::Result {
        self.commit(move |env, tx, _| delete(env, tx, &msg))
    }
}

impl Handler<SetListed> for Rooms {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: SetListed, _: &mut Context<Self>) -> Self::Result {
        self.commit(move |env, tx, _| set_listed(env, tx, &msg))
    }
}

/// The most aliases of a room that are listed.
pub(crate) const ALIASES: i64 = 1000;

/// The room that an alias names.
///
/// # Errors
/// [`Refusal::NotFound`]
pub(crate) fn resolve(db: &mut Conn, alias: &RoomAliasId) -> Result<OwnedRoomId> {
    let row = aliases::get(db, alias.as_str())?
        .ok_or_else(|| Refusal::NotFound(format!("there is no room {alias}").into()))?;
    parsed(&row.room_id)
}

/// Whether the caller is a service: it acts with its token, or its bot with one of its own.
fn is_service(by: &Identity, service: &Service) -> bool {
    by.appservice.as_ref() == Some(&service.id) || by.user.as_str() == service.sender
}

/// Create an alias, if no namespace forbids it to the caller. Returns `false` if the alias is taken. ([spec])
///
/// # Errors
/// [`Refusal::Exclusive`] when another appservice reserves the alias, or an appservice asks for one outside its namespaces.
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#definition-registration
/// Clause: as.registration.exclusive-aliases
pub(crate) fn claim(
    tx: &mut Tx<'_>,
    by: &Identity,
    alias: &RoomAliasId,
    room: &RoomId,
) -> Result<bool> {
    let interests = tx.interests();
    let claims = interests.in_alias(alias.as_str());
    if claims
        .iter()
        .any(|(service, exclusive)| *exclusive && !is_service(by, service))
    {
        return Err(Refusal::Exclusive("this alias is reserved by a service".into()).into());
    }
    if by.appservice.is_some() && !claims.iter().any(|(s, _)| is_service(by, s)) {
        return Err(
            Refusal::Exclusive("this alias is outside the service's namespaces".into()).into(),
        );
    }
    let row = AliasRow {
        alias: alias.to_string(),
        room_id: room.to_string(),
        creator: by.user.to_string(),
    };
    Ok(aliases::put(tx, &row)?)
}

/// Check a canonical alias event: each alias that it adds to those `before` must point to the room. ([spec])
///
/// # Errors
/// [`Refusal::InvalidParam`] for invalid syntax, [`Refusal::BadAlias`] for an alias that does not point to this room.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey
pub(crate) fn check_called(
    tx: &mut Tx<'_>,
    room: &str,
    before: &BTreeSet<String>,
    content: &CanonicalJsonObject,
) -> Result<()> {
    for name in rules::aliases_in(content)?.difference(before) {
        let alias = RoomAliasId::parse(name)
            .map_err(|e| Refusal::InvalidParam(format!("{name:?}: {e}").into()))?;
        let named = aliases::get(tx, alias.as_str())?;
        if named.is_none_or(|row| row.room_id != room) {
            return Err(Refusal::BadAlias(alias.to_string()).into());
        }
    }
    Ok(())
}

/// Create an alias that a client asks for: on this server, for a room that exists and that the user is joined to.
pub(crate) fn put(env: &Env, tx: &mut Tx<'_>, msg: &PutAlias) -> Result<()> {
    if msg.alias.server_name() != env.settings.server_name {
        return Err(Refusal::InvalidParam("the alias belongs to another server".into()).into());
    }
    rooms::room(tx, msg.room.as_str())?.ok_or(Refusal::NotFound(
        "there is no such room on this server".into(),
    ))?;
    let joined = memberships::is_joined(tx, msg.room.as_str(), msg.by.user.as_str())?;
    if !joined && msg.by.appservice.is_none() {
        return Err(Refusal::Forbidden("you are not in this room".into()).into());
    }
    if claim(tx, &msg.by, &msg.alias, &msg.room)? {
        Ok(())
    } else {
        Err(Refusal::AliasTaken.into())
    }
}

/// Delete an alias: by its creator, by the appservice that reserves it, or with the level to set the room's canonical alias.
/// ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3directoryroomroomalias
pub(crate) fn delete(env: &Env, tx: &mut Tx<'_>, msg: &DeleteAlias) -> Result<()> {
    let row = aliases::get(tx, msg.alias.as_str())?
        .ok_or(Refusal::NotFound("there is no such alias".into()))?;
    let interests = tx.interests();
    let claims = interests.in_alias(msg.alias.as_str());
    let reserved = |own: bool| {
        claims
            .iter()
            .any(|(service, exclusive)| *exclusive && is_service(&msg.by, service) == own)
    };
    if reserved(false) && !reserved(true) {
        return Err(Refusal::Exclusive("this alias is reserved by a service".into()).into());
    }
    if row.creator != msg.by.user.as_str() && !reserved(true) {
        let room = parsed::<OwnedRoomId>(&row.room_id)?;
        check_level(env, tx, &room, &msg.by)?;
    }
    Ok(aliases::delete(tx, msg.alias.as_str())?)
}

/// Add a room to the directory or remove it, with the level to set the room's canonical alias. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directorylistroomroomid
pub(crate) fn set_listed(env: &Env, tx: &mut Tx<'_>, msg: &SetListed) -> Result<()> {
    rooms::room(tx, msg.room.as_str())?.ok_or(Refusal::NotFound(
        "there is no such room on this server".into(),
    ))?;
    check_level(env, tx, &msg.room, &msg.by)?;
    Ok(rooms::set_public(tx, msg.room.as_str(), msg.listed)?)
}

/// Refuse a user that is not joined or has not the level to set the room's canonical alias.
fn check_level(env: &Env, tx: &mut Tx<'_>, room: &RoomId, by: &Identity) -> Result<()> {
    let powers = OpenRoom::room(env, tx, room)?.powers(tx)?;
    let joined = memberships::is_joined(tx, room.as_str(), by.user.as_str())?;
    if !joined || powers.of(&by.user) < powers.needed_for_state("m.room.canonical_alias") {
        return Err(Refusal::Forbidden(
            "your power level is too low to set this room's canonical alias".into(),
        )
        .into());
    }
    Ok(())
}
