//! The key of every row that belongs to an appservice.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The unique `id` of an appservice. Everything that the appservice is owed is stored under it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceId(Arc<str>);

impl ServiceId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ServiceId {
    fn from(id: &str) -> Self {
        ServiceId(id.into())
    }
}

impl From<String> for ServiceId {
    fn from(id: String) -> Self {
        ServiceId(id.into())
    }
}

impl std::fmt::Display for ServiceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
