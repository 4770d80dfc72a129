//! What operators delete: by name, or because the files of a set do not have it any more. It goes as a rollout, and
//! Holdings close by confirmation only.

use std::collections::BTreeMap;

use keyfleet_core::failure::FailureClass;
use keyfleet_core::rollout::{Phase, Verb};
use keyfleet_core::token::Role;
use keyfleet_proto::v1;

use super::operator::{
    CONNECTOR, NO, PLACEMENT, YES, actor, apply, batch, delete, deletion, listed, pat, said, shown,
};
use super::world::{World, works};
use crate::app::apply::Intent;

#[tokio::test]
async fn what_a_deleted_placement_placed_goes_wave_by_wave_and_is_held_until_confirmed() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    let no = world
        .app
        .delete_object(&pat(), deletion("Placement", "everywhere", NO))
        .await;
    assert!(said(no).contains("removes 2 bindings"), "without --yes");
    let plan = world
        .app
        .delete_object(&pat(), deletion("placement", "everywhere", Intent::Plan))
        .await;
    let plan = plan.unwrap().result.unwrap();
    assert_eq!(plan.deployments.len(), 2, "{plan:?}");
    assert_eq!(
        plan.rollouts[0].waves.len(),
        2,
        "as the placement's strategy says: {plan:?}"
    );
    assert_eq!(
        world.bindings().await["b"].goal,
        world.bindings().await["b"].last_proven,
        "only planned"
    );
    let mut silent = deletion("Placement", "everywhere", YES);
    silent.reason.clear();
    assert!(said(world.app.delete_object(&pat(), silent).await).contains("say why"));

    delete(&world, "Placement", "everywhere").await.unwrap();
    // The agent of b is away: it was told nothing that it could do, and keeps what it has.
    for _ in 0..20 {
        world.turn_without("b", works).await;
    }
    assert_eq!(
        world.holdings().await,
        BTreeMap::from([(1, 1)]),
        "b still holds the key"
    );
    let left = shown(&world).await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(!left[0].waiting.is_empty(), "b has a reason: {left:?}");
    world.settle(works).await;
    assert_eq!(world.holdings().await, BTreeMap::new());
    assert_eq!(shown(&world).await, []);
    assert_eq!(world.newest().await.run.phase, Phase::Completed);
}

#[tokio::test]
async fn an_agent_that_refuses_a_removal_is_named_and_the_removal_goes_on_later() {
    let world = World::new(&["canary"]).await;
    world.settle(works).await;
    delete(&world, "Placement", "everywhere").await.unwrap();
    world
        .settle(|_, told| told.remove.then_some(FailureClass::Rejected))
        .await;
    let left = shown(&world).await;
    assert_eq!(
        left[0].failure_class(),
        v1::FailureClass::Rejected,
        "{left:?}"
    );
    assert!(!left[0].waiting.is_empty(), "{left:?}");
    assert_eq!(world.holdings().await, BTreeMap::from([(1, 1)]));
    world.say(Verb::Retry).await.unwrap();
    world.settle(works).await;
    assert_eq!(
        (shown(&world).await, world.holdings().await),
        (Vec::new(), BTreeMap::new())
    );
}

#[tokio::test]
async fn a_removal_that_was_rolled_back_is_held_and_can_be_tried_again() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    delete(&world, "Placement", "everywhere").await.unwrap();
    world.turn(works).await;
    world.say(Verb::Rollback).await.unwrap();
    world.settle(works).await;
    assert_eq!(world.newest().await.run.phase, Phase::RolledBack);
    let back = world.bindings().await;
    assert!(
        back.values()
            .all(|b| b.running.is_some() && b.held_by.is_some()),
        "{back:?}"
    );
    assert!(shown(&world).await[0].waiting.contains("rollout retry"));
    world.say(Verb::Retry).await.unwrap();
    world.settle(works).await;
    assert_eq!(world.holdings().await, BTreeMap::new());
}

#[tokio::test]
async fn a_suspended_agent_removes_nothing_until_it_is_trusted_again() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    let say = |verb: v1::DeploymentVerb| v1::ChangeDeploymentRequest {
        name: "b".to_owned(),
        verb: verb.into(),
        reason: "a thief".to_owned(),
    };
    let admin = actor(Role::Admin, "");
    let suspend = world
        .app
        .change_deployment(&admin, say(v1::DeploymentVerb::Suspend));
    suspend.await.unwrap();
    delete(&world, "Placement", "everywhere").await.unwrap();
    world.settle(works).await;
    let left = shown(&world).await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(
        left[0].waiting.to_lowercase().contains("suspended"),
        "{left:?}"
    );
    assert_eq!(world.holdings().await, BTreeMap::from([(1, 1)]));
    let resume = world
        .app
        .change_deployment(&admin, say(v1::DeploymentVerb::Resume));
    resume.await.unwrap();
    world.settle(works).await;
    assert_eq!(
        (shown(&world).await, world.holdings().await),
        (Vec::new(), BTreeMap::new())
    );
}

