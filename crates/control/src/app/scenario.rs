//! Scenarios over the use cases with a real database and agents that only say what they are told to say.
//! No network and no process: what these tests need of Vault is written into the database.

use std::collections::BTreeMap;

use keyfleet_core::Timestamp;
use keyfleet_core::binding::BindingState;
use keyfleet_core::connector::{ConnectorRevision, ConnectorSpec};
use keyfleet_core::failure::FailureClass;
use keyfleet_core::fleet::{Labels, Selector};
use keyfleet_core::id::{
    ConnectorName, DeploymentId, EnrolmentId, Generation, KeyVersion, Revision,
};
use keyfleet_core::key::{Key, KeyLocation, KeyState};
use keyfleet_core::placement::{DriftPolicy, Placement};
use keyfleet_core::rollout::{Amount, Phase, Verb, default_strategy};
use keyfleet_core::token::Role;
use keyfleet_proto::v1;
use keyfleet_seal::FingerprintKey;
use keyfleet_store::{Binding, Deployment, KeyVersionRow, Rollout, Store, Tx};
use tokio_util::sync::CancellationToken;

use super::start::{Spread, refresh_goals, start_rollouts};
use super::status::Reporter;
use super::step::{Surroundings, step_all};
use super::{Actor, App, KEYFLEET};
use crate::ca::{self, Authority};
use crate::error::Error;
use crate::keyring::KeyRing;
use crate::{clock, config};

/// What every agent answers to what it is told.
type Answer = fn(&str, &v1::DesiredBinding) -> Option<FailureClass>;

struct World {
    app: App,
    names: BTreeMap<DeploymentId, String>,
    _dir: tempfile::TempDir,
}

fn works(_: &str, _: &v1::DesiredBinding) -> Option<FailureClass> {
    None
}

