//! Faults of the requests to appservices, which the developer of an appservice injects into a running development server.
//!
//! Without such faults, which is the default, a request costs one branch more. `actors/src/transport.rs` applies them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schema::ServiceId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Refusal;

/// The most rules at a time.
const RULES: usize = 1_000;

/// An endpoint of the appservice's API. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#homeserver---application-service-api
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultyEndpoint {
    /// `PUT /transactions/{txnId}`
    Transactions,
    /// `POST /ping`
    Ping,
    /// `GET /users/{userId}`
    Users,
    /// `GET /rooms/{roomAlias}`
    Rooms,
    /// `GET /thirdparty/…`
    ThirdParty,
    /// `POST …/keys/query` and `…/keys/claim`
    Keys,
}

impl FaultyEndpoint {
    fn of(path: &str) -> Option<FaultyEndpoint> {
        if path.contains("/keys/") {
            return Some(FaultyEndpoint::Keys);
        }
        let rest = path.strip_prefix("/_matrix/app/v1/")?;
        match rest.split(['/', '?']).next()? {
            "transactions" => Some(FaultyEndpoint::Transactions),
            "ping" => Some(FaultyEndpoint::Ping),
            "users" => Some(FaultyEndpoint::Users),
            "rooms" => Some(FaultyEndpoint::Rooms),
            "thirdparty" => Some(FaultyEndpoint::ThirdParty),
            _ => None,
        }
    }
}

/// What happens to a request instead of being sent and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestFault {
    /// No connection: the appservice sees nothing.
    Refuse,
    /// The request is sent so many milliseconds later.
    DelayMs(u64),
    /// The answer has this HTTP status and the body `{}`. The appservice sees nothing.
    Status(u16),
    /// The connection ends after half of the body: the appservice cannot process the request. With TLS nothing is sent.
    CutBefore,
    /// The connection ends after the appservice has answered: it has processed the request, and the server does not know it.
    CutAfter,
}

/// Which requests a fault concerns, and how many of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// The appservice; `None` for every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceId>,
    /// The endpoint; `None` for every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<FaultyEndpoint>,
    /// The fault.
    pub fault: RequestFault,
    /// The number of requests that have the fault, the first ones; `None` for no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// The probability with which a request has the fault, from 0 to 1; `None` for 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// Chooses the requests if there is a probability. The same seed chooses the same requests.
    #[serde(default)]
    pub seed: u64,
}

/// A rule, and what it has done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ListedFault {
    /// The number by which the rule is removed.
    pub id: u64,
    /// The rule.
    #[serde(flatten)]
    pub rule: FaultRule,
    /// The number of requests that the rule concerns.
    pub requests: u64,
    /// The number of those that had the fault.
    pub injected: u64,
}

#[derive(Default)]
struct Rules {
    last: u64,
    all: Vec<ListedFault>,
}

/// The rules in force. Clones share them.
#[derive(Clone, Default)]
pub struct RequestFaults(Option<Arc<Mutex<Rules>>>);

impl RequestFaults {
    /// An empty list to which rules can be added. The default cannot have any.
    pub fn addable() -> RequestFaults {
        RequestFaults(Some(Arc::default()))
    }

    fn rules(&self) -> Option<MutexGuard<'_, Rules>> {
        let rules = self.0.as_ref()?;
        Some(rules.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Add a rule after the others. Returns its number.
    ///
    /// # Errors
    /// The rule cannot apply, or there are too many.
    pub fn add(&self, rule: FaultRule) -> Result<u64, Refusal> {
        let invalid = |why: &'static str| Err(Refusal::InvalidParam(why.into()));
        if matches!(rule.fault, RequestFault::Status(status) if !(200..600).contains(&status)) {
            return invalid("a status is a number from 200 to 599");
        }
        if rule.probability.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
            return invalid("a probability is a number from 0 to 1");
        }
        let Some(mut rules) = self.rules() else {
            return Err(Refusal::Forbidden("this server injects no faults".into()));
        };
        if rules.all.len() >= RULES {
            return Err(Refusal::TooMany("there are too many faults".into()));
        }
        rules.last += 1;
        let id = rules.last;
        rules.all.push(ListedFault {
            id,
            rule,
            requests: 0,
            injected: 0,
        });
        Ok(id)
    }

