//! The hooks of one proposal, and of all that are enabled.

use ruma::CanonicalJsonObject;

use super::change::Change;
use super::check::NewEvent;
use super::owing::{CheckMessage, OwedDraft, OwesTo};
use super::part::{Part, Stored};
use super::sync::{KeepsEvent, SyncPart};
use crate::services::{OwedKind, Service};
use crate::wire::{
    DeviceSigner, FindDeviceSigner, Name, Naming, TransactionBody, TransactionContent,
};
use crate::{Refusal, Result};

/// The hooks of one proposal that actors call. `NONE` does nothing.
#[derive(Debug, Clone, Copy)]
pub struct ProposalHooks {
    /// The number of the proposal. It also separates the stored values of proposals.
    pub number: u16,
    /// Which forms of its names are written. The server's configuration sets it.
    pub naming: Naming,
    /// Adds keys to a transaction.
    pub transaction: fn(&TransactionContent, &mut TransactionBody),
    /// Kinds of items that appservices are owed, each with the key of a transaction that lists the items.
    pub owes: &'static [DurableSection],
    /// Refuses an event before it is authorised.
    pub check_event: Option<fn(&mut NewEvent<'_, '_>) -> Result<()>>,
    /// Keeps a to-device message from a device, before it is in the inbox.
    pub check_message: Option<CheckMessage>,
    /// Whether an appservice is owed an item, besides the rules of the server.
    pub owes_to: Option<OwesTo>,
    /// Whether the change `Synced` is reported: it costs a write for each request to `/sync`.
    pub follows_syncs: bool,
    /// How many bytes of the answer to a transaction are read for the change `Delivered`.
    pub answer_bytes: usize,
    /// Part of the write that made a change. An error refuses the change.
    pub changed: Option<fn(&mut Part<'_, '_>, &Change<'_>) -> Result<()>>,
    /// Part of a write of its own, when the time of a stored value has come. The value has no time any more.
    pub due: Option<fn(&mut Part<'_, '_>, &Stored) -> Result<()>>,
    /// Adds to an answer to `/sync`.
    pub sync: Option<fn(&mut SyncPart<'_>) -> Result<()>>,
    /// Whether an event stays in an answer to `/sync`, besides the client's filter. Pure, and called for each event that the filter
    /// lets pass.
    pub keeps: Option<KeepsEvent>,
    /// Finds the device of another user that signs for a device.
    pub device_signer: Option<FindDeviceSigner>,
}

impl ProposalHooks {
    /// Hooks that do nothing.
    pub const NONE: ProposalHooks = ProposalHooks {
        number: 0,
        naming: Naming::Unstable,
        transaction: |_, _| {},
        owes: &[],
        check_event: None,
        check_message: None,
        owes_to: None,
        follows_syncs: false,
        answer_bytes: 0,
        changed: None,
        due: None,
        sync: None,
        keeps: None,
        device_signer: None,
    };
}

/// A kind of items that appservices are owed until they have acknowledged them, and the key under which a transaction lists them.
#[derive(Debug)]
pub struct DurableSection {
    /// The kind.
    pub kind: OwedKind,
    /// The key of the transaction. Its value is the list of the items.
    pub section: Name,
}

/// The hooks of the enabled proposals, in order.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// Registration keys that opt in to an experiment which is off.
    pub off: Vec<&'static str>,
    /// The hooks of each proposal.
    pub all: Vec<ProposalHooks>,
}

impl Hooks {
    /// The device of another user that signs for the device with these keys, as found by the first proposal that finds one.
    ///
    /// # Errors
    /// A proposal refuses the keys.
    pub fn device_signer(
        &self,
        keys: &CanonicalJsonObject,
    ) -> Result<Option<DeviceSigner>, Refusal> {
        let found = self.all.iter().filter_map(|hooks| hooks.device_signer);
        let found = found.map(|find| find(keys));
        found.filter_map(Result::transpose).next().transpose()
    }

    /// Whether a proposal looks for devices of other users that sign.
    pub fn finds_device_signers(&self) -> bool {
        self.all.iter().any(|hooks| hooks.device_signer.is_some())
    }

    /// Add to a transaction what the proposals add.
    pub fn compose(&self, content: &TransactionContent, body: &mut TransactionBody) {
        for hooks in &self.all {
            body.name_in(hooks.naming);
            (hooks.transaction)(content, body);
            for durable in hooks.owes {
                let items = content.others.get(durable.kind.kind).into_iter().flatten();
                body.put(
                    durable.section,
                    &items.map(|item| &item.value).collect::<Vec<_>>(),
                );
            }
        }
    }

    /// Which forms of its names the proposal with this number writes and reads.
    pub fn naming(&self, number: u16) -> Naming {
        let hooks = self.all.iter().find(|hooks| hooks.number == number);
        hooks.map_or(Naming::Unstable, |hooks| hooks.naming)
    }

    /// Whether a hook runs in the writes of requests.
    pub(crate) fn run_in_writes(&self) -> bool {
        let runs = |hooks: &ProposalHooks| {
            let checks = hooks.check_event.is_some() || hooks.check_message.is_some();
            checks || hooks.changed.is_some()
        };
        self.all.iter().any(runs)
    }

    /// The number of the first proposal that keeps an item from an appservice.
    pub(crate) fn withholds(&self, service: &Service, draft: &OwedDraft<'_>) -> Option<u16> {
        let keeps = |owes: OwesTo| !owes(service, draft);
        let found = self.all.iter().find(|h| h.owes_to.is_some_and(keeps));
        found.map(|hooks| hooks.number)
    }

    /// Whether a hook reads what clients ask `/sync` for.
    pub(crate) fn read_syncs(&self) -> bool {
        let reads = |hooks: &ProposalHooks| hooks.sync.is_some() || hooks.keeps.is_some();
        self.all.iter().any(reads)
    }

    /// The hooks that keep events in answers to `/sync`.
    pub(crate) fn keeps(&self) -> Vec<KeepsEvent> {
        self.all.iter().filter_map(|hooks| hooks.keeps).collect()
    }

    /// Whether a proposal follows what devices have seen.
    pub(crate) fn follow_syncs(&self) -> bool {
        self.all.iter().any(|hooks| hooks.follows_syncs)
    }

    /// How many bytes of the answer to a transaction are read for hooks; 0 for none.
    pub(crate) fn answer_bytes(&self) -> usize {
        let bytes = self.all.iter().map(|hooks| hooks.answer_bytes);
        bytes.max().unwrap_or_default()
    }

    /// The numbers of the proposals with timers.
    pub(crate) fn with_timers(&self) -> Vec<u16> {
        let all = self.all.iter().filter(|hooks| hooks.due.is_some());
        all.map(|hooks| hooks.number).collect()
    }
}
