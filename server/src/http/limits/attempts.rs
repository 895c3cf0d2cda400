//! Limits guesses at passwords and tokens.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use actors::runtime::bounded::Bounded;
use actors::{Clock, Error, Refusal, Result};

use super::buckets::{Buckets, CALLERS, RateLimit, exceeded};

/// How many times an account's limit of wrong passwords one address may send: several people can share an address.
const ACCOUNTS: f64 = 5.0;

/// How many times as many unknown tokens as wrong passwords an address may send: every request carries a token, and a logged-out
/// client sends a few requests before it notices.
const TOKENS: f64 = 10.0;

/// The memory, in bytes, for pairs of an address and a valid token seen from it: some ten thousand pairs.
const RIGHT: usize = 2 << 20;

/// Failed attempts: passwords by account and by address, tokens by address.
pub(crate) struct Attempts {
    accounts: Buckets<String>,
    addresses: Buckets<String>,
    tokens: Buckets<String>,
    right: Mutex<Bounded<u64, ()>>,
}

fn times(limit: RateLimit, n: f64) -> RateLimit {
    RateLimit {
        per_second: limit.per_second * n,
        burst: limit.burst * n,
    }
}

/// Whether this error reports a wrong password.
fn is_wrong(error: &Error) -> bool {
    let Error::Refused(refusal) = error else {
        return false;
    };
    match refusal {
        Refusal::Forbidden(_) => true,
        Refusal::Unconfirmed(challenge) => challenge.failed.is_some(),
        _ => false,
    }
}

impl Attempts {
    /// `limit` is the rate of wrong passwords for one account.
    pub(crate) fn new(limit: RateLimit, clock: &Clock) -> Attempts {
        let buckets = |n| Buckets::new(times(limit, n), clock.clone(), CALLERS);
        Attempts {
            accounts: buckets(1.0),
            addresses: buckets(ACCOUNTS),
            tokens: buckets(TOKENS),
            right: Mutex::new(Bounded::new(RIGHT, |_, ()| 0)),
        }
    }

    /// Forget every failed attempt.
    pub(crate) fn forget(&self) {
        for buckets in [&self.accounts, &self.addresses, &self.tokens] {
            buckets.fill();
        }
    }

    // ANCHOR: password
    /// Check a password. A token is taken from the bucket before the check, so that concurrent attempts are limited too, and
    /// given back unless the password was wrong.
    ///
    /// # Errors
    /// 429, whether or not the account exists; the errors of the check itself.
    pub(crate) async fn password<T>(
        &self,
        account: &str,
        address: &str,
        attempt: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let (account, address) = (account.to_owned(), address.to_owned());
        self.addresses.take(address.clone()).map_err(exceeded)?;
        if let Err(wait) = self.accounts.take(account.clone()) {
            self.addresses.give_back(&address);
            return Err(exceeded(wait).into());
        }
        let tried = attempt.await;
        if !tried.as_ref().is_err_and(is_wrong) {
            self.addresses.give_back(&address);
            self.accounts.give_back(&account);
        }
        tried
    }
    // ANCHOR_END: password

    /// How often a password, and a token, was not tried.
    pub(super) fn refused(&self) -> (u64, u64) {
        let passwords = self.accounts.refused() + self.addresses.refused();
        (passwords, self.tokens.refused())
    }

    /// Whether this address may try a token. After too many unknown tokens, only those accepted lately from the same address may
    /// be tried.
    ///
    /// # Errors
    /// 429 with how long to wait.
    pub(crate) fn may_try_token(&self, address: &str, token: &str) -> Result<()> {
        let Err(wait) = self.tokens.look(address) else {
            return Ok(());
        };
        let known = self.right().get(&pair(address, token)).is_some();
        if known {
            Ok(())
        } else {
            Err(exceeded(wait).into())
        }
    }

    /// Remember that a token from this address was valid.
    pub(crate) fn right_token(&self, address: &str, token: &str) {
        let pair = pair(address, token);
        let mut right = self.right();
        if right.get(&pair).is_none() {
            right.put(pair, ());
        }
    }

    /// Count an unknown token from this address.
    pub(crate) fn wrong_token(&self, address: &str) {
        // The result is ignored: `may_try_token` checks the bucket before the next attempt.
        let _ = self.tokens.take(address.to_owned());
    }

    fn right(&self) -> MutexGuard<'_, Bounded<u64, ()>> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pair(address: &str, token: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (address, token).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: RateLimit = RateLimit {
        per_second: 0.1,
        burst: 2.0,
    };

    fn wrong() -> Result<()> {
        Err(Refusal::Forbidden("wrong user or password".into()).into())
    }

    fn is_limited<T: std::fmt::Debug>(answer: Result<T>) -> bool {
        let Err(Error::Refused(refusal)) = answer else {
            return false;
        };
        matches!(refusal, Refusal::LimitExceeded { .. })
    }

    #[actix_web::test]
    async fn wrong_passwords_are_counted_by_account_and_by_address() {
        let attempts = Attempts::new(LIMIT, &Clock::manual(0));
        let guess = |account: &str, address: &str| {
            let (account, address) = (account.to_owned(), address.to_owned());
            let attempts = &attempts;
            async move {
                let guess = attempts.password(&account, &address, async { wrong() });
                is_limited(guess.await)
            }
        };
        for _ in 0..20 {
            let right = attempts.password("alice", "here", async { Ok(()) });
            assert!(right.await.is_ok(), "the right password costs nothing");
        }
        assert!(!guess("alice", "here").await && !guess("alice", "there").await);
        assert!(guess("alice", "elsewhere").await, "from any address");
        let right = attempts.password("alice", "here", async { Ok(()) });
        assert!(is_limited(right.await), "the right one must wait too");
        for n in 0..9 {
            assert!(!guess(&n.to_string(), "here").await, "{n}");
        }
        assert!(guess("one more", "here").await, "at any account");
    }

    #[test]
    fn an_address_that_guesses_tokens_keeps_those_that_it_has() {
        let attempts = Attempts::new(LIMIT, &Clock::manual(0));
        attempts.right_token("here", "mine");
        for _ in 0..20 {
            assert!(attempts.may_try_token("here", "guess").is_ok());
            attempts.wrong_token("here");
        }
        assert!(is_limited(attempts.may_try_token("here", "guess")));
        assert!(attempts.may_try_token("here", "mine").is_ok());
        assert!(is_limited(
            attempts.may_try_token("here", "right, but new here")
        ));
        assert!(attempts.may_try_token("there", "guess").is_ok());
    }
}
