//! The providers of `.gen-ai`, as data: their fields, the first Kibana that has each, the rule for their URL.

use keyfleet_core::connector::Provider as Api;
use serde_json::{Map, Value};
use url::Url;

use super::super::InvalidConfig;
use super::super::endpoint;
use super::super::fields::{Field, Kind};
use super::{MODEL, PROVIDER, URL};
use crate::version::Version;

pub(super) const V8_9: Version = Version::OLDEST;
const V8_11: Version = Version::new(8, 11, 0);
const V8_14: Version = Version::new(8, 14, 0);
const V8_17: Version = Version::new(8, 17, 0);
const V8_18: Version = Version::new(8, 18, 0);
const V9_1: Version = Version::new(9, 1, 0);
const V9_2: Version = Version::new(9, 2, 0);
const V9_3: Version = Version::new(9, 3, 0);

/// A value of `apiProvider`: each has its own strict schema.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) name: &'static str,
    pub(super) since: Version,
    pub(super) fields: &'static [Field],
    /// What must hold for its `apiUrl` beside being a URL.
    check_url: fn(&Url) -> Result<(), String>,
    /// Whose API it is.
    pub(super) api: Api,
}

/// Adding a provider: a row here, a table of fields, its probe in `driver/probe.rs`.
pub(super) static PROVIDERS: [Provider; 3] = [
    Provider {
        name: "OpenAI",
        since: V8_9,
        fields: &OPENAI,
        check_url: endpoint::check_completions,
        api: Api::OpenAi,
    },
    Provider {
        name: "Azure OpenAI",
        since: V8_9,
        fields: &AZURE,
        check_url: endpoint::check_azure,
        api: Api::AzureOpenAi,
    },
    Provider {
        name: "Other",
        since: V8_17,
        fields: &OTHER,
        check_url: endpoint::check_completions,
        api: Api::Other,
    },
];

// First releases: kibana#157228 (the type), #179026 (headers), #213117 (organization and project), #228371 (context
// window), #232097 (function calling), #239806 (temperature). The release of `defaultModel` is not confirmed: 8.11 is
// the oldest whose sources have it.
static OPENAI: [Field; 8] = [
    Field::required(PROVIDER, V8_9, Kind::Text),
    Field::required(URL, V8_9, Kind::Url),
    Field::defaulted(MODEL, V8_11, Kind::Text),
    Field::optional("headers", V8_14, Kind::Headers),
    Field::optional("organizationId", V8_18, Kind::Text),
    Field::optional("projectId", V8_18, Kind::Text),
    Field::optional("contextWindowLength", V9_2, Kind::Count),
    Field::optional("temperature", V9_3, Kind::Temperature),
];
static AZURE: [Field; 6] = [
    Field::required(PROVIDER, V8_9, Kind::Text),
    Field::required(URL, V8_9, Kind::Url),
    Field::optional("headers", V8_14, Kind::Headers),
    Field::optional(MODEL, V9_2, Kind::Text),
    Field::optional("contextWindowLength", V9_2, Kind::Count),
    Field::optional("temperature", V9_3, Kind::Temperature),
];
static OTHER: [Field; 8] = [
    Field::required(PROVIDER, V8_17, Kind::Text),
    Field::required(URL, V8_17, Kind::Url),
    Field::required(MODEL, V8_17, Kind::Text),
    Field::optional("headers", V8_17, Kind::Headers),
    Field::defaulted(
        "verificationMode",
        V9_1,
        Kind::OneOf(&["full", "certificate", "none"]),
    ),
    Field::optional("contextWindowLength", V9_2, Kind::Count),
    Field::optional("enableNativeFunctionCalling", V9_2, Kind::Flag),
    Field::optional("temperature", V9_3, Kind::Temperature),
];

impl Provider {
    /// The provider that a config names.
    pub(super) fn of(config: &Map<String, Value>) -> Result<&'static Self, String> {
        let names: Vec<_> = PROVIDERS.iter().map(|provider| provider.name).collect();
        let names = names.join(" or ");
        let Some(value) = config.get(PROVIDER) else {
            return Err(format!("is missing; write {names}"));
        };
        let named = value
            .as_str()
            .and_then(|name| PROVIDERS.iter().find(|provider| provider.name == name));
        named.ok_or_else(|| format!("is not a provider that Kibana knows; write {names}"))
    }

    pub(super) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Says nothing about a URL that the table refuses already.
    pub(super) fn check_endpoint(&self, config: &Map<String, Value>) -> Option<InvalidConfig> {
        let url = endpoint::parse(config.get(URL)?.as_str()?).ok()?;
        let problem = (self.check_url)(&url).err()?;
        Some(InvalidConfig::new(format!("config.{URL}"), problem))
    }

    /// A field of another provider gets a better sentence than an unknown one.
    pub(super) fn explain_foreign(&self, unknown: &mut InvalidConfig) {
        let Some(name) = unknown.field.strip_prefix("config.") else {
            return;
        };
        if self.field(name).is_some() {
            return;
        }
        if let Some(owner) = PROVIDERS.iter().find(|other| other.field(name).is_some()) {
            unknown.problem = format!(
                "belongs to the provider {}, not to {}; remove it",
                owner.name, self.name
            );
        }
    }
}
