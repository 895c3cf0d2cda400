//! Inboxes, tracked users and keys, in pages.

use std::collections::{BTreeMap, BTreeSet};

use schema::{ServiceId, overview, queues};
use serde::Serialize;

use crate::{Env, Error, Result};

/// The most entries of a page.
const PAGE: usize = 500;

/// The most shared rooms that are named for a user.
const ROOMS: usize = 5;

/// A page of a list.
#[derive(Debug, Clone, Serialize)]
pub struct Page<T> {
    /// The entries, at most 500.
    pub items: Vec<T>,
    /// The `after` of the next page, if there may be more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Where a page begins: after an entry with these two names, which are separated by `/`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct After(String, String);

impl After {
    /// Read it from the `next` of the page before.
    pub fn parse(text: &str) -> After {
        // A user id can contain `/`, the other part of these names comes behind or before it.
        match text.starts_with('@') {
            true => text.rsplit_once('/'),
            false => text.split_once('/'),
        }
        .map_or_else(
            || After(text.to_owned(), String::new()),
            |(a, b)| After(a.to_owned(), b.to_owned()),
        )
    }

    fn parts(&self) -> (&str, &str) {
        (&self.0, &self.1)
    }
}

fn limit() -> i64 {
    i64::try_from(PAGE).unwrap_or(i64::MAX)
}

fn page<R, T>(rows: Vec<R>, name: impl Fn(&R) -> String, item: impl FnMut(R) -> T) -> Page<T> {
    let next = rows.last().filter(|_| rows.len() == PAGE).map(name);
    let items = rows.into_iter().map(item).collect();
    Page { items, next }
}

/// The messages that wait for a device.
#[derive(Debug, Clone, Serialize)]
pub struct WaitingInbox {
    /// The owner of the device.
    pub user: String,
    /// The device.
    pub device: String,
    /// The number of messages.
    pub rows: i64,
    /// The position of the oldest.
    pub oldest: Option<i64>,
    /// When the oldest came, in milliseconds since the epoch; `None` if that was before the start.
    pub oldest_at: Option<i64>,
    /// The appservice whose acknowledgement counts as the device's, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
}

/// The devices for which messages wait.
pub async fn inboxes(env: &Env, after: After) -> Result<Page<WaitingInbox>> {
    let read = env
        .store
        .read(move |db| queues::inboxes(db, after.parts(), limit()));
    let name = |row: &queues::DeviceInbox| format!("{}/{}", row.user, row.device);
    Ok(page(read.await?, name, |row| WaitingInbox {
        oldest_at: row.oldest.and_then(|oldest| env.history.time_of(oldest)),
        user: row.user,
        device: row.device,
        rows: row.rows,
        oldest: row.oldest,
        decided_by: row.decided_by.filter(|service| !service.is_empty()),
    }))
}

/// A user whose devices an appservice tracks.
#[derive(Debug, Clone, Serialize)]
pub struct TrackedUser {
    /// The appservice.
    pub service: String,
    /// The user.
    pub user: String,
    /// Rooms that the user shares with the appservice, at most 5.
    pub rooms: Vec<String>,
    /// The number of all of them. 0: a `left` is about to be owed.
    pub shared: usize,
}

/// The users whose devices appservices track, each with the rooms that are the reason.
pub async fn tracked(env: &Env, after: After) -> Result<Page<TrackedUser>> {
    let read = env.store.read(move |db| {
        let rows = overview::tracked_users(db, after.parts(), limit())?;
        let services: BTreeSet<&str> = rows.iter().map(|(service, _)| service.as_str()).collect();
        let mut shared = BTreeMap::new();
        for service in services {
            let theirs = rows.iter().filter(|(of, _)| of == service);
            let users: Vec<&str> = theirs.map(|(_, user)| user.as_str()).collect();
            let rooms = overview::shared_rooms(db, &ServiceId::from(service), &users, ROOMS)?;
            shared.insert(service.to_owned(), rooms);
        }
        Ok::<_, Error>((rows, shared))
    });
    let (rows, mut shared) = read.await?;
    let name = |(service, user): &(String, String)| format!("{service}/{user}");
    Ok(page(rows, name, |(service, user)| {
        let of_user = shared
            .get_mut(&service)
            .and_then(|users| users.remove(&user));
        let (shared, rooms) = of_user.unwrap_or_default();
        TrackedUser {
            service,
            user,
            rooms,
            shared,
        }
    }))
}

/// The keys of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DeviceKeyCounts {
    /// The owner of the device.
    pub user: String,
    /// The device.
    pub device: String,
    /// The numbers of unclaimed one-time keys, by algorithm.
    pub one_time: BTreeMap<String, i64>,
    /// The fallback keys by algorithm: whether each was handed out.
    pub fallback_used: BTreeMap<String, bool>,
}

/// The devices that have uploaded identity keys, with their other keys.
pub async fn keys(env: &Env, after: After) -> Result<Page<DeviceKeyCounts>> {
    let read = env.store.read(move |db| {
        let devices = overview::devices_with_keys(db, after.parts(), limit())?;
        let users: BTreeSet<&str> = devices.iter().map(|(user, _)| user.as_str()).collect();
        let users: Vec<&str> = users.into_iter().collect();
        let one_time = overview::one_time_keys_of(db, &users)?;
        Ok::<_, Error>((one_time, overview::fallback_keys_of(db, &users)?, devices))
    });
    let (one_time, fallback, devices) = read.await?;
    let mut counts: BTreeMap<(String, String), DeviceKeyCounts> = BTreeMap::new();
    for (user, device, algorithm, count) in one_time {
        let of_device = counts.entry((user, device)).or_default();
        of_device.one_time.insert(algorithm, count);
    }
    for (user, device, algorithm, used) in fallback {
        let of_device = counts.entry((user, device)).or_default();
        of_device.fallback_used.insert(algorithm, used);
    }
    let name = |(user, device): &(String, String)| format!("{user}/{device}");
    Ok(page(devices, name, |(user, device)| {
        let keys = counts
            .remove(&(user.clone(), device.clone()))
            .unwrap_or_default();
        DeviceKeyCounts {
            user,
            device,
            ..keys
        }
    }))
}
