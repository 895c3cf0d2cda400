//! The user directory: users that share a room with the caller, or are in a room of the directory. ([spec])
//!
//! It is not an index of its own: what is looked at is bounded, and a user who is known by id is found however many there are.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#user-directory

use std::collections::BTreeMap;

use ruma::{OwnedUserId, UserId};
use schema::{Conn, accounts, memberships, rooms};

use crate::rooms::rules::parsed;
use crate::{Env, Result};

/// The most users that one answer names.
const MOST: usize = 50;

/// The most memberships that are looked at for one answer.
const LOOKED_AT: usize = 10_000;

/// The most rooms whose members are looked at, the caller's own and public ones each.
const ROOMS: i64 = 200;

/// A user of the directory.
#[derive(Debug)]
pub struct FoundUser {
    /// The user's id.
    pub user: OwnedUserId,
    /// Its display name.
    pub display_name: Option<String>,
    /// Its avatar.
    pub avatar_url: Option<String>,
}

/// What was found in the directory.
#[derive(Debug)]
pub struct FoundUsers {
    /// In order of how well they match, then of id.
    pub users: Vec<FoundUser>,
    /// Whether there may be more.
    pub limited: bool,
}

/// The users whose id or display name contains a text, whatever its case; the caller is not among them. ([spec])
///
/// # Errors
/// When the database fails.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3user_directorysearch
pub async fn users(env: &Env, by: &UserId, term: &str, limit: usize) -> Result<FoundUsers> {
    let (by, term) = (by.to_owned(), term.trim().to_lowercase());
    let (server, limit) = (env.settings.server_name.to_string(), limit.clamp(1, MOST));
    env.store
        .read(move |db| {
            let mut search = Search {
                by: by.as_str(),
                term: &term,
                left: LOOKED_AT,
                found: BTreeMap::new(),
            };
            if !term.is_empty() {
                search.named(db, &server)?;
                search.in_rooms(db)?;
            }
            search.finish(db, limit)
        })
        .await
}

struct Search<'a> {
    by: &'a str,
    term: &'a str,
    /// How many memberships may still be looked at.
    left: usize,
    /// Users, each with how well it matches: the smaller, the better.
    found: BTreeMap<String, u8>,
}

impl Search<'_> {
    /// The user whose id or localpart this is.
    fn named(&mut self, db: &mut Conn, server: &str) -> Result<()> {
        let local = self.term.trim_start_matches('@');
        let id = if local.contains(':') {
            format!("@{local}")
        } else {
            format!("@{local}:{server}")
        };
        let is_there = id != self.by && accounts::is_active(db, &id)?;
        if is_there
            && (schema::sync::shares_a_room(db, self.by, &id)?
                || schema::sync::is_in_public_room(db, &id)?)
        {
            self.found.insert(id, 0);
        }
        Ok(())
    }

    /// The members of the caller's rooms, then those of public ones.
    fn in_rooms(&mut self, db: &mut Conn) -> Result<()> {
        let own = schema::sync::joined_rooms(db, self.by, "", ROOMS)?;
        let public = rooms::public(db, None, ROOMS)?;
        for room in own.into_iter().chain(public.into_iter().map(|r| r.room_id)) {
            self.in_room(db, &room)?;
            if self.left == 0 {
                break;
            }
        }
        Ok(())
    }

    fn in_room(&mut self, db: &mut Conn, room: &str) -> Result<()> {
        const PAGE: usize = 500;
        let mut after = String::new();
        while self.left > 0 {
            let most = i64::try_from(self.left.min(PAGE)).unwrap_or(i64::MAX);
            let members = memberships::in_room(db, room, "join", &after, most)?;
            let Some(last) = members.last() else {
                return Ok(());
            };
            after.clone_from(&last.user_id);
            self.left -= members.len();
            for member in members {
                let rank = rank(&member.user_id, member.display_name.as_deref(), self.term);
                if let Some(rank) = rank
                    && member.user_id != self.by
                {
                    let known = self.found.entry(member.user_id).or_insert(rank);
                    *known = rank.min(*known);
                }
            }
        }
        Ok(())
    }

    fn finish(self, db: &mut Conn, limit: usize) -> Result<FoundUsers> {
        let mut ranked: Vec<(u8, String)> =
            self.found.into_iter().map(|(user, r)| (r, user)).collect();
        ranked.sort();
        let limited = ranked.len() > limit || self.left == 0;
        let mut users = Vec::new();
        for (_, user) in ranked.into_iter().take(limit) {
            if let Some(row) = accounts::user(db, &user)? {
                users.push(FoundUser {
                    user: parsed(&row.user_id)?,
                    display_name: row.display_name,
                    avatar_url: row.avatar_url,
                });
            }
        }
        Ok(FoundUsers { users, limited })
    }
}

/// How well a user matches a text in lower case: its beginning, or somewhere; `None` for not at all.
fn rank(user_id: &str, display_name: Option<&str>, term: &str) -> Option<u8> {
    let texts = [
        Some(user_id.trim_start_matches('@').to_lowercase()),
        display_name.map(str::to_lowercase),
    ];
    let term = term.trim_start_matches('@');
    let ranks = texts.into_iter().flatten().filter_map(|text| {
        if text.starts_with(term) {
            Some(1)
        } else {
            text.contains(term).then_some(2)
        }
    });
    ranks.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_matches_better_than_a_part() {
        let cases = [
            ("@alice:test", None, "ali", Some(1)),
            ("@alice:test", None, "@ali", Some(1)),
            ("@alice:test", None, "lice", Some(2)),
            ("@x:test", Some("Carol Ann"), "carol", Some(1)),
            ("@x:test", Some("Carol Ann"), "ann", Some(2)),
            ("@x:test", Some("Carol Ann"), "bob", None),
        ];
        for (user, name, term, expected) in cases {
            assert_eq!(rank(user, name, term), expected, "{user} {name:?} {term}");
        }
    }
}
