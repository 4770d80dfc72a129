//! One connector takes the place of another: the older stays until the newer is proven, and comes to no harm where that fails.

use keyfleet_core::Timestamp;
use keyfleet_core::binding::BindingState;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::rollout::{Phase, Verb};
use keyfleet_proto::v1;
use keyfleet_store::{Binding, Tx};

use super::operator::{CONNECTOR, NO, PLACEMENT, YES, apply, said, shown};
use super::world::{World, received, reporter, status, works};
use crate::app::apply::Intent;
use crate::app::step::begin_anew;
use crate::clock;

fn newer(rest: &str) -> String {
    CONNECTOR
        .replace("name: assistant", "name: helper")
        .replace(
            "displayName: Assistant",
            &format!("displayName: Helper{rest}"),
        )
        .replace("  key:", "  replaces: assistant\n  key:")
}

/// The newer connector, and the placement that has it in place of the older one.
fn exchange() -> String {
    format!(
        "{}{}",
        newer(""),
        PLACEMENT.replace("[assistant]", "[helper]")
    )
}

async fn world(names: &[&str]) -> World {
    let world = World::new(names).await;
    world.settle(works).await;
    world
}

async fn begin(world: &World) {
    apply(world, &exchange(), "", YES).await.unwrap();
}

/// One binding of a deployment.
async fn binding(world: &World, deployment: &str, connector: &str) -> Binding {
    let id = world.id(deployment);
    let rows = world.write(move |tx| Ok(tx.bindings_of(id)?)).await;
    let mut rows = rows.into_iter();
    rows.find(|row| row.id.connector.as_str() == connector)
        .unwrap()
}

async fn document(world: &World) -> v1::Desired {
    let id = world.id("canary");
    world.app.desired(id).await.unwrap().document
}

fn told<'a>(document: &'a v1::Desired, connector: &str) -> &'a v1::DesiredBinding {
    let is_it = |b: &&v1::DesiredBinding| b.binding.as_ref().unwrap().connector == connector;
    document.bindings.iter().find(is_it).unwrap()
}

/// The older one runs what it ran, and is told so or waits.
async fn is_unharmed(world: &World, deployment: &str) {
    let older = binding(world, deployment, "assistant").await;
    assert!(
        older.running.is_some() && older.last_proven.is_some(),
        "{older:?}"
    );
    assert_eq!(older.desired.unwrap().assignment, older.last_proven);
    assert_eq!(older.progress.state, BindingState::Proven);
}

fn newer_fails(_: &str, told: &v1::DesiredBinding) -> Option<FailureClass> {
    let is_newer = told.binding.as_ref().unwrap().connector == "helper";
    (is_newer && !told.remove).then_some(FailureClass::Auth)
}

#[tokio::test]
async fn what_is_exchanged_goes_in_one_offer_and_only_after_the_newer_one() {
    let world = world(&["canary", "b"]).await;
    let plan = apply(&world, &exchange(), "", Intent::Plan)
        .await
        .unwrap()
        .result;
    assert_eq!(plan.rollouts.len(), 1, "{plan:?}");
    let whys: Vec<&str> = plan.deployments[0]
        .bindings
        .iter()
        .map(|change| change.why.as_str())
        .collect();
    assert!(
        whys[0].contains("helper takes its place: it stays until"),
        "{whys:?}"
    );
    assert!(
        whys[1].contains("replaces assistant: assistant stays until this is proven"),
        "{whys:?}"
    );
    let no = said(apply(&world, &exchange(), "", NO).await);
    assert!(no.contains("removes 2 bindings"), "{no}");

    begin(&world).await;
    world.offer().await;
    let document = document(&world).await;
    let older = told(&document, "assistant");
    assert!(
        older.remove && older.after_connector == "helper",
        "{older:?}"
    );
    let newer = told(&document, "helper");
    assert!(
        !newer.remove && newer.after_connector.is_empty(),
        "{newer:?}"
    );
    world.settle(works).await;
    let rollout = world.newest().await;
    assert_eq!(rollout.run.phase, Phase::Completed);
    let left = shown(&world).await;
    let names: Vec<_> = left
        .iter()
        .map(|b| b.binding.clone().unwrap().connector)
        .collect();
    assert_eq!(names, ["helper", "helper"]);
    assert_eq!(world.holdings().await.into_values().sum::<usize>(), 2);
    assert_eq!(
        apply(&world, &exchange(), "", NO).await.unwrap().rollouts,
        []
    );
}

#[tokio::test]
async fn a_newer_one_that_fails_is_taken_back_and_its_next_revision_goes_on() {
    let world = world(&["canary", "b"]).await;
    begin(&world).await;
    world.turn(newer_fails).await;
    let waits = binding(&world, "canary", "assistant").await;
    assert_eq!(waits.progress.state, BindingState::Received, "not removed");
    world.settle(newer_fails).await;
    assert_eq!(world.newest().await.run.phase, Phase::RolledBack);
    is_unharmed(&world, "canary").await;
    is_unharmed(&world, "b").await;
    let left = shown(&world).await;
    assert!(left.iter().all(|b| !b.waiting.is_empty()), "{left:?}");

    let mended = format!(
        "{}{}",
        newer(" 2"),
        PLACEMENT.replace("[assistant]", "[helper]")
    );
    apply(&world, &mended, "", YES).await.unwrap();
    world.settle(works).await;
    assert_eq!(world.newest().await.run.phase, Phase::Completed);
    let gone = binding(&world, "b", "assistant").await;
    assert!(gone.running.is_none() && gone.is_converged(), "{gone:?}");
    assert!(binding(&world, "b", "helper").await.is_converged());
}

