//! Where a test can make the senders and the hints fail: the end of the process around a request to a service, a hint that is lost.
//!
//! Without faults, which is the default, each point costs one branch. The faults of the storage are in [`schema::faults`].

use std::sync::Arc;

/// A point at which a fault can be injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// A sender has a body that is on the disk, and its request is not sent yet.
    BeforeRequest,
    /// A service has answered a request, and nothing of the answer is remembered yet.
    AfterAnswer,
    /// A service has answered a 2xx, and the write that records it is not queued yet.
    BeforeRecord,
    /// That write is committed, and neither its sender nor the inbox, which deletes what was delivered, knows it yet.
    AfterRecord,
    /// A hint is about to be given to a sender.
    SenderHint,
    /// A hint of the storage is about to be given to `device_lists`.
    LogHint,
}

/// What goes wrong at a [`Point`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// A sender behaves as in a process that was killed: it goes no further. The rest of the process is the test's to end. At the
    /// points of hints, nothing.
    End,
    /// The hint is lost. At the points of a sender, nothing.
    Lose,
}

/// Chooses the fault at each point. Called from the actors and from the writer of the storage.
type Choose = dyn Fn(Point) -> Fault + Send + Sync;

/// Which faults the actors have: none, unless a test chooses them.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<Choose>>);

impl Faults {
    /// The faults that this function chooses, point by point.
    pub fn chosen_by(choose: impl Fn(Point) -> Fault + Send + Sync + 'static) -> Faults {
        Faults(Some(Arc::new(choose)))
    }

    /// Whether the hint of this point is lost.
    pub(crate) fn lose(&self, point: Point) -> bool {
        self.at(point) == Fault::Lose
    }

    /// Pass this point, unless the process ends at it: then this never resolves.
    pub(crate) async fn pass(&self, point: Point) {
        if self.at(point) == Fault::End {
            std::future::pending().await
        }
    }

    fn at(&self, point: Point) -> Fault {
        self.0.as_ref().map_or(Fault::None, |choose| choose(point))
    }
}
