//! Placements that choose spaces by patterns: what appears converges by itself, what is not seen any more loses nothing.

use std::collections::BTreeMap;

use keyfleet_core::goal::BINDINGS_MAX;
use keyfleet_core::id::{Generation, SpaceId};
use keyfleet_core::placement::{DriftPolicy, Placement};
use keyfleet_core::rollout::{Phase, Verb};
use keyfleet_proto::v1;
use keyfleet_store::Binding;

use super::operator::{CONNECTOR, NO, YES, apply, label, said};
use super::world::{World, ops, placement, spread, works};
use crate::app::view;

/// What an agent says that sees these spaces; where `!` stands before one, its feature is switched off.
fn seen(spaces: &[&str]) -> v1::KibanaFacts {
    let spaces = spaces.iter().map(|space| v1::Space {
        id: space.trim_start_matches('!').to_owned(),
        actions_enabled: !space.starts_with('!'),
    });
    v1::KibanaFacts {
        reachable: true,
        spaces: spaces.collect(),
        ..v1::KibanaFacts::default()
    }
}

async fn place(world: &World, spaces: &[&str], except: &[&str]) {
    let new = Placement {
        spaces: spaces.iter().map(|space| space.parse().unwrap()).collect(),
        except_spaces: except.iter().map(|space| space.parse().unwrap()).collect(),
        ..placement(DriftPolicy::Correct)
    };
    let place = move |tx: &keyfleet_store::Tx<'_>| {
        tx.put_placement(&new)?;
        spread(tx, "placed")
    };
    world.write(place).await;
}

/// Everything in every space, and a canary whose agent sees these.
async fn everywhere(spaces: &[&str]) -> World {
    let world = World::new(&["canary"]).await;
    place(&world, &["*"], &[]).await;
    world.sees("canary", seen(spaces)).await;
    world.settle(works).await;
    world
}

/// The bindings of a deployment by space.
async fn of(world: &World, name: &str) -> BTreeMap<String, Binding> {
    let id = world.id(name);
    let rows = world.write(move |tx| Ok(tx.bindings_of(id)?)).await;
    let by_space = rows.into_iter().map(|row| {
        // Each report proves anew; that is no change.
        let row = Binding {
            proven_at: None,
            ..row
        };
        (row.id.space.to_string(), row)
    });
    by_space.collect()
}

/// The spaces of it whose bindings are what they shall be.
async fn converged(world: &World, name: &str) -> Vec<String> {
    let rows = of(world, name).await.into_iter();
    let good = rows.filter(|(_, row)| row.is_converged() && row.running.is_some());
    good.map(|(space, _)| space).collect()
}

async fn view(world: &World) -> v1::GetDeploymentResponse {
    let (app, actor) = (&world.app, ops());
    let look = app.view_as(&actor, |sight| view::deployment(sight, "canary"));
    look.await.unwrap()
}

/// Why the binding of a space waits.
async fn waiting(world: &World, space: &str) -> String {
    let is_it = |b: &v1::Binding| b.binding.as_ref().is_some_and(|b| b.space == space);
    let found = view(world).await.bindings.into_iter().find(is_it);
    found.map(|binding| binding.waiting).unwrap_or_default()
}

async fn rollouts(world: &World) -> usize {
    world.write(|tx| Ok(tx.rollouts(100)?.len())).await
}

#[tokio::test]
async fn a_new_space_converges_by_itself_and_what_is_known_already_does_nothing() {
    let world = everywhere(&["default", "soc"]).await;
    assert_eq!(converged(&world, "canary").await, ["default", "soc"]);
    world.sees("canary", seen(&["default", "soc", "eu"])).await;
    let cause = world.newest().await.cause;
    assert_eq!(cause, "deployment canary has the space eu");
    world.settle(works).await;
    assert_eq!(converged(&world, "canary").await, ["default", "eu", "soc"]);
    assert_eq!(world.newest().await.run.phase, Phase::Completed);

    let before = (rollouts(&world).await, of(&world, "canary").await);
    world.sees("canary", seen(&["soc", "eu", "default"])).await;
    let down = v1::KibanaFacts::default();
    world.sees("canary", down).await;
    world.settle(works).await;
    world.sees("canary", seen(&["default", "soc", "eu"])).await;
    world.settle(works).await;
    let after = (rollouts(&world).await, of(&world, "canary").await);
    assert_eq!(after, before, "the same spaces, or none for a while");
}

