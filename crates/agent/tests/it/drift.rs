//! Somebody else changes a connector.

use std::time::Duration;

use keyfleet_proto::v1::control_message::Message as ToAgent;
use keyfleet_proto::v1::{self, BindingState, FailureClass};
use serde_json::{Value, json};

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
        let reads = harness.count("GET", "connectors").await;
        // It goes on looking.
        harness.until_count("GET", "connectors", reads + 1).await;
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

/// Asks Kibana for its facts now.
fn check_now(harness: &Harness) {
    harness
        .control
        .send(ToAgent::CheckNow(v1::CheckNow::default()));
}

async fn until_proven_again(harness: &Harness, before: &v1::BindingStatus) {
    harness
        .control
        .until("a new proof", |state| {
            let status = &state.statuses[PLACE];
            status.state() == BindingState::Proven && status.proven_at != before.proven_at
        })
        .await;
}

#[tokio::test]
async fn secrets_that_kibana_cannot_read_are_written_again_once_where_the_policy_says_so() {
    let check = async |fault: Value, policy: v1::DriftPolicy| {
        let mut harness = watching().await;
        let binding = v1::DesiredBinding {
            probe_interval_secs: 1,
            ..with_policy(&harness, policy)
        };
        let first = harness.prove(binding.clone()).await;
        harness.kibana_faults(fault.clone()).await;
        if policy == v1::DriftPolicy::Correct {
            until_proven_again(&harness, &first).await;
            assert_eq!(harness.writes().await.1, 1, "{fault}");
        } else {
            let status = harness
                .control
                .until_state(PLACE, BindingState::Drifted)
                .await;
            assert!(!status.text.is_empty());
            assert_eq!(status.proven_at, None);
            harness.until_count("GET", "connectors", 2).await;
            assert_eq!(harness.writes().await.1, 0, "{fault} {policy:?}");
            harness
                .prove(v1::DesiredBinding {
                    attempt: 2,
                    ..binding
                })
                .await;
        }
        harness.stop().await;
    };
    for fault in ["undecryptable", "secrets_missing"] {
        for policy in [
            v1::DriftPolicy::Correct,
            v1::DriftPolicy::Report,
            v1::DriftPolicy::Pause,
        ] {
            check(json!({ fault: true }), policy).await;
        }
    }
}

#[tokio::test]
async fn a_changed_config_and_a_deletion_are_corrected_and_proven_again() {
    let mut harness = watching().await;
    let binding = with_policy(&harness, v1::DriftPolicy::Correct);
    let first = harness.prove(binding.clone()).await;
    let mut other = binding.clone();
    other.config_json = other.config_json.replace("gpt-4o", "gpt-4.1");
    harness.meddle(&other, "OpenAI r1").await;
    until_proven_again(&harness, &first).await;
    let connectors = harness.connectors().await;
    assert_eq!(connectors[0]["config"]["defaultModel"], "gpt-4o");
    let second = harness.control.state().statuses[PLACE].clone();
    harness.delete(&binding).await;
    until_proven_again(&harness, &second).await;
    assert_eq!(harness.connectors().await.len(), 1);
    harness.stop().await;
}

#[tokio::test]
async fn a_fight_with_another_writer_ends_and_names_the_field() {
    let mut harness = watching().await;
    let binding = with_policy(&harness, v1::DriftPolicy::Correct);
    let mut last = harness.prove(binding.clone()).await;
    for n in 0..3 {
        harness.meddle(&binding, &format!("Theirs {n}")).await;
        until_proven_again(&harness, &last).await;
        last = harness.control.state().statuses[PLACE].clone();
    }
    harness.meddle(&binding, "Theirs for good").await;
    let is_fight = |state: &crate::control::State| {
        let status = &state.statuses[PLACE];
        status.state() == BindingState::Drifted && status.text.contains("another writer")
    };
    harness.control.until("it is a fight", is_fight).await;
    let status = harness.control.state().statuses[PLACE].clone();
    assert_eq!(status.failure_class(), FailureClass::Conflict);
    assert!(status.text.contains("Theirs for good"), "{}", status.text);
    let before = harness.writes().await;
    // It is remembered, and nothing is written by itself any more.
    harness.stop().await;
    harness.control.change(|state| state.statuses.clear());
    harness.run();
    harness
        .control
        .until_state(PLACE, BindingState::Drifted)
        .await;
    assert_eq!(harness.writes().await, before);
    assert_eq!(harness.connectors().await[0]["name"], "Theirs for good");
    harness
        .prove(v1::DesiredBinding {
            attempt: 2,
            ..binding
        })
        .await;
    harness.stop().await;
}

