//! The reader threads, each with a connection of its own.
//!
//! A reader that has lost its connection takes no reads until it has a new one. While no reader has a connection, reads fail at
//! once, so that a request is answered instead of waiting.

use std::time::Duration;

use diesel::prelude::*;

use crate::store::conn::{Conn, Engine, Url};
use crate::store::faults::{Fault, Point};
use crate::store::pool::{Read, SlowPlace};
use crate::store::shared::Shared;

/// The delay before a reader tries to connect again: the first, and the longest. It doubles each time.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// A reader thread.
pub(crate) struct Reader {
    pub(crate) url: Url,
    pub(crate) conn: Conn,
    pub(crate) shared: Shared,
}

impl Reader {
    /// Serves the queue until it is closed. The pool already counts this reader as connected.
    pub(crate) fn run(mut self) {
        let shared = self.shared.clone();
        while let Some((read, slow)) = shared.reads.next() {
            let place = slow.then(|| SlowPlace(&shared.reads));
            let ended = shared.has_ended();
            // If a fault ended the storage, the read is not answered, not even with an error.
            let good = !ended && self.serve(read, slow);
            drop(place);
            if ended || !good && !self.reconnect() {
                return;
            }
        }
    }

    /// Runs a read in a snapshot. Returns whether the connection still works.
    fn serve(&mut self, read: Read, slow: bool) -> bool {
        match self.begin() {
            Ok(()) => {
                read(Ok(&mut self.conn));
                self.end()
            }
            Err(_) if self.shared.has_ended() => false,
            Err(_) if !self.end() => {
                // Nothing was read yet: the session may have ended long ago. Tries once to start a new one.
                if self.connect() && self.begin().is_ok() {
                    read(Ok(&mut self.conn));
                    return self.end();
                }
                self.pass_on(read, slow);
                false
            }
            Err(error) => {
                read(Err(error.into()));
                true
            }
        }
    }

    /// Gives a read to another reader, if one is connected; else fails it.
    fn pass_on(&self, read: Read, slow: bool) {
        if let Err((read, error)) = self.shared.reads.push(read, slow) {
            read(Err(error));
        }
    }

    /// Begins a snapshot: all queries of a read see the same state.
    fn begin(&mut self) -> QueryResult<()> {
        match self.shared.faults.at(Point::ReadBegin) {
            Fault::None => {}
            Fault::End => self.shared.end(),
            Fault::Lost => self.conn.lose(),
            fault => {
                if let Some(error) = fault.error() {
                    return Err(error);
                }
            }
        }
        if self.shared.has_ended() {
            return Err(diesel::result::Error::NotInTransaction);
        }
        let begin = match self.conn.engine {
            Engine::Sqlite(_) => "BEGIN DEFERRED",
            Engine::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        self.conn.execute(begin)
    }

    /// Ends the snapshot. Returns whether the connection still works.
    fn end(&mut self) -> bool {
        // SQLite may have rolled back by itself.
        self.conn.execute("ROLLBACK").is_ok() || !self.conn.is_postgres()
    }

    fn connect(&mut self) -> bool {
        match self.url.connect() {
            Ok(conn) => {
                self.conn = conn;
                true
            }
            Err(error) => {
                tracing::warn!(%error, "a reader has no connection to the database");
                false
            }
        }
    }

    /// Connects again, with growing delays. Returns whether the pool is still open.
    fn reconnect(&mut self) -> bool {
        if self.shared.has_ended() {
            return false;
        }
        tracing::warn!("a reader has lost its connection to the database");
        self.shared.reads.disconnected();
        let mut pause = BACK_OFF.0;
        while !self.connect() {
            if !self.shared.reads.pause(pause) {
                return false;
            }
            pause = (pause * 2).min(BACK_OFF.1);
        }
        self.shared.reads.connected();
        tracing::info!("a reader is connected to the database again");
        true
    }
}
