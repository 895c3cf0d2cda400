//! A registration as its row has it.

use schema::appservices::ServiceRow;
use serde::{Deserialize, Serialize};

use super::registration::Registration;
use super::service::InForce;

/// What was in force for a service when its row was last written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastInForce {
    /// What of its registration was switched on.
    #[serde(flatten)]
    pub in_force: InForce,
    /// The position up to which it was owed account data, where that is off now and was on before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_data_until: Option<i64>,
}

/// The registration as it was last in force; `None` when the row is damaged.
#[must_use]
pub fn registration_of(row: &ServiceRow) -> Option<Registration> {
    serde_json::from_str(&row.registration).ok()
}

/// What was in force; `None` where an older version of this server wrote the row.
#[must_use]
pub fn last_in_force(row: &ServiceRow) -> Option<LastInForce> {
    serde_json::from_str(&row.in_force).ok()
}
