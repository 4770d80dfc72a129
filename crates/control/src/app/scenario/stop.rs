//! The fleet-wide stop, over the same real database.

use std::collections::BTreeMap;

use keyfleet_core::binding::BindingState;
use keyfleet_core::id::{DeploymentId, Generation};
use keyfleet_core::rollout::{GateState, Phase, Verb, Verdict};
use keyfleet_proto::v1;
use keyfleet_store::Binding;

use super::world::{World, ops, works};
use crate::app::view;
use crate::error::Error;

pub(super) async fn set_andon(
    world: &World,
    on: bool,
    reason: &str,
) -> Result<v1::SetAndonResponse, Error> {
    let request = v1::SetAndonRequest {
        on,
        reason: reason.to_owned(),
    };
    world.app.set_andon(&ops(), request).await
}

/// What every deployment has been told.
async fn told(world: &World) -> BTreeMap<DeploymentId, Generation> {
    let rows = world.write(|tx| Ok(tx.deployments()?)).await;
    rows.into_iter()
        .map(|row| (row.id, row.generation))
        .collect()
}

#[tokio::test]
async fn while_andon_is_on_nobody_is_told_anything_and_everything_says_why() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    set_andon(&world, true, "wrong model").await.unwrap();
    let before = told(&world).await;
    world.new_revision(2).await;
    world.new_key_version(2).await;
    world.settle(works).await;
    assert_eq!(told(&world).await, before);
    assert_eq!(world.newest().await.run.phase, Phase::Pending);
    let bindings = world
        .app
        .view_as(&ops(), |sight| view::binding_views(sight, "", ""))
        .await;
    for binding in bindings.unwrap() {
        let words = ["andon is on", "ops since", "wrong model"];
        assert!(
            words.iter().all(|word| binding.waiting.contains(word)),
            "{binding:?}"
        );
    }
    let status = world.app.view_as(&ops(), view::status).await.unwrap();
    assert!(status.andon);
    assert_eq!(status.andon_state.unwrap().reason, "wrong model");

    // An operator's word is noted and acts when the fleet goes on.
    world.say(Verb::Pause).await.unwrap();
    set_andon(&world, false, "model is right").await.unwrap();
    world.settle(works).await;
    assert_eq!(told(&world).await, before);
    world.say(Verb::Resume).await.unwrap();
    world.settle(works).await;
    assert_eq!(world.newest().await.run.phase, Phase::Completed);
    assert!(world.bindings().await.values().all(Binding::is_converged));
}

#[tokio::test]
async fn what_was_under_way_is_not_late_when_the_fleet_goes_on() {
    let world = World::new(&["canary"]).await;
    world.settle(works).await;
    world.new_revision(2).await;
    world.offer().await;
    let canary = world.bindings().await["canary"].clone();
    assert_eq!(canary.progress.state, BindingState::Offered);
    set_andon(&world, true, "lunch").await.unwrap();
    // As if it had been on for a long time.
    let id = canary.id.clone();
    world
        .write(move |tx| {
            let mut old = tx.binding(&id)?.unwrap();
            old.progress.at = keyfleet_core::Timestamp::UNIX_EPOCH;
            Ok(tx.put_binding(&old)?)
        })
        .await;
    world.offer().await;
    let offered = world.bindings().await["canary"].progress.state;
    assert_eq!(offered, BindingState::Offered, "no deadline is judged");
    set_andon(&world, false, "back").await.unwrap();
    world.offer().await;
    let offered = world.bindings().await["canary"].progress.state;
    assert_eq!(offered, BindingState::Offered, "and none has passed");
    world.settle(works).await;
    assert_eq!(world.newest().await.run.phase, Phase::Completed);
}

#[tokio::test]
async fn who_was_on_its_way_back_is_not_late_when_the_fleet_goes_on() {
    let world = World::new(&["canary"]).await;
    world.settle(works).await;
    world.new_revision(2).await;
    world.offer().await;
    world.say(Verb::Rollback).await.unwrap();
    world.offer().await;
    set_andon(&world, true, "lunch").await.unwrap();
    // The agent has heard of it, and it has been on for a long time.
    let (id, run) = (
        world.bindings().await["canary"].id.clone(),
        world.newest().await.id,
    );
    world
        .write(move |tx| {
            let mut old = tx.binding(&id)?.unwrap();
            old.progress.state = BindingState::Received;
            old.progress.at = keyfleet_core::Timestamp::UNIX_EPOCH;
            tx.put_binding(&old)?;
            for mut target in tx.rollout_targets(run)? {
                target.rollback_at = Some(keyfleet_core::Timestamp::UNIX_EPOCH);
                tx.put_rollout_target(run, &target)?;
            }
            Ok(())
        })
        .await;
    set_andon(&world, false, "back").await.unwrap();
    world.offer().await;
    assert_eq!(world.newest().await.run.phase, Phase::RollingBack);
    world.settle(works).await;
    assert_eq!(world.newest().await.run.phase, Phase::RolledBack);
}

