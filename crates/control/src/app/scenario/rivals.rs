//! Two agents on one Kibana: both wait, what runs stays, and it ends by itself.

use keyfleet_core::id::DeploymentId;
use keyfleet_core::standing::Standing;
use keyfleet_core::token::Role;
use keyfleet_proto::v1;
use keyfleet_store::{Binding, Tx};

use super::world::{World, ops, works};
use crate::app::{Actor, view};
use crate::clock;

const UUID: &str = "5b2de169-2785-441b-ae8c-186a1936b17d";
const OTHER: &str = "9f1b3a52-0a52-4b6e-a4bd-2f3a0e4c5d6e";

fn kibana(uuid: &str) -> v1::KibanaFacts {
    v1::KibanaFacts {
        reachable: true,
        uuid: uuid.to_owned(),
        connectors_complete: true,
        ..v1::KibanaFacts::default()
    }
}

/// A Kibana where a connector of this id is to be seen.
fn with_connector(uuid: &str, id: &str) -> v1::KibanaFacts {
    let seen = v1::SeenConnector {
        space: "default".to_owned(),
        id: id.to_owned(),
        name: "assistant".to_owned(),
        r#type: ".gen-ai".to_owned(),
        ..v1::SeenConnector::default()
    };
    v1::KibanaFacts {
        connectors: vec![seen],
        ..kibana(uuid)
    }
}

/// Why each deployment waits, for somebody who sees all.
async fn waiting(world: &World, name: &str) -> String {
    waiting_for(world, &ops(), name).await
}

async fn waiting_for(world: &World, actor: &Actor, name: &str) -> String {
    let name = name.to_owned();
    let look = move |sight: &view::Sight<'_>| view::deployment(sight, &name);
    let shown = world.app.view_as(actor, look).await.unwrap();
    let deployment = shown.deployment.unwrap().waiting;
    for binding in shown.bindings {
        let begins = binding.waiting.split("; what runs").next();
        assert_eq!(
            begins.unwrap_or_default(),
            deployment.split("; what runs").next().unwrap_or_default()
        );
    }
    deployment
}

async fn problems(world: &World) -> Vec<String> {
    let actor = ops();
    let look = world.app.view_as(&actor, view::status);
    look.await.unwrap().problems
}

async fn told(world: &World, name: &str) -> v1::Desired {
    let desired = world.app.desired(world.id(name)).await.unwrap();
    desired.document
}

/// Brings a conflict about between `canary` and `b`, then ends it; `c` goes on all the time.
async fn check(begin: &[(&str, v1::KibanaFacts)], end: impl AsyncFn(&mut World)) {
    let mut world = World::new(&["canary", "b", "c"]).await;
    world.settle(works).await;
    for (name, facts) in begin {
        world.sees(name, facts.clone()).await;
    }
    let before = (told(&world, "canary").await, told(&world, "b").await);
    world.new_revision(2).await;
    world.settle(works).await;
    for name in ["canary", "b"] {
        let said = waiting(&world, name).await;
        let names = said.contains("deployments b and canary are agents of one Kibana");
        assert!(said.starts_with("CONFLICT: ") && names, "{said}");
        assert!(said.contains("what runs there stays as it is"), "{said}");
    }
    let conflict = |said: &String| said.contains("agents of one Kibana");
    assert_eq!(
        problems(&world)
            .await
            .iter()
            .filter(|p| conflict(p))
            .count(),
        1
    );
    let now = (told(&world, "canary").await, told(&world, "b").await);
    assert_eq!(
        now, before,
        "nothing new is told, and nothing is taken back"
    );
    assert!(world.bindings().await["c"].is_converged());

    end(&mut world).await;
    world.settle(works).await;
    assert_eq!(
        problems(&world)
            .await
            .iter()
            .filter(|p| conflict(p))
            .count(),
        0
    );
    let mut left = 0;
    for (name, binding) in world.write(named).await {
        if binding.is_converged() {
            left += 1;
        } else {
            assert_eq!(name, "b", "{binding:?}");
        }
    }
    assert!(left >= 2);
}

fn named(tx: &Tx<'_>) -> Result<Vec<(String, Binding)>, crate::error::Error> {
    let names: std::collections::BTreeMap<DeploymentId, String> = tx
        .deployments()?
        .into_iter()
        .filter(|d| d.standing == Standing::Active)
        .map(|d| (d.id, d.name.to_string()))
        .collect();
    let all = tx.bindings()?.into_iter();
    Ok(all
        .filter_map(|b| Some((names.get(&b.id.deployment)?.clone(), b)))
        .collect())
}

