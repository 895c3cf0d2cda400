//! The writer: which writes share a commit, which are rolled back alone, which are kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use schema::{Conn, Error, Position, Result, Store, StoreOptions, Tx, keys, scratch};
use serde_json::json;

/// The value under a key.
fn value(db: &mut Conn, key: &str) -> Result<Option<serde_json::Value>, Error> {
    let row = scratch::get(db, 1, key)?;
    Ok(row
        .map(|row| serde_json::from_str(&row.value))
        .transpose()?)
}

/// Stores a number under a key.
fn keep(db: &mut Conn, key: &str, n: i32) -> Result<()> {
    scratch::put(db, &scratch::ScratchRow::new(1, key, &n.to_string()))
}

fn open(folder: &tempfile::TempDir) -> Store {
    Store::open(&url(folder), &StoreOptions::default()).expect("the store opens")
}

fn url(folder: &tempfile::TempDir) -> String {
    format!("sqlite:{}", folder.path().join("db").display())
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// Keeps the writer busy until the flag is set, so that writes queued in the meantime share a batch.
fn hold(store: &Store) -> (Arc<AtomicBool>, impl Future<Output = Result<()>>) {
    let go = Arc::new(AtomicBool::new(false));
    let held = Arc::clone(&go);
    let write = store.write(move |_| {
        while !held.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        Ok(())
    });
    (go, write)
}

#[test]
fn a_closure_that_fails_or_panics_rolls_back_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let (go, held) = hold(&store);
    let good = store.write(|tx| {
        keep(tx, "good", 1)?;
        Ok::<_, Error>(tx.next_position())
    });
    let refused = store.write(|tx| {
        keep(tx, "refused", 1)?;
        tx.next_position();
        Err::<(), _>(Error::Damaged("a rule said no".to_owned()))
    });
    let panicked = store.write(|tx| -> Result<()> {
        keep(tx, "panicked", 1)?;
        panic!("a bug")
    });
    let last = store.write(|tx| {
        keep(tx, "last", 1)?;
        Ok::<_, Error>(tx.next_position())
    });
    go.store(true, Ordering::Release);
    wait(async {
        held.await.expect("the first write");
        let first = good.await.expect("a good write");
        assert!(matches!(refused.await, Err(Error::Damaged(_))));
        assert!(matches!(panicked.await, Err(Error::Panicked(text)) if text == "a bug"));
        let second = last.await.expect("the writer lives on");
        assert!(second > first);
        assert_eq!(store.head(), second);
        let kept = store.read(|db| {
            let keys = ["good", "refused", "panicked", "last"];
            keys.iter()
                .map(|k| Ok(value(db, k)?.is_some()))
                .collect::<Result<Vec<bool>>>()
        });
        assert_eq!(kept.await.expect("a read"), [true, false, false, true]);
    });
}

#[test]
fn a_write_that_refuses_late_undoes_nothing_but_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let (go, held) = hold(&store);
    // Every third write changes rows and then returns an error. The writes before it in its transaction run again.
    let writes: Vec<_> = (0..60)
        .map(|i| {
            store.write(move |tx| {
                let position = tx.next_position();
                keep(tx, &format!("{i}"), i)?;
                match i % 3 {
                    0 => Err(Error::Damaged(format!("{i}"))),
                    _ => Ok(position),
                }
            })
        })
        .collect();
    go.store(true, Ordering::Release);
    wait(async {
        held.await.expect("the first write");
        let mut last = Position::START;
        for (i, write) in writes.into_iter().enumerate() {
            let written = write.await;
            let kept = store.read(move |db| value(db, &format!("{i}")));
            match written {
                Ok(position) => {
                    assert!(i % 3 != 0 && position > last, "{i}");
                    last = position;
                    assert_eq!(kept.await.expect("a read"), Some(json!(i)));
                }
                Err(error) => {
                    assert!(
                        i % 3 == 0 && matches!(error, Error::Damaged(of) if of == i.to_string())
                    );
                    assert_eq!(kept.await.expect("a read"), None);
                }
            }
        }
        assert_eq!(last, Position(40), "a write that was undone leaves no gap");
    });
}

#[test]
fn a_refusal_before_the_first_change_does_not_make_the_others_run_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let (go, held) = hold(&store);
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let good = store.write(move |tx| {
        counted.fetch_add(1, Ordering::Relaxed);
        keep(tx, "good", 1)
    });
    let refused = store.write(|tx| {
        tx.next_position();
        value(tx, "good")?;
        Err::<(), _>(Error::Damaged("a rule said no".to_owned()))
    });
    let last = store.write(|tx| Ok::<_, Error>(tx.next_position()));
    go.store(true, Ordering::Release);
    wait(async {
        held.await.expect("the first write");
        good.await.expect("a good write");
        assert!(matches!(refused.await, Err(Error::Damaged(_))));
        assert_eq!(
            last.await.expect("a position"),
            Position(1),
            "the position that was not used is given to the next write"
        );
    });
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

