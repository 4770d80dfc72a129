//! Joining the fleet.

use keyfleet_agent::{Error, enrol};
use keyfleet_telemetry::error_chain;

use crate::harness::Harness;

#[tokio::test]
async fn a_token_gives_an_identity_that_lasts() {
    let mut harness = Harness::start().await;
    harness.run();
    harness
        .control
        .until("a session", |state| state.hellos.len() == 1)
        .await;
    harness.stop().await;
    {
        let state = harness.control.state();
        let request = &state.enrolled[0];
        assert_eq!(request.deployment_name, "prod");
        assert_eq!(request.labels["env"], "prod");
        assert_eq!(request.sealing_public_key.len(), 32);
    }
    // The token is used up; the identity is enough.
    std::fs::remove_file(harness.directory.path().join("token")).unwrap();
    harness.run();
    harness
        .control
        .until("a second session", |state| state.hellos.len() == 2)
        .await;
    harness.stop().await;
    assert_eq!(harness.control.state().enrolled.len(), 1);
    let hellos = &harness.control.state().hellos;
    assert_ne!(hellos[0].boot_id, hellos[1].boot_id);
    assert_ne!(hellos[0].nonce, hellos[1].nonce);
    assert!(!harness.on_disk().contains(&harness.control.token));
}

#[tokio::test]
async fn a_used_up_token_ends_the_agent_with_the_reason() {
    let mut harness = Harness::start().await;
    harness.control.change(|state| state.token_uses = 0);
    harness.run();
    let error = harness.ended().await.unwrap_err();
    assert!(matches!(error, Error::Enrol(enrol::Error::Refused { .. })));
    assert!(error_chain(&error).contains("used up"), "{error}");
}

#[tokio::test]
async fn nothing_is_sent_to_a_control_that_the_token_does_not_name() {
    let mut harness = Harness::start().await;
    let (secret, pin) = harness.control.token.split_once('.').unwrap();
    let other: String = pin
        .chars()
        .map(|digit| if digit == '0' { '1' } else { '0' })
        .collect();
    std::fs::write(
        harness.directory.path().join("token"),
        format!("{secret}.{other}"),
    )
    .unwrap();
    harness.run();
    let error = harness.ended().await.unwrap_err();
    assert!(
        error_chain(&error).contains("join token names"),
        "{}",
        error_chain(&error)
    );
    assert!(harness.control.state().enrolled.is_empty());
    assert_eq!(harness.control.state().token_uses, 1);
}

#[tokio::test]
async fn a_missing_or_broken_token_is_told() {
    let check = async |content: Option<&str>, expected: &str| {
        let mut harness = Harness::start().await;
        let mut config = harness.config();
        match content {
            Some(content) => {
                std::fs::write(harness.directory.path().join("token"), content).unwrap()
            }
            None => config.control.join_token_file = None,
        }
        harness.run_with(config);
        let text = error_chain(&harness.ended().await.unwrap_err());
        assert!(text.contains(expected), "{text}");
    };
    check(None, "`control.join_token_file`").await;
    check(Some("kfj_abc"), "join token is not complete").await;
    check(Some("two words"), "white space").await;
}

#[tokio::test]
async fn an_agent_waits_for_a_control_that_is_not_there_yet() {
    let mut harness = Harness::start().await;
    let mut config = harness.config();
    // Nobody listens on port 1 of loopback.
    config.control.port = 1;
    harness.run_with(config);
    harness.stop().await;
    assert!(harness.control.state().enrolled.is_empty());
}
