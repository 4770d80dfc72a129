//! Behaviour of the drivers, as tables.

mod calls;
mod comparison;
mod definitions;
mod keys;
mod matrix;
mod outcomes;
mod probes;
mod properties;
mod types;
mod versions;

use keyfleet_core::connector::Probe;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::{Driver, InvalidConfig, KeyValue, driver, driver_types};
use crate::api::Observed;
use crate::version::Version;
use crate::write::Write;

const URL: &str = "https://api.openai.com/v1/chat/completions";
const KEY: &str = "sk-proj-canary-0123456789";
const AZURE_URL: &str =
    "https://r.openai.azure.com/openai/deployments/gpt/chat/completions?api-version=2024-10-21";
const BEDROCK_URL: &str = "https://bedrock-runtime.eu-west-1.amazonaws.com";
const GEMINI_URL: &str = "https://europe-west1-aiplatform.googleapis.com";

/// A type and its provider, empty where there is only one.
type Kind = (&'static str, &'static str);

const OPENAI: Kind = (".gen-ai", "OpenAI");
const AZURE: Kind = (".gen-ai", "Azure OpenAI");
const OTHER: Kind = (".gen-ai", "Other");
const BEDROCK: Kind = (".bedrock", "");
const GEMINI: Kind = (".gemini", "");
const INFERENCE: Kind = (".inference", "openai");
const INFERENCE_AZURE: Kind = (".inference", "azureopenai");
const ENDPOINT: Kind = ("inference-endpoint", "openai");
const ENDPOINT_AZURE: Kind = ("inference-endpoint", "azureopenai");
const KINDS: [Kind; 9] = [
    OPENAI,
    AZURE,
    OTHER,
    BEDROCK,
    GEMINI,
    INFERENCE,
    INFERENCE_AZURE,
    ENDPOINT,
    ENDPOINT_AZURE,
];

/// A field, and the first Kibana that has it.
type First = (&'static str, (u16, u16));

/// When each field of a provider appeared, written a second time so that the drivers' tables are not their own judge.
const SINCE: [(Kind, &[First]); 9] = [
    (
        OPENAI,
        &[
            ("apiProvider", (8, 9)),
            ("apiUrl", (8, 9)),
            ("defaultModel", (8, 11)),
            ("headers", (8, 14)),
            ("organizationId", (8, 18)),
            ("projectId", (8, 18)),
            ("contextWindowLength", (9, 2)),
            ("temperature", (9, 3)),
        ],
    ),
    (
        AZURE,
        &[
            ("apiProvider", (8, 9)),
            ("apiUrl", (8, 9)),
            ("headers", (8, 14)),
            ("defaultModel", (9, 2)),
            ("contextWindowLength", (9, 2)),
            ("temperature", (9, 3)),
        ],
    ),
    (
        OTHER,
        &[
            ("apiProvider", (8, 17)),
            ("apiUrl", (8, 17)),
            ("defaultModel", (8, 17)),
            ("headers", (8, 17)),
            ("verificationMode", (9, 1)),
            ("contextWindowLength", (9, 2)),
            ("enableNativeFunctionCalling", (9, 2)),
            ("temperature", (9, 3)),
        ],
    ),
    (
        BEDROCK,
        &[
            ("apiUrl", (8, 11)),
            ("defaultModel", (8, 11)),
            ("contextWindowLength", (9, 2)),
            ("temperature", (9, 3)),
            ("region", (9, 4)),
        ],
    ),
    (
        GEMINI,
        &[
            ("apiUrl", (8, 15)),
            ("gcpRegion", (8, 15)),
            ("gcpProjectID", (8, 15)),
            ("defaultModel", (8, 15)),
            ("contextWindowLength", (9, 2)),
            ("temperature", (9, 3)),
        ],
    ),
    (INFERENCE, &OF_INFERENCE),
    (INFERENCE_AZURE, &OF_INFERENCE),
    (
        ENDPOINT,
        &[
            ("service", (8, 17)),
            ("taskType", (8, 17)),
            ("modelId", (8, 17)),
            ("organizationId", (8, 17)),
            ("url", (8, 17)),
        ],
    ),
    (
        ENDPOINT_AZURE,
        &[
            ("service", (8, 17)),
            ("taskType", (8, 17)),
            ("resourceName", (8, 17)),
            ("deploymentId", (8, 17)),
            ("apiVersion", (8, 17)),
        ],
    ),
];
const OF_INFERENCE: [First; 7] = [
    ("provider", (8, 16)),
    ("taskType", (8, 16)),
    ("inferenceId", (8, 16)),
    ("providerConfig", (8, 16)),
    ("contextWindowLength", (9, 2)),
    ("headers", (9, 3)),
    ("temperature", (9, 3)),
];

/// The fields of a type and provider.
fn fields_of(kind: Kind) -> &'static [First] {
    let row = SINCE.iter().find(|row| row.0 == kind);
    row.map_or(&[], |row| row.1)
}

