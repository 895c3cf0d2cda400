//! The threads that read, each with a connection of its own.
//!
//! A reader that has lost its connection takes no read until it has another one. While no reader has a connection, reads are
//! refused at once: a request is told to come back later, and does not wait.

use std::time::Duration;

use diesel::prelude::*;

use crate::store::conn::{Conn, Engine, Url};
use crate::store::faults::{Fault, Point};
use crate::store::pool::{Read, SlowPlace};
use crate::store::shared::Shared;

/// How long a reader waits before it tries to connect again: at first, and at most. It doubles each time.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// One reader's thread.
pub(crate) struct Reader {
    pub(crate) url: Url,
    pub(crate) conn: Conn,
    pub(crate) shared: Shared,
}

impl Reader {
    /// Serve the queue until it is closed. The pool counts this reader as connected already.
    pub(crate) fn run(mut self) {
        let shared = self.shared.clone();
        while let Some((read, slow)) = shared.reads.next() {
            let place = slow.then(|| SlowPlace(&shared.reads));
            let ended = shared.has_ended();
            // A storage that was ended answers nothing, not even an error.
            let good = !ended && self.serve(read, slow);
            drop(place);
            if ended || !good && !self.reconnect() {
                return;
            }
        }
    }

    /// Run a read in a snapshot. Whether the connection is still good.
    fn serve(&mut self, read: Read, slow: bool) -> bool {
        match self.begin() {
            Ok(()) => {
                read(Ok(&mut self.conn));
                self.end()
            }
            Err(_) if self.shared.has_ended() => false,
            Err(_) if !self.end() => {
                // Nothing was read yet: the session may have ended long ago. One attempt at a new one.
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

    /// Let another reader serve it, if one is connected.
    fn pass_on(&self, read: Read, slow: bool) {
        if let Err((read, error)) = self.shared.reads.push(read, slow) {
            read(Err(error));
        }
    }

    /// A snapshot: what is seen in it belongs together.
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

    /// End the snapshot. Whether the connection is still good.
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

    /// Connect again, with pauses that grow. Whether the pool is still open.
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
