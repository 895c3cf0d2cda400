//! Why an appservice is owed an item, or is not: the rules of the actors, applied to what is stored now.

use schema::events::EventRow;
use schema::facts::Deposited;
use schema::owed;
use schema::{
    Conn, Position, ServiceId, accounts, aliases, inbox, keys as stored_keys, service_rooms,
    tracked,
};

use super::super::steps::{self, Step};
use crate::Result;
use crate::hooks::{Hooks, OwedDraft};
use crate::runtime::history::{History, Timed};
use crate::services::{Interests, NamespaceClaim, authority, concerned};
use crate::to_device_inbox::rules as inbox_rules;

/// Whether an appservice would be owed an item now.
#[derive(Debug, Clone, Default)]
pub(super) struct Interest {
    /// Whether it would.
    pub(super) holds: bool,
    /// Why, or why not.
    pub(super) step: Option<Step>,
}

/// What is known of the item.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// What it is, as a sentence. `None` if there is no such thing.
    pub(super) is: Option<String>,
    /// Its position; `None` if it has a key instead.
    pub(super) position: Option<i64>,
    /// The kinds under which it can be owed.
    pub(super) kinds: Vec<&'static str>,
    /// Its key.
    pub(super) key: String,
    /// Whether the appservice would be owed it now, and why.
    pub(super) interest: Interest,
    /// What is said of it besides.
    pub(super) more: Vec<Step>,
}

impl Interest {
    fn new(holds: bool, step: Step) -> Interest {
        let step = Some(step);
        Interest { holds, step }
    }
}

/// No registration of this id is in force.
fn unregistered(service: &ServiceId) -> Interest {
    let says = format!("No registration of {service} is in force.");
    Interest::new(false, steps::PAUSED.says(says))
}

/// Why an item is owed, by the rule that is stored with it.
pub(super) fn owed_because(service: &ServiceId, kind: &str, why: &str, item: &str) -> Option<Step> {
    Some(match kind {
        owed::EVENT => steps::INTEREST.says(format!("When it was sent, {service} was interested in its room or in the user it is about.")),
        owed::TO_DEVICE | owed::OBSERVED | owed::GRANTED => copy_because(service, why),
        owed::DEVICE_LIST if item == owed::LEFT => {
            steps::LISTS.says(format!("{service} is told in `left` that it shares no room with the user any more."))
        }
        owed::DEVICE_LIST => steps::LISTS.says(format!(
            "{service} is told in `changed` that the user's devices changed, or that it came to share a room with the user."
        )),
        owed::COUNT => steps::COUNTS.says(format!("{service} decides over the device, and the number of its unclaimed keys changed.")),
        _ => return None,
    })
}

/// Why an appservice gets a copy of a message, by the name of the rule.
fn copy_because(service: &ServiceId, why: &str) -> Step {
    match why {
        "own_account" => steps::OBSERVING.says(format!("{service} gets a copy because it registered the account. Its acknowledgement does not count as the device's.")),
        "granted" => steps::OBSERVING.says(format!("{service} gets a copy because the configuration lets it observe the user. Its acknowledgement does not count as the device's.")),
        _ => {
            let because = match why {
                "sender" => "the user is its own sender",
                "exclusive_namespace" => "the user is in its exclusive namespace",
                "registered_account" => "it registered the account, and no login of the user created the device",
                "created_device" => "it created the device",
                other => other,
            };
            steps::COPY.says(format!("{service} decides over the device, because {because}: its 2xx counts as the device's acknowledgement."))
        }
    }
}

/// Whether an appservice would be owed an item, given that hooks of proposals can keep it from the appservice.
fn unless_withheld(
    hooks: &Hooks,
    interests: &Interests,
    service: &ServiceId,
    draft: &OwedDraft<'_>,
    interest: Interest,
) -> Interest {
    let registered = interests.service(service).filter(|_| interest.holds);
    match registered.and_then(|registered| hooks.withholds(registered, draft)) {
        Some(number) => {
            let says = format!("The proposal MSC{number} keeps it from {service}.");
            Interest::new(false, steps::WITHHELD.says(says))
        }
        None => interest,
    }
}

/// An event.
pub(super) fn event(
    db: &mut Conn,
    hooks: &Hooks,
    interests: &Interests,
    service: &ServiceId,
    row: &EventRow,
) -> Result<Known> {
    let is = match &row.state_key {
        Some(key) => format!(
            "{} sent the state event {} with the state key {key:?} in {}.",
            row.sender, row.kind, row.room_id
        ),
        None => format!(
            "{} sent an event of the type {} in {}.",
            row.sender, row.kind, row.room_id
        ),
    };
    Ok(Known {
        is: Some(is),
        position: Some(row.position),
        kinds: vec![owed::EVENT],
        interest: unless_withheld(
            hooks,
            interests,
            service,
            &OwedDraft::Event(row),
            in_event(db, interests, service, row)?,
        ),
        ..Known::default()
    })
}

