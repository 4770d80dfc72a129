//! One certificate after the other, whatever happens in between.

use keyfleet_agent::Error;
use keyfleet_proto::v1::{self, control_message::Message as ToAgent};
use keyfleet_telemetry::error_chain;
use tonic::Code;

use crate::harness::{Harness, PLACE};

fn renew_now() -> ToAgent {
    ToAgent::RenewNow(v1::RenewNow {
        reason: "the CA is being replaced".to_owned(),
    })
}

/// An agent with its first session.
async fn first_session() -> Harness {
    let mut harness = Harness::start().await;
    harness.run();
    harness.until_sessions(&[1]).await;
    harness
}

/// Waits until the last renewal has taken the old one's place, and ends the agent. Nobody was taken for a thief.
async fn settle(harness: &mut Harness) {
    let candidate = harness.state_dir().join("candidate.pem");
    while candidate.exists() {
        tokio::task::yield_now().await;
    }
    harness.stop().await;
    assert_eq!(harness.control.state().clones, 0);
}

/// Sets the certificate's life to the past, as if the agent had been away for long.
fn let_it_end(harness: &Harness) {
    harness.rewrite("identity.pem", |text| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for line in &mut lines {
            if line.starts_with("Received: ") {
                *line = "Received: 2020-01-01T00:00:00Z".to_owned();
            }
            if line.starts_with("Ends: ") {
                *line = "Ends: 2020-01-15T00:00:00Z".to_owned();
            }
        }
        lines.join("\n")
    });
}

#[tokio::test]
async fn at_two_thirds_of_its_life_the_next_one_takes_over() {
    let mut harness = Harness::start().await;
    harness.control.change(|state| state.certificate_secs = 3);
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    harness
        .control
        .change(|state| state.certificate_secs = 14 * 86_400);
    harness.until_sessions(&[1, 2]).await;
    harness.prove(harness.binding(PLACE, 2, 1)).await;
    harness.stop().await;
    harness.run();
    harness.until_sessions(&[1, 2, 2]).await;
    harness.stop().await;
    assert_eq!(harness.control.state().renewals, [1]);
    assert_eq!(
        harness.writes().await,
        (1, 1, 0, 3),
        "two proofs and one try before"
    );
}

#[tokio::test]
async fn a_new_ca_is_trusted_beside_the_old_one_and_then_alone() {
    let mut harness = first_session().await;
    harness.control.change(|state| state.rotating = true);
    harness.control.send(renew_now());
    harness.until_sessions(&[1, 2]).await;
    settle(&mut harness).await;
    let mut config = harness.config();
    config.control.port = harness.control.next_address.port();
    harness.run_with(config);
    harness.until_sessions(&[1, 2, 2]).await;
    harness.stop().await;
}

#[tokio::test]
async fn a_ca_that_the_agent_never_heard_of_is_not_trusted() {
    let mut harness = first_session().await;
    harness.stop().await;
    let mut config = harness.config();
    config.control.port = harness.control.next_address.port();
    harness.run_with(config);
    harness.stop().await;
    harness.run();
    harness.until_sessions(&[1, 1]).await;
    harness.stop().await;
}

#[tokio::test]
async fn a_renewal_whose_answer_is_lost_is_asked_for_again() {
    let mut harness = first_session().await;
    harness.control.change(|state| state.lost = 1);
    harness.control.send(renew_now());
    harness.until_sessions(&[1, 3]).await;
    assert_eq!(harness.control.state().renewals, [1, 1]);
    settle(&mut harness).await;
}

#[tokio::test]
async fn a_welcome_that_is_lost_does_not_bring_the_old_certificate_back() {
    let mut harness = first_session().await;
    harness.control.change(|state| state.mute = true);
    harness.control.send(renew_now());
    harness.until_sessions(&[1, 2]).await;
    // Killed with both on disk, after control has counted the new one.
    harness.kill().await;
    assert!(harness.state_dir().join("candidate.pem").exists());
    harness.control.change(|state| state.lost = 1);
    harness.run();
    harness.until_sessions(&[1, 2, 2]).await;
    harness.control.change(|state| state.mute = false);
    harness.until_sessions(&[1, 2, 2, 2]).await;
    settle(&mut harness).await;
}

#[tokio::test]
async fn killed_while_a_renewal_is_under_way_the_old_one_is_good() {
    let mut harness = first_session().await;
    harness.control.change(|state| state.lost = 100);
    harness.control.send(renew_now());
    harness
        .control
        .until("a renewal", |state| state.renewals == [1])
        .await;
    harness.kill().await;
    harness.control.change(|state| state.lost = 0);
    // What a crash in the middle of writing leaves.
    std::fs::write(harness.state_dir().join("candidate.new"), "half").unwrap();
    std::fs::write(harness.state_dir().join("candidate.pem"), "-----BEGIN").unwrap();
    harness.run();
    harness.until_sessions(&[1, 1]).await;
    harness.control.send(renew_now());
    harness.until_sessions(&[1, 1, 3]).await;
    settle(&mut harness).await;
}

