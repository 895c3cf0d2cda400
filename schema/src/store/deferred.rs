//! Rows that the writes of a transaction add and do not read back: they are collected and inserted with few statements.
//!
//! On PostgreSQL, round trips are most of the cost of a message. So the rows that every message adds wait in memory until a
//! statement of the same transaction could read them, or until the transaction ends.

use std::any::Any;

use crate::error::Result;
use crate::store::conn::Conn;

/// A row whose insertion can wait.
pub(crate) trait Deferrable: Send + Sized + 'static {
    /// Inserts rows with few statements.
    fn insert_all(db: &mut Conn, rows: &[Self]) -> Result<()>;
}

/// The waiting rows of one type.
trait Table: Any + Send {
    fn len(&self) -> usize;
    fn truncate(&mut self, length: usize);
    fn write(&self, db: &mut Conn) -> Result<()>;
    fn as_any(&mut self) -> &mut dyn Any;
}

impl<R: Deferrable> Table for Vec<R> {
    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn truncate(&mut self, length: usize) {
        Vec::truncate(self, length);
    }

    fn write(&self, db: &mut Conn) -> Result<()> {
        R::insert_all(db, self)
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// The waiting rows of all types. The types are in the order of their first row.
#[derive(Default)]
pub(crate) struct Deferred(Vec<Box<dyn Table>>);

/// The number of waiting rows of each type.
pub(crate) type Lengths = Vec<usize>;

impl Deferred {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|table| table.len() == 0)
    }

    pub(crate) fn lengths(&self) -> Lengths {
        self.0.iter().map(|table| table.len()).collect()
    }

    /// Drops the rows that were added after `lengths` was taken. Rows that were written since then are no longer here.
    pub(crate) fn truncate(&mut self, lengths: &[usize]) {
        for (i, table) in self.0.iter_mut().enumerate() {
            table.truncate(lengths.get(i).copied().unwrap_or(0));
        }
    }

    /// The waiting rows of a type.
    pub(crate) fn rows<R: Deferrable>(&mut self) -> &mut Vec<R> {
        let is_it = |table: &mut Box<dyn Table>| (**table).as_any().is::<Vec<R>>();
        let i = self.0.iter_mut().position(is_it).unwrap_or_else(|| {
            self.0.push(Box::new(Vec::<R>::new()));
            self.0.len() - 1
        });
        let rows = (*self.0[i]).as_any().downcast_mut();
        rows.expect("the table at this place has rows of this type")
    }

    /// Inserts all waiting rows.
    pub(crate) fn write(&mut self, db: &mut Conn) -> Result<()> {
        for table in &mut self.0 {
            table.write(db)?;
            table.truncate(0);
        }
        Ok(())
    }
}
