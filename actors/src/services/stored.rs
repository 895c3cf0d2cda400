//! A registration as it is stored in its row.

use schema::appservices::ServiceRow;
use serde::{Deserialize, Serialize};

use super::registration::Registration;
use super::service::FeaturesInForce;

/// The features that were in force when the row of an appservice was last written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastInForce {
    /// The features of the registration that were in force.
    #[serde(flatten)]
    pub in_force: FeaturesInForce,
    /// The position up to which the appservice was owed account data, if account data was switched on for it before and is off now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_data_until: Option<i64>,
}

/// The registration that was last in force; `None` when the row is damaged.
pub fn registration_of(row: &ServiceRow) -> Option<Registration> {
    serde_json::from_str(&row.registration).ok()
}

/// The features that were last in force; `None` if an older version of this server wrote the row.
pub fn last_in_force(row: &ServiceRow) -> Option<LastInForce> {
    serde_json::from_str(&row.in_force).ok()
}
