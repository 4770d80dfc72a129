//! Two things at once: a removal under andon, and what operators decide in the middle of a rollout.

use std::collections::BTreeMap;

use keyfleet_core::binding::BindingState;
use keyfleet_core::rollout::{Phase, Verb};
use keyfleet_proto::v1::DeploymentVerb;
use keyfleet_store::Binding;

use super::identity::say;
use super::operator::{CONNECTOR, PLACEMENT, YES, apply, delete, label, shown};
use super::stop::set_andon;
use super::world::{World, works};

fn is_gone(binding: &Binding) -> bool {
    binding.goal.is_none() && binding.is_converged() && binding.running.is_none()
}

/// The revision that a deployment has proven.
fn proven(bindings: &BTreeMap<String, Binding>, name: &str) -> Option<u64> {
    let found = bindings.get(name).and_then(|binding| binding.last_proven);
    found.map(|proven| proven.revision.0)
}

#[tokio::test]
async fn a_removal_under_andon_begins_when_the_fleet_goes_on() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    set_andon(&world, true, "look first").await.unwrap();
    delete(&world, "Placement", "everywhere").await.unwrap();
    world.settle(works).await;
    assert_eq!(world.holdings().await, BTreeMap::from([(1, 2)]));
    for binding in shown(&world).await {
        assert!(binding.waiting.contains("andon is on"), "{binding:?}");
    }
    set_andon(&world, false, "it is wanted").await.unwrap();
    world.settle(works).await;
    assert!(world.bindings().await.values().all(is_gone));
    assert_eq!(world.holdings().await, BTreeMap::new());
}

#[tokio::test]
async fn a_removal_in_flight_is_confirmed_under_andon_and_goes_no_further() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    delete(&world, "Placement", "everywhere").await.unwrap();
    world.offer().await;
    set_andon(&world, true, "wrong fleet").await.unwrap();
    world.settle(works).await;
    let bindings = world.bindings().await;
    assert!(is_gone(&bindings["canary"]), "{bindings:#?}");
    assert!(bindings["b"].running.is_some(), "{bindings:#?}");
    assert_eq!(world.holdings().await, BTreeMap::from([(1, 1)]));
    // The word is taken back before it reached everybody: who was not told keeps its connector, the other gets it again.
    apply(&world, PLACEMENT, "", YES).await.unwrap();
    set_andon(&world, false, "it stays").await.unwrap();
    world.settle(works).await;
    let bindings = world.bindings().await;
    assert!(
        bindings.values().all(Binding::is_converged),
        "{bindings:#?}"
    );
    assert_eq!(world.holdings().await, BTreeMap::from([(1, 2)]));
}

#[tokio::test]
async fn who_is_suspended_with_an_offer_in_flight_keeps_what_it_holds_and_holds_nobody_up() {
    let world = World::new(&["canary", "b", "c"]).await;
    world.settle(works).await;
    world.new_key_version(2).await;
    world.turn(works).await;
    world.offer().await;
    assert_eq!(
        world.bindings().await["b"].progress.state,
        BindingState::Offered
    );
    say(&world, "b", DeploymentVerb::Suspend).await.unwrap();
    // What its agent says meanwhile does not count, and the planner takes it as away.
    for _ in 0..20 {
        world.turn_without("b", works).await;
    }
    let bindings = world.bindings().await;
    assert!(bindings["c"].is_converged() && !bindings["b"].is_converged());
    assert_eq!(
        world.holdings().await,
        BTreeMap::from([(1, 1), (2, 3)]),
        "it may hold both: the new one was sent"
    );
    say(&world, "b", DeploymentVerb::Resume).await.unwrap();
    world.settle(works).await;
    assert_eq!(world.holdings().await, BTreeMap::from([(2, 3)]));
    assert_eq!(world.newest().await.run.phase, Phase::Completed);
}

#[tokio::test]
async fn a_label_that_takes_a_deployment_out_of_a_running_rollout_removes_it_and_the_rest_goes_on()
{
    let world = World::new(&["canary", "b", "c"]).await;
    let others = PLACEMENT.replace(
        "[assistant]",
        "[assistant], selector: {matchExpressions: [{key: zone, operator: NotIn, values: [old]}]}",
    );
    apply(&world, &others, "", YES).await.unwrap();
    world.settle(works).await;
    world.new_revision(2).await;
    world.turn(works).await;
    let bindings = world.bindings().await;
    assert_eq!(proven(&bindings, "canary"), Some(2), "the first wave");
    assert_eq!(proven(&bindings, "b"), Some(1));
    label(&world, ("zone", "old"), YES).await.unwrap();
    world.settle(works).await;
    let bindings = world.bindings().await;
    assert!(is_gone(&bindings["b"]), "{bindings:#?}");
    for name in ["canary", "c"] {
        assert_eq!(proven(&bindings, name), Some(2), "{name}");
    }
    assert_eq!(world.holdings().await, BTreeMap::from([(1, 2)]));
    assert_eq!(world.newest().await.run.phase, Phase::Completed);
}

#[tokio::test]
async fn a_held_rollout_keeps_no_other_change_from_its_deployments() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    world.new_revision(2).await;
    world.turn(works).await;
    world.offer().await;
    world.say(Verb::Pause).await.unwrap();
    let held = world.newest().await.id;
    let helper = CONNECTOR
        .replace("name: assistant", "name: helper")
        .replace("displayName: Assistant", "displayName: Helper");
    let more = PLACEMENT
        .replace("everywhere", "more")
        .replace("[assistant]", "[helper]");
    apply(&world, &format!("{helper}{more}"), "", YES)
        .await
        .unwrap();
    world.settle(works).await;
    let other = world.newest().await;
    assert_ne!(other.id, held);
    assert_eq!(other.run.phase, Phase::Completed);
    let bindings = world.write(|tx| Ok(tx.bindings()?)).await;
    let helpers: Vec<_> = bindings
        .iter()
        .filter(|binding| binding.id.connector.as_str() == "helper")
        .collect();
    assert_eq!(helpers.len(), 2);
    assert!(helpers.iter().all(|binding| binding.is_converged()));
    let id = held.to_string();
    let held = world.write(move |tx| Ok(tx.rollouts_with_prefix(&id)?.remove(0)));
    assert_eq!(held.await.run.phase, Phase::Paused);
}
