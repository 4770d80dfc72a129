//! A connector to which rules refer goes only where somebody has seen how many, and said yes.

use keyfleet_core::failure::FailureClass;
use keyfleet_core::rollout::Verb;
use keyfleet_proto::v1;

use super::operator::{NO, YES, apply, delete, deletion, label_as, pat, said};
use super::world::{World, reporter, status, works};
use crate::app::apply::Intent;

/// The canary's agent says that so many refer to its connector, and that it works.
async fn refer(world: &World, references: u32) {
    answer(world, references, None).await;
}

async fn answer(world: &World, references: u32, failure: Option<FailureClass>) {
    let document = told(world).await;
    let told = &document.bindings[0];
    let said = v1::BindingStatus {
        references,
        ..status(told, document.generation.unwrap(), failure)
    };
    let report = v1::StatusReport {
        bindings: vec![said],
        ..v1::StatusReport::default()
    };
    let from = reporter(world.id("canary"));
    world.app.report(&from, report, "test").await.unwrap();
}

async fn told(world: &World) -> v1::Desired {
    let id = world.id("canary");
    world.app.desired(id).await.unwrap().document
}

async fn agreed(world: &World) -> u32 {
    told(world).await.bindings[0].references_agreed
}

async fn world(references: u32) -> World {
    let world = World::new(&["canary"]).await;
    world.settle(works).await;
    refer(&world, references).await;
    world
}

#[tokio::test]
async fn who_says_yes_has_seen_how_many_and_who_tries_again_agrees_to_more() {
    let world = world(3).await;
    let document = told(&world).await;
    let plan = deletion("Placement", "everywhere", Intent::Plan);
    let plan = world.app.delete_object(&pat(), plan).await.unwrap();
    let change = &plan.result.unwrap().deployments[0].bindings[0];
    assert_eq!(change.references, 3, "{change:?}");
    let no = deletion("Placement", "everywhere", NO);
    let no = said(world.app.delete_object(&pat(), no).await);
    assert!(
        no.contains("1 binding, to which 3 rules or other objects refer"),
        "{no}"
    );
    assert_eq!(told(&world).await, document, "nothing was agreed");

    delete(&world, "Placement", "everywhere").await.unwrap();
    world.offer().await;
    assert_eq!(agreed(&world).await, 3);
    // Two rules more since then: the agent refuses.
    answer(&world, 5, Some(FailureClass::Conflict)).await;
    for _ in 0..3 {
        world.offer().await;
    }
    assert_ne!(agreed(&world).await, 5, "nobody agreed to five");
    world.say(Verb::Retry).await.unwrap();
    world.offer().await;
    let again = told(&world).await.bindings.remove(0);
    assert!(again.remove && again.references_agreed == 5, "{again:?}");
    world.settle(works).await;
    assert!(world.bindings().await["canary"].running.is_none());
}

#[tokio::test]
async fn every_way_to_remove_counts_and_a_new_connector_begins_with_no_agreement() {
    let nowhere = "apiVersion: keyfleet/v1
kind: Placement
metadata: {name: everywhere}
spec: {connectors: [assistant], selector: {matchLabels: {site: nowhere}}}
";
    let everywhere = nowhere.replace(", selector: {matchLabels: {site: nowhere}}", "");
    let world = world(2).await;
    apply(&world, nowhere, "", YES).await.unwrap();
    world.offer().await;
    assert_eq!(agreed(&world).await, 2);
    world.settle(works).await;
    apply(&world, &everywhere, "", NO).await.unwrap();
    world.settle(works).await;
    assert_eq!(agreed(&world).await, 0);
    let row = world.bindings().await.remove("canary").unwrap();
    assert_eq!(row.references_agreed, 0);
}

#[tokio::test]
async fn a_label_that_takes_a_connector_away_says_who_refers_to_it() {
    let mut world = World::new(&[]).await;
    let labelled = "apiVersion: keyfleet/v1
kind: Placement
metadata: {name: everywhere}
spec: {connectors: [assistant], selector: {matchLabels: {tier: canary}}}
";
    world.enrol("canary").await;
    apply(&world, labelled, "", NO).await.unwrap();
    world.settle(works).await;
    refer(&world, 1).await;
    let moved = ("tier", "other");
    let pat = pat();
    let say = |intent| label_as(&world, &pat, "canary", moved, intent);
    let plan = say(Intent::Plan).await.unwrap();
    assert_eq!(plan.deployments[0].bindings[0].references, 1);
    let no = said(say(NO).await);
    assert!(
        no.contains("to which 1 rule or other object refers"),
        "{no}"
    );
    say(YES).await.unwrap();
    world.offer().await;
    assert_eq!(agreed(&world).await, 1);
}
