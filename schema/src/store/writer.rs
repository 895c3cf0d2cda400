//! The group-commit thread: it takes all waiting writes, runs them one after the other in one transaction, commits once, and
//! then answers them. One fsync serves many writes.
//!
//! There are no savepoints. A write that returns an error usually does so before it changes rows, and the transaction continues
//! without it. If it fails later, or a statement fails, the transaction is rolled back and run again in smaller parts, so that
//! only the write that caused it fails.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use diesel::prelude::*;

use crate::Conn;
use crate::error::Error;
use crate::store::conn::Engine;
use crate::store::faults::{Fault, Point};
use crate::store::job::{Job, Order, Outcome, RollbackReason, Turn};
use crate::store::kept::Keep as _;
use crate::store::shared::Shared;
use crate::store::tx::{Batch, Tx};
use crate::tables::counter;

/// The most writes in a commit. With more, the first of them would wait too long for the last.
const BATCH: usize = 512;

/// How long a write that can wait waits for others to share their commit: longer than a client takes to send its next request,
/// and too short to be noticed.
const SHARING_DELAY: Duration = Duration::from_millis(2);

/// The reason why the writer stops.
pub(crate) enum Stop {
    /// The store was closed.
    Closed,
    /// A fault ended the storage: see [`Fault::End`].
    Ended,
    /// The storage cannot continue.
    Fatal(String),
}

/// The result of an attempt to commit some writes.
enum Attempt {
    Committed,
    /// Nothing was kept. Contains the number of the write that failed; `None` if the transaction itself failed.
    RolledBack(Option<usize>, RollbackReason),
}

/// Writes that are attempted in one transaction.
struct Part {
    jobs: Vec<Job>,
    /// Whether these writes were rolled back before because of another write.
    again: bool,
}

/// The writer thread.
pub(crate) struct Writer {
    conn: Conn,
    shared: Shared,
    /// The writes that wait to share the transaction of other writes. In it, `before` run first and `after` run last.
    before: Vec<Job>,
    after: Vec<Job>,
    /// When the first of the waiting writes began to wait.
    waiting_since: Option<Instant>,
}

impl Writer {
    pub(crate) fn new(conn: Conn, shared: Shared) -> Writer {
        Writer {
            conn,
            shared,
            before: Vec::new(),
            after: Vec::new(),
            waiting_since: None,
        }
    }

    /// Serves the queue until it is closed and empty, or the storage cannot continue.
    pub(crate) fn run(mut self, queue: &Receiver<Order>) -> Stop {
        let mut taken = Vec::with_capacity(BATCH);
        loop {
            let orders = match self.wait(queue) {
                Ok(order) => {
                    taken.push(order);
                    taken.extend(queue.try_iter().take(BATCH - 1));
                    taken.drain(..)
                }
                Err(RecvTimeoutError::Timeout) => {
                    taken.push(Order::Hurry);
                    taken.drain(..)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    taken.push(Order::Close);
                    taken.drain(..)
                }
            };
            if let Err(stop) = self.serve(orders) {
                // Unanswered jobs are dropped here. If a fault ended the storage, their callers wait without end.
                return stop;
            }
        }
    }

    /// The next order, or the end of the time for which a write waits for others.
    fn wait(&mut self, queue: &Receiver<Order>) -> Result<Order, RecvTimeoutError> {
        if self.before.is_empty() && self.after.is_empty() {
            self.waiting_since = None;
            return queue.recv().map_err(|_| RecvTimeoutError::Disconnected);
        }
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        queue.recv_timeout(SHARING_DELAY.saturating_sub(since.elapsed()))
    }

    /// Commits the writes that were taken from the queue.
    fn serve(&mut self, orders: impl Iterator<Item = Order>) -> Result<(), Stop> {
        let (mut batch, mut hurry) = (Vec::new(), false);
        for order in orders {
            match order {
                Order::Write(job) => match job.turn {
                    Turn::Next => batch.push(job),
                    Turn::WithNext if batch.is_empty() => self.before.push(job),
                    Turn::WithNext => batch.push(job),
                    Turn::Later => self.after.push(job),
                    Turn::Alone => {
                        self.commit_with_waiting(std::mem::take(&mut batch))?;
                        self.commit(vec![job])?;
                    }
                },
                Order::Hurry => hurry = true,
                Order::Close => {
                    self.commit_with_waiting(batch)?;
                    return Err(self.closed());
                }
            }
        }
        if hurry || !batch.is_empty() {
            self.commit_with_waiting(batch)?;
        }
        Ok(())
    }

    /// The reason to stop at the end of the queue.
    fn closed(&self) -> Stop {
        match self.shared.has_ended() {
            true => Stop::Ended,
            false => Stop::Closed,
        }
    }

    /// Commits these writes together with those that waited for others.
    fn commit_with_waiting(&mut self, mut batch: Vec<Job>) -> Result<(), Stop> {
        let mut jobs = std::mem::take(&mut self.before);
        jobs.append(&mut batch);
        jobs.append(&mut self.after);
        if jobs.is_empty() {
            return Ok(());
        }
        self.commit(jobs)
    }

