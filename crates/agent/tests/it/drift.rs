//! Somebody else changes a connector.

use std::time::Duration;

use keyfleet_proto::v1::{self, BindingState};
use serde_json::json;

use crate::harness::{Harness, PLACE};

async fn watching() -> Harness {
    let mut harness = Harness::start().await;
    let mut config = harness.config();
    config.drift_interval = Duration::from_millis(200);
    harness.run_with(config);
    harness
}

fn with_policy(harness: &Harness, policy: v1::DriftPolicy) -> v1::DesiredBinding {
    v1::DesiredBinding {
        drift_policy: policy.into(),
        ..harness.binding(PLACE, 1, 1)
    }
}

#[tokio::test]
async fn drift_is_corrected_and_proven_again() {
    let mut harness = watching().await;
    let binding = with_policy(&harness, v1::DriftPolicy::Correct);
    let first = harness.prove(binding.clone()).await;
    harness.meddle(&binding, "Somebody's own").await;
    harness
        .control
        .until("a new proof", |state| {
            let status = &state.statuses[PLACE];
            status.state() == BindingState::Proven && status.proven_at != first.proven_at
        })
        .await;
    assert_eq!(harness.connectors().await[0]["name"], "OpenAI r1");
    harness.stop().await;
}

#[tokio::test]
async fn lost_secrets_are_drift() {
    let mut harness = watching().await;
    let first = harness
        .prove(with_policy(&harness, v1::DriftPolicy::Correct))
        .await;
    harness
        .kibana_faults(json!({"secrets_missing": true}))
        .await;
    harness
        .control
        .until("a new proof", |state| {
            let status = &state.statuses[PLACE];
            status.state() == BindingState::Proven && status.proven_at != first.proven_at
        })
        .await;
    harness.stop().await;
}

#[tokio::test]
async fn what_was_left_out_comes_when_its_kibana_is_upgraded() {
    let mut harness = Harness::start().await;
    harness.kibana_faults(json!({"upgrade_to": "9.2.0"})).await;
    let mut config = harness.config();
    config.drift_interval = Duration::from_millis(200);
    harness.run_with(config.clone());
    let mut binding = with_policy(&harness, v1::DriftPolicy::Correct);
    let whole = binding
        .config_json
        .replacen('{', "{\"temperature\":0.2,", 1);
    binding.config_json = whole;
    binding.if_supported = vec!["temperature".to_owned()];
    let first = harness.prove(binding).await;
    let temperature =
        async |harness: &Harness| harness.connectors().await[0]["config"]["temperature"].clone();
    assert!(temperature(&harness).await.is_null());
    assert_eq!(harness.writes().await.1, 0, "it is no difference either");
    // The version is asked at the start, and every few minutes.
    harness.stop().await;
    harness.kibana_faults(json!({"upgrade_to": "9.3.0"})).await;
    harness.run_with(config);
    harness
        .control
        .until("a new proof", |state| {
            let status = &state.statuses[PLACE];
            status.state() == BindingState::Proven && status.proven_at != first.proven_at
        })
        .await;
    assert_eq!(temperature(&harness).await, json!(0.2));
    harness.stop().await;
}

#[tokio::test]
async fn drift_is_only_reported_where_the_policy_says_so_until_an_operator_tries_again() {
    for policy in [v1::DriftPolicy::Report, v1::DriftPolicy::Pause] {
        let mut harness = watching().await;
        let binding = with_policy(&harness, policy);
        harness.prove(binding.clone()).await;
        harness.meddle(&binding, "Somebody's own").await;
        let status = harness
            .control
            .until_state(PLACE, BindingState::Drifted)
            .await;
        assert!(status.text.contains("Somebody's own"), "{}", status.text);
        assert_eq!(status.proven_at, None);
        let reads = harness.count("GET", "connector").await;
        // It goes on looking.
        harness.until_count("GET", "connector", reads + 1).await;
        assert_eq!(harness.connectors().await[0]["name"], "Somebody's own");
        harness
            .prove(v1::DesiredBinding {
                attempt: 2,
                ..binding
            })
            .await;
        assert_eq!(harness.connectors().await[0]["name"], "OpenAI r1");
        harness.stop().await;
    }
}

#[tokio::test]
async fn proofs_age() {
    let mut harness = Harness::start().await;
    harness.run();
    let binding = v1::DesiredBinding {
        probe_interval_secs: 1,
        ..harness.binding(PLACE, 1, 1)
    };
    let first = harness.prove(binding).await;
    harness
        .control
        .until("a new proof", |state| {
            state.statuses[PLACE].proven_at != first.proven_at
        })
        .await;
    let (created, replaced, _, _) = harness.writes().await;
    assert_eq!((created, replaced), (1, 0));
    harness.stop().await;
}
