//! What is said on the stream.

use std::time::Duration;

use keyfleet_proto::v1::control_message::Message as ToAgent;
use keyfleet_proto::v1::{self, BindingState, FailureClass};

use serde_json::json;

use crate::control::State;
use crate::harness::{Harness, PLACE, desired};

#[tokio::test]
async fn older_changed_and_malformed_documents_are_refused_and_remembered() {
    let mut harness = Harness::start().await;
    harness.run();
    harness
        .control
        .until("a session", |state| state.hellos.len() == 1)
        .await;
    let good = desired(2, 5, vec![harness.binding(PLACE, 1, 1)]);
    harness.control.push(&good);
    harness
        .control
        .until_state(PLACE, BindingState::Proven)
        .await;
    let mut twice = desired(
        2,
        6,
        vec![harness.binding(PLACE, 1, 1), harness.binding(PLACE, 1, 1)],
    );
    let mut nameless = desired(2, 7, vec![harness.binding(PLACE, 1, 1)]);
    nameless.bindings[0].key = "Not a name".to_owned();
    twice.bindings[1].attempt = 9;
    let other = v1::Desired {
        digest: "other".into(),
        ..good.clone()
    };
    for (document, expected) in [
        (desired(2, 4, Vec::new()), "older"),
        (desired(1, 99, Vec::new()), "older"),
        (other, "another content"),
        (twice, "bindings[1].binding"),
        (nameless, "bindings[0].key"),
        (
            v1::Desired {
                generation: None,
                ..good.clone()
            },
            "generation",
        ),
    ] {
        let n_answers = harness.control.state().answers.len();
        harness.control.send(ToAgent::Desired(document));
        harness
            .control
            .until("an answer", |state| state.answers.len() == n_answers + 1)
            .await;
        let rejected = harness.control.state().answers[n_answers].rejected.clone();
        assert!(rejected.contains(expected), "{rejected}");
    }
    // The same again is no change.
    let n_answers = harness.control.state().answers.len();
    harness.control.send(ToAgent::Desired(good));
    harness
        .control
        .until("an answer", |state| state.answers.len() == n_answers + 1)
        .await;
    assert_eq!(harness.control.state().answers[n_answers].rejected, "");
    assert_eq!(harness.writes().await, (1, 0, 0, 1));
    harness.stop().await;
}

#[tokio::test]
async fn hello_tells_what_the_agent_has() {
    let mut harness = Harness::start().await;
    harness.run();
    let desired = desired(2, 5, vec![harness.binding(PLACE, 1, 1)]);
    harness.control.push(&desired);
    harness
        .control
        .until_state(PLACE, BindingState::Proven)
        .await;
    harness
        .control
        .send(ToAgent::Desired(v1::Desired::default()));
    harness
        .control
        .until("a refusal", |state| state.answers.len() == 2)
        .await;
    harness.control.send(ToAgent::GoAway(v1::GoAway {
        reconnect_after_secs: 0,
        reason: "test".to_owned(),
    }));
    harness
        .control
        .until("a second session", |state| state.hellos.len() == 2)
        .await;
    {
        let state = harness.control.state();
        let hello = &state.hellos[1];
        assert_eq!(
            hello.generation,
            Some(v1::Generation {
                epoch: 2,
                counter: 5
            })
        );
        assert_eq!(hello.digest, "digest 2.5");
        assert_eq!(
            hello.keys_held,
            [v1::KeyHeld {
                key: "openai".to_owned(),
                version: 1
            }]
        );
        assert!(hello.last_rejected.is_some() && hello.facts.is_some());
        assert_eq!(hello.boot_id, state.hellos[0].boot_id);
    }
    harness.stop().await;
}

#[tokio::test]
async fn a_reconnect_with_nothing_new_sends_nothing() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    harness.control.send(ToAgent::GoAway(v1::GoAway::default()));
    harness
        .control
        .until("a second session", |state| state.hellos.len() == 2)
        .await;
    let (n_reports, n_beats) = {
        let state = harness.control.state();
        (state.reports.len(), state.heartbeats)
    };
    harness
        .control
        .until("a heartbeat", |state| state.heartbeats > n_beats)
        .await;
    assert_eq!(harness.control.state().reports.len(), n_reports);
    assert_eq!(harness.control.state().answers.len(), 1);
    assert_eq!(harness.writes().await, (1, 0, 0, 1));
    harness.stop().await;
}

#[tokio::test]
async fn what_control_did_not_store_is_sent_again() {
    let mut harness = Harness::start().await;
    harness.control.change(|state| state.deaf = true);
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    harness.control.change(|state| {
        state.statuses.clear();
        state.deaf = false;
    });
    harness.control.send(ToAgent::GoAway(v1::GoAway::default()));
    harness
        .control
        .until_state(PLACE, BindingState::Proven)
        .await;
    harness.stop().await;
}

