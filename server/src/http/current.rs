//! The state that requests reach. A development server replaces it when its database in memory is reset or restored; requests that
//! arrive meanwhile wait.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::state::App;

/// The state, while it is used. It is replaced when nothing uses it any more.
#[derive(Clone)]
pub(crate) struct Used {
    app: App,
    /// Closes its channel when the last clone is dropped.
    _in_use: mpsc::Sender<Infallible>,
}

impl Used {
    /// The state, without counting as a use.
    pub(crate) fn app(&self) -> &App {
        &self.app
    }
}

/// Resolves when a state that was taken from [`Current`] is not used any more.
pub(crate) struct Unused(mpsc::Receiver<Infallible>);

impl Unused {
    pub(crate) async fn wait(&mut self) {
        // Nothing is ever sent.
        let _ = self.0.recv().await;
    }
}

/// The present state. Clones share it.
#[derive(Clone)]
pub(crate) struct Current(Arc<watch::Sender<Option<Used>>>);

impl Current {
    /// No state yet.
    pub(crate) fn empty() -> Current {
        Current(Arc::new(watch::Sender::new(None)))
    }

    /// The state. Waits while it is being replaced.
    pub(crate) async fn get(&self) -> Used {
        if let Some(used) = &*self.0.borrow() {
            return used.clone();
        }
        let mut changes = self.0.subscribe();
        loop {
            if let Some(used) = &*changes.borrow_and_update() {
                return used.clone();
            }
            // `self` keeps the sender, so the channel stays open.
            let _ = changes.changed().await;
        }
    }

    /// Take the state away: requests wait from now on.
    pub(crate) fn take(&self) -> Option<App> {
        self.0.send_replace(None).map(|used| used.app)
    }

    /// Let requests reach this state.
    pub(crate) fn put(&self, app: App) -> Unused {
        let (in_use, unused) = mpsc::channel(1);
        self.0.send_replace(Some(Used {
            app,
            _in_use: in_use,
        }));
        Unused(unused)
    }
}
