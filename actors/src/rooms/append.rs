//! The only code that adds an event to a room: sign it, check it against the current state, and store it with everything
//! that follows from it, in one write. Writes run one after another, so the state cannot change in between.
//!
//! Next on the way of a leave: `schema/src/device_log.rs`.

use std::collections::BTreeSet;

use ruma::canonical_json::{CanonicalJsonObject, redact_in_place};
use ruma::state_res::{
    auth_types_for_event, check_state_dependent_auth_rules, check_state_independent_auth_rules,
};
use ruma::{OwnedRoomId, RoomId};
use schema::ServiceId;
use schema::events::{self, EventRow};
use schema::memberships::{self, MembershipRow};
use schema::relations::{self, RelationRow};
use schema::rooms::RoomRow;
use schema::{Position, Tx, device_log, owed, rooms};
use serde_json::value::to_raw_value;

use super::admission;
use super::effects::Effects;
use super::names;
use super::open::OpenRoom;
use super::pdu::Signer;
use super::rules;
use super::rules::draft::{Draft, EventPlace, Signed};
use super::rules::format::content;
use super::rules::judged::Judged;
use super::rules::{canonical, membership_in, parsed, rules_of};
use crate::device_lists::MembershipChanged;
use crate::hooks::{Change, EventDraft, OwedDraft, ReportsChanges, Withholding, is_of_proposal};
use crate::services::{CarriesInterests, interested_in_room, owed_event};
use crate::{Env, Refusal, Result};

/// The create event of a room that is stored without it so far.
pub(crate) struct FirstEvent {
    draft: Draft,
    signed: Signed,
}

impl<'e> OpenRoom<'e> {
    /// Create a room from its create event, which [`OpenRoom::begin`] adds.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] when the authorisation rules refuse the create event; those of hooks that check it.
    pub(crate) fn create(
        env: &'e Env,
        tx: &mut Tx<'_>,
        version: &str,
        id: Option<OwnedRoomId>,
        draft: &Draft,
        is_public: bool,
    ) -> Result<(OpenRoom<'e>, FirstEvent)> {
        let rules = rules_of(version)?;
        let place = EventPlace {
            room: id.as_deref(),
            after: None,
            depth: 1,
            auth_events: Vec::new(),
        };
        let top_level = tx.check_event(EventDraft {
            room: id.as_ref().map_or("", |id| id.as_str()),
            version,
            kind: &draft.kind,
            state_key: draft.state_key.as_deref(),
            sender: draft.sender.as_str(),
            content: &draft.content,
        })?;
        let mut draft = draft.with_top_level(top_level);
        let mut signed = Signer::of(env).sign(&draft, &place, &rules)?;
        let judged = Judged::draft(&draft, &signed, &place, to_raw_value(&draft.content)?)?;
        check_state_independent_auth_rules(&rules.authorization, &judged, |_| None::<Judged>)
            .map_err(forbidden)?;
        let id = match id {
            Some(id) => id,
            None => loop {
                let id = RoomId::new_v2(signed.id.localpart())
                    .map_err(|e| schema::Error::Damaged(format!("room id: {e}")))?;
                if rooms::room(tx, id.as_str())?.is_none() {
                    break id;
                }
                // The room id is a hash of the create event, and the same user created an equal room in this millisecond.
                draft.at += 1;
                signed = Signer::of(env).sign(&draft, &place, &rules)?;
            },
        };
        let row = RoomRow {
            room_id: id.to_string(),
            version: version.to_owned(),
            creator: draft.sender.to_string(),
            tip: signed.id.to_string(),
            depth: 0,
            joined: 0,
            invited: 0,
            is_public,
        };
        rooms::create(tx, &row)?;
        let open = OpenRoom {
            env,
            rules,
            id,
            row,
        };
        Ok((open, FirstEvent { draft, signed }))
    }

    /// Add the create event.
    pub(crate) fn begin(
        &mut self,
        tx: &mut Tx<'_>,
        first: FirstEvent,
        effects: &mut Effects,
    ) -> Result<()> {
        self.keep(tx, &first.draft, first.signed, None, effects)?;
        Ok(())
    }

