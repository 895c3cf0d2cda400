//! A registered appservice, and what of its registration is in force.

use schema::owed::{self, Owed};
use schema::{Position, ServiceId};
use serde::{Deserialize, Serialize};

use super::claim::Claim;
use super::registration::{CountsPolicy, Registration};

/// How an experiment tells appservices what changes in account data: a kind of what is owed that is its own.
#[derive(Debug)]
pub struct AccountDataKind {
    /// The kind under which a piece of account data is owed.
    pub kind: &'static str,
    /// Whether a registration asks for it.
    pub is_wanted: fn(&Registration) -> bool,
    /// Whether a service is told of the account data of a user that it claims like this.
    pub is_told: fn(Claim) -> bool,
}

impl PartialEq for AccountDataKind {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl Eq for AccountDataKind {}

/// Which of the proposals, and of this server's own experiments, that fill transactions are switched on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Proposals {
    /// MSC4203: to-device messages.
    pub to_device: bool,
    /// MSC3202: device lists and key counts.
    pub device_lists: bool,
    /// Whether a registration may choose of which devices the counts are told: in a development server.
    pub counts_policies: bool,
    /// What an experiment tells services of account data.
    pub account_data: Option<&'static AccountDataKind>,
}

/// What of a registration is in force: what it asks for, as far as this start of the server has it switched on. Kept with the
/// service, so that a start that switches something on or off is a change of its registration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InForce {
    /// Whether it is sent to-device messages: a URL, an opt-in flag, the proposal on.
    pub to_device: bool,
    /// Whether it is sent device lists and key counts: a URL, the opt-in flag, the proposal on.
    pub device_lists: bool,
    /// Whether it is sent account data: a URL, the opt-in flag, the experiment on.
    pub account_data: bool,
    /// Whether the administrator lets it see messages to users that it merely observes.
    pub observes: bool,
    /// Of which devices it is told key counts.
    pub counts: CountsPolicy,
}

impl InForce {
    /// What is in force of a registration, given what is switched on and whether the service may observe.
    #[must_use]
    pub fn of(registration: &Registration, observes: bool, on: Proposals) -> InForce {
        let reachable = registration.url.is_some();
        let counts = registration.counts.filter(|_| on.counts_policies);
        InForce {
            to_device: reachable && registration.wants_to_device() && on.to_device,
            device_lists: reachable && registration.msc3202 && on.device_lists,
            account_data: reachable
                && on
                    .account_data
                    .is_some_and(|kind| (kind.is_wanted)(registration)),
            observes,
            counts: counts.unwrap_or_default(),
        }
    }

    /// Whether a kind of what is owed is on that was off: what was missed meanwhile has to be given later.
    #[must_use]
    pub fn has_more_than(self, before: InForce) -> bool {
        (self.to_device && !before.to_device)
            || (self.device_lists && !before.device_lists)
            || (self.account_data && !before.account_data)
    }
}

/// A registered service that is present.
#[derive(Debug)]
pub struct Service {
    /// Its id.
    pub id: ServiceId,
    /// Its own user, a full user id.
    pub sender: String,
    /// Its registration.
    pub registration: Registration,
    /// Whether the administrator lets it see messages to users that it merely observes.
    pub observes: bool,
    /// Whether it is sent to-device messages: a URL, an opt-in flag, the proposal on.
    pub takes_to_device: bool,
    /// Whether it is sent device lists and key counts: a URL, the opt-in flag, the proposal on.
    pub takes_device_lists: bool,
    /// Of which devices it is told key counts.
    pub counts: CountsPolicy,
    /// What it is sent of account data: a URL, the opt-in flag, the experiment on.
    pub account_data: Option<&'static AccountDataKind>,
}

impl Service {
    /// Whether anything is ever sent to it.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.registration.url.is_some()
    }

    /// Whether what it is owed of this kind is sent to it now.
    #[must_use]
    pub fn takes(&self, kind: &str) -> bool {
        match kind {
            owed::EVENT => self.is_reachable(),
            owed::TO_DEVICE | owed::OBSERVED => self.takes_to_device,
            owed::GRANTED => self.takes_to_device && self.observes,
            owed::DEVICE_LIST | owed::COUNT => self.takes_device_lists,
            _ => self.account_data.is_some_and(|data| data.kind == kind),
        }
    }

    /// The kinds of what is sent to it now.
    #[must_use]
    pub fn kinds(&self) -> Vec<&'static str> {
        let all = [
            owed::EVENT,
            owed::TO_DEVICE,
            owed::OBSERVED,
            owed::GRANTED,
            owed::DEVICE_LIST,
            owed::COUNT,
        ];
        let own = self.account_data.map(|data| data.kind);
        let all = all.into_iter().chain(own);
        all.filter(|kind| self.takes(kind)).collect()
    }

    /// An item of a kind that it is owed: it waits, or it is marked as off.
    #[must_use]
    pub fn owed(&self, position: Position, kind: &str) -> Owed {
        Owed {
            txn: (!self.takes(kind)).then_some(owed::OFF),
            ..Owed::new(&self.id, position, kind)
        }
    }
}
