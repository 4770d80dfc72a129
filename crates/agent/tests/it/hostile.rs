//! A control service that has gone mad or was taken over: every error is a refusal or the end of a session.

use std::time::Duration;

use keyfleet_proto::v1::control_message::Message as ToAgent;
use keyfleet_proto::v1::{self, BindingState, FailureClass};
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::harness::{Harness, PLACE, desired};

/// Documents, and the field that each is refused for.
fn beyond_measure(harness: &Harness) -> Vec<(Vec<v1::DesiredBinding>, &'static str)> {
    let binding = || harness.binding(PLACE, 2, 1);
    let one = |binding| vec![binding];
    vec![
        (
            one(v1::DesiredBinding {
                config_json: " ".repeat(100_000),
                ..binding()
            }),
            "bindings[0].config_json",
        ),
        (
            one(v1::DesiredBinding {
                display_name: "ü".repeat(10_000),
                ..binding()
            }),
            "bindings[0].display_name",
        ),
        (
            one(v1::DesiredBinding {
                connector_type: "x".repeat(10_000),
                ..binding()
            }),
            "bindings[0].connector_type",
        ),
        (
            one(v1::DesiredBinding {
                allowed_hosts: vec!["h".to_owned(); 1000],
                ..binding()
            }),
            "bindings[0].allowed_hosts",
        ),
        (
            one(v1::DesiredBinding {
                allowed_hosts: vec!["h".repeat(1000)],
                ..binding()
            }),
            "bindings[0].allowed_hosts",
        ),
        (
            one(v1::DesiredBinding {
                key: "k".repeat(100_000),
                ..binding()
            }),
            "bindings[0].key",
        ),
        (vec![v1::DesiredBinding::default(); 10_001], "bindings"),
        (
            one(v1::DesiredBinding {
                drift_policy: i32::MIN,
                ..binding()
            }),
            "bindings[0].drift_policy",
        ),
        (
            one(v1::DesiredBinding {
                connector_id: "\u{0}".to_owned(),
                ..binding()
            }),
            "bindings[0].connector_id",
        ),
    ]
}

#[tokio::test]
async fn documents_beyond_all_measure_are_refused_and_the_session_goes_on() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    for (counter, (bindings, expected)) in (100..).zip(beyond_measure(&harness)) {
        let n_answers = harness.control.state().answers.len();
        harness
            .control
            .send(ToAgent::Desired(desired(1, counter, bindings)));
        harness
            .control
            .until("an answer", |state| state.answers.len() > n_answers)
            .await;
        let rejected = harness.control.state().answers[n_answers].rejected.clone();
        assert!(
            rejected.contains(expected) && rejected.len() < 1000,
            "{rejected}"
        );
    }
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    // What only one binding has is that binding's own failure.
    let nested = v1::DesiredBinding {
        config_json: deep,
        ..harness.binding(PLACE, 2, 1)
    };
    harness
        .control
        .send(ToAgent::Desired(desired(1, 200, vec![nested])));
    let status = harness
        .control
        .until_state(PLACE, BindingState::Failed)
        .await;
    assert_eq!(status.failure_class(), FailureClass::Rejected);
    assert!(status.text.chars().count() <= 600, "{}", status.text);
    assert_eq!(harness.control.state().sessions, [1]);
    assert_eq!(harness.writes().await, (1, 0, 0, 1));
    harness.stop().await;
}

#[tokio::test]
async fn messages_that_cannot_be_used_end_the_session_and_the_next_one_works() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    let huge = desired(1, 50, vec![harness.binding(PLACE, 2, 1); 20_000]);
    let wrong_name = v1::KeyRefused {
        key: "Not a name\n".to_owned(),
        ..v1::KeyRefused::default()
    };
    for (n, message) in (2..).zip([ToAgent::Desired(huge), ToAgent::KeyRefused(wrong_name)]) {
        harness.control.send(message);
        harness
            .control
            .until("the next session", |state| state.sessions.len() == n)
            .await;
    }
    harness.prove(harness.binding(PLACE, 2, 2)).await;
    harness.stop().await;
}