#[test]
fn what_a_write_changed_in_memory_is_undone_before_it_runs_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let (go, held) = hold(&store);
    let steps = Arc::new(std::sync::Mutex::new(Vec::new()));
    let say = |what: &'static str| {
        let steps = Arc::clone(&steps);
        move || steps.lock().expect("no panic").push(what)
    };
    let (run, undo) = (say("run"), say("undo"));
    let first = store.write(move |tx| {
        run();
        tx.on_rollback(undo.clone());
        keep(tx, "a", 1)
    });
    let broken = store.write(|tx| {
        keep(tx, "b", 1)?;
        Err::<(), _>(Error::Damaged("late".to_owned()))
    });
    go.store(true, Ordering::Release);
    wait(async {
        held.await.expect("the first write");
        first.await.expect("a good write");
        assert!(broken.await.is_err());
    });
    assert_eq!(*steps.lock().expect("no panic"), ["run", "undo", "run"]);
}

#[test]
fn writes_run_in_the_order_of_the_calls_even_if_not_polled() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let writes: Vec<_> = (0..100)
        .map(|i| {
            store.write(move |tx| {
                let position = tx.next_position();
                keep(tx, "last", i)?;
                Ok::<_, Error>(position)
            })
        })
        .collect();
    wait(async {
        let mut last = Position::START;
        // The order in which the futures are polled makes no difference.
        let mut positions = Vec::new();
        for write in writes.into_iter().rev() {
            positions.push(write.await.expect("a write"));
        }
        for position in positions.into_iter().rev() {
            assert!(position > last);
            last = position;
        }
        let stored = store.read(|db| value(db, "last")).await.expect("a read");
        assert_eq!(stored, Some(json!(99)));
    });
}

#[test]
fn a_write_that_can_wait_shares_the_commit_of_a_later_one_and_runs_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let commits = Arc::new(AtomicUsize::new(0));
    store.on_commit({
        let commits = Arc::clone(&commits);
        move |_| {
            commits.fetch_add(1, Ordering::AcqRel);
        }
    });
    let put = |value: i32| move |tx: &mut Tx<'_>| keep(tx, "last", value);
    let (go, held) = hold(&store);
    let later = store.write_later(put(1));
    let next = store.write(put(2));
    go.store(true, Ordering::Release);
    wait(async {
        held.await.expect("the first write");
        next.await.expect("a write");
        later.await.expect("a write that can wait");
        let last = store.read(|db| value(db, "last")).await;
        assert_eq!(last.expect("a read"), Some(json!(1)), "it ran last");
        assert_eq!(commits.load(Ordering::Acquire), 1, "one commit for both");
    });
}

#[test]
fn a_write_that_others_follow_from_shares_their_commit_and_runs_before_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let commits = Arc::new(AtomicUsize::new(0));
    store.on_commit({
        let commits = Arc::clone(&commits);
        move |_| {
            commits.fetch_add(1, Ordering::AcqRel);
        }
    });
    let put = |value: i32| move |tx: &mut Tx<'_>| keep(tx, "last", value);
    wait(async {
        let first = store.write_with_next(put(1));
        store.write(put(2)).await.expect("a write");
        first.await.expect("what it follows from");
        let last = store.read(|db| value(db, "last")).await;
        assert_eq!(last.expect("a read"), Some(json!(2)), "it ran first");
        assert_eq!(commits.load(Ordering::Acquire), 1, "one commit for both");
        store.write_with_next(put(3)).await.expect("it runs alone");
    });
}

#[test]
fn a_write_that_can_wait_runs_without_any_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let put = |key: &'static str| move |tx: &mut Tx<'_>| keep(tx, key, 1);
    wait(async {
        store.write_later(put("by time")).await.expect("it is run");
        let hurried = store.write_later(put("hurried"));
        store.hurry();
        hurried.await.expect("it is run");
    });
    let (go, held) = hold(&store);
    let before = store.write_later(put("alone"));
    let alone = store.write_alone(|tx| value(tx, "alone"));
    let closing = store.write_later(put("closing"));
    go.store(true, Ordering::Release);
    wait(async {
        held.await.expect("the first write");
        before.await.expect("a write that can wait");
        let seen = alone.await.expect("a write of its own");
        assert_eq!(seen, Some(json!(1)), "what was queued before is done");
    });
    store.close();
    wait(closing).expect("what waited is done before the end");
}

