//! Scenarios over the use cases with a real database and agents that only say what they are told to say.
//! No network and no process: what these tests need of Vault is written into the database.

mod adoption;
mod at_once;
mod authority;
mod campaign;
mod deputy;
mod explained;
mod fit;
mod gated;
mod hostile;
mod identity;
mod inventory;
mod labels;
mod members;
mod migration;
mod models;
mod operator;
mod references;
mod removal;
mod restored;
mod revoke;
mod rivals;
mod scope;
mod sites;
mod spaces;
mod stop;
mod verbs;
pub(crate) mod world;

use std::collections::BTreeMap;

use keyfleet_core::Timestamp;
use keyfleet_core::binding::BindingState;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::fleet::{Labels, Selector};
use keyfleet_core::id::{Generation, Revision};
use keyfleet_core::key::KeyState;
use keyfleet_core::placement::{DriftPolicy, Placement};
use keyfleet_core::rollout::{Amount, Phase, Verb, default_strategy};
use keyfleet_proto::v1;
use keyfleet_store::Binding;

use super::status::Reporter;
use crate::error::Error;
use world::{World, assistant, enrolment, placement, spread, status, works};

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
        .view_as(&world::ops(), |sight| {
            super::view::deployment(sight, "stranger")
        })
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