/// The agent of the canary has written the newer one and has yet to prove it; the older one waits.
async fn half_way(world: &World) {
    let document = document(world).await;
    let generation = document.generation.unwrap();
    let written = v1::BindingStatus {
        state: v1::BindingState::Applied.into(),
        ..status(told(&document, "helper"), generation, None)
    };
    let waits = received(told(&document, "assistant"), generation);
    let report = v1::StatusReport {
        bindings: vec![written, waits],
        ..v1::StatusReport::default()
    };
    let from = reporter(world.id("canary"));
    world.app.report(&from, report, "test").await.unwrap();
}

async fn deadlines(world: &World) -> keyfleet_core::rollout::Deadlines {
    world.newest().await.strategy.deadlines
}

fn after(limit: std::time::Duration) -> Timestamp {
    let limit = limit + std::time::Duration::from_secs(5);
    clock::now().checked_add(limit).unwrap()
}

#[tokio::test]
async fn a_removal_that_waits_is_not_late_before_the_newer_one_is() {
    let world = world(&["canary", "b"]).await;
    let long = |tx: &Tx<'_>| {
        let mut strategy = tx.strategies()?.remove(0);
        strategy.deadlines.prove = strategy.deadlines.apply * 3;
        Ok(tx.put_strategy(&strategy)?)
    };
    world.write(long).await;
    begin(&world).await;
    world.offer().await;
    half_way(&world).await;
    let limits = deadlines(&world).await;
    world.offer_at(after(limits.apply)).await;
    let state = |row: &Binding| row.progress.state;
    assert_eq!(
        state(&binding(&world, "canary", "assistant").await),
        BindingState::Received
    );
    assert_eq!(world.newest().await.run.phase, Phase::Progressing);

    world.offer_at(after(limits.prove)).await;
    let failed = binding(&world, "canary", "helper").await;
    assert_ne!(state(&failed), BindingState::Applied, "it was late");
    assert_eq!(
        world.newest().await.run.phase,
        Phase::Halted,
        "as its strategy says"
    );
    world.say(Verb::Rollback).await.unwrap();
    world.settle(newer_fails).await;
    assert_eq!(world.newest().await.run.phase, Phase::RolledBack);
    is_unharmed(&world, "canary").await;
}

#[tokio::test]
async fn the_way_back_removes_the_newer_one_only_when_the_older_one_is_proven_again() {
    let world = world(&["canary", "b"]).await;
    begin(&world).await;
    world.turn(works).await;
    let gone = binding(&world, "canary", "assistant").await;
    assert_eq!(gone.running, None);
    world.say(Verb::Rollback).await.unwrap();
    world.offer().await;
    let document = document(&world).await;
    let newer = told(&document, "helper");
    assert!(
        newer.remove && newer.after_connector == "assistant",
        "{newer:?}"
    );
    world.settle(works).await;
    is_unharmed(&world, "canary").await;
    assert_eq!(binding(&world, "canary", "helper").await.running, None);
}

#[tokio::test]
async fn an_abort_leaves_both_and_a_retry_takes_both_up_again() {
    let world = world(&["canary", "b"]).await;
    begin(&world).await;
    world.turn(newer_fails).await;
    world.say(Verb::Abort).await.unwrap();
    world.turn(newer_fails).await;
    let older = binding(&world, "canary", "assistant").await;
    assert!(older.running.is_some(), "{older:?}");
    is_unharmed(&world, "b").await;

    world.say(Verb::Retry).await.unwrap();
    world.offer().await;
    let rollout = world.newest().await.id;
    let changes = world
        .write(move |tx| Ok(tx.rollout_bindings(rollout)?))
        .await;
    assert_eq!(changes.len(), 4, "both connectors of both: {changes:?}");
    world.settle(newer_fails).await;
    is_unharmed(&world, "canary").await;
    world.say(Verb::Retry).await.unwrap();
    world.settle(works).await;
    assert_eq!(binding(&world, "canary", "assistant").await.running, None);
    assert!(binding(&world, "b", "helper").await.is_converged());
}

#[tokio::test]
async fn a_restart_in_the_middle_and_a_newer_revision_change_nothing_of_the_order() {
    let world = world(&["canary"]).await;
    begin(&world).await;
    world.offer().await;
    half_way(&world).await;
    let before = document(&world).await;
    world.write(|tx| begin_anew(tx, clock::now())).await;
    world.offer().await;
    assert_eq!(document(&world).await, before);

    apply(&world, &newer(" 2"), "", NO).await.unwrap();
    world.offer().await;
    let rollout = world.newest().await.id;
    let changes = world
        .write(move |tx| Ok(tx.rollout_bindings(rollout)?))
        .await;
    assert_eq!(changes.len(), 2, "{changes:?}");
    let after = document(&world).await;
    assert_eq!(told(&after, "assistant").after_connector, "helper");
    world.settle(newer_fails).await;
    is_unharmed(&world, "canary").await;
}

