//! What the agent does not know for certain it does not take for true.

use keyfleet_proto::v1::control_message::Message as ToAgent;
use keyfleet_proto::v1::{self, BindingState, DriftPolicy, FailureClass};
use serde_json::json;

use crate::harness::{Harness, PLACE};

const OTHER: &str = "soc/assistant";
const NEWER: &str = "default/newer";

fn removal(known: &v1::DesiredBinding) -> v1::DesiredBinding {
    v1::DesiredBinding {
        binding: known.binding.clone(),
        connector_id: known.connector_id.clone(),
        remove: true,
        ..v1::DesiredBinding::default()
    }
}

async fn until_removed(harness: &Harness) {
    let removed = |state: &crate::control::State| state.statuses[PLACE].removed;
    harness.control.until("it is removed", removed).await;
}

#[tokio::test]
async fn a_write_that_nobody_answered_is_remembered_when_the_next_one_is_refused() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    harness.stop().await;
    // Killed while it wrote the second version of the key: Kibana may hold that one.
    let goal = json!({"revision": 1, "key_version": 2, "attempt": 1});
    let intent = json!({"goal": goal, "baseline_ok": true, "n_writes": 1});
    harness.rewrite("ledger.json", |text| {
        let mut ledger: serde_json::Value = serde_json::from_str(&text).unwrap();
        ledger["bindings"][PLACE]["intent"] = intent;
        ledger.to_string()
    });
    harness
        .kibana_faults(json!({"api": {"mode": "status", "status": 429, "methods": ["PUT"]}}))
        .await;
    harness.run();
    harness.push(vec![harness.binding(PLACE, 1, 2)]);
    harness.until_count("PUT", "connector", 1).await;
    let back = v1::DesiredBinding {
        attempt: 2,
        ..harness.binding(PLACE, 1, 1)
    };
    harness.push(vec![back]);
    harness.until_count("PUT", "connector", 2).await;
    harness.kibana_faults(json!({})).await;
    harness
        .control
        .until("the first version is back", |state| {
            let status = &state.statuses[PLACE];
            status.state() == BindingState::Proven && status.attempt == 2
        })
        .await;
    let requests = harness.requests().await;
    let is_write = |request: &&serde_json::Value| {
        request["method"] == "PUT" && request["status"] == json!(200)
    };
    assert_eq!(requests.iter().filter(is_write).count(), 1);
    harness.stop().await;
}

#[tokio::test]
async fn what_the_agent_removed_itself_is_no_drift_when_it_is_wanted_again() {
    let mut harness = Harness::start().await;
    harness.run();
    let binding = v1::DesiredBinding {
        drift_policy: DriftPolicy::Report.into(),
        ..harness.binding(PLACE, 1, 1)
    };
    harness.prove(binding.clone()).await;
    harness
        .kibana_faults(json!({"api": {"mode": "slow", "delay_ms": 500, "methods": ["DELETE"]}}))
        .await;
    harness.push(vec![removal(&binding)]);
    harness.until_count("DELETE", "connector", 1).await;
    harness
        .prove(v1::DesiredBinding {
            attempt: 2,
            ..binding
        })
        .await;
    assert_eq!(harness.connectors().await.len(), 1);
    let is_drift = |status: &v1::BindingStatus| status.state() == BindingState::Drifted;
    let reports = harness.control.state().reports.clone();
    assert!(
        !reports
            .iter()
            .any(|report| report.bindings.iter().any(is_drift))
    );
    harness.stop().await;
}

#[tokio::test]
async fn what_is_gone_stays_gone_while_kibana_is_away() {
    let mut harness = Harness::start().await;
    harness.run();
    let binding = harness.binding(PLACE, 1, 1);
    harness.prove(binding.clone()).await;
    harness
        .kibana_faults(json!({"provider": {"status": 401}}))
        .await;
    harness.push(vec![removal(&binding), harness.binding(OTHER, 1, 1)]);
    until_removed(&harness).await;
    harness
        .control
        .until_state(OTHER, BindingState::Failed)
        .await;
    harness
        .kibana_faults(json!({"api": {"mode": "down"}}))
        .await;
    harness
        .control
        .send(ToAgent::CheckNow(v1::CheckNow::default()));
    harness
        .control
        .until("the other one says that Kibana is away", |state| {
            state.statuses[OTHER].failure_class() == FailureClass::KibanaDown
        })
        .await;
    assert!(harness.control.state().statuses[PLACE].removed);
    harness.stop().await;
}

#[tokio::test]
async fn the_older_one_stays_while_the_newer_ones_last_live_call_failed() {
    let mut harness = Harness::start().await;
    harness.run();
    let older = harness.binding(PLACE, 1, 1);
    let newer = v1::DesiredBinding {
        probe_interval_secs: 1,
        ..harness.binding(NEWER, 1, 1)
    };
    harness.push(vec![older.clone(), newer.clone()]);
    for place in [PLACE, NEWER] {
        harness
            .control
            .until_state(place, BindingState::Proven)
            .await;
    }
    harness
        .kibana_faults(json!({"provider": {"status": 500}}))
        .await;
    let tried = harness.count("POST", "execute").await;
    harness.until_count("POST", "execute", tried + 1).await;
    let removal = v1::DesiredBinding {
        after_connector: "newer".to_owned(),
        ..removal(&older)
    };
    harness.push(vec![removal, newer]);
    harness
        .control
        .until_state(PLACE, BindingState::Received)
        .await;
    assert_eq!(harness.writes().await.2, 0);
    harness.kibana_faults(json!({})).await;
    until_removed(&harness).await;
    harness.stop().await;
}

#[tokio::test]
async fn nothing_is_written_that_cannot_be_noted_before() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    // Where the next ledger is written.
    let in_the_way = harness.state_dir().join("ledger.new");
    std::fs::create_dir(&in_the_way).unwrap();
    harness.push(vec![harness.binding(PLACE, 2, 1)]);
    let status = harness
        .control
        .until_state(PLACE, BindingState::Failed)
        .await;
    assert_eq!(status.failure_class(), FailureClass::Agent);
    assert!(status.text.contains("check its disk"), "{}", status.text);
    assert_eq!(harness.count("PUT", "connector").await, 0);
    std::fs::remove_dir(&in_the_way).unwrap();
    harness
        .control
        .until_state(PLACE, BindingState::Proven)
        .await;
    assert_eq!(harness.count("PUT", "connector").await, 1);
    harness.stop().await;
    assert!(harness.on_disk().contains("\"revision\":2"));
}