#[tokio::test]
async fn what_kibana_does_not_run_any_more_is_said_and_comes_back_by_itself() {
    let check = async |fault: Value, class: FailureClass| {
        let mut harness = watching().await;
        let first = harness
            .prove(with_policy(&harness, v1::DriftPolicy::Report))
            .await;
        harness.kibana_faults(fault.clone()).await;
        check_now(&harness);
        let status = harness
            .control
            .until_state(PLACE, BindingState::Failed)
            .await;
        assert_eq!(status.failure_class(), class, "{fault}: {}", status.text);
        assert_eq!(status.proven_at, None);
        harness.kibana_faults(json!({})).await;
        check_now(&harness);
        until_proven_again(&harness, &first).await;
        assert_eq!(harness.writes().await.1, 0, "it is no drift");
        harness.stop().await;
    };
    check(json!({"licence": "basic"}), FailureClass::Licence).await;
    check(json!({"type_disabled": true}), FailureClass::Rejected).await;
    check(
        json!({"encryption_key_missing": true}),
        FailureClass::Encryption,
    )
    .await;
}

#[tokio::test]
async fn a_licence_that_lapses_is_found_by_an_idle_proof_too() {
    let mut harness = watching().await;
    let binding = v1::DesiredBinding {
        probe_interval_secs: 1,
        ..with_policy(&harness, v1::DriftPolicy::Correct)
    };
    let first = harness.prove(binding).await;
    harness.kibana_faults(json!({"licence": "basic"})).await;
    let status = harness
        .control
        .until_state(PLACE, BindingState::Failed)
        .await;
    assert_eq!(status.failure_class(), FailureClass::Licence);
    harness.kibana_faults(json!({})).await;
    check_now(&harness);
    until_proven_again(&harness, &first).await;
    harness.stop().await;
}

#[tokio::test]
async fn trouble_of_the_agents_own_voids_no_proof() {
    for fault in [
        json!({"api": {"mode": "status", "status": 401}}),
        json!({"api": {"mode": "down"}}),
    ] {
        let mut harness = watching().await;
        let binding = v1::DesiredBinding {
            probe_interval_secs: 1,
            ..with_policy(&harness, v1::DriftPolicy::Correct)
        };
        let first = harness.prove(binding).await;
        harness.kibana_faults(fault.clone()).await;
        check_now(&harness);
        harness
            .control
            .until("Kibana's trouble is known", |state| {
                state
                    .facts
                    .as_ref()
                    .is_some_and(|facts| !facts.problems.is_empty())
            })
            .await;
        harness.kibana_faults(json!({})).await;
        check_now(&harness);
        until_proven_again(&harness, &first).await;
        let said = harness.control.state().reports.clone();
        let failed = said
            .iter()
            .flat_map(|report| &report.bindings)
            .any(|status| status.state() == BindingState::Failed);
        assert!(!failed, "{fault}");
        harness.stop().await;
    }
}

#[tokio::test]
async fn a_kibana_that_is_upgraded_under_us_is_proven_again_and_gets_what_is_new() {
    for policy in [v1::DriftPolicy::Correct, v1::DriftPolicy::Report] {
        let mut harness = Harness::start().await;
        harness.kibana_faults(json!({"upgrade_to": "9.2.0"})).await;
        harness.run();
        let plain = harness.binding("soc/plain", 1, 1);
        let mut binding = with_policy(&harness, policy);
        let whole = binding
            .config_json
            .replacen('{', "{\"temperature\":0.2,", 1);
        binding.config_json = whole;
        binding.if_supported = vec!["temperature".to_owned()];
        harness.push(vec![binding, plain]);
        let first = harness
            .control
            .until_state(PLACE, BindingState::Proven)
            .await;
        let other = harness
            .control
            .until_state("soc/plain", BindingState::Proven)
            .await;
        harness.kibana_faults(json!({"upgrade_to": "9.3.0"})).await;
        check_now(&harness);
        until_proven_again(&harness, &first).await;
        harness
            .control
            .until("the other one is proven again too", |state| {
                let status = &state.statuses["soc/plain"];
                status.state() == BindingState::Proven && status.proven_at != other.proven_at
            })
            .await;
        let temperature = |connector: &Value| connector["config"]["temperature"].clone();
        let connectors = harness.connectors().await;
        let with: Vec<Value> = connectors.iter().map(temperature).collect();
        assert!(with.contains(&json!(0.2)), "{with:?}");
        assert_eq!(harness.writes().await.1, 1, "only what has news");
        let said = harness.control.state().reports.clone();
        let drifted = said
            .iter()
            .flat_map(|report| &report.bindings)
            .any(|status| status.state() == BindingState::Drifted);
        assert!(!drifted, "an upgrade is no drift");
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

#[tokio::test]
async fn what_control_wants_proven_anew_is_proven_once_more_and_not_written() {
    let mut harness = watching().await;
    let first = harness
        .prove(with_policy(&harness, v1::DriftPolicy::Correct))
        .await;
    // A proof of a moment ago is young enough.
    let prove = |older_than_secs| ToAgent::ProveNow(v1::ProveNow { older_than_secs });
    harness.control.send(prove(3600));
    harness.control.send(prove(0));
    until_proven_again(&harness, &first).await;
    assert_eq!(harness.writes().await.1, 0);
    harness.stop().await;
}
