//! What every request can reach: the actors, and which requests are under way.
//!
//! This file stands below everything else in this crate and imports nothing from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use actors::Actors;

/// The most requests that may be under way. Requests that wait outside ([`App::outside`]) do not count. Further ones are answered
/// 503.
pub const DOOR: usize = 1024;

struct Inner {
    /// How many requests there were.
    requests: AtomicU64,
    /// How many are under way.
    inside: AtomicUsize,
    dev: bool,
    proposals: Vec<u16>,
}

/// What every route is given. Clones are cheap.
#[derive(Clone)]
pub struct App {
    /// The actors.
    pub actors: Actors,
    inner: Arc<Inner>,
}

/// What a request takes of [`DOOR`] while it is under way, or gives back while it waits; undone when dropped.
pub struct Place {
    inner: Arc<Inner>,
    is_taken: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_taken {
            self.inner.inside.fetch_sub(1, Ordering::AcqRel);
        } else {
            self.inner.inside.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl App {
    /// For a server with these proposals switched on.
    pub(crate) fn new(actors: Actors, dev: bool, proposals: Vec<u16>) -> App {
        let inner = Inner {
            requests: AtomicU64::new(0),
            inside: AtomicUsize::new(0),
            dev,
            proposals,
        };
        App {
            actors,
            inner: Arc::new(inner),
        }
    }

    /// Take a place for a request; `None` when [`DOOR`] requests are under way.
    pub(crate) fn enter(&self) -> Option<Place> {
        let place = Place {
            inner: Arc::clone(&self.inner),
            is_taken: true,
        };
        (self.inner.inside.fetch_add(1, Ordering::AcqRel) < DOOR).then_some(place)
    }

    /// Give back the place of a request for as long as it waits.
    pub(crate) fn wait_outside(&self) -> Place {
        self.inner.inside.fetch_sub(1, Ordering::AcqRel);
        Place {
            inner: Arc::clone(&self.inner),
            is_taken: false,
        }
    }

    /// Wait for a client or a service without a place: the calls that a service makes before it answers must find room.
    pub(crate) async fn outside<T>(&self, wait: impl Future<Output = T>) -> T {
        let _place = self.wait_outside();
        let _parked = self.actors.env.trace.parked();
        wait.await
    }

    /// The name under which the messages of a request are recorded.
    pub(crate) fn next_request(&self, method: &str, template: &str) -> Arc<str> {
        let number = self.inner.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if self.inner.dev {
            format!("{number} {method} {template}").into()
        } else {
            Arc::from("")
        }
    }

    /// Whether this is a development server.
    #[must_use]
    pub fn is_dev(&self) -> bool {
        self.inner.dev
    }

    /// The numbers of the proposals that are switched on.
    #[must_use]
    pub fn proposals(&self) -> &[u16] {
        &self.inner.proposals
    }

    #[doc(hidden)]
    #[must_use]
    pub fn inside(&self) -> usize {
        self.inner.inside.load(Ordering::Acquire)
    }
}
