//! What a request carries to the hooks of proposals in the writes that it causes, and what these hand back to the code around its
//! endpoint.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

/// Values by name.
type Values = BTreeMap<String, Value>;

/// The values of one request, in both directions. Clones share those that are handed back.
#[derive(Debug, Clone, Default)]
pub struct Exchange {
    carried: Values,
    handed_back: Arc<Mutex<Values>>,
}

impl Exchange {
    /// The same exchange, in which the request carries these values too.
    #[must_use]
    pub fn carrying(&self, further: Values) -> Exchange {
        let mut more = self.clone();
        more.carried.extend(further);
        more
    }

    /// A value that the request carries.
    pub(crate) fn carried(&self, name: &str) -> Option<&Value> {
        self.carried.get(name)
    }

    /// Hand a value back to the code around the endpoint.
    pub(crate) fn hand_back(&self, name: &str, value: Value) {
        let handed_back = self.handed_back.lock();
        let mut handed_back = handed_back.unwrap_or_else(PoisonError::into_inner);
        handed_back.insert(name.to_owned(), value);
    }

    /// The values that were handed back.
    #[must_use]
    pub fn handed_back(&self) -> Values {
        let handed_back = self.handed_back.lock();
        handed_back.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
