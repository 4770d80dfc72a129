//! Behaviour of the drivers, as tables.

mod comparison;
mod definitions;
mod matrix;
mod probes;
mod properties;
mod versions;

use serde_json::{Value, json};

use super::{Driver, driver, driver_types};
use crate::api::Observed;

const URL: &str = "https://api.openai.com/v1/chat/completions";
const KEY: &str = "sk-proj-canary-0123456789";
const AZURE_URL: &str =
    "https://r.openai.azure.com/openai/deployments/gpt/chat/completions?api-version=2024-10-21";
/// When each field of a provider appeared, written a second time so that the driver's table is not its own judge.
const SINCE: [(&str, &str, (u16, u16)); 22] = [
    ("OpenAI", "apiProvider", (8, 9)),
    ("OpenAI", "apiUrl", (8, 9)),
    ("OpenAI", "defaultModel", (8, 11)),
    ("OpenAI", "headers", (8, 14)),
    ("OpenAI", "organizationId", (8, 18)),
    ("OpenAI", "projectId", (8, 18)),
    ("OpenAI", "contextWindowLength", (9, 2)),
    ("OpenAI", "temperature", (9, 3)),
    ("Azure OpenAI", "apiProvider", (8, 9)),
    ("Azure OpenAI", "apiUrl", (8, 9)),
    ("Azure OpenAI", "headers", (8, 14)),
    ("Azure OpenAI", "defaultModel", (9, 2)),
    ("Azure OpenAI", "contextWindowLength", (9, 2)),
    ("Azure OpenAI", "temperature", (9, 3)),
    ("Other", "apiProvider", (8, 17)),
    ("Other", "apiUrl", (8, 17)),
    ("Other", "defaultModel", (8, 17)),
    ("Other", "headers", (8, 17)),
    ("Other", "verificationMode", (9, 1)),
    ("Other", "contextWindowLength", (9, 2)),
    ("Other", "enableNativeFunctionCalling", (9, 2)),
    ("Other", "temperature", (9, 3)),
];

/// The first Kibana that has a field for a provider.
fn since(provider: &str, field: &str) -> Option<(u16, u16)> {
    let row = SINCE.iter().find(|row| (row.0, row.1) == (provider, field));
    row.map(|row| row.2)
}

fn gen_ai() -> &'static dyn Driver {
    driver(".gen-ai").unwrap()
}

/// A good config with these fields on top; `null` removes one.
fn config(extra: &Value) -> String {
    let mut config = json!({"apiProvider": "OpenAI", "apiUrl": URL, "defaultModel": "gpt-4.1"});
    for (name, value) in extra.as_object().unwrap() {
        if value.is_null() {
            config.as_object_mut().unwrap().remove(name);
        } else {
            config[name] = value.clone();
        }
    }
    config.to_string()
}

/// A good config of Azure OpenAI.
fn azure() -> Value {
    json!({"apiProvider": "Azure OpenAI", "apiUrl": AZURE_URL})
}

/// A good config of a server that is only compatible with OpenAI.
fn other() -> Value {
    json!({"apiProvider": "Other", "apiUrl": "http://llm.example/v1/chat/completions", "defaultModel": "llama"})
}

/// A good value for a field that is not required.
fn value_of(field: &str) -> Option<Value> {
    Some(match field {
        "defaultModel" => json!("gpt-4.1"),
        "headers" => json!({"X-Team": "soc"}),
        "organizationId" => json!("org-1"),
        "projectId" => json!("proj_1"),
        "contextWindowLength" => json!(8000),
        "temperature" => json!(0.2),
        "verificationMode" => json!("certificate"),
        "enableNativeFunctionCalling" => json!(true),
        _ => return None,
    })
}

/// A connector as Kibana shows it.
fn observed(config: &Value) -> Observed {
    Observed {
        id: "id".to_owned(),
        name: "OpenAI".to_owned(),
        connector_type_id: ".gen-ai".to_owned(),
        config: config.as_object().cloned().unwrap(),
        is_missing_secrets: false,
        is_preconfigured: false,
        is_system_action: false,
    }
}

#[test]
fn each_type_is_found_by_kibanas_id() {
    assert_eq!(driver_types().collect::<Vec<_>>(), [".gen-ai"]);
    assert_eq!(gen_ai().connector_type(), ".gen-ai");
    for unknown in ["", "gen-ai", ".bedrock", ".GEN-AI"] {
        assert!(driver(unknown).is_none(), "{unknown}");
    }
}
