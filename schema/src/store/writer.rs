//! The group-commit thread: it takes all writes that wait, runs them one after the other in one transaction, commits once, and
//! only then answers. One fsync serves many messages.
//!
//! There are no savepoints. A write that refuses does so before it changes rows, and the transaction goes on without it. When a write
//! fails later, or a statement fails, the transaction is rolled back and run again in smaller parts, so that only the write
//! fails that is the cause.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use diesel::prelude::*;

use crate::Conn;
use crate::error::Error;
use crate::store::conn::Engine;
use crate::store::faults::{Fault, Point};
use crate::store::job::{Job, Order, Outcome, Trouble, Turn};
use crate::store::shared::Shared;
use crate::store::tx::{Batch, Tx};
use crate::tables::counter;

/// The most closures in one commit. More would make the first of them wait for the last.
const BATCH: usize = 512;

/// How long a write that can wait waits for others to share their commit: longer than a client takes to send its next request, and
/// shorter than anybody notices.
const COMPANY: Duration = Duration::from_millis(2);

/// Why the writer stops.
pub(crate) enum Stop {
    /// The store was closed.
    Closed,
    /// A test ended the storage: see [`Fault::End`].
    Ended,
    /// Nothing can be promised any more.
    Fatal(String),
}

/// How an attempt to commit some writes ended.
enum Attempt {
    Committed,
    /// Nothing of it was kept. The number of the write that failed, unless it was the transaction itself.
    RolledBack(Option<usize>, Trouble),
}

/// Writes that are attempted together.
struct Part {
    jobs: Vec<Job>,
    /// Whether they were rolled back before, and not because of themselves.
    again: bool,
}

/// The writer's thread.
pub(crate) struct Writer {
    conn: Conn,
    shared: Shared,
    /// Whether the last transaction failed for a reason of the engine: that is logged when it begins and when it ends.
    failing: bool,
    /// The writes that wait for others: those that run before them, and those that run after them.
    before: Vec<Job>,
    after: Vec<Job>,
    /// Since when the first of them waits.
    waiting_since: Option<Instant>,
}

impl Writer {
    pub(crate) fn new(conn: Conn, shared: Shared) -> Writer {
        Writer {
            conn,
            shared,
            failing: false,
            before: Vec::new(),
            after: Vec::new(),
            waiting_since: None,
        }
    }

