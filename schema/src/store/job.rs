//! A write in the writer's queue: a closure that can run more than once, and the answer of its last run.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::oneshot;

use crate::Tx;
use crate::error::{Error, Result, WriteError};
use crate::store::facts::Done;
use crate::store::tx::Companion;

/// The result of a run of a closure.
pub(crate) enum Outcome {
    Done,
    /// The closure returned an error. If it changed nothing before, the transaction continues without it.
    Refused,
    /// A statement failed, or the closure panicked: the transaction cannot continue.
    Broken(RollbackReason),
}

/// The reason why a transaction was rolled back.
pub(crate) enum RollbackReason {
    /// A closure returned an error after it had changed rows. Its caller receives the error.
    Refusal,
    /// A statement of one closure failed, or the closure panicked.
    Own(String),
    /// The machine or the database server failed: a full disk, a lost connection.
    Engine(String),
}

impl RollbackReason {
    pub(crate) fn of(error: &Error) -> RollbackReason {
        if error.is_temporary() {
            RollbackReason::Engine(error.to_string())
        } else {
            RollbackReason::Own(error.to_string())
        }
    }
}

impl std::fmt::Display for RollbackReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RollbackReason::Refusal => "a write returned an error after it had changed rows",
            RollbackReason::Own(why) | RollbackReason::Engine(why) => why,
        })
    }
}

/// A write with its types erased.
trait Work: Send {
    fn run(&mut self, tx: &mut Tx<'_>) -> Outcome;
    fn fail(&mut self, error: Error);
    fn answer(self: Box<Self>);
}

struct Write<T, E, F> {
    write: F,
    outcome: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Work for Write<T, E, F>
where
    T: Send + 'static,
    E: WriteError,
    F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> Outcome {
        let ran = catch_unwind(AssertUnwindSafe(|| (self.write)(tx)));
        let (done, outcome) = match ran {
            Ok(Ok(done)) => (Ok(done), Outcome::Done),
            Ok(Err(error)) => {
                let outcome = match error.storage() {
                    Some(e) if e.is_failed_statement() => Outcome::Broken(RollbackReason::of(e)),
                    Some(_) | None => Outcome::Refused,
                };
                (Err(error), outcome)
            }
            Err(panic) => {
                let text = panic_text(&*panic);
                tracing::error!(
                    panic = text,
                    "a write panicked; only this write is rolled back"
                );
                let error = E::from(Error::Panicked(text.clone()));
                (Err(error), Outcome::Broken(RollbackReason::Own(text)))
            }
        };
        self.outcome = Some(done);
        outcome
    }

    fn fail(&mut self, error: Error) {
        self.outcome = Some(Err(E::from(error)));
    }

    fn answer(self: Box<Self>) {
        let Write {
            write,
            outcome,
            reply,
        } = *self;
        // What the closure captured is dropped before the caller receives the answer.
        drop(write);
        if let Some(outcome) = outcome {
            // If the caller no longer waits, the write is valid all the same.
            let _ = reply.send(outcome);
        }
    }
}

/// The time at which a write runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// In the next transaction, in the order of the queue.
    Next,
    /// In a transaction of its own, after everything queued before it.
    Alone,
    /// In the next transaction that other writes start, in the order of the queue, or after a short time without one.
    WithNext,
    /// At the end of the next transaction that other writes start, or after a short time without one.
    Later,
}

/// Called when a write is committed, before it is answered, with what it did.
pub type Report = Box<dyn FnOnce(Done) + Send>;

/// A write in the queue.
pub(crate) struct Job {
    work: Box<dyn Work>,
    /// The report of this write and what its last run did, if writes are recorded.
    report: Option<(Report, Done)>,
    /// The value of the task that queued it.
    context: Option<Companion>,
    pub(crate) turn: Turn,
}

/// An order in the writer's queue.
pub(crate) enum Order {
    /// Run a write.
    Write(Job),
    /// Run now what waits for other writes.
    Hurry,
    /// Run everything that is queued, then end.
    Close,
}

impl Job {
    /// A job and the receiver of its answer.
    pub(crate) fn new<T, E, F>(
        write: F,
        turn: Turn,
        report: Option<Report>,
        context: Option<Companion>,
    ) -> (Job, oneshot::Receiver<Result<T, E>>)
    where
        T: Send + 'static,
        E: WriteError,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let work = Box::new(Write {
            write,
            outcome: None,
            reply,
        });
        let report = report.map(|report| (report, Done::default()));
        let job = Job {
            work,
            report,
            context,
            turn,
        };
        (job, answer)
    }

    /// Runs the closure. It can run again; the last run determines the answer.
    pub(crate) fn run(&mut self, tx: &mut Tx<'_>) -> Outcome {
        tx.conn.record(self.report.is_some());
        tx.context.clone_from(&self.context);
        let outcome = self.work.run(tx);
        if let (Some((_, done)), Some(recorded)) = (&mut self.report, tx.conn.take_done()) {
            *done = recorded;
            done.head = tx.head().0;
        }
        if !matches!(outcome, Outcome::Done) {
            self.did_nothing();
        }
        outcome
    }

    fn did_nothing(&mut self) {
        if let Some((_, done)) = &mut self.report {
            *done = Done::default();
        }
    }

    /// Replaces the answer of the last run by this error.
    pub(crate) fn fail(&mut self, error: Error) {
        self.did_nothing();
        self.work.fail(error);
    }

    /// Sends the answer of the last run. Must be called after its transaction has ended.
    pub(crate) fn answer(self) {
        if let Some((report, done)) = self.report {
            report(done);
        }
        self.work.answer();
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
