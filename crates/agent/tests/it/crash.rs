//! The agent is killed at bad moments.

use keyfleet_proto::v1::BindingState;
use serde_json::{Value, json};

use crate::harness::{Harness, KEY_1, PLACE};

/// Changes the one entry of the ledger to what a crash at some moment leaves there.
fn rewrite_entry(harness: &Harness, change: impl FnOnce(&mut Value)) {
    let path = harness.state_dir().join("ledger.json");
    let mut ledger: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut ledger["bindings"][PLACE]);
    std::fs::write(&path, ledger.to_string()).unwrap();
}

/// Restarts the agent on a ledger as a crash left it; gives what was written and tried since then.
async fn restart_after(change: impl FnOnce(&mut Value)) -> (Harness, (u64, u64, u64)) {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    harness.stop().await;
    rewrite_entry(&harness, change);
    harness.control.change(|state| state.statuses.clear());
    harness.run();
    harness
        .control
        .until_state(PLACE, BindingState::Proven)
        .await;
    let (created, replaced, _, tried) = harness.writes().await;
    assert_eq!(harness.connectors().await.len(), 1);
    (harness, (created - 1, replaced, tried - 1))
}

#[tokio::test]
async fn killed_between_a_write_and_its_outcome_it_writes_once_more() {
    let intent = |entry: &mut Value| {
        *entry = json!({"intent": {"goal": entry["applied"]["goal"], "baseline_ok": null, "n_writes": 1}});
    };
    let (mut harness, done) = restart_after(intent).await;
    assert_eq!(done, (0, 1, 1));
    assert_eq!(
        harness.control.state().requests.len(),
        1,
        "keys are never on disk, so it had to ask"
    );
    // And then never again.
    let before = harness.writes().await;
    harness.stop().await;
    harness.control.change(|state| state.statuses.clear());
    harness.run();
    harness
        .control
        .until_state(PLACE, BindingState::Proven)
        .await;
    assert_eq!(harness.writes().await, before);
    harness.stop().await;
}

#[tokio::test]
async fn killed_before_a_write_was_verified_it_reads_and_proves() {
    let unverified = |entry: &mut Value| {
        entry["applied"]["agreed"] = json!(false);
        entry["applied"]["proven_at"] = Value::Null;
    };
    let (mut harness, done) = restart_after(unverified).await;
    assert_eq!(done, (0, 0, 1));
    assert!(harness.control.state().requests.is_empty());
    harness.stop().await;
}

#[tokio::test]
async fn killed_during_the_first_write_it_does_not_double_it() {
    let mut harness = Harness::start().await;
    harness
        .kibana_faults(json!({"api": {"mode": "hang", "methods": ["POST"], "path_contains": "/connector/", "remaining": 1}}))
        .await;
    harness.run();
    harness.push(vec![harness.binding(PLACE, 1, 1)]);
    harness.until_count("POST", "connector", 1).await;
    harness.kill().await;
    harness.run();
    let status = harness
        .control
        .until_state(PLACE, BindingState::Proven)
        .await;
    assert_eq!(status.attempted, status.running);
    assert_eq!(harness.connectors().await.len(), 1);
    assert!(!harness.on_disk().contains(KEY_1));
    let (created, replaced, _, _) = harness.writes().await;
    assert_eq!(
        created + replaced,
        2,
        "the one that nobody answered, and one more"
    );
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
    harness.until_count("POST", "execute", 1).await;
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
    harness.until_count("PUT", "connector", 1).await;
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
    harness.until_count("POST", "connector", 1).await;
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

#[tokio::test]
async fn a_second_agent_with_the_same_state_is_refused() {
    let mut harness = Harness::start().await;
    harness.run();
    harness
        .control
        .until("a session", |state| state.hellos.len() == 1)
        .await;
    let stop = tokio_util::sync::CancellationToken::new();
    let error = Box::pin(keyfleet_agent::run(harness.config(), stop))
        .await
        .unwrap_err();
    assert!(
        matches!(error, keyfleet_agent::Error::Taken { .. }),
        "{error}"
    );
    harness.stop().await;
}
