//! Reports changes to the hooks, from within the writes that make them.

use std::cell::RefCell;
use std::sync::Arc;

use ruma::CanonicalJsonObject;
use schema::accounts::DeviceRow;
use schema::facts::{Fact, Withheld, message_id};
use schema::inbox::InboxRow;
use schema::{Conn, ServiceId, Tx, observed};
use serde_json::Value;

use super::change::Change;
use super::check::{EventDraft, NewEvent};
use super::host::Host;
use super::owing::NewMessage;
use super::part::Part;
use super::proposal::{Hooks, ProposalHooks};
use crate::{Identity, Result};

/// What is attached to the storage: the hooks, and the host that they use.
pub(crate) struct Attached {
    pub(crate) hooks: Hooks,
    pub(crate) host: Box<dyn Host>,
}

thread_local! {
    /// The numbers of the proposals whose hooks run on this thread, the innermost last.
    static RUNNING: RefCell<Vec<u16>> = const { RefCell::new(Vec::new()) };
}

/// A hook of a proposal runs until this is dropped.
struct RunningHook;

impl RunningHook {
    fn start(number: u16) -> RunningHook {
        RUNNING.with_borrow_mut(|running| running.push(number));
        RunningHook
    }
}

impl Drop for RunningHook {
    fn drop(&mut self) {
        RUNNING.with_borrow_mut(Vec::pop);
    }
}

/// Whether a proposal caused the present change. If so, its hooks do not get a report of it.
fn is_running(number: u16) -> bool {
    RUNNING.with_borrow(|running| running.contains(&number))
}

/// Reports changes to the hooks, from within the write that makes them.
pub(crate) trait ReportsChanges {
    /// Whether a hook observes changes. If not, what a report needs need not be read.
    fn is_observed(&self) -> bool;
    /// Report a change.
    ///
    /// # Errors
    /// A hook refuses the change.
    fn changed(&mut self, change: &Change<'_>) -> Result<()>;
    /// Report acknowledged to-device messages, which are read only if a hook observes changes.
    ///
    /// # Errors
    /// The database fails, or a hook refuses the change.
    fn received(
        &mut self,
        read: impl FnOnce(&mut Conn) -> schema::Result<Vec<InboxRow>>,
    ) -> Result<()> {
        if !self.is_observed() {
            return Ok(());
        }
        let messages = read(self.conn())?;
        self.changed(&Change::ToDeviceReceived {
            messages: &messages,
        })
    }
    /// Report to-device messages that a request puts into inboxes.
    ///
    /// # Errors
    /// A hook refuses the change.
    fn sent(&mut self, from: &Identity, kind: &str, messages: &[InboxRow]) -> Result<()> {
        self.changed(&Change::ToDevice {
            from,
            kind,
            messages,
        })
    }
    /// Report that an appservice acknowledged a transaction.
    ///
    /// # Errors
    /// The database fails, or a hook refuses the change.
    fn delivered(&mut self, service: &ServiceId, txn: i64, answer: Option<&Value>) -> Result<()> {
        if !self.is_observed() {
            return Ok(());
        }
        let items = observed::carried(self.conn(), service, txn)?;
        self.changed(&Change::Delivered {
            service,
            txn,
            items: &items,
            answer,
        })
    }
    /// Whether a hook checks to-device messages.
    fn checks_messages(&self) -> bool;
    /// Whether the hooks let a to-device message reach a device. If not, the history keeps the reason.
    ///
    /// # Errors
    /// A hook refuses the request.
    fn lets_message(
        &mut self,
        from: &Identity,
        kind: &str,
        to: &DeviceRow,
        content: &str,
    ) -> Result<bool>;
    /// The database.
    fn conn(&mut self) -> &mut Conn;
    /// Let the hooks refuse an event. Returns the keys that they add to it.
    ///
    /// # Errors
    /// A hook refuses it.
    fn check_event(&mut self, event: EventDraft<'_>) -> Result<CanonicalJsonObject>;
}

pub(super) fn attached(tx: &Tx<'_>) -> Option<Arc<Attached>> {
    tx.attached()?.downcast().ok()
}

impl ReportsChanges for Tx<'_> {
    fn conn(&mut self) -> &mut Conn {
        self
    }

    fn is_observed(&self) -> bool {
        let observes = |hooks: &ProposalHooks| hooks.changed.is_some() && !is_running(hooks.number);
        attached(self).is_some_and(|attached| attached.hooks.all.iter().any(observes))
    }

    fn changed(&mut self, change: &Change<'_>) -> Result<()> {
        let Some(attached) = attached(self) else {
            return Ok(());
        };
        for hooks in &attached.hooks.all {
            let Some(changed) = hooks.changed.filter(|_| !is_running(hooks.number)) else {
                continue;
            };
            let _running = RunningHook::start(hooks.number);
            changed(&mut Part::new(self, &*attached.host, hooks.number), change)?;
        }
        Ok(())
    }

    fn checks_messages(&self) -> bool {
        let checks = |hooks: &ProposalHooks| hooks.check_message.is_some();
        attached(self).is_some_and(|attached| attached.hooks.all.iter().any(checks))
    }

    fn lets_message(
        &mut self,
        from: &Identity,
        kind: &str,
        to: &DeviceRow,
        content: &str,
    ) -> Result<bool> {
        let Some(attached) = attached(self) else {
            return Ok(true);
        };
        let checks = attached.hooks.all.iter();
        for (msc, check) in checks.filter_map(|h| Some((h.number, h.check_message?))) {
            let why = check(&mut NewMessage {
                tx: self,
                from,
                kind,
                user: &to.user_id,
                device: &to.device_id,
                content,
            })?;
            if let Some(why) = why {
                let withheld = || Withheld {
                    user: to.user_id.clone(),
                    device: to.device_id.clone(),
                    sender: from.user.to_string(),
                    kind: kind.to_owned(),
                    message_id: message_id(content),
                    msc,
                    why,
                };
                self.note(|| [Fact::Withheld(withheld())]);
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn check_event(&mut self, event: EventDraft<'_>) -> Result<CanonicalJsonObject> {
        let mut top_level = CanonicalJsonObject::new();
        let Some(attached) = attached(self) else {
            return Ok(top_level);
        };
        for check in attached.hooks.all.iter().filter_map(|h| h.check_event) {
            check(&mut NewEvent {
                tx: self,
                top_level: &mut top_level,
                event,
            })?;
        }
        Ok(top_level)
    }
}

/// Run a hook as part of a write. Used for a write of a proposal's own.
pub(crate) fn with_part<T>(
    tx: &mut Tx<'_>,
    number: u16,
    run: impl FnOnce(&mut Part<'_, '_>) -> Result<T>,
) -> Result<T> {
    let attached = attached(tx).ok_or(crate::Error::Failed("proposals"))?;
    let _running = RunningHook::start(number);
    run(&mut Part::new(tx, &*attached.host, number))
}
