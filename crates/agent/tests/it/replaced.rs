//! An agent that enrols again: its answer was lost, its host was replaced, or its identity is void.

use keyfleet_agent::Error;
use keyfleet_telemetry::error_chain;

use crate::harness::{Harness, PLACE};

#[tokio::test]
async fn an_enrolment_whose_answer_is_lost_is_repeated_and_takes_one_use() {
    let mut harness = Harness::start().await;
    harness.control.change(|state| state.lost = 2);
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    harness.stop().await;
    let state = harness.control.state();
    assert_eq!((state.enrolled.len(), state.token_uses), (1, 0));
}

#[tokio::test]
async fn killed_before_the_answer_it_asks_for_the_same_identity() {
    let mut harness = Harness::start().await;
    harness.control.change(|state| state.lost = 1000);
    harness.run();
    harness
        .control
        .until("an enrolment", |state| state.enrolled.len() == 1)
        .await;
    harness.kill().await;
    let disk = harness.on_disk();
    assert!(disk.contains("PRIVATE KEY") && !disk.contains(&harness.control.token));
    harness.control.change(|state| state.lost = 0);
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    harness.stop().await;
    assert_eq!(harness.control.state().enrolled.len(), 1);
    assert!(!harness.state_dir().join("enrolment.pem").exists());
}

#[tokio::test]
async fn another_token_in_its_file_makes_a_void_agent_enrol_again_and_write_nothing() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    let writes = harness.writes().await;
    let sealing = harness.control.state().sealing_public_key.clone();
    harness.give_token(&harness.control.other_token());
    harness.control.replace(1);
    harness.until_sessions(&[1, 1]).await;
    harness
        .control
        .until("a heartbeat", |state| state.heartbeats > 0)
        .await;
    assert_eq!(harness.writes().await, writes);
    assert_eq!(harness.control.state().enrolled.len(), 2);
    assert_ne!(harness.control.state().sealing_public_key, sealing);
    // And from then on it works as before, also after a restart.
    harness.prove(harness.binding(PLACE, 2, 2)).await;
    harness.stop().await;
    harness.run();
    harness.until_sessions(&[1, 1, 1]).await;
    harness.stop().await;
    let (created, replaced, removed, _) = harness.writes().await;
    assert_eq!((created, replaced, removed), (1, 1, 0));
}

#[tokio::test]
async fn without_another_token_a_void_agent_ends_and_the_next_start_may_have_one() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    let writes = harness.writes().await;
    harness.give_token("not a token at all");
    harness.control.replace(1);
    let error = harness.ended().await.unwrap_err();
    assert!(matches!(error, Error::Void { .. }), "{error}");
    // Started again by its service manager, nothing having changed.
    harness.run();
    assert!(matches!(harness.ended().await, Err(Error::Void { .. })));
    harness.give_token(&harness.control.other_token());
    harness.run();
    harness.until_sessions(&[1, 1]).await;
    harness.stop().await;
    assert_eq!(harness.writes().await, writes);
}

#[tokio::test]
async fn left_behind_by_a_new_ca_a_token_that_names_it_brings_the_agent_back() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    harness.stop().await;
    let writes = harness.writes().await;
    let mut config = harness.config();
    config.control.port = harness.control.next_address.port();
    let token = harness.control.token_of_next_ca();
    harness.give_token(&token);
    harness.control.change(|state| {
        state.rotating = true;
        state.enrolment = uuid::Uuid::new_v4();
        state.seen = 0;
        state.replacement = Some(token);
        state.token_uses = 1;
    });
    harness.run_with(config);
    harness.until_sessions(&[1, 1]).await;
    harness.stop().await;
    assert_eq!(harness.writes().await, writes);
    assert_eq!(harness.control.state().enrolled.len(), 2);
}

#[tokio::test]
async fn another_token_is_not_used_while_the_identity_is_good() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.until_sessions(&[1]).await;
    harness.stop().await;
    harness.give_token(&harness.control.other_token());
    harness.run();
    harness.until_sessions(&[1, 1]).await;
    harness.stop().await;
    assert_eq!(harness.control.state().enrolled.len(), 1);
}

#[tokio::test]
async fn a_void_agent_with_a_token_that_is_used_up_says_so() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.until_sessions(&[1]).await;
    harness.give_token(&harness.control.other_token());
    harness.control.replace(0);
    let text = error_chain(&harness.ended().await.unwrap_err());
    assert!(text.contains("used up"), "{text}");
}

#[tokio::test]
async fn on_a_new_host_each_connector_is_written_once_more_and_no_more() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    harness.kill().await;
    std::fs::remove_dir_all(harness.state_dir()).unwrap();
    harness.give_token(&harness.control.other_token());
    harness.control.replace(1);
    harness.control.change(|state| state.statuses.clear());
    harness.run();
    harness
        .control
        .until_state(PLACE, keyfleet_proto::v1::BindingState::Proven)
        .await;
    let (created, replaced, removed, _) = harness.writes().await;
    assert_eq!((created, replaced, removed), (1, 1, 0));
    harness.stop().await;
}
