//! Who belongs to a rollout that is under way: leavers, joiners, those who come back, and those who were away.

use std::time::Duration;

use keyfleet_core::binding::BindingState;
use keyfleet_core::id::Revision;
use keyfleet_core::rollout::{CatchUp, Phase, Verb, Window, Zone};
use keyfleet_core::token::Role;
use keyfleet_proto::v1;
use keyfleet_store::{Binding, Rollout, RolloutTarget};

use super::operator::{
    CONNECTOR, NO, PLACEMENT, YES, actor, apply, delete, label, label_as, pat, shown,
};
use super::world::{World, works};

const R1: Option<Revision> = Some(Revision(1));
const R2: Option<Revision> = Some(Revision(2));

/// Everybody has revision 1, and the placement chooses by the label `in`.
async fn world(names: &[&str]) -> World {
    let world = World::new(names).await;
    world
        .write(|tx| {
            for row in tx.deployments()? {
                let mut labels = row.labels;
                labels.insert("in".to_owned(), "yes".to_owned());
                tx.set_labels(row.id, &labels)?;
            }
            Ok(())
        })
        .await;
    let chosen = PLACEMENT.replace(
        "[assistant]",
        "[assistant], selector: {matchLabels: {in: yes}}",
    );
    apply(&world, &chosen, "", YES).await.unwrap();
    world.settle(works).await;
    world
}

/// Revision 2 is proven on the canary, and nobody else was told.
async fn after_the_canary(world: &World) -> Rollout {
    world.new_revision(2).await;
    world.turn(works).await;
    world.say(Verb::Pause).await.unwrap();
    world.newest().await
}

async fn take(world: &World, name: &str, is_in: bool) {
    let value = if is_in { "yes" } else { "no" };
    label_as(world, &pat(), name, ("in", value), YES)
        .await
        .unwrap();
}

async fn rollout(world: &World, id: &Rollout) -> Rollout {
    let id = id.id.to_string();
    world
        .write(move |tx| Ok(tx.rollouts_with_prefix(&id)?.remove(0)))
        .await
}

async fn target(world: &World, rollout: &Rollout, name: &str) -> Option<RolloutTarget> {
    let (rollout, id) = (rollout.id, world.id(name));
    let targets = world
        .write(move |tx| Ok(tx.rollout_targets(rollout)?))
        .await;
    targets.into_iter().find(|target| target.deployment == id)
}

async fn waiting(world: &World, name: &str) -> String {
    let all = shown(world).await;
    let binding = all.into_iter().find(|binding| binding.deployment == name);
    binding.map(|binding| binding.waiting).unwrap_or_default()
}

fn told(binding: &Binding) -> Option<Revision> {
    binding.desired?.assignment.map(|told| told.revision)
}

#[tokio::test]
async fn who_leaves_is_offered_nothing_and_goes_after_the_end() {
    let world = world(&["canary", "b", "c"]).await;
    let run = after_the_canary(&world).await;
    take(&world, "b", false).await;
    assert_eq!(world.newest().await.id, run.id, "nothing is superseded");
    assert!(target(&world, &run, "b").await.unwrap().left);
    world.offer().await;
    assert_eq!(
        told(&world.bindings().await["b"]),
        R1,
        "removed after the end"
    );
    let why = waiting(&world, "b").await;
    assert!(
        why.contains("left rollout") && why.contains("has ended"),
        "{why}"
    );

    world.say(Verb::Resume).await.unwrap();
    world.turn(works).await;
    assert_eq!(told(&world.bindings().await["b"]), R1);
    world.settle(works).await;
    assert_eq!(rollout(&world, &run).await.run.phase, Phase::Completed);
    let bindings = world.bindings().await;
    assert_eq!(told(&bindings["c"]), R2);
    let b = &bindings["b"];
    assert_eq!((b.running, b.progress.state), (None, BindingState::Proven));
}

#[tokio::test]
async fn what_a_leaver_has_in_flight_is_finished_before_it_goes() {
    let world = world(&["canary", "b", "c"]).await;
    world.new_revision(2).await;
    world.turn(works).await;
    world.offer().await;
    let run = world.newest().await;
    assert_eq!(told(&world.bindings().await["b"]), R2);
    take(&world, "b", false).await;
    world.offer().await;
    assert!(target(&world, &run, "b").await.unwrap().left);
    assert_eq!(told(&world.bindings().await["b"]), R2, "it goes on");
    world.settle(works).await;
    assert_eq!(rollout(&world, &run).await.run.phase, Phase::Completed);
    assert_eq!(world.bindings().await["b"].running, None);
}