impl World {
    /// Control with one Key (version 1), one connector and a placement everywhere: a strict canary by the
    /// label `tier`, then the rest, without soak.
    async fn new(deployments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = config::load(None, Some(dir.path().to_owned())).unwrap();
        config.verify = None;
        ca::create(dir.path(), clock::now()).unwrap();
        let authority = Authority::load(dir.path()).unwrap();
        let store = Store::open(&dir.path().join("keyfleet.db")).unwrap();
        let vault = keyfleet_vault::Vault::new(config.vault.clone()).unwrap();
        let fingerprint = FingerprintKey::generate().unwrap();
        let shutdown = CancellationToken::new();
        let app = App::new(
            config,
            store,
            authority,
            fingerprint,
            KeyRing::new(vault),
            shutdown,
        );
        let mut world = Self {
            app,
            names: BTreeMap::new(),
            _dir: dir,
        };
        for name in deployments {
            world.enrol(name).await;
        }
        world
            .write(|tx| {
                let mut strategy = default_strategy("default".parse().unwrap());
                strategy.waves.remove(1);
                strategy.waves[0].selector = Selector::from_labels(&Labels::from([(
                    "tier".to_owned(),
                    "canary".to_owned(),
                )]));
                strategy.waves[0].soak = std::time::Duration::ZERO;
                strategy.waves[1].concurrency = Amount::Count(10);
                tx.put_strategy(&strategy)?;
                tx.put_key(&Key {
                    name: "openai".parse().unwrap(),
                    location: KeyLocation {
                        mount: "secret".to_owned(),
                        path: "keyfleet/openai".to_owned(),
                        field: "api_key".to_owned(),
                    },
                    allowed_hosts: vec!["api.openai.com".to_owned()],
                    scope: Selector::default(),
                })?;
                tx.put_placement(&placement(DriftPolicy::Correct))?;
                Ok(())
            })
            .await;
        world.new_key_version(1).await;
        world.new_revision(1).await;
        world
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> T {
        self.app.store.write(work).await.unwrap()
    }

    /// The canary is the one whose name says so.
    async fn enrol(&mut self, name: &str) {
        let now = clock::now();
        let id = DeploymentId::new(uuid::Uuid::now_v7());
        let tier = if name == "canary" { "canary" } else { "other" };
        let row = Deployment {
            id,
            name: name.parse().unwrap(),
            labels: Labels::from([("tier".to_owned(), tier.to_owned())]),
            enrolment: enrolment(),
            enrolled_at: now,
            sealing_key: vec![0; 32],
            certificate_serial: "01".to_owned(),
            certificate_not_after: now,
            agent_version: "test".to_owned(),
            facts: None,
            last_seen: None,
            generation: Generation::default(),
        };
        self.names.insert(id, name.to_owned());
        self.write(move |tx| {
            tx.insert_deployment(&row)?;
            refresh_goals(tx, now)?;
            start_rollouts(
                tx,
                &Spread::default(),
                "a deployment enrolled",
                KEYFLEET,
                now,
            )?;
            Ok(())
        })
        .await;
    }

    async fn new_key_version(&self, version: u64) {
        self.write(move |tx| {
            let row = KeyVersionRow {
                version: KeyVersion(version),
                state: KeyState::Pending,
                fingerprint: format!("f{version}"),
                shown: "sk-proj-…".to_owned(),
                first_seen: clock::now(),
            };
            tx.insert_key_version(&"openai".parse().unwrap(), &row)?;
            spread(tx, "a new key version")
        })
        .await;
    }

    async fn new_revision(&self, revision: u64) {
        self.write(move |tx| {
            let new = ConnectorRevision {
                connector: assistant(),
                revision: Revision(revision),
                spec: ConnectorSpec {
                    connector_type: ".gen-ai".to_owned(),
                    display_name: format!("revision {revision}"),
                    config: r#"{"apiUrl":"https://api.openai.com/v1/chat/completions"}"#.to_owned(),
                    key: "openai".parse().unwrap(),
                },
            };
            tx.insert_connector(&new, clock::now())?;
            spread(tx, "a new revision")
        })
        .await;
    }

    /// One turn: the planner acts, then every agent that is online answers what it was told.
    async fn turn(&self, answer: Answer) {
        let around = Surroundings {
            now: clock::now(),
            epoch: self.app.store.epoch(),
            online: self.names.keys().copied().collect(),
        };
        self.write(move |tx| step_all(tx, &around)).await;
        for (id, name) in &self.names {
            let desired = self.app.desired(*id).await.unwrap().document;
            let generation = desired.generation.unwrap_or_default();
            if generation == v1::Generation::default() {
                continue;
            }
            let bindings = desired.bindings.iter();
            let bindings = bindings
                .map(|b| status(b, generation, answer(name, b)))
                .collect();
            let report = v1::StatusReport {
                sequence: 1,
                full: true,
                bindings,
                facts: None,
            };
            let from = Reporter {
                deployment: *id,
                enrolment: enrolment(),
                certificate_serial: "01".to_owned(),
                certificate_not_after: Timestamp::MAX,
            };
            self.app.report(&from, report, "test").await.unwrap();
        }
    }

    /// Turns until nothing is left to do.
    async fn settle(&self, answer: Answer) {
        for _ in 0..20 {
            self.turn(answer).await;
        }
    }

    async fn bindings(&self) -> BTreeMap<String, Binding> {
        let all = self.write(|tx| Ok(tx.bindings()?)).await;
        all.into_iter()
            .map(|b| (self.names[&b.id.deployment].clone(), b))
            .collect()
    }

    async fn newest(&self) -> Rollout {
        self.write(|tx| Ok(tx.rollouts(1)?.remove(0))).await
    }

    async fn key_states(&self) -> Vec<(u64, KeyState)> {
        let rows = self
            .write(|tx| Ok(tx.key_versions(&"openai".parse().unwrap())?))
            .await;
        rows.into_iter()
            .map(|row| (row.version.0, row.state))
            .collect()
    }

    /// Open holdings by version.
    async fn holdings(&self) -> BTreeMap<u64, usize> {
        let rows = self
            .write(|tx| Ok(tx.holdings(&"openai".parse().unwrap())?))
            .await;
        let mut open = BTreeMap::new();
        for row in rows.into_iter().filter(|row| row.closed_at.is_none()) {
            *open.entry(row.version.0).or_default() += 1;
        }
        open
    }

    async fn say(&self, verb: Verb) -> Result<(), Error> {
        let actor = Actor {
            principal: "ops".to_owned(),
            role: Role::Operator,
        };
        let id = self.newest().await.id.to_string();
        self.app
            .change_rollout(&actor, &id, verb, "because")
            .await
            .map(drop)
    }
}

fn placement(drift_policy: DriftPolicy) -> Placement {
    Placement {
        name: "everywhere".parse().unwrap(),
        selector: Selector::default(),
        connectors: vec![assistant()],
        spaces: vec!["default".parse().unwrap()],
        drift_policy,
        strategy: "default".parse().unwrap(),
    }
}

fn assistant() -> ConnectorName {
    "assistant".parse().unwrap()
}

fn enrolment() -> EnrolmentId {
    EnrolmentId::new(uuid::Uuid::from_u128(1))
}

fn spread(tx: &Tx<'_>, cause: &str) -> Result<(), Error> {
    let now = clock::now();
    let goals = refresh_goals(tx, now)?;
    start_rollouts(tx, &goals.spread(), cause, "ops", now)?;
    Ok(())
}

fn status(
    told: &v1::DesiredBinding,
    generation: v1::Generation,
    failure: Option<FailureClass>,
) -> v1::BindingStatus {
    let state = match failure {
        Some(_) => BindingState::Failed,
        None => BindingState::Proven,
    };
    v1::BindingStatus {
        binding: told.binding.clone(),
        running: told.assignment,
        attempted: told.assignment,
        attempt: told.attempt,
        generation: Some(generation),
        state: v1::BindingState::from(state).into(),
        failure_class: failure
            .map(v1::FailureClass::from)
            .unwrap_or_default()
            .into(),
        text: "as told".to_owned(),
        removed: told.remove,
        ..v1::BindingStatus::default()
    }
}

#[tokio::test]
async fn a_first_install_ends_with_a_current_key_that_everybody_holds() {
    let world = World::new(&["canary", "b", "c"]).await;
    world.settle(works).await;
    assert_eq!(world.newest().await.run.phase, Phase::Completed);
    assert!(world.bindings().await.values().all(Binding::is_converged));
    assert_eq!(world.key_states().await, [(1, KeyState::Current)]);
    assert_eq!(world.holdings().await, BTreeMap::from([(1, 3)]));
}

#[tokio::test]
async fn a_new_key_version_takes_the_place_of_the_old_everywhere() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    world.new_key_version(2).await;
    world.settle(works).await;
    assert_eq!(
        world.key_states().await,
        [(2, KeyState::Current), (1, KeyState::Previous)]
    );
    assert_eq!(world.holdings().await, BTreeMap::from([(2, 2)]));
}

