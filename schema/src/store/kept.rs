//! Statements whose prepared form is kept.
//!
//! Diesel keeps a prepared statement only if its Rust type alone determines its text. It prepares an `UPDATE`, an upsert, a
//! literal and a list (`IN (…)`) each time: on SQLite that costs more than to run a small one, on PostgreSQL another round trip.
//! Prepared statements are kept by their SQL text, because each statement of this crate has only a few different texts.

use diesel::backend::Backend;
use diesel::internal::derives::multiconnection::AstPassHelper;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryBuilder, QueryFragment, QueryId};

/// The most items of a list up to which its statement is kept: each length leads to another SQL text.
pub(crate) const FEW: usize = 4;

/// A statement that a connection prepares once for each of its SQL texts.
pub(crate) struct Kept<S> {
    statement: S,
    is_kept: bool,
}

/// Keeps the prepared form of a statement. To be called last, before the statement is executed or loaded.
pub(crate) trait Keep: Sized {
    /// Keeps a statement that always has the same SQL text, or one of a few.
    fn kept(self) -> Kept<Self> {
        self.kept_if(true)
    }

    /// Keeps a statement with a list of this many items if they are at most [`FEW`].
    fn kept_for(self, items: usize) -> Kept<Self> {
        self.kept_if(items <= FEW)
    }

    /// Keeps a statement if this text of it is used often.
    fn kept_if(self, is_kept: bool) -> Kept<Self> {
        Kept {
            statement: self,
            is_kept,
        }
    }
}

impl<S> Keep for S {}

impl<S, DB> QueryFragment<DB> for Kept<S>
where
    S: QueryFragment<DB>,
    DB: Backend,
    DB::QueryBuilder: Default,
{
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        if !self.is_kept || pass.bind_collector().is_some() || pass.debug_binds().is_some() {
            return self.statement.walk_ast(pass);
        }
        // This pass asks for the text, or whether the statement may be kept. The parts of the statement would forbid that,
        // so the pass receives their text instead.
        let mut text = DB::QueryBuilder::default();
        self.statement.to_sql(&mut text, pass.backend())?;
        pass.push_sql(&text.finish());
        Ok(())
    }
}

/// Without an id of its type, a statement is known by its text.
impl<S> QueryId for Kept<S> {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<S: Query> Query for Kept<S> {
    type SqlType = S::SqlType;
}

impl<S, C> RunQueryDsl<C> for Kept<S> {}
