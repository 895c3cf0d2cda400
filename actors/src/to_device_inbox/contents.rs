//! The contents of one deposit: each is stored once, however many devices and services receive it.

use std::collections::BTreeMap;

use schema::Tx;
use schema::inbox::{self, SharedContent};

use super::rules::{self, Delivery};
use crate::Result;

/// How a content of the deposit is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In each row.
    InRows,
    /// Once, and not stored yet.
    Once,
    /// Once, under this id.
    Stored(i64),
}

/// The contents of a deposit, by where their text stands in the request: equal texts of different targets are not compared.
pub(super) struct Contents(BTreeMap<*const u8, Place>);

impl Contents {
    /// Count the rows that each content would be in.
    pub(super) fn of(deliveries: &[Delivery<'_>]) -> Contents {
        let mut rows: BTreeMap<*const u8, (usize, usize)> = BTreeMap::new();
        for delivery in deliveries {
            let entry = rows.entry(delivery.content.as_ptr());
            let (count, _) = entry.or_insert((0, delivery.content.len()));
            *count += 1;
        }
        let place = |(count, bytes)| match rules::is_shared(count, bytes) {
            true => Place::Once,
            false => Place::InRows,
        };
        Contents(
            rows.into_iter()
                .map(|(at, rows)| (at, place(rows)))
                .collect(),
        )
    }

    /// What the row at this position holds: the content itself, or the id of the shared one, which the first row stores.
    pub(super) fn store(
        &mut self,
        tx: &mut Tx<'_>,
        content: &str,
        position: i64,
    ) -> Result<(String, Option<i64>)> {
        match self.0.get_mut(&content.as_ptr()) {
            Some(Place::Stored(id)) => Ok((String::new(), Some(*id))),
            Some(place @ Place::Once) => {
                let shared = SharedContent {
                    id: position,
                    content: content.to_owned(),
                };
                inbox::share(tx, &shared)?;
                *place = Place::Stored(position);
                Ok((String::new(), Some(position)))
            }
            Some(Place::InRows) | None => Ok((content.to_owned(), None)),
        }
    }
}