    /// Commits these writes in their order and answers each after the commit that contains it. Each has its own result.
    fn commit(&mut self, jobs: Vec<Job>) -> Result<(), Stop> {
        if self.shared.has_ended() {
            return Err(Stop::Ended);
        }
        let mut parts = VecDeque::from([Part { jobs, again: false }]);
        while let Some(mut part) = parts.pop_front() {
            match self.attempt(&mut part.jobs)? {
                Attempt::Committed => self.answer(part.jobs),
                Attempt::RolledBack(culprit, why) if part.jobs.len() > 1 => {
                    let writes = part.jobs.len();
                    tracing::debug!(%why, writes, "a batch was rolled back; it runs again in smaller parts");
                    for smaller in split(part, culprit).into_iter().rev() {
                        parts.push_front(smaller);
                    }
                }
                Attempt::RolledBack(culprit, why) => {
                    self.report(&why);
                    if culprit.is_none() {
                        let why = why.to_string();
                        for job in &mut part.jobs {
                            job.fail(Error::RolledBack(why.clone()));
                        }
                    }
                    self.answer(part.jobs);
                }
            }
        }
        Ok(())
    }

    /// Logs why a write was rolled back, and the beginning of a state in which nothing can be committed. An error of the closure is returned to its caller, so it is not an error here; a failure
    /// of the engine affects every write, so it is logged once.
    fn report(&mut self, why: &RollbackReason) {
        match why {
            RollbackReason::Own(why) => tracing::error!(why, "a single write was rolled back"),
            RollbackReason::Engine(why) if !self.shared.failing.swap(true, Ordering::AcqRel) => {
                tracing::error!(
                    why,
                    "the database cannot commit; writes are refused until it can again"
                );
            }
            RollbackReason::Engine(_) | RollbackReason::Refusal => {
                tracing::debug!(%why, "a single write was rolled back");
            }
        }
    }

    fn answer(&self, jobs: Vec<Job>) {
        self.shared.waiting.fetch_sub(jobs.len(), Ordering::AcqRel);
        jobs.into_iter().for_each(Job::answer);
    }

    /// Runs these writes in one transaction and commits it.
    fn attempt(&mut self, jobs: &mut [Job]) -> Result<Attempt, Stop> {
        let started = Instant::now();
        let start = match self.begin()? {
            Ok(position) => position,
            Err(why) => return Ok(Attempt::RolledBack(None, RollbackReason::of(&why.into()))),
        };
        let mut batch = Batch::new(
            start,
            self.shared.companion(),
            self.shared.attached.get().cloned(),
        );
        let clean = batch.mark();
        for (number, job) in jobs.iter_mut().enumerate() {
            let outcome = self.run_one(job, &mut batch)?;
            let failed = batch
                .failed
                .take()
                .map(|error| (None, RollbackReason::of(&error)));
            if let Some((culprit, why)) = failed.or(outcome.err().map(|why| (Some(number), why))) {
                batch.return_to(clean);
                self.roll_back()?;
                return Ok(Attempt::RolledBack(culprit, why));
            }
        }
        batch.catch_up(&mut self.conn);
        if let Some(error) = batch.failed.take() {
            batch.return_to(clean);
            self.roll_back()?;
            return Ok(Attempt::RolledBack(None, RollbackReason::of(&error)));
        }
        if let Err(why) = self.end(start, &batch)? {
            batch.return_to(clean);
            return Ok(Attempt::RolledBack(None, RollbackReason::of(&why.into())));
        }
        self.shared.committed(&batch);
        for then in batch.take_after_commit() {
            then();
        }
        if batch.wrote {
            if self.shared.failing.swap(false, Ordering::AcqRel) {
                tracing::info!("writes are committed again");
            }
            if let Some(listener) = self.shared.batch_listener.get() {
                listener(jobs.len(), started.elapsed());
            }
        }
        // The transaction is committed, whatever fails from here on.
        let _ = self.fault(Point::AfterCommit)?;
        Ok(Attempt::Committed)
    }

    /// Runs a write. Returns the reason if the transaction cannot continue after it.
    fn run_one(
        &mut self,
        job: &mut Job,
        batch: &mut Batch,
    ) -> Result<Result<(), RollbackReason>, Stop> {
        let (before, caught_up) = (batch.mark(), batch.caught_up);
        let changed = cfg!(debug_assertions).then(|| self.conn.rows_changed());
        let outcome = job.run(&mut Tx {
            start: batch.position,
            context: None,
            conn: &mut self.conn,
            batch,
        });
        let wrote = self.conn.take_wrote();
        batch.wrote |= wrote;
        if let Some(changed) = changed
            && !wrote
            && caught_up == batch.caught_up
        {
            let now = self.conn.rows_changed();
            debug_assert_eq!(changed, now, "rows were changed without `change!`");
        }
        if let Err(error) = self.fault(Point::Job)? {
            let error = Error::Database(error);
            let why = RollbackReason::of(&error);
            job.fail(error);
            return Ok(Err(why));
        }
        Ok(match outcome {
            Outcome::Done => Ok(()),
            Outcome::Refused if !wrote => {
                batch.return_to(before);
                Ok(())
            }
            Outcome::Refused => Err(RollbackReason::Refusal),
            Outcome::Broken(why) => Err(why),
        })
    }