fn in_event(
    db: &mut Conn,
    interests: &Interests,
    service: &ServiceId,
    row: &EventRow,
) -> Result<Interest> {
    let Some(registered) = interests.service(service) else {
        return Ok(unregistered(service));
    };
    let room = &row.room_id;
    let is = |says: String| Ok(Interest::new(true, steps::INTEREST.says(says)));
    if !registered.is_reachable() {
        let says =
            format!("The registration of {service} has no url, so nothing is ever sent to it.");
        return Ok(Interest::new(false, steps::INTEREST.says(says)));
    }
    if service_rooms::services_in(db, room)?.contains(service) {
        return is(format!("A user of {service} has joined {room}."));
    }
    if interests
        .in_room_id(room)
        .iter()
        .any(|of| of.id == *service)
    {
        return is(format!(
            "A pattern of the namespace `rooms` of {service} matches {room}."
        ));
    }
    for alias in aliases::of_room(db, room, i64::MAX)? {
        if interests
            .in_alias(&alias)
            .iter()
            .any(|(of, _)| of.id == *service)
        {
            return is(format!(
                "A pattern of the namespace `aliases` of {service} matches {alias}."
            ));
        }
    }
    let about = row
        .state_key
        .as_ref()
        .filter(|_| row.kind == "m.room.member");
    if let Some(user) = about.filter(|user| interests.claim(service, user).is_some()) {
        return is(format!(
            "The event is about the membership of {user}, a user of {service}."
        ));
    }
    let says = format!(
        "{service} is not interested in it: none of its users has joined {room}, and no pattern of its namespaces `rooms` and `aliases` matches the room. Events outside are not sent to it, whoever sends them."
    );
    Ok(Interest::new(false, steps::INTEREST.says(says)))
}

/// A to-device message, by its position or by its `org.matrix.msgid`.
pub(super) fn message(
    db: &mut Conn,
    hooks: &Hooks,
    interests: &Interests,
    history: &History,
    service: &ServiceId,
    name: &str,
) -> Result<Known> {
    let position: Option<i64> = name.parse().ok();
    let fits = |deposited: &Deposited| {
        Some(deposited.position) == position || deposited.message_id.as_deref() == Some(name)
    };
    let remembered = history
        .deposits(1, fits)
        .pop()
        .map(|entry: Timed<Deposited>| entry.what);
    let position = remembered
        .as_ref()
        .map(|message| message.position)
        .or(position);
    let stored = inbox::at(db, &position.map(Position).into_iter().collect::<Vec<_>>())?.pop();
    let (user, device, sender, kind) = match (&stored, &remembered) {
        (Some(row), _) => (&row.user_id, &row.device_id, &row.sender, &row.kind),
        (None, Some(message)) => (
            &message.user,
            &message.device,
            &message.sender,
            &message.kind,
        ),
        (None, None) => return Ok(withheld(history, name)),
    };
    let inbox = match (
        &stored,
        position.and_then(|at| history.taken(user, device, at)),
    ) {
        (Some(row), None) if !row.acknowledged => steps::INBOX.says(format!(
            "It is in the inbox of {user}, device {device}, until it is acknowledged."
        )),
        (_, Some(at)) => steps::INBOX
            .says(format!("{user}, device {device}, has taken it with /sync."))
            .at(Some(at)),
        _ => steps::INBOX.says(format!(
            "It is not in the inbox of {user}, device {device}, any more."
        )),
    };
    let interest = in_message(db, interests, service, user, device)?;
    let draft = OwedDraft::ToDevice {
        sender,
        kind,
        user,
        device,
    };
    let interest = unless_withheld(hooks, interests, service, &draft, interest);
    Ok(Known {
        is: Some(format!(
            "{sender} sent a to-device message of the type {kind} to {user}, device {device}."
        )),
        position,
        kinds: vec![owed::TO_DEVICE, owed::OBSERVED, owed::GRANTED],
        interest,
        more: vec![inbox],
        ..Known::default()
    })
}

/// A to-device message that a proposal kept from its device, by its `org.matrix.msgid`.
fn withheld(history: &History, name: &str) -> Known {
    let found = history.withheld(1, |message| message.message_id.as_deref() == Some(name));
    let Some(Timed { at, what, .. }) = found.into_iter().next() else {
        return Known::default();
    };
    let (user, device) = (&what.user, &what.device);
    let is = format!(
        "{} sent a to-device message of the type {} to {user}, device {device}.",
        what.sender, what.kind
    );
    let says = format!(
        "The proposal MSC{} kept it from the device: {}.",
        what.msc, what.why
    );
    let step = steps::WITHHELD.says(says).at(Some(at));
    Known {
        is: Some(is),
        interest: Interest::new(false, step),
        ..Known::default()
    }
}