/// A sender may already have looked beyond the position of an item; then it must look again.
#[test]
fn a_commit_says_which_services_it_owes_and_up_to_where() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let (send, received) = std::sync::mpsc::channel();
    store.on_commit(move |owed| send.send(owed.clone()).expect("the test waits"));
    let irc = schema::ServiceId::from("irc");
    for (items, expected) in [(vec![0, 1], Some(Position(2))), (vec![0, -3], None)] {
        let service = irc.clone();
        let write = store.write(move |tx| {
            let first = tx.next_position();
            tx.next_position();
            let owed = items.iter().map(|after| {
                schema::owed::Owed::new(&service, Position(first.0 + after), "m.example")
            });
            schema::owed::owe_all(tx, owed.collect());
            Ok::<_, Error>(())
        });
        wait(write).expect("a write");
        let owed = received.recv().expect("it is committed");
        assert_eq!(owed.get(&irc), Some(&expected));
    }
}

#[test]
fn positions_go_on_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let take = |store: &Store| {
        wait(store.write(|tx| Ok::<_, Error>(tx.next_position()))).expect("a position")
    };
    let store = open(&folder);
    let first = take(&store);
    store.close();
    let store = open(&folder);
    assert_eq!(store.head(), first);
    assert!(take(&store) > first);
}

#[test]
fn a_full_queue_refuses_requests_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let (go, held) = hold(&store);
    let waiting: Vec<_> = (0..schema::store::QUEUE)
        .map(|_| store.write(|_| Ok::<_, Error>(())))
        .collect();
    let refused = store.write(|_| Ok::<_, Error>(()));
    let needed = store.write_always(|_| Ok::<_, Error>(()));
    go.store(true, Ordering::Release);
    wait(async {
        assert!(matches!(refused.await, Err(Error::Busy)));
        held.await.expect("the first write");
        needed
            .await
            .expect("a write that no request waits for is never refused");
        let mut answered = 0;
        for write in waiting {
            answered += usize::from(write.await.is_ok());
        }
        assert_eq!(
            answered,
            schema::store::QUEUE - 1,
            "the one that holds the writer counts too"
        );
    });
}

#[test]
fn a_snapshot_does_not_move() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    wait(async {
        store.write(|tx| keep(tx, "a", 1)).await.expect("a write");
        let (seen, until_seen) = std::sync::mpsc::channel();
        let (written, until_written) = std::sync::mpsc::channel();
        let read = store.read(move |db| {
            let before = value(db, "a")?;
            seen.send(()).expect("the test waits");
            until_written
                .recv_timeout(Duration::from_secs(10))
                .expect("the write is done");
            Ok::<_, Error>((before, value(db, "a")?))
        });
        until_seen
            .recv_timeout(Duration::from_secs(10))
            .expect("the read has begun");
        store
            .write(|tx| keep(tx, "a", 2))
            .await
            .expect("writers do not wait for readers");
        written.send(()).expect("the read waits");
        assert_eq!(
            read.await.expect("a read"),
            (Some(json!(1)), Some(json!(1)))
        );
        let now = store.read(|db| value(db, "a")).await.expect("a read");
        assert_eq!(now, Some(json!(2)), "an answered write is seen");
    });
}

#[test]
fn the_newest_keys_that_were_handed_out_are_remembered() {
    const KEPT: i64 = 3;
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let hand_out = |device: &'static str, hashes: std::ops::Range<i64>| {
        wait(store.write(move |tx| {
            for hash in hashes.clone() {
                keys::remember_claimed(tx, "@alice:test", device, hash)?;
            }
            keys::trim_claimed(tx, "@alice:test", device, KEPT)
        }))
        .expect("written")
    };
    let remembered = |device: &'static str| {
        let hashes: Vec<i64> = (0..20).collect();
        let found = store.read(move |db| keys::claimed(db, "@alice:test", device, &hashes));
        wait(found).expect("read").into_iter().collect::<Vec<_>>()
    };
    assert_eq!(hand_out("OTHER", 0..6), 0);
    assert_eq!(hand_out("PHONE", 0..6), 0, "twice as many as are kept");
    assert_eq!(remembered("PHONE"), [0, 1, 2, 3, 4, 5]);
    assert_eq!(hand_out("PHONE", 6..7), 4);
    assert_eq!(remembered("PHONE"), [4, 5, 6]);
    assert_eq!(hand_out("PHONE", 7..8), 0);
    assert_eq!(remembered("OTHER"), [0, 1, 2, 3, 4, 5]);
}
