//! What a restore refuses, what it keeps, and what it changes so that a fleet that has gone on takes it.

use std::path::PathBuf;

use keyfleet_core::audit::{Entry, Outcome};
use keyfleet_core::binding::BindingState;
use keyfleet_core::id::{Generation, TokenId};
use keyfleet_core::rollout::{Phase, Run};
use keyfleet_store::{
    Binding, Desired, Error, Floors, Present, Restore, Restored, Rollout, Store, Token, TokenUse,
    Tx, Why, backup,
};
use uuid::Uuid;

use crate::common::{
    Database, assignment, at, binding_id, deployment, key_name, rollout_id, said, say, strategy,
    waiting,
};

fn why() -> Why {
    Why {
        principal: "keyfleet-control restore".to_owned(),
        reason: "the disk died".to_owned(),
        at: at(100),
    }
}

fn restore(database: &Database, backup: &std::path::Path) -> Result<Restored, Error> {
    Restore::prepare(&database.path(), backup)?.carry_out(&why())
}

async fn read<T: Send + 'static>(
    store: &Store,
    look: impl FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
) -> T {
    store.read(look).await.unwrap()
}

async fn write(store: &Store, work: impl FnOnce(&Tx<'_>) -> Result<(), Error> + Send + 'static) {
    store.write(work).await.unwrap();
}

fn told(connector: &str, revision: u64) -> Binding {
    let mut binding = waiting(binding_id(1, "default", connector));
    binding.desired = Some(Desired {
        assignment: Some(assignment(revision, 1)),
        attempt: 3,
        generation: Generation {
            epoch: 1,
            counter: 1,
        },
    });
    binding.running = Some(assignment(revision, 1));
    binding.last_proven = binding.running;
    binding.progress.state = BindingState::Proven;
    binding
}

fn removed(connector: &str, running: bool) -> Binding {
    let mut binding = told(connector, 1);
    binding.goal = None;
    binding.desired = binding.desired.map(|told| Desired {
        assignment: None,
        ..told
    });
    binding.running = binding.running.filter(|_| running);
    binding
}

fn join_token(id: u128) -> Token {
    Token {
        id: TokenId::new(Uuid::from_u128(id)),
        usage: TokenUse::Join {
            labels: [].into(),
            uses_left: 5,
            deployment: None,
        },
        principal: "anna".into(),
        expires_at: at(60),
        created_at: at(0),
        created_by: "anna".into(),
        revoked: false,
    }
}

fn act(action: &str) -> Entry {
    Entry {
        number: 0,
        at: at(0),
        principal: "anna".into(),
        token: String::new(),
        action: action.into(),
        target: "test".into(),
        outcome: Outcome::Done,
        reason: String::new(),
        detail: String::new(),
    }
}

/// A fleet with everything that a restore touches, and its backup.
async fn fleet(database: &Database) -> (Store, PathBuf) {
    let store = database.open();
    let epoch = store.epoch();
    write(&store, move |tx| {
        let known = deployment(1);
        tx.insert_deployment(&known)?;
        tx.next_generation(known.id, epoch)?;
        tx.set_digest(known.id, &[1; 32])?;
        for binding in [
            told("assistant", 1),
            removed("going", true),
            removed("gone", false),
        ] {
            tx.put_binding(&binding)?;
        }
        let id = binding_id(1, "default", "assistant");
        tx.open_holding(&id, &key_name(), assignment(1, 1).key_version, at(0))?;
        let rollout = Rollout {
            id: rollout_id(1),
            strategy: strategy(),
            cause: "test".into(),
            actor: "anna".into(),
            run: Run {
                phase: Phase::Progressing,
                ..Run::new("anna", at(0))
            },
            started_at: at(0),
            ended_at: None,
        };
        tx.insert_rollout(&rollout, &[], &[])?;
        tx.insert_token(&join_token(1), &[1; 32])?;
        tx.append_audit(act("test.before"))
    })
    .await;
    let file = database.file("backup.db");
    backup(&database.path(), &file, false, at(50)).unwrap();
    (store, file)
}

#[tokio::test]
async fn a_fleet_that_was_restored_was_told_nothing_and_is_stopped() {
    let database = Database::new();
    let (store, file) = fleet(&database).await;
    store.close().await;
    drop(store);
    std::fs::remove_file(database.path()).unwrap();
    let restored = restore(&database, &file).unwrap();
    let seconds = u64::try_from(at(100).as_second()).unwrap();
    assert_eq!((restored.epoch, restored.kept), (seconds, None));

    let store = database.open();
    assert_eq!(store.epoch(), seconds + 1);
    assert_eq!(read(&store, |tx| tx.restored_epoch()).await, seconds);
    let floors = Floors {
        attempt: 2_000_000,
        revision: 2_000,
    };
    assert_eq!(read(&store, |tx| tx.floors()).await, floors);
    let andon = read(&store, |tx| tx.andon()).await.unwrap();
    assert_eq!(
        andon.reason,
        "restored from a backup of 2026-11-23T12:00:50Z"
    );

    let known = read(&store, |tx| tx.deployment(deployment(1).id))
        .await
        .unwrap();
    assert_eq!(known.generation, Generation::default());
    let bindings = read(&store, |tx| tx.bindings()).await;
    let names: Vec<&str> = bindings.iter().map(|b| b.id.connector.as_str()).collect();
    assert_eq!(names, ["assistant", "going"], "what is gone is forgotten");
    let (kept, going) = (&bindings[0], &bindings[1]);
    assert_eq!(
        (kept.desired, kept.progress.state),
        (None, BindingState::Unknown)
    );
    assert_eq!(kept.last_proven, Some(assignment(1, 1)));
    assert!(
        !kept.is_told_goal(),
        "a rollout brings it what it shall have"
    );
    assert!(
        going.goal.is_none() && going.desired.is_none() && !going.is_told_goal(),
        "a rollout takes it away"
    );

    assert!(read(&store, |tx| tx.active_rollouts()).await.is_empty());
    let join = read(&store, |tx| tx.token_of_hash(&[1; 32])).await.unwrap();
    assert!(join.revoked, "uses since the backup are not known");
    let log = read(&store, |tx| tx.audit(1, 9)).await;
    let [before, ours] = log.as_slice() else {
        panic!("{log:?}")
    };
    assert_eq!(ours.previous, before.hash, "the chain goes on");
    assert_eq!(ours.entry.action, "store.restore");
    assert_eq!(ours.entry.principal, "keyfleet-control restore");
    assert_eq!(ours.entry.reason, "the disk died");
}

#[tokio::test]
async fn who_is_trusted_and_who_may_hold_what_comes_from_the_present_database() {
    let database = Database::new();
    let (store, file) = fleet(&database).await;
    write(&store, |tx| {
        tx.insert_deployment(&deployment(2))?;
        tx.insert_token(&join_token(2), &[2; 32])?;
        tx.revoke_token(join_token(1).id)?;
        let id = binding_id(1, "default", "assistant");
        tx.open_holding(&id, &key_name(), assignment(1, 2).key_version, at(60))?;
        tx.append_audit(act("test.after"))
    })
    .await;
    say(&store, "lost").await.unwrap();
    store.close().await;
    drop(store);
    let prepared = Restore::prepare(&database.path(), &file).unwrap();
    assert!(matches!(
        prepared.present,
        Present::Readable {
            continues: true,
            ..
        }
    ));
    assert_eq!(prepared.present.contents().unwrap().audit_head.0, 2);
    let restored = prepared.carry_out(&why()).unwrap();

    let store = database.open();
    assert!(said(&store).await.is_empty());
    assert_eq!(read(&store, |tx| tx.deployments()).await.len(), 2);
    let tokens = read(&store, |tx| tx.tokens()).await;
    let revoked: Vec<bool> = tokens.iter().map(|token| token.revoked).collect();
    assert_eq!(
        revoked,
        [true, false],
        "what was revoked stays so, what is newer is known"
    );
    assert_eq!(read(&store, |tx| tx.holdings(&key_name())).await.len(), 2);
    let log = read(&store, |tx| tx.audit(2, 9)).await;
    assert!(log[0].entry.detail.contains("went to entry 2"), "{log:?}");
    let kept = Store::open(&restored.kept.unwrap()).unwrap();
    assert_eq!(said(&kept).await, ["lost"], "the replaced database is kept");
}

#[tokio::test]
async fn nothing_is_taken_over_from_a_database_of_another_history() {
    let database = Database::new();
    let (store, file) = fleet(&database).await;
    store.close().await;
    drop(store);
    let other = Database::new();
    let store = other.open();
    write(&store, |tx| tx.append_audit(act("test.other"))).await;
    store.close().await;
    drop(store);
    let prepared = Restore::prepare(&other.path(), &file).unwrap();
    assert!(matches!(
        prepared.present,
        Present::Readable {
            continues: false,
            ..
        }
    ));
    prepared.carry_out(&why()).unwrap();
    assert_eq!(read(&other.open(), |tx| tx.deployments()).await.len(), 1);
}

#[tokio::test]
async fn floors_and_epochs_only_rise() {
    let database = Database::new();
    let (store, file) = fleet(&database).await;
    store.close().await;
    drop(store);
    let first = restore(&database, &file).unwrap();
    let later = Why {
        at: at(101),
        ..why()
    };
    let again = Restore::prepare(&database.path(), &file).unwrap();
    let second = again.carry_out(&later).unwrap();
    assert!(second.epoch > first.epoch);
    let floors = Floors {
        attempt: 4_000_000,
        revision: 4_000,
    };
    assert_eq!(
        second.floors, floors,
        "the present one may have given numbers above its floor"
    );
}

#[tokio::test]
async fn what_cannot_be_brought_back_is_refused_and_changes_nothing() {
    let database = Database::new();
    let (store, file) = fleet(&database).await;
    let locked = Restore::prepare(&database.path(), &file).unwrap_err();
    assert!(matches!(locked, Error::Locked { .. }), "{locked}");
    say(&store, "kept").await.unwrap();
    store.close().await;
    drop(store);
    let check = |name: &str, spoil: &dyn Fn(&std::path::Path), says: &str| {
        let spoiled = database.file(name);
        std::fs::copy(&file, &spoiled).unwrap();
        spoil(&spoiled);
        let err = restore(&database, &spoiled).unwrap_err().to_string();
        assert!(err.contains(says) && err.contains(name), "{name}: {err}");
    };
    check(
        "text.db",
        &|path| std::fs::write(path, "not a database").unwrap(),
        "not a database",
    );
    check(
        "empty.db",
        &|path| std::fs::write(path, "").unwrap(),
        "empty",
    );
    check(
        "missing.db",
        &|path| std::fs::remove_file(path).unwrap(),
        "cannot read",
    );
    check(
        "newer.db",
        &|path| {
            let connection = rusqlite::Connection::open(path).unwrap();
            connection.pragma_update(None, "user_version", 99).unwrap();
        },
        "schema 99",
    );
    check(
        "torn.db",
        &|path| {
            let bytes = std::fs::read(path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        },
        "is damaged",
    );
    check(
        "foreign.db",
        &|path| {
            std::fs::remove_file(path).unwrap();
            let connection = rusqlite::Connection::open(path).unwrap();
            connection.execute_batch("CREATE TABLE other (id)").unwrap();
        },
        "no database of keyfleet-control",
    );
    assert!(!database.file("keyfleet.db.restore").exists());
    assert_eq!(said(&database.open()).await, ["kept"]);
}

#[tokio::test]
async fn a_present_database_that_cannot_be_read_is_kept_and_replaced() {
    for bytes in [&b"garbage that is no database"[..], &b""[..]] {
        let database = Database::new();
        let (store, file) = fleet(&database).await;
        store.close().await;
        drop(store);
        std::fs::write(database.path(), bytes).unwrap();
        std::fs::write(database.file("keyfleet.db-wal"), "its log").unwrap();
        let prepared = Restore::prepare(&database.path(), &file).unwrap();
        assert!(matches!(prepared.present, Present::Unreadable(_)));
        let kept = prepared.carry_out(&why()).unwrap().kept.unwrap();
        assert_eq!(std::fs::read(&kept).unwrap(), bytes);
        let log = format!("{}-wal", kept.display());
        assert_eq!(std::fs::read_to_string(log).unwrap(), "its log");
        assert_eq!(read(&database.open(), |tx| tx.deployments()).await.len(), 1);
    }
}
