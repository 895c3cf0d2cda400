//! Points at which a test can inject a fault: the process ends around a request to an appservice, or a notification is lost.
//!
//! Without faults, which is the default, each point costs one branch. Faults of the storage are in [`schema::faults`].

use std::sync::Arc;

/// A point at which a fault can be injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeliveryPoint {
    /// A sender has stored a transaction body, and has not sent the request yet.
    BeforeRequest,
    /// An appservice has answered a request, and nothing of the answer is recorded yet.
    AfterAnswer,
    /// An appservice has answered with a 2xx, and the write that records it is not queued yet.
    BeforeRecord,
    /// The write that records the 2xx is committed. The sender and the inbox, which deletes the delivered messages, do not know
    /// it yet.
    AfterRecord,
    /// A notification is about to be sent to a sender.
    SenderHint,
    /// The storage is about to notify `device_lists`.
    LogHint,
}

/// The fault at a [`DeliveryPoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum DeliveryFault {
    /// No fault.
    #[default]
    None,
    /// The sender stops as if the process had been killed. The test must end the rest of the process. No effect at the points
    /// of notifications.
    End,
    /// The notification is lost. No effect at the points of a sender.
    Lose,
}

/// Chooses the fault at each point. It is called by the actors and by the writer of the storage.
type Choose = dyn Fn(DeliveryPoint) -> DeliveryFault + Send + Sync;

/// The injected faults: none, unless a test chooses some.
#[derive(Clone, Default)]
pub struct DeliveryFaults(Option<Arc<Choose>>);

impl DeliveryFaults {
    /// Faults chosen by a function, for each point.
    pub fn chosen_by(
        choose: impl Fn(DeliveryPoint) -> DeliveryFault + Send + Sync + 'static,
    ) -> DeliveryFaults {
        DeliveryFaults(Some(Arc::new(choose)))
    }

    /// Whether the notification at this point is lost.
    pub(crate) fn lose(&self, point: DeliveryPoint) -> bool {
        self.at(point) == DeliveryFault::Lose
    }

    /// Go past this point. Never resolves if the injected fault ends the process here.
    pub(crate) async fn pass(&self, point: DeliveryPoint) {
        if self.at(point) == DeliveryFault::End {
            std::future::pending().await
        }
    }

    fn at(&self, point: DeliveryPoint) -> DeliveryFault {
        self.0
            .as_ref()
            .map_or(DeliveryFault::None, |choose| choose(point))
    }
}