/// The first Kibana that has a field.
fn since(kind: Kind, field: &str) -> Option<(u16, u16)> {
    let row = fields_of(kind).iter().find(|row| row.0 == field);
    row.map(|row| row.1)
}

/// Renders with a key of one text.
fn render(
    config: &str,
    name: &str,
    key: &str,
    version: &Version,
) -> Result<Write, Vec<InvalidConfig>> {
    let key = SecretString::from(key);
    gen_ai().render(config, name, &KeyValue::plain(&key), version)
}

/// A definition that says nothing of the live call.
fn usual() -> Probe {
    Probe::default()
}

fn gen_ai() -> &'static dyn Driver {
    driver(".gen-ai").unwrap()
}

/// The config with these fields on top; `null` removes one.
fn with(mut config: Value, extra: &Value) -> String {
    for (name, value) in extra.as_object().unwrap() {
        if value.is_null() {
            config.as_object_mut().unwrap().remove(name);
        } else {
            config[name] = value.clone();
        }
    }
    config.to_string()
}

/// A good config of `OpenAI` with these fields on top; `null` removes one.
fn config(extra: &Value) -> String {
    let config = json!({"apiProvider": "OpenAI", "apiUrl": URL, "defaultModel": "gpt-4.1"});
    with(config, extra)
}

/// A good config of Azure `OpenAI`.
fn azure() -> Value {
    json!({"apiProvider": "Azure OpenAI", "apiUrl": AZURE_URL})
}

/// A good config of a server that is only compatible with `OpenAI`.
fn other() -> Value {
    json!({"apiProvider": "Other", "apiUrl": "http://llm.example/v1/chat/completions", "defaultModel": "llama"})
}

/// The least config.
fn least(kind: Kind) -> Value {
    let settings =
        json!({"resource_name": "r", "deployment_id": "gpt", "api_version": "2024-10-21"});
    match kind {
        AZURE => azure(),
        OTHER => other(),
        BEDROCK => json!({"apiUrl": BEDROCK_URL}),
        GEMINI => {
            json!({"apiUrl": GEMINI_URL, "gcpRegion": "europe-west1", "gcpProjectID": "project-1"})
        }
        INFERENCE => {
            json!({"provider": "openai", "taskType": "completion", "inferenceId": "assistant",
            "providerConfig": {"model_id": "gpt-4.1"}})
        }
        INFERENCE_AZURE => {
            json!({"provider": "azureopenai", "taskType": "completion", "inferenceId": "assistant",
            "providerConfig": settings})
        }
        ENDPOINT => json!({"service": "openai", "taskType": "completion", "modelId": "gpt-4.1"}),
        ENDPOINT_AZURE => {
            json!({"service": "azureopenai", "taskType": "completion", "resourceName": "r",
            "deploymentId": "gpt", "apiVersion": "2024-10-21"})
        }
        _ => json!({"apiProvider": "OpenAI", "apiUrl": URL}),
    }
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
        "region" => json!("eu-west-1"),
        "url" => json!(URL),
        _ => return None,
    })
}

/// A good value of a Key, and the names of its parts.
fn key_of(kind: Kind) -> (SecretString, Vec<String>) {
    let (text, parts) = match kind {
        BEDROCK => (
            r#"{"accessKey":"AKIACANARY0123456789","secret":"canary+secret/0123456789"}"#
                .to_owned(),
            vec!["accessKey".to_owned(), "secret".to_owned()],
        ),
        GEMINI => (google("service_account"), Vec::new()),
        _ => (KEY.to_owned(), Vec::new()),
    };
    (SecretString::from(text), parts)
}

/// The file of an account of Google.
fn google(kind: &str) -> String {
    let key = "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n";
    json!({"type": kind, "client_email": "a@project-1.iam.gserviceaccount.com", "private_key": key})
        .to_string()
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
        referenced_by_count: None,
    }
}

#[test]
fn each_type_is_found_by_kibanas_id() {
    let types = [
        ".gen-ai",
        ".bedrock",
        ".gemini",
        ".inference",
        "inference-endpoint",
    ];
    assert_eq!(driver_types().collect::<Vec<_>>(), types);
    for kind in types {
        assert_eq!(driver(kind).unwrap().connector_type(), kind);
    }
    for unknown in ["", "gen-ai", ".webhook", ".GEN-AI"] {
        assert!(driver(unknown).is_none(), "{unknown}");
    }
}
