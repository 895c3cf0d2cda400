//! Redacts the events of users that asked for erasure, for readers that joined later. ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate

use std::collections::BTreeMap;

use ruma::canonical_json::{CanonicalJsonObject, redact_in_place};
use schema::events::EventRow;
use schema::{Conn, Position, accounts, rooms};

use crate::Result;
use crate::rooms::rules::rules_of;
use crate::rooms::rules::visibility::HistoryAccess;

/// Of the senders of some events, those that asked for erasure before the reader joined, each with the position of that request.
#[derive(Debug, Default)]
pub(super) struct Erased(BTreeMap<String, Position>);

impl Erased {
    /// Look up the senders of events for a reader. `access` is the reader's; `None`, for an appservice transaction, erases nothing.
    pub(super) fn among(
        db: &mut Conn,
        rows: &[EventRow],
        access: Option<&HistoryAccess>,
    ) -> Result<Erased> {
        let mut erased = Erased::default();
        let Some(access) = access else {
            return Ok(erased);
        };
        let mut last = "";
        for row in rows {
            if row.sender == last || erased.0.contains_key(&row.sender) {
                continue;
            }
            last = &row.sender;
            if let Some(at) = accounts::erased_at(db, &row.sender)?
                && !access.has_been_joined_by(at)
            {
                erased.0.insert(row.sender.clone(), at);
            }
        }
        Ok(erased)
    }

    /// Whether the reader sees this event redacted.
    pub(super) fn contains(&self, row: &EventRow) -> bool {
        self.0.contains_key(&row.sender)
    }

    /// The redacted form of an event; `None` if the reader sees the event whole, or if it is redacted already.
    pub(super) fn left_of(&self, db: &mut Conn, row: &EventRow) -> Result<Option<EventRow>> {
        if !self.contains(row) || row.redacted_by.is_some() {
            return Ok(None);
        }
        let Some(room) = rooms::room(db, &row.room_id)? else {
            return Ok(None);
        };
        let mut object: CanonicalJsonObject = serde_json::from_str(&row.pdu)?;
        redact_in_place(&mut object, &rules_of(&room.version)?.redaction, None)
            .map_err(|e| schema::Error::Damaged(format!("event {}: {e}", row.event_id)))?;
        Ok(Some(EventRow {
            pdu: serde_json::to_string(&object)?,
            ..row.clone()
        }))
    }
}
