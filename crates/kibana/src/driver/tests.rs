//! Behaviour of the drivers, as tables.

mod comparison;
mod definitions;
mod probes;
mod properties;

use serde_json::{Value, json};

use super::{Driver, driver, driver_types};
use crate::api::Observed;

const URL: &str = "https://api.openai.com/v1/chat/completions";
const KEY: &str = "sk-proj-canary-0123456789";
/// When each field appeared, written a second time so that the driver's table is not its own judge.
const SINCE: [(&str, u16, u16); 8] = [
    ("apiProvider", 8, 9),
    ("apiUrl", 8, 9),
    ("defaultModel", 8, 11),
    ("headers", 8, 14),
    ("organizationId", 8, 18),
    ("projectId", 8, 18),
    ("contextWindowLength", 9, 2),
    ("temperature", 9, 3),
];

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
