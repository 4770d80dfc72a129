//! A crash at any moment loses nothing that was acknowledged and leaves nothing half.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::{Database, at, said};
use keyfleet_store::{Error, Event, EventScope, Store, Tx};

/// Names the database to the child process; unset in an ordinary run of the tests.
const DATABASE: &str = "KEYFLEET_TEST_CRASH_DATABASE";

/// Writers at a time in the child, so that commits are groups.
const WRITERS: usize = 4;

/// The child is killed after so many acknowledgements, each time others, and so at other moments of a commit.
const ACKNOWLEDGED: [usize; 12] = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233];

/// Rows of one transaction: all of them are there or none.
const ROWS: usize = 3;

/// Bytes of a page, of the head of a log, and of the head of each page in it (SQLite's file format, section 4).
const PAGE: usize = 4096;
const LOG_HEAD: usize = 32;
const FRAME: usize = 24 + PAGE;

/// The child process: writes and says so, until it is killed. In an ordinary run it has nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn the_child_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(DATABASE) else {
        return;
    };
    let store = Store::open(Path::new(&path)).unwrap();
    let epoch = store.epoch();
    let writer = |writer: usize| {
        let store = store.clone();
        tokio::spawn(async move {
            // The pipe breaks when the parent dies.
            for count in 0.. {
                let row = format!("{epoch}-{writer}-{count}");
                write(&store, &row).await.unwrap();
                writeln!(std::io::stdout(), "\nstored {row}").unwrap();
            }
        })
    };
    for writer in (0..WRITERS).map(writer).collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn every_acknowledged_row_survives_kill_9_and_nothing_is_half() {
    let database = Database::new();
    let mut acknowledged = BTreeSet::new();
    for (round, count) in (1_u64..).zip(ACKNOWLEDGED) {
        acknowledged.extend(run_child_and_kill_it(&database.path(), count));
        let store = database.open();
        assert_eq!(
            store.epoch(),
            round * 2,
            "each start counts, the child's and ours"
        );
        let found = whole_transactions(said(&store).await);
        let lost: Vec<_> = acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "lost {lost:?}");
        store.close().await;
    }
    assert!(acknowledged.len() >= ACKNOWLEDGED.iter().sum());
}

/// Where a script of transactions stood when each was acknowledged: the length of the log.
struct Script {
    database: Database,
    acknowledged: BTreeMap<usize, String>,
    log: Vec<u8>,
}

impl Script {
    /// Runs transactions of several rows, and leaves database and log as they were before the log was folded in.
    async fn run() -> Self {
        let database = Database::new();
        // An own log: what a first start writes is folded in.
        let store = database.open();
        store.close().await;
        drop(store);
        let store = database.open();
        let mut acknowledged = BTreeMap::new();
        let log_path = database.file("keyfleet.db-wal");
        for row in 0..12 {
            let row = format!("{row} {}", "x".repeat(1500));
            write(&store, &row).await.unwrap();
            acknowledged.insert(std::fs::read(&log_path).unwrap().len(), row);
        }
        let log = std::fs::read(&log_path).unwrap();
        std::fs::copy(database.path(), database.file("before.db")).unwrap();
        store.close().await;
        Self {
            database,
            acknowledged,
            log,
        }
    }

    /// A copy of the database in some state, with a log of some length.
    fn crashed(&self, database: &[u8], log: &[u8]) -> PathBuf {
        let path = self.database.file("crashed.db");
        for suffix in ["-wal", "-shm", ".lock"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
        }
        std::fs::write(&path, database).unwrap();
        std::fs::write(self.database.file("crashed.db-wal"), log).unwrap();
        path
    }
}

#[tokio::test]
async fn a_crash_at_every_write_of_the_log_leaves_the_transactions_that_were_whole() {
    let script = Script::run().await;
    let before = std::fs::read(script.database.file("before.db")).unwrap();
    let frames = (script.log.len() - LOG_HEAD) / FRAME;
    assert!(frames >= 3 * script.acknowledged.len(), "{frames} frames");
    let mut cuts: BTreeSet<usize> = (0..=frames).map(|n| LOG_HEAD + n * FRAME).collect();
    // In the middle of the head, of a frame's head and of a page too.
    cuts.extend((0..frames).flat_map(|n| [8, 24, 24 + PAGE / 2].map(|m| LOG_HEAD + n * FRAME + m)));
    cuts.extend([0, 16]);
    for cut in cuts {
        let path = script.crashed(&before, &script.log[..cut]);
        let store = Store::open(&path).unwrap();
        let found = whole_transactions(said(&store).await);
        let due = script
            .acknowledged
            .range(..=cut)
            .map(|(_, row)| row.clone());
        assert_eq!(found, due.collect(), "cut after {cut} bytes");
        store.close().await;
    }
}

#[tokio::test]
async fn a_crash_while_the_log_is_folded_in_loses_nothing() {
    let script = Script::run().await;
    let before = std::fs::read(script.database.file("before.db")).unwrap();
    let after = std::fs::read(script.database.path()).unwrap();
    let due: BTreeSet<String> = script.acknowledged.values().cloned().collect();
    for page in 0..=after.len() / PAGE {
        // Pages go over one by one, and the log stays until all of them are on disk.
        let mut torn = after[..page * PAGE].to_vec();
        torn.extend(before.get(page * PAGE..).unwrap_or_default());
        let store = Store::open(&script.crashed(&torn, &script.log)).unwrap();
        assert_eq!(whole_transactions(said(&store).await), due, "{page} pages");
        store.close().await;
    }
}

#[tokio::test]
async fn a_copy_of_database_and_log_at_each_acknowledgement_has_what_was_acknowledged() {
    let database = Database::new();
    let store = database.open();
    let copy = database.file("copy.db");
    let mut due = BTreeSet::new();
    for row in 0..20 {
        let row = row.to_string();
        write(&store, &row).await.unwrap();
        due.insert(row);
        for suffix in ["", "-wal"] {
            let from = format!("{}{suffix}", database.path().display());
            std::fs::copy(from, format!("{}{suffix}", copy.display())).unwrap();
        }
        let copied = Store::open(&copy).unwrap();
        assert_eq!(whole_transactions(said(&copied).await), due);
        copied.close().await;
    }
}

/// A transaction of several rows.
async fn write(store: &Store, row: &str) -> Result<(), Error> {
    let event = Event {
        at: at(0),
        actor: "child".into(),
        text: row.to_owned(),
    };
    let rows = move |tx: &Tx<'_>| {
        for _ in 0..ROWS {
            tx.add_event(EventScope::Service, &event)?;
        }
        Ok(())
    };
    store.write(rows).await
}

/// The transactions, each of which must have all its rows.
fn whole_transactions(rows: Vec<String>) -> BTreeSet<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows {
        *counts.entry(row).or_default() += 1;
    }
    let half: Vec<_> = counts.iter().filter(|(_, count)| **count != ROWS).collect();
    assert!(half.is_empty(), "half: {half:?}");
    counts.into_keys().collect()
}

/// The rows that the child said were stored, up to its last word.
fn run_child_and_kill_it(database: &Path, count: usize) -> BTreeSet<String> {
    let mut child: Child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "crash::the_child_writes_until_it_is_killed",
            "--nocapture",
        ])
        .env(DATABASE, database)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut rows = BTreeSet::new();
    for line in output.lines().map_while(Result::ok) {
        if let Some(row) = line.strip_prefix("stored ") {
            rows.insert(row.to_owned());
        }
        if rows.len() == count {
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success());
    rows
}
