//! What the agent sees of others, and fresh facts on demand.

use std::time::Duration;

use keyfleet_proto::v1::control_message::Message as ToAgent;
use keyfleet_proto::v1::{self, BindingState};
use serde_json::json;

use crate::harness::{Harness, PLACE};

async fn until_complete(harness: &Harness) -> v1::KibanaFacts {
    harness
        .control
        .until("the list of connectors is complete", |state| {
            let facts = state.facts.as_ref();
            facts.is_some_and(|facts| facts.connectors_complete)
        })
        .await;
    harness.control.state().facts.clone().unwrap()
}

/// How often the agent asked what its credentials allow.
async fn privileges(harness: &Harness) -> usize {
    let requests = harness.requests().await;
    let asks = |request: &&serde_json::Value| {
        request["method"] == "POST"
            && request["path"]
                .as_str()
                .is_some_and(|path| path.ends_with("/connector"))
    };
    requests.iter().filter(asks).count()
}

#[tokio::test]
async fn refused_by_kibana_it_asks_what_its_credentials_allow_and_says_what_they_need() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    harness.kibana_faults(json!({"privilege": "read"})).await;
    harness.control.send(ToAgent::CheckNow(v1::CheckNow {}));
    harness
        .control
        .until("the privileges are missing", |state| {
            let checks = state.facts.iter().flat_map(|facts| &facts.checks);
            let mut failed = checks.filter(|check| check.outcome() == v1::CheckOutcome::Failed);
            failed.any(|check| check.name == "privileges" && check.detail.contains("space:default"))
        })
        .await;
    harness.stop().await;
}

#[tokio::test]
async fn connectors_of_others_are_reported_and_ours_are_not() {
    let mut harness = Harness::start_with(|options| {
        options.preconfigured = vec![("kept".to_owned(), "In kibana.yml".to_owned())];
    })
    .await;
    let id = harness.add_foreign("soc", "Somebody's").await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    let facts = until_complete(&harness).await;
    let seen = |space: &str, id: &str| {
        let mut all = facts.connectors.iter();
        all.find(|seen| seen.space == space && seen.id == id)
    };
    let other = seen("soc", &id).unwrap();
    assert_eq!(
        (other.name.as_str(), other.read_only),
        ("Somebody's", false)
    );
    assert!(
        other.config_json.contains("/v1/chat/completions") && other.config_json.contains("x-team")
    );
    assert!(
        !other.config_json.contains("\"soc\""),
        "headers are not shown"
    );
    assert!(seen("default", "kept").is_some_and(|kept| kept.read_only));
    assert!(seen("default", &harness.binding(PLACE, 1, 1).connector_id).is_none());
    harness.stop().await;
}

#[tokio::test]
async fn spaces_that_are_not_accepted_are_not_looked_into() {
    let mut harness = Harness::start().await;
    harness.add_foreign("soc", "Somebody's").await;
    let mut config = harness.config();
    config.accept.spaces = vec!["default".to_owned()];
    harness.run_with(config);
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    let facts = until_complete(&harness).await;
    assert!(facts.connectors.is_empty(), "{facts:?}");
    assert_eq!(harness.count("GET", "connectors").await, 1);
    harness.stop().await;
}

#[tokio::test]
async fn fresh_facts_come_when_somebody_asks_although_nothing_changed() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    let before = until_complete(&harness).await;
    let names: Vec<_> = before
        .checks
        .iter()
        .map(|check| check.name.as_str())
        .collect();
    assert_eq!(
        (names.len(), names[0], names[10]),
        (12, "reachability", "privileges")
    );
    assert_eq!(before.checks[10].outcome(), v1::CheckOutcome::Ok);
    let privileges = privileges(&harness).await;
    let n_facts = harness.control.state().n_facts;
    harness.control.send(ToAgent::CheckNow(v1::CheckNow {}));
    harness
        .control
        .until("newer facts", |state| state.n_facts > n_facts)
        .await;
    let after = harness.control.state().facts.clone().unwrap();
    assert_ne!(before.observed_at, after.observed_at);
    let timeless = |facts| v1::KibanaFacts {
        observed_at: None,
        ..facts
    };
    assert_eq!(timeless(before), timeless(after));
    assert_eq!(self::privileges(&harness).await, privileges + 1);
    harness.stop().await;
}

#[tokio::test]
async fn an_idle_look_is_one_list_for_a_space_and_a_change_is_looked_at_alone() {
    let mut harness = Harness::start().await;
    let mut config = harness.config();
    config.drift_interval = Duration::from_millis(300);
    harness.run_with(config);
    let places = ["default/a", "default/b", "default/c"];
    let bindings: Vec<_> = places
        .iter()
        .map(|place| harness.binding(place, 1, 1))
        .collect();
    harness.push(bindings.clone());
    for place in places {
        harness
            .control
            .until_state(place, BindingState::Proven)
            .await;
    }
    let (looks, lists) = (
        harness.count("GET", "connector").await,
        harness.count("GET", "connectors").await,
    );
    assert_eq!(looks, 6, "one before and one after each write");
    harness.until_count("GET", "connectors", lists + 3).await;
    assert_eq!(harness.count("GET", "connector").await, looks);
    harness.meddle(&bindings[1], "Somebody's own").await;
    harness.until_count("PUT", "connector", 2).await;
    harness
        .control
        .until_state("default/b", BindingState::Proven)
        .await;
    let again = harness.count("GET", "connector").await;
    assert_eq!(again, looks + 2, "before and after the one write");
    harness.stop().await;
}

#[tokio::test]
async fn where_lists_are_refused_connectors_are_looked_at_one_by_one() {
    let mut harness = Harness::start().await;
    let mut config = harness.config();
    config.drift_interval = Duration::from_millis(300);
    harness
        .kibana_faults(
            json!({"api": {"mode": "status", "status": 400, "path_contains": "/connectors"}}),
        )
        .await;
    harness.run_with(config);
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    harness.until_count("GET", "connector", 4).await;
    assert_eq!(
        harness.control.state().state_of(PLACE),
        BindingState::Proven
    );
    assert!(
        harness
            .control
            .state()
            .facts
            .as_ref()
            .is_some_and(|facts| !facts.connectors_complete)
    );
    harness.stop().await;
}
