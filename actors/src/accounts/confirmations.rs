//! Interactive authentication: what is open, for whom and for what. ([spec])
//!
//! In memory only: a restart makes a client begin again, which it can.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ruma::UserId;
use schema::accounts;
use sha2::{Digest, Sha256};

use super::messages::{Auth, Registered, Stage};
use super::passwords::Passwords;
use super::rules;
use crate::runtime::error::Challenge;
use crate::{Env, Refusal, Result};

/// How many sessions are open at most. The caller with the most makes room.
const LIMIT: usize = 10_000;

/// How many sessions each caller has open at most: a household that registers behind one address.
const OF_ONE: usize = 100;

/// How long a session stays open, in milliseconds: a quarter of an hour to type a password, or to repeat a request whose answer
/// was lost.
const OPEN_FOR: i64 = 15 * 60 * 1000;

const IN_NO_FLOW: &str = "this stage is in none of the flows";
const THIRD_PARTY: &str =
    "no mail address and no telephone number belongs to an account here; use m.id.user";

/// A user or an address, and what it wants to do.
#[derive(Debug, Clone)]
pub(super) struct Purpose {
    /// The user or address that opened the session: open sessions are counted and limited for each.
    caller: String,
    /// What a session was opened for. It counts for nothing else.
    operation: String,
}

impl Purpose {
    fn of_user(user: &UserId, operation: &str) -> Purpose {
        // An operation may name a thousand devices: its hash is as good, and short.
        let operation = Sha256::digest(format!("{user} {operation}"));
        Purpose {
            caller: user.to_string(),
            operation: STANDARD_NO_PAD.encode(operation),
        }
    }

    /// To register, from this address. The session is not bound to the address: a telephone has another one a minute later.
    pub(super) fn registration(address: &str) -> Purpose {
        Purpose {
            caller: address.to_owned(),
            operation: "register".to_owned(),
        }
    }
}

struct Session {
    purpose: Purpose,
    /// Which of all sessions it is, in the order in which they were opened.
    number: u64,
    until: i64,
    /// The request, as a hash, that passed in this session.
    passed: Option<String>,
    /// What a registration was answered.
    registered: Option<Registered>,
}

/// The open sessions.
#[derive(Default)]
struct Sessions {
    all: BTreeMap<String, Session>,
    /// How many were opened so far.
    opened: u64,
}

impl Sessions {
    fn open(&mut self, id: String, purpose: Purpose, now: i64) {
        self.all.retain(|_, session| session.until > now);
        if self.of(&purpose.caller).count() >= OF_ONE {
            self.forget_first_of(&purpose.caller);
        } else if self.all.len() >= LIMIT
            && let Some(heaviest) = self.heaviest()
        {
            self.forget_first_of(&heaviest);
        }
        self.opened += 1;
        let session = Session {
            purpose,
            number: self.opened,
            until: now + OPEN_FOR,
            passed: None,
            registered: None,
        };
        self.all.insert(id, session);
    }

    fn of(&self, caller: &str) -> impl Iterator<Item = (&String, &Session)> {
        let sessions = self.all.iter();
        sessions.filter(move |(_, session)| session.purpose.caller == caller)
    }

    /// The caller with the most sessions.
    fn heaviest(&self) -> Option<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for session in self.all.values() {
            *counts.entry(&session.purpose.caller).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        most.map(|(caller, _)| caller.to_owned())
    }

    fn forget_first_of(&mut self, caller: &str) {
        let first = self.of(caller).min_by_key(|(_, session)| session.number);
        if let Some(id) = first.map(|(id, _)| id.clone()) {
            self.all.remove(&id);
        }
    }

    fn get(&mut self, id: &str, operation: &str, now: i64) -> Option<&mut Session> {
        let session = self.all.get_mut(id)?;
        (session.purpose.operation == operation && session.until > now).then_some(session)
    }
}

