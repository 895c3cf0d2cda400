//! The group-commit thread: it takes all that is waiting, runs each closure in a savepoint of its own
//! inside one transaction, commits once, and only then answers. One fsync serves many messages.

use std::any::Any;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use diesel::prelude::*;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::error::{Error, Result, WriteError};
use crate::interests::Interests;
use crate::tables::counter;
use crate::{Conn, Position};

/// The most closures in one commit. More would make the first of them wait for the last.
const BATCH: usize = 512;

/// What a write closure works with: the connection (it dereferences to [`Conn`]), the counter, and the compiled namespaces.
///
/// Closures open no transactions: they already run in a savepoint.
pub struct Tx<'a> {
    conn: &'a mut Conn,
    position: &'a mut i64,
    interests: &'a mut Arc<Interests>,
}

impl Tx<'_> {
    /// The next position. Every durable fact takes one of its own.
    pub fn next_position(&mut self) -> Position {
        *self.position += 1;
        Position(*self.position)
    }

    /// The last position handed out.
    #[must_use]
    pub fn head(&self) -> Position {
        Position(*self.position)
    }

    /// Who is interested in whom, as of this place in the order of writes.
    #[must_use]
    pub fn interests(&self) -> Arc<Interests> {
        Arc::clone(self.interests)
    }

    /// From the next write on, these are the interests. Only in a closure given to `Store::write_alone`:
    /// the swap happens if and when the commit does.
    pub fn swap_interests(&mut self, new: impl Into<Arc<Interests>>) {
        *self.interests = new.into();
    }
}

impl Deref for Tx<'_> {
    type Target = Conn;
    fn deref(&self) -> &Conn {
        self.conn
    }
}

impl DerefMut for Tx<'_> {
    fn deref_mut(&mut self) -> &mut Conn {
        self.conn
    }
}

/// How a batch ended, for those who wait for it.
pub(crate) enum Settled<'a> {
    Committed,
    RolledBack(&'a str),
}

enum Verdict {
    Keep,
    /// The closure said no, or panicked, or broke a constraint: its savepoint goes, the batch stays.
    Drop,
    /// The database failed: the whole batch goes.
    Broken(String),
}