    /// Append an event and return its id. A state event equal to the current one is not stored again: the id is the current one's.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] with the text of the authorisation rule that refuses it; those of [`rules::check_shape`].
    pub(crate) fn append(
        &mut self,
        tx: &mut Tx<'_>,
        draft: &Draft,
        effects: &mut Effects,
    ) -> Result<String> {
        rules::check_shape(draft)?;
        let checked;
        let draft = match draft.state_key.as_deref() {
            Some(user) if draft.kind == "m.room.member" => {
                rules::check_local(user, &self.env.settings.server_name)?;
                checked = admission::checked(tx, self, draft, user)?;
                &checked
            }
            _ => draft,
        };
        let top_level = tx.check_event(EventDraft {
            room: &self.row.room_id,
            version: &self.row.version,
            kind: &draft.kind,
            state_key: draft.state_key.as_deref(),
            sender: draft.sender.as_str(),
            content: &draft.content,
        })?;
        let extended;
        let draft = match top_level.is_empty() {
            true => draft,
            false => {
                extended = draft.with_top_level(top_level);
                &extended
            }
        };
        let raw = to_raw_value(&draft.content)?;
        let authorization = &self.rules.authorization;
        let wanted = auth_types_for_event(
            &draft.kind.as_str().into(),
            &draft.sender,
            draft.state_key.as_deref(),
            &raw,
            authorization,
        )
        .map_err(|e| Refusal::BadJson(e.into()))?;
        let mut allowed_by = Vec::with_capacity(wanted.len() + 1);
        for (kind, state_key) in wanted {
            allowed_by.extend(self.state(tx, &kind.to_string(), &state_key)?);
        }
        let place = EventPlace {
            room: Some(&self.id),
            after: Some(&self.row.tip),
            depth: self.row.depth + 1,
            auth_events: allowed_by
                .iter()
                .map(|e| ruma::state_res::Event::event_id(e).as_str())
                .collect(),
        };
        let signed = Signer::of(self.env).sign(draft, &place, &self.rules)?;
        let judged = Judged::draft(draft, &signed, &place, raw)?;
        if authorization.room_create_event_id_as_room_id {
            // From version 12 on `auth_events` does not name the create event, but the rules still read it.
            allowed_by.extend(self.state(tx, "m.room.create", "")?);
        }
        if draft.kind == "m.room.create" {
            check_state_independent_auth_rules(authorization, &judged, |_| None::<Judged>)
                .map_err(forbidden)?;
        }
        check_state_dependent_auth_rules(authorization, &judged, |kind, key| {
            allowed_by.iter().find(|e| e.is(&kind.to_string(), key))
        })
        .map_err(forbidden)?;

        let replaced = match &draft.state_key {
            Some(key) => events::state(tx, &self.row.room_id, &draft.kind, key)?,
            None => None,
        };
        if let Some(same) = &replaced
            && rules::says_the_same(same, draft, judged.content())?
            && keys_of_proposals(same)? == draft.top_level
        {
            return Ok(same.event_id.clone());
        }
        if draft.kind == "m.room.canonical_alias" {
            let before = match &replaced {
                Some(old) => rules::aliases_in(&canonical(content(old)?)?).unwrap_or_default(),
                None => BTreeSet::new(),
            };
            names::check_called(tx, &self.row.room_id, &before, &draft.content)?;
        }
        let redacted = if draft.kind == "m.room.redaction" {
            Some(self.redactable(tx, draft)?)
        } else {
            None
        };
        check_annotation(tx, draft)?;
        let id = signed.id.to_string();
        self.keep(tx, draft, signed, replaced, effects)?;
        if let Some(target) = redacted {
            self.redact(tx, target, &id)?;
        }
        Ok(id)
    }

