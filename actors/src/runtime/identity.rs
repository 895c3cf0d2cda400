//! The user on whose behalf a request acts.

use ruma::{OwnedDeviceId, OwnedUserId};
use schema::ServiceId;
use serde::Serialize;

use crate::{Refusal, Result};

/// The user of a request, with the device and the appservice if there are any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// The user.
    pub user: OwnedUserId,
    /// The device of the token, or the one that the appservice named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<OwnedDeviceId>,
    /// The appservice whose token was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub appservice: Option<ServiceId>,
}

impl Identity {
    /// The device, for a request that needs one.
    ///
    /// # Errors
    /// [`Refusal::NoDevice`]
    pub fn needs_device(&self) -> Result<&OwnedDeviceId> {
        self.device.as_ref().ok_or_else(|| Refusal::NoDevice.into())
    }

    /// The scope of client transaction ids: the device, or the appservice and the user where there is no device.
    pub fn transaction_sender(&self) -> String {
        match (&self.device, &self.appservice) {
            (Some(device), _) => {
                schema::client_transactions::sender_of(self.user.as_str(), device.as_str())
            }
            (None, Some(service)) => format!("{}|as:{service}", self.user),
            (None, None) => self.user.to_string(),
        }
    }
}
