//! Aliases, and the room directory.

use ruma::directory::{PublicRoomsChunk, PublicRoomsChunkInit, RoomTypeFilter};
use ruma::room::RoomType;
use ruma::{OwnedRoomAliasId, OwnedRoomId, RoomAliasId, RoomId, UInt};
use schema::rooms::RoomRow;
use schema::{Conn, aliases, events, rooms};
use serde_json::Value;

use super::access::{state_access, visibility_in};
use crate::rooms::names;
use crate::rooms::rules::format::content;
use crate::rooms::rules::parsed;
use crate::rooms::rules::visibility::{StateAccess, Visibility};
use crate::services::CarriesInterests;
use crate::{Env, Identity, Refusal, Result};

/// The most rooms that are read for a page of the directory or for a search.
const PAGE: i64 = 500;

/// The room that an alias names. ([spec])
///
/// # Errors
/// [`Refusal::NotFound`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directoryroomroomalias
pub async fn room_named(env: &Env, alias: &RoomAliasId) -> Result<OwnedRoomId> {
    let alias = alias.to_owned();
    env.store.read(move |db| names::resolve(db, &alias)).await
}

/// The aliases of a room, for a caller that may see its current state. ([spec])
///
/// # Errors
/// [`Refusal::Forbidden`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidaliases
pub async fn aliases_of(env: &Env, by: &Identity, room: &RoomId) -> Result<Vec<OwnedRoomAliasId>> {
    let interests = env.store.interests();
    let (by, room) = (by.clone(), room.to_owned());
    env.store
        .read(move |db| {
            if state_access(db, &interests, &by, &room)? != StateAccess::Now {
                return Err(Refusal::Forbidden("you are not in this room".into()).into());
            }
            let all = aliases::of_room(db, room.as_str(), names::ALIASES)?;
            all.iter().map(|alias| parsed(alias)).collect()
        })
        .await
}

/// Whether the directory lists a room. ([spec])
///
/// # Errors
/// [`Refusal::NotFound`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directorylistroomroomid
pub async fn is_listed(env: &Env, room: &RoomId) -> Result<bool> {
    let room = room.to_owned();
    env.store
        .read(move |db| {
            let row = rooms::room(db, room.as_str())?;
            let row = row.ok_or(Refusal::NotFound(
                "there is no such room on this server".into(),
            ))?;
            Ok(row.is_public)
        })
        .await
}

/// A page of the directory.
#[derive(Debug)]
pub struct PublicRooms {
    /// The rooms, largest first.
    pub chunk: Vec<PublicRoomsChunk>,
    /// The token of the next page.
    pub next: Option<String>,
    /// How many rooms the directory lists.
    pub total: i64,
}

/// Criteria for a page of the directory.
#[derive(Debug, Default)]
pub struct DirectoryCriteria {
    /// Text that the name, topic or canonical alias contains, ignoring case.
    pub search: Option<String>,
    /// Room types; empty for all.
    pub types: Vec<RoomTypeFilter>,
}

/// A page of the directory. ([spec])
///
/// # Errors
/// [`Refusal::InvalidParam`] for an invalid token.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3publicrooms
pub async fn public_rooms(
    env: &Env,
    criteria: DirectoryCriteria,
    since: Option<String>,
    limit: Option<usize>,
) -> Result<PublicRooms> {
    let after = since.as_deref().map(parse_since).transpose()?;
    let limit = limit.unwrap_or(100).clamp(1, 100);
    let search = criteria.search.map(|s| s.to_lowercase());
    env.store
        .read(move |db| {
            let after = after
                .as_ref()
                .map(|(joined, room)| (*joined, room.as_str()));
            let rows = rooms::public(db, after, PAGE)?;
            let all_looked_at = rows.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
            let (mut chunk, mut last, mut left) = (Vec::new(), None, rows.len());
            for row in &rows {
                if chunk.len() == limit {
                    break;
                }
                left -= 1;
                last = Some(format!("{}_{}", row.joined, row.room_id));
                let listed = listed(db, row)?;
                let is_found = search.as_ref().is_none_or(|term| mentions(&listed, term));
                if is_found && is_of_type(&listed, &criteria.types) {
                    chunk.push(listed);
                }
            }
            Ok(PublicRooms {
                chunk,
                next: last.filter(|_| left > 0 || !all_looked_at),
                total: rooms::count_public(db)?,
            })
        })
        .await
}

fn parse_since(since: &str) -> Result<(i64, String)> {
    since
        .split_once('_')
        .and_then(|(joined, room)| Some((joined.parse().ok()?, room.to_owned())))
        .filter(|(_, room)| !room.contains('\0'))
        .ok_or_else(|| Refusal::InvalidParam("this token is not from this server".into()).into())
}

fn is_of_type(room: &PublicRoomsChunk, types: &[RoomTypeFilter]) -> bool {
    let own = room.room_type.as_ref().map(RoomType::as_str);
    types.is_empty() || types.iter().any(|wanted| wanted.as_str() == own)
}

fn mentions(room: &PublicRoomsChunk, term: &str) -> bool {
    let texts = [
        room.name.as_deref(),
        room.topic.as_deref(),
        room.canonical_alias.as_ref().map(|a| a.as_str()),
    ];
    texts
        .into_iter()
        .flatten()
        .any(|text| text.to_lowercase().contains(term))
}

/// A room as the directory shows it.
pub(super) fn listed(db: &mut Conn, row: &RoomRow) -> Result<PublicRoomsChunk> {
    let mut text = |kind: &str, key: &str| -> Result<Option<String>> {
        let Some(event) = events::state(db, &row.room_id, kind, "")? else {
            return Ok(None);
        };
        let content: Value = serde_json::from_str(content(&event)?.get())?;
        let text = content.get(key).and_then(Value::as_str);
        Ok(text.filter(|t| !t.is_empty()).map(str::to_owned))
    };
    let name = text("m.room.name", "name")?;
    let topic = text("m.room.topic", "topic")?;
    let alias = text("m.room.canonical_alias", "alias")?;
    let avatar = text("m.room.avatar", "url")?;
    let join_rule = text("m.room.join_rules", "join_rule")?;
    let guests = text("m.room.guest_access", "guest_access")?;
    let room_type = text("m.room.create", "type")?;
    let visibility = events::state(db, &row.room_id, "m.room.history_visibility", "")?;
    let mut chunk = PublicRoomsChunk::from(PublicRoomsChunkInit {
        num_joined_members: UInt::try_from(row.joined).unwrap_or_default(),
        room_id: parsed(&row.room_id)?,
        world_readable: visibility_in(visibility.as_ref()) == Visibility::WorldReadable,
        guest_can_join: guests.as_deref() == Some("can_join"),
    });
    chunk.name = name;
    chunk.topic = topic;
    chunk.canonical_alias = alias.and_then(|a| a.as_str().try_into().ok());
    chunk.avatar_url = avatar.map(Into::into);
    chunk.join_rule = join_rule.unwrap_or_else(|| "invite".to_owned()).into();
    chunk.room_type = room_type.map(Into::into);
    Ok(chunk)
}
