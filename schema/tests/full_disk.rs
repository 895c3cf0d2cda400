//! On a disk that is really full, writes are refused, reads continue, and no restart is needed.
//!
//! The disk is a small file system in memory that only this test's process sees. If the machine does not allow to mount one,
//! the test does nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use schema::{Error, OpenError, Store, StoreOptions, scratch};
use serde_json::json;

/// Names the folder of the small disk, in the process that has it.
const DISK: &str = "UNDERSTUDY_TEST_DISK";

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(future)
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    if let Some(disk) = std::env::var_os(DISK) {
        return story(Path::new(&disk));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let me = std::env::current_exe().expect("this program has a path");
    let disk = folder.path().display();
    let isolated = |command: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--mount", "sh", "-c"]);
        let mount = format!("mount -t tmpfs -o size=2m none {disk} && {command}");
        unshare.arg(mount).env(DISK, folder.path());
        unshare.output()
    };
    if !isolated("true").is_ok_and(|done| done.status.success()) {
        eprintln!("skipped: no file system can be mounted here");
        return;
    }
    let again = format!(
        "{} --exact a_full_disk_refuses_writes_until_there_is_room --nocapture",
        me.display()
    );
    let done = isolated(&again).expect("it runs");
    assert!(
        done.status.success(),
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
}

/// Fills the disk. Returns the file to remove to make room again.
fn fill(disk: &Path) -> PathBuf {
    let filler = disk.join("filler");
    let mut file = std::fs::File::create(&filler).expect("a file");
    for size in [64 << 10, 1 << 10, 1] {
        while std::io::Write::write_all(&mut file, &vec![1; size]).is_ok() {}
    }
    filler
}

fn put(store: &Store, key: String) -> Result<(), Error> {
    wait(store.write(move |tx| {
        tx.next_position();
        scratch::put(
            tx,
            &scratch::ScratchRow::new(1, &key, &json!("x".repeat(4_000)).to_string()),
        )
    }))
}

fn has(store: &Store, key: String) -> bool {
    let read = store.read(move |db| scratch::get(db, 1, &key));
    wait(read).expect("reads go on").is_some()
}

fn story(disk: &Path) {
    let url = format!("sqlite:{}", disk.join("db").display());
    let options = StoreOptions {
        fatal: std::sync::Arc::new(|why| {
            eprintln!("the process would end: {why}");
            std::process::abort();
        }),
        ..StoreOptions::default()
    };
    let store = Store::open(&url, &options).expect("there is room at first");
    put(&store, "first".to_owned()).expect("room");
    for round in 0..3 {
        let filler = fill(disk);
        let mut refused = 0;
        for i in 0..20 {
            let key = format!("{round} {i}");
            match put(&store, key.clone()) {
                Ok(()) => assert!(has(&store, key)),
                Err(error) => {
                    assert!(error.is_temporary(), "{error}");
                    assert!(!has(&store, key));
                    refused += 1;
                }
            }
            assert!(has(&store, "first".to_owned()));
        }
        assert!(refused > 0, "the disk was full");
        std::fs::remove_file(filler).expect("room again");
        put(&store, format!("{round}")).expect("writes again, without a restart");
    }
    store.close();

    // A start either reports the full disk or works as the running server did.
    let filler = fill(disk);
    match Store::open(&url, &options) {
        Ok(store) => {
            assert!(has(&store, "first".to_owned()));
            store.close();
        }
        Err(error) => assert!(error.to_string().contains("the disk is full"), "{error}"),
    }
    let new = Store::open(&format!("{url}-new"), &options);
    let error = new.err().expect("a new database needs room");
    assert!(matches!(error, OpenError::NoRoom(..)), "{error}");
    assert!(error.to_string().contains("the disk is full"), "{error}");
    std::fs::remove_file(filler).expect("room again");
    let store = Store::open(&url, &options).expect("it starts");
    assert!(has(&store, "first".to_owned()) && has(&store, "2".to_owned()));
}
