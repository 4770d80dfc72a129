//! A connector that was there before Keyfleet becomes one of ours, or the binding says why not and waits.

use keyfleet_core::adoption::{Adopt, AdoptBy};
use keyfleet_core::connector::{ConnectorRevision, ConnectorSpec, Probe};
use keyfleet_core::id::{EnrolmentId, Revision};
use keyfleet_core::placement::{DriftPolicy, Placement};
use keyfleet_core::standing::Standing;
use keyfleet_proto::v1;
use keyfleet_store::{Binding, EventScope, NewCertificate, NewEnrolment, Tx};

use super::operator::{PLACEMENT, actor, batch};
use super::world::{World, assistant, ops, placement, spread, works};
use crate::app::apply::Intent;
use crate::app::preview::{self, Change};
use crate::app::start::{refresh_goals, start_rollouts};
use crate::app::view;
use crate::clock;
use crate::error::Error;

const ID: &str = "3f7e0f4e-0d3a-4c56-9d7f-6a4d1f0f3b1a";
const OTHER: &str = "8d2c1b7a-55aa-4d0e-8a60-0c9c4a2b7e11";

/// What the agent sees in a space, with this name.
fn seen(id: &str, name: &str) -> v1::SeenConnector {
    v1::SeenConnector {
        space: "default".to_owned(),
        id: id.to_owned(),
        name: name.to_owned(),
        r#type: ".gen-ai".to_owned(),
        config_json:
            r#"{"apiProvider":"OpenAI","apiUrl":"https://old.example/v1/chat/completions"}"#
                .to_owned(),
        ..v1::SeenConnector::default()
    }
}

fn list(connectors: &[v1::SeenConnector]) -> v1::KibanaFacts {
    v1::KibanaFacts {
        reachable: true,
        connectors: connectors.to_vec(),
        connectors_complete: true,
        ..v1::KibanaFacts::default()
    }
}

fn adopt(by: AdoptBy) -> Adopt {
    Adopt {
        connector: assistant(),
        by,
    }
}

fn by_name() -> Adopt {
    adopt(AdoptBy::Name("OpenAI".to_owned()))
}

fn by_id(id: &str) -> Adopt {
    adopt(AdoptBy::Id(id.to_owned()))
}

fn adopting(adopt: Adopt) -> Placement {
    Placement {
        adopt: vec![adopt],
        ..placement(DriftPolicy::Correct)
    }
}

/// One deployment whose placement wants a connector taken over; its agent has not said what it sees.
async fn world(rule: Adopt) -> World {
    let mut world = World::new(&[]).await;
    world
        .write(move |tx| Ok(tx.put_placement(&adopting(rule))?))
        .await;
    world.enrol("canary").await;
    world.settle(works).await;
    world
}

async fn binding(world: &World) -> Binding {
    world.bindings().await.remove("canary").unwrap()
}

/// Why the canary's binding waits.
async fn waiting(world: &World) -> String {
    let (app, actor) = (&world.app, ops());
    let look = app.view_as(&actor, |sight| view::deployment(sight, "canary"));
    let mut shown = look.await.unwrap();
    shown.bindings.remove(0).waiting
}

async fn told(world: &World) -> Option<v1::DesiredBinding> {
    let desired = world.app.desired(world.id("canary")).await.unwrap();
    desired.document.bindings.first().cloned()
}

async fn history(world: &World) -> Vec<String> {
    let scope = EventScope::Deployment(world.id("canary"));
    let events = world.write(move |tx| Ok(tx.events(scope, 50)?)).await;
    events.into_iter().map(|event| event.text).collect()
}