#[tokio::test]
async fn one_uuid_is_one_kibana_until_they_differ() {
    let both = [
        ("canary", kibana(UUID)),
        ("b", kibana(UUID)),
        ("c", kibana(OTHER)),
    ];
    check(&both, async |world: &mut World| {
        // A Kibana that does not answer is no other Kibana.
        world.sees("b", kibana("")).await;
        assert!(waiting(world, "canary").await.contains("CONFLICT"));
        world
            .sees("b", kibana("9f1b3a52-0a52-4b6e-a4bd-2f3a0e4c5d60"))
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_deployment_that_is_removed_rivals_nobody() {
    let both = [("canary", kibana(UUID)), ("b", kibana(UUID))];
    check(&both, async |world: &mut World| {
        let id = world.id("b");
        world
            .write(move |tx| Ok(tx.remove_deployment(id, "test", clock::now())?))
            .await;
        world.names.remove(&id);
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_is_not_trusted_makes_nobody_wait() {
    let both = [("canary", kibana(UUID)), ("b", kibana(UUID))];
    check(&both, async |world: &mut World| {
        let id = world.id("b");
        world
            .write(move |tx| {
                Ok(tx.set_standing(id, Standing::Suspended, "it lies", clock::now())?)
            })
            .await;
    })
    .await;
}

#[tokio::test]
async fn two_instances_of_one_cluster_are_found_by_what_they_see() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    world.sees("canary", kibana(UUID)).await;
    let ours = world.bindings().await["canary"].connector_id();
    world.sees("b", with_connector(OTHER, &ours)).await;
    for name in ["canary", "b"] {
        let said = waiting(&world, name).await;
        assert!(
            said.contains("b reports connectors there that Keyfleet keeps for canary"),
            "{said}"
        );
    }
    // An agent that lost its memory sees its own as somebody else's.
    let own = world.bindings().await["b"].connector_id();
    world.sees("b", with_connector(OTHER, &own)).await;
    assert_eq!(waiting(&world, "canary").await, "");
    assert_eq!(waiting(&world, "b").await, "");
}

#[tokio::test]
async fn an_id_that_keyfleet_did_not_give_says_nothing() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    for id in [
        "openai-prod",
        "8d2c1b7a-55aa-4d0e-8a60-0c9c4a2b7e11",
        "8d2c1b7a-55aa-5d0e-8a60-0c9c4a2b7e11",
        "",
        "8d2c1b7a-55aa-5x",
    ] {
        world.sees("b", with_connector(OTHER, id)).await;
        assert_eq!(waiting(&world, "b").await, "", "{id}");
    }
    for uuid in ["", "unknown", "00000000-0000-0000-0000-000000000000"] {
        world.sees("canary", kibana(uuid)).await;
        world.sees("b", kibana(uuid)).await;
        assert_eq!(waiting(&world, "b").await, "", "{uuid}");
    }
}

#[tokio::test]
async fn a_rollout_that_is_under_way_tells_rivals_nothing_more() {
    let world = World::new(&["canary", "b", "c"]).await;
    world.settle(works).await;
    world.new_revision(2).await;
    world.turn(works).await;
    let before = told(&world, "b").await;
    world.sees("b", kibana(UUID)).await;
    world.sees("c", kibana(UUID)).await;
    world.settle(works).await;
    assert_eq!(told(&world, "b").await, before);
    assert!(world.bindings().await["canary"].is_converged());
    world.sees("c", kibana(OTHER)).await;
    world.settle(works).await;
    assert!(world.bindings().await.values().all(Binding::is_converged));
}

#[tokio::test]
async fn who_may_not_see_the_other_is_not_told_its_name() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    world.sees("canary", kibana(UUID)).await;
    world.sees("b", kibana(UUID)).await;
    world.new_revision(2).await;
    world.offer().await;
    let viewer = Actor {
        role: Role::Viewer,
        scope: "tier=canary".parse().unwrap(),
        ..ops()
    };
    let said = waiting_for(&world, &viewer, "canary").await;
    assert!(said.contains("deployments canary and 1 more"), "{said}");
    let look = |sight: &view::Sight<'_>| view::status(sight);
    let status = world.app.view_as(&viewer, look).await.unwrap();
    assert!(
        status
            .problems
            .iter()
            .any(|p| p.contains("canary and 1 more")),
        "{:?}",
        status.problems
    );
}