type Answer = Box<dyn FnOnce(Settled<'_>) + Send>;

type Run = Box<dyn FnOnce(&mut Tx<'_>) -> (Verdict, Answer) + Send>;

/// One closure in the queue.
pub(crate) struct Job {
    run: Run,
    alone: bool,
}

/// A job and the future of its answer.
pub(crate) fn job<T, E, F>(
    write: F,
    alone: bool,
) -> (Job, tokio::sync::oneshot::Receiver<Result<T, E>>)
where
    T: Send + 'static,
    E: WriteError,
    F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
{
    let (reply, answer) = tokio::sync::oneshot::channel();
    let run = Box::new(move |tx: &mut Tx<'_>| -> (Verdict, Answer) {
        let outcome = catch_unwind(AssertUnwindSafe(|| write(tx))).unwrap_or_else(|panic| {
            let text = panic_text(&*panic);
            tracing::error!(panic = text, "a write panicked; it was rolled back, alone");
            Err(E::from(Error::Panicked(text)))
        });
        let verdict = match &outcome {
            Ok(_) => Verdict::Keep,
            Err(error) => match error.storage() {
                Some(e @ Error::Database(_)) if !e.is_constraint() => {
                    Verdict::Broken(e.to_string())
                }
                _ => Verdict::Drop,
            },
        };
        let settle: Answer = Box::new(move |settled| {
            let outcome = match settled {
                Settled::Committed => outcome,
                Settled::RolledBack(why) => Err(E::from(Error::RolledBack(why.to_owned()))),
            };
            // Nobody waits any more: the write stands all the same.
            let _ = reply.send(outcome);
        });
        (verdict, settle)
    });
    (Job { run, alone }, answer)
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// What the writer shares with the store.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) waiting: Arc<AtomicUsize>,
    pub(crate) interests: Arc<RwLock<Arc<Interests>>>,
    pub(crate) head: Arc<std::sync::atomic::AtomicI64>,
}

/// The thread. Returns when the queue is closed and empty, or with the error after which nothing can be promised any more.
pub(crate) fn run(
    mut conn: Conn,
    mut queue: UnboundedReceiver<Option<Job>>,
    shared: &Shared,
) -> Result<(), String> {
    let mut taken = Vec::with_capacity(BATCH);
    loop {
        if queue.blocking_recv_many(&mut taken, BATCH) == 0 {
            return Ok(());
        }
        let mut jobs = taken.drain(..).peekable();
        while jobs.peek().is_some() {
            let mut batch: Vec<Job> = Vec::new();
            let fits = |job: &Option<Job>, batch: &Vec<Job>| {
                job.as_ref().is_some_and(|j| !j.alone || batch.is_empty())
            };
            while let Some(Some(job)) = jobs.next_if(|job| fits(job, &batch)) {
                let alone = job.alone;
                batch.push(job);
                if alone {
                    break;
                }
            }
            if batch.is_empty() {
                // The store is being closed; what was queued before it is done.
                return Ok(());
            }
            commit(&mut conn, batch, shared)?;
        }
    }
}

/// Run one batch in one transaction and answer everybody in it.
fn commit(conn: &mut Conn, batch: Vec<Job>, shared: &Shared) -> Result<(), String> {
    let count = batch.len();
    let mut answers = Vec::with_capacity(count);
    let mut interests = shared.interests.read().map_err(|e| e.to_string())?.clone();
    let before = Arc::clone(&interests);

    let mut failed = None;
    match begin(conn) {
        Ok(start) => {
            let mut position = start;
            for job in batch {
                if failed.is_some() {
                    // Its closure never runs; dropping it tells its caller.
                    continue;
                }
                match run_one(conn, job, &mut position, &mut interests) {
                    Ok((answer, broken)) => {
                        answers.push(answer);
                        failed = broken;
                    }
                    Err(lost) => failed = Some(lost),
                }
            }
            if failed.is_none() && position != start {
                failed = store_position(conn, position).err().map(|e| e.to_string());
            }
            if failed.is_none() {
                if let Err(error) = conn.execute("COMMIT") {
                    // Whether it is on the disk is unknown: promising either way would be a lie.
                    return Err(format!("the outcome of a commit is unknown: {error}"));
                }
                shared.head.store(position, Ordering::Release);
            } else {
                // When even this fails the connection is gone, and the next BEGIN says so.
                let _ = conn.execute("ROLLBACK");
            }
        }
        // Nothing was begun, so nothing is in doubt; but a server's connection that is gone does not come back.
        Err(error) if conn.is_postgres() => {
            return Err(format!("the connection to the database is lost: {error}"));
        }
        Err(error) => failed = Some(error.to_string()),
    }
    if failed.is_none() && !Arc::ptr_eq(&before, &interests) {
        *shared.interests.write().map_err(|e| e.to_string())? = interests;
    }
    shared.waiting.fetch_sub(count, Ordering::AcqRel);
    if let Some(why) = &failed {
        tracing::error!(
            why,
            writes = count,
            "a batch was rolled back; its callers are told to try again"
        );
    }
    for answer in answers {
        answer(
            failed
                .as_deref()
                .map_or(Settled::Committed, Settled::RolledBack),
        );
    }
    Ok(())
}

/// Begin, lock the counter, read it.
fn begin(conn: &mut Conn) -> QueryResult<i64> {
    match conn {
        // IMMEDIATE: the right to write is taken before anything is read.
        Conn::Sqlite(_) => conn.execute("BEGIN IMMEDIATE")?,
        Conn::Postgres(_) => conn.execute("BEGIN ISOLATION LEVEL READ COMMITTED")?,
    }
    let position = match conn {
        Conn::Sqlite(c) => counter::table.find(1).select(counter::position).first(c),
        Conn::Postgres(c) => counter::table
            .find(1)
            .select(counter::position)
            .for_update()
            .first(c),
    };
    if position.is_err() {
        let _ = conn.execute("ROLLBACK");
    }
    position
}

fn store_position(conn: &mut Conn, position: i64) -> QueryResult<usize> {
    on!(conn, |c| diesel::update(counter::table.find(1))
        .set(counter::position.eq(position))
        .execute(c))
}

/// One closure in its savepoint. `Err` when the transaction itself is gone: a savepoint that cannot be
/// released or rolled back to is how an engine's own roll-back shows.
fn run_one(
    conn: &mut Conn,
    job: Job,
    position: &mut i64,
    interests: &mut Arc<Interests>,
) -> Result<(Answer, Option<String>), String> {
    conn.execute("SAVEPOINT job").map_err(|e| e.to_string())?;
    let kept = Arc::clone(interests);
    let (verdict, answer) = (job.run)(&mut Tx {
        conn,
        position,
        interests,
    });
    let released = match &verdict {
        Verdict::Keep => conn.execute("RELEASE SAVEPOINT job"),
        Verdict::Drop => {
            *interests = kept;
            conn.execute("ROLLBACK TO SAVEPOINT job; RELEASE SAVEPOINT job")
        }
        Verdict::Broken(why) => return Ok((answer, Some(why.clone()))),
    };
    Ok((
        answer,
        released
            .err()
            .map(|e| format!("the transaction was lost: {e}")),
    ))
}