#[tokio::test]
async fn a_binding_waits_for_the_list_and_goes_on_by_itself() {
    let world = world(by_name()).await;
    let said = waiting(&world).await;
    assert!(
        said.starts_with("waits for the agent's list of connectors"),
        "{said}"
    );
    let mut some = list(&[seen(ID, "OpenAI")]);
    some.connectors_complete = false;
    world.sees("canary", some).await;
    world.settle(works).await;
    assert_eq!(told(&world).await, None, "there may be others of the name");

    world.sees("canary", list(&[seen(ID, "OpenAI")])).await;
    world.settle(works).await;
    let told = told(&world).await.unwrap();
    assert_eq!((told.connector_id.as_str(), told.adopted), (ID, true));
    assert!(binding(&world).await.is_converged());
    assert_eq!(waiting(&world).await, "");
    let history = history(&world).await;
    let said = history.iter().filter(|text| text.contains(ID));
    let said: Vec<&String> = said.collect();
    assert_eq!(said.len(), 1, "{history:?}");
    assert!(said[0].contains("takes over") && said[0].contains("old.example"));
    let (app, actor) = (&world.app, ops());
    let shown = app.view_as(&actor, |sight| view::deployment(sight, "canary"));
    let shown = shown.await.unwrap().bindings.remove(0);
    assert_eq!((shown.connector_id.as_str(), shown.adopted), (ID, true));
}

/// Sees a list, and either takes over an id, makes a connector of its own, or waits and says so.
async fn check(rule: Adopt, sees: &[v1::SeenConnector], expected: Result<Option<&str>, &str>) {
    let world = world(rule).await;
    world.sees("canary", list(sees)).await;
    world.settle(works).await;
    let said = waiting(&world).await;
    match expected {
        Ok(id) => {
            let binding = binding(&world).await;
            assert_eq!(binding.adopted_id.as_deref(), id, "{said}");
            assert!(binding.is_converged(), "{said}");
        }
        Err(why) => {
            assert!(said.contains(why), "{said}");
            assert_eq!(told(&world).await, None);
        }
    }
}

#[tokio::test]
async fn exactly_one_is_taken_over_or_the_reason_is_said() {
    let fixed = v1::SeenConnector {
        read_only: true,
        ..seen("kept", "OpenAI")
    };
    let slack = v1::SeenConnector {
        r#type: ".slack".to_owned(),
        ..seen("chat", "OpenAI")
    };
    let elsewhere = v1::SeenConnector {
        space: "soc".to_owned(),
        ..seen(ID, "OpenAI")
    };
    let two = [seen(ID, "OpenAI"), seen(OTHER, "OpenAI")];
    check(by_name(), &two, Err(OTHER)).await;
    check(by_id(ID), &two, Ok(Some(ID))).await;
    check(by_id("openai-prod"), &two, Ok(None)).await;
    check(by_name(), &[], Ok(None)).await;
    check(by_name(), &[elsewhere], Ok(None)).await;
    check(by_name(), std::slice::from_ref(&fixed), Err("kibana.yml")).await;
    check(by_id("kept"), &[fixed], Err("kibana.yml")).await;
    check(by_name(), std::slice::from_ref(&slack), Err(".slack")).await;
    check(by_name(), &[slack, seen(ID, "OpenAI")], Ok(Some(ID))).await;
    let twisted = seen("x\u{1b}[2J", "OpenAI");
    check(by_name(), &[twisted], Err("cannot be changed")).await;
}

#[tokio::test]
async fn what_ends_the_doubt_lets_it_go_on() {
    let world = world(by_name()).await;
    let both = [seen(ID, "OpenAI"), seen(OTHER, "OpenAI")];
    world.sees("canary", list(&both)).await;
    world.settle(works).await;
    assert!(waiting(&world).await.contains("2 connectors"));
    world.sees("canary", list(&both[1..])).await;
    world.settle(works).await;
    assert_eq!(binding(&world).await.adopted_id.as_deref(), Some(OTHER));
    assert!(binding(&world).await.is_converged());
}

#[tokio::test]
async fn an_id_is_given_once() {
    let world = world(by_name()).await;
    world.sees("canary", list(&[seen(ID, "OpenAI")])).await;
    assert_eq!(binding(&world).await.adopted_id.as_deref(), Some(ID));
    // Before it is told, another of the name comes, or the first is renamed.
    world
        .sees("canary", list(&[seen(ID, "OpenAI"), seen(OTHER, "OpenAI")]))
        .await;
    assert_eq!(binding(&world).await.adopted_id.as_deref(), Some(ID));
    world.settle(works).await;
    assert_eq!(told(&world).await.unwrap().connector_id, ID);
    // Once it is ours it is not seen any more, and the other stays somebody else's.
    world.sees("canary", list(&[seen(OTHER, "OpenAI")])).await;
    world.new_revision(2).await;
    world.settle(works).await;
    assert_eq!(told(&world).await.unwrap().connector_id, ID);
    assert!(binding(&world).await.is_converged());
}

