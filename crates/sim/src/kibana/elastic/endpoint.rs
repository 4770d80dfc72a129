//! Inference endpoints: what a definition may hold, how it is shown, and the call that it makes.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::super::provider::{self, text};
use super::super::version::{Since, Version};
use super::errors::Refusal;

/// The endpoints are named by `inference_id` and listed as `endpoints`; before, by `model_id` and as `models`.
pub(super) const NAMED_ENDPOINT: Since = Since(8, 15);
/// OpenAI's public address.
const OPENAI: &str = "https://api.openai.com";

/// A stored endpoint. It holds a secret, so it has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub(in crate::kibana) struct Endpoint {
    pub(super) id: String,
    pub(super) task: String,
    pub(super) service: String,
    /// Without the key.
    settings: Map<String, Value>,
    task_settings: Map<String, Value>,
    pub(super) key: String,
}

/// A service that is simulated.
struct Service {
    name: &'static str,
    /// The tasks with the first release of each.
    tasks: &'static [(&'static str, Since)],
    required: &'static [&'static str],
    optional: &'static [&'static str],
    requests_per_minute: u32,
}

/// Sources: elasticsearch#119982, #138726 and the services' settings in Elasticsearch.
const SERVICES: [Service; 2] = [
    Service {
        name: "openai",
        tasks: &[
            ("completion", Since(8, 12)),
            ("chat_completion", Since(8, 18)),
        ],
        required: &["model_id"],
        optional: &["url", "organization_id", "max_input_tokens", "rate_limit"],
        requests_per_minute: 500,
    },
    Service {
        name: "azureopenai",
        tasks: &[
            ("completion", Since(8, 15)),
            ("chat_completion", Since(9, 3)),
        ],
        required: &["resource_name", "deployment_id", "api_version"],
        optional: &["rate_limit"],
        requests_per_minute: 120,
    },
];

/// The tasks of a release, whatever service has them.
pub(super) fn is_task(version: Version, task: &str) -> bool {
    match task {
        "completion" | "text_embedding" | "sparse_embedding" | "rerank" => true,
        "chat_completion" => version.has(Since(8, 18)),
        _ => false,
    }
}

impl Endpoint {
    /// Reads the body of a PUT.
    pub(super) fn read(
        version: Version,
        task: &str,
        id: &str,
        body: &Value,
    ) -> Result<Self, Refusal> {
        let map = |name: &str| body[name].as_object().cloned().unwrap_or_default();
        let name = body["service"].as_str().unwrap_or_default();
        let Some(service) = SERVICES.iter().find(|service| service.name == name) else {
            return Err(Refusal::status(400, format!("Unknown service [{name}]")));
        };
        let known = service.tasks.iter().find(|(known, _)| *known == task);
        if !known.is_some_and(|(_, since)| version.has(*since)) {
            let text = format!("The [{name}] service does not support task type [{task}]");
            return Err(Refusal::status(400, text));
        }
        let mut settings = map("service_settings");
        let key = settings.remove("api_key");
        service.check(&settings, key.as_ref())?;
        let rate = json!({ "requests_per_minute": service.requests_per_minute });
        settings.entry("rate_limit").or_insert(rate);
        Ok(Self {
            id: id.to_owned(),
            task: task.to_owned(),
            service: name.to_owned(),
            settings,
            task_settings: map("task_settings"),
            key: key
                .and_then(|key| key.as_str().map(str::to_owned))
                .unwrap_or_default(),
        })
    }

    /// The endpoint after `_update`: another key. Everything else is ignored without a word (elasticsearch#139651).
    pub(super) fn updated(&self, version: Version, body: &Value) -> Result<Self, Refusal> {
        let Some(settings) = body["service_settings"].as_object() else {
            return Ok(self.clone());
        };
        let key = match settings.get("api_key").map(Value::as_str) {
            // Since elasticsearch#149628 the key may stay.
            None if version.has(Since(9, 5)) => self.key.clone(),
            Some(Some(key)) if !key.is_empty() => key.to_owned(),
            None => return Err(Refusal::invalid(&[missing_key()])),
            Some(_) => return Err(Refusal::invalid(&[empty_key()])),
        };
        Ok(Self {
            key,
            ..self.clone()
        })
    }

