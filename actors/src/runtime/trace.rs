//! The trace: records every request of a client, every message between actors and what each write did, with the request that
//! caused it, and counts the work under way.
//!
//! Only a development server keeps the messages, in a ring buffer bounded in bytes. Each message is serialized once and kept as
//! JSON text. Passwords and tokens are [`Secret`](crate::Secret)s and show as `…`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::Notify;

use crate::Clock;
use crate::runtime::exchange::Exchange;
use crate::runtime::history::History;

tokio::task_local! {
    static CONTEXT: Context;
}

/// What a task works for: the request that caused it, and what that exchanges with the hooks of proposals, if it does.
#[derive(Debug, Clone, Default)]
pub struct Context {
    cause: Arc<str>,
    exchange: Option<Arc<Exchange>>,
}

impl From<Arc<str>> for Context {
    fn from(cause: Arc<str>) -> Context {
        Context {
            cause,
            exchange: None,
        }
    }
}

/// Run a future with a cause: the messages that it sends are recorded under it.
pub async fn caused_by<F: Future>(cause: impl Into<Context>, future: F) -> F::Output {
    CONTEXT.scope(cause.into(), future).await
}

/// Call a function with a cause.
pub(crate) fn within<T>(cause: impl Into<Context>, call: impl FnOnce() -> T) -> T {
    CONTEXT.sync_scope(cause.into(), call)
}

/// The context of the current task, to pass on.
pub(crate) fn context() -> Context {
    CONTEXT.try_with(Clone::clone).unwrap_or_default()
}

/// The cause of the current task; empty if it has none.
pub fn cause() -> Arc<str> {
    context().cause
}

/// Run a future with the cause of the current task and this exchange.
pub async fn exchanging<F: Future>(exchange: Exchange, future: F) -> F::Output {
    let context = Context {
        exchange: Some(Arc::new(exchange)),
        ..context()
    };
    CONTEXT.scope(context, future).await
}

/// The exchange of the current task.
pub fn exchange() -> Option<Arc<Exchange>> {
    context().exchange
}

/// The lane of clients in the trace: they send requests and are sent answers.
pub const CLIENT: &str = "client";

/// A recorded message between actors, or a request of a client, or the answer to one.
#[derive(Debug, Clone, Serialize)]
pub struct TracedMessage {
    /// The number of the message, counted from 1.
    pub number: u64,
    /// When it was recorded, in milliseconds since the epoch.
    pub at: i64,
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
    /// Without gaps in the numbers.
    seen: VecDeque<TracedMessage>,
}

impl Ring {
    /// The number of the oldest message, or that of the next one.
    fn oldest(&self) -> u64 {
        self.seen.front().map_or(self.next, |seen| seen.number)
    }
}

/// The bytes that a message takes in the ring buffer of the trace besides its JSON text: its entry and its allocations.
const ENTRY: usize = 160;

impl TracedMessage {
    fn size(&self) -> usize {
        ENTRY + self.body.get().len()
    }

    /// Whether it is a request of a client or the answer to one, and not a message between actors.
    pub fn is_of_client(&self) -> bool {
        self.from == CLIENT || self.to == CLIENT
    }
}

/// The next messages of the trace for a reader that has seen those up to a number.
pub struct Following {
    /// The newest of the messages that the reader has not seen and that were dropped to make room, if there are any.
    pub gap: Option<u64>,
    /// The messages, oldest first, of clients too.
    pub messages: Vec<TracedMessage>,
}

struct Inner {
    limit: usize,
    clock: Clock,
    run: i64,
    grown: Notify,
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

/// A number that was not returned before. It is the time in milliseconds, of the system's clock, because another may stand still.
fn number_of_run() -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let now = Clock::System.now();
    let next = |last: i64| Some(now.max(last + 1));
    let last = LAST.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    now.max(last.unwrap_or_default() + 1)
}

impl Trace {
    /// A trace that keeps at most `limit` bytes of messages between actors; 0 keeps none.
    pub fn new(limit: usize) -> Trace {
        Trace::timed(limit, Clock::System)
    }

    /// The same, with the times of this clock.
    pub fn timed(limit: usize, clock: Clock) -> Trace {
        Trace(Arc::new(Inner {
            limit,
            run: number_of_run(),
            clock,
            grown: Notify::new(),
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
    pub(crate) fn writes(&self, history: &History, closure: &'static str) -> schema::Report {
        let (trace, history, cause) = (self.clone(), history.clone(), cause());
        Box::new(move |done| {
            if !done.rows.is_empty() {
                trace.record(
                    Arc::clone(&cause),
                    module(closure),
                    "store",
                    "Write",
                    &done.rows,
                );
            }
            history.committed(&cause, done.facts, done.head);
        })
    }

    /// Record a message that this request caused.
    pub fn record(
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
            at: self.0.clock.now(),
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
        drop(ring);
        self.0.grown.notify_waiters();
    }

    /// The messages between actors after a number, oldest first, without those that were dropped to make room for newer ones.
    pub fn after(&self, number: u64) -> Vec<TracedMessage> {
        let mut following = self.following(number, usize::MAX).messages;
        following.retain(|seen| !seen.is_of_client());
        following
    }

    /// At most `limit` messages after a number, and whether some before them were dropped.
    pub fn following(&self, number: u64, limit: usize) -> Following {
        let Ok(ring) = self.0.ring.lock() else {
            return Following {
                gap: None,
                messages: Vec::new(),
            };
        };
        let oldest = ring.oldest();
        let skipped = usize::try_from((number + 1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        Following {
            gap: (number + 1 < oldest).then(|| oldest - 1),
            messages: ring
                .seen
                .iter()
                .skip(skipped)
                .take(limit)
                .cloned()
                .collect(),
        }
    }

    /// The number of the oldest message that is kept, and of the newest; the newest is smaller if none is kept.
    pub fn kept(&self) -> (u64, u64) {
        let ring = self.0.ring.lock();
        ring.map_or((1, 0), |ring| (ring.oldest(), ring.next - 1))
    }

    /// A number that no other trace has, in this process or in an earlier one: the numbers of messages count from 1 in each.
    pub fn run(&self) -> i64 {
        self.0.run
    }

    /// Resolves when there is a message after this number.
    pub async fn grown_beyond(&self, number: u64) {
        loop {
            let mut grown = std::pin::pin!(self.0.grown.notified());
            // From here on a new message is noticed.
            grown.as_mut().enable();
            if self.kept().1 > number {
                return;
            }
            grown.await;
        }
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

    #[actix::test]
    async fn a_reader_is_told_of_a_gap_and_woken_by_the_next_message() {
        let trace = Trace::new(3 * (ENTRY + 1));
        for i in 0..5 {
            trace.record("".into(), CLIENT, "http", "Request", &i);
        }
        let numbers = |from, limit| {
            let following = trace.following(from, limit);
            let numbers: Vec<u64> = following.messages.iter().map(|m| m.number).collect();
            (following.gap, numbers)
        };
        assert_eq!(trace.kept(), (3, 5));
        assert_eq!(numbers(0, 9), (Some(2), vec![3, 4, 5]));
        assert_eq!(numbers(2, 2), (None, vec![3, 4]));
        assert_eq!(numbers(5, 9), (None, vec![]));
        assert!(trace.after(0).is_empty(), "these are not between actors");
        let mut woken = std::pin::pin!(trace.grown_beyond(5));
        assert!(futures_util::poll!(woken.as_mut()).is_pending());
        trace.record_message("a", "b", &6);
        woken.await;
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