#[tokio::test]
async fn who_comes_back_is_a_joiner() {
    let world = world(&["canary", "b", "c"]).await;
    let run = after_the_canary(&world).await;
    take(&world, "b", false).await;
    take(&world, "b", true).await;
    assert_eq!(world.newest().await.id, run.id);
    assert!(target(&world, &run, "b").await.unwrap().left);
    let why = waiting(&world, "b").await;
    assert!(why.contains("left rollout"), "{why}");
    world.say(Verb::Resume).await.unwrap();
    world.settle(works).await;
    assert_eq!(rollout(&world, &run).await.run.phase, Phase::Completed);
    assert_ne!(world.newest().await.id, run.id, "a run of its own");
    let bindings = world.bindings().await;
    assert!(bindings.values().all(Binding::is_converged), "{bindings:?}");
    assert_eq!(told(&bindings["b"]), R2);
}

#[tokio::test]
async fn who_joins_gets_the_change_after_the_run_under_the_same_strategy() {
    let mut world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    let run = after_the_canary(&world).await;
    world.enrol("d").await;
    world.offer().await;
    assert_eq!(world.newest().await.id, run.id, "nothing is superseded");
    assert_eq!(target(&world, &run, "d").await, None);
    let why = waiting(&world, "d").await;
    assert!(why.contains("has ended"), "{why}");
    world.say(Verb::Resume).await.unwrap();
    world.settle(works).await;
    assert_eq!(rollout(&world, &run).await.run.phase, Phase::Completed);
    let later = world.newest().await;
    assert_ne!(later.id, run.id);
    assert_eq!(later.strategy, run.strategy);
    assert!(world.bindings().await.values().all(Binding::is_converged));
}

#[tokio::test]
async fn a_label_moves_nobody_between_waves() {
    let world = world(&["canary", "b", "c"]).await;
    let run = after_the_canary(&world).await;
    let before = target(&world, &run, "b").await;
    label(&world, ("tier", "canary"), NO).await.unwrap();
    assert_eq!(world.newest().await.id, run.id);
    assert_eq!(target(&world, &run, "b").await, before);
}

#[tokio::test]
async fn a_new_revision_still_supersedes() {
    let world = world(&["canary", "b", "c"]).await;
    let run = after_the_canary(&world).await;
    take(&world, "b", false).await;
    world.new_revision(3).await;
    assert_eq!(rollout(&world, &run).await.run.phase, Phase::Superseded);
    world.settle(works).await;
    let bindings = world.bindings().await;
    assert_eq!(told(&bindings["c"]), Some(Revision(3)));
    assert_eq!(bindings["b"].running, None);
}

#[tokio::test]
async fn a_run_that_is_for_nobody_any_more_ends_at_once() {
    let world = world(&["canary", "b"]).await;
    let run = after_the_canary(&world).await;
    delete(&world, "Placement", "everywhere").await.unwrap();
    let ended = rollout(&world, &run).await.run;
    assert_eq!(ended.phase, Phase::Superseded);
    assert!(
        ended.hold_reason.contains("nobody of it is left"),
        "{ended:?}"
    );
    world.settle(works).await;
    assert!(world.bindings().await.values().all(|b| b.running.is_none()));
}

#[tokio::test]
async fn a_placement_that_chooses_others_sets_nothing_aside() {
    let world = world(&["canary", "b", "c"]).await;
    take(&world, "c", false).await;
    world.settle(works).await;
    let run = after_the_canary(&world).await;
    let others = PLACEMENT.replace(
        "[assistant]",
        "[assistant], selector: {matchLabels: {in: no}}",
    );
    let more = PLACEMENT.replace("everywhere", "more").replace(
        "[assistant]",
        "[assistant], selector: {matchLabels: {tier: canary}}",
    );
    let text = format!("{others}{more}");
    apply(&world, &text, "", YES).await.unwrap();
    assert_eq!(world.newest().await.id, run.id);
    assert!(target(&world, &run, "b").await.unwrap().left);
    assert!(!target(&world, &run, "canary").await.unwrap().left);
    assert_eq!(target(&world, &run, "c").await, None);
    world.say(Verb::Resume).await.unwrap();
    world.settle(works).await;
    assert_eq!(rollout(&world, &run).await.run.phase, Phase::Completed);
    let bindings = world.bindings().await;
    assert_eq!(bindings["b"].running, None);
    for name in ["canary", "c"] {
        assert_eq!(told(&bindings[name]), R2, "{name}");
    }
}

#[tokio::test]
async fn a_deployment_that_is_removed_leaves_every_run_at_once() {
    let mut world = world(&["canary", "b", "c"]).await;
    world.new_revision(2).await;
    world.turn(works).await;
    world.offer().await;
    let run = world.newest().await;
    let remove = |name: &str| v1::RemoveDeploymentRequest {
        name: name.to_owned(),
        reason: "the host is gone".to_owned(),
        yes: true,
    };
    let admin = actor(Role::Admin, "");
    world
        .app
        .remove_deployment(&admin, remove("b"))
        .await
        .unwrap();
    assert_eq!(target(&world, &run, "b").await, None);
    let id = world.id("b");
    world.names.remove(&id);
    world.settle(works).await;
    assert_eq!(rollout(&world, &run).await.run.phase, Phase::Completed);

    // Where nobody else is in it, the run ends with the deployment.
    world.new_revision(3).await;
    let run = world.newest().await;
    for name in ["canary", "c"] {
        world
            .app
            .remove_deployment(&admin, remove(name))
            .await
            .unwrap();
        let id = world.id(name);
        world.names.remove(&id);
    }
    world.offer().await;
    assert_eq!(rollout(&world, &run).await.run.phase, Phase::Superseded);
}

