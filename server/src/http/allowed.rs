//! Methods of [`Caller`] that apply the limits.

use actors::key_store::Wanted;

use super::caller::Caller;
use super::error::Result;
use super::limits::{Cost, Reserved};

impl Caller {
    /// The key under which the limits count this caller: its user id, or its address when it has no user. An appservice's own
    /// sender is not limited, nor are the users of an appservice whose registration says `rate_limited: false`. ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/application-service-api/#registration
    /// Clause: as.registration.rate-limited, as.registration.sender-not-limited
    fn limit_key(&self) -> Option<String> {
        match (self.appservice(), self.identity()) {
            (Some(service), Ok(identity))
                if service.registration.rate_limited == Some(false)
                    || identity.user.as_str() == service.sender =>
            {
                None
            }
            (_, Ok(identity)) => Some(identity.user.to_string()),
            // An appservice about to register the user that it names. It could as well ask as its sender.
            (Some(_), Err(_)) => None,
            (None, Err(_)) => Some(self.address().to_owned()),
        }
    }

    /// Count a request of this caller against its rate limit.
    ///
    /// # Errors
    /// 429 with how long to wait.
    pub(crate) fn limit(&self, cost: Cost) -> Result<()> {
        Ok(self.limits().count(self.limit_key(), cost)?)
    }

    /// How many of this number of queries may be sent to appservices on behalf of this caller.
    ///
    /// # Errors
    /// 429 when the limit allows none.
    pub(crate) fn limit_questions(&self, questions: usize) -> Result<usize> {
        let limits = self.limits();
        Ok(limits.questions(self.limit_key(), self.is_anonymous(), questions)?)
    }

    /// The part of `wanted` that this caller may claim now.
    ///
    /// # Errors
    /// 429 with how long to wait, when nothing may be claimed.
    pub(crate) fn limit_claims(&self, wanted: Wanted) -> Result<Wanted> {
        Ok(self.limits().claims(self.limit_key(), wanted)?)
    }

    /// Check a password for this account, unless too many wrong ones were tried.
    ///
    /// # Errors
    /// 429 with how long to wait; the errors of the check itself.
    pub(crate) async fn try_password<T>(
        &self,
        account: &str,
        attempt: impl Future<Output = actors::Result<T>>,
    ) -> Result<T> {
        Ok(match self.limits().attempts() {
            Some(attempts) => attempts.password(account, self.address(), attempt).await?,
            None => attempt.await?,
        })
    }

    /// Begin to count the bytes of a request body. Nothing is reserved yet.
    pub(super) fn reserve_body(&self) -> Reserved {
        let limit_key = match self.identity() {
            Ok(identity) => identity.user.to_string(),
            Err(_) => self.address().to_owned(),
        };
        self.limits().bodies().begin(limit_key, self.is_anonymous())
    }
}
