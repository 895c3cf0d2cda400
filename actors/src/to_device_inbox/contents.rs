//! The contents of one deposit. A large content with several recipients is stored once.

use std::collections::BTreeMap;

use schema::Tx;
use schema::inbox::{self, SharedContent};

use super::rules::{self, Delivery};
use crate::Result;

/// The place where the content of a message is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ContentPlace {
    /// In the row of each recipient.
    InRows,
    /// In a shared row, which is not written yet.
    Once,
    /// In the shared row with this id.
    Stored(i64),
}

/// Where each content of a deposit is stored. A content is identified by the address of its text in the request; equal texts at
/// different addresses are not compared.
pub(super) struct Contents(BTreeMap<*const u8, ContentPlace>);

impl Contents {
    /// Count the recipients of each content.
    pub(super) fn of(deliveries: &[Delivery<'_>]) -> Contents {
        let mut rows: BTreeMap<*const u8, (usize, usize)> = BTreeMap::new();
        for delivery in deliveries {
            let entry = rows.entry(delivery.content.as_ptr());
            let (count, _) = entry.or_insert((0, delivery.content.len()));
            *count += 1;
        }
        let place = |(count, bytes)| match rules::is_shared(count, bytes) {
            true => ContentPlace::Once,
            false => ContentPlace::InRows,
        };
        Contents(
            rows.into_iter()
                .map(|(at, rows)| (at, place(rows)))
                .collect(),
        )
    }

    /// The value for the row at this position: the content itself, or the id of the shared row, which the first recipient's row
    /// creates.
    pub(super) fn store(
        &mut self,
        tx: &mut Tx<'_>,
        content: &str,
        position: i64,
    ) -> Result<(String, Option<i64>)> {
        match self.0.get_mut(&content.as_ptr()) {
            Some(ContentPlace::Stored(id)) => Ok((String::new(), Some(*id))),
            Some(place @ ContentPlace::Once) => {
                let shared = SharedContent {
                    id: position,
                    content: content.to_owned(),
                };
                inbox::share(tx, &shared)?;
                *place = ContentPlace::Stored(position);
                Ok((String::new(), Some(position)))
            }
            Some(ContentPlace::InRows) | None => Ok((content.to_owned(), None)),
        }
    }
}