#[tokio::test]
async fn nothing_goes_while_what_takes_its_place_cannot_come() {
    let world = world(&["canary"]).await;
    let later = |tx: &Tx<'_>| {
        let mut key = tx.keys()?.remove(0).key;
        key.name = "later".parse().unwrap();
        Ok(tx.put_key(&key)?)
    };
    world.write(later).await;
    let text = exchange().replace("key: openai", "key: later");
    apply(&world, &text, "", YES).await.unwrap();
    world.settle(works).await;
    is_unharmed(&world, "canary").await;
    let left = shown(&world).await;
    let stays = "stays until connector helper is proven on this deployment";
    assert!(left.iter().any(|b| b.waiting.contains(stays)), "{left:?}");

    let version = |tx: &Tx<'_>| {
        let row = tx.key_versions(&"openai".parse().unwrap())?.remove(0);
        tx.insert_key_version(&"later".parse().unwrap(), &row)?;
        super::world::spread(tx, "a key")
    };
    world.write(version).await;
    world.settle(works).await;
    assert_eq!(world.newest().await.run.phase, Phase::Completed);
    assert_eq!(binding(&world, "canary", "assistant").await.running, None);
    assert!(binding(&world, "canary", "helper").await.is_converged());
}

#[tokio::test]
async fn an_older_one_that_never_worked_is_not_removed_by_the_way_back() {
    let world = World::new(&["canary"]).await;
    world.offer().await;
    let never = |_: &str, told: &v1::DesiredBinding| (!told.remove).then_some(FailureClass::Model);
    world.turn(never).await;
    begin(&world).await;
    world.settle(never).await;
    assert_eq!(world.newest().await.run.phase, Phase::Halted);
    let older = binding(&world, "canary", "assistant").await;
    assert!(older.running.is_some(), "{older:?}");
}

#[tokio::test]
async fn what_a_connector_replaces_must_be_there_and_not_go_round_in_a_circle() {
    let world = world(&["canary"]).await;
    let check = |text: String, outcome: &'static str| {
        let world = &world;
        async move {
            let found = said(apply(world, &text, "", Intent::Plan).await);
            assert!(found.contains(outcome), "{text}: {found}");
            assert!(found.contains("spec.replaces"), "{found}");
        }
    };
    let nobody = newer("").replace("replaces: assistant", "replaces: nobody");
    check(nobody, "there is no Connector \"nobody\"").await;
    let itself = newer("").replace("replaces: assistant", "replaces: helper");
    check(itself, "itself").await;
    let back = CONNECTOR.replace("  key:", "  replaces: helper\n  key:");
    let circle = format!("{back}---\n{}", newer(""));
    check(circle, "assistant replaces helper replaces assistant").await;

    let both = format!(
        "{}{}",
        newer(""),
        PLACEMENT.replace("[assistant]", "[assistant, helper]")
    );
    let plan = apply(&world, &both, "", NO).await.unwrap().result;
    let warned = plan
        .warnings
        .iter()
        .any(|w| w.contains("has both: assistant stays"));
    assert!(warned, "{plan:?}");
}

#[tokio::test]
async fn what_is_replaced_twice_goes_only_after_the_last_one_is_proven() {
    for (set, rest) in [
        ("", String::new()),
        ("", newer("")),
        ("file", String::new()),
    ] {
        let world = world(&["canary"]).await;
        let begun = format!("{CONNECTOR}---\n{}", exchange());
        apply(&world, &begun, set, YES).await.unwrap();
        world.offer().await;
        half_way(&world).await;
        let third = newer("")
            .replace("name: helper", "name: third")
            .replace("replaces: assistant", "replaces: helper");
        let separator = if rest.is_empty() { "" } else { "---\n" };
        let next = format!(
            "{rest}{separator}{third}{}",
            PLACEMENT.replace("[assistant]", "[third]")
        );
        apply(&world, &next, set, YES).await.unwrap();
        world.offer().await;
        let document = document(&world).await;
        for older in ["assistant", "helper"] {
            let older = told(&document, older);
            assert!(older.remove, "{older:?}");
            assert_eq!(older.after_connector, "third", "{older:?}");
        }
        let third_fails = |_: &str, told: &v1::DesiredBinding| {
            let is_it = told.binding.as_ref().unwrap().connector == "third";
            (is_it && !told.remove).then_some(FailureClass::Auth)
        };
        world.settle(third_fails).await;
        let first = binding(&world, "canary", "assistant").await;
        assert!(first.running.is_some(), "{first:?}");
        world.say(Verb::Retry).await.unwrap();
        world.settle(works).await;
        for gone in ["assistant", "helper"] {
            let gone = binding(&world, "canary", gone).await;
            assert_eq!(gone.running, None);
        }
        assert!(binding(&world, "canary", "third").await.is_converged());
    }
}
