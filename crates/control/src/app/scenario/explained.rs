//! Why a rollout does not advance: the same sentences in its explanation, its page, the deployments and the status.

use keyfleet_core::rollout::Phase;
use keyfleet_core::token::Role;
use keyfleet_proto::v1;

use super::world::{World, ops, works};
use crate::app::rollout::find;
use crate::app::{Actor, view};
use crate::error::Error;

async fn explain(
    world: &World,
    actor: &Actor,
    id: &str,
    deployment: &str,
) -> Result<v1::ExplainRolloutResponse, Error> {
    let call = v1::ExplainRolloutRequest {
        id: id.to_owned(),
        deployment: deployment.to_owned(),
    };
    world.app.explain_rollout(actor, call).await
}

#[tokio::test]
async fn every_view_says_the_same_sentence() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    world.new_revision(2).await;
    world.offer().await;

    let explained = explain(&world, &ops(), "", "").await.unwrap();
    assert!(!explained.sentence.is_empty());
    let names: Vec<&str> = explained
        .deployments
        .iter()
        .map(|waiting| waiting.deployment.as_str())
        .collect();
    assert_eq!(names.len(), 2, "{explained:?}");
    let id = explained.rollout.clone().unwrap().id;
    for waiting in &explained.deployments {
        let (id, name) = (id.clone(), waiting.deployment.clone());
        let everybody = ops();
        let others = world.app.view_as(&everybody, move |sight| {
            let page = view::rollout_detail(sight, find(sight, &id)?)?;
            let targets = page.targets.into_iter();
            let shown = targets.filter(|target| target.deployment == name);
            let described = view::deployment(sight, &name)?.deployment;
            let status = view::status(sight)?.waiting.into_iter();
            let in_status = status.filter(|waiting| waiting.deployment == name);
            let mut all: Vec<String> = shown.map(|target| target.waiting).collect();
            all.extend(described.map(|deployment| deployment.waiting));
            all.extend(in_status.map(|waiting| waiting.sentence));
            Ok(all)
        });
        let others = others.await.unwrap();
        assert_eq!(others, vec![waiting.sentence.clone(); 3], "{waiting:?}");
        let one = explain(&world, &ops(), "", &waiting.deployment).await;
        assert_eq!(one.unwrap().deployments.first(), Some(waiting));
    }
}

#[tokio::test]
async fn an_explanation_stays_in_its_scope_and_outlives_the_rollout() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    world.new_revision(2).await;
    world.offer().await;
    let id = world.newest().await.id.to_string();
    let canary = Actor {
        role: Role::Viewer,
        scope: "tier=canary".parse().unwrap(),
        ..ops()
    };
    let seen = explain(&world, &canary, &id, "").await.unwrap();
    let names: Vec<String> = seen.deployments.into_iter().map(|w| w.deployment).collect();
    assert_eq!(names, ["canary"]);
    let hidden = explain(&world, &canary, &id, "b").await.unwrap_err();
    assert!(matches!(hidden, Error::NotFound { .. }), "{hidden}");

    world.settle(works).await;
    assert_eq!(world.newest().await.run.phase, Phase::Completed);
    let ended = explain(&world, &ops(), &id, "").await.unwrap();
    assert_eq!(
        ended.sentence,
        "it has ended, COMPLETED: 2 of 2 deployments proven"
    );
    assert_eq!(ended.deployments, []);
    let one = explain(&world, &ops(), &id, "b").await.unwrap();
    let sentence = &one.deployments[0].sentence;
    assert!(
        sentence.starts_with("it has the change, proven since"),
        "{sentence}"
    );
    let none = explain(&world, &ops(), "", "").await.unwrap_err();
    assert_eq!(
        none.to_string(),
        "no rollout is active: name the one to explain"
    );
}
