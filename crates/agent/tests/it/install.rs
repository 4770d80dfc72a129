//! The main job: a desired state becomes proven connectors, once.

use std::time::{Duration, Instant};

use keyfleet_proto::v1::{self, BindingState, FailureClass};

use serde_json::json;

use crate::harness::{Harness, KEY_1, KEY_2, PLACE};

#[tokio::test]
async fn a_first_install_is_written_read_back_and_proven() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.push(vec![
        harness.binding(PLACE, 1, 1),
        harness.binding("soc/assistant", 1, 1),
    ]);
    for place in [PLACE, "soc/assistant"] {
        let status = harness
            .control
            .until_state(place, BindingState::Proven)
            .await;
        assert_eq!(
            status.running,
            Some(v1::Assignment {
                revision: 1,
                key_version: 1
            })
        );
        assert_eq!(status.running, status.attempted);
        assert!(status.proven_at.is_some() && status.baseline_ok.is_none());
    }
    assert_eq!(harness.writes().await, (2, 0, 0, 2));
    let connectors = harness.connectors().await;
    assert!(
        connectors
            .iter()
            .all(|connector| connector["secret_tail"] == "Qx1Z"),
        "{connectors:?}"
    );
    assert_eq!(harness.control.state().answers[0].rejected, "");
    let facts = harness.control.state().facts.clone().unwrap_or_default();
    assert!(facts.version.is_empty() || facts.version == "9.4.0");
    let disk = harness.on_disk();
    assert!(!disk.contains(KEY_1) && disk.contains("fingerprint-1"));
    harness.stop().await;
}

#[tokio::test]
async fn a_restart_with_an_unchanged_kibana_changes_nothing_and_proves_nothing() {
    let mut harness = Harness::start().await;
    harness.run();
    let first = harness.prove(harness.binding(PLACE, 1, 1)).await;
    harness.stop().await;
    let before = harness.writes().await;
    let reads = harness.count("GET", "connector").await;
    harness.control.change(|state| {
        state.statuses.clear();
        state.report_full_state = true;
    });
    harness.run();
    let again = harness
        .control
        .until_state(PLACE, BindingState::Proven)
        .await;
    assert_eq!(again, first, "control sees no change");
    assert_eq!(harness.writes().await, before);
    assert_eq!(harness.count("GET", "connector").await, reads + 1);
    assert!(
        harness.control.state().requests.is_empty(),
        "no key is needed"
    );
    harness.stop().await;
}

#[tokio::test]
async fn a_new_revision_and_a_new_key_replace_the_old_ones_after_a_baseline() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    let status = harness.prove(harness.binding(PLACE, 2, 1)).await;
    assert_eq!(status.baseline_ok, Some(true));
    harness.prove(harness.binding(PLACE, 2, 2)).await;
    assert_eq!(harness.writes().await, (1, 2, 0, 5));
    let connectors = harness.connectors().await;
    assert_eq!(connectors[0]["secret_tail"], "Wy2Z");
    assert_eq!(connectors[0]["name"], "OpenAI r2");
    assert!(!harness.on_disk().contains(KEY_2));
    harness.stop().await;
}

#[tokio::test]
async fn what_the_agent_does_not_accept_is_rejected_and_the_rest_is_applied() {
    let mut harness = Harness::start().await;
    let mut config = harness.config();
    config.accept.spaces = vec!["default".to_owned()];
    harness.run_with(config);
    let mut host = harness.binding("default/host", 1, 1);
    host.config_json = host.config_json.replace("127.0.0.1", "evil.example.com");
    let mut key_host = harness.binding("default/key-host", 1, 1);
    key_host.allowed_hosts = vec!["api.openai.com".to_owned()];
    let mut kind = harness.binding("default/kind", 1, 1);
    kind.connector_type = ".email".to_owned();
    let mut id = harness.binding("default/id", 1, 1);
    id.connector_id = harness.binding("default/other", 1, 1).connector_id;
    let space = harness.binding("soc/space", 1, 1);
    harness.push(vec![
        host,
        key_host,
        kind,
        id,
        space,
        harness.binding(PLACE, 1, 1),
    ]);
    harness
        .control
        .until_state(PLACE, BindingState::Proven)
        .await;
    for (place, expected) in [
        ("default/host", "accept.hosts"),
        ("default/key-host", "allowed hosts"),
        ("default/kind", "accept.connector_types"),
        ("default/id", "id"),
        ("soc/space", "accept.spaces"),
    ] {
        let status = harness
            .control
            .until_state(place, BindingState::Failed)
            .await;
        assert_eq!(status.failure_class(), FailureClass::Rejected);
        assert!(status.text.contains(expected), "{place}: {}", status.text);
    }
    assert_eq!(harness.writes().await, (1, 0, 0, 1));
    harness.stop().await;
}

#[tokio::test]
async fn a_removal_ends_with_confirmed_absence() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    let known = harness.binding(PLACE, 1, 1);
    // All that control says of a removal.
    let binding = v1::DesiredBinding {
        binding: known.binding,
        connector_id: known.connector_id,
        attempt: 1,
        remove: true,
        ..v1::DesiredBinding::default()
    };
    harness.push(vec![binding.clone()]);
    harness
        .control
        .until("it is removed", |state| state.statuses[PLACE].removed)
        .await;
    // Asked again it looks again: an absence of long ago is no answer.
    let looks = harness.count("GET", "connector").await;
    let newer = harness.push(vec![binding]).generation;
    harness
        .control
        .until("it is removed again", |state| {
            state.statuses[PLACE].removed && state.statuses[PLACE].generation == newer
        })
        .await;
    assert!(harness.count("GET", "connector").await > looks);
    assert_eq!(harness.control.state().statuses[PLACE].running, None);
    assert!(harness.connectors().await.is_empty());
    assert_eq!(harness.writes().await, (1, 0, 1, 1));
    // A binding that is no longer named is none of our business.
    harness.push(Vec::new());
    harness
        .control
        .until("it is received", |state| state.answers.len() == 4)
        .await;
    harness.stop().await;
}

#[tokio::test]
async fn a_write_of_a_binding_that_went_and_came_back_is_waited_for() {
    const DELAY: Duration = Duration::from_secs(2);
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    harness
        .kibana_faults(json!({"api": {"mode": "slow", "delay_ms": DELAY.as_millis(), "methods": ["PUT"], "remaining": 1}}))
        .await;
    let began = Instant::now();
    harness.push(vec![harness.binding(PLACE, 2, 1)]);
    harness.until_count("PUT", "connector", 1).await;
    harness.push(Vec::new());
    harness.prove(harness.binding(PLACE, 3, 1)).await;
    assert!(began.elapsed() >= DELAY, "never two writes at a time");
    assert_eq!(harness.connectors().await[0]["name"], "OpenAI r3");
    harness.stop().await;
}

#[tokio::test]
async fn a_new_try_of_what_is_proven_proves_it_again() {
    let mut harness = Harness::start().await;
    harness.run();
    let first = harness.prove(harness.binding(PLACE, 1, 1)).await;
    let second = harness
        .prove(v1::DesiredBinding {
            attempt: 2,
            ..harness.binding(PLACE, 1, 1)
        })
        .await;
    assert_ne!(first.proven_at, second.proven_at);
    assert_eq!(harness.writes().await, (1, 0, 0, 2));
    harness.stop().await;
}
