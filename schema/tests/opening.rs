//! Opening a database: its URL, its lock, and databases in memory.

use std::time::Duration;

use schema::{OpenError, Store, StoreOptions};

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(future)
}

#[test]
fn one_server_per_database() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", folder.path().join("db").display());
    let store = Store::open(&url, &StoreOptions::default()).expect("the store opens");
    let options = StoreOptions {
        lock_wait: Duration::ZERO,
        ..StoreOptions::default()
    };
    assert!(matches!(
        Store::open(&url, &options),
        Err(OpenError::InUse(_))
    ));
    store.close();
    assert!(Store::open(&url, &options).is_ok());
}

#[test]
fn an_invalid_database_url_is_refused() {
    for url in ["", "mysql://x", "sqlite:", "db"] {
        assert!(
            matches!(
                Store::open(url, &StoreOptions::default()),
                Err(OpenError::Url(_))
            ),
            "{url:?}"
        );
    }
}

#[test]
fn a_database_in_memory_is_copied_and_put_back_and_leaves_no_file() {
    let mine = || {
        let names = std::fs::read_dir("/dev/shm").into_iter().flatten();
        let mine = format!("understudy-db-{}-", std::process::id());
        let names = names.flatten().map(|e| e.file_name());
        names
            .filter(move |n| n.to_string_lossy().starts_with(&mine))
            .count()
    };
    let put = |store: &Store, value: &'static str| {
        let write = store.write(move |tx| {
            tx.next_position();
            schema::server_info::set(tx, "name", value)
        });
        wait(write).expect("a write");
    };
    let name = |store: &Store| {
        let read = store.read(|db| schema::server_info::get(db, "name"));
        wait(read).expect("a read")
    };
    let store = Store::open(":memory:", &StoreOptions::default()).expect("a store");
    assert_eq!(mine(), 0, "its files have no name");
    // The log grows beyond the length at which it is copied back.
    for _ in 0..3_000 {
        put(&store, "a");
    }
    assert_eq!(name(&store).as_deref(), Some("a"));
    let bytes = wait(store.image()).expect("an image");
    put(&store, "b");
    let head = store.head();
    store.close();

    let image = schema::Image {
        bytes: Some(bytes.into()),
        above: head,
    };
    let options = StoreOptions {
        image: Some(image),
        ..StoreOptions::default()
    };
    let store = Store::open(":memory:", &options).expect("a store");
    assert_eq!(name(&store).as_deref(), Some("a"));
    put(&store, "c");
    assert!(store.head() > head, "no position is used twice");
    let other = Store::open(":memory:", &StoreOptions::default()).expect("a store");
    assert_eq!(name(&other), None, "each is alone");
}