#[tokio::test]
async fn a_key_that_does_not_come_is_asked_for_and_a_refusal_is_told() {
    let mut harness = Harness::start().await;
    harness.control.change(|state| {
        state.lazy = true;
        state.refused.insert(("openai".to_owned(), 2));
    });
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    assert_eq!(harness.control.state().requests.len(), 1);
    harness.push(vec![harness.binding(PLACE, 1, 2)]);
    let status = harness
        .control
        .until_state(PLACE, BindingState::Failed)
        .await;
    assert_eq!(status.failure_class(), FailureClass::Agent);
    assert!(
        status.text.contains("openai") && status.text.contains("retiring"),
        "{}",
        status.text
    );
    assert_eq!(
        status.running,
        Some(v1::Assignment {
            revision: 1,
            key_version: 1
        })
    );
    assert_eq!(harness.writes().await, (1, 0, 0, 1));
    harness.stop().await;
}

#[tokio::test]
async fn nothing_is_written_while_the_fleet_is_stopped() {
    let mut harness = Harness::start().await;
    harness.control.change(|state| state.andon = true);
    harness.run();
    harness.push(vec![harness.binding(PLACE, 1, 1)]);
    harness
        .control
        .until("two heartbeats", |state| {
            state.heartbeats >= 2 && !state.answers.is_empty()
        })
        .await;
    assert_eq!(harness.writes().await, (0, 0, 0, 0));
    harness.control.change(|state| state.andon = false);
    harness
        .control
        .send(ToAgent::Andon(v1::Andon { on: false }));
    harness
        .control
        .until_state(PLACE, BindingState::Proven)
        .await;
    harness.stop().await;
}

#[tokio::test]
async fn an_old_status_is_no_answer_to_a_new_try() {
    let mut harness = Harness::start().await;
    harness.control.change(|state| state.deaf = true);
    let mut config = harness.config();
    config.kibana.probe_timeout = Duration::from_secs(3);
    harness.run_with(config);
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    // Nothing is known of the new try while its live call hangs.
    harness
        .kibana_faults(
            json!({"api": {"mode": "hang", "path_contains": "_execute", "remaining": 1}}),
        )
        .await;
    let again = v1::DesiredBinding {
        attempt: 2,
        ..harness.binding(PLACE, 1, 1)
    };
    let answered = async |harness: &Harness, generation| {
        harness
            .control
            .until("an answer", |state| {
                let answer = state.answers.last();
                answer.is_some_and(|answer| answer.generation == generation)
            })
            .await;
    };
    let newer = harness.push(vec![again.clone()]).generation;
    answered(&harness, newer).await;
    let n_reports = harness.control.state().reports.len();
    harness.until_count("POST", "execute", 2).await;
    let newest = harness.push(vec![again]).generation;
    answered(&harness, newest).await;
    harness.control.send(ToAgent::GoAway(v1::GoAway::default()));
    harness
        .control
        .until("a proof of the new try", |state| {
            let status = &state.statuses[PLACE];
            status.state() == BindingState::Proven && status.attempt == 2
        })
        .await;
    let late = {
        let state = harness.control.state();
        let reports = state.reports[n_reports..].iter();
        let attempts =
            reports.flat_map(|report| report.bindings.iter().map(|status| status.attempt));
        attempts.collect::<Vec<_>>()
    };
    assert!(late.iter().all(|attempt| *attempt == 2), "{late:?}");
    harness.stop().await;
}

#[tokio::test]
async fn an_answer_that_was_lost_is_given_again() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    let bad = v1::Desired {
        generation: None,
        digest: "bad".into(),
        bindings: Vec::new(),
    };
    harness.control.send(ToAgent::Desired(bad));
    let n_answers = async |harness: &Harness, n: usize| {
        let rejections = |state: &State| {
            let rejected = |answer: &&v1::DesiredAnswer| !answer.rejected.is_empty();
            state.answers.iter().filter(rejected).count()
        };
        harness
            .control
            .until("an answer", |state| rejections(state) == n)
            .await;
    };
    n_answers(&harness, 1).await;
    harness.control.send(ToAgent::GoAway(v1::GoAway::default()));
    n_answers(&harness, 2).await;
    harness.stop().await;
    harness.run();
    n_answers(&harness, 3).await;
    let rejected = harness.control.state().hellos[2].last_rejected.clone();
    assert_eq!(rejected.map(|rejected| rejected.digest), Some("bad".into()));
    // What is taken up ends the story.
    harness.prove(harness.binding(PLACE, 2, 1)).await;
    harness.stop().await;
    harness.run();
    harness
        .control
        .until("a fourth session", |state| state.hellos.len() == 4)
        .await;
    assert_eq!(harness.control.state().hellos[3].last_rejected, None);
    harness.stop().await;
}
