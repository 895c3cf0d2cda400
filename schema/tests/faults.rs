//! What is kept, and what is answered, when the storage fails at each point where it can.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use schema::faults::{Fault, Faults, Point};
use schema::{Error, Position, Store, StoreOptions, scratch};

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// The faults to inject, the next one last. Each is injected once.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Vec<(Point, Fault)>>>);

impl Script {
    fn set(&self, faults: &[(Point, Fault)]) {
        *self.0.lock().expect("no panic") = faults.iter().rev().copied().collect();
    }

    /// Waits until every fault was injected.
    fn done(&self) {
        while !self.0.lock().expect("no panic").is_empty() {
            std::thread::yield_now();
        }
    }

    fn options(&self) -> StoreOptions {
        let script = self.clone();
        let faults = Faults::chosen_by(move |point| {
            let mut left = script.0.lock().expect("no panic");
            left.pop_if(|(at, _)| *at == point)
                .map_or(Fault::None, |(_, fault)| fault)
        });
        StoreOptions {
            fatal: Arc::new(|why| panic!("{why}")),
            lock_wait: Duration::from_secs(5),
            faults,
            image: None,
        }
    }
}

fn put(
    store: &Store,
    key: &'static str,
) -> impl Future<Output = schema::Result<Position>> + 'static {
    store.write(move |tx| {
        scratch::put(tx, &scratch::ScratchRow::new(1, key, "1"))?;
        Ok(tx.next_position())
    })
}

async fn has(store: &Store, key: &'static str) -> bool {
    let read = store.read(move |db| scratch::get(db, 1, key));
    read.await.expect("a read").is_some()
}

#[test]
fn a_failure_before_the_commit_undoes_the_write_and_the_next_one_is_kept() {
    for fault in [Fault::Refuse, Fault::Full, Fault::Lost] {
        for point in [Point::Begin, Point::Job, Point::BeforeCommit] {
            let folder = tempfile::tempdir().expect("a folder");
            let url = format!("sqlite:{}", folder.path().join("db").display());
            let script = Script::default();
            let store = Store::open(&url, &script.options()).expect("the store opens");
            wait(async {
                script.set(&[(point, fault)]);
                let error = put(&store, "undone").await.expect_err("it fails");
                let temporary = error.is_temporary();
                assert_eq!(
                    temporary,
                    point != Point::Job || fault != Fault::Refuse,
                    "{point:?} {fault:?}: {error}"
                );
                assert!(!has(&store, "undone").await);
                assert_eq!(put(&store, "kept").await.expect("room"), Position(1));
                assert!(has(&store, "kept").await);
            });
        }
    }
}

#[test]
fn a_passing_failure_of_the_engine_fails_no_write() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", folder.path().join("db").display());
    let script = Script::default();
    let store = Store::open(&url, &script.options()).expect("the store opens");
    wait(async {
        let (go, held) = std::sync::mpsc::channel::<()>();
        let held = Mutex::new(held);
        let first = store.write(move |_| {
            // Waits until the writes below are queued.
            let _ = held.lock().expect("no panic").recv();
            Ok::<_, Error>(())
        });
        let writes = ["a", "b", "c"].map(|key| put(&store, key));
        script.set(&[(Point::BeforeCommit, Fault::Full)]);
        drop(go);
        first.await.expect("the first write");
        for write in writes {
            write.await.expect("run again, alone");
        }
    });
}

#[test]
fn a_storage_ended_by_a_fault_answers_nothing_and_can_be_opened_again() {
    let points = [
        (Point::Begin, false),
        (Point::Job, false),
        (Point::BeforeCommit, false),
        (Point::AfterCommit, true),
    ];
    for (point, kept) in points {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("db").display());
        let script = Script::default();
        let store = Store::open(&url, &script.options()).expect("the store opens");
        wait(async {
            script.set(&[(point, Fault::End)]);
            let soon = Duration::from_millis(20);
            let write = tokio::time::timeout(soon, put(&store, "last"));
            assert!(write.await.is_err(), "{point:?}: it was answered");
            script.done();
            // The fault was injected; shortly after that no read is answered any more.
            while tokio::time::timeout(soon, has(&store, "last"))
                .await
                .is_ok()
            {}
            let again = Store::open(&url, &script.options()).expect("it opens again");
            assert_eq!(has(&again, "last").await, kept, "{point:?}");
            assert_eq!(
                put(&again, "next").await.expect("it goes on"),
                Position(1 + i64::from(kept))
            );
            store.close();
        });
    }
}

