//! What the tests share: a database in a directory of its own, times, names, and one way to check what is stored.

use std::path::PathBuf;

use keyfleet_core::Timestamp;
use keyfleet_core::binding::{Assignment, BindingId, BindingState};
use keyfleet_core::fleet::{Operator, Requirement, Selector};
use keyfleet_core::id::{
    DeploymentId, EnrolmentId, Generation, KeyName, KeyVersion, Revision, RolloutId,
};
use keyfleet_core::rollout::{Strategy, default_strategy};
use keyfleet_core::standing::Standing;
use keyfleet_store::{Binding, Deployment, Error, Event, EventScope, Progress, Store, Tx};
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

    /// A file beside the database.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("keyfleet.db")
    }

    pub(crate) fn open(&self) -> Store {
        Store::open(&self.path()).unwrap()
    }
}

/// Adds a sentence to the history.
pub(crate) async fn say(store: &Store, text: &str) -> Result<(), Error> {
    let event = Event {
        at: at(0),
        actor: "test".into(),
        text: text.to_owned(),
    };
    let write = move |tx: &Tx<'_>| tx.add_event(EventScope::Service, &event);
    store.write(write).await
}

/// The history so far.
pub(crate) async fn said(store: &Store) -> Vec<String> {
    let read = |tx: &Tx<'_>| tx.events(EventScope::Service, u32::MAX);
    let events = store.read::<_, Error, _>(read).await.unwrap();
    events.into_iter().map(|event| event.text).collect()
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

/// An enrolled deployment, as its agent's first session finds it.
pub(crate) fn deployment(id: u128) -> Deployment {
    Deployment {
        id: DeploymentId::new(Uuid::from_u128(id)),
        name: format!("kibana-{id}").parse().unwrap(),
        labels: [("env".into(), "prod".into())].into(),
        enrolment: EnrolmentId::new(Uuid::from_u128(100 + id)),
        enrolled_at: at(0),
        sealing_key: vec![7; 32],
        certificate_serial: "0a:ff".into(),
        certificate_not_after: at(1000),
        agent_version: "0.1.0".into(),
        facts: None,
        last_seen: None,
        generation: Generation::default(),
        standing: Standing::Active,
        standing_reason: String::new(),
        standing_at: None,
        certificate_given: 1,
        certificate_seen: 0,
        certificate_ca: "ab".into(),
        renewal_allowed: false,
    }
}

pub(crate) fn strategy() -> Strategy {
    default_strategy("default".parse().unwrap())
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
        adopted_id: None,
        rung: None,
        references: 0,
        references_agreed: 0,
    }
}
