//! The users that a user ignores: the account data `m.ignored_user_list`. ([spec])
//!
//! Their message events are left out of `/sync`, history, threads and search. State events are not, nor is an event requested by
//! its id, nor are to-device messages: those carry keys for events that become visible when the user is no longer ignored.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#ignoring-users

use std::collections::BTreeSet;

use schema::events::EventRow;
use schema::{Conn, user_data};

use crate::Result;

/// The account data type that holds the list.
pub const KIND: &str = "m.ignored_user_list";

/// The users that a user ignores.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Ignored(BTreeSet<String>);

impl Ignored {
    /// The current list of a user. Invalid content ignores no user, since clients may store any account data.
    pub fn of(db: &mut Conn, user_id: &str) -> Result<Ignored> {
        let content = user_data::get(db, user_id, "", KIND)?;
        let mut ignored = content.map_or_else(Ignored::default, |json| Ignored::parse(&json));
        ignored.0.remove(user_id);
        Ok(ignored)
    }

    fn parse(json: &str) -> Ignored {
        let content: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
        let users = content.get("ignored_users").and_then(|u| u.as_object());
        Ignored(users.into_iter().flat_map(|u| u.keys().cloned()).collect())
    }

    /// Whether no user is ignored.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this user is ignored.
    pub fn contains(&self, user_id: &str) -> bool {
        self.0.contains(user_id)
    }

    /// Whether an event is hidden: a message event of an ignored user. ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#ignoring-users
    pub fn hides(&self, event: &EventRow) -> bool {
        event.state_key.is_none() && self.contains(&event.sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_cannot_be_read_ignores_no_user() {
        let good = r#"{"ignored_users": {"@spam:test": {}, "@eve:test": 1}}"#;
        let good = Ignored::parse(good);
        assert!(good.contains("@spam:test") && good.contains("@eve:test"));
        for odd in [
            "{}",
            r#"{"ignored_users": ["@spam:test"]}"#,
            r#"{"ignored_users": 7}"#,
        ] {
            assert!(Ignored::parse(odd).is_empty(), "{odd}");
        }
    }
}
