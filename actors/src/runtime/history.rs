//! What a development server remembers of its writes after their rows are gone: the ledger of what each appservice was owed, which
//! transaction delivered an item, which messages were put into inboxes, which keys were claimed, and the last attempts.
//!
//! In memory, since the start, and bounded: the oldest entries are dropped first. A server that keeps no trace keeps none of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schema::Position;
use schema::facts::{ClaimedKey, Deposited, Fact, Settled, Settlement, Withheld};
use schema::queues::OwedOfKind;
use serde::Serialize;

use crate::Clock;

/// The most entries of each list.
const KEPT: usize = 20_000;

/// The most times of positions.
const TIMES: usize = 50_000;

/// The most attempts kept for each appservice.
const ATTEMPTS: usize = 20;

/// An entry with the time at which it was committed, in milliseconds since the epoch.
#[derive(Debug, Clone)]
pub struct Timed<T> {
    /// The time.
    pub at: i64,
    /// The request that caused it; empty if none did.
    pub cause: Arc<str>,
    /// The entry.
    pub what: T,
}

/// The items of one kind that an appservice was owed since the start. `before + owed` is what was delivered, dropped or waits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The kind.
    pub kind: String,
    /// The number of items that waited at the start.
    pub before: i64,
    /// The number of items owed since.
    pub owed: i64,
    /// The number of items in acknowledged transactions.
    pub delivered: i64,
    /// The number of items that are not owed any more and were not delivered, by reason.
    pub dropped: BTreeMap<&'static str, i64>,
    /// The number of items in the database.
    pub waiting: i64,
}

impl Line {
    /// Whether no item is missing and none is there too often.
    pub fn balances(&self) -> bool {
        let settled = self.delivered + self.dropped.values().sum::<i64>();
        self.before + self.owed == settled + self.waiting
    }
}

/// An attempt at a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PastAttempt {
    /// The id of the transaction.
    pub transaction: i64,
    /// The number of the attempt, counted from 1.
    pub attempt: u32,
    /// When it ended, in milliseconds since the epoch.
    pub at: i64,
    /// The HTTP status, or the error.
    pub outcome: String,
    /// How long it took, in microseconds.
    pub micros: u64,
}

/// A device has acknowledged its messages up to a position.
#[derive(Debug, Clone)]
pub struct TakenUpTo {
    /// The owner of the device.
    pub user: String,
    /// The device.
    pub device: String,
    /// The position.
    pub up_to: i64,
}

/// A claim for a key of a device.
#[derive(Debug, Clone)]
pub struct PastClaim {
    /// The owner of the device.
    pub user: String,
    /// The device.
    pub device: String,
    /// The algorithm.
    pub algorithm: String,
    /// Which key was handed out.
    pub key: ClaimedKey,
}

#[derive(Default)]
struct Memory {
    lines: BTreeMap<(String, String), Line>,
    settled: VecDeque<Timed<Settled>>,
    deposits: VecDeque<Timed<Deposited>>,
    withheld: VecDeque<Timed<Withheld>>,
    taken: VecDeque<Timed<TakenUpTo>>,
    claims: VecDeque<Timed<PastClaim>>,
    attempts: BTreeMap<String, VecDeque<PastAttempt>>,
    /// Positions with the time of the commit that reached them.
    times: VecDeque<(i64, i64)>,
}

/// The history of a development server; clones share it.
#[derive(Clone, Default)]
pub struct History(Option<Arc<(Mutex<Memory>, Clock)>>);

/// Adds an entry, and drops the oldest if there are too many.
fn push<T>(list: &mut VecDeque<T>, entry: T, most: usize) {
    if list.len() >= most {
        list.pop_front();
    }
    list.push_back(entry);
}

/// Why an item is not owed any more; `None` if it was delivered.
fn dropped(settled: &Settled) -> Option<&'static str> {
    match settled.how {
        Settlement::Delivered(_) => None,
        Settlement::Replaced => Some("replaced by a newer one while it waited"),
        Settlement::ReplacedInside(_) => {
            Some("replaced by a newer one while a transaction carried it")
        }
        Settlement::DeviceDeleted => Some("device deleted"),
        Settlement::Withdrawn if settled.kind == schema::owed::COUNT => Some("device deleted"),
        Settlement::Withdrawn => Some("no longer sent to the service"),
    }
}

impl History {
    /// A history that begins now, when this is owed and `head` is the last position.
    pub fn begin(owed: Vec<OwedOfKind>, head: Position, clock: Clock) -> History {
        let mut memory = Memory::default();
        memory.reached(head.0, clock.now());
        for row in owed {
            memory.line(&row.service, &row.kind).before = row.items;
        }
        History(Some(Arc::new((Mutex::new(memory), clock))))
    }

