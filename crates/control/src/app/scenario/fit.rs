//! What fits together: connectors and the parts of their Keys, connectors and where they are placed, what a definition
//! says of its live call, and what cannot be taken back.

use keyfleet_core::failure::FailureClass;
use keyfleet_core::fleet::Selector;
use keyfleet_core::key::{Key, KeyField, KeyLocation};
use keyfleet_core::rollout::Phase;
use keyfleet_proto::v1;

use super::operator::{CONNECTOR, NO, PLACEMENT, YES, apply, said};
use super::world::{World, works};
use crate::app::apply::Intent;

const ENDPOINT: &str = "---
apiVersion: keyfleet/v1
kind: Connector
metadata: {name: helper}
spec:
  type: inference-endpoint
  displayName: Helper
  key: openai
  replaces: assistant
  config: {service: openai, taskType: chat_completion, modelId: gpt-4.1, url: https://api.openai.com/v1/chat/completions}
";

fn placed(connectors: &str, spaces: &str) -> String {
    format!(
        "---
apiVersion: keyfleet/v1
kind: Placement
metadata: {{name: everywhere}}
spec: {{connectors: [{connectors}], spaces: {spaces}}}
"
    )
}

/// A Key of these parts, without a value.
async fn key(world: &World, name: &'static str, parts: &'static [&'static str]) {
    let parts = parts
        .iter()
        .map(|part| ((*part).to_owned(), format!("field-of-{part}")));
    let key = Key {
        name: name.parse().unwrap(),
        location: KeyLocation {
            mount: "secret".to_owned(),
            path: format!("keyfleet/{name}"),
            field: KeyField::Parts(parts.collect()),
        },
        allowed_hosts: vec![
            "api.openai.com".to_owned(),
            "llm.openai.azure.com".to_owned(),
        ],
        scope: Selector::default(),
        rotation: keyfleet_core::key::Rotation::default(),
    };
    world.write(move |tx| Ok(tx.put_key(&key)?)).await;
}

async fn document(world: &World) -> v1::Desired {
    let id = world.id("canary");
    world.app.desired(id).await.unwrap().document
}

#[tokio::test]
async fn what_is_kept_in_elasticsearch_is_placed_into_the_default_space_only() {
    let world = World::new(&["canary"]).await;
    for (spaces, is_good) in [
        ("[default]", true),
        ("[default, soc]", false),
        ("[soc]", false),
        ("['*']", false),
    ] {
        let text = format!("{ENDPOINT}{}", placed("helper", spaces));
        let found = said(apply(&world, &text, "", Intent::Plan).await);
        assert_eq!(found.is_empty(), is_good, "{spaces}: {found}");
        let is_clear = found.contains("spec.spaces") && found.contains("kept in Elasticsearch");
        assert!(is_good || is_clear, "{found}");
    }
}

#[tokio::test]
async fn what_takes_the_place_of_connectors_in_many_spaces_is_proven_before_any_of_them_goes() {
    let world = World::new(&["canary"]).await;
    let before = placed("assistant", "[default, soc]");
    apply(&world, &before, "", NO).await.unwrap();
    world.settle(works).await;
    let text = format!("{ENDPOINT}{}", placed("helper", "[default]"));
    apply(&world, &text, "", YES).await.unwrap();
    world.offer().await;
    let document = document(&world).await;
    let removals = document.bindings.iter().filter(|told| told.remove);
    let after: Vec<&str> = removals.map(|told| told.after_connector.as_str()).collect();
    assert_eq!(after, ["helper", "helper"], "{document:?}");
    world.settle(works).await;
    assert_eq!(world.newest().await.run.phase, Phase::Completed);
    let rows = world.write(|tx| Ok(tx.bindings()?)).await;
    let left: Vec<&str> = rows
        .iter()
        .filter(|row| row.running.is_some())
        .map(|row| row.id.connector.as_str())
        .collect();
    assert_eq!(left, ["helper"]);
}

#[tokio::test]
async fn a_key_has_the_parts_that_its_connector_needs() {
    let world = World::new(&["canary"]).await;
    key(&world, "aws", &["accessKey", "secret"]).await;
    let of_key = |name: &str| CONNECTOR.replace("key: openai", &format!("key: {name}"));
    let found = said(apply(&world, &of_key("aws"), "", Intent::Plan).await);
    assert!(
        found.starts_with("f.yaml:7: spec.key: key aws: "),
        "{found}"
    );

    key(&world, "pki", &["certificateData", "privateKeyData"]).await;
    let other = "{apiProvider: Other, apiUrl: https://llm.openai.azure.com/v1/chat/completions, defaultModel: m}";
    let config = "{apiProvider: OpenAI, apiUrl: https://api.openai.com/v1/chat/completions}";
    let text = of_key("pki").replace(config, other);
    apply(&world, &text, "", Intent::Plan).await.unwrap();
    let old = v1::KibanaFacts {
        reachable: true,
        version: "8.19.0".to_owned(),
        ..v1::KibanaFacts::default()
    };
    world.sees("canary", old).await;
    let found = said(apply(&world, &text, "", Intent::Plan).await);
    let blamed = "spec.key: deployment canary runs Kibana 8.19.0: key pki: ";
    assert!(found.contains(blamed), "{found}");
}

#[tokio::test]
async fn an_agent_is_told_the_live_call_and_the_parts_of_the_key() {
    let world = World::new(&["canary"]).await;
    world.settle(works).await;
    let plain = document(&world).await.bindings.remove(0);
    assert_eq!((plain.probe, plain.key_parts), (None, Vec::new()));
    let text = CONNECTOR.replace(
        "  key:",
        "  probe: {maxTokens: 5, model: tiny, interval: 10m}\n  key:",
    );
    apply(&world, &text, "", NO).await.unwrap();
    world
        .write(|tx| {
            let mut key = tx.keys()?.remove(0).key;
            let parts = [("apiKey".to_owned(), "api_key".to_owned())];
            key.location.field = KeyField::Parts(parts.into());
            Ok(tx.put_key(&key)?)
        })
        .await;
    world.offer().await;
    let told = document(&world).await.bindings.remove(0);
    let probe = told.probe.unwrap();
    assert_eq!((probe.max_tokens, probe.model.as_str()), (5, "tiny"));
    assert_eq!(
        (told.probe_interval_secs, told.key_parts),
        (600, vec!["apiKey".to_owned()])
    );
    assert_ne!(plain.probe_interval_secs, 600, "the setting of control");
}

fn refused(_: &str, told: &v1::DesiredBinding) -> Option<FailureClass> {
    let is_adopted = told.adopted && !told.remove;
    is_adopted.then_some(FailureClass::Auth)
}

#[tokio::test]
async fn the_first_change_of_what_was_there_before_cannot_be_taken_back() {
    let world = World::new(&["canary"]).await;
    world.settle(works).await;
    let old = v1::SeenConnector {
        space: "default".to_owned(),
        id: "3f7e0f4e-0d3a-4c56-9d7f-6a4d1f0f3b1a".to_owned(),
        name: "By hand".to_owned(),
        r#type: ".gen-ai".to_owned(),
        ..v1::SeenConnector::default()
    };
    let facts = v1::KibanaFacts {
        reachable: true,
        connectors: vec![old],
        connectors_complete: true,
        ..v1::KibanaFacts::default()
    };
    world.sees("canary", facts).await;
    let helper = CONNECTOR.replace("name: assistant", "name: helper");
    let placement = PLACEMENT.replace("everywhere", "second").replace(
        "[assistant]",
        "[helper], adopt: [{connector: helper, name: By hand}]",
    );
    let text = format!("{helper}{placement}");
    let plan = apply(&world, &text, "", Intent::Plan).await.unwrap().result;
    let change = &plan.deployments[0].bindings[0];
    let why = "the key that it had before is not known to Keyfleet";
    assert_eq!(change.cannot_roll_back, why, "{plan:?}");
    apply(&world, &text, "", NO).await.unwrap();
    world.settle(refused).await;
    assert_eq!(world.newest().await.run.phase, Phase::Halted);
    let document = document(&world).await;
    assert!(
        document.bindings.iter().all(|told| !told.remove),
        "{document:?}"
    );
}

/// A Kibana connector that makes the inference endpoint `chat` in Elasticsearch.
const INFERENCE: &str = "---
apiVersion: keyfleet/v1
kind: Connector
metadata: {name: chat}
spec:
  type: .inference
  displayName: Chat
  key: openai
  config: {provider: openai, taskType: chat_completion, inferenceId: chat, providerConfig: {model_id: gpt-4.1, url: https://api.openai.com/v1/chat/completions}}
";

#[tokio::test]
async fn what_makes_one_endpoint_is_placed_into_one_space_of_a_deployment() {
    let world = World::new(&["canary"]).await;
    let check = async |text: String, is_good: bool| {
        let found = said(apply(&world, &text, "", Intent::Plan).await);
        assert_eq!(found.is_empty(), is_good, "{text}: {found}");
        let is_clear = found.contains("spec.spaces") && found.contains("endpoint \"chat\"");
        assert!(is_good || is_clear, "{found}");
    };
    for (spaces, is_good) in [
        ("[default]", true),
        ("[soc]", true),
        ("[default, soc]", false),
        ("['soc-*']", false),
        ("['*']", false),
    ] {
        check(format!("{INFERENCE}{}", placed("chat", spaces)), is_good).await;
    }
    let second =
        |connector: &str, spaces| placed(connector, spaces).replace("everywhere", "second");
    let first = format!("{INFERENCE}{}", placed("chat", "[default]"));
    check(format!("{first}{}", second("chat", "[soc]")), false).await;
    let other = INFERENCE.replace("name: chat", "name: other");
    check(format!("{first}{other}{}", second("other", "[soc]")), false).await;
    let other = other.replace("inferenceId: chat", "inferenceId: other");
    check(format!("{first}{other}{}", second("other", "[soc]")), true).await;
    let elsewhere = second("chat", "[soc]")
        .replace("spec: {", "spec: {selector: {matchLabels: {tier: none}}, ");
    check(format!("{first}{elsewhere}"), true).await;
}

#[tokio::test]
async fn a_removal_of_an_endpoint_says_which_task_it_has() {
    let world = World::new(&["canary"]).await;
    world.settle(works).await;
    let text = format!("{ENDPOINT}{}", placed("assistant, helper", "[default]"));
    apply(&world, &text, "", YES).await.unwrap();
    world.settle(works).await;
    apply(&world, &placed("assistant", "[default]"), "", YES)
        .await
        .unwrap();
    world.offer().await;
    let told = document(&world).await.bindings;
    let is_it = |b: &&v1::DesiredBinding| b.binding.as_ref().unwrap().connector == "helper";
    let removal = told.iter().find(is_it).unwrap();
    assert!(removal.remove && removal.key.is_empty(), "{removal:?}");
    assert_eq!(removal.connector_type, "inference-endpoint");
    assert!(
        removal.config_json.contains("chat_completion"),
        "{removal:?}"
    );
}

#[tokio::test]
async fn what_was_there_before_stays_while_its_key_may_go_nowhere() {
    let world = World::new(&["canary"]).await;
    let old = v1::SeenConnector {
        space: "default".to_owned(),
        id: "3f7e0f4e-0d3a-4c56-9d7f-6a4d1f0f3b1a".to_owned(),
        name: "By hand".to_owned(),
        r#type: ".gen-ai".to_owned(),
        ..v1::SeenConnector::default()
    };
    let facts = v1::KibanaFacts {
        reachable: true,
        connectors: vec![old],
        connectors_complete: true,
        ..v1::KibanaFacts::default()
    };
    world.sees("canary", facts).await;
    let adopts = "[assistant], adopt: [{connector: assistant, name: By hand}]";
    let text = PLACEMENT.replace("[assistant]", adopts);
    apply(&world, &text, "", NO).await.unwrap();
    world.settle(refused).await;
    assert_eq!(world.newest().await.run.phase, Phase::Halted);
    world
        .write(|tx| {
            let mut key = tx.keys()?.remove(0).key;
            key.scope = "tier=none".parse().unwrap();
            tx.put_key(&key)?;
            super::world::spread(tx, "the scope of a Key")
        })
        .await;
    world.settle(refused).await;
    let rows = world.write(|tx| Ok(tx.bindings()?)).await;
    let told = rows[0].desired.unwrap().assignment;
    assert!(rows[0].adopted_id.is_some() && told.is_some(), "{rows:?}");
}

#[tokio::test]
async fn what_is_stored_of_a_live_call_is_what_was_written() {
    let world = World::new(&["canary"]).await;
    for (interval, is_good) in [("10m", true), ("0s", true), ("10500ms", false)] {
        let probe = format!("  probe: {{interval: {interval}}}\n  key:");
        let text = CONNECTOR.replace("  key:", &probe);
        let found = said(apply(&world, &text, "", NO).await);
        assert_eq!(found.is_empty(), is_good, "{found}");
        assert!(is_good || found.contains("spec.probe.interval"), "{found}");
        if is_good {
            let again = apply(&world, &text, "", NO).await.unwrap();
            assert_eq!(again.rollouts, [], "{interval}");
        }
    }
}
