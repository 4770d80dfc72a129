//! The connector types and their providers, as Kibana and Elasticsearch have them: written apart from the drivers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyfleet_kibana::{Driver, KeyValue, Version, Write, driver};
use secrecy::SecretString;
use serde_json::{Map, Value, json};

/// The key that works, and one that nobody knows.
pub(crate) const KEY: &str = "sk-proj-simulated0000000000000000MxYA";
pub(crate) const WRONG: &str = "sk-proj-nobody-knows-this";
const ACCESS_KEY: &str = "AKIASIMULATED0123456";

/// A type and the value that selects its provider, where it has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) connector_type: &'static str,
    pub(crate) provider: &'static str,
}

const fn kind(connector_type: &'static str, provider: &'static str) -> Kind {
    Kind {
        connector_type,
        provider,
    }
}

pub(crate) const OTHER: Kind = kind(".gen-ai", "Other");
pub(crate) const KINDS: [Kind; 9] = [
    kind(".gen-ai", "OpenAI"),
    kind(".gen-ai", "Azure OpenAI"),
    OTHER,
    kind(".bedrock", ""),
    kind(".gemini", ""),
    kind(".inference", "openai"),
    kind(".inference", "azureopenai"),
    kind("inference-endpoint", "openai"),
    kind("inference-endpoint", "azureopenai"),
];

impl Kind {
    pub(crate) fn driver(self) -> &'static dyn Driver {
        driver(self.connector_type).unwrap()
    }

    pub(crate) fn is_endpoint(self) -> bool {
        self.connector_type == "inference-endpoint"
    }

    /// The least config for a simulated provider at `url`.
    pub(crate) fn least(self, url: &str) -> Value {
        let chat = format!("{url}/v1/chat/completions");
        match (self.connector_type, self.provider) {
            (".gen-ai", "Azure OpenAI") => {
                let deployment = format!("{url}/openai/deployments/gpt-4.1/chat/completions");
                json!({"apiProvider": self.provider, "apiUrl": format!("{deployment}?api-version=2024-10-21")})
            }
            (".gen-ai", "Other") => {
                let url = format!("{url}/compatible/v1/chat/completions");
                json!({"apiProvider": self.provider, "apiUrl": url, "defaultModel": "gpt-4.1"})
            }
            (".gen-ai", _) => json!({"apiProvider": self.provider, "apiUrl": chat}),
            (".bedrock", _) => json!({"apiUrl": url}),
            (".gemini", _) => {
                json!({"apiUrl": url, "gcpRegion": "europe-west1", "gcpProjectID": "project-1"})
            }
            (".inference", "openai") => {
                self.inference(&json!({"model_id": "gpt-4.1", "url": chat}))
            }
            (".inference", _) => {
                let names = json!({"resource_name": "r", "deployment_id": "gpt-4.1", "api_version": "2024-10-21"});
                self.inference(&names)
            }
            (_, "openai") => {
                json!({"service": "openai", "taskType": "completion", "modelId": "gpt-4.1", "url": chat})
            }
            _ => json!({"service": self.provider, "taskType": "completion", "resourceName": "r",
                "deploymentId": "gpt-4.1", "apiVersion": "2024-10-21"}),
        }
    }

    fn inference(self, settings: &Value) -> Value {
        json!({"provider": self.provider, "taskType": "completion", "inferenceId": "assistant",
            "providerConfig": settings})
    }

    /// Fields of any type beside those that all providers of one need, and another value for those that may have one.
    pub(crate) fn extras(self) -> Vec<(&'static str, Value)> {
        let model = match self.connector_type {
            ".bedrock" => "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            ".gemini" => "gemini-2.5-pro",
            _ => "gpt-4.1",
        };
        let mut extras = vec![
            ("organizationId", json!("org-1")),
            ("projectId", json!("proj_1")),
            ("taskType", json!("chat_completion")),
        ];
        if !self.is_endpoint() {
            extras.extend([
                ("defaultModel", json!(model)),
                ("headers", json!({"X-Team": "soc"})),
                ("contextWindowLength", json!(128_000)),
                ("temperature", json!(0.2)),
                ("verificationMode", json!("certificate")),
                ("enableNativeFunctionCalling", json!(true)),
                ("region", json!("eu-west-1")),
            ]);
        }
        extras
    }

    /// Everything that it may have at once, and the names of what may be left out.
    pub(crate) fn most(self, url: &str) -> (Value, Vec<String>) {
        let (mut config, mut names) = (self.least(url), Vec::new());
        for (field, value) in self.extras() {
            let mut with = config.clone();
            with[field] = value;
            let is_new = config.get(field).is_none();
            if is_new && self.driver().check(&with.to_string()).is_ok() {
                config = with;
                let name = vec![field.to_owned()];
                let may_go = self.driver().check_if_supported(&config.to_string(), &name);
                names.extend(may_go.is_ok().then_some(field.to_owned()));
            }
        }
        (config, names)
    }

    /// What Vault holds for a key, and the names of its parts.
    pub(crate) fn key(self, key: &str) -> (SecretString, Vec<String>) {
        let (text, parts) = match self.connector_type {
            ".bedrock" => {
                let parts = vec!["accessKey".to_owned(), "secret".to_owned()];
                (
                    json!({"accessKey": ACCESS_KEY, "secret": key}).to_string(),
                    parts,
                )
            }
            ".gemini" => (account(key), Vec::new()),
            _ => (key.to_owned(), Vec::new()),
        };
        (SecretString::from(text), parts)
    }

    /// The secrets of a body that no driver has seen.
    pub(crate) fn secrets(self) -> Value {
        match self.connector_type {
            ".bedrock" => json!({"accessKey": ACCESS_KEY, "secret": KEY}),
            ".gemini" => json!({"credentialsJson": account(KEY)}),
            ".inference" => json!({"providerSecrets": {"api_key": KEY}}),
            _ => json!({"apiKey": KEY}),
        }
    }

    pub(crate) fn render(self, config: &str, key: &str, version: &Version) -> Write {
        let (text, parts) = self.key(key);
        let value = KeyValue {
            text: &text,
            parts: &parts,
        };
        let write = self.driver().render(config, "OpenAI", &value, version);
        write.unwrap_or_else(|problems| panic!("{config}: {problems:?}"))
    }
}

