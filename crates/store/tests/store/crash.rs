//! `kill -9` at any moment loses nothing that was acknowledged.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::{Database, at};
use keyfleet_store::{Error, Event, EventScope, Store, Tx};

/// Names the database to the child process; unset in an ordinary run of the tests.
const DATABASE: &str = "KEYFLEET_TEST_CRASH_DATABASE";

/// Writers at a time in the child, so that commits are groups.
const WRITERS: usize = 4;

/// Acknowledgements after which the child is killed.
const ACKNOWLEDGED: usize = 200;

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
async fn every_acknowledged_row_survives_kill_9() {
    let database = Database::new();
    let mut acknowledged = BTreeSet::new();
    for round in 1..=3_u64 {
        acknowledged.extend(run_child_and_kill_it(&database.path()));
        let store = database.open();
        assert_eq!(
            store.epoch(),
            round * 2,
            "each start counts, the child's and ours"
        );
        let events = move |tx: &Tx<'_>| tx.events(EventScope::Service, u32::MAX);
        let found = store.read::<_, Error, _>(events).await.unwrap();
        let found: BTreeSet<String> = found.into_iter().map(|event| event.text).collect();
        let lost: Vec<_> = acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "lost {lost:?}");
        store.close().await;
    }
    assert!(acknowledged.len() >= 3 * ACKNOWLEDGED);
}

async fn write(store: &Store, row: &str) -> Result<(), Error> {
    let event = Event {
        at: at(0),
        actor: "child".into(),
        text: row.to_owned(),
    };
    store
        .write(move |tx| tx.add_event(EventScope::Service, &event))
        .await
}

/// The rows that the child said were stored, up to its last word.
fn run_child_and_kill_it(database: &Path) -> BTreeSet<String> {
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
        if rows.len() == ACKNOWLEDGED {
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success());
    rows
}
