//! What each appservice is owed, its frozen transaction and its ledger.

use std::collections::BTreeMap;

use schema::Tx;
use schema::queues::{self, FrozenHead, OwedOfKind};
use serde::Serialize;

use crate::runtime::history::{Line, PastAttempt};
use crate::{Env, Error, Result};

/// What is known of the queue of one appservice.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Queue {
    /// The frozen transaction.
    pub frozen: Option<FrozenTransaction>,
    /// The last attempts, oldest first, at most 20.
    pub attempts: Vec<PastAttempt>,
    /// What waits, by kind, also inside the frozen transaction.
    pub owed: Vec<OwedItems>,
    /// What was owed since the start, by kind.
    pub ledger: Vec<Line>,
    /// Whether each line of the ledger balances.
    pub balanced: bool,
}

/// A frozen transaction without its body.
#[derive(Debug, Clone, Serialize)]
pub struct FrozenTransaction {
    /// Its id.
    pub transaction: i64,
    /// The length of its body, in bytes.
    pub bytes: i32,
    /// The number of items that it carries, by kind.
    pub holds: BTreeMap<String, i64>,
    /// When it was composed, in milliseconds since the epoch.
    pub frozen_at: i64,
}

/// The items of one kind that an appservice is owed.
#[derive(Debug, Clone, Serialize)]
pub struct OwedItems {
    /// The kind.
    pub kind: String,
    /// Their number.
    pub count: i64,
    /// When the oldest was owed, in milliseconds since the epoch; `None` if that was before the start.
    pub oldest_at: Option<i64>,
}

/// What is read in one write.
struct Standing {
    owed: Vec<OwedOfKind>,
    carried: Vec<OwedOfKind>,
    frozen: Vec<FrozenHead>,
    ledger: BTreeMap<String, Vec<Line>>,
}

/// The queues of all appservices.
///
/// The rows and the counters of the ledger are read in a batch of the writer of their own: every earlier commit has been counted
/// then, and no later one has begun. So they agree.
pub async fn queues(env: &Env) -> Result<BTreeMap<String, Queue>> {
    let history = env.history.clone();
    let standing = env.store.write_alone(move |tx: &mut Tx<'_>| {
        let owed = queues::owed_by_kind(tx)?;
        Ok::<_, Error>(Standing {
            ledger: history.ledger(&owed),
            owed,
            carried: queues::carried_by_kind(tx)?,
            frozen: queues::frozen(tx)?,
        })
    });
    let standing = standing.await?;
    let mut all: BTreeMap<String, Queue> = BTreeMap::new();
    for row in standing.owed {
        let oldest_at = row.oldest.and_then(|oldest| env.history.time_of(oldest));
        all.entry(row.service).or_default().owed.push(OwedItems {
            kind: row.kind,
            count: row.items,
            oldest_at,
        });
    }
    for (service, ledger) in standing.ledger {
        all.entry(service).or_default().ledger = ledger;
    }
    for frozen in standing.frozen {
        let carried = standing
            .carried
            .iter()
            .filter(|row| row.service == frozen.service);
        let holds = carried.map(|row| (row.kind.clone(), row.items)).collect();
        all.entry(frozen.service).or_default().frozen = Some(FrozenTransaction {
            transaction: frozen.transaction,
            bytes: frozen.bytes,
            holds,
            frozen_at: frozen.frozen_at,
        });
    }
    for (service, queue) in &mut all {
        queue.attempts = env.history.attempts(service);
        queue.balanced = queue.ledger.iter().all(Line::balances);
    }
    Ok(all)
}