#[tokio::test]
async fn floods_and_nonsense_change_nothing() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    for n in 0..40_u64 {
        let name = format!("key-{n}");
        for message in [
            ToAgent::KeyRefused(v1::KeyRefused {
                key: name,
                version: n,
                reason: "no ".repeat(10_000),
            }),
            ToAgent::StatusAnswer(v1::StatusAnswer {
                sequence: u64::MAX - n,
                report_full_state: true,
            }),
            ToAgent::Welcome(v1::Welcome {
                heartbeat_interval_secs: u32::MAX,
                ..v1::Welcome::default()
            }),
            ToAgent::Andon(v1::Andon { on: n % 2 == 0 }),
        ] {
            harness.control.send(message);
        }
        tokio::task::yield_now().await;
    }
    harness.prove(harness.binding(PLACE, 2, 2)).await;
    assert_eq!(harness.control.state().sessions, [1]);
    harness.stop().await;
}

#[tokio::test]
async fn a_control_that_takes_the_connection_and_says_nothing_is_left_again() {
    let mut harness = Harness::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = harness.config();
    config.control.port = listener.local_addr().unwrap().port();
    config.control.timeout = Duration::from_secs(1);
    harness.run_with(config);
    for _ in 0..2 {
        let (mut tcp, _) = listener.accept().await.unwrap();
        // The agent speaks first, and hangs up when nobody answers.
        let mut heard = Vec::new();
        tcp.read_to_end(&mut heard).await.unwrap();
        assert!(!heard.is_empty());
    }
    harness.stop().await;
}

#[tokio::test]
async fn a_session_that_is_never_welcomed_is_left_again() {
    let mut harness = Harness::start().await;
    harness.control.change(|state| state.mute = true);
    let mut config = harness.config();
    config.control.timeout = Duration::from_secs(1);
    harness.run_with(config);
    harness
        .control
        .until("a second session", |state| state.sessions.len() == 2)
        .await;
    harness.control.change(|state| state.mute = false);
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    harness.stop().await;
}

#[tokio::test]
async fn while_the_fleet_is_stopped_neither_drift_nor_a_retry_is_written() {
    let mut harness = Harness::start().await;
    let mut config = harness.config();
    config.drift_interval = Duration::from_millis(100);
    harness.run_with(config);
    let kept = harness.binding(PLACE, 1, 1);
    let mut failing = harness.binding("soc/assistant", 1, 1);
    harness.prove(kept.clone()).await;
    // One write fails and will be tried again.
    harness
        .kibana_faults(json!({"api": {"mode": "status", "status": 503, "methods": ["POST"], "path_contains": "/connector/"}}))
        .await;
    failing.attempt = 1;
    harness.push(vec![kept.clone(), failing]);
    harness.until_count("POST", "connector", 2).await;
    harness.control.send(ToAgent::Andon(v1::Andon { on: true }));
    // The stop is known once what was sent after it is answered.
    let n_answers = harness.control.state().answers.len();
    harness
        .control
        .send(ToAgent::Desired(v1::Desired::default()));
    harness
        .control
        .until("an answer", |state| state.answers.len() > n_answers)
        .await;
    harness.kibana_faults(json!({})).await;
    let before = harness.writes().await;
    // And somebody changes the other one.
    harness.meddle(&kept, "changed by hand").await;
    harness
        .control
        .until_state(PLACE, BindingState::Drifted)
        .await;
    let looks = harness.count("GET", "connectors").await;
    harness.until_count("GET", "connectors", looks + 10).await;
    let (created, replaced, removed, _) = harness.writes().await;
    // The one replacement is the meddler's.
    assert!(created - before.0 <= 1, "a call in flight may end");
    assert_eq!((replaced, removed), (before.1 + 1, 0));
    let created_while_stopped = created;
    let looks = harness.count("GET", "connectors").await;
    harness.until_count("GET", "connectors", looks + 10).await;
    assert_eq!(harness.writes().await.0, created_while_stopped);
    harness
        .control
        .send(ToAgent::Andon(v1::Andon { on: false }));
    for place in [PLACE, "soc/assistant"] {
        harness
            .control
            .until_state(place, BindingState::Proven)
            .await;
    }
    harness.stop().await;
}