fn in_message(
    db: &mut Conn,
    interests: &Interests,
    service: &ServiceId,
    user: &str,
    device: &str,
) -> Result<Interest> {
    use inbox_rules::Withheld;
    let Some(registered) = interests.service(service) else {
        return Ok(unregistered(service));
    };
    let Some(to) = accounts::device(db, user, device)? else {
        let says = format!("The device {device} of {user} does not exist any more.");
        return Ok(Interest::new(false, steps::NO_DEVICE.says(says)));
    };
    let interest = inbox_rules::interest(interests.claim(service, user), registered, &to);
    let interest =
        interest.and_then(|interest| inbox_rules::deliverable(registered).map(|()| interest));
    Ok(match interest {
        Ok(interest) => Interest::new(true, copy_because(service, interest.rule())),
        Err(why) => {
            let because = match why {
                Withheld::NotInterested => {
                    "no pattern of its namespace `users` matches the user, and it created neither the account nor the device"
                }
                Withheld::NotGranted => {
                    "it would only observe the user, and the configuration does not grant that (`observe`)"
                }
                Withheld::NoUrl => "its registration has no url",
                Withheld::NotAskedFor => "its registration does not ask for to-device messages",
                Withheld::ProposalOff => {
                    "the server has to-device messages to services switched off"
                }
            };
            let rule = if why == Withheld::NotGranted {
                steps::OBSERVING
            } else {
                steps::COPY
            };
            Interest::new(
                false,
                rule.says(format!("{service} gets no copy: {because}.")),
            )
        }
    })
}

/// The device list of a user.
pub(super) fn device_list(
    db: &mut Conn,
    hooks: &Hooks,
    interests: &Interests,
    service: &ServiceId,
    user: &str,
) -> Result<Known> {
    let is = accounts::user(db, user)?.map(|_| format!("{user} is a user of this server."));
    let interest = match interests.service(service) {
        None => unregistered(service),
        Some(registered) if !registered.takes_device_lists => {
            let says = format!(
                "Device lists are not sent to {service}: its registration does not ask for them, it has no url, or the proposal is off."
            );
            Interest::new(false, steps::OFF.says(says))
        }
        Some(_) => {
            let (holds, says) = if tracked::is_tracked(db, service, user)? {
                (
                    true,
                    format!(
                        "{service} tracks {user}: it shares a room with the user, or the user is its own."
                    ),
                )
            } else if service_rooms::shares_a_room(db, service, user)? {
                (
                    true,
                    format!("{service} shares a room with {user}, and will be told."),
                )
            } else {
                (
                    false,
                    format!("{service} does not track {user}: it shares no room with the user."),
                )
            };
            Interest::new(holds, steps::LISTS.says(says))
        }
    };
    let draft = OwedDraft::DeviceList {
        user,
        has_left: false,
    };
    let interest = unless_withheld(hooks, interests, service, &draft, interest);
    Ok(Known {
        is,
        kinds: vec![owed::DEVICE_LIST],
        key: user.to_owned(),
        interest,
        ..Known::default()
    })
}

/// The key counts of a device.
pub(super) fn keys(
    db: &mut Conn,
    hooks: &Hooks,
    interests: &Interests,
    service: &ServiceId,
    user: &str,
    device: &str,
) -> Result<Known> {
    let to = accounts::device(db, user, device)?;
    let is = to
        .as_ref()
        .map(|_| format!("{user} has the device {device}."));
    let interest = match (interests.service(service), &to) {
        (None, _) | (_, None) => unregistered(service),
        (Some(registered), Some(to)) => {
            let claims = concerned(interests, to);
            let claim: Option<NamespaceClaim> = claims.get(service).copied().flatten();
            let decides = claims.contains_key(service) && authority(claim, service, to).is_some();
            let (holds, says) = match (decides, registered.takes_device_lists) {
                (true, true) => (
                    true,
                    format!(
                        "{service} decides over the device, so it is sent the counts when they change."
                    ),
                ),
                (true, false) => (
                    false,
                    format!(
                        "Key counts are not sent to {service}: its registration does not ask for them, it has no url, or the proposal is off."
                    ),
                ),
                (false, _) => (
                    false,
                    format!(
                        "{service} does not decide over the device: a service is sent the counts of its own devices only."
                    ),
                ),
            };
            Interest::new(holds, steps::COUNTS.says(says))
        }
    };
    let draft = OwedDraft::Count { user, device };
    let interest = unless_withheld(hooks, interests, service, &draft, interest);
    let has_keys = stored_keys::device_keys(db, user, device)?.is_some();
    let none = format!(
        "{user}, device {device}, has uploaded no identity keys: counts of such a device are not sent."
    );
    Ok(Known {
        is,
        kinds: vec![owed::COUNT],
        key: owed::key(&[user, device]),
        interest,
        more: (!has_keys)
            .then(|| steps::COUNTS.says(none))
            .into_iter()
            .collect(),
        ..Known::default()
    })
}
