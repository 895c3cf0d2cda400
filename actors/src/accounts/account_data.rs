//! Stores account data, and owes it to the application services for which the account-data experiment is on. The write that stores
//! the data also inserts the owed row. There is one owed row per user, room and type, however often the data changes.

use std::collections::BTreeSet;

use schema::owed::{self, Owed};
use schema::user_data::{self, DataRow};
use schema::{Conn, Position, ServiceId, Tx, owed_keys};

use crate::Result;
use crate::hooks::{Change, ReportsChanges};
use crate::services::{AccountDataKind, CarriesInterests, Interests, Service};

/// The result of [`put`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Put {
    /// The position of the stored data.
    pub(crate) position: Position,
    /// The appservices that are owed the data.
    pub(crate) services: BTreeSet<ServiceId>,
}

// ANCHOR: put
/// Part of a write: store account data in place of any older content. `room_id` is empty for global data.
pub(crate) fn put(
    tx: &mut Tx<'_>,
    user_id: &str,
    room_id: &str,
    kind: &str,
    content: &str,
) -> Result<Put> {
    let data = user_data::put(tx, user_id, room_id, kind, content)?;
    tx.changed(&Change::AccountData {
        user: user_id,
        room: room_id,
        kind,
        content,
    })?;
    let position = Position(data.position);
    let interests = tx.interests();
    let mut services = BTreeSet::new();
    for (service, data_kind) in receivers(&interests, user_id) {
        owed::owe_latest(tx, &owed(service, data_kind, &data, position))?;
        services.insert(service.id.clone());
    }
    Ok(Put { position, services })
}

/// The appservices that are sent a user's account data.
fn receivers<'a>(
    interests: &'a Interests,
    user_id: &str,
) -> impl Iterator<Item = (&'a Service, &'static AccountDataKind)> {
    interests
        .in_user(user_id)
        .into_iter()
        .filter_map(|(service, claim)| {
            let data_kind = service
                .account_data
                .filter(|data_kind| (data_kind.is_sent)(claim))?;
            Some((&**service, data_kind))
        })
}
// ANCHOR_END: put

/// The row by which an appservice is owed a piece of account data. Its key is made of user, room and type; its item is the content.
fn owed(
    service: &Service,
    data_kind: &AccountDataKind,
    data: &DataRow,
    position: Position,
) -> Owed {
    Owed {
        key: owed::key(&[&data.user_id, &data.room_id, &data.kind]),
        item: data.content.clone(),
        ..service.owed(position, data_kind.kind)
    }
}

/// Part of a back-fill: owe an appservice the account data of a user that changed after `after`, while the experiment was off.
pub(crate) fn owe_missed(
    tx: &mut Tx<'_>,
    interests: &Interests,
    service: &ServiceId,
    user_id: &str,
    after: Position,
) -> Result<()> {
    for (service, data_kind) in receivers(interests, user_id).filter(|(s, _)| s.id == *service) {
        for data in user_data::changed(tx, user_id, after, Position(i64::MAX), i64::MAX)? {
            let position = tx.next_position();
            owed::owe_latest(tx, &owed(service, data_kind, &data, position))?;
        }
    }
    Ok(())
}

/// After a change of the registration or of the experiment's switch: forget owed account data of users that the appservice no
/// longer claims, and of data that was deleted meanwhile. The rows that a frozen transaction carries stay.
pub(crate) fn retain_owed(db: &mut Conn, interests: &Interests, service: &ServiceId) -> Result<()> {
    let Some(data_kind) = interests.service(service).and_then(|s| s.account_data) else {
        return Ok(());
    };
    for key in owed_keys::of_kind(db, service, data_kind.kind)? {
        let mut parts = owed::parts(&key);
        let mut part = || parts.next().unwrap_or_default();
        let (user_id, room_id, kind) = (part(), part(), part());
        let is_sent = interests
            .claim(service, user_id)
            .is_some_and(data_kind.is_sent);
        if !is_sent || user_data::get(db, user_id, room_id, kind)?.is_none() {
            owed::forget_key(db, service, data_kind.kind, &key)?;
        }
    }
    Ok(())
}

/// Part of a deactivation: no appservice is sent the user's account data any more.
pub(crate) fn forget_owed(tx: &mut Tx<'_>, user_id: &str) -> Result<()> {
    let interests = tx.interests();
    for (service, data_kind) in receivers(&interests, user_id) {
        owed::forget_part(tx, &service.id, data_kind.kind, user_id)?;
    }
    Ok(())
}
