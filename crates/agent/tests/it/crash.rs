//! The agent is killed at bad moments.

use keyfleet_proto::v1::BindingState;
use serde_json::json;

use crate::harness::{Harness, KEY_1, PLACE};

/// Waits until Kibana has got this many requests of a kind; the agent may be in the middle of one.
async fn until_count(harness: &Harness, method: &str, class: &str, count: u64) {
    let wait = async {
        while harness.count(method, class).await < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), wait)
        .await
        .expect("the request comes");
}

#[tokio::test]
async fn killed_during_the_first_write_it_neither_doubles_nor_loses_it() {
    let mut harness = Harness::start().await;
    // The write is carried out at once; its answer would come much later.
    harness
        .kibana_faults(json!({"api": {"mode": "slow", "delay_ms": 1000, "methods": ["POST"], "path_contains": "/connector/"}}))
        .await;
    harness.run();
    harness.push(vec![harness.binding(PLACE, 1, 1)]);
    until_count(&harness, "POST", "connector", 1).await;
    harness.kill().await;
    harness.kibana_faults(json!({})).await;
    harness.run();
    let status = harness
        .control
        .until_state(PLACE, BindingState::Proven)
        .await;
    assert_eq!(status.attempted, status.running);
    assert_eq!(harness.connectors().await.len(), 1);
    assert!(
        !harness.control.state().requests.is_empty(),
        "keys are never on disk, so it had to ask"
    );
    assert!(!harness.on_disk().contains(KEY_1));
    let (created, replaced, _, _) = harness.writes().await;
    assert!(created + replaced <= 3, "{created} {replaced}");
    harness.stop().await;
}

#[tokio::test]
async fn killed_during_the_probe_it_only_probes_again() {
    let mut harness = Harness::start().await;
    harness
        .kibana_faults(
            json!({"api": {"mode": "hang", "path_contains": "_execute", "remaining": 1}}),
        )
        .await;
    harness.run();
    harness.push(vec![harness.binding(PLACE, 1, 1)]);
    until_count(&harness, "POST", "execute", 1).await;
    harness.kill().await;
    harness.run();
    harness
        .control
        .until_state(PLACE, BindingState::Proven)
        .await;
    assert_eq!(harness.writes().await, (1, 0, 0, 2));
    assert!(harness.control.state().requests.is_empty());
    harness.stop().await;
}

#[tokio::test]
async fn killed_between_two_revisions_it_writes_the_second_once_more_and_no_more() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    harness
        .kibana_faults(json!({"api": {"mode": "hang", "methods": ["PUT"], "remaining": 1}}))
        .await;
    harness.push(vec![harness.binding(PLACE, 2, 1)]);
    until_count(&harness, "PUT", "connector", 1).await;
    harness.kill().await;
    harness.control.change(|state| state.statuses.clear());
    harness.run();
    harness
        .control
        .until_state(PLACE, BindingState::Proven)
        .await;
    let (created, replaced, _, _) = harness.writes().await;
    assert_eq!((created, replaced), (1, 2));
    harness.stop().await;
}

#[tokio::test]
async fn a_damaged_ledger_costs_one_read_and_one_write() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    harness.stop().await;
    std::fs::write(harness.state_dir().join("ledger.json"), "{ half a led").unwrap();
    harness.control.change(|state| state.statuses.clear());
    harness.run();
    harness
        .control
        .until_state(PLACE, BindingState::Proven)
        .await;
    let (created, replaced, _, _) = harness.writes().await;
    assert_eq!((created, replaced), (1, 1));
    assert!(harness.state_dir().join("ledger.damaged").exists());
    harness.stop().await;
}

#[tokio::test]
async fn an_agent_that_is_told_to_stop_ends_its_write_first() {
    let mut harness = Harness::start().await;
    harness
        .kibana_faults(json!({"api": {"mode": "slow", "delay_ms": 300, "methods": ["POST"], "path_contains": "/connector/"}}))
        .await;
    harness.run();
    harness.push(vec![harness.binding(PLACE, 1, 1)]);
    until_count(&harness, "POST", "connector", 1).await;
    harness.stop().await;
    harness.kibana_faults(json!({})).await;
    harness.run();
    harness
        .control
        .until_state(PLACE, BindingState::Proven)
        .await;
    assert_eq!(harness.writes().await, (1, 0, 0, 1));
    harness.stop().await;
}
