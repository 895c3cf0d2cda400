//! The initial state of a new room, computed from the request.

use std::collections::BTreeSet;

use ruma::OwnedUserId;
use ruma::canonical_json::{CanonicalJsonObject, CanonicalJsonValue};
use serde_json::{Value, json};

use crate::rooms::messages::{CreateRoom, Preset};
use crate::rooms::rules::canonical;
use crate::{Refusal, Result};

/// A state event without its sender: type, state key, content.
pub(crate) type PlannedState = (String, String, CanonicalJsonObject);

/// The initial events of a room, except the creator's join, the alias and the invites. ([spec])
#[derive(Debug, Clone)]
pub(crate) struct RoomPlan {
    /// The content of the create event.
    pub(crate) create: CanonicalJsonObject,
    /// The content of the power levels event.
    pub(crate) power_levels: CanonicalJsonObject,
    /// The state events after the power levels and the alias, in this order.
    pub(crate) state: Vec<PlannedState>,
}

/// The initial events for a request. ([spec])
///
/// # Errors
/// [`Refusal::BadJson`], [`Refusal::InvalidParam`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom
pub(crate) fn plan(request: &CreateRoom, version: &str) -> Result<RoomPlan> {
    let preset = request.preset.unwrap_or(if request.public {
        Preset::Public
    } else {
        Preset::Private
    });
    let endless = version == "12";
    let trusted: BTreeSet<OwnedUserId> = if preset == Preset::Trusted {
        request.invite.iter().cloned().collect()
    } else {
        BTreeSet::new()
    };
    let create = create_content(request, version, endless.then_some(&trusted))?;

    let mut initial: Vec<PlannedState> = Vec::new();
    let mut power_levels = None;
    for event in &request.initial_state {
        let content = canonical(&event.content)?;
        if event.kind == "m.room.power_levels" && event.state_key.is_empty() {
            power_levels = Some(content);
        } else {
            initial.push((event.kind.clone(), event.state_key.clone(), content));
        }
    }
    let power_levels = match power_levels {
        Some(given) => given,
        None => power_levels_content(request, preset, endless, &trusted)?,
    };

    let (join_rule, visibility, guests) = match preset {
        Preset::Private | Preset::Trusted => ("invite", "shared", "can_join"),
        Preset::Public => ("public", "shared", "forbidden"),
    };
    let by_preset = [
        ("m.room.join_rules", json!({ "join_rule": join_rule })),
        (
            "m.room.history_visibility",
            json!({ "history_visibility": visibility }),
        ),
        ("m.room.guest_access", json!({ "guest_access": guests })),
    ];
    let mut state: Vec<PlannedState> = Vec::new();
    for (kind, content) in by_preset {
        // An event of the client's initial state replaces the preset's.
        if !initial
            .iter()
            .any(|(k, key, _)| k == kind && key.is_empty())
        {
            state.push((kind.to_owned(), String::new(), object(content)?));
        }
    }
    state.extend(initial);
    if let Some(name) = &request.name {
        state.push((
            "m.room.name".to_owned(),
            String::new(),
            object(json!({ "name": name }))?,
        ));
    }
    if let Some(topic) = &request.topic {
        let content = json!({ "topic": topic, "m.topic": { "m.text": [{ "body": topic }] } });
        state.push(("m.room.topic".to_owned(), String::new(), object(content)?));
    }
    Ok(RoomPlan {
        create,
        power_levels,
        state,
    })
}

/// The content of the create event: what the client asks for, except the keys that the server sets. In version 12 the invited
/// users of a trusted private chat become additional creators. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom
fn create_content(
    request: &CreateRoom,
    version: &str,
    creators: Option<&BTreeSet<OwnedUserId>>,
) -> Result<CanonicalJsonObject> {
    let mut content = match &request.creation_content {
        Some(given) => canonical(given)?,
        None => CanonicalJsonObject::new(),
    };
    content.remove("creator");
    content.insert(
        "room_version".to_owned(),
        CanonicalJsonValue::String(version.to_owned()),
    );
    if let Some(creators) = creators.filter(|c| !c.is_empty()) {
        let entry = content
            .entry("additional_creators".to_owned())
            .or_insert_with(|| CanonicalJsonValue::Array(Vec::new()));
        let Some(list) = entry.as_array_mut() else {
            return Err(Refusal::InvalidParam("additional_creators is no list".into()).into());
        };
        for user in creators {
            let user = CanonicalJsonValue::String(user.to_string());
            if !list.contains(&user) {
                list.push(user);
            }
        }
    }
    Ok(content)
}

