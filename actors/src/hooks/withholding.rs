//! The hooks of a write that keep items from appservices.

use std::sync::Arc;

use schema::Tx;

use super::owing::OwedDraft;
use super::proposal::ProposalHooks;
use super::report::{Attached, attached};
use crate::services::Service;

/// The hooks of a write that keep items from appservices, if there are any.
pub(crate) struct Withholding(Option<Arc<Attached>>);

impl Withholding {
    pub(crate) fn of(tx: &Tx<'_>) -> Withholding {
        let keeps_some = |hooks: &ProposalHooks| hooks.owes_to.is_some();
        let has_some = |attached: &Arc<Attached>| attached.hooks.all.iter().any(keeps_some);
        Withholding(attached(tx).filter(has_some))
    }

    /// Whether a hook keeps items from appservices.
    pub(crate) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Whether an appservice is owed an item; hooks have nothing to say about one that is not registered.
    pub(crate) fn lets(&self, service: Option<&Arc<Service>>, draft: &OwedDraft<'_>) -> bool {
        service.is_none_or(|service| self.lets_service(service, draft))
    }

    /// Whether this appservice is owed an item.
    pub(crate) fn lets_service(&self, service: &Service, draft: &OwedDraft<'_>) -> bool {
        let withheld = |of: &Arc<Attached>| of.hooks.withholds(service, draft).is_some();
        !self.0.as_ref().is_some_and(withheld)
    }
}
