//! What agents say of their Kibanas: kept within bounds, shown to who asks about one, written where it is news.

use keyfleet_core::binding::Rung;
use keyfleet_core::id::EnrolmentId;
use keyfleet_core::token::Role;
use keyfleet_proto::v1;
use keyfleet_store::{Binding, Deployment, Inventory};

use super::world::{World, ops, reporter, status, works};
use crate::app::{Actor, view};
use crate::error::Error;

/// Facts with everything in them.
fn facts() -> v1::KibanaFacts {
    let check = v1::Check {
        name: "privileges".to_owned(),
        outcome: v1::CheckOutcome::Failed.into(),
        sentence: "may not write in space default".to_owned(),
        detail: "{\n  \"role\": {}\n}".to_owned(),
    };
    let seen = v1::SeenConnector {
        space: "default".to_owned(),
        id: "openai-prod".to_owned(),
        name: "OpenAI".to_owned(),
        r#type: ".gen-ai".to_owned(),
        config_json: r#"{"apiProvider":"OpenAI"}"#.to_owned(),
        read_only: true,
        missing_secrets: true,
        references: 3,
    };
    v1::KibanaFacts {
        reachable: true,
        version: "9.4.0".to_owned(),
        uuid: "9f1b3a52-0a52-4b6e-a4bd-2f3a0e4c5d6e".to_owned(),
        checks: vec![check],
        connectors: vec![seen],
        connectors_complete: true,
        ..v1::KibanaFacts::default()
    }
}

async fn row(world: &World, name: &str) -> (Deployment, Inventory) {
    let id = world.id(name);
    world
        .write(move |tx| Ok((tx.deployment(id)?.unwrap(), tx.inventory(id)?)))
        .await
}

#[tokio::test]
async fn who_asks_about_one_deployment_sees_all_of_it_and_lists_stay_short() {
    let world = World::new(&["canary", "b"]).await;
    world.sees("canary", facts()).await;
    let look = |sight: &view::Sight<'_>| {
        let one = view::deployment(sight, "canary")?.deployment.unwrap();
        let listed = view::deployments(sight, &Default::default())?;
        Ok((one.facts.unwrap(), listed))
    };
    let (shown, listed) = world.app.view_as(&ops(), look).await.unwrap();
    let sent = facts();
    assert_eq!(shown.checks, sent.checks);
    assert_eq!(shown.connectors, sent.connectors);
    assert!(shown.connectors_complete);
    let listed = listed.into_iter().find(|d| d.name == "canary").unwrap();
    let listed = listed.facts.unwrap();
    assert_eq!(listed.version, "9.4.0");
    assert!(listed.checks.is_empty() && listed.connectors.is_empty());

    let stranger = Actor {
        role: Role::Viewer,
        scope: "tier=other".parse().unwrap(),
        ..ops()
    };
    let look = |sight: &view::Sight<'_>| view::deployment(sight, "canary");
    let missing = world.app.view_as(&stranger, look).await.unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
}

#[tokio::test]
async fn a_session_that_begins_says_the_same_as_a_report() {
    let world = World::new(&["canary"]).await;
    let from = reporter(world.id("canary"));
    let note = world.app.note_facts(&from, facts(), "1.0.0");
    note.await.unwrap();
    let (deployment, inventory) = row(&world, "canary").await;
    assert_eq!(deployment.agent_version, "1.0.0");
    assert_eq!(inventory.connectors.len(), 1);

    // When it looked is not news, and so nothing is written.
    let later = v1::KibanaFacts {
        observed_at: Some(prost_types::Timestamp {
            seconds: 1_795_434_000,
            nanos: 0,
        }),
        ..facts()
    };
    let note = world.app.note_facts(&from, later.clone(), "1.0.0");
    note.await.unwrap();
    let again = row(&world, "canary").await;
    assert_eq!(again, (deployment, inventory));

    let mut stranger = from;
    stranger.enrolment = EnrolmentId::new(uuid::Uuid::from_u128(9));
    let note = world.app.note_facts(&stranger, later, "6.6.6");
    note.await.unwrap();
    assert_eq!(row(&world, "canary").await, again);
}

#[tokio::test]
async fn a_kibana_that_does_not_answer_keeps_its_uuid_and_its_connectors() {
    let world = World::new(&["canary"]).await;
    world.sees("canary", facts()).await;
    world.sees("canary", v1::KibanaFacts::default()).await;
    let (deployment, inventory) = row(&world, "canary").await;
    let kept = deployment.facts.unwrap();
    assert_eq!(kept.uuid, facts().uuid);
    assert!(!kept.reachable && kept.checks.is_empty());
    assert_eq!(inventory.connectors.len(), 1);
    assert!(!inventory.is_complete);
}

async fn binding(world: &World) -> Binding {
    world.bindings().await.remove("canary").unwrap()
}

#[tokio::test]
async fn how_far_a_call_came_and_what_refers_to_a_connector_is_kept_and_shown() {
    let world = World::new(&["canary"]).await;
    world.settle(works).await;
    let report = async |rung: v1::ProbeRung, references: u32| {
        let desired = world.app.desired(world.id("canary")).await.unwrap();
        let desired = desired.document;
        let generation = desired.generation.unwrap();
        let binding = v1::BindingStatus {
            proven_at: Some(prost_types::Timestamp {
                seconds: 1_600_000_000,
                nanos: 0,
            }),
            rung: rung.into(),
            references,
            ..status(&desired.bindings[0], generation, None)
        };
        let report = v1::StatusReport {
            bindings: vec![binding],
            ..v1::StatusReport::default()
        };
        let from = reporter(world.id("canary"));
        world.app.report(&from, report, "test").await.unwrap();
    };
    report(v1::ProbeRung::KeyAccepted, 3).await;
    let kept = binding(&world).await;
    assert_eq!((kept.rung, kept.references), (Some(Rung::KeyAccepted), 3));
    let look = |sight: &view::Sight<'_>| view::binding_views(sight, "canary", "");
    let shown = world.app.view_as(&ops(), look).await.unwrap().remove(0);
    assert_eq!(
        (shown.rung(), shown.references),
        (v1::ProbeRung::KeyAccepted, 3)
    );
    assert!(!shown.adopted);
    report(v1::ProbeRung::KeyAccepted, 3).await;
    assert_eq!(binding(&world).await, kept);
    report(v1::ProbeRung::Unspecified, 0).await;
    assert_eq!(binding(&world).await.rung, None);
    assert_eq!(binding(&world).await.references, 0);
}