    /// As the API shows it: without the key.
    pub(super) fn describe(&self, version: Version) -> Value {
        let name = match version.has(NAMED_ENDPOINT) {
            true => "inference_id",
            false => "model_id",
        };
        let mut shown = json!({
            name: self.id,
            "task_type": self.task,
            "service": self.service,
            "service_settings": self.settings,
        });
        if !self.task_settings.is_empty() || !version.has(NAMED_ENDPOINT) {
            shown["task_settings"] = json!(self.task_settings);
        }
        shown
    }

    /// The call to the provider with this body, in which the model and OpenAI's usual parts are filled in.
    /// `base` takes the place of a public address.
    pub(super) fn request(&self, mut body: Value, base: Option<&str>) -> provider::Request {
        let setting = |name| text(&self.settings, name);
        let base = base.map(|base| base.trim_end_matches('/'));
        let (url, header) = if self.service == "openai" {
            let model = body["model"].as_str().unwrap_or(setting("model_id"));
            body["model"] = Value::from(model);
            let usual = format!("{}/v1/chat/completions", base.unwrap_or(OPENAI));
            let url = Some(setting("url")).filter(|url| !url.is_empty());
            let key = format!("Bearer {}", self.key);
            (url.map_or(usual, str::to_owned), ("authorization", key))
        } else {
            let public = format!("https://{}.openai.azure.com", setting("resource_name"));
            let url = format!(
                "{}/openai/deployments/{}/chat/completions?api-version={}",
                base.unwrap_or(&public),
                setting("deployment_id"),
                setting("api_version"),
            );
            (url, ("api-key", self.key.clone()))
        };
        body["n"] = Value::from(1);
        let organization = Some(setting("organization_id")).filter(|id| !id.is_empty());
        let organization = organization.map(|id| ("OpenAI-Organization", id.to_owned()));
        provider::Request {
            url,
            headers: std::iter::once(header)
                .chain(organization)
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            model: body["model"].as_str().map(str::to_owned),
            body: body.to_string(),
        }
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.key == other.key && self.settings == other.settings
    }
}

impl Service {
    fn check(&self, settings: &Map<String, Value>, key: Option<&Value>) -> Result<(), Refusal> {
        let mut problems = Vec::new();
        for name in self.required {
            match settings.get(*name) {
                None => problems.push(format!(
                    "[service_settings] does not contain the required setting [{name}]"
                )),
                Some(Value::String(text)) if text.is_empty() => problems.push(format!(
                    "[service_settings] Invalid value empty string. [{name}] must be a non-empty string"
                )),
                Some(_) => {}
            }
        }
        let address = settings.get("url").and_then(Value::as_str);
        if let Some(address) = address.filter(|address| url::Url::parse(address).is_err()) {
            problems.push(format!(
                "[service_settings] Invalid url [{address}] received for field [url]"
            ));
        }
        match key.map(Value::as_str) {
            None => problems.push(missing_key()),
            Some(Some(key)) if !key.is_empty() => {}
            Some(_) => problems.push(empty_key()),
        }
        if !problems.is_empty() {
            return Err(Refusal::invalid(&problems));
        }
        let is_known = |name: &str| self.required.contains(&name) || self.optional.contains(&name);
        let unknown: Vec<String> = settings
            .iter()
            .filter(|(name, _)| !is_known(name))
            .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
            .collect();
        match unknown.is_empty() {
            true => Ok(()),
            false => Err(Refusal::status(
                400,
                format!(
                    "Configuration contains settings [{{{}}}] unknown to the [{}] service",
                    unknown.join(", "),
                    self.name
                ),
            )),
        }
    }
}

fn missing_key() -> String {
    "[secret_settings] does not contain the required setting [api_key]".to_owned()
}

fn empty_key() -> String {
    "[secret_settings] Invalid value empty string. [api_key] must be a non-empty string".to_owned()
}