#[tokio::test]
async fn a_rule_that_is_taken_back_before_anything_was_told_is_forgotten() {
    let world = world(by_name()).await;
    world.sees("canary", list(&[seen(ID, "OpenAI")])).await;
    assert_eq!(binding(&world).await.adopted_id.as_deref(), Some(ID));
    world
        .write(|tx| {
            tx.put_placement(&placement(DriftPolicy::Correct))?;
            spread(tx, "no rule")
        })
        .await;
    world.settle(works).await;
    let told = told(&world).await.unwrap();
    assert!(!told.adopted && told.connector_id != ID, "{told:?}");
}

/// A second connector beside the assistant.
fn second(tx: &Tx<'_>) -> Result<(), Error> {
    let new = ConnectorRevision {
        connector: "second".parse().unwrap(),
        revision: Revision(1),
        spec: ConnectorSpec {
            connector_type: ".gen-ai".to_owned(),
            display_name: "second".to_owned(),
            config: r#"{"apiUrl":"https://api.openai.com/v1/chat/completions"}"#.to_owned(),
            key: "openai".parse().unwrap(),
            if_supported: Vec::new(),
            probe: Probe::default(),
            replaces: None,
        },
    };
    Ok(tx.insert_connector(&new, clock::now())?)
}

#[tokio::test]
async fn two_bindings_never_take_over_the_same_connector() {
    let mut world = World::new(&[]).await;
    world
        .write(|tx| {
            second(tx)?;
            let second = Adopt {
                connector: "second".parse().unwrap(),
                ..by_id(ID)
            };
            Ok(tx.put_placement(&Placement {
                connectors: vec![assistant(), "second".parse().unwrap()],
                adopt: vec![by_id(ID), second],
                ..placement(DriftPolicy::Correct)
            })?)
        })
        .await;
    world.enrol("canary").await;
    for sees in [list(&[seen(ID, "OpenAI")]), list(&[])] {
        world.sees("canary", sees).await;
        world.settle(works).await;
        let look = |sight: &view::Sight<'_>| view::deployment(sight, "canary");
        let shown = world.app.view_as(&ops(), look).await.unwrap().bindings;
        assert_eq!(
            (shown[0].connector_id.as_str(), shown[0].adopted),
            (ID, true)
        );
        assert!(!shown[1].adopted);
        let said = &shown[1].waiting;
        assert!(said.contains("is Keyfleet's assistant already"), "{said}");
    }
}

/// What a plan shows of the one binding.
async fn planned(world: &World, rule: Adopt) -> v1::BindingChange {
    let mut result = world
        .write(move |tx| {
            let (before, now) = (preview::before(tx)?, clock::now());
            let new = adopting(rule);
            tx.put_placement(&new)?;
            let goals = refresh_goals(tx, now)?;
            let started = start_rollouts(tx, &goals.spread(), "test", "ops", now)?;
            let changes = vec![Change::placement(None, &new)];
            preview::result(tx, changes, &before, &started, &ops().scope)
        })
        .await;
    result.deployments.remove(0).bindings.remove(0)
}

#[tokio::test]
async fn a_plan_shows_what_is_taken_over_and_what_the_first_write_changes() {
    let mut world = World::new(&[]).await;
    world
        .write(|tx| {
            let mut nowhere = placement(DriftPolicy::Correct);
            nowhere.spaces = vec!["elsewhere".parse().unwrap()];
            Ok(tx.put_placement(&nowhere)?)
        })
        .await;
    world.enrol("canary").await;
    let both = [seen(ID, "OpenAI"), seen(OTHER, "OpenAI")];
    world.sees("canary", list(&both)).await;
    let change = planned(&world, by_name()).await;
    let adoption = change.adoption.unwrap();
    assert!(adoption.problem.contains(ID) && adoption.problem.contains(OTHER));
    assert_eq!(adoption.id, "");

    let change = planned(&world, by_id(OTHER)).await;
    assert_eq!(change.change(), v1::ChangeKind::Create);
    let adoption = change.adoption.unwrap();
    assert_eq!(
        (adoption.id.as_str(), adoption.problem.as_str()),
        (OTHER, "")
    );
    let differences = adoption.differences.join("\n");
    assert!(differences.contains("old.example"), "{differences}");
    assert!(differences.contains("revision 1"), "{differences}");
}