#[tokio::test]
async fn a_space_that_is_hidden_for_a_while_loses_nothing_and_holds_nobody_up() {
    let world = everywhere(&["default", "soc"]).await;
    let before = of(&world, "canary").await;
    for (facts, what) in [
        (seen(&["default"]), "the space soc is gone, or hidden"),
        (
            seen(&["default", "!soc"]),
            "feature for connectors switched off",
        ),
    ] {
        world.sees("canary", facts).await;
        world.settle(works).await;
        assert_eq!(of(&world, "canary").await, before, "{what}");
        let said = waiting(&world, "soc").await;
        let how = "spec.exceptSpaces of placement everywhere; what runs there stays";
        assert!(said.contains(what) && said.contains(how), "{said}");
        assert_eq!(waiting(&world, "default").await, "");
    }
    world.new_revision(2).await;
    world.settle(works).await;
    assert_eq!(world.newest().await.run.phase, Phase::Completed);
    let now = of(&world, "canary").await;
    assert_eq!(now["soc"].desired, before["soc"].desired, "told nothing");
    assert!(now["default"].is_converged() && now["default"].goal == now["soc"].goal);

    world.sees("canary", seen(&["default", "soc"])).await;
    world.settle(works).await;
    assert_eq!(converged(&world, "canary").await, ["default", "soc"]);
    assert_eq!(waiting(&world, "soc").await, "");
}

#[tokio::test]
async fn a_space_that_was_never_told_of_anything_leaves_no_trace() {
    let world = everywhere(&["default"]).await;
    world.sees("canary", seen(&["default", "eu"])).await;
    world.sees("canary", seen(&["default"])).await;
    world.settle(works).await;
    assert_eq!(of(&world, "canary").await.len(), 1);
    assert_eq!(view(&world).await.deployment.unwrap().waiting, "");
}

#[tokio::test]
async fn a_pattern_chooses_and_what_is_excepted_goes_only_with_yes() {
    let world = World::new(&["canary"]).await;
    world.settle(works).await;
    let facts = seen(&["default", "soc-eu", "soc-us", "web"]);
    world.sees("canary", facts).await;
    place(&world, &["soc-*", "not-there-yet"], &["*-us"]).await;
    world.settle(works).await;
    let placed = of(&world, "canary").await;
    let spaces: Vec<&String> = placed.keys().collect();
    assert_eq!(spaces, ["default", "not-there-yet", "soc-eu"]);
    assert!(
        placed["default"].running.is_none(),
        "named no more: removed"
    );

    world.sees("canary", seen(&["default", "web"])).await;
    let except = "apiVersion: keyfleet/v1
kind: Placement
metadata: {name: everywhere}
spec: {connectors: [assistant], spaces: ['soc-*'], exceptSpaces: [soc-eu]}
";
    let no = said(apply(&world, except, "", NO).await);
    assert!(no.contains("removes 2 bindings"), "{no}");
    apply(&world, except, "", YES).await.unwrap();
    world.settle(works).await;
    assert_eq!(converged(&world, "canary").await, [] as [String; 0]);
}

