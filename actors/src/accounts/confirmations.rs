//! Interactive authentication: what is open, for whom and for what. ([spec])
//!
//! In memory only: a restart makes a client begin again, which it can.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use ruma::UserId;
use schema::accounts;

use super::messages::{Auth, Stage};
use super::passwords::Passwords;
use super::rules;
use crate::error::Challenge;
use crate::{Env, Refusal, Result};

/// How many sessions are open at most; the one that would end first makes room.
const LIMIT: usize = 1000;

/// How long a session stays open, in milliseconds: a quarter of an hour to type a password.
const OPEN_FOR: i64 = 15 * 60 * 1000;

/// What a session was opened for. It counts for nothing else.
struct Session {
    purpose: String,
    until: i64,
}

/// The open sessions.
#[derive(Default)]
struct Sessions(BTreeMap<String, Session>);

impl Sessions {
    fn open(&mut self, id: String, purpose: String, now: i64) {
        self.0.retain(|_, session| session.until > now);
        if self.0.len() >= LIMIT {
            let first = self.0.iter().min_by_key(|(_, s)| s.until);
            if let Some(first) = first.map(|(id, _)| id.clone()) {
                self.0.remove(&first);
            }
        }
        let until = now + OPEN_FOR;
        self.0.insert(id, Session { purpose, until });
    }

    fn knows(&self, id: &str, purpose: &str, now: i64) -> bool {
        self.0
            .get(id)
            .is_some_and(|s| s.purpose == purpose && s.until > now)
    }

    fn close(&mut self, id: &str) {
        self.0.remove(id);
    }
}

/// Asks for confirmations and checks them. Clones share the open sessions.
#[derive(Clone)]
pub(super) struct Confirmations {
    env: Env,
    passwords: Passwords,
    sessions: Rc<RefCell<Sessions>>,
}

impl Confirmations {
    pub(super) fn new(env: Env, passwords: Passwords) -> Confirmations {
        Confirmations {
            env,
            passwords,
            sessions: Rc::default(),
        }
    }

    /// The user confirms with the password, or is told how to.
    pub(super) async fn by_password(
        &self,
        user: &UserId,
        operation: &str,
        auth: Option<Auth>,
    ) -> Result<()> {
        let (purpose, flow) = (format!("{user} {operation}"), "m.login.password");
        let session = self.session(&purpose, flow, auth.as_ref())?;
        let Some(Auth { stage, .. }) = auth else {
            return Err(self.challenge(purpose, flow, session, None));
        };
        let failed = match stage {
            Stage::Password {
                user: typed,
                password,
            } => {
                let hash = self.hash_of(user, &typed).await?;
                if self.passwords.matches(password, hash).await? {
                    None
                } else {
                    Some("wrong user or password")
                }
            }
            Stage::Dummy | Stage::Other => Some("this stage is in none of the flows"),
        };
        self.settle(purpose, flow, session, failed)
    }

    /// Somebody without an account goes on, in two steps.
    pub(super) fn by_dummy(&self, operation: &str, auth: Option<&Auth>) -> Result<()> {
        let flow = "m.login.dummy";
        let session = self.session(operation, flow, auth)?;
        let failed = match auth.map(|auth| &auth.stage) {
            None => return Err(self.challenge(operation.to_owned(), flow, session, None)),
            Some(Stage::Dummy) => None,
            Some(_) => Some("this stage is in none of the flows"),
        };
        self.settle(operation.to_owned(), flow, session, failed)
    }

    /// The hash to compare with: `None` when somebody else was named, or there is no password.
    async fn hash_of(&self, user: &UserId, typed: &str) -> Result<Option<String>> {
        let meant = rules::meant(&self.env.settings.server_name, typed);
        let id = user.to_string();
        let row = self.env.store.read(move |db| accounts::user(db, &id));
        let hash = row.await?.and_then(|row| row.password_hash);
        Ok(hash.filter(|_| meant.as_deref() == Some(user)))
    }

    /// The session that the client names, as far as it is open for this purpose; one that is not is a failed stage.
    fn session(
        &self,
        purpose: &str,
        flow: &'static str,
        auth: Option<&Auth>,
    ) -> Result<Option<String>> {
        let Some(id) = auth.and_then(|auth| auth.session.clone()) else {
            return Ok(None);
        };
        let known = self
            .sessions
            .borrow()
            .knows(&id, purpose, self.env.clock.now());
        if known {
            Ok(Some(id))
        } else {
            let failed = Some("this session is not open for this request");
            Err(self.challenge(purpose.to_owned(), flow, None, failed))
        }
    }

    fn settle(
        &self,
        purpose: String,
        flow: &'static str,
        session: Option<String>,
        failed: Option<&'static str>,
    ) -> Result<()> {
        if failed.is_some() {
            return Err(self.challenge(purpose, flow, session, failed));
        }
        if let Some(id) = session {
            self.sessions.borrow_mut().close(&id);
        }
        Ok(())
    }

    /// What the client must do, in the session that is open or in a new one.
    fn challenge(
        &self,
        purpose: String,
        flow: &'static str,
        session: Option<String>,
        failed: Option<&'static str>,
    ) -> crate::Error {
        let session = session.unwrap_or_else(|| {
            let id = self.env.ids.opaque("session");
            let now = self.env.clock.now();
            self.sessions.borrow_mut().open(id.clone(), purpose, now);
            id
        });
        Refusal::Unconfirmed(Challenge {
            session,
            flows: vec![vec![flow]],
            failed,
        })
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_open_for_one_purpose_and_for_a_while() {
        let mut sessions = Sessions::default();
        sessions.open("s".to_owned(), "@alice:test DELETE".to_owned(), 0);
        assert!(sessions.knows("s", "@alice:test DELETE", OPEN_FOR - 1));
        assert!(!sessions.knows("s", "@alice:test DELETE", OPEN_FOR));
        assert!(!sessions.knows("s", "@bob:test DELETE", 0));
        assert!(!sessions.knows("t", "@alice:test DELETE", 0));
        sessions.close("s");
        assert!(!sessions.knows("s", "@alice:test DELETE", 0));
    }

    #[test]
    fn the_sessions_are_bounded_and_the_oldest_makes_room() {
        let mut sessions = Sessions::default();
        for i in 0..=LIMIT {
            let now = i64::try_from(i).unwrap_or_default();
            sessions.open(format!("s{i}"), "p".to_owned(), now);
        }
        assert_eq!(sessions.0.len(), LIMIT);
        assert!(!sessions.knows("s0", "p", 1000));
        assert!(sessions.knows("s1", "p", 1000));
    }
}