    fn memory(&self) -> Option<MutexGuard<'_, Memory>> {
        let (memory, _) = &**self.0.as_ref()?;
        Some(memory.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether anything is kept.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Called after the commit of a write, in the order of the commits.
    pub fn committed(&self, cause: &Arc<str>, facts: Vec<Fact>, head: i64) {
        let (Some((_, clock)), Some(mut memory)) = (self.0.as_deref(), self.memory()) else {
            return;
        };
        let at = clock.now();
        memory.reached(head, at);
        for fact in facts {
            memory.take(fact, at, cause);
        }
    }

    /// Remember an attempt at a transaction.
    pub fn attempted(&self, service: &str, attempt: PastAttempt) {
        if let Some(mut memory) = self.memory() {
            let of_service = memory.attempts.entry(service.to_owned()).or_default();
            push(of_service, attempt, ATTEMPTS);
        }
    }

    /// The last attempts at transactions to an appservice, oldest first.
    pub fn attempts(&self, service: &str) -> Vec<PastAttempt> {
        let memory = self.memory();
        let attempts = memory.and_then(|memory| memory.attempts.get(service).cloned());
        attempts.unwrap_or_default().into()
    }

    /// The ledger, by appservice and kind, with these numbers of waiting items. These must have been read after the last commit
    /// that this history was given, and before the next one.
    pub fn ledger(&self, waiting: &[OwedOfKind]) -> BTreeMap<String, Vec<Line>> {
        let Some(memory) = self.memory() else {
            return BTreeMap::new();
        };
        let mut lines = memory.lines.clone();
        drop(memory);
        for row in waiting {
            let line = lines
                .entry((row.service.clone(), row.kind.clone()))
                .or_default();
            line.kind.clone_from(&row.kind);
            line.waiting = row.items;
        }
        let mut ledger: BTreeMap<String, Vec<Line>> = BTreeMap::new();
        for ((service, _), line) in lines {
            ledger.entry(service).or_default().push(line);
        }
        ledger
    }

    /// When the write was committed that took this position; `None` if that was before the start or too long ago.
    pub fn time_of(&self, position: i64) -> Option<i64> {
        let memory = self.memory()?;
        // The first entry says when the history began, not when its position was taken.
        let next = memory
            .times
            .partition_point(|(reached, _)| *reached < position);
        (next > 0)
            .then(|| memory.times.get(next).map(|(_, at)| *at))
            .flatten()
    }

    /// The last item that was settled and that fits.
    pub fn settled(&self, fits: impl Fn(&Settled) -> bool) -> Option<Timed<Settled>> {
        let memory = self.memory()?;
        memory
            .settled
            .iter()
            .rev()
            .find(|entry| fits(&entry.what))
            .cloned()
    }

    /// The newest messages that were put into inboxes and that fit, oldest first.
    pub fn deposits(
        &self,
        most: usize,
        fits: impl Fn(&Deposited) -> bool,
    ) -> Vec<Timed<Deposited>> {
        self.newest(most, |memory| &memory.deposits, fits)
    }

    /// The newest messages that a proposal kept from a device and that fit, oldest first.
    pub fn withheld(&self, most: usize, fits: impl Fn(&Withheld) -> bool) -> Vec<Timed<Withheld>> {
        self.newest(most, |memory| &memory.withheld, fits)
    }

    /// The newest claims that fit, oldest first.
    pub fn claims(&self, most: usize, fits: impl Fn(&PastClaim) -> bool) -> Vec<Timed<PastClaim>> {
        self.newest(most, |memory| &memory.claims, fits)
    }

    /// When a device acknowledged its message at a position.
    pub fn taken(&self, user: &str, device: &str, position: i64) -> Option<i64> {
        let memory = self.memory()?;
        let fits = |taken: &TakenUpTo| {
            taken.user == user && taken.device == device && taken.up_to >= position
        };
        memory
            .taken
            .iter()
            .find(|entry| fits(&entry.what))
            .map(|entry| entry.at)
    }

    fn newest<T: Clone>(
        &self,
        most: usize,
        list: impl Fn(&Memory) -> &VecDeque<Timed<T>>,
        fits: impl Fn(&T) -> bool,
    ) -> Vec<Timed<T>> {
        let Some(memory) = self.memory() else {
            return Vec::new();
        };
        let newest = list(&memory).iter().rev().filter(|entry| fits(&entry.what));
        let mut found: Vec<_> = newest.take(most).cloned().collect();
        found.reverse();
        found
    }
}

impl Memory {
    fn line(&mut self, service: &str, kind: &str) -> &mut Line {
        let line = self
            .lines
            .entry((service.to_owned(), kind.to_owned()))
            .or_default();
        if line.kind.is_empty() {
            kind.clone_into(&mut line.kind);
        }
        line
    }

    /// Remember when the counter of positions reached `head`.
    fn reached(&mut self, head: i64, at: i64) {
        let is_first = self.times.len() < 2;
        match self.times.back_mut() {
            Some((last, _)) if *last >= head => {}
            // Positions of the same millisecond share an entry, but not with the first one.
            Some((last, same)) if *same == at && !is_first => *last = head,
            _ => push(&mut self.times, (head, at), TIMES),
        }
    }

    fn take(&mut self, fact: Fact, at: i64, cause: &Arc<str>) {
        let cause = Arc::clone(cause);
        match fact {
            Fact::Owed {
                service,
                kind,
                items,
            } => self.line(&service, &kind).owed += number(items),
            Fact::Settled(what) => {
                let line = self.line(&what.service, &what.kind);
                match dropped(&what) {
                    Some(reason) => *line.dropped.entry(reason).or_default() += number(what.items),
                    None => line.delivered += number(what.items),
                }
                push(&mut self.settled, Timed { at, cause, what }, KEPT);
            }
            Fact::Deposited(what) => push(&mut self.deposits, Timed { at, cause, what }, KEPT),
            Fact::Withheld(what) => push(&mut self.withheld, Timed { at, cause, what }, KEPT),
            Fact::Taken {
                user,
                device,
                up_to,
            } => {
                let what = TakenUpTo {
                    user,
                    device,
                    up_to,
                };
                push(&mut self.taken, Timed { at, cause, what }, KEPT);
            }
            Fact::Claimed {
                user,
                device,
                algorithm,
                key,
            } => {
                let what = PastClaim {
                    user,
                    device,
                    algorithm,
                    key,
                };
                push(&mut self.claims, Timed { at, cause, what }, KEPT);
            }
        }
    }
}

fn number(items: usize) -> i64 {
    i64::try_from(items).unwrap_or(i64::MAX)
}