    /// Begins a transaction, locks the counter and reads it.
    fn begin(&mut self) -> Result<QueryResult<i64>, Stop> {
        let begun = match self.fault(Point::Begin)? {
            Ok(()) => begin(&mut self.conn),
            Err(error) => Err(error),
        };
        if begun.is_err() {
            self.roll_back()?;
        }
        Ok(begun)
    }

    /// Stores the counter and commits. If this returns an error, it is certain that nothing was kept.
    fn end(&mut self, start: i64, batch: &Batch) -> Result<QueryResult<()>, Stop> {
        if !batch.wrote && batch.position == start {
            // Nothing changed, so no fsync is needed.
            self.roll_back()?;
            return Ok(Ok(()));
        }
        // Stores the counter even if it has not moved. If a closure ignored the error of a failed statement, PostgreSQL answers
        // COMMIT with success although it rolled back; any other statement fails in this state.
        let stored = match self.fault(Point::BeforeCommit)? {
            Ok(()) => store_position(&mut self.conn, batch.position),
            Err(error) => Err(error),
        };
        if let Err(error) = stored {
            self.roll_back()?;
            return Ok(Err(error));
        }
        let Err(error) = self.conn.execute("COMMIT") else {
            return Ok(Ok(()));
        };
        if is_undone(&mut self.conn, start) {
            return Ok(Err(error));
        }
        // It is unknown whether the transaction is on the disk, so the writes can be answered neither with success nor with an
        // error.
        Err(Stop::Fatal(format!(
            "the outcome of a commit is unknown: {error}"
        )))
    }

    /// Rolls the transaction back. If PostgreSQL cannot do even that, the connection is lost, and with it the lock on the database.
    fn roll_back(&mut self) -> Result<(), Stop> {
        match self.conn.execute("ROLLBACK") {
            Err(error) if self.conn.is_postgres() => Err(Stop::Fatal(format!(
                "the connection to the database is lost: {error}"
            ))),
            // SQLite may have rolled back by itself.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The error of the fault that is injected at this point.
    fn fault(&mut self, point: Point) -> Result<QueryResult<()>, Stop> {
        let fault = self.shared.faults.at(point);
        match fault {
            Fault::End => self.shared.end(),
            Fault::Lost => self.conn.lose(),
            Fault::None | Fault::Refuse | Fault::Full => {}
        }
        // A reader may have ended the storage too.
        if self.shared.has_ended() {
            return Err(Stop::Ended);
        }
        Ok(fault.error().map_or(Ok(()), Err))
    }
}

/// Splits writes that were rolled back together into the parts in which they run again. The writes before the culprit are known
/// to succeed, and those after it have not run yet. If such a part fails again, or the transaction itself failed, each write
/// runs alone.
fn split(part: Part, culprit: Option<usize>) -> Vec<Part> {
    let Part { mut jobs, again } = part;
    let parts: Vec<Part> = match culprit {
        Some(number) if !again => {
            let after = jobs.split_off(number + 1);
            let culprit = jobs.split_off(number);
            let together = |jobs, again| Part { jobs, again };
            vec![
                together(jobs, true),
                together(culprit, true),
                together(after, false),
            ]
        }
        _ => jobs
            .into_iter()
            .map(|job| Part {
                jobs: vec![job],
                again: true,
            })
            .collect(),
    };
    parts.into_iter().filter(|p| !p.jobs.is_empty()).collect()
}

fn begin(conn: &mut Conn) -> QueryResult<i64> {
    match conn.engine {
        // IMMEDIATE: takes the lock for writing before anything is read.
        Engine::Sqlite(_) => conn.execute("BEGIN IMMEDIATE")?,
        Engine::Postgres(_) => conn.execute("BEGIN ISOLATION LEVEL READ COMMITTED")?,
    }
    match &mut conn.engine {
        Engine::Sqlite(c) => counter::table.find(1).select(counter::position).first(c),
        Engine::Postgres(c) => counter::table
            .find(1)
            .select(counter::position)
            .for_update()
            .first(c),
    }
}

pub(super) fn store_position(conn: &mut Conn, position: i64) -> QueryResult<usize> {
    let stored = on!(conn, |c| diesel::update(counter::table.find(1))
        .set(counter::position.eq(position))
        .kept()
        .execute(c));
    conn.take_wrote();
    stored
}

/// Whether it is certain that a transaction whose COMMIT failed was rolled back.
///
/// PostgreSQL: a session that still answers has rolled back what it could not commit. SQLite rolls back by itself what it could
/// not write; the unchanged counter shows that it did.
fn is_undone(conn: &mut Conn, start: i64) -> bool {
    let rolled_back = conn.execute("ROLLBACK").is_ok();
    match &mut conn.engine {
        Engine::Postgres(_) => rolled_back,
        Engine::Sqlite(c) => {
            let position = counter::table.find(1).select(counter::position);
            position.first(c) == Ok(start)
        }
    }
}
