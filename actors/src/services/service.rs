//! A registered appservice, and which features of its registration are in force.

use schema::owed::{self, Owed};
use schema::{Position, ServiceId};
use serde::{Deserialize, Serialize};

use super::claim::NamespaceClaim;
use super::registration::{CountsPolicy, Registration};

/// How an experiment sends changes of account data to appservices: as an owed kind of its own.
#[derive(Debug)]
pub struct AccountDataKind {
    /// The kind under which account data is owed.
    pub kind: &'static str,
    /// Whether a registration opts in.
    pub is_wanted: fn(&Registration) -> bool,
    /// Whether an appservice with this claim on a user receives the user's account data.
    pub is_sent: fn(NamespaceClaim) -> bool,
}

impl PartialEq for AccountDataKind {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl Eq for AccountDataKind {}

/// A kind of items that a proposal defines, which appservices are owed until they have acknowledged them.
#[derive(Debug)]
pub struct OwedKind {
    /// The name of the kind. It begins with the proposal's namespace, so that no other proposal uses it.
    pub kind: &'static str,
    /// Whether a registration opts in.
    pub is_wanted: fn(&Registration) -> bool,
}

impl PartialEq for OwedKind {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl Eq for OwedKind {}

/// The enabled proposals, and experiments of this server, that add to transactions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proposals {
    /// MSC4203: to-device messages.
    pub to_device: bool,
    /// MSC3202: device lists and key counts.
    pub device_lists: bool,
    /// MSC4190: appservices create and delete devices, and replace cross-signing keys, without logging in or confirming.
    pub manages_devices: bool,
    /// Whether a registration may choose the devices whose counts it receives, on a development server.
    pub counts_policies: bool,
    /// The experiment that sends account data to appservices.
    pub account_data: Option<&'static AccountDataKind>,
    /// The kinds of items that proposals define.
    pub kinds: Vec<&'static OwedKind>,
}

impl Proposals {
    /// Those of the proposals' kinds that are sent to the appservice with this registration: it has a URL and opts in.
    pub(super) fn kinds_for(&self, registration: &Registration) -> Vec<&'static OwedKind> {
        let reachable = registration.url.is_some();
        let wanted = self
            .kinds
            .iter()
            .filter(|kind| (kind.is_wanted)(registration));
        wanted.filter(|_| reachable).copied().collect()
    }
}

/// The features of a registration that are in force: those that it opts in to and that this start of the server has enabled. It
/// is stored with the appservice, so that enabling or disabling a feature counts as a change of its registration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FeaturesInForce {
    /// Whether to-device messages are sent to it: it has a URL and an opt-in flag, and MSC4203 is enabled.
    pub to_device: bool,
    /// Whether device lists and key counts are sent to it: it has a URL and the opt-in flag, and MSC3202 is enabled.
    pub device_lists: bool,
    /// Whether account data is sent to it: it has a URL and the opt-in flag, and the experiment is enabled.
    pub account_data: bool,
    /// Whether the configuration lets it receive messages to users that it merely observes.
    pub observes: bool,
    /// The devices whose key counts it receives.
    pub counts: CountsPolicy,
    /// The kinds of proposals whose items are sent to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
}

impl FeaturesInForce {
    /// The features of a registration that are in force, given those that are enabled and whether the appservice may observe.
    pub fn of(registration: &Registration, observes: bool, on: &Proposals) -> FeaturesInForce {
        let reachable = registration.url.is_some();
        let counts = registration.counts.filter(|_| on.counts_policies);
        FeaturesInForce {
            to_device: reachable && registration.wants_to_device() && on.to_device,
            device_lists: reachable && registration.msc3202 && on.device_lists,
            account_data: reachable
                && on
                    .account_data
                    .is_some_and(|kind| (kind.is_wanted)(registration)),
            observes,
            counts: counts.unwrap_or_default(),
            kinds: on
                .kinds_for(registration)
                .iter()
                .map(|kind| kind.kind.to_owned())
                .collect(),
        }
    }

    /// Whether a feature is on now that was off before: what the appservice missed meanwhile must be sent later.
    pub fn has_more_than(&self, before: &FeaturesInForce) -> bool {
        (self.to_device && !before.to_device)
            || (self.device_lists && !before.device_lists)
            || (self.account_data && !before.account_data)
    }
}

/// A registered appservice whose file is present.
#[derive(Debug)]
pub struct Service {
    /// Its id.
    pub id: ServiceId,
    /// The full user id of its own user.
    pub sender: String,
    /// Its registration.
    pub registration: Registration,
    /// Whether it may log in: MSC4190 is disabled, or its registration does not say that it creates devices itself.
    pub logs_in: bool,
    /// Whether the configuration lets it receive messages to users that it merely observes.
    pub observes: bool,
    /// Whether to-device messages are sent to it: it has a URL and an opt-in flag, and MSC4203 is enabled.
    pub takes_to_device: bool,
    /// Whether device lists and key counts are sent to it: it has a URL and the opt-in flag, and MSC3202 is enabled.
    pub takes_device_lists: bool,
    /// The devices whose key counts it receives.
    pub counts: CountsPolicy,
    /// How account data is sent to it, if it has a URL and the opt-in flag, and the experiment is enabled.
    pub account_data: Option<&'static AccountDataKind>,
    /// The kinds of proposals whose items are sent to it.
    pub own_kinds: Vec<&'static OwedKind>,
}

impl Service {
    /// Whether anything is ever sent to it.
    pub fn is_reachable(&self) -> bool {
        self.registration.url.is_some()
    }

    /// Whether owed items of this kind are sent to it now.
    pub fn takes(&self, kind: &str) -> bool {
        match kind {
            owed::EVENT => self.is_reachable(),
            owed::TO_DEVICE | owed::OBSERVED => self.takes_to_device,
            owed::GRANTED => self.takes_to_device && self.observes,
            owed::DEVICE_LIST | owed::COUNT => self.takes_device_lists,
            _ => self.kinds_of_proposals().any(|own| own == kind),
        }
    }

    fn kinds_of_proposals(&self) -> impl Iterator<Item = &'static str> {
        let account_data = self.account_data.map(|data| data.kind);
        let own = self.own_kinds.iter().map(|kind| kind.kind);
        account_data.into_iter().chain(own)
    }

    /// The kinds of owed items that are sent to this appservice now.
    pub fn kinds(&self) -> Vec<&'static str> {
        let all = [
            owed::EVENT,
            owed::TO_DEVICE,
            owed::OBSERVED,
            owed::GRANTED,
            owed::DEVICE_LIST,
            owed::COUNT,
        ];
        let all = all.into_iter().chain(self.kinds_of_proposals());
        all.filter(|kind| self.takes(kind)).collect()
    }

    /// A row by which this appservice is owed an item of a kind. The item waits to be sent. If the kind is switched off for the
    /// appservice, the row gets the mark for that instead.
    pub fn owed(&self, position: Position, kind: &str) -> Owed {
        Owed {
            txn: (!self.takes(kind)).then_some(owed::OFF),
            ..Owed::new(&self.id, position, kind)
        }
    }
}
