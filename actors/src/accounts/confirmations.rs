//! User-interactive authentication: the open sessions, and the check of a stage. ([spec])
//!
//! Sessions are in memory only. After a restart the client begins a new one.
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

use super::messages::{AuthData, AuthStage, Registered};
use super::passwords::Passwords;
use super::rules;
use crate::runtime::error::Challenge;
use crate::{Env, Refusal, Result};

/// The limit of open sessions. Beyond it, the caller that has the most sessions loses its oldest.
const LIMIT: usize = 10_000;

/// The most open sessions of one caller. It leaves room for several users that register behind one address.
const OF_ONE: usize = 100;

/// How long a session stays open, in milliseconds: long enough to type a password, or to repeat a request whose answer was lost.
const OPEN_FOR: i64 = 15 * 60 * 1000;

const IN_NO_FLOW: &str = "this authentication type is not in the flows of this request";
const THIRD_PARTY: &str =
    "this server does not support log-in by email address or phone number; use m.id.user";

/// The caller and the operation for which a session is opened.
#[derive(Debug, Clone)]
pub(super) struct Purpose {
    /// The user id or IP address that opened the session; open sessions are limited for each.
    caller: String,
    /// The operation that is confirmed. The session is valid for no other.
    operation: String,
}

impl Purpose {
    fn of_user(user: &UserId, operation: &str) -> Purpose {
        // An operation may name a thousand devices, so keep only its hash.
        let operation = Sha256::digest(format!("{user} {operation}"));
        Purpose {
            caller: user.to_string(),
            operation: STANDARD_NO_PAD.encode(operation),
        }
    }

    /// A registration from this IP address. The session may be continued from another address, since a phone's address changes.
    pub(super) fn registration(address: &str) -> Purpose {
        Purpose {
            caller: address.to_owned(),
            operation: "register".to_owned(),
        }
    }
}

struct Session {
    purpose: Purpose,
    /// The number of this session in the order of opening.
    number: u64,
    until: i64,
    /// The fingerprint of the request that was confirmed in this session.
    passed: Option<String>,
    /// The answer to the registration that was confirmed in this session.
    registered: Option<Registered>,
}

/// The open sessions.
#[derive(Default)]
struct OpenSessions {
    all: BTreeMap<String, Session>,
    /// How many sessions were opened since the start.
    opened: u64,
}

impl OpenSessions {
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

/// A hash that is equal for a repeated request: of the request and the password that it was confirmed with.
fn fingerprint(auth: &AuthData) -> String {
    let confirmed = match &auth.stage {
        AuthStage::Password { user, password } => (user.as_str(), password.reveal()),
        _ => ("", ""),
    };
    let parts = [auth.request.reveal(), confirmed.0, confirmed.1];
    let hash = parts.iter().fold(Sha256::new(), |hash, part| {
        // The length separates the parts: no two lists of parts give the same input.
        hash.chain_update(part.len().to_be_bytes())
            .chain_update(part)
    });
    STANDARD_NO_PAD.encode(hash.finalize())
}

/// Requests and checks confirmations. Clones share the open sessions.
#[derive(Clone)]
pub(super) struct Confirmations {
    env: Env,
    passwords: Passwords,
    sessions: Rc<RefCell<OpenSessions>>,
}

impl Confirmations {
    pub(super) fn new(env: Env, passwords: Passwords) -> Confirmations {
        Confirmations {
            env,
            passwords,
            sessions: Rc::default(),
        }
    }

    /// Succeed if `auth` holds the user's password, else refuse with the stages that are needed.
    ///
    /// A request repeated in its session passes again, because its first answer may have been lost; by then the password may have
    /// changed.
    pub(super) async fn by_password(
        &self,
        user: &UserId,
        operation: &str,
        auth: Option<AuthData>,
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
            AuthStage::Poll => return Err(self.challenge(purpose, flow, session, None)),
            AuthStage::Password {
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
            AuthStage::ThirdPartyPassword => Some(THIRD_PARTY),
            AuthStage::Dummy | AuthStage::Other => Some(IN_NO_FLOW),
        };
        self.settle(purpose, flow, session, fingerprint, failed)
    }

    /// Succeed if `auth` completes `m.login.dummy`: for a caller without an account, the second of two requests.
    pub(super) fn by_dummy(&self, purpose: Purpose, auth: Option<&AuthData>) -> Result<()> {
        let flow = "m.login.dummy";
        let session = self.session(&purpose, flow, auth)?;
        let failed = match auth.map(|auth| &auth.stage) {
            None | Some(AuthStage::Poll) => {
                return Err(self.challenge(purpose, flow, session, None));
            }
            Some(AuthStage::Dummy) => None,
            Some(_) => Some(IN_NO_FLOW),
        };
        let fingerprint = auth.map(fingerprint).unwrap_or_default();
        self.settle(purpose, flow, session, fingerprint, failed)
    }

    /// The earlier answer to the same registration in this session, which may have been lost.
    pub(super) fn registered(&self, auth: Option<&AuthData>) -> Option<Registered> {
        let (auth, now) = (auth?, self.env.clock.monotonic());
        let purpose = Purpose::registration("");
        let mut sessions = self.sessions.borrow_mut();
        let session = sessions.get(auth.session.as_ref()?, &purpose.operation, now)?;
        let same = session.passed.as_ref() == Some(&fingerprint(auth));
        session.registered.clone().filter(|_| same)
    }

    /// Store the answer to a registration in its session.
    pub(super) fn remember(&self, session: Option<&str>, registered: &Registered) {
        let (purpose, now) = (Purpose::registration(""), self.env.clock.monotonic());
        let mut sessions = self.sessions.borrow_mut();
        let session = session.and_then(|id| sessions.get(id, &purpose.operation, now));
        if let Some(session) = session {
            session.registered = Some(registered.clone());
        }
    }

    /// The password hash to compare with: `None` if `typed` names another user, or the user has no password.
    async fn hash_of(&self, user: &UserId, typed: &str) -> Result<Option<String>> {
        // Ids of persons are in lower case, however they are typed; those of an appservice's users need not be.
        let server = &self.env.settings.server_name;
        let named = [typed.to_owned(), typed.to_ascii_lowercase()]
            .iter()
            .any(|typed| rules::meant(server, typed).as_deref() == Some(user));
        let id = user.to_string();
        let row = self.env.store.read(move |db| accounts::user(db, &id));
        let hash = row.await?.and_then(|row| row.password_hash);
        Ok(hash.filter(|_| named))
    }

    /// The session that the client names, if it is open for this purpose; refused if it is not.
    fn session(
        &self,
        purpose: &Purpose,
        flow: &'static str,
        auth: Option<&AuthData>,
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

    /// The refusal that lists the flows, in the given session or a new one.
    fn challenge(
        &self,
        purpose: Purpose,
        flow: &'static str,
        session: Option<String>,
        failed: Option<&'static str>,
    ) -> crate::Error {
        // Each flow has one stage, so an unfinished session has completed none.
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
        let mut sessions = OpenSessions::default();
        sessions.open("s".to_owned(), purpose("@alice:test", "DELETE"), 0);
        assert!(sessions.get("s", "DELETE", OPEN_FOR - 1).is_some());
        assert!(sessions.get("s", "DELETE", OPEN_FOR).is_none());
        assert!(sessions.get("s", "POST", 0).is_none());
        assert!(sessions.get("t", "DELETE", 0).is_none());
    }

    #[test]
    fn a_caller_that_opens_many_sessions_closes_only_its_own() {
        let mut sessions = OpenSessions::default();
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
