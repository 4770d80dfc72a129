//! A restore that is cut off after any of its steps leaves the old database or the new one.

use super::*;
use crate::{Error, Event, EventScope, Store, Tx, backup};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_435_200 + second).unwrap()
}

fn why() -> Why {
    Why {
        principal: "test".to_owned(),
        reason: String::new(),
        at: at(9),
    }
}

async fn say(store: &Store, text: &str) {
    let event = Event {
        at: at(0),
        actor: "test".to_owned(),
        text: text.to_owned(),
    };
    let write = move |tx: &Tx<'_>| tx.add_event(EventScope::Service, &event);
    store.write::<_, Error, _>(write).await.unwrap();
}

async fn said(store: &Store) -> Vec<String> {
    let read = |tx: &Tx<'_>| tx.events(EventScope::Service, 100);
    let events = store.read::<_, Error, _>(read).await.unwrap();
    events.into_iter().map(|event| event.text).collect()
}

/// A database that has gone on since its backup; with a log beside it where `crashed`.
async fn database_and_backup(dir: &Path, crashed: bool) -> (PathBuf, PathBuf) {
    let (database, file) = (dir.join("keyfleet.db"), dir.join("backup.db"));
    let store = Store::open(&database).unwrap();
    say(&store, "old").await;
    backup(&database, &file, false, at(1)).unwrap();
    say(&store, "new").await;
    let log = dir.join("log");
    std::fs::copy(file::beside(&database, "-wal"), &log).unwrap();
    let whole = dir.join("whole");
    std::fs::copy(&database, &whole).unwrap();
    store.close().await;
    drop(store);
    if crashed {
        // As the service leaves it that is killed.
        std::fs::rename(&log, file::beside(&database, "-wal")).unwrap();
        std::fs::rename(&whole, &database).unwrap();
    }
    (database, file)
}

#[tokio::test]
async fn a_restore_cut_off_after_any_step_leaves_the_old_database_or_the_new() {
    for crashed in [false, true] {
        for steps in 0..=STEPS.len() {
            let dir = tempfile::tempdir().unwrap();
            let (database, file) = database_and_backup(dir.path(), crashed).await;
            let restore = Restore::prepare(&database, &file).unwrap();
            let readable = matches!(
                restore.present,
                Present::Readable {
                    continues: true,
                    ..
                }
            );
            assert!(readable, "{:?}", restore.present);
            let (restored, mut swap) = restore.begin(&why()).unwrap();
            for step in STEPS.iter().take(steps) {
                step(&mut swap).unwrap();
            }
            // A process that is killed cleans nothing up and frees its lock.
            std::mem::forget(swap.draft.take());
            drop(swap);
            let store = Store::open(&database).unwrap();
            let expected: &[&str] = if steps == STEPS.len() {
                &["old"]
            } else {
                &["old", "new"]
            };
            assert_eq!(
                said(&store).await,
                expected,
                "crashed: {crashed}, {steps} steps"
            );
            store.close().await;
            drop(store);
            if steps == STEPS.len() {
                let kept = Store::open(&restored.kept.unwrap()).unwrap();
                assert_eq!(said(&kept).await, ["old", "new"]);
            } else {
                // It can be begun again, whatever was left.
                let later = Why {
                    at: at(10),
                    ..why()
                };
                let again = Restore::prepare(&database, &file).unwrap();
                again.carry_out(&later).unwrap();
                assert_eq!(said(&Store::open(&database).unwrap()).await, ["old"]);
            }
        }
    }
}