#[tokio::test]
async fn a_refused_key_is_abandoned_and_touches_nobody_beyond_the_canary() {
    let world = World::new(&["canary", "b", "c"]).await;
    world.settle(works).await;
    world.new_key_version(2).await;
    world
        .settle(|_, told| {
            let version = told.assignment.map(|assignment| assignment.key_version);
            (version == Some(2)).then_some(FailureClass::Auth)
        })
        .await;
    assert_eq!(world.newest().await.run.phase, Phase::RolledBack);
    assert_eq!(
        world.key_states().await,
        [(2, KeyState::Abandoned), (1, KeyState::Current)]
    );
    assert!(world.bindings().await.values().all(Binding::is_converged));
    assert_eq!(world.holdings().await, BTreeMap::from([(1, 3)]));
    let touched = world
        .bindings()
        .await
        .values()
        .filter(|b| b.desired.unwrap().generation.counter > 1)
        .count();
    assert_eq!(touched, 1, "only the canary was told anything new");
}

#[tokio::test]
async fn a_revision_that_fails_is_withdrawn_and_its_key_stays() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    world.new_revision(2).await;
    world
        .settle(|_, told| {
            let revision = told.assignment.map(|assignment| assignment.revision);
            (revision == Some(2)).then_some(FailureClass::Auth)
        })
        .await;
    assert_eq!(world.newest().await.run.phase, Phase::RolledBack);
    assert_eq!(world.key_states().await, [(1, KeyState::Current)]);
    let withdrawn = world
        .write(|tx| Ok(tx.connector(&assistant(), Revision(2))?))
        .await
        .unwrap();
    assert_eq!(withdrawn.withdrawn_by, Some(world.newest().await.id));
    assert!(world.bindings().await.values().all(Binding::is_converged));

    world.say(Verb::Retry).await.unwrap();
    world.settle(works).await;
    assert_eq!(world.newest().await.run.phase, Phase::Completed);
    let runs = |b: &Binding| b.last_proven.map(|proven| proven.revision);
    assert!(
        world
            .bindings()
            .await
            .values()
            .all(|b| runs(b) == Some(Revision(2)))
    );
}

#[tokio::test]
async fn a_first_install_that_fails_is_removed_and_a_good_key_installs_by_itself() {
    let world = World::new(&["canary"]).await;
    world
        .settle(|_, told| (!told.remove).then_some(FailureClass::Auth))
        .await;
    assert_eq!(world.newest().await.run.phase, Phase::RolledBack);
    assert_eq!(world.holdings().await, BTreeMap::new());
    world.new_key_version(2).await;
    world.settle(works).await;
    assert!(world.bindings().await.values().all(Binding::is_converged));
    assert_eq!(world.holdings().await, BTreeMap::from([(2, 1)]));
}