#[tokio::test]
async fn a_deleted_connector_is_a_tombstone_and_a_new_one_of_its_name_counts_on() {
    let world = World::new(&["canary"]).await;
    world.settle(works).await;
    let used = said(delete(&world, "Connector", "assistant").await);
    assert!(used.contains("is used by placement everywhere"), "{used}");
    let used = said(delete(&world, "Key", "openai").await);
    assert!(used.contains("is used by connector assistant"), "{used}");
    delete(&world, "Placement", "everywhere").await.unwrap();
    delete(&world, "Connector", "assistant").await.unwrap();
    assert_eq!(
        listed(&world).await,
        ["assistant"],
        "it is still in a Kibana"
    );
    let held = said(delete(&world, "Key", "openai").await);
    assert!(
        held.contains("may still be held by 1 bindings (canary/default/assistant"),
        "{held}"
    );
    world.settle(works).await;
    assert_eq!(listed(&world).await, Vec::<String>::new());

    let both = format!("{CONNECTOR}{PLACEMENT}");
    apply(&world, &both, "", NO).await.unwrap();
    world.settle(works).await;
    let binding = world.bindings().await["canary"].clone();
    assert!(binding.is_converged(), "{binding:?}");
    assert_eq!(binding.goal.unwrap().revision.0, 2, "revisions count on");
    assert_eq!(
        apply(&world, &both, "", NO).await.unwrap().rollouts,
        [],
        "the same again"
    );

    delete(&world, "Placement", "everywhere").await.unwrap();
    world.settle(works).await;
    delete(&world, "Connector", "assistant").await.unwrap();
    let forgotten = delete(&world, "Key", "openai").await.unwrap();
    assert!(
        forgotten.warnings[0].contains("alive at the provider"),
        "{forgotten:?}"
    );
    assert_eq!(world.key_states().await, []);
    let gone = said(delete(&world, "Key", "openai").await);
    assert!(gone.contains("there is no key"), "{gone}");
}

#[tokio::test]
async fn a_strategy_goes_when_no_placement_names_it() {
    let world = World::new(&[]).await;
    let slow = "apiVersion: keyfleet/v1
kind: Strategy
metadata: {name: slow}
spec: {waves: [{name: all, concurrency: 1}]}
";
    let placed = PLACEMENT.replace("[assistant]", "[assistant], strategyRef: slow");
    for _ in 0..2 {
        apply(&world, &format!("{slow}{placed}"), "", NO)
            .await
            .unwrap();
        let used = said(delete(&world, "strategy", "slow").await);
        assert!(used.contains("is used by placement everywhere"), "{used}");
        apply(&world, PLACEMENT, "", NO).await.unwrap();
        delete(&world, "strategy", "slow").await.unwrap();
    }
    delete(&world, "strategy", "default").await.unwrap();
}

#[tokio::test]
async fn a_set_is_pruned_of_what_its_files_no_longer_have_and_of_nothing_else() {
    let world = World::new(&["canary"]).await;
    let both = format!("{CONNECTOR}{PLACEMENT}");
    let refused = said(world.app.apply(&pat(), batch(&both, "", true), NO).await);
    assert!(refused.contains("needs `set`"), "{refused}");
    apply(&world, &both, "soc", NO).await.unwrap();
    world.settle(works).await;
    let other = said(apply(&world, CONNECTOR, "web", YES).await);
    assert!(
        other.contains("f.yaml:3: metadata.name") && other.contains("belongs to the set soc"),
        "{other}"
    );

    // The connector gets another name: that is another connector.
    let renamed = both.replace("assistant", "helper");
    let plan = apply(&world, &renamed, "soc", Intent::Plan)
        .await
        .unwrap()
        .result;
    let warned = plan
        .warnings
        .iter()
        .any(|w| w.contains("connector assistant becomes helper"));
    assert!(warned, "{plan:?}");
    let no = said(apply(&world, &renamed, "soc", NO).await);
    assert!(no.contains("say --yes"), "{no}");
    apply(&world, &renamed, "soc", YES).await.unwrap();
    world.settle(works).await;
    assert_eq!(listed(&world).await, ["helper"]);

    // An empty file prunes all of it; the Key belongs to no set.
    apply(&world, "", "soc", YES).await.unwrap();
    world.settle(works).await;
    assert_eq!(
        (listed(&world).await, world.holdings().await),
        (Vec::new(), BTreeMap::new())
    );
    let left = world
        .write(|tx| Ok((tx.sets()?, tx.placements()?, tx.keys()?)))
        .await;
    assert!(
        left.0.is_empty() && left.1.is_empty() && left.2.len() == 1,
        "{left:?}"
    );
}

#[tokio::test]
async fn a_key_of_a_set_that_is_still_held_stays_until_a_later_prune() {
    let world = World::new(&["canary"]).await;
    apply(&world, &format!("{CONNECTOR}{PLACEMENT}"), "soc", NO)
        .await
        .unwrap();
    let key = world.write(|tx| {
        tx.put_in_set("Key", "openai", Some(&"soc".parse().unwrap()))?;
        Ok(tx.keys()?.len())
    });
    assert_eq!(key.await, 1);
    world.settle(works).await;
    let admin = actor(Role::Admin, "");
    let prune = || world.app.apply(&admin, batch("", "soc", true), YES);
    let kept = prune().await.unwrap().result;
    assert!(
        kept.warnings.iter().any(|w| w.contains("prune again")),
        "{kept:?}"
    );
    world.settle(works).await;
    prune().await.unwrap();
    assert!(world.write(|tx| Ok(tx.keys()?)).await.is_empty());
}
