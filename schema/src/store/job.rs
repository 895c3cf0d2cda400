//! One write in the writer's queue: a closure that can run more than once, and the answer of its last run.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::oneshot;

use crate::Tx;
use crate::error::{Error, Result, WriteError};
use crate::store::conn::Rows;

/// How a write ended.
pub(crate) enum Outcome {
    Done,
    /// The closure refused. If it changed nothing before, the transaction goes on without it.
    Refused,
    /// A statement failed, or the closure panicked: the transaction cannot go on.
    Broken(Trouble),
}

/// Why a transaction was rolled back.
pub(crate) enum Trouble {
    /// A closure refused after it had changed rows: its caller is told.
    Refusal,
    /// A statement of one closure, or a panic.
    Own(String),
    /// The engine: no room, no connection.
    Engine(String),
}

impl Trouble {
    pub(crate) fn of(error: &Error) -> Trouble {
        if error.is_temporary() {
            Trouble::Engine(error.to_string())
        } else {
            Trouble::Own(error.to_string())
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Trouble::Refusal => "a write refused after it had changed rows",
            Trouble::Own(why) | Trouble::Engine(why) => why,
        })
    }
}

/// A write whose types are hidden.
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
                    Some(e) if e.is_failed_statement() => Outcome::Broken(Trouble::of(e)),
                    Some(_) | None => Outcome::Refused,
                };
                (Err(error), outcome)
            }
            Err(panic) => {
                let text = panic_text(&*panic);
                tracing::error!(panic = text, "a write panicked; it is rolled back, alone");
                let error = E::from(Error::Panicked(text.clone()));
                (Err(error), Outcome::Broken(Trouble::Own(text)))
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
        // Whatever it captured is free again when the answer comes.
        drop(write);
        if let Some(outcome) = outcome {
            // If no receiver waits any more, the write stands all the same.
            let _ = reply.send(outcome);
        }
    }
}

/// When a write runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// In the next transaction, in the order of the queue.
    Next,
    /// In a transaction of its own, after everything queued before it.
    Alone,
    /// In the next transaction that other writes cause, in the order of the queue, or after a short time without one.
    WithNext,
    /// At the end of the next transaction that other writes cause, or after a short time without one.
    Later,
}

/// Called when a write is committed, before it is answered, with the rows that it added and removed.
pub type Report = Box<dyn FnOnce(Rows) + Send>;

/// One write in the queue.
pub(crate) struct Job {
    work: Box<dyn Work>,
    /// Where it is recorded what this write did, and what it did when it ran last.
    report: Option<(Report, Rows)>,
    pub(crate) turn: Turn,
}

/// What the writer's queue holds.
pub(crate) enum Order {
    /// Run this.
    Write(Job),
    /// Run now what would wait for other writes.
    Hurry,
    /// Finish, and end.
    Close,
}

impl Job {
    /// A job and the future of its answer.
    pub(crate) fn new<T, E, F>(
        write: F,
        turn: Turn,
        report: Option<Report>,
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
        let report = report.map(|report| (report, Rows::new()));
        let job = Job { work, report, turn };
        (job, answer)
    }

    /// Run it, again if need be: the last run is answered.
    pub(crate) fn run(&mut self, tx: &mut Tx<'_>) -> Outcome {
        tx.conn.count_rows(self.report.is_some());
        let outcome = self.work.run(tx);
        if let (Some((_, rows)), Some(counted)) = (&mut self.report, tx.conn.take_rows()) {
            *rows = counted;
        }
        if !matches!(outcome, Outcome::Done) {
            self.did_nothing();
        }
        outcome
    }

    fn did_nothing(&mut self) {
        if let Some((_, rows)) = &mut self.report {
            rows.clear();
        }
    }

    /// Answer this error instead of what it answered when it ran.
    pub(crate) fn fail(&mut self, error: Error) {
        self.did_nothing();
        self.work.fail(error);
    }

    /// Send the answer of its last run. Only after its transaction has ended.
    pub(crate) fn answer(self) {
        if let Some((report, rows)) = self.report {
            report(rows);
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