    /// Store an event that passed all checks, and everything that follows from it.
    fn keep(
        &mut self,
        tx: &mut Tx<'_>,
        draft: &Draft,
        signed: Signed,
        replaced: Option<EventRow>,
        effects: &mut Effects,
    ) -> Result<()> {
        let position = tx.next_position();
        let (device_id, txn_id) = draft.origin.clone().unzip();
        let event = EventRow {
            position: position.0,
            event_id: signed.id.to_string(),
            room_id: self.row.room_id.clone(),
            kind: draft.kind.clone(),
            state_key: draft.state_key.clone(),
            sender: draft.sender.to_string(),
            origin_server_ts: draft.at,
            pdu: signed.json,
            replaces: replaced.map(|r| r.event_id),
            redacted_by: None,
            device_id,
            txn_id,
        };
        events::insert(tx, &event)?;
        events::make_current(tx, &event)?;
        if let Some(relation) = relation(&event, &draft.content) {
            relations::insert(tx, &self.row.room_id, &relation)?;
        }
        self.row.tip.clone_from(&event.event_id);
        self.row.depth += 1;

        let mut services = BTreeSet::new();
        if let (Some(user), "m.room.member") = (&draft.state_key, draft.kind.as_str()) {
            services = self.member(tx, &event, user, effects)?;
        }
        if draft.kind == "m.room.create" {
            services.extend(services_of(tx, &event.sender));
        }
        rooms::advance(tx, &self.row)?;
        let interests = tx.interests();
        services.extend(interested_in_room(tx, &interests, &self.row.room_id)?);
        let (withholding, item) = (Withholding::of(tx), OwedDraft::Event(&event));
        services.retain(|id| withholding.lets(interests.service(id), &item));
        owed::owe_all(tx, owed_event(&interests, position, &services));
        effects.services.extend(services);
        effects.rooms.insert(self.id.clone());
        tx.changed(&Change::Event {
            room: &event.room_id,
            kind: &event.kind,
            state_key: event.state_key.as_deref(),
            sender: &event.sender,
            device: event.device_id.as_deref(),
            id: &event.event_id,
            content: &draft.content,
            position,
        })
    }

    /// Update the membership and the member counts for a stored member event, and append a line about it to the device-list log.
    /// Returns the appservices that are interested in the event: those with a joined member in the room before or after the event,
    /// and those to which the event's user belongs.
    fn member(
        &mut self,
        tx: &mut Tx<'_>,
        event: &EventRow,
        user: &str,
        effects: &mut Effects,
    ) -> Result<BTreeSet<ServiceId>> {
        let (display_name, avatar_url) = rules::names_in(content(event)?);
        let after = membership_in(content(event)?).unwrap_or_default();
        let old = memberships::get(tx, &event.room_id, user)?;
        let (left_at, forgotten_at) = old.as_ref().map_or((0, 0), |m| (m.left_at, m.forgotten_at));
        let before = old.map(|m| m.membership).unwrap_or_default();
        let leaves = before == "join" && after != "join";
        let row = MembershipRow {
            room_id: event.room_id.clone(),
            user_id: user.to_owned(),
            membership: after.clone(),
            position: event.position,
            event_id: event.event_id.clone(),
            sender: event.sender.clone(),
            display_name,
            avatar_url,
            left_at: if leaves { event.position } else { left_at },
            forgotten_at,
        };
        memberships::put(tx, &row)?;
        let count =
            |membership: &str| i64::from(after == membership) - i64::from(before == membership);
        self.row.joined += count("join");
        self.row.invited += count("invite");

        let mut services = services_of(tx, user);
        if before != after {
            let (position, change) = (Position(event.position), (before.as_str(), after.as_str()));
            services.extend(device_log::membership_changed(
                tx,
                &event.room_id,
                user,
                &services,
                change,
                position,
            )?);
            effects.memberships.push(MembershipChanged {
                room: self.id.clone(),
                user: parsed(user)?,
                membership: after.clone(),
                position,
            });
        }
        effects.users.insert(parsed(user)?);
        if before != after {
            tx.changed(&Change::Membership {
                room: &event.room_id,
                user,
                before: &before,
                after: &after,
                event: &event.event_id,
            })?;
        }
        Ok(services)
    }