#[tokio::test]
async fn it_is_told_to_everybody_needs_a_reason_and_keeps_the_first_word() {
    let world = World::new(&[]).await;
    let mut heard = world.app.andon.subscribe();
    let refused = set_andon(&world, true, " ").await.unwrap_err();
    assert!(refused.to_string().contains("say why"), "{refused}");
    assert!(!heard.has_changed().unwrap());
    for reason in ["first", "second"] {
        set_andon(&world, true, reason).await.unwrap();
        let word = heard.borrow_and_update().clone().unwrap();
        assert_eq!((word.by.as_str(), word.reason.as_str()), ("ops", "first"));
    }
    set_andon(&world, false, "done").await.unwrap();
    assert_eq!(*heard.borrow_and_update(), None);
    let entries = world.write(|tx| Ok(tx.audit(1, 100)?)).await;
    let said: Vec<_> = entries
        .iter()
        .map(|row| (row.entry.action.as_str(), row.entry.reason.as_str()))
        .collect();
    let expected = [
        ("andon.on", "first"),
        ("andon.on", "second"),
        ("andon.off", "done"),
    ];
    assert_eq!(said, expected);
}

#[tokio::test]
async fn a_start_tells_what_is_stored() {
    let world = World::new(&[]).await;
    set_andon(&world, true, "for good").await.unwrap();
    world.app.andon.send_replace(None);
    world.app.load_andon().await.unwrap();
    let word = world.app.andon.borrow().clone().unwrap();
    assert_eq!(word.reason, "for good");
}

#[tokio::test]
async fn it_outlives_a_restart_in_the_middle_of_a_rollout() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    world.new_revision(2).await;
    world.turn(works).await;
    set_andon(&world, true, "wrong model").await.unwrap();
    let before = told(&world).await;
    let mut world = world;
    for _ in 0..2 {
        world = world.restarted().await;
        let word = world.app.andon.borrow().clone().unwrap();
        assert_eq!(
            (word.by.as_str(), word.reason.as_str()),
            ("ops", "wrong model")
        );
        world.settle(works).await;
        assert_eq!(told(&world).await, before);
        assert_eq!(world.newest().await.run.phase, Phase::Progressing);
    }
    set_andon(&world, false, "model is right").await.unwrap();
    let world = world.restarted().await;
    assert_eq!(*world.app.andon.borrow(), None);
    world.settle(works).await;
    assert_eq!(world.newest().await.run.phase, Phase::Completed);
    assert!(world.bindings().await.values().all(Binding::is_converged));
}

#[tokio::test]
async fn after_a_restart_nobody_is_late_and_gates_are_asked_anew() {
    let world = World::new(&["canary"]).await;
    world.settle(works).await;
    world.new_revision(2).await;
    world.offer().await;
    let canary = world.bindings().await["canary"].id.clone();
    let id = world.newest().await.id;
    world
        .write(move |tx| {
            let mut old = tx.binding(&canary)?.unwrap();
            old.progress.at = keyfleet_core::Timestamp::UNIX_EPOCH;
            tx.put_binding(&old)?;
            let gate = GateState {
                name: "errors".to_owned(),
                verdict: Verdict::Fail,
                streak: 1,
                at: keyfleet_core::Timestamp::UNIX_EPOCH,
                text: "3%".to_owned(),
            };
            Ok(tx.put_gates(id, &[gate])?)
        })
        .await;
    let world = world.restarted().await;
    world.offer().await;
    let offered = world.bindings().await["canary"].progress.state;
    assert_eq!(offered, BindingState::Offered);
    assert_eq!(world.newest().await.run.gates, []);
    world.settle(works).await;
    assert_eq!(world.newest().await.run.phase, Phase::Completed);
}
