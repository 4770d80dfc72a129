//! `.inference`, Kibana's connector to an inference endpoint of Elasticsearch ("AI Connector").
//!
//! Kibana makes the endpoint `inferenceId` when the connector is created, and makes it anew at each write. Whether it asks
//! for the caller's privilege `manage_inference` is not certain, so the preflight asks for it. The id is global in Elasticsearch: one definition serves one space of a Kibana.

use keyfleet_core::connector::{Probe, Provider as Api};
use serde_json::{Map, Value, json};
use url::Url;

use super::fields::{Field, Kind};
use super::probe::{self, elasticsearch};
use super::schema::{Schema, Variant, text};
use super::secrets::{KeyForm, one};
use super::services::{AZURE, CHAT, COMPLETION, Names, OPENAI};
use super::{InvalidConfig, ProbeResult};
use crate::api::Execution;
use crate::version::Version;

const PROVIDER: &str = "provider";
const TASK: &str = "taskType";
const SETTINGS: &str = "providerConfig";
const MODEL: &str = "model_id";
const ENDPOINT: &str = "inferenceId";

const V8_16: Version = Version::new(8, 16, 0);
const V8_18: Version = Version::new(8, 18, 0);
const V9_2: Version = Version::new(9, 2, 0);
const V9_3: Version = Version::new(9, 3, 0);

const NAMES: Names = Names {
    url: "url",
    resource: "resource_name",
    deployment: "deployment_id",
    version: "api_version",
};

// First releases: kibana#189027 (the type), #200249 (conversations), #228371 (context window), #239806 (temperature),
// #235687 (headers), elasticsearch#138726 (conversations of Azure's service).
static OF_OPENAI: [Field; 7] = [
    Field::required(PROVIDER, V8_16, Kind::Text),
    Field::required(
        TASK,
        V8_16,
        Kind::OneOf(&[(COMPLETION, V8_16), (CHAT, V8_18)]),
    ),
    Field::required(ENDPOINT, V8_16, Kind::Word),
    Field::required(SETTINGS, V8_16, Kind::Object(&OPENAI_SETTINGS)),
    Field::optional("contextWindowLength", V9_2, Kind::Count),
    Field::optional("headers", V9_3, Kind::Headers),
    Field::optional("temperature", V9_3, Kind::Temperature),
];
static OPENAI_SETTINGS: [Field; 3] = [
    Field::required(MODEL, V8_16, Kind::Text),
    Field::optional("organization_id", V8_16, Kind::Text),
    Field::defaulted("url", V8_16, Kind::Url),
];
static OF_AZURE: [Field; 7] = [
    Field::required(PROVIDER, V8_16, Kind::Text),
    Field::required(
        TASK,
        V8_16,
        Kind::OneOf(&[(COMPLETION, V8_16), (CHAT, V9_3)]),
    ),
    Field::required(ENDPOINT, V8_16, Kind::Word),
    Field::required(SETTINGS, V8_16, Kind::Object(&AZURE_SETTINGS)),
    Field::optional("contextWindowLength", V9_2, Kind::Count),
    Field::optional("headers", V9_3, Kind::Headers),
    Field::optional("temperature", V9_3, Kind::Temperature),
];
static AZURE_SETTINGS: [Field; 3] = [
    Field::required("resource_name", V8_16, Kind::Word),
    Field::required("deployment_id", V8_16, Kind::Word),
    Field::required("api_version", V8_16, Kind::Word),
];

static VARIANTS: [Variant; 2] = [
    Variant {
        name: OPENAI,
        since: V8_16,
        fields: &OF_OPENAI,
        keys: &[KEY],
        api: Some(Api::OpenAi),
    },
    Variant {
        name: AZURE,
        since: V8_16,
        fields: &OF_AZURE,
        keys: &[KEY],
        api: Some(Api::AzureOpenAi),
    },
];

const KEY: KeyForm = KeyForm {
    since: V8_16,
    parts: &[one("api_key")],
};

/// The driver of `.inference`.
#[derive(Debug)]
pub(super) struct Inference;

impl Schema for Inference {
    fn connector_type(&self) -> &'static str {
        ".inference"
    }

    fn since(&self) -> Version {
        V8_16
    }

    fn selector(&self) -> Option<&'static str> {
        Some(PROVIDER)
    }

    fn variants(&self) -> &'static [Variant] {
        &VARIANTS
    }

    fn check_more(&self, variant: &Variant, fields: &Map<String, Value>) -> Vec<InvalidConfig> {
        let path = format!("config.{SETTINGS}");
        settings(fields).map_or_else(Vec::new, |settings| {
            NAMES.check(&path, variant.name, settings)
        })
    }

    fn secrets_within(&self) -> Option<&'static str> {
        Some("providerSecrets")
    }

    fn endpoint(&self, fields: &Map<String, Value>) -> Option<String> {
        text(fields, ENDPOINT).map(str::to_owned)
    }

    fn destination(&self, fields: &Map<String, Value>) -> Option<Url> {
        NAMES.destination(text(fields, PROVIDER)?, settings(fields)?)
    }

    fn model(&self, fields: &Map<String, Value>) -> Option<String> {
        text(settings(fields)?, MODEL).map(str::to_owned)
    }

    /// No limit of tokens: Kibana refuses the one that Elasticsearch knows.
    fn call(&self, fields: &Map<String, Value>, probe: &Probe) -> Value {
        let own = probe::own_body(probe);
        if text(fields, TASK) == Some(COMPLETION) {
            let params = own.unwrap_or_else(|| json!({"input": elasticsearch::PROMPT}));
            return json!({"subAction": "completion", "subActionParams": params});
        }
        let body = own.unwrap_or_else(|| elasticsearch::conversation(probe));
        json!({"subAction": "unified_completion", "subActionParams": {"body": body}})
    }

    fn check_call(&self, fields: &Map<String, Value>, probe: &Probe) -> Vec<InvalidConfig> {
        let mut invalid = elasticsearch::check_body(text(fields, TASK), probe);
        if probe.max_tokens.is_some() {
            let problem =
                "is of no use: Kibana lets no limit pass to an inference endpoint; remove it";
            invalid.push(InvalidConfig::new("probe.maxTokens", problem));
        }
        invalid
    }

    fn read(&self, execution: &Execution) -> ProbeResult {
        probe::read(execution, &elasticsearch::THROUGH_KIBANA)
    }
}

fn settings(fields: &Map<String, Value>) -> Option<&Map<String, Value>> {
    fields.get(SETTINGS)?.as_object()
}