    /// All rules, in the order in which they apply.
    pub fn list(&self) -> Vec<ListedFault> {
        self.rules().map_or_else(Vec::new, |r| r.all.clone())
    }

    /// Remove a rule, or all. Returns the number of those removed.
    pub fn clear(&self, id: Option<u64>) -> usize {
        let Some(mut rules) = self.rules() else {
            return 0;
        };
        let before = rules.all.len();
        rules.all.retain(|rule| id.is_some_and(|id| rule.id != id));
        before - rules.all.len()
    }

    /// The fault of a request that is about to be sent: that of the first rule that applies to it.
    pub(crate) fn next(&self, service: &ServiceId, path: &str) -> Option<RequestFault> {
        let mut rules = self.rules()?;
        let endpoint = FaultyEndpoint::of(path);
        rules.all.iter_mut().find_map(|listed| {
            let rule = &listed.rule;
            let concerns = rule.service.as_ref().is_none_or(|id| id == service)
                && (rule.endpoint.is_none() || rule.endpoint == endpoint);
            if !concerns || rule.times.is_some_and(|times| listed.injected >= times) {
                return None;
            }
            listed.requests += 1;
            let chosen = rule
                .probability
                .is_none_or(|p| chance(rule.seed, listed.requests) < p);
            listed.injected += u64::from(chosen);
            chosen.then_some(rule.fault)
        })
    }
}

/// A number from 0 to 1, without 1, that depends on the seed and the number of the request alone.
fn chance(seed: u64, number: u64) -> f64 {
    let hash = Sha256::digest(format!("{seed}/{number}"));
    let bits = hash
        .iter()
        .take(4)
        .fold(0u32, |n, b| n << 8 | u32::from(*b));
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: serde_json::Value) -> FaultRule {
        serde_json::from_value(json).expect("a rule")
    }

    #[test]
    fn the_first_rule_that_concerns_a_request_and_is_not_used_up_applies() {
        let faults = RequestFaults::addable();
        let (irc, other) = (ServiceId::from("irc"), ServiceId::from("other"));
        let transactions = "/_matrix/app/v1/transactions/7";
        let twice = serde_json::json!({
            "service": "irc", "endpoint": "transactions", "fault": {"status": 500}, "times": 2
        });
        let first = faults.add(rule(twice)).expect("a rule");
        let all = rule(serde_json::json!({"fault": "refuse"}));
        faults.add(all).expect("a rule");
        let next = |service, path| faults.next(service, path);
        assert_eq!(next(&irc, transactions), Some(RequestFault::Status(500)));
        assert_eq!(next(&other, transactions), Some(RequestFault::Refuse));
        let user = "/_matrix/app/v1/users/@a:b?x=/transactions/";
        assert_eq!(next(&irc, user), Some(RequestFault::Refuse));
        assert_eq!(next(&irc, transactions), Some(RequestFault::Status(500)));
        assert_eq!(next(&irc, transactions), Some(RequestFault::Refuse));
        assert_eq!(faults.list()[0].injected, 2);
        assert_eq!(faults.list()[1].requests, 3);
        assert_eq!((faults.clear(Some(first)), faults.clear(None)), (1, 1));
        assert_eq!(next(&irc, transactions), None);
    }

    #[test]
    fn a_seed_chooses_the_same_requests_again() {
        let run = |seed: u64| -> Vec<bool> {
            let faults = RequestFaults::addable();
            let half = serde_json::json!({"fault": "cut_after", "probability": 0.5, "seed": seed});
            faults.add(rule(half)).expect("a rule");
            let next = || faults.next(&ServiceId::from("a"), "/_matrix/app/v1/ping");
            (0..100).map(|_| next().is_some()).collect()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        let chosen = run(1).iter().filter(|chosen| **chosen).count();
        assert!((30..70).contains(&chosen), "{chosen} of 100");
    }

    #[test]
    fn rules_that_cannot_apply_are_refused() {
        let faults = RequestFaults::addable();
        let refused = |json| faults.add(rule(json)).is_err();
        assert!(refused(serde_json::json!({"fault": {"status": 99}})));
        assert!(refused(
            serde_json::json!({"fault": "refuse", "probability": 1.5})
        ));
        assert!(
            RequestFaults::default()
                .add(rule(serde_json::json!({"fault": "refuse"})))
                .is_err()
        );
    }
}
