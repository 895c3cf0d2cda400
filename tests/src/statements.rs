//! Observes the statements that the connections of a server send to the database.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use diesel::connection::{Instrumentation, InstrumentationEvent, set_default_instrumentation};

/// The texts of the statements that the connections of one server have sent.
#[derive(Debug, Default)]
struct Texts {
    /// Those whose prepared form a connection keeps.
    kept: BTreeSet<String>,
    /// All others, in the order in which they were sent.
    others: Vec<String>,
}

/// The statements of a server.
#[derive(Debug, Clone, Default)]
pub struct Statements(Arc<Mutex<Texts>>);

thread_local! {
    /// Set on a thread while it opens the connections of an observed server.
    static OBSERVED: RefCell<Option<Statements>> = const { RefCell::new(None) };
}

fn observer() -> Option<Box<dyn Instrumentation>> {
    let statements = OBSERVED.with_borrow(Clone::clone)?;
    let mut sent = String::new();
    Some(Box::new(move |event: InstrumentationEvent<'_>| {
        let mut texts = statements.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            InstrumentationEvent::StartQuery { query, .. } => {
                let text = query.to_string();
                sent = text
                    .split(" -- binds")
                    .next()
                    .unwrap_or_default()
                    .to_owned();
            }
            InstrumentationEvent::CacheQuery { sql, .. } => {
                texts.kept.insert(sql.to_owned());
            }
            InstrumentationEvent::FinishQuery { .. } if !texts.kept.contains(&sent) => {
                texts.others.push(std::mem::take(&mut sent));
            }
            _ => {}
        }
    }))
}

impl Statements {
    /// Opens a server and observes the connections that this thread opens meanwhile.
    ///
    /// # Panics
    /// If diesel's observer cannot be set.
    pub async fn of<T>(open: impl Future<Output = T>) -> (T, Statements) {
        let statements = Statements::default();
        OBSERVED.set(Some(statements.clone()));
        set_default_instrumentation(observer).expect("no lock is poisoned");
        let opened = open.await;
        OBSERVED.set(None);
        (opened, statements)
    }

    /// The statements since the last call that no connection keeps prepared, without those that begin and end transactions.
    ///
    /// # Panics
    /// If no connection was observed.
    #[must_use]
    pub fn prepared_anew(&self) -> Vec<String> {
        let mut texts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(!texts.kept.is_empty(), "no statement was observed");
        let mut others = std::mem::take(&mut texts.others);
        let ends = ["BEGIN", "COMMIT", "ROLLBACK"];
        others.retain(|text| !ends.iter().any(|end| text.starts_with(end)));
        others
    }
}