#[tokio::test]
async fn after_a_removal_its_rule_is_asked_again() {
    let world = world(by_name()).await;
    world.sees("canary", list(&[seen(ID, "OpenAI")])).await;
    world.settle(works).await;
    let put = |spaces: &str| {
        let mut moved = adopting(by_name());
        moved.spaces = vec![spaces.parse().unwrap()];
        world.write(move |tx| {
            tx.put_placement(&moved)?;
            spread(tx, "moved")
        })
    };
    world.sees("canary", list(&[])).await;
    put("soc").await;
    world.settle(works).await;
    put("default").await;
    world.settle(works).await;
    let all = world.write(|tx| Ok(tx.bindings()?)).await;
    let back = all.iter().find(|b| b.id.space.as_str() == "default");
    let back = back.unwrap();
    assert!(back.is_converged(), "{back:?}");
    assert_eq!(back.adopted_id, None, "what it had taken over was deleted");
}

#[tokio::test]
async fn what_another_agent_sees_decides_nothing_here() {
    let mut world = world(by_name()).await;
    world.enrol("liar").await;
    world.sees("liar", list(&[seen(ID, "OpenAI")])).await;
    world.settle(works).await;
    let bindings = world.bindings().await;
    assert_eq!(bindings["liar"].adopted_id.as_deref(), Some(ID));
    assert_eq!(bindings["canary"].adopted_id, None);
    assert_eq!(
        bindings["canary"].desired, None,
        "it waits for its own list"
    );
    // An id that was there before us may be the same on several Kibanas.
    world.sees("canary", list(&[seen(ID, "OpenAI")])).await;
    world.settle(works).await;
    let bindings = world.bindings().await;
    assert_eq!(bindings["canary"].adopted_id.as_deref(), Some(ID));
    assert!(bindings.values().all(Binding::is_converged));
}

#[tokio::test]
async fn what_keyfleet_keeps_for_another_deployment_is_never_taken_over() {
    let mut world = World::new(&["owner"]).await;
    world.settle(works).await;
    let ours = world.bindings().await["owner"].connector_id();
    world
        .write(move |tx| Ok(tx.put_placement(&adopting(by_name()))?))
        .await;
    world.enrol("canary").await;
    world.sees("canary", list(&[seen(&ours, "OpenAI")])).await;
    world.settle(works).await;
    assert!(waiting(&world).await.starts_with("CONFLICT"));
    // Also where the other is no rival any more, because it is not trusted.
    let id = world.id("owner");
    world
        .write(move |tx| Ok(tx.set_standing(id, Standing::Suspended, "test", clock::now())?))
        .await;
    world.settle(works).await;
    let said = waiting(&world).await;
    assert!(said.contains("is Keyfleet's assistant already"), "{said}");
    assert_eq!(binding(&world).await.adopted_id, None);
    // What nobody keeps any more can be had.
    world
        .write(move |tx| Ok(tx.remove_deployment(id, "test", clock::now())?))
        .await;
    world.names.remove(&id);
    world.settle(works).await;
    assert_eq!(binding(&world).await.adopted_id, Some(ours));
}

#[tokio::test]
async fn a_new_agent_keeps_what_was_taken_over_and_says_anew_what_it_sees() {
    let world = world(by_name()).await;
    world.sees("canary", list(&[seen(ID, "OpenAI")])).await;
    world.settle(works).await;
    let id = world.id("canary");
    world
        .write(move |tx| {
            let new = NewEnrolment {
                enrolment: EnrolmentId::new(uuid::Uuid::from_u128(2)),
                at: clock::now(),
                sealing_key: vec![0; 32],
                agent_version: "test".to_owned(),
                certificate: NewCertificate {
                    serial: "02".to_owned(),
                    not_after: clock::now(),
                    ca: String::new(),
                },
            };
            Ok(tx.enrol_again(id, &new)?)
        })
        .await;
    // The old one speaks on, and nobody listens.
    world.sees("canary", list(&[seen(OTHER, "OpenAI")])).await;
    let (binding, inventory) = (
        binding(&world).await,
        world.write(move |tx| Ok(tx.inventory(id)?)).await,
    );
    assert_eq!(binding.adopted_id.as_deref(), Some(ID));
    assert!(inventory.connectors.is_empty() && !inventory.is_complete);
}

