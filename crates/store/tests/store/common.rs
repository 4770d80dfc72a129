//! What the tests share: a database in a directory of its own, times, names, and one way to check what is stored.

use std::path::PathBuf;

use keyfleet_core::Timestamp;
use keyfleet_core::binding::{Assignment, BindingId, BindingState};
use keyfleet_core::fleet::{Operator, Requirement, Selector};
use keyfleet_core::id::{DeploymentId, KeyName, KeyVersion, Revision, RolloutId};
use keyfleet_store::{Binding, Error, Progress, Store, Tx};
use tempfile::TempDir;
use uuid::Uuid;

/// A database in a directory that is deleted at the end of the test.
pub(crate) struct Database {
    dir: TempDir,
}

impl Database {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("keyfleet.db")
    }

    pub(crate) fn open(&self) -> Store {
        Store::open(&self.path()).unwrap()
    }
}

/// A point in time to the nanosecond, `seconds` after another.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::new(1_795_435_200 + seconds, 123_456_789).unwrap()
}

/// Runs `work` in one transaction on a new database, then reopens it and runs `look`.
pub(crate) async fn check<T: Send + 'static>(
    work: impl FnOnce(&Tx<'_>) -> Result<(), Error> + Send + 'static,
    look: impl FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
) -> T {
    let database = Database::new();
    let store = database.open();
    store.write(work).await.unwrap();
    store.close().await;
    database.open().read(look).await.unwrap()
}

pub(crate) fn binding_id(deployment: u128, space: &str, connector: &str) -> BindingId {
    BindingId {
        deployment: DeploymentId::new(Uuid::from_u128(deployment)),
        space: space.parse().unwrap(),
        connector: connector.parse().unwrap(),
    }
}

pub(crate) fn rollout_id(id: u128) -> RolloutId {
    RolloutId::new(Uuid::from_u128(id))
}

pub(crate) fn key_name() -> KeyName {
    "openai".parse().unwrap()
}

pub(crate) fn assignment(revision: u64, version: u64) -> Assignment {
    Assignment {
        revision: Revision(revision),
        key_version: KeyVersion(version),
    }
}

pub(crate) fn selector() -> Selector {
    let requirement = |key: &str, operator| Requirement {
        key: key.into(),
        operator,
    };
    Selector {
        requirements: vec![
            requirement(
                "env",
                Operator::In(vec!["prod".into(), "ü \"quoted\"".into()]),
            ),
            requirement("tier", Operator::NotIn(vec!["1".into()])),
            requirement("there", Operator::Exists),
            requirement("gone", Operator::DoesNotExist),
        ],
    }
}

pub(crate) fn waiting(id: BindingId) -> Binding {
    Binding {
        id,
        placement: "everywhere".parse().unwrap(),
        goal: Some(assignment(1, 1)),
        held_by: None,
        desired: None,
        progress: Progress {
            state: BindingState::Waiting,
            at: at(0),
            failure: None,
            baseline_ok: None,
        },
        running: None,
        last_proven: None,
        proven_at: None,
    }
}
