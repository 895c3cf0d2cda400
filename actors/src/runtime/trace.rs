//! The trace: records every message between actors and what each write did, with the request that caused it, and counts the work
//! under way.
//!
//! Only a development server keeps the messages, in a ring buffer bounded in bytes. Each message is serialized once and kept as
//! JSON text. Passwords and tokens are [`Secret`](crate::Secret)s and show as `…`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

tokio::task_local! {
    static CAUSE: Arc<str>;
}

/// Run a future with a cause: the messages that it sends are recorded under it.
pub async fn caused_by<F: Future>(cause: Arc<str>, future: F) -> F::Output {
    CAUSE.scope(cause, future).await
}

/// Call a function with a cause.
pub(crate) fn within<T>(cause: Arc<str>, call: impl FnOnce() -> T) -> T {
    CAUSE.sync_scope(cause, call)
}

/// The cause of the current task; empty if it has none.
pub fn cause() -> Arc<str> {
    CAUSE.try_with(Arc::clone).unwrap_or_else(|_| "".into())
}

/// A recorded message between actors.
#[derive(Debug, Clone, Serialize)]
pub struct TracedMessage {
    /// The number of the message, counted from 1.
    pub number: u64,
    /// The request or appservice that caused the message.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub cause: Arc<str>,
    /// The sending actor.
    pub from: &'static str,
    /// The receiving actor.
    pub to: &'static str,
    /// The message type.
    pub what: &'static str,
    /// The message, as JSON text.
    pub body: Arc<RawValue>,
}

struct Ring {
    next: u64,
    bytes: usize,
    seen: VecDeque<TracedMessage>,
}

/// The bytes that a message takes in the ring buffer of the trace besides its JSON text: its entry and its allocations.
const ENTRY: usize = 160;

impl TracedMessage {
    fn size(&self) -> usize {
        ENTRY + self.body.get().len()
    }
}

struct Inner {
    limit: usize,
    ring: Mutex<Ring>,
    busy: AtomicI64,
    version: AtomicU64,
}

/// A handle to the trace; clones share it.
#[derive(Clone)]
pub struct Trace(Arc<Inner>);

/// A guard that counts as work under way until it is dropped.
pub struct Busy(Trace, i64);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.version.fetch_add(1, Ordering::AcqRel);
        self.0.0.busy.fetch_sub(self.1, Ordering::AcqRel);
    }
}

impl Trace {
    /// A trace that keeps at most `limit` bytes of messages between actors; 0 keeps none.
    pub fn new(limit: usize) -> Trace {
        Trace(Arc::new(Inner {
            limit,
            ring: Mutex::new(Ring {
                next: 1,
                bytes: 0,
                seen: VecDeque::new(),
            }),
            busy: AtomicI64::new(0),
            version: AtomicU64::new(0),
        }))
    }

    /// Count one piece of work as under way until the guard is dropped.
    #[must_use]
    pub fn busy(&self) -> Busy {
        self.count(1)
    }

    /// Until the guard is dropped, do not count one piece of work that is under way, because it waits for something outside: a
    /// `/sync` request for news, or an appservice for its answer.
    #[must_use]
    pub fn parked(&self) -> Busy {
        self.count(-1)
    }

    fn count(&self, more: i64) -> Busy {
        self.0.version.fetch_add(1, Ordering::AcqRel);
        self.0.busy.fetch_add(more, Ordering::AcqRel);
        Busy(self.clone(), more)
    }

    /// The number of pieces of work under way that do not wait for something outside.
    pub fn under_way(&self) -> i64 {
        self.0.busy.load(Ordering::Acquire)
    }

    /// A number that grows with every message, write and wake that is recorded: if it is unchanged, nothing happened in between.
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// Whether messages are kept.
    pub fn is_on(&self) -> bool {
        self.0.limit > 0
    }

    /// Record a message.
    pub fn record_message<M: Serialize>(&self, from: &'static str, to: &'static str, message: &M) {
        self.record(cause(), from, to, short::<M>(), message);
    }

    /// Record a message under this name.
    pub(crate) fn record_message_as(
        &self,
        from: &'static str,
        to: &'static str,
        what: &'static str,
        body: &impl Serialize,
    ) {
        self.record(cause(), from, to, what, body);
    }

    /// Called when a write is queued. The returned report records what it did, once it is committed.
    pub(crate) fn writes(&self, closure: &'static str) -> schema::Report {
        let (trace, cause) = (self.clone(), cause());
        Box::new(move |rows| {
            if !rows.is_empty() {
                trace.record(cause, module(closure), "store", "Write", &rows);
            }
        })
    }

    fn record(
        &self,
        cause: Arc<str>,
        from: &'static str,
        to: &'static str,
        what: &'static str,
        message: &impl Serialize,
    ) {
        self.0.version.fetch_add(1, Ordering::AcqRel);
        if self.0.limit == 0 {
            return;
        }
        // A message that cannot be serialized is recorded as null, so that recording never fails.
        let body: Arc<RawValue> = to_raw_value(message)
            .unwrap_or_else(|_| RawValue::NULL.to_owned())
            .into();
        let Ok(mut ring) = self.0.ring.lock() else {
            return;
        };
        let seen = TracedMessage {
            number: ring.next,
            cause,
            from,
            to,
            what,
            body,
        };
        ring.next += 1;
        ring.bytes += seen.size();
        ring.seen.push_back(seen);
        while ring.bytes > self.0.limit {
            let Some(gone) = ring.seen.pop_front() else {
                break;
            };
            ring.bytes -= gone.size();
        }
    }

    /// The messages after a number, oldest first, without those that were dropped to make room for newer ones.
    pub fn after(&self, number: u64) -> Vec<TracedMessage> {
        self.0.ring.lock().map_or_else(
            |_| Vec::new(),
            |r| {
                r.seen
                    .iter()
                    .skip_while(|seen| seen.number <= number)
                    .cloned()
                    .collect()
            },
        )
    }
}

/// The module of this crate (an actor) in which a closure of this type was defined, or the name of another crate.
fn module(closure: &'static str) -> &'static str {
    let path = closure.trim_start_matches(['<', '&']);
    let of_this_crate = path.strip_prefix("actors::").unwrap_or(path);
    of_this_crate.split("::").next().unwrap_or(path)
}

/// The last segment of a type name, without its parameters.
pub(crate) fn short<T: ?Sized>() -> &'static str {
    let name = std::any::type_name::<T>();
    let name = name.split('<').next().unwrap_or(name);
    name.rsplit("::").next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_bounded_and_numbers_keep_growing() {
        let trace = Trace::new(4 * (ENTRY + 1));
        for i in 0..10 {
            trace.record_message("a", "b", &i);
        }
        let seen = trace.after(0);
        assert!(seen.len() < 10, "the oldest are gone");
        assert_eq!(seen.last().map(|s| s.number), Some(10));
        assert!(Trace::new(0).after(0).is_empty());
    }

    #[test]
    fn parked_work_is_not_under_way() {
        let trace = Trace::new(0);
        let request = trace.busy();
        let waiting = trace.parked();
        assert_eq!(trace.under_way(), 0);
        drop(waiting);
        assert_eq!(trace.under_way(), 1);
        drop(request);
        assert_eq!(trace.under_way(), 0);
    }
}
