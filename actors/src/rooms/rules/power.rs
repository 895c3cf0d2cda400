//! Power levels of a room.

use std::collections::BTreeSet;

use ruma::events::TimelineEventType;
use ruma::room_version_rules::AuthorizationRules;
use ruma::state_res::events::{RoomCreateEvent, RoomPowerLevelsEvent, RoomPowerLevelsIntField};
use ruma::{OwnedUserId, UserId};
use schema::events::EventRow;

use super::judged::Judged;
use crate::{Error, Refusal, Result};

/// A creator's level in room versions that put creators above all levels.
pub(crate) const INFINITE: i64 = i64::MAX;

/// The power levels of a room, as of some state of it.
pub(crate) struct Powers {
    creators: BTreeSet<OwnedUserId>,
    levels: Option<RoomPowerLevelsEvent<Judged>>,
    rules: AuthorizationRules,
}

impl Powers {
    /// From a room's create event and power levels event.
    pub(crate) fn new(
        create: Option<Judged>,
        levels: Option<Judged>,
        rules: &AuthorizationRules,
    ) -> Result<Powers> {
        let create = create.ok_or_else(|| damaged("a room has no create event".to_owned()))?;
        let creators = RoomCreateEvent::new(create)
            .creators(rules)
            .map_err(damaged)?;
        Ok(Powers {
            creators: creators.into_iter().collect(),
            levels: levels.map(RoomPowerLevelsEvent::new),
            rules: rules.clone(),
        })
    }

    /// A user's level. ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels
    pub(crate) fn of(&self, user: &UserId) -> i64 {
        let creator = self.creators.contains(user);
        if creator && self.rules.explicitly_privilege_room_creators {
            return INFINITE;
        }
        match &self.levels {
            // An invalid level counts as 0.
            Some(levels) => levels
                .user_power_level(user, &self.rules)
                .map_or(0, i64::from),
            None => i64::from(creator) * 100,
        }
    }

    /// The level that an action needs.
    pub(crate) fn needed(&self, action: RoomPowerLevelsIntField) -> i64 {
        let default = action.default_value();
        self.levels
            .as_ref()
            .and_then(|l| l.get_as_int_or_default(action, &self.rules).ok())
            .unwrap_or(default)
            .into()
    }

    /// The level that a state event of this type needs.
    pub(crate) fn needed_for_state(&self, kind: &str) -> i64 {
        self.levels
            .as_ref()
            .and_then(|l| {
                l.event_power_level(&TimelineEventType::from(kind), Some(""), &self.rules)
                    .ok()
            })
            .unwrap_or(RoomPowerLevelsIntField::StateDefault.default_value())
            .into()
    }

    /// All users that have a level of their own, creators first.
    pub(crate) fn named(&self) -> Vec<OwnedUserId> {
        let users = self
            .levels
            .as_ref()
            .and_then(|l| l.users(&self.rules).ok().flatten());
        self.creators
            .iter()
            .cloned()
            .chain(users.into_iter().flat_map(|users| users.keys().cloned()))
            .collect()
    }
}

/// Refuse a redaction of the create event, and of another user's event without the level to redact. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidredacteventidtxnid
pub(crate) fn check_redaction(target: &EventRow, sender: &UserId, powers: &Powers) -> Result<()> {
    if target.kind == "m.room.create" {
        return Err(Refusal::Forbidden("the create event cannot be redacted".into()).into());
    }
    if target.sender != sender.as_str()
        && powers.of(sender) < powers.needed(RoomPowerLevelsIntField::Redact)
    {
        return Err(Refusal::Forbidden(
            "your power level is too low to redact events of other users".into(),
        )
        .into());
    }
    Ok(())
}

fn damaged(what: String) -> Error {
    schema::Error::Damaged(what).into()
}
