//! Inference endpoints, which Elasticsearch keeps.

use keyfleet_agent::config::{Config, Elasticsearch};
use keyfleet_proto::v1::{self, BindingState, FailureClass};
use serde_json::{Value, json};

use crate::harness::{Harness, PLACE};

async fn with_elasticsearch() -> (Harness, String) {
    let mut harness = Harness::start_with(|options| {
        options.elasticsearch = Some(([127, 0, 0, 1], 0).into());
    })
    .await;
    let url = harness.kibana.elasticsearch_url().unwrap();
    let config = config(&harness, &url);
    harness.run_with(config);
    (harness, url)
}

fn config(harness: &Harness, url: &str) -> Config {
    let mut config = harness.config();
    config.accept.connector_types = vec!["*".to_owned()];
    config.elasticsearch = Some(Elasticsearch {
        url: url.parse().unwrap(),
        credentials_file: config.kibana.credentials_file.clone(),
        ca_file: None,
    });
    config
}

fn binding(harness: &Harness, place: &str, model: &str, key_version: u64) -> v1::DesiredBinding {
    let config = json!({
        "service": "openai",
        "taskType": "chat_completion",
        "modelId": model,
        "url": format!("{}/v1/chat/completions", harness.openai.url()),
    });
    v1::DesiredBinding {
        connector_type: "inference-endpoint".to_owned(),
        config_json: config.to_string(),
        ..harness.binding(place, 1, key_version)
    }
}

async fn endpoints(harness: &Harness, url: &str) -> Vec<Value> {
    let request = harness.http.get(format!("{url}/_sim/endpoints"));
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    answer.as_array().unwrap().clone()
}

#[tokio::test]
async fn an_endpoint_is_made_rotated_and_removed() {
    let (mut harness, url) = with_elasticsearch().await;
    let first = binding(&harness, PLACE, "gpt-4o", 1);
    let status = harness.prove(first.clone()).await;
    assert_eq!(status.rung(), v1::ProbeRung::Answered);
    assert_eq!(endpoints(&harness, &url).await.len(), 1);
    let status = harness.prove(binding(&harness, PLACE, "gpt-4o", 2)).await;
    assert_eq!(status.baseline_ok, Some(true));
    let (created, replaced, _, live) = harness.writes().await;
    assert_eq!(
        (created, replaced, live),
        (0, 0, 0),
        "Kibana has no part in it"
    );
    // A removal says nothing of the type, and the agent has forgotten nothing.
    harness.stop().await;
    let config = config(&harness, &url);
    harness.run_with(config);
    harness.push(vec![v1::DesiredBinding {
        binding: first.binding,
        connector_id: first.connector_id,
        remove: true,
        ..v1::DesiredBinding::default()
    }]);
    harness
        .control
        .until("it is removed", |state| state.statuses[PLACE].removed)
        .await;
    assert!(endpoints(&harness, &url).await.is_empty());
    harness.stop().await;
}

#[tokio::test]
async fn what_an_endpoint_cannot_become_is_rejected_and_it_stays() {
    let (mut harness, url) = with_elasticsearch().await;
    harness.prove(binding(&harness, PLACE, "gpt-4o", 1)).await;
    let mut other = binding(&harness, PLACE, "gpt-4.1", 1);
    other.assignment = Some(v1::Assignment {
        revision: 2,
        key_version: 1,
    });
    harness.push(vec![other, binding(&harness, "soc/assistant", "gpt-4o", 1)]);
    for (place, part) in [(PLACE, "new connector"), ("soc/assistant", "no spaces")] {
        let status = harness
            .control
            .until_state(place, BindingState::Failed)
            .await;
        assert_eq!(status.failure_class(), FailureClass::Rejected);
        assert!(status.text.contains(part), "{}", status.text);
    }
    assert_eq!(endpoints(&harness, &url).await.len(), 1);
    harness.stop().await;
}