#[tokio::test]
async fn a_newer_change_takes_over_a_paused_run_and_its_unfinished_deployments() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    world.new_revision(2).await;
    world.turn(works).await;
    world.say(Verb::Pause).await.unwrap();
    world.settle(works).await;
    let paused = world.newest().await;
    assert_eq!(paused.run.phase, Phase::Paused);
    world.new_key_version(2).await;
    world.settle(works).await;
    let id = paused.id.to_string();
    let older = world
        .write(move |tx| Ok(tx.rollouts_with_prefix(&id)?.remove(0)))
        .await;
    assert_eq!(older.run.phase, Phase::Superseded);
    assert_eq!(world.newest().await.run.phase, Phase::Completed);
    let runs = |b: &Binding| {
        b.last_proven
            .map(|proven| (proven.revision.0, proven.key_version.0))
    };
    assert!(
        world
            .bindings()
            .await
            .values()
            .all(|b| runs(b) == Some((2, 2)))
    );
}

#[tokio::test]
async fn a_deployment_that_joins_waits_for_the_running_rollout() {
    let mut world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    world.new_revision(2).await;
    world.turn(works).await;
    world.say(Verb::Pause).await.unwrap();
    world.enrol("late").await;
    world.settle(works).await;
    assert!(world.bindings().await["late"].desired.is_none());
    world.say(Verb::Resume).await.unwrap();
    world.settle(works).await;
    assert!(world.bindings().await["late"].is_converged());
}

#[tokio::test]
async fn an_aborted_run_leaves_the_rest_until_somebody_retries() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    world.new_revision(2).await;
    world.turn(works).await;
    world.say(Verb::Abort).await.unwrap();
    world.settle(works).await;
    assert_eq!(
        world.bindings().await["b"].held_by,
        Some(world.newest().await.id)
    );
    assert!(matches!(
        world.say(Verb::Pause).await,
        Err(Error::IllegalTransition(_))
    ));
    world.say(Verb::Retry).await.unwrap();
    world.settle(works).await;
    assert!(world.bindings().await.values().all(Binding::is_converged));
}

#[tokio::test]
async fn a_generation_stands_for_one_document() {
    let world = World::new(&["canary"]).await;
    world.settle(works).await;
    let id = *world.names.keys().next().unwrap();
    let before = world.app.desired(id).await.unwrap().document;
    assert_eq!(
        world.app.desired(id).await.unwrap().document,
        before,
        "asking changes nothing"
    );
    world
        .write(|tx| Ok(tx.put_placement(&placement(DriftPolicy::Report))?))
        .await;
    let after = world.app.desired(id).await.unwrap().document;
    assert_ne!(after.digest, before.digest);
    let generation = |document: &v1::Desired| Generation::from(document.generation.unwrap());
    assert!(generation(&after) > generation(&before));
    world.settle(works).await;
    assert!(world.bindings().await.values().all(Binding::is_converged));
}

#[tokio::test]
async fn a_broken_newcomer_takes_nothing_from_the_others() {
    let mut world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    world.enrol("late").await;
    world
        .turn(|name, _| (name == "late").then_some(FailureClass::Egress))
        .await;
    world.say(Verb::Rollback).await.unwrap();
    world
        .settle(|_, told| (!told.remove).then_some(FailureClass::Egress))
        .await;
    let current = world
        .write(|tx| Ok(tx.connector(&assistant(), Revision(1))?))
        .await
        .unwrap();
    assert_eq!(current.withdrawn_by, None, "others have proven it");
    assert_eq!(world.key_states().await, [(1, KeyState::Current)]);
    let bindings = world.bindings().await;
    assert_eq!(bindings["late"].held_by, Some(world.newest().await.id));
    assert_eq!(bindings["b"].goal, bindings["b"].last_proven);
    world.say(Verb::Retry).await.unwrap();
    world.settle(works).await;
    assert!(world.bindings().await["late"].is_converged());
}

#[tokio::test]
async fn a_removal_that_was_rolled_back_stays_so() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    let nowhere = Labels::from([("tier".to_owned(), "none".to_owned())]);
    world
        .write(move |tx| {
            let everywhere = placement(DriftPolicy::Correct);
            tx.put_placement(&Placement {
                selector: Selector::from_labels(&nowhere),
                ..everywhere
            })?;
            spread(tx, "nobody shall have it")
        })
        .await;
    world.turn(works).await;
    world.say(Verb::Rollback).await.unwrap();
    world.settle(works).await;
    let rollout = world.newest().await;
    assert_eq!(rollout.run.phase, Phase::RolledBack);
    assert!(
        rollout.cause.contains("nobody shall have it"),
        "no second removal began"
    );
    assert!(world.bindings().await.values().all(|b| b.running.is_some()));
}

