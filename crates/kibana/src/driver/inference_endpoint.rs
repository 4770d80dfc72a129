//! `inference-endpoint`: a model that Elasticsearch calls itself, without a connector of Kibana.
//!
//! It is what Elastic puts in the place of the older connector types. Such an endpoint is kept in Elasticsearch, under
//! the id of the binding, outside of every space; only its key can be changed (`_update`, elasticsearch#114457).

use keyfleet_core::connector::{Probe, Provider as Api};
use serde_json::{Map, Value, json};
use url::Url;

use super::fields::{Field, Kind};
use super::probe::{self, elasticsearch};
use super::schema::{Schema, Variant, text};
use super::secrets::{KeyForm, one};
use super::services::{AZURE, CHAT, COMPLETION, Names, OPENAI};
use super::{Difference, InvalidConfig, ProbeResult, Surface};
use crate::api::Execution;
use crate::version::Version;

const SERVICE: &str = "service";
const TASK: &str = "taskType";
const MODEL: &str = "modelId";

/// The first with `_update`.
const V8_17: Version = Version::new(8, 17, 0);
const V8_18: Version = Version::new(8, 18, 0);
const V9_3: Version = Version::new(9, 3, 0);

const NAMES: Names = Names {
    url: "url",
    resource: "resourceName",
    deployment: "deploymentId",
    version: "apiVersion",
};

// First releases: elasticsearch#119982 (conversations), #138726 (those of Azure's service).
static OF_OPENAI: [Field; 5] = [
    Field::required(SERVICE, V8_17, Kind::Text),
    Field::required(
        TASK,
        V8_17,
        Kind::OneOf(&[(COMPLETION, V8_17), (CHAT, V8_18)]),
    ),
    Field::required(MODEL, V8_17, Kind::Text),
    Field::optional("organizationId", V8_17, Kind::Text),
    Field::defaulted("url", V8_17, Kind::Url),
];
static OF_AZURE: [Field; 5] = [
    Field::required(SERVICE, V8_17, Kind::Text),
    Field::required(
        TASK,
        V8_17,
        Kind::OneOf(&[(COMPLETION, V8_17), (CHAT, V9_3)]),
    ),
    Field::required("resourceName", V8_17, Kind::Word),
    Field::required("deploymentId", V8_17, Kind::Word),
    Field::required("apiVersion", V8_17, Kind::Word),
];

static VARIANTS: [Variant; 2] = [
    Variant {
        name: OPENAI,
        since: V8_17,
        fields: &OF_OPENAI,
        keys: &[KEY],
        api: Some(Api::OpenAi),
    },
    Variant {
        name: AZURE,
        since: V8_17,
        fields: &OF_AZURE,
        keys: &[KEY],
        api: Some(Api::AzureOpenAi),
    },
];

const KEY: KeyForm = KeyForm {
    since: V8_17,
    parts: &[one("api_key")],
};

/// The driver of `inference-endpoint`.
#[derive(Debug)]
pub(super) struct InferenceEndpoint;

impl Schema for InferenceEndpoint {
    fn connector_type(&self) -> &'static str {
        "inference-endpoint"
    }

    fn since(&self) -> Version {
        V8_17
    }

    fn selector(&self) -> Option<&'static str> {
        Some(SERVICE)
    }

    fn variants(&self) -> &'static [Variant] {
        &VARIANTS
    }

    fn check_more(&self, variant: &Variant, fields: &Map<String, Value>) -> Vec<InvalidConfig> {
        NAMES.check("config", variant.name, fields)
    }

    /// Elasticsearch keeps none.
    fn has_display_name(&self) -> bool {
        false
    }

    fn surface(&self, fields: &Map<String, Value>) -> Surface {
        Surface::Elasticsearch {
            task: text(fields, TASK).unwrap_or(CHAT).to_owned(),
        }
    }

    fn check_update(&self, differences: &[Difference]) -> Result<(), InvalidConfig> {
        let Some(difference) = differences.first() else {
            return Ok(());
        };
        let problem = format!(
            "is {} and should be {}; Elasticsearch changes only the key of an inference endpoint, so make a new \
             connector with another name and let it replace this one",
            difference.have, difference.want
        );
        Err(InvalidConfig::new(difference.field.clone(), problem))
    }

    fn destination(&self, fields: &Map<String, Value>) -> Option<Url> {
        NAMES.destination(text(fields, SERVICE)?, fields)
    }

    fn model(&self, fields: &Map<String, Value>) -> Option<String> {
        text(fields, MODEL).map(str::to_owned)
    }

    fn call(&self, fields: &Map<String, Value>, probe: &Probe) -> Value {
        if let Some(own) = probe::own_body(probe) {
            return own;
        }
        if text(fields, TASK) == Some(COMPLETION) {
            return json!({"input": elasticsearch::PROMPT});
        }
        let mut body = elasticsearch::conversation(probe);
        body["max_completion_tokens"] = json!(probe.max_tokens.unwrap_or(probe::TOKENS));
        body
    }

    fn check_call(&self, fields: &Map<String, Value>, probe: &Probe) -> Vec<InvalidConfig> {
        let task = text(fields, TASK);
        let mut invalid = elasticsearch::check_body(task, probe);
        if probe.max_tokens.is_some() && task == Some(COMPLETION) {
            let problem =
                "is of no use: Elasticsearch takes no limit for the task completion; remove it";
            invalid.push(InvalidConfig::new("probe.maxTokens", problem));
        }
        invalid
    }

    fn read(&self, execution: &Execution) -> ProbeResult {
        probe::read(execution, &elasticsearch::ITSELF)
    }
}
