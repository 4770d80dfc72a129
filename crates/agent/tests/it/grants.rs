//! Live calls under the pace of the whole fleet.

use keyfleet_proto::v1::control_message::Message as ToAgent;
use keyfleet_proto::v1::{self, BindingState};
use tonic::Code;

use crate::harness::{Harness, PLACE};

const OTHER: &str = "soc/assistant";

async fn waiting() -> Harness {
    let mut harness = Harness::start().await;
    harness.control.change(|state| state.probe_grants = true);
    harness.run();
    let bindings = vec![harness.binding(PLACE, 1, 1), harness.binding(OTHER, 1, 1)];
    harness.push(bindings);
    for place in [PLACE, OTHER] {
        harness
            .control
            .until(&format!("{place} waits and says so"), |state| {
                let status = state.statuses.get(place);
                status.is_some_and(|status| {
                    status.state() == BindingState::Applied
                        && status.text.contains("waits for its turn")
                })
            })
            .await;
    }
    harness
}

async fn until_asked(harness: &Harness, n_requests: usize) -> Vec<u32> {
    harness
        .control
        .until("the agent asks", |state| {
            state.probe_requests.len() >= n_requests
        })
        .await;
    harness.control.state().probe_requests.clone()
}

#[tokio::test]
async fn no_live_call_is_made_without_a_grant() {
    let mut harness = waiting().await;
    assert_eq!(harness.writes().await, (2, 0, 0, 0));
    let asked = until_asked(&harness, 1).await;
    assert!(
        asked == [1] || asked == [2],
        "{asked:?}: at once for those who are there"
    );
    let grant = |count| ToAgent::ProbeGrant(v1::ProbeGrant { count });
    harness.control.send(grant(1));
    harness.until_count("POST", "execute", 1).await;
    // It asks for the other one after the grant, and once.
    let asked = until_asked(&harness, 2).await;
    assert_eq!(asked.get(1..), Some(&[1][..]));
    harness.control.send(grant(1));
    for place in [PLACE, OTHER] {
        let status = harness
            .control
            .until_state(place, BindingState::Proven)
            .await;
        assert_eq!(status.text, "");
    }
    assert_eq!(harness.writes().await, (2, 0, 0, 2));
    assert_eq!(harness.control.state().probe_requests.len(), 2);
    harness.stop().await;
}

#[tokio::test]
async fn a_new_session_asks_again_and_knows_of_no_earlier_grant() {
    let mut harness = waiting().await;
    let asked = until_asked(&harness, 1).await.len();
    harness
        .control
        .drop_sessions(Code::Unavailable, "a restart");
    let again = until_asked(&harness, asked + 1).await;
    assert_eq!(again.last(), Some(&2));
    assert_eq!(harness.writes().await.3, 0);
    harness
        .control
        .send(ToAgent::ProbeGrant(v1::ProbeGrant { count: 2 }));
    for place in [PLACE, OTHER] {
        harness
            .control
            .until_state(place, BindingState::Proven)
            .await;
    }
    harness.stop().await;
}
