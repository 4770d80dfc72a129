//! A database of an older schema is brought up to date at the start and keeps everything.

use keyfleet_core::binding::BindingState;
use keyfleet_core::id::{KeyVersion, Revision};
use keyfleet_core::standing::Standing;
use keyfleet_store::{Error, Store, TokenUse, Tx};
use rusqlite::Connection;

use crate::common::{Database, assignment, at, binding_id, key_name, said};

/// As the first version left it, with a row in each table.
const SCHEMA_1: &str = include_str!("schema-1.sql");

fn first_schema() -> Database {
    let database = Database::new();
    let connection = Connection::open(database.path()).unwrap();
    connection.execute_batch(SCHEMA_1).unwrap();
    database
}

async fn read<T: Send + 'static>(
    store: &Store,
    look: impl FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
) -> T {
    store.read(look).await.unwrap()
}

#[tokio::test]
async fn the_first_schema_is_migrated_and_keeps_everything() {
    let database = first_schema();
    let store = database.open();
    assert_eq!(store.epoch(), 8);
    assert_eq!(said(&store).await, ["kept"]);

    let deployments = read(&store, |tx| tx.deployments()).await;
    let [deployment] = deployments.as_slice() else {
        panic!("{deployments:?}")
    };
    assert_eq!(deployment.name.as_str(), "kibana-eu");
    assert_eq!(
        (deployment.generation.epoch, deployment.generation.counter),
        (7, 3)
    );
    assert_eq!(deployment.standing, Standing::Active);
    assert_eq!(
        (deployment.certificate_given, deployment.certificate_seen),
        (1, 0)
    );

    let id = binding_id(1, "default", "assistant");
    let binding = read(&store, move |tx| tx.binding(&id)).await.unwrap();
    assert_eq!(binding.progress.state, BindingState::Proven);
    assert_eq!(binding.running, Some(assignment(2, 1)));
    assert_eq!(binding.desired.unwrap().attempt, 4);

    let connectors = read(&store, |tx| tx.connectors()).await;
    let revisions: Vec<Revision> = connectors.iter().map(|c| c.revision.revision).collect();
    assert_eq!(revisions, [Revision(2), Revision(1)]);
    assert_eq!(read(&store, |tx| tx.placements()).await.len(), 1);
    let versions = read(&store, |tx| tx.key_versions(&key_name())).await;
    assert_eq!(versions.first().unwrap().version, KeyVersion(1));
    assert_eq!(read(&store, |tx| tx.holdings(&key_name())).await.len(), 1);
    assert_eq!(read(&store, |tx| tx.evidence(&key_name())).await.len(), 1);

    check_tokens(&store).await;
    check_rollouts(&store).await;

    assert_eq!(read(&store, |tx| tx.audit_head()).await.0, 0);
    assert_eq!(read(&store, |tx| tx.andon()).await, None);
    assert_eq!(
        read(&store, |tx| tx.floors()).await,
        keyfleet_store::Floors::default()
    );
}

async fn check_tokens(store: &Store) {
    let admin = read(store, |tx| tx.token_of_hash(&[3; 32])).await.unwrap();
    let TokenUse::Operator { scope, .. } = admin.usage else {
        panic!("{admin:?}")
    };
    assert!(scope.is_everything(), "a token without a scope is for all");
    let join = read(store, |tx| tx.token_of_hash(&[4; 32])).await.unwrap();
    assert!(matches!(
        join.usage,
        TokenUse::Join {
            uses_left: 5,
            deployment: None,
            ..
        }
    ));
}

async fn check_rollouts(store: &Store) {
    let strategies = read(store, |tx| tx.strategies()).await;
    let [strategy] = strategies.as_slice() else {
        panic!("{strategies:?}")
    };
    assert_eq!(
        strategy.validate(),
        Ok(()),
        "what is new has its old meaning"
    );
    let rollouts = read(store, |tx| tx.active_rollouts()).await;
    let [rollout] = rollouts.as_slice() else {
        panic!("{rollouts:?}")
    };
    assert_eq!(rollout.strategy, *strategy);
    assert_eq!(
        (rollout.run.wave, rollout.run.author.as_str()),
        (Some(1), "anna")
    );
    assert_eq!(rollout.run.paused_at, None);
    assert_eq!(rollout.run.rollback_reason, "", "it does not go back");
    let id = rollout.id;
    let targets = read(store, move |tx| tx.rollout_targets(id)).await;
    assert!(targets.len() == 1 && !targets[0].left, "{targets:?}");
}

#[tokio::test]
async fn a_migration_cut_off_by_a_crash_is_done_at_the_next_start() {
    let database = first_schema();
    // A transaction that was never committed: the service was killed in the middle.
    let connection = Connection::open(database.path()).unwrap();
    connection
        .execute_batch(
            "BEGIN; ALTER TABLE service ADD COLUMN andon_by TEXT; PRAGMA user_version = 2;",
        )
        .unwrap();
    let copy = database.file("crashed.db");
    std::fs::copy(database.path(), &copy).unwrap();
    drop(connection);
    for path in [copy, database.path()] {
        let store = Store::open(&path).unwrap();
        assert_eq!(said(&store).await, ["kept"]);
    }
}

#[tokio::test]
async fn a_backup_of_the_first_schema_is_migrated_when_it_is_brought_back() {
    let database = first_schema();
    let backup = database.file("backup.db");
    let made = keyfleet_store::backup(&database.path(), &backup, false, at(0)).unwrap();
    assert_eq!((made.schema, made.epoch, made.audit_head.0), (1, 7, 0));
    std::fs::remove_file(database.path()).unwrap();
    let restore = keyfleet_store::Restore::prepare(&database.path(), &backup).unwrap();
    assert_eq!(restore.backup.schema, 1);
    let why = keyfleet_store::Why {
        principal: "test".to_owned(),
        reason: String::new(),
        at: at(60),
    };
    restore.carry_out(&why).unwrap();
    let store = database.open();
    assert_eq!(said(&store).await, ["kept"]);
    assert_eq!(read(&store, |tx| tx.audit_head()).await.0, 1);
}