#[tokio::test]
async fn a_new_certificate_that_is_refused_gives_way_to_the_old_one() {
    let mut harness = first_session().await;
    harness.control.change(|state| {
        state.session_refusal = Some((&[2], Code::Unauthenticated, "who is that?"));
    });
    harness.control.send(renew_now());
    harness.until_sessions(&[1, 1, 3]).await;
    settle(&mut harness).await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_used_disturbs_nothing() {
    let mut harness = first_session().await;
    harness.control.change(|state| state.garbage = true);
    harness.control.send(renew_now());
    harness
        .control
        .until("a renewal", |state| state.renewals == [1])
        .await;
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    assert_eq!(harness.control.state().sessions, [1]);
    harness.control.change(|state| state.garbage = false);
    harness
        .control
        .until("a session of a new one", |state| {
            state.sessions.last().is_some_and(|last| *last > 2)
        })
        .await;
    settle(&mut harness).await;
}

#[tokio::test]
async fn an_ended_certificate_buys_the_next_one_before_anything_else() {
    let mut harness = first_session().await;
    harness.stop().await;
    let_it_end(&harness);
    harness.run();
    harness.until_sessions(&[1, 2]).await;
    settle(&mut harness).await;
}

#[tokio::test]
async fn a_certificate_that_has_ended_by_controls_clock_alone_is_renewed() {
    let mut harness = first_session().await;
    let refusal = (
        &[1_u64][..],
        Code::Unauthenticated,
        "the certificate has ended",
    );
    harness
        .control
        .change(|state| state.session_refusal = Some(refusal));
    harness.control.drop_sessions(refusal.1, refusal.2);
    harness.until_sessions(&[1, 2]).await;
    settle(&mut harness).await;
}

#[tokio::test]
async fn a_clock_that_is_years_ahead_stops_neither_sessions_nor_renewals() {
    let mut harness = Harness::start().await;
    harness
        .control
        .change(|state| state.certificate_secs = -1000);
    harness.run();
    harness.until_sessions(&[1]).await;
    assert!(harness.control.state().renewals.is_empty());
    harness.control.send(renew_now());
    harness.until_sessions(&[1, 2]).await;
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    assert_eq!(harness.control.state().renewals, [1]);
    harness.stop().await;
}

#[tokio::test]
async fn an_agent_waits_for_an_operator_who_must_allow_its_renewal() {
    let mut harness = first_session().await;
    harness.stop().await;
    let_it_end(&harness);
    harness.control.change(|state| {
        state.renewal_refusal = Some((Code::FailedPrecondition, "it waits for approval"));
    });
    harness.run();
    harness
        .control
        .until("it asks", |state| state.renewals == [1])
        .await;
    // It waits, and ends well.
    harness.stop().await;
    harness.control.change(|state| state.renewal_refusal = None);
    harness.run();
    harness.until_sessions(&[1, 2]).await;
    settle(&mut harness).await;
}

#[tokio::test]
async fn a_certificate_that_is_refused_for_good_ends_the_agent_and_says_what_to_do() {
    for revoked in ["the deployment is revoked", "it ended 91 days ago"] {
        let mut harness = first_session().await;
        harness.control.change(|state| {
            state.session_refusal = Some((&[1], Code::PermissionDenied, revoked));
            state.renewal_refusal = Some((Code::PermissionDenied, revoked));
        });
        harness
            .control
            .drop_sessions(Code::PermissionDenied, revoked);
        let error = harness.ended().await.unwrap_err();
        assert!(matches!(error, Error::Void { .. }), "{error}");
        let text = error_chain(&error);
        for part in [
            revoked,
            "keyfleet deployment replace prod",
            "join_token_file",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}

#[tokio::test]
async fn a_certificate_of_a_ca_that_is_gone_is_refused_for_good() {
    let mut harness = first_session().await;
    harness.stop().await;
    let mut config = harness.config();
    config.control.port = harness.control.strict_address.port();
    harness.run_with(config);
    let text = error_chain(&harness.ended().await.unwrap_err());
    assert!(
        text.contains("does not take this agent's certificate"),
        "{text}"
    );
    assert!(text.contains("keyfleet deployment replace"), "{text}");
}

#[tokio::test]
async fn a_renewal_that_is_refused_leaves_a_living_session_alone() {
    let mut harness = first_session().await;
    harness.control.change(|state| {
        state.renewal_refusal = Some((Code::PermissionDenied, "it is suspended"));
    });
    harness.control.send(renew_now());
    harness
        .control
        .until("a refusal", |state| state.renewals == [1])
        .await;
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    assert_eq!(harness.control.state().sessions, [1]);
    harness.stop().await;
}