/// What tells a repeated request from another: the request and what it was confirmed with.
fn fingerprint(auth: &Auth) -> String {
    let confirmed = match &auth.stage {
        Stage::Password { user, password } => (user.as_str(), password.reveal()),
        _ => ("", ""),
    };
    let parts = [auth.request.reveal(), confirmed.0, confirmed.1];
    let hash = parts.iter().fold(Sha256::new(), |hash, part| {
        // With its length: no two lists of parts are the same text.
        hash.chain_update(part.len().to_be_bytes())
            .chain_update(part)
    });
    STANDARD_NO_PAD.encode(hash.finalize())
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
    ///
    /// A request that is repeated in its session passes again: its first answer may be lost, and the password may be another one
    /// since.
    pub(super) async fn by_password(
        &self,
        user: &UserId,
        operation: &str,
        auth: Option<Auth>,
    ) -> Result<()> {
        let (purpose, flow) = (Purpose::of_user(user, operation), "m.login.password");
        let session = self.session(&purpose, flow, auth.as_ref())?;
        let Some(auth) = auth else {
            return Err(self.challenge(purpose, flow, session, None));
        };
        let fingerprint = fingerprint(&auth);
        if self.has_passed(session.as_deref(), &purpose, &fingerprint) {
            return Ok(());
        }
        let failed = match auth.stage {
            Stage::Poll => return Err(self.challenge(purpose, flow, session, None)),
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
            Stage::ThirdPartyPassword => Some(THIRD_PARTY),
            Stage::Dummy | Stage::Other => Some(IN_NO_FLOW),
        };
        self.settle(purpose, flow, session, fingerprint, failed)
    }

    /// A caller without an account goes on, in two steps.
    pub(super) fn by_dummy(&self, purpose: Purpose, auth: Option<&Auth>) -> Result<()> {
        let flow = "m.login.dummy";
        let session = self.session(&purpose, flow, auth)?;
        let failed = match auth.map(|auth| &auth.stage) {
            None | Some(Stage::Poll) => {
                return Err(self.challenge(purpose, flow, session, None));
            }
            Some(Stage::Dummy) => None,
            Some(_) => Some(IN_NO_FLOW),
        };
        let fingerprint = auth.map(fingerprint).unwrap_or_default();
        self.settle(purpose, flow, session, fingerprint, failed)
    }

    /// What the same registration was answered in this session: the answer may be lost.
    pub(super) fn registered(&self, auth: Option<&Auth>) -> Option<Registered> {
        let (auth, now) = (auth?, self.env.clock.monotonic());
        let purpose = Purpose::registration("");
        let mut sessions = self.sessions.borrow_mut();
        let session = sessions.get(auth.session.as_ref()?, &purpose.operation, now)?;
        let same = session.passed.as_ref() == Some(&fingerprint(auth));
        session.registered.clone().filter(|_| same)
    }

    /// Remember what a registration is answered.
    pub(super) fn remember(&self, session: Option<&str>, registered: &Registered) {
        let (purpose, now) = (Purpose::registration(""), self.env.clock.monotonic());
        let mut sessions = self.sessions.borrow_mut();
        let session = session.and_then(|id| sessions.get(id, &purpose.operation, now));
        if let Some(session) = session {
            session.registered = Some(registered.clone());
        }
    }

    /// The hash to compare with: `None` when somebody else was named, or there is no password.
    async fn hash_of(&self, user: &UserId, typed: &str) -> Result<Option<String>> {
        // Ids of people are in lower case, whatever they type; those of services' users need not be.
        let server = &self.env.settings.server_name;
        let named = [typed.to_owned(), typed.to_ascii_lowercase()]
            .iter()
            .any(|typed| rules::meant(server, typed).as_deref() == Some(user));
        let id = user.to_string();
        let row = self.env.store.read(move |db| accounts::user(db, &id));
        let hash = row.await?.and_then(|row| row.password_hash);
        Ok(hash.filter(|_| named))
    }

    /// The session that the client names, as far as it is open for this purpose; one that is not is a failed stage.
    fn session(
        &self,
        purpose: &Purpose,
        flow: &'static str,
        auth: Option<&Auth>,
    ) -> Result<Option<String>> {
        let Some(id) = auth.and_then(|auth| auth.session.clone()) else {
            return Ok(None);
        };
        let now = self.env.clock.monotonic();
        let known = self
            .sessions
            .borrow_mut()
            .get(&id, &purpose.operation, now)
            .is_some();
        if known {
            Ok(Some(id))
        } else {
            let failed = Some("this session is not open for this request");
            Err(self.challenge(purpose.clone(), flow, None, failed))
        }
    }

    fn has_passed(&self, session: Option<&str>, purpose: &Purpose, fingerprint: &str) -> bool {
        let now = self.env.clock.monotonic();
        let mut sessions = self.sessions.borrow_mut();
        let session = session.and_then(|id| sessions.get(id, &purpose.operation, now));
        session.is_some_and(|session| session.passed.as_deref() == Some(fingerprint))
    }

    fn settle(
        &self,
        purpose: Purpose,
        flow: &'static str,
        session: Option<String>,
        fingerprint: String,
        failed: Option<&'static str>,
    ) -> Result<()> {
        if failed.is_some() {
            return Err(self.challenge(purpose, flow, session, failed));
        }
        let now = self.env.clock.monotonic();
        let mut sessions = self.sessions.borrow_mut();
        if let Some(session) = session.and_then(|id| sessions.get(&id, &purpose.operation, now)) {
            session.passed = Some(fingerprint);
        }
        Ok(())
    }

    /// What the client must do, in the session that is open or in a new one.
    fn challenge(
        &self,
        purpose: Purpose,
        flow: &'static str,
        session: Option<String>,
        failed: Option<&'static str>,
    ) -> crate::Error {
        // Each flow is of one stage: with the stage, the request is done.
        let completed = session.is_some().then(Vec::new);
        let session = session.unwrap_or_else(|| {
            let id = self.env.ids.opaque("session");
            let now = self.env.clock.monotonic();
            self.sessions.borrow_mut().open(id.clone(), purpose, now);
            id
        });
        Refusal::Unconfirmed(Challenge {
            session,
            flows: vec![vec![flow]],
            completed,
            failed,
        })
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purpose(caller: &str, operation: &str) -> Purpose {
        Purpose {
            caller: caller.to_owned(),
            operation: operation.to_owned(),
        }
    }

    #[test]
    fn a_session_is_open_for_one_purpose_and_for_a_while() {
        let mut sessions = Sessions::default();
        sessions.open("s".to_owned(), purpose("@alice:test", "DELETE"), 0);
        assert!(sessions.get("s", "DELETE", OPEN_FOR - 1).is_some());
        assert!(sessions.get("s", "DELETE", OPEN_FOR).is_none());
        assert!(sessions.get("s", "POST", 0).is_none());
        assert!(sessions.get("t", "DELETE", 0).is_none());
    }

    #[test]
    fn who_opens_many_sessions_ends_only_its_own() {
        let mut sessions = Sessions::default();
        sessions.open("alice's".to_owned(), purpose("192.0.2.1", "register"), 0);
        for n in 0..2 * OF_ONE {
            sessions.open(format!("s{n}"), purpose("192.0.2.2", "register"), 1);
        }
        assert_eq!(sessions.all.len(), OF_ONE + 1);
        for n in 0..2 * LIMIT {
            let caller = format!("192.0.3.{}", n % 150);
            sessions.open(format!("t{n}"), purpose(&caller, "register"), 2);
        }
        assert_eq!(sessions.all.len(), LIMIT);
        assert!(sessions.get("alice's", "register", 3).is_some());
        assert!(sessions.get("t0", "register", 3).is_none());
    }
}
