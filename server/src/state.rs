//! What every request can reach: the actors, and the number of requests in progress.
//!
//! All other files of this crate may use this one, which imports only `figures.rs` from them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use actors::Actors;
use actors::runtime::requests;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::figures::Figures;

/// The most requests in progress at once; further requests are answered 503. Requests that wait in `App::outside` do not count.
pub const DOOR: usize = 1024;

/// An order about the whole database of a server that keeps it in memory. Each is answered when it is done.
pub(crate) enum DatabaseOrder {
    /// Make the present state the one to which a reset returns.
    KeepFirst(oneshot::Sender<actors::Result<()>>),
    /// Keep a copy. The answer is its number.
    Copy(oneshot::Sender<actors::Result<u64>>),
    /// Put the copy with this number back; `None` for the state to which a reset returns.
    Restore(Option<u64>, oneshot::Sender<actors::Result<()>>),
    /// Stop the actors, because the server ends.
    Stop(oneshot::Sender<()>),
}

struct Inner {
    /// The number of requests so far; it numbers the requests in the trace.
    requests: AtomicU64,
    /// The number of requests in progress.
    inside: AtomicUsize,
    /// The number of requests that found no place.
    refused: AtomicU64,
    /// When this state was made, in milliseconds since the epoch: it makes the ids of requests differ from those of earlier runs.
    started: i64,
    figures: Figures,
    dev: bool,
    announced: Announced,
    orders: Option<mpsc::UnboundedSender<DatabaseOrder>>,
}

/// What the enabled proposals add to the answers about what the server supports.
#[derive(Debug, Default)]
pub struct Announced {
    /// The flags in `unstable_features` of `GET /versions`.
    pub flags: Vec<&'static str>,
    /// The entries in `capabilities` of `GET /capabilities`.
    pub capabilities: Vec<(&'static str, Value)>,
}

/// What every route receives. Clones are cheap.
#[derive(Clone)]
pub struct App {
    /// The actors.
    pub actors: Actors,
    inner: Arc<Inner>,
}

/// A change of the number of requests in progress, undone when dropped: +1 while a request runs, -1 while it waits in
/// `App::outside`.
pub struct RequestSlot {
    inner: Arc<Inner>,
    is_taken: bool,
}

impl Drop for RequestSlot {
    fn drop(&mut self) {
        if self.is_taken {
            self.inner.inside.fetch_sub(1, Ordering::AcqRel);
        } else {
            self.inner.inside.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl App {
    /// The state of a server whose proposals announce this, and which takes `orders` if its database is in memory.
    pub(crate) fn new(
        actors: Actors,
        dev: bool,
        announced: Announced,
        orders: Option<mpsc::UnboundedSender<DatabaseOrder>>,
        figures: Figures,
    ) -> App {
        let inner = Inner {
            refused: AtomicU64::new(0),
            started: actors.env.clock.now(),
            figures,
            requests: AtomicU64::new(0),
            inside: AtomicUsize::new(0),
            dev,
            announced,
            orders,
        };
        App {
            actors,
            inner: Arc::new(inner),
        }
    }

    /// Count a request; `None` when [`DOOR`] requests are in progress.
    pub(crate) fn enter(&self) -> Option<RequestSlot> {
        let place = RequestSlot {
            inner: Arc::clone(&self.inner),
            is_taken: true,
        };
        if self.inner.inside.fetch_add(1, Ordering::AcqRel) < DOOR {
            return Some(place);
        }
        self.inner.refused.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Stop counting a request while it waits.
    pub(crate) fn wait_outside(&self) -> RequestSlot {
        self.inner.inside.fetch_sub(1, Ordering::AcqRel);
        RequestSlot {
            inner: Arc::clone(&self.inner),
            is_taken: false,
        }
    }

    /// Wait for a client or an appservice without counting as a request: an appservice calls back before it answers, and those
    /// calls need room.
    pub(crate) async fn outside<T>(&self, wait: impl Future<Output = T>) -> T {
        let _place = self.wait_outside();
        let _parked = self.actors.env.trace.parked();
        wait.await
    }

    /// The name under which a request's messages are traced: in a development server its number, method and route; then the id that
    /// the client gave it. Otherwise that id, or one of the server's own if requests are logged, or else nothing.
    pub(crate) fn next_request(&self, method: &str, template: &str, id: Option<&str>) -> Arc<str> {
        let inner = &self.inner;
        let number = inner.requests.fetch_add(1, Ordering::Relaxed) + 1;
        match id {
            Some(id) if inner.dev => format!("{number} {method} {template} {id}").into(),
            None if inner.dev => format!("{number} {method} {template}").into(),
            Some(id) => id.into(),
            None if requests::are_logged() => format!("{:x}-{number}", inner.started).into(),
            None => Arc::from(""),
        }
    }

    /// Whether this is a development server.
    #[must_use]
    pub fn is_dev(&self) -> bool {
        self.inner.dev
    }

    /// Takes orders about the whole database, if it is in memory.
    pub(crate) fn orders(&self) -> Option<mpsc::UnboundedSender<DatabaseOrder>> {
        self.inner.orders.clone()
    }

    /// What the enabled proposals announce.
    #[must_use]
    pub fn announced(&self) -> &Announced {
        &self.inner.announced
    }

    /// The figures for operators.
    pub(crate) fn figures(&self) -> &Figures {
        &self.inner.figures
    }

    /// The number of requests that found no place.
    pub(crate) fn refused(&self) -> u64 {
        self.inner.refused.load(Ordering::Relaxed)
    }

    /// The number of requests in progress.
    #[must_use]
    pub fn inside(&self) -> usize {
        self.inner.inside.load(Ordering::Acquire)
    }
}