#[tokio::test]
async fn a_restore_keeps_what_was_taken_over_and_waits_for_new_lists() {
    let world = world(by_name()).await;
    world.sees("canary", list(&[seen(ID, "OpenAI")])).await;
    world.settle(works).await;
    let world = world.restored().await;
    let id = world.id("canary");
    let inventory = world.write(move |tx| Ok(tx.inventory(id)?)).await;
    assert!(inventory.connectors.is_empty() && !inventory.is_complete);
    world.settle(works).await;
    assert_eq!(told(&world).await.unwrap().connector_id, ID);
    assert!(binding(&world).await.is_converged());
}

#[tokio::test]
async fn what_runs_under_an_unknown_id_is_named_by_an_operator() {
    let world = world(by_name()).await;
    let lost = |tx: &Tx<'_>| {
        let mut binding = tx.bindings()?.remove(0);
        binding.running = binding.goal;
        Ok(tx.put_binding(&binding)?)
    };
    world.write(lost).await;
    world.sees("canary", list(&[])).await;
    world.settle(works).await;
    assert!(waiting(&world).await.contains("under which id"));
    planned(&world, by_id(ID)).await;
    world.settle(works).await;
    assert_eq!(told(&world).await.unwrap().connector_id, ID);
}

#[tokio::test]
async fn who_sees_one_deployment_is_shown_no_trouble_of_others() {
    let mut world = world(by_name()).await;
    world.enrol("b").await;
    let text = PLACEMENT.replace(
        "[assistant]",
        "[assistant], adopt: [{connector: assistant, name: OpenAI}]",
    );
    let scoped = actor(keyfleet_core::token::Role::Operator, "tier=canary");
    let planned = world
        .app
        .apply(&scoped, batch(&text, "", false), Intent::Plan);
    let planned = planned.await.unwrap().result;
    let names: Vec<&str> = planned
        .deployments
        .iter()
        .map(|d| d.deployment.as_str())
        .collect();
    assert_eq!(names, ["canary"], "{planned:?}");
}

#[tokio::test]
async fn a_list_that_decides_nothing_starts_nothing() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    let rollout = world.newest().await.id;
    // What waits elsewhere for another reason is not this agent's doing.
    let id = world.id("b");
    world
        .write(move |tx| {
            let mut row = tx.bindings_of(id)?.remove(0);
            row.goal = row.goal.map(|goal| keyfleet_core::binding::Assignment {
                key_version: keyfleet_core::id::KeyVersion(2),
                ..goal
            });
            Ok(tx.put_binding(&row)?)
        })
        .await;
    world.sees("canary", list(&[seen(ID, "Slack")])).await;
    world.sees("canary", list(&[seen(OTHER, "Slack")])).await;
    assert_eq!(world.newest().await.id, rollout, "nobody asked for one");
}

#[tokio::test]
async fn a_plan_says_that_what_was_taken_over_is_deleted() {
    let world = world(by_name()).await;
    world.sees("canary", list(&[seen(ID, "OpenAI")])).await;
    world.settle(works).await;
    let text = PLACEMENT.replace("[assistant]", "[assistant], spaces: [soc]");
    let ops = ops();
    let planned = world.app.apply(&ops, batch(&text, "", false), Intent::Plan);
    let planned = planned.await.unwrap().result;
    let changes = planned.deployments[0].bindings.iter();
    let removal = v1::ChangeKind::Remove;
    let mut removals = changes.filter(|change| change.change() == removal);
    let why = removals.next().unwrap().why.clone();
    assert!(
        why.contains("there before Keyfleet, and is deleted"),
        "{why}"
    );
}