#[tokio::test]
async fn two_hundred_spaces_are_one_rollout_of_one_deployment() {
    let names: Vec<String> = (0..200).map(|i| format!("team-{i:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let world = World::new(&["canary"]).await;
    place(&world, &["team-*"], &[]).await;
    world.settle(works).await;
    let before = rollouts(&world).await;
    world.sees("canary", seen(&names)).await;
    for _ in 0..3 {
        world.turn(works).await;
    }
    assert_eq!(converged(&world, "canary").await, names);
    assert_eq!(rollouts(&world).await, before + 1);
    let newest = world.newest().await;
    assert!(newest.cause.contains("and 195 more"), "{}", newest.cause);
    let targets = world
        .write(move |tx| Ok(tx.rollout_targets(newest.id)?))
        .await;
    assert_eq!(targets.len(), 1);
}

#[tokio::test]
async fn what_is_beyond_the_most_bindings_is_refused_or_waits_with_a_reason() {
    let names: Vec<String> = (0..1000).map(|i| format!("s{i:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let three = ["assistant", "b", "c"];
    let connectors: String = three
        .iter()
        .map(|name| CONNECTOR.replace("name: assistant", &format!("name: {name}")) + "---\n")
        .collect();
    let placed = |spaces: &str| {
        format!(
            "{connectors}apiVersion: keyfleet/v1
kind: Placement
metadata: {{name: everywhere}}
spec: {{connectors: [assistant, b, c], spaces: {spaces}}}
"
        )
    };
    let world = World::new(&["canary"]).await;
    world.sees("canary", seen(&names)).await;
    let refused = said(apply(&world, &placed("['s*']"), "", NO).await);
    let all = "deployment canary would have 3000 bindings, and one may have 2000";
    assert!(refused.contains(all), "{refused}");

    world.sees("canary", seen(&["s001"])).await;
    apply(&world, &placed("['s*']"), "", YES).await.unwrap();
    world.settle(works).await;
    world.sees("canary", seen(&names)).await;
    let n = of_all(&world).await;
    assert!((BINDINGS_MAX..BINDINGS_MAX + 5).contains(&n), "{n}");
    let shown = view(&world).await.deployment.unwrap();
    assert!(!shown.waiting.is_empty());
    let twice = said(apply(&world, &placed("['s*', more]"), "", NO).await);
    assert!(twice.contains("and one may have 2000"), "{twice}");
    let other = CONNECTOR.replace("displayName: Assistant", "displayName: Other");
    apply(&world, &other, "", NO).await.unwrap();
}

async fn of_all(world: &World) -> usize {
    world.write(|tx| Ok(tx.bindings()?.len())).await
}

#[tokio::test]
async fn patterns_that_meet_in_a_space_overlap_and_the_owner_keeps_what_appears_later() {
    let world = World::new(&["b"]).await;
    world.settle(works).await;
    world.sees("b", seen(&["default", "soc-eu"])).await;
    let placements = |second: &str| {
        format!(
            "apiVersion: keyfleet/v1
kind: Placement
metadata: {{name: everywhere}}
spec: {{connectors: [assistant], spaces: ['soc-*', default]}}
---
apiVersion: keyfleet/v1
kind: Placement
metadata: {{name: second}}
spec: {{connectors: [assistant], spaces: [{second}]}}
"
        )
    };
    let refused = said(apply(&world, &placements("'*-eu'"), "", NO).await);
    let both = "placements everywhere and second both place connector assistant in space soc-eu";
    assert!(refused.contains(both), "{refused}");
    apply(&world, &placements("'*-us'"), "", NO).await.unwrap();
    world.settle(works).await;
    world
        .sees("b", seen(&["default", "soc-eu", "soc-us"]))
        .await;
    world.settle(works).await;
    let owner = |placed: &BTreeMap<String, Binding>| placed["soc-us"].placement.to_string();
    let first = owner(&of(&world, "b").await);
    assert_eq!(first, "everywhere", "the first by name");
    let relabelled = label(&world, ("site", "x"), NO).await.unwrap();
    let warned = relabelled
        .warnings
        .iter()
        .any(|w| w.contains("it belongs to everywhere"));
    assert!(warned, "{relabelled:?}");
}

#[tokio::test]
async fn a_space_and_a_deployment_that_appear_wait_for_the_running_rollout() {
    let mut world = everywhere(&["default"]).await;
    world.new_revision(2).await;
    world.offer().await;
    world.say(Verb::Pause).await.unwrap();
    let paused = world.newest().await.id;
    world.sees("canary", seen(&["default", "soc"])).await;
    world.enrol("late").await;
    world.sees("late", seen(&["default", "soc"])).await;
    for _ in 0..3 {
        world.turn(works).await;
    }
    assert_eq!(world.newest().await.id, paused);
    assert!(of(&world, "canary").await["soc"].desired.is_none());
    let said = waiting(&world, "soc").await;
    assert!(said.contains("begins when rollout"), "{said}");
    world.say(Verb::Resume).await.unwrap();
    world.settle(works).await;
    for name in ["canary", "late"] {
        assert_eq!(converged(&world, name).await, ["default", "soc"]);
    }
}

#[tokio::test]
async fn a_restart_changes_nothing_for_spaces_seen_or_not() {
    let world = everywhere(&["default", "soc"]).await;
    world.sees("canary", seen(&["default"])).await;
    world.settle(works).await;
    let generation = |row: &Binding| row.desired.map(|told| told.generation);
    let before = of(&world, "canary").await;
    let newest = before.values().filter_map(generation).max();
    assert!(newest > Some(Generation::default()));
    let document = world
        .app
        .desired(world.id("canary"))
        .await
        .unwrap()
        .document;
    let anew = |tx: &keyfleet_store::Tx<'_>| {
        let now = crate::clock::now();
        crate::app::step::begin_anew(tx, now)?;
        let goals = crate::app::start::refresh_goals(tx, now)?;
        assert!(goals.changed.is_empty() && goals.removed.is_empty());
        Ok(())
    };
    world.write(anew).await;
    world.sees("canary", seen(&["default"])).await;
    world.settle(works).await;
    let soc: SpaceId = "soc".parse().unwrap();
    assert!(
        of(&world, "canary")
            .await
            .values()
            .any(|row| row.id.space == soc)
    );
    let again = world
        .app
        .desired(world.id("canary"))
        .await
        .unwrap()
        .document;
    assert_eq!(again, document);
}
