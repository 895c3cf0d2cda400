//! The user directory: users that share a room with the caller, or are joined to a public room. ([spec])
//!
//! There is no index. The number of memberships that are read is limited; a user that is named by its full id is always found.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#user-directory

use std::collections::BTreeMap;

use ruma::{OwnedUserId, UserId};
use schema::{Conn, accounts, memberships, rooms};

use crate::rooms::rules::parsed;
use crate::{Env, Result};

/// The most users that one answer names.
const MOST: usize = 50;

/// The most memberships that are read for one answer.
const LOOKED_AT: usize = 10_000;

/// The most rooms whose members are read, of the caller's own and of public ones each.
const ROOMS: i64 = 200;

/// A user of the directory.
#[derive(Debug)]
pub struct FoundUser {
    /// The user's id.
    pub user: OwnedUserId,
    /// The display name in the profile.
    pub display_name: Option<String>,
    /// The `mxc:` URI of the avatar.
    pub avatar_url: Option<String>,
}

/// The result of a search in the user directory.
#[derive(Debug)]
pub struct FoundUsers {
    /// The best matches first, then by id.
    pub users: Vec<FoundUser>,
    /// Whether there may be more matches.
    pub limited: bool,
}

/// The users other than the caller whose id or display name contains a text, ignoring case. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3user_directorysearch
pub async fn users(env: &Env, by: &UserId, term: &str, limit: usize) -> Result<FoundUsers> {
    let (by, term) = (by.to_owned(), term.trim().to_lowercase());
    let (server, limit) = (env.settings.server_name.to_string(), limit.clamp(1, MOST));
    env.store
        .read(move |db| {
            let mut search = UserSearch {
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

struct UserSearch<'a> {
    by: &'a str,
    term: &'a str,
    /// How many memberships may still be read.
    left: usize,
    /// The rank of each match; a smaller one is better.
    found: BTreeMap<String, u8>,
}

impl UserSearch<'_> {
    /// Find the user whose id or localpart is the search term.
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

    /// Search the members of the caller's rooms, then those of public rooms.
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

/// The rank of a user for a search term in lower case: 1 for a prefix, 2 for a match elsewhere, `None` for no match.
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
