//! Kibana and the provider fail in every way that the simulator knows.

use std::time::Duration;

use keyfleet_proto::v1::{self, BindingState, FailureClass};
use serde_json::json;

use crate::harness::{Harness, PLACE};

#[tokio::test]
async fn a_kibana_that_comes_back_is_brought_up_to_date() {
    let mut harness = Harness::start().await;
    harness
        .kibana_faults(json!({"api": {"mode": "down"}}))
        .await;
    harness.run();
    harness.push(vec![harness.binding(PLACE, 1, 1)]);
    let status = harness
        .control
        .until_state(PLACE, BindingState::Failed)
        .await;
    assert_eq!(status.failure_class(), FailureClass::KibanaDown);
    assert_eq!(status.running, None);
    harness.kibana_faults(json!({})).await;
    harness
        .control
        .until_state(PLACE, BindingState::Proven)
        .await;
    assert_eq!(harness.writes().await, (1, 0, 0, 1));
    harness.stop().await;
}

#[tokio::test]
async fn a_kibana_that_is_down_for_a_moment_is_no_news() {
    let check = async |fault: serde_json::Value| {
        let mut harness = Harness::start().await;
        harness.kibana_faults(json!({"api": fault})).await;
        harness.run();
        harness.prove(harness.binding(PLACE, 1, 1)).await;
        let failed = harness.control.state().reports.iter().any(|report| {
            report
                .bindings
                .iter()
                .any(|status| status.state() == BindingState::Failed)
        });
        assert!(!failed, "{fault}");
        assert_eq!(harness.connectors().await.len(), 1);
        harness.stop().await;
    };
    check(json!({"mode": "html", "remaining": 1})).await;
    check(json!({"mode": "status", "status": 429, "remaining": 1, "methods": ["POST"]})).await;
    check(json!({"mode": "status", "status": 503, "remaining": 1, "methods": ["POST"]})).await;
}

#[tokio::test]
async fn a_write_without_an_answer_is_looked_up_and_never_doubled() {
    for mode in ["write_then_fail", "half_closed"] {
        let mut harness = Harness::start().await;
        harness
            .kibana_faults(json!({"api": {"mode": mode, "methods": ["POST"], "path_contains": "/connector/", "remaining": 1}}))
            .await;
        harness.run();
        harness.prove(harness.binding(PLACE, 1, 1)).await;
        // Kibana held it already; because its key cannot be read back it is written once more.
        assert_eq!(harness.writes().await, (1, 1, 0, 1), "{mode}");
        assert_eq!(harness.connectors().await.len(), 1);
        harness.stop().await;
    }
}

#[tokio::test]
async fn a_key_that_the_provider_refuses_is_final_until_a_new_try() {
    let mut harness = Harness::start().await;
    harness
        .kibana_faults(json!({"provider": {"status": 401}}))
        .await;
    harness.run();
    harness.push(vec![harness.binding(PLACE, 1, 1)]);
    let status = harness
        .control
        .until_state(PLACE, BindingState::Failed)
        .await;
    assert_eq!(status.failure_class(), FailureClass::Auth);
    assert_eq!(
        status.running,
        Some(v1::Assignment {
            revision: 1,
            key_version: 1
        })
    );
    assert!(!status.text.contains("Qx1Z"), "{}", status.text);
    assert_eq!(harness.writes().await, (1, 0, 0, 1));
    // A restart does not try again by itself.
    harness.stop().await;
    harness.control.change(|state| state.statuses.clear());
    harness.kibana_faults(json!({})).await;
    harness.run();
    harness
        .control
        .until_state(PLACE, BindingState::Failed)
        .await;
    assert_eq!(harness.writes().await, (1, 0, 0, 1));
    harness
        .prove(v1::DesiredBinding {
            attempt: 2,
            ..harness.binding(PLACE, 1, 1)
        })
        .await;
    harness.stop().await;
}

#[tokio::test]
async fn what_was_broken_before_is_told() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    harness
        .kibana_faults(json!({"provider": {"status": 401, "remaining": 1}}))
        .await;
    let status = harness.prove(harness.binding(PLACE, 2, 1)).await;
    assert_eq!(status.baseline_ok, Some(false));
    harness.stop().await;
}

#[tokio::test]
async fn a_provider_that_recovers_is_asked_again() {
    let mut harness = Harness::start().await;
    harness
        .kibana_faults(json!({"provider": {"status": 500, "remaining": 2}}))
        .await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    assert_eq!(harness.writes().await, (1, 0, 0, 3));
    harness.stop().await;
}

