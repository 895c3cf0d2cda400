//! Who acts.

use ruma::{OwnedDeviceId, OwnedUserId};
use schema::ServiceId;
use serde::Serialize;

use crate::{Refusal, Result};

/// Who acts: a user, perhaps on a device, perhaps played by an application service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// The user.
    pub user: OwnedUserId,
    /// The device whose token this is, or which the service named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<OwnedDeviceId>,
    /// The application service whose token this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub appservice: Option<ServiceId>,
}

impl Identity {
    /// The device, where the request needs one.
    ///
    /// # Errors
    /// [`Refusal::NoDevice`]
    pub fn needs_device(&self) -> Result<&OwnedDeviceId> {
        self.device.as_ref().ok_or_else(|| Refusal::NoDevice.into())
    }

    /// Under whose name client transaction ids are remembered: the device, or the service and user where there is none.
    #[must_use]
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