/// The keys that a simulated provider knows: as they are, and as the clouds see them.
pub(crate) fn known_keys() -> Vec<String> {
    vec![KEY.to_owned(), format!("{ACCESS_KEY}:{KEY}"), certificate()]
}

/// A client certificate as Kibana gets it.
pub(crate) fn certificate() -> String {
    STANDARD.encode("-----BEGIN CERTIFICATE-----\nc2ltdWxhdGVk\n-----END CERTIFICATE-----\n")
}

/// The private key of that certificate.
pub(crate) fn private_key() -> String {
    STANDARD.encode("-----BEGIN PRIVATE KEY-----\nc2ltdWxhdGVk\n-----END PRIVATE KEY-----\n")
}

/// The file of a service account; the simulator takes the id of its key for a token.
fn account(key: &str) -> String {
    json!({"type": "service_account", "client_email": "a@project-1.iam.gserviceaccount.com", "private_key_id": key,
        "private_key": "-----BEGIN PRIVATE KEY-----\nc2ltdWxhdGVk\n-----END PRIVATE KEY-----\n"})
    .to_string()
}

/// The body of a PUT for Elasticsearch, which has another name for each field.
pub(crate) fn endpoint_body(config: &Value) -> Value {
    let names = [
        ("modelId", "model_id"),
        ("organizationId", "organization_id"),
        ("resourceName", "resource_name"),
        ("deploymentId", "deployment_id"),
        ("apiVersion", "api_version"),
        ("projectId", "project_id"),
    ];
    let mut settings = Map::from_iter([("api_key".to_owned(), json!(KEY))]);
    for (name, value) in config.as_object().unwrap() {
        if name != "service" && name != "taskType" {
            let row = names.iter().find(|row| row.0 == name);
            settings.insert(
                row.map_or(name.as_str(), |row| row.1).to_owned(),
                value.clone(),
            );
        }
    }
    json!({"service": config["service"], "service_settings": settings})
}