/// The initial power levels. Version 12 gives creators an infinite level and does not allow to name them. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels
fn power_levels_content(
    request: &CreateRoom,
    preset: Preset,
    endless: bool,
    trusted: &BTreeSet<OwnedUserId>,
) -> Result<CanonicalJsonObject> {
    let mut users = serde_json::Map::new();
    if !endless {
        users.insert(request.by.user.to_string(), json!(100));
        for user in trusted {
            users.insert(user.to_string(), json!(100));
        }
    }
    // Anyone may join a public room, so inviting needs a moderator's level there.
    let invite = if preset == Preset::Public { 50 } else { 0 };
    let mut content = object(json!({
        "users": users,
        "users_default": 0,
        "events": {
            "m.room.name": 50,
            "m.room.power_levels": 100,
            "m.room.history_visibility": 100,
            "m.room.canonical_alias": 50,
            "m.room.avatar": 50,
            "m.room.tombstone": if endless { 150 } else { 100 },
            "m.room.server_acl": 100,
            "m.room.encryption": 100,
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": invite,
        "historical": 100,
    }))?;
    if let Some(given) = &request.power_levels {
        content.extend(canonical(given)?);
    }
    Ok(content)
}

/// Convert JSON made by the server to canonical JSON.
pub(crate) fn object(value: Value) -> Result<CanonicalJsonObject> {
    match CanonicalJsonValue::try_from(value) {
        Ok(CanonicalJsonValue::Object(object)) => Ok(object),
        _ => Err(Refusal::BadJson("not an object of canonical JSON".into()).into()),
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use serde_json::value::RawValue;

    use super::*;
    use crate::Identity;
    use crate::rooms::messages::InitialState;

    fn request() -> CreateRoom {
        CreateRoom::new(Identity {
            user: user_id!("@ann:test").to_owned(),
            device: None,
            appservice: None,
        })
    }

    fn raw(value: &Value) -> Box<RawValue> {
        serde_json::value::to_raw_value(value).expect("JSON")
    }

    fn find<'a>(plan: &'a RoomPlan, kind: &str) -> Vec<&'a CanonicalJsonObject> {
        let found = plan.state.iter().filter(|(k, _, _)| k == kind);
        found.map(|(_, _, content)| content).collect()
    }

    #[test]
    fn a_preset_gives_what_the_client_does_not() {
        let cases = [
            (Some(Preset::Private), false, "invite", "can_join", 0),
            (Some(Preset::Trusted), true, "invite", "can_join", 0),
            (Some(Preset::Public), false, "public", "forbidden", 50),
            (None, false, "invite", "can_join", 0),
            (None, true, "public", "forbidden", 50),
        ];
        for (preset, public, join_rule, guests, invite) in cases {
            let plan = plan(
                &CreateRoom {
                    preset,
                    public,
                    ..request()
                },
                "11",
            )
            .expect("a plan");
            assert_eq!(
                find(&plan, "m.room.join_rules")[0]["join_rule"].as_str(),
                Some(join_rule)
            );
            assert_eq!(
                find(&plan, "m.room.guest_access")[0]["guest_access"].as_str(),
                Some(guests)
            );
            assert_eq!(
                plan.power_levels["invite"].as_integer(),
                Some(invite.into())
            );
        }
        let own = InitialState {
            kind: "m.room.join_rules".to_owned(),
            state_key: String::new(),
            content: raw(&json!({"join_rule": "knock"})),
        };
        let plan = plan(
            &CreateRoom {
                initial_state: vec![own],
                ..request()
            },
            "11",
        )
        .expect("a plan");
        let rules = find(&plan, "m.room.join_rules");
        assert_eq!(
            (rules.len(), rules[0]["join_rule"].as_str()),
            (1, Some("knock"))
        );
    }

    #[test]
    fn creators_have_a_level_or_are_above_all_of_them() {
        let trusted = CreateRoom {
            preset: Some(Preset::Trusted),
            invite: vec![user_id!("@bob:test").to_owned()],
            creation_content: Some(raw(&json!({"creator": "@eve:test", "type": "m.space"}))),
            ..request()
        };
        let eleven = plan(&trusted, "11").expect("a plan");
        let users = eleven.power_levels["users"].as_object().expect("users");
        assert_eq!(users.keys().collect::<Vec<_>>(), ["@ann:test", "@bob:test"]);
        assert!(
            !eleven.create.contains_key("creator"),
            "version 11 has none"
        );
        assert_eq!(eleven.create["type"].as_str(), Some("m.space"));

        let twelve = plan(&trusted, "12").expect("a plan");
        assert!(
            twelve.power_levels["users"]
                .as_object()
                .expect("users")
                .is_empty()
        );
        let creators = twelve.create["additional_creators"]
            .as_array()
            .expect("a list");
        assert_eq!(creators[0].as_str(), Some("@bob:test"));
        let events = twelve.power_levels["events"].as_object().expect("events");
        assert_eq!(events["m.room.tombstone"].as_integer(), Some(150.into()));
    }

    #[test]
    fn levels_are_overridden_key_by_key() {
        let request = CreateRoom {
            power_levels: Some(raw(&json!({"events": {"m.room.name": 0}, "invite": 7}))),
            ..request()
        };
        let levels = plan(&request, "11").expect("a plan").power_levels;
        assert_eq!(levels["events"].as_object().expect("events").len(), 1);
        assert_eq!(levels["invite"].as_integer(), Some(7.into()));
        assert_eq!(levels["ban"].as_integer(), Some(50.into()));
    }
}