    /// Serve the queue until it is closed and empty, or nothing can be promised any more.
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
                // Unanswered jobs are dropped here; when the storage was ended, their callers wait for ever.
                return stop;
            }
        }
    }

    /// The next order, or the end of the time that a write waits for others.
    fn wait(&mut self, queue: &Receiver<Order>) -> Result<Order, RecvTimeoutError> {
        if self.before.is_empty() && self.after.is_empty() {
            self.waiting_since = None;
            return queue.recv().map_err(|_| RecvTimeoutError::Disconnected);
        }
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        queue.recv_timeout(COMPANY.saturating_sub(since.elapsed()))
    }

    /// Commit what was taken from the queue.
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

    /// Why the queue is at its end.
    fn closed(&self) -> Stop {
        match self.shared.has_ended() {
            true => Stop::Ended,
            false => Stop::Closed,
        }
    }

    /// Commit these writes, and with them those that waited for others.
    fn commit_with_waiting(&mut self, mut batch: Vec<Job>) -> Result<(), Stop> {
        let mut jobs = std::mem::take(&mut self.before);
        jobs.append(&mut batch);
        jobs.append(&mut self.after);
        if jobs.is_empty() {
            return Ok(());
        }
        self.commit(jobs)
    }

    /// Commit these writes, in their order, each with its own outcome; answer each after the commit that it is part of.
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

    /// Log why a write was rolled back: a refusal is its caller's to know, and a disk that is full is full for every write.
    fn report(&mut self, why: &Trouble) {
        match why {
            Trouble::Own(why) => tracing::error!(why, "a write was rolled back, alone"),
            Trouble::Engine(why) if !self.failing => {
                self.failing = true;
                tracing::error!(
                    why,
                    "writes cannot be committed; they are refused until they can"
                );
            }
            Trouble::Engine(_) | Trouble::Refusal => {
                tracing::debug!(%why, "a write was rolled back, alone");
            }
        }
    }

    fn answer(&self, jobs: Vec<Job>) {
        self.shared.waiting.fetch_sub(jobs.len(), Ordering::AcqRel);
        jobs.into_iter().for_each(Job::answer);
    }

    /// Run these writes in one transaction and commit it.
    fn attempt(&mut self, jobs: &mut [Job]) -> Result<Attempt, Stop> {
        let start = match self.begin()? {
            Ok(position) => position,
            Err(why) => return Ok(Attempt::RolledBack(None, Trouble::of(&why.into()))),
        };
        let mut batch = Batch::new(start, self.shared.companion());
        let clean = batch.mark();
        for (number, job) in jobs.iter_mut().enumerate() {
            let outcome = self.run_one(job, &mut batch)?;
            let failed = batch.failed.take().map(|error| (None, Trouble::of(&error)));
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
            return Ok(Attempt::RolledBack(None, Trouble::of(&error)));
        }
        if let Err(why) = self.end(start, &batch)? {
            batch.return_to(clean);
            return Ok(Attempt::RolledBack(None, Trouble::of(&why.into())));
        }
        self.shared.committed(&batch);
        if batch.wrote && std::mem::take(&mut self.failing) {
            tracing::info!("writes are committed again");
        }
        // It is committed, whatever fails from here on.
        let _ = self.fault(Point::AfterCommit)?;
        Ok(Attempt::Committed)
    }

    /// One write. The error after which its transaction cannot go on, if there is one.
    fn run_one(&mut self, job: &mut Job, batch: &mut Batch) -> Result<Result<(), Trouble>, Stop> {
        let (before, caught_up) = (batch.mark(), batch.caught_up);
        let changed = cfg!(debug_assertions).then(|| self.conn.rows_changed());
        let outcome = job.run(&mut Tx {
            start: batch.position,
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
            let why = Trouble::of(&error);
            job.fail(error);
            return Ok(Err(why));
        }
        Ok(match outcome {
            Outcome::Done => Ok(()),
            Outcome::Refused if !wrote => {
                batch.return_to(before);
                Ok(())
            }
            Outcome::Refused => Err(Trouble::Refusal),
            Outcome::Broken(why) => Err(why),
        })
    }

    /// Begin, lock the counter, read it.
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

    /// Store the counter and commit. When that fails, nothing of the transaction is kept, and that is certain.
    fn end(&mut self, start: i64, batch: &Batch) -> Result<QueryResult<()>, Stop> {
        if !batch.wrote && batch.position == start {
            // Nothing to keep: no fsync.
            self.roll_back()?;
            return Ok(Ok(()));
        }
        // Also when the counter has not moved: PostgreSQL answers COMMIT with success when a failed statement, whose error a closure
        // passed over, has undone the transaction. Any other statement fails then.
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
        // Whether it is on the disk is unknown: promising either way would be a lie.
        Err(Stop::Fatal(format!(
            "the outcome of a commit is unknown: {error}"
        )))
    }

    /// Undo the transaction. A connection to a server that cannot even do that is gone, and the server's lock on the database with it.
    fn roll_back(&mut self) -> Result<(), Stop> {
        match self.conn.execute("ROLLBACK") {
            Err(error) if self.conn.is_postgres() => Err(Stop::Fatal(format!(
                "the connection to the database is lost: {error}"
            ))),
            // SQLite may have rolled back by itself.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The injected fault of this point, as the error of a statement.
    fn fault(&mut self, point: Point) -> Result<QueryResult<()>, Stop> {
        let fault = self.shared.faults.at(point);
        match fault {
            Fault::End => self.shared.end(),
            Fault::Lost => self.conn.lose(),
            Fault::None | Fault::Refuse | Fault::Full => {}
        }
        // A reader can have ended it too.
        if self.shared.has_ended() {
            return Err(Stop::Ended);
        }
        Ok(fault.error().map_or(Ok(()), Err))
    }
}

/// The parts in which writes run again that were rolled back together. What came before the culprit is known to run, and what comes
/// after it has not run yet; when that fails too, or no write is to blame, each runs alone.
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
        // IMMEDIATE: the right to write is taken before anything is read.
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

fn store_position(conn: &mut Conn, position: i64) -> QueryResult<usize> {
    let stored = on!(conn, |c| diesel::update(counter::table.find(1))
        .set(counter::position.eq(position))
        .execute(c));
    conn.take_wrote();
    stored
}

/// Whether it is certain that a transaction whose COMMIT failed is undone.
///
/// PostgreSQL: a session that still answers has undone what it could not commit. SQLite undoes by itself what it could not
/// write; its counter shows that it has.
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
