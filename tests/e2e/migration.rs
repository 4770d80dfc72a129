//! From a connector in Kibana to an inference endpoint in Elasticsearch: both exist, the new one is proven, then the old one
//! goes; what fails goes back.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use xtask::http;

use crate::kit::{Fleet, Member, Setup};

const LAB: [Member; 1] = [("lab", "9.4.0", &["default", "soc"], &[("team", "security")])];

/// A fleet whose agent may make endpoints, and where its Elasticsearch is.
fn start(name: &str) -> Result<(Fleet, String)> {
    let listen = format!("127.0.0.1:{}", xtask::net::free_port()?);
    let url = format!("http://{listen}");
    let setup = Setup {
        agents: &[
            ("KEYFLEET_AGENT__ELASTICSEARCH__URL", &url),
            ("KEYFLEET_AGENT__DRIFT__INTERVAL_SECS", "1"),
            (
                "KEYFLEET_AGENT__ACCEPT__CONNECTOR_TYPES",
                ".gen-ai,inference-endpoint",
            ),
        ],
        kibanas: &["--elasticsearch-listen", &listen],
        ..Setup::USUAL
    };
    let fleet = Fleet::start_as(name, &LAB, &setup)?;
    // Both spaces hold the older one; `hunting` does not exist here.
    fleet
        .manifests
        .edit("placement.yaml", "spaces: [soc, hunting]", "spaces: [soc]")?;
    fleet.apply()?.must_succeed()?;
    Ok((fleet, url))
}

/// The new connector, and its placement in the place of the old one's.
fn migrate(fleet: &Fleet, model: &str) -> Result<()> {
    let text = format!(
        "apiVersion: keyfleet/v1
kind: Connector
metadata: {{name: endpoint}}
spec:
  type: inference-endpoint
  displayName: OpenAI endpoint
  key: openai
  replaces: assistant
  config:
    service: openai
    taskType: chat_completion
    modelId: {model}
    url: {}/v1/chat/completions
",
        fleet.openai.url
    );
    std::fs::write(fleet.manifests.dir().join("endpoint.yaml"), text)?;
    let placement = fleet.manifests.dir().join("placement.yaml");
    std::fs::write(
        placement,
        "apiVersion: keyfleet/v1
kind: Placement
metadata: {name: everywhere}
spec: {connectors: [endpoint], spaces: [default], strategyRef: canary-first}
---
apiVersion: keyfleet/v1
kind: Placement
metadata: {name: security-spaces}
spec: {selector: {matchLabels: {team: nobody}}, connectors: [assistant], spaces: [soc], strategyRef: canary-first}
",
    )?;
    Ok(())
}

fn endpoints(url: &str) -> Result<Vec<Value>> {
    let page: Value = serde_json::from_str(&http::get(url, "/_sim/endpoints")?)?;
    page.as_array().cloned().context("no list of endpoints")
}

#[test]
fn the_old_connectors_go_once_the_endpoint_is_proven_and_the_key_rotates_on() {
    let (fleet, elasticsearch) = start("migration").unwrap();
    assert_eq!(fleet.n_connectors("lab").unwrap(), 2);
    migrate(&fleet, "gpt-5.2").unwrap();
    let dir = fleet.manifests.dir().to_string_lossy().into_owned();
    let plan = fleet
        .keyfleet(&["plan", "-f", &dir])
        .unwrap()
        .must_succeed()
        .unwrap();
    assert!(plan.out.contains("replaces assistant"), "{}", plan.out);
    // One of the old ones is still used by rules, which the operator has seen.
    let id = fleet.connectors("lab").unwrap()[0]["id"].clone();
    let id = id.as_str().unwrap();
    fleet
        .say_to_sim("lab", "PUT", "/_sim/references", &json!({ id: 2 }))
        .unwrap();
    let seen = || {
        let bindings = fleet.bindings().ok()?;
        bindings.iter().any(|b| b["references"] == 2).then_some(())
    };
    fleet
        .wait_until("control knows of the references", seen)
        .unwrap();
    fleet
        .apply_with(&["--yes", "--wait", "--timeout", "60s"])
        .unwrap()
        .must_succeed()
        .unwrap();
    assert_eq!(fleet.n_connectors("lab").unwrap(), 0);
    assert_eq!(endpoints(&elasticsearch).unwrap().len(), 1);
    assert_eq!(fleet.bindings().unwrap().len(), 1);
    // The next key goes to the endpoint by its update, not by making it anew.
    let second = "sk-proj-e2e-1111111111111111111111111111111111zR7k";
    fleet.accept_key(second).unwrap();
    fleet.write_key(second).unwrap();
    fleet.wait_until_proven("2").unwrap();
    let count = |query: &str| -> u64 {
        let page = http::get(&elasticsearch, &format!("/_sim/requests/count?{query}")).unwrap();
        let page: Value = serde_json::from_str(&page).unwrap();
        page["count"].as_u64().unwrap()
    };
    assert_eq!(count("method=PUT&class=inference"), 1, "made once");
    assert_eq!(
        count("method=PUT&class=inference_update"),
        1,
        "updated once"
    );
}

#[test]
fn an_endpoint_that_does_not_work_goes_back_and_the_old_connectors_were_never_touched() {
    let (fleet, elasticsearch) = start("migration-fails").unwrap();
    let before = fleet.writes_of("lab").unwrap();
    migrate(&fleet, "no-such-model").unwrap();
    let done = fleet
        .apply_with(&["--yes", "--wait", "--timeout", "60s"])
        .unwrap();
    assert_ne!(done.code, 0, "{done:?}");
    fleet.wait_for_phase("ROLLOUT_PHASE_ROLLED_BACK").unwrap();
    assert_eq!(fleet.writes_of("lab").unwrap(), before);
    assert_eq!(fleet.n_connectors("lab").unwrap(), 2);
    assert_eq!(endpoints(&elasticsearch).unwrap(), Vec::<Value>::new());
    let held_back = || {
        let bindings = fleet.bindings().ok()?;
        let old = bindings
            .iter()
            .filter(|b| b["binding"]["connector"] == "assistant");
        (old.filter(|b| b["state"] == "BINDING_STATE_PROVEN").count() == 2).then_some(())
    };
    fleet
        .wait_until("the old connectors are proven still", held_back)
        .unwrap();
    assert_eq!(fleet.silent_bindings().unwrap(), Vec::<Value>::new());
}