#[tokio::test]
async fn what_a_person_must_repair_is_named() {
    let check = async |faults: serde_json::Value, class: FailureClass, part: &str| {
        let mut harness = Harness::start().await;
        harness.kibana_faults(faults.clone()).await;
        harness.run();
        harness.push(vec![harness.binding(PLACE, 1, 1)]);
        let status = harness
            .control
            .until_state(PLACE, BindingState::Failed)
            .await;
        assert_eq!(status.failure_class(), class, "{faults}: {}", status.text);
        assert!(status.text.contains(part), "{faults}: {}", status.text);
        assert!(harness.connectors().await.is_empty());
        harness.stop().await;
    };
    check(
        json!({"licence": "basic"}),
        FailureClass::Licence,
        "licence",
    )
    .await;
    check(
        json!({"type_disabled": true}),
        FailureClass::Rejected,
        "enabledActionTypes",
    )
    .await;
    check(
        json!({"encryption_key_missing": true}),
        FailureClass::Encryption,
        "encryptionKey",
    )
    .await;
    check(
        json!({"privilege": "read"}),
        FailureClass::KibanaAuth,
        "feature_actions.all",
    )
    .await;
}

#[tokio::test]
async fn a_space_that_does_not_exist_holds_back_only_its_own() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.push(vec![
        harness.binding(PLACE, 1, 1),
        harness.binding("nowhere/assistant", 1, 1),
    ]);
    harness
        .control
        .until_state(PLACE, BindingState::Proven)
        .await;
    let status = harness
        .control
        .until_state("nowhere/assistant", BindingState::Failed)
        .await;
    assert!(status.text.contains("nowhere"), "{}", status.text);
    harness.stop().await;
}

#[tokio::test]
async fn a_rollback_of_what_we_broke_counts_as_nothing_that_was_broken_before() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    // The baseline passes, the proof of the change does not, then everything works again.
    harness
        .kibana_faults(json!({"provider": {"status": 401, "model": "gpt-4.1"}}))
        .await;
    let mut broken = harness.binding(PLACE, 2, 1);
    broken.config_json = broken.config_json.replace("gpt-4o", "gpt-4.1");
    harness.push(vec![broken.clone()]);
    let failed = harness
        .control
        .until_state(PLACE, BindingState::Failed)
        .await;
    assert_eq!(
        (failed.failure_class(), failed.baseline_ok),
        (FailureClass::Auth, Some(true))
    );
    let back = harness.prove(harness.binding(PLACE, 1, 1)).await;
    assert_eq!(back.baseline_ok, None);
    // The same goal after another one is a new chance, whatever its number.
    harness.kibana_faults(json!({})).await;
    harness.prove(broken).await;
    harness.stop().await;
}

#[tokio::test]
async fn what_worked_once_is_tried_again_for_ever() {
    let mut harness = Harness::start().await;
    let mut config = harness.config();
    config.drift_interval = Duration::from_millis(200);
    harness.run_with(config);
    let binding = v1::DesiredBinding {
        probe_interval_secs: 1,
        ..harness.binding(PLACE, 1, 1)
    };
    harness.prove(binding.clone()).await;
    for meddled in [false, true] {
        harness
            .kibana_faults(json!({"provider": {"status": 401}}))
            .await;
        if meddled {
            harness.meddle(&binding, "Somebody's own").await;
        }
        let failed = harness.control.until_state(PLACE, BindingState::Failed);
        assert_eq!(failed.await.failure_class(), FailureClass::Auth);
        let tried = harness.count("POST", "execute").await;
        harness.until_count("POST", "execute", tried + 2).await;
        assert_eq!(
            harness.control.state().state_of(PLACE),
            BindingState::Failed
        );
        harness.kibana_faults(json!({})).await;
        harness
            .control
            .until_state(PLACE, BindingState::Proven)
            .await;
    }
    let (created, replaced, _, _) = harness.writes().await;
    assert_eq!((created, replaced), (1, 2), "the drift alone is written");
    harness.stop().await;
}

#[tokio::test]
async fn a_desired_state_that_came_back_to_what_it_was_is_answered() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    let before = harness.writes().await;
    let newer = harness.push(vec![harness.binding(PLACE, 1, 1)]).generation;
    harness
        .control
        .until("an answer", |state| {
            state.statuses[PLACE].generation == newer
        })
        .await;
    assert_eq!(harness.writes().await, before);
    harness.stop().await;
}