#[tokio::test]
async fn an_exchange_of_connectors_waits_for_the_run_of_the_older() {
    let world = world(&["canary", "b", "c"]).await;
    let run = after_the_canary(&world).await;
    let helper = CONNECTOR
        .replace("name: assistant", "name: helper")
        .replace("displayName: Assistant", "displayName: Helper")
        .replace("  key:", "  replaces: assistant\n  key:");
    let chosen = |name: &str, connector: &str, label: &str| {
        PLACEMENT.replace("everywhere", name).replace(
            "[assistant]",
            &format!("[{connector}], selector: {{matchLabels: {{{label}}}}}"),
        )
    };
    let canary = chosen("everywhere", "assistant", "tier: canary");
    let others = chosen("others", "helper", "tier: other");
    apply(&world, &format!("{helper}{canary}{others}"), "", YES)
        .await
        .unwrap();
    assert_eq!(world.newest().await.id, run.id, "the canary is still in it");
    for name in ["b", "c"] {
        assert!(target(&world, &run, name).await.unwrap().left, "{name}");
    }
    world.say(Verb::Resume).await.unwrap();
    world.settle(works).await;
    assert_eq!(rollout(&world, &run).await.run.phase, Phase::Completed);
    let rows = world.write(|tx| Ok(tx.bindings()?)).await;
    for row in rows {
        let is_canary = row.id.deployment == world.id("canary");
        let stands = is_canary == (row.id.connector.as_str() == "assistant");
        assert_eq!(row.running.is_some(), stands, "{row:?}");
        assert!(row.is_converged(), "{row:?}");
    }
}

/// Windows that are always open, and who was away waits for them.
async fn with_windows(world: &World) {
    world
        .write(|tx| {
            let mut strategy = tx.strategies()?.remove(0);
            strategy.windows = vec![Window {
                cron: "0 0 * * *".to_owned(),
                duration: Duration::from_secs(48 * 3600),
                zone: Zone::OfDeployment,
            }];
            strategy.offline.catch_up = CatchUp::InWindow;
            strategy.offline.max_percent = 100;
            Ok(tx.put_strategy(&strategy)?)
        })
        .await;
}

#[tokio::test]
async fn who_was_away_gets_the_change_in_a_run_of_its_own_that_keeps_the_windows() {
    let world = World::new(&["canary", "b", "c"]).await;
    with_windows(&world).await;
    world.settle(works).await;
    world.new_revision(2).await;
    for _ in 0..20 {
        world.turn_without("b", works).await;
    }
    let run = world.newest().await;
    assert_eq!(run.run.phase, Phase::Completed, "{:?}", run.run);
    let b = world.bindings().await["b"].clone();
    assert_eq!((told(&b), b.held_by), (R1, Some(run.id)));
    let why = waiting(&world, "b").await;
    assert!(why.contains("was away when rollout"), "{why}");

    world.settle(works).await;
    let later = world.newest().await;
    assert_ne!(later.id, run.id);
    assert_eq!(later.strategy.windows.len(), 1);
    assert_eq!(later.run.phase, Phase::Completed);
    assert_eq!(told(&world.bindings().await["b"]), R2);
}

#[tokio::test]
async fn a_plan_says_what_becomes_of_the_rollouts_under_way() {
    let world = world(&["canary", "b", "c"]).await;
    let run = after_the_canary(&world).await;
    let plan = |text: String| {
        let world = &world;
        async move {
            let done = apply(world, &text, "", crate::app::apply::Intent::Plan).await;
            done.unwrap().result.conflicts
        }
    };
    assert_eq!(
        plan(PLACEMENT.replace(
            "[assistant]",
            "[assistant], selector: {matchLabels: {in: yes}}"
        ))
        .await,
        []
    );

    let newer = plan(CONNECTOR.to_owned()).await;
    assert_eq!(newer.len(), 1, "{newer:?}");
    assert_eq!(newer[0].rollout_id, run.id.to_string());
    assert_eq!(newer[0].connectors, ["assistant"]);
    let sentence = &newer[0].sentence;
    for words in [
        "takes over rollout",
        "PAUSED in wave canary (1 of 2)",
        "1 of 3 deployments",
    ] {
        assert!(sentence.contains(words), "{words}: {sentence}");
    }

    let fewer = PLACEMENT.replace(
        "[assistant]",
        "[assistant], selector: {matchLabels: {tier: canary}}",
    );
    let waits = plan(fewer).await;
    assert_eq!(waits.len(), 1, "{waits:?}");
    assert!(
        waits[0]
            .sentence
            .contains("2 bindings wait for the end of rollout"),
        "{waits:?}"
    );
    assert_eq!(
        rollout(&world, &run).await.run.phase,
        Phase::Paused,
        "only planned"
    );
}