#[tokio::test]
async fn what_is_withdrawn_goes_on_nowhere_under_another_strategy_either() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    world
        .write(|tx| {
            let mut slow = default_strategy("slow".parse().unwrap());
            slow.waves[0].concurrency = Amount::Count(1);
            tx.put_strategy(&slow)?;
            tx.put_placement(&Placement {
                name: "second".parse().unwrap(),
                spaces: vec!["soc".parse().unwrap()],
                strategy: "slow".parse().unwrap(),
                ..placement(DriftPolicy::Correct)
            })?;
            spread(tx, "a second space")
        })
        .await;
    world.settle(works).await;
    world.new_revision(2).await;
    world
        .settle(|name, told| {
            let space = told.binding.as_ref().map(|binding| binding.space.as_str());
            let is_new = told.assignment.map(|assignment| assignment.revision) == Some(2);
            // The other strategy's rollout has proven nothing yet and stands still.
            match (is_new, name, space) {
                (true, "canary", Some("default")) => Some(FailureClass::Auth),
                (true, _, Some("soc")) => Some(FailureClass::Timeout),
                _ => None,
            }
        })
        .await;
    let bindings = world.write(|tx| Ok(tx.bindings()?)).await;
    let revisions: Vec<_> = bindings
        .iter()
        .map(|b| b.goal.map(|goal| goal.revision.0))
        .collect();
    assert!(
        revisions.iter().all(|revision| *revision == Some(1)),
        "{revisions:?}"
    );
}

#[tokio::test]
async fn a_key_never_goes_beyond_its_scope_not_even_to_a_newcomer() {
    let mut world = World::new(&["canary"]).await;
    world.settle(works).await;
    world
        .write(|tx| {
            let mut key = tx.keys()?.remove(0).key;
            let canary = Labels::from([("tier".to_owned(), "canary".to_owned())]);
            key.scope = Selector::from_labels(&canary);
            Ok(tx.put_key(&key)?)
        })
        .await;
    world.enrol("stranger").await;
    world.settle(works).await;
    let stranger = &world.bindings().await["stranger"];
    assert_eq!((stranger.goal, stranger.desired), (None, None));
    let waiting = world
        .app
        .view(|tx, scene| super::view::deployment(tx, scene, "stranger"))
        .await;
    let waiting = waiting.unwrap().deployment.unwrap().waiting;
    assert!(
        waiting.contains("may only be used where tier=canary"),
        "{waiting}"
    );
}

#[tokio::test]
async fn an_agent_cannot_say_what_no_agent_can_know() {
    let world = World::new(&["canary"]).await;
    world.turn(|_, _| Some(FailureClass::Timeout)).await;
    let id = *world.names.keys().next().unwrap();
    let document = world.app.desired(id).await.unwrap().document;
    let told = &document.bindings[0];
    let honest = status(told, document.generation.unwrap(), None);
    let lies = [
        v1::BindingStatus {
            state: v1::BindingState::Waived.into(),
            ..honest.clone()
        },
        v1::BindingStatus {
            running: None,
            ..honest.clone()
        },
        v1::BindingStatus {
            attempt: told.attempt + 1,
            ..honest.clone()
        },
        v1::BindingStatus {
            removed: true,
            ..honest.clone()
        },
        v1::BindingStatus {
            generation: Some(v1::Generation::default()),
            ..honest.clone()
        },
    ];
    let from = Reporter {
        deployment: id,
        enrolment: enrolment(),
        certificate_serial: "01".to_owned(),
        certificate_not_after: Timestamp::MAX,
    };
    for lie in lies {
        let report = v1::StatusReport {
            bindings: vec![lie.clone()],
            ..v1::StatusReport::default()
        };
        world.app.report(&from, report, "test").await.unwrap();
        assert_ne!(
            world.bindings().await["canary"].progress.state,
            BindingState::Proven,
            "{lie:?}"
        );
        assert_eq!(world.holdings().await, BTreeMap::from([(1, 1)]));
    }
    let report = v1::StatusReport {
        bindings: vec![honest],
        ..v1::StatusReport::default()
    };
    world.app.report(&from, report, "test").await.unwrap();
    assert_eq!(
        world.bindings().await["canary"].progress.state,
        BindingState::Proven
    );
}
