//! What one apply costs a Kibana, request by request, and that no two writes of one connector meet.

use keyfleet_proto::v1;
use serde_json::json;

use crate::harness::{Harness, PLACE};

/// What was done with connectors, in order: method and kind.
async fn calls(harness: &Harness) -> Vec<String> {
    let requests = harness.requests().await;
    let of_connectors = requests.iter().filter(|request| {
        // A question for privileges names no connector.
        request["connector_id"].is_string() || request["class"] == "connectors"
    });
    of_connectors
        .map(|request| {
            let (method, class) = (request["method"].as_str(), request["class"].as_str());
            format!("{} {}", method.unwrap(), class.unwrap())
        })
        .collect()
}

/// What live calls said.
async fn asked(harness: &Harness) -> Vec<String> {
    let requests = harness.requests().await;
    let live = requests
        .iter()
        .filter(|request| request["class"] == "execute");
    live.map(|request| request["body"].to_string()).collect()
}

/// Does it, and checks what it cost beside the list of the space that the inventory takes after a start.
async fn check(harness: &mut Harness, binding: v1::DesiredBinding, expected: &[&str]) {
    let removes = binding.remove;
    harness.forget_requests().await;
    if removes {
        harness.push(vec![binding]);
        harness
            .control
            .until("it is removed", |state| state.statuses[PLACE].removed)
            .await;
    } else {
        harness.prove(binding).await;
    }
    let mut calls = calls(harness).await;
    if !removes {
        calls.retain(|call| call != "GET connectors");
    }
    assert_eq!(calls, expected);
}

#[tokio::test]
async fn an_apply_costs_these_requests_and_no_more() {
    let mut harness = Harness::start().await;
    harness.run();
    let first = harness.binding(PLACE, 1, 1);
    let look = "GET connector";
    let call = "POST execute";
    let install = [look, "POST connector", look, call];
    check(&mut harness, first.clone(), &install).await;
    let change = [look, call, "PUT connector", look, call];
    let rotated = harness.binding(PLACE, 1, 2);
    check(&mut harness, rotated.clone(), &change).await;
    let revised = harness.binding(PLACE, 2, 2);
    check(&mut harness, revised.clone(), &change).await;
    // A new try of what works only proves it.
    let retried = v1::DesiredBinding {
        attempt: 2,
        ..revised
    };
    check(&mut harness, retried, &[look, call]).await;
    let removal = v1::DesiredBinding {
        binding: first.binding,
        connector_id: first.connector_id,
        remove: true,
        ..v1::DesiredBinding::default()
    };
    let expected = [look, "GET connectors", "DELETE connector", look];
    check(&mut harness, removal, &expected).await;
    harness.stop().await;
}

#[tokio::test]
async fn one_write_at_a_time_reaches_a_connector() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    harness.forget_requests().await;
    harness
        .kibana_faults(
            json!({"api": {"mode": "slow", "delay_ms": 300, "methods": ["PUT", "DELETE"]}}),
        )
        .await;
    // Each comes while the one before is being written.
    for revision in 2..5 {
        harness.push(vec![harness.binding(PLACE, revision, 1)]);
        harness.until_count("PUT", "connector", revision - 1).await;
    }
    harness.prove(harness.binding(PLACE, 5, 1)).await;
    let counts = harness.request_counts().await;
    assert_eq!(counts["writes_per_connector_max"], 1, "{counts}");
    harness.stop().await;
}

#[tokio::test]
async fn a_probe_says_what_the_connector_defines() {
    let mut harness = Harness::start().await;
    harness.run();
    let binding = v1::DesiredBinding {
        probe: Some(v1::Probe {
            body_json: json!({"messages": [{"role": "user", "content": "are you there"}], "max_completion_tokens": 7})
                .to_string(),
            ..v1::Probe::default()
        }),
        ..harness.binding(PLACE, 1, 1)
    };
    let status = harness.prove(binding.clone()).await;
    assert_eq!(status.rung(), v1::ProbeRung::Answered);
    let said = asked(&harness).await;
    assert!(said.iter().all(|body| body.contains("are you there")));
    // What is tried before a change is what runs: not with the words of what is to come.
    let changed = v1::DesiredBinding {
        assignment: Some(v1::Assignment {
            revision: 2,
            key_version: 1,
        }),
        ..binding
    };
    harness.forget_requests().await;
    harness.prove(changed).await;
    let said = asked(&harness).await;
    let of_the_type = said.iter().filter(|body| !body.contains("are you there"));
    assert_eq!((of_the_type.count(), said.len()), (1, 2));
    harness.stop().await;
}
