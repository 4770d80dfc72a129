//! A backup is a whole database of one moment in one file, made beside a service that goes on.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use keyfleet_store::{Error, Store, backup};

use crate::common::{Database, at, said, say};

/// The files in a database's directory.
fn files(database: &Database) -> Vec<String> {
    let dir = database.path().parent().unwrap().to_owned();
    let names = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = names
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("keyfleet.db"))
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_backup_is_one_private_file_with_everything_up_to_its_moment() {
    let database = Database::new();
    let store = database.open();
    say(&store, "before").await.unwrap();
    let file = database.file("backup.db");
    let made = backup(&database.path(), &file, false, at(5)).unwrap();
    say(&store, "after").await.unwrap();
    assert_eq!((made.epoch, made.backed_up_at), (1, Some(at(5))));
    assert_eq!(made.last_event_at, Some(at(0)));
    assert_eq!(files(&database), ["backup.db"], "nothing lies beside it");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert_eq!(said(&Store::open(&file).unwrap()).await, ["before"]);
    assert_eq!(said(&store).await, ["before", "after"]);
}

#[tokio::test]
async fn a_backup_is_made_of_a_service_that_is_stopped_or_was_killed() {
    let database = Database::new();
    let store = database.open();
    say(&store, "one").await.unwrap();
    // What a killed service leaves: the rows are in the log only.
    let killed = database.file("killed.db");
    for suffix in ["", "-wal"] {
        let from = format!("{}{suffix}", database.path().display());
        std::fs::copy(from, format!("{}{suffix}", killed.display())).unwrap();
    }
    store.close().await;
    drop(store);
    for (from, to) in [(database.path(), "stopped"), (killed, "of-killed")] {
        let to = database.file(to);
        backup(&from, &to, false, at(0)).unwrap();
        assert_eq!(said(&Store::open(&to).unwrap()).await, ["one"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_taken_while_everybody_writes_is_a_prefix_of_what_was_written() {
    let database = Database::new();
    let store = database.open();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (writing, until) = (store.clone(), stop.clone());
    let writer = tokio::spawn(async move {
        let mut count = 0_u32;
        while !until.load(std::sync::atomic::Ordering::Relaxed) {
            say(&writing, &count.to_string()).await.unwrap();
            count += 1;
        }
        count
    });
    let mut sizes = Vec::new();
    for round in 0..5 {
        let (from, to) = (database.path(), database.file(&format!("{round}.db")));
        let made = to.clone();
        let work = move || backup(&from, &made, false, at(round)).unwrap();
        tokio::task::spawn_blocking(work).await.unwrap();
        let rows = said(&Store::open(&to).unwrap()).await;
        let expected: Vec<String> = (0..rows.len()).map(|n| n.to_string()).collect();
        assert_eq!(rows, expected);
        sizes.push(rows.len());
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let count = writer.await.unwrap();
    assert!(sizes.is_sorted() && sizes.last() <= Some(&usize::try_from(count).unwrap()));
}

#[tokio::test]
async fn nothing_is_overwritten_unless_it_is_said() {
    let database = Database::new();
    let store = database.open();
    let file = database.file("backup.db");
    std::fs::write(&file, "precious").unwrap();
    let refused = backup(&database.path(), &file, false, at(0)).unwrap_err();
    assert!(matches!(refused, Error::Exists { .. }), "{refused}");
    assert!(refused.to_string().contains("--force"), "{refused}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    backup(&database.path(), &file, true, at(0)).unwrap();
    assert_eq!(Store::open(&file).unwrap().epoch(), 2);
    drop(store);
}

#[tokio::test]
async fn a_backup_that_fails_leaves_the_older_one_and_nothing_else() {
    let database = Database::new();
    let store = database.open();
    say(&store, "one").await.unwrap();
    store.close().await;
    drop(store);
    let file = database.file("backup.db");
    std::fs::write(&file, "the older one").unwrap();
    let empty = database.file("empty.db");
    std::fs::write(&empty, "").unwrap();
    let foreign = database.file("foreign.db");
    let connection = rusqlite::Connection::open(&foreign).unwrap();
    connection.execute_batch("CREATE TABLE other (id)").unwrap();
    drop(connection);
    let check = |from: &Path, to: &Path, says: &str| {
        let err = backup(from, to, true, at(0)).unwrap_err().to_string();
        assert!(err.contains(says), "{err}");
    };
    check(&empty, &file, "empty");
    check(&foreign, &file, "no database of keyfleet-control");
    check(&database.file("missing.db"), &file, "missing.db");
    check(
        &database.path(),
        &database.file("no/such/dir"),
        "no/such/dir",
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "the older one");
    assert_eq!(files(&database), ["backup.db", "empty.db", "foreign.db"]);
}
