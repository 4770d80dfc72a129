//! The body of a write to an inference endpoint of Elasticsearch, and the way back.
//!
//! Keyfleet keeps such a definition flat (`service`, `taskType`, `modelId` and so on), as it keeps every other.
//! Elasticsearch has the task in the path and all but the service inside `service_settings`, with underscores in the
//! names (Elasticsearch reference, "Create an `OpenAI` inference endpoint").

use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::{Write, bytes_of};

/// In the flat definition and in Elasticsearch's answer.
const SERVICE: &str = "service";
/// The task in the flat definition.
const TASK: &str = "taskType";

impl Write {
    /// The body of `PUT _inference/{task}/{id}`. Its buffer is wiped when the request is over.
    pub(crate) fn create_endpoint_body(&self) -> Bytes {
        let is_setting = |name: &&String| !matches!(name.as_str(), SERVICE | TASK);
        let settings = self.config.iter().filter(|(name, _)| is_setting(name));
        bytes_of(&Definition {
            service: self.config.get(SERVICE),
            service_settings: Settings {
                plain: settings.map(|(name, value)| (snake(name), value)).collect(),
                secret: &self.secrets.parts,
            },
        })
    }

    /// The body of `PUT _inference/{task}/{id}/_update`: the key and nothing else, for older releases let nothing else
    /// pass and newer ones ignore most of it without a word (elasticsearch#139651).
    pub(crate) fn update_endpoint_body(&self) -> Bytes {
        bytes_of(&Definition {
            service: None,
            service_settings: Settings {
                plain: Vec::new(),
                secret: &self.secrets.parts,
            },
        })
    }
}

/// The flat definition of an endpoint that Elasticsearch shows: every text, number and flag of its service settings.
/// What a definition cannot hold, such as `rate_limit`, is left out.
pub(crate) fn flat(endpoint: &Map<String, Value>) -> Map<String, Value> {
    let mut config = Map::new();
    let mut take = |name: &str, value: Option<&Value>| {
        let value = value.filter(|value| !value.is_object() && !value.is_array());
        config.extend(value.map(|value| (name.to_owned(), value.clone())));
    };
    take(SERVICE, endpoint.get(SERVICE));
    take(TASK, endpoint.get("task_type"));
    let settings = endpoint.get("service_settings").and_then(Value::as_object);
    for (name, value) in settings.into_iter().flatten() {
        take(&camel(name), Some(value));
    }
    config
}

#[derive(Serialize)]
struct Definition<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a Value>,
    service_settings: Settings<'a>,
}

struct Settings<'a> {
    plain: Vec<(String, &'a Value)>,
    secret: &'a [(&'static str, SecretString)],
}

impl Serialize for Settings<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in &self.plain {
            map.serialize_entry(name, value)?;
        }
        for (part, secret) in self.secret {
            map.serialize_entry(part, secret.expose_secret())?;
        }
        map.end()
    }
}

/// `modelId` is `model_id`.
fn snake(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 2);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// `model_id` is `modelId`.
fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Secrets;
    use super::*;

    fn write(config: &Value) -> Write {
        Write {
            connector_type_id: "inference-endpoint",
            name: "OpenAI".to_owned(),
            config: config.as_object().cloned().unwrap(),
            secrets: Secrets {
                within: None,
                parts: vec![("api_key", SecretString::from("sk-canary"))],
            },
        }
    }

    #[test]
    fn a_definition_becomes_service_settings_and_back() {
        let config = json!({"service": "azureopenai", "taskType": "completion", "resourceName": "r",
            "deploymentId": "gpt", "apiVersion": "2024-10-21"});
        let body: Value = serde_json::from_slice(&write(&config).create_endpoint_body()).unwrap();
        let settings = json!({"resource_name": "r", "deployment_id": "gpt", "api_version": "2024-10-21",
            "api_key": "sk-canary"});
        assert_eq!(
            body,
            json!({"service": "azureopenai", "service_settings": settings})
        );

        let shown = json!({"inference_id": "x", "task_type": "completion", "service": "azureopenai",
            "service_settings": {"resource_name": "r", "deployment_id": "gpt", "api_version": "2024-10-21",
            "rate_limit": {"requests_per_minute": 120}}, "task_settings": {}});
        assert_eq!(Value::Object(flat(shown.as_object().unwrap())), config);
    }

    #[test]
    fn an_update_holds_the_key_alone() {
        let config = json!({"service": "openai", "taskType": "completion", "modelId": "gpt-4.1"});
        let body: Value = serde_json::from_slice(&write(&config).update_endpoint_body()).unwrap();
        assert_eq!(body, json!({"service_settings": {"api_key": "sk-canary"}}));
    }

    #[test]
    fn any_answer_is_flattened_without_a_panic() {
        for answer in [
            json!({}),
            json!({"service_settings": 1, "task_type": [], "service": {}}),
            json!({"service_settings": {"": "x", "_": "y", "a__b": "z"}}),
        ] {
            flat(answer.as_object().unwrap());
        }
    }
}
