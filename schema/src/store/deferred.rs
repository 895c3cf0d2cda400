//! Rows that the writes of a transaction add and do not read back, many to a statement.
//!
//! What a message costs on PostgreSQL is round trips. So the rows that every message adds wait in memory until a statement
//! of the same transaction could see them, or until it ends.

use diesel::prelude::*;

use crate::client_transactions::Answer;
use crate::inbox::InboxRow;
use crate::owed::Owed;
use crate::tables::{client_transactions, inbox, owed};
use crate::{Conn, Result};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Deferred {
    pub(crate) inbox: Vec<InboxRow>,
    pub(crate) owed: Vec<Owed>,
    pub(crate) answers: Vec<Answer>,
}

/// How many rows of each table there were.
pub(crate) type Lengths = (usize, usize, usize);

impl Deferred {
    pub(crate) fn is_empty(&self) -> bool {
        self.lengths() == (0, 0, 0)
    }

    pub(crate) fn lengths(&self) -> Lengths {
        (self.inbox.len(), self.owed.len(), self.answers.len())
    }

    /// Forget what was added after these lengths. What was written meanwhile is not here any more.
    pub(crate) fn truncate(&mut self, (inbox, owed, answers): Lengths) {
        self.inbox.truncate(inbox);
        self.owed.truncate(owed);
        self.answers.truncate(answers);
    }

    /// What the sender was answered by an earlier write of this transaction.
    pub(crate) fn answer(&self, sender: &str, scope: &str, txn_id: &str) -> Option<&str> {
        let is_it = |a: &&Answer| a.txn_id == txn_id && a.sender == sender && a.scope == scope;
        self.answers.iter().find(is_it).map(|a| a.response.as_str())
    }

    /// Write the rows.
    pub(crate) fn write(&mut self, db: &mut Conn) -> Result<()> {
        insert_all!(db, inbox::table, &self.inbox);
        insert_all!(db, owed::table, &self.owed);
        insert_all!(db, client_transactions::table, &self.answers);
        *self = Deferred::default();
        Ok(())
    }
}