    /// The event that a redaction names, if its sender may redact it. ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidredacteventidtxnid
    fn redactable(&self, tx: &mut Tx<'_>, draft: &Draft) -> Result<EventRow> {
        let target = draft.content.get("redacts").and_then(|id| id.as_str());
        let target = target.ok_or(Refusal::InvalidParam("`redacts` names no event".into()))?;
        let target = events::by_id(tx, target)?
            .filter(|e| e.room_id == self.row.room_id)
            .ok_or(Refusal::NotFound("there is no such event to redact".into()))?;
        let level = self.powers(tx)?;
        rules::power::check_redaction(&target, &draft.sender, &level)?;
        Ok(target)
    }

    /// Remove from an event what the redaction algorithm removes; nothing if it is redacted already. Clause: cs.rooms.redaction
    fn redact(&self, tx: &mut Tx<'_>, target: EventRow, by: &str) -> Result<()> {
        if target.redacted_by.is_some() {
            return Ok(());
        }
        let mut object: CanonicalJsonObject = serde_json::from_str(&target.pdu)?;
        redact_in_place(&mut object, &self.rules.redaction, None)
            .map_err(|e| schema::Error::Damaged(format!("event {}: {e}", target.event_id)))?;
        events::redact(tx, &target.event_id, &serde_json::to_string(&object)?, by)?;
        relations::forget(tx, &target.room_id, Position(target.position))?;
        // A redacted member event gives no display name or avatar any more.
        if target.kind == "m.room.member"
            && let Some(user) = &target.state_key
            && let Some(row) = memberships::get(tx, &target.room_id, user)?
            && row.event_id == target.event_id
        {
            let row = MembershipRow {
                display_name: None,
                avatar_url: None,
                ..row
            };
            memberships::put(tx, &row)?;
        }
        Ok(())
    }
}

/// The appservices that have a user in their namespaces: they are sent the create events by the user and the member events about
/// the user, even if the user is not joined. Every other event is sent by a joined member, through which these appservices are
/// interested in the room already. ([spec]) Clause: as.txn.interest-user
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#registration
fn services_of(tx: &Tx<'_>, user: &str) -> BTreeSet<ServiceId> {
    let interests = tx.interests();
    let claims = interests.in_user(user).into_iter();
    claims.map(|(service, _)| service.id.clone()).collect()
}

/// The relation of a message event to another event.
fn relation(event: &EventRow, content: &CanonicalJsonObject) -> Option<RelationRow> {
    if event.state_key.is_some() {
        return None;
    }
    let (parent, rel_type, key) = rules::relation_in(content)?;
    Some(RelationRow {
        position: event.position,
        parent,
        rel_type,
        kind: event.kind.clone(),
        sender: event.sender.clone(),
        key,
    })
}

/// Refuse an annotation that its sender has sent already: same event, type and key. ([spec]) Clause: cs.rooms.annotation-once
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#avoiding-duplicate-annotations
fn check_annotation(tx: &mut Tx<'_>, draft: &Draft) -> Result<()> {
    let Some((parent, rel_type, key)) = rules::relation_in(&draft.content) else {
        return Ok(());
    };
    let row = RelationRow {
        position: 0,
        parent,
        rel_type,
        kind: draft.kind.clone(),
        sender: draft.sender.to_string(),
        key,
    };
    if row.rel_type == "m.annotation" && relations::exists(tx, &row)? {
        return Err(Refusal::DuplicateAnnotation.into());
    }
    Ok(())
}

fn forbidden(rule: String) -> Refusal {
    Refusal::Forbidden(rule.into())
}

/// The keys beside the content of a stored event that proposals have set.
fn keys_of_proposals(event: &EventRow) -> Result<CanonicalJsonObject> {
    let mut keys: CanonicalJsonObject = serde_json::from_str(&event.pdu)?;
    keys.retain(|key, _| is_of_proposal(key));
    Ok(keys)
}
