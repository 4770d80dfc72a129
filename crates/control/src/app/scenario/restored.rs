//! What goes on after a restore: removals that were under way, and removals of what nobody was told about since.

use std::collections::BTreeMap;

use keyfleet_core::binding::BindingState;
use keyfleet_core::id::KeyVersion;
use keyfleet_core::key::KeyState;
use keyfleet_core::rollout::Phase;
use keyfleet_store::Binding;

use super::world::{World, spread, works};
use crate::clock;

async fn delete_the_placement(world: &World) {
    world
        .write(|tx| {
            tx.delete_placement(&"everywhere".parse().unwrap(), clock::now())?;
            spread(tx, "the placement was deleted")
        })
        .await;
}

/// Every connector was confirmed gone, and nobody holds a key any more.
async fn must_be_gone(world: &World) {
    assert_eq!(world.holdings().await, BTreeMap::new());
    let bindings = world.bindings().await;
    let is_gone = |b: &Binding| b.goal.is_none() && b.is_converged() && b.running.is_none();
    assert!(bindings.values().all(is_gone), "{bindings:#?}");
    assert_eq!(world.newest().await.run.phase, Phase::Completed);
}

#[tokio::test]
async fn a_removal_under_way_ends_after_a_restore() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    delete_the_placement(&world).await;
    world.offer().await;
    let world = world.restored().await;
    assert_eq!(world.holdings().await, BTreeMap::from([(1, 2)]));
    world.settle(works).await;
    must_be_gone(&world).await;
}

#[tokio::test]
async fn what_nobody_was_told_about_since_a_restore_is_removed_and_not_forgotten() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    let world = world.restored().await;
    delete_the_placement(&world).await;
    assert_eq!(world.bindings().await.len(), 2, "the connectors are there");
    world.settle(works).await;
    must_be_gone(&world).await;
}

#[tokio::test]
async fn an_offer_that_nobody_answered_before_a_restore_is_removed_too() {
    let world = World::new(&["canary"]).await;
    world.offer().await;
    delete_the_placement(&world).await;
    let world = world.restored().await;
    assert_eq!(world.holdings().await, BTreeMap::from([(1, 1)]));
    world.settle(works).await;
    must_be_gone(&world).await;
}

#[tokio::test]
async fn a_restored_binding_keeps_its_key_while_there_is_no_other() {
    let world = World::new(&["canary"]).await;
    world.settle(works).await;
    let world = world.restored().await;
    world
        .write(|tx| {
            tx.set_key_state(
                &"openai".parse().unwrap(),
                KeyVersion(1),
                KeyState::Abandoned,
            )?;
            spread(tx, "the only version was abandoned")
        })
        .await;
    world.settle(works).await;
    let binding = &world.bindings().await["canary"];
    assert!(binding.goal.is_some(), "{binding:#?}");
    assert!(
        binding.desired.is_none_or(|told| told.assignment.is_some()),
        "nobody takes away what works: {binding:#?}"
    );
}

#[tokio::test]
async fn what_waits_for_a_first_key_waits_on_after_a_restore() {
    let world = World::new(&["canary"]).await;
    world
        .write(|tx| {
            tx.set_key_state(
                &"openai".parse().unwrap(),
                KeyVersion(1),
                KeyState::Abandoned,
            )?;
            spread(tx, "the only version was abandoned")
        })
        .await;
    let world = world.restored().await;
    world.settle(works).await;
    let binding = &world.bindings().await["canary"];
    assert_eq!(
        (binding.progress.state, binding.desired),
        (BindingState::Waiting, None),
        "there is nothing to take away"
    );
}