#[test]
fn a_read_at_which_the_storage_ends_ends_the_writer_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", folder.path().join("db").display());
    let script = Script::default();
    let store = Store::open(&url, &script.options()).expect("the store opens");
    wait(async {
        put(&store, "a").await.expect("a write");
        script.set(&[(Point::ReadBegin, Fault::End)]);
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, has(&store, "a")).await.is_err());
        script.done();
        assert!(tokio::time::timeout(soon, put(&store, "b")).await.is_err());
        let again = Store::open(&url, &script.options()).expect("it opens again");
        assert!(has(&again, "a").await && !has(&again, "b").await);
    });
}

#[test]
fn a_storage_ended_while_slow_reads_wait_releases_the_database() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", folder.path().join("db").display());
    let script = Script::default();
    let store = Store::open(&url, &script.options()).expect("the store opens");
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (finish, to_finish) = std::sync::mpsc::channel::<()>();
    // One slow read runs, two wait for its place, and the other reader is idle.
    let running = store.read_slow(move |_| {
        begun.send(()).expect("the test waits");
        to_finish.recv().expect("the test goes on");
        Ok::<_, Error>(())
    });
    has_begun.recv().expect("the read runs");
    let waiting: Vec<_> = (0..2)
        .map(|_| store.read_slow(|_| Ok::<_, Error>(())))
        .collect();
    script.set(&[(Point::BeforeCommit, Fault::End)]);
    let written = put(&store, "lost");
    script.done();
    finish.send(()).expect("the read goes on");
    let (closed, is_closed) = std::sync::mpsc::channel();
    let closing = store.clone();
    std::thread::spawn(move || {
        closing.close();
        // The test may have failed already.
        let _ = closed.send(());
    });
    let patience = Duration::from_secs(10);
    is_closed.recv_timeout(patience).expect("every reader ends");
    drop((running, waiting, written));
    Store::open(&url, &script.options()).expect("the store opens again");
}

#[test]
fn a_reader_that_panics_at_a_slow_read_lets_the_others_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", folder.path().join("db").display());
    let (panic, to_panic) = std::sync::mpsc::channel::<()>();
    let to_panic = Mutex::new(Some(to_panic));
    let options = StoreOptions {
        fatal: Arc::new(|_| {}),
        faults: Faults::chosen_by(move |point| {
            let first = (point == Point::ReadBegin)
                .then(|| to_panic.lock().expect("no panic").take())
                .flatten();
            if let Some(first) = first {
                first.recv().expect("the test goes on");
                panic!("a bug in the storage");
            }
            Fault::None
        }),
        ..StoreOptions::default()
    };
    let store = Store::open(&url, &options).expect("the store opens");
    let slow: Vec<_> = (0..2)
        .map(|_| store.read_slow(|_| Ok::<_, Error>(())))
        .collect();
    panic.send(()).expect("the first of them begins");
    let (closed, is_closed) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        store.close();
        // The test may have failed already.
        let _ = closed.send(());
    });
    let patience = Duration::from_secs(10);
    is_closed.recv_timeout(patience).expect("every reader ends");
    drop(slow);
}

#[test]
fn a_storage_thread_that_panics_ends_the_process() {
    for (dies, name) in [(Point::Begin, "writer"), (Point::ReadBegin, "reader")] {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("db").display());
        let (tell, told) = std::sync::mpsc::channel();
        let tell = Mutex::new(tell);
        let options = StoreOptions {
            fatal: Arc::new(move |why| {
                let _ = tell.lock().expect("no panic").send(why.to_owned());
            }),
            faults: Faults::chosen_by(move |point| {
                assert!(point != dies, "a bug in the storage");
                Fault::None
            }),
            ..StoreOptions::default()
        };
        let store = Store::open(&url, &options).expect("the store opens");
        wait(async {
            if dies == Point::Begin {
                assert!(put(&store, "a").await.is_err());
            } else {
                assert!(store.read(|db| scratch::get(db, 1, "a")).await.is_err());
            }
        });
        let why = told
            .recv_timeout(Duration::from_secs(10))
            .expect("fatal is called");
        assert!(why.contains(name) && why.contains("panicked"), "{why}");
    }
}

#[test]
fn a_failed_read_is_temporary_if_the_engine_caused_the_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", folder.path().join("db").display());
    let script = Script::default();
    let store = Store::open(&url, &script.options()).expect("the store opens");
    wait(async {
        for (fault, temporary) in [(Fault::Refuse, false), (Fault::Full, true)] {
            script.set(&[(Point::ReadBegin, fault)]);
            let read = store.read(|db| scratch::get(db, 1, "a"));
            let error = read.await.expect_err("it fails");
            assert_eq!(error.is_temporary(), temporary, "{fault:?}: {error}");
            assert!(!has(&store, "a").await);
        }
    });
}
