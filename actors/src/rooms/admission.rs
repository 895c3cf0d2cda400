//! The check that every change of a membership passes before it is authorised.

use ruma::canonical_json::CanonicalJsonValue;
use ruma::state_res::events::RoomPowerLevelsIntField;
use ruma::{OwnedUserId, UserId};
use schema::{Tx, memberships};

use super::open::OpenRoom;
use super::rules;
use super::rules::draft::Draft;
use super::rules::parsed;
use crate::{Refusal, Result};

/// The key of a member event's content that names the member with the level to invite who authorises a restricted join. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms
const AUTHORISED_BY: &str = "join_authorised_via_users_server";

/// The most joined members that [`host`] reads while it looks for one with the level to invite.
const ASKED: i64 = 50;

/// Prepare a member event, whichever request causes it, before the authorisation rules check it: validate the change and fill
/// in the authorising member of a restricted join. Returns the event to send. ([spec]) Clause: cs.rooms.join-rules
///
/// Only the server sets the authorising member. A value that a client sends is dropped, since clients send back the content
/// of the member event that they know.
///
/// # Errors
/// Those of [`rules::check_membership`].
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms
pub(crate) fn checked(
    tx: &mut Tx<'_>,
    room: &OpenRoom<'_>,
    draft: &Draft,
    user: &str,
) -> Result<Draft> {
    let mut draft = draft.clone();
    draft.content.remove(AUTHORISED_BY);
    let text = |value: &CanonicalJsonValue| value.as_str().map(str::to_owned);
    let Some(after) = draft.content.get("membership").and_then(text) else {
        return Err(Refusal::BadJson("the membership is missing".into()).into());
    };
    let before = memberships::get(tx, room.id().as_str(), user)?
        .map(|m| m.membership)
        .unwrap_or_default();
    let by_self = draft.sender == *user;
    rules::check_membership(by_self, &before, &after)?;
    let is_outside = matches!(before.as_str(), "" | "leave" | "knock");
    if after == "join"
        && by_self
        && is_outside
        && let Some(host) = host(tx, room, &draft.sender)?
    {
        let host = CanonicalJsonValue::String(host.to_string());
        draft.content.insert(AUTHORISED_BY.to_owned(), host);
    }
    Ok(draft)
}

/// A member that can authorise a user's restricted join: joined, with the level to invite. `None` unless the user is joined
/// to one of the rooms that the join rule names. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms
fn host(tx: &mut Tx<'_>, room: &OpenRoom<'_>, user: &UserId) -> Result<Option<OwnedUserId>> {
    let Some(join_rules) = room.state(tx, "m.room.join_rules", "")? else {
        return Ok(None);
    };
    let mut admitted = false;
    for other in rules::rooms_that_admit(join_rules.content()) {
        admitted = admitted || memberships::is_joined(tx, &other, user.as_str())?;
    }
    if !admitted {
        return Ok(None);
    }
    let powers = room.powers(tx)?;
    let needed = powers.needed(RoomPowerLevelsIntField::Invite);
    for candidate in powers.named() {
        if powers.of(&candidate) >= needed
            && memberships::is_joined(tx, room.id().as_str(), candidate.as_str())?
        {
            return Ok(Some(candidate));
        }
    }
    for member in memberships::in_room(tx, room.id().as_str(), "join", "", ASKED)? {
        let candidate: OwnedUserId = parsed(&member.user_id)?;
        if powers.of(&candidate) >= needed {
            return Ok(Some(candidate));
        }
    }
    Ok(None)
}
