//! `.gen-ai`, Kibana's connector for OpenAI and for services that speak like it.
//!
//! Deprecated since Kibana 9.5 and gone from its pages in 9.6, where the API still creates and edits it.

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use url::Url;

use super::fields::{self, Field, Kind};
use super::{Difference, Driver, InvalidConfig, ProbeResult, check_display_name, endpoint, probe};
use crate::api::{Execution, Observed};
use crate::version::Version;
use crate::write::Write;

const TYPE: &str = ".gen-ai";
const PROVIDER: &str = "apiProvider";
const URL: &str = "apiUrl";
const MODEL: &str = "defaultModel";

/// Enough for an answer of every model without reasoning; a model with reasoning refuses in a way that still proves
/// the key. `max_tokens` is refused by newer models.
const PROBE_TOKENS: u32 = 16;
/// From this length a secret cannot be an ordinary word of a URL or a name.
const SECRET_CHARS_SEARCHED: usize = 8;

const V8_9: Version = Version::OLDEST;
const V8_11: Version = Version::new(8, 11, 0);
const V8_14: Version = Version::new(8, 14, 0);
const V8_17: Version = Version::new(8, 17, 0);
const V8_18: Version = Version::new(8, 18, 0);
const V9_1: Version = Version::new(9, 1, 0);
const V9_2: Version = Version::new(9, 2, 0);
const V9_3: Version = Version::new(9, 3, 0);

/// A value of `apiProvider`: each has its own strict schema.
#[derive(Debug)]
struct Provider {
    name: &'static str,
    since: Version,
    /// False: Kibana knows it and Keyfleet cannot spread it yet.
    is_supported: bool,
    fields: &'static [Field],
}

/// Adding a provider: `is_supported`, its rule for `apiUrl` in [`check_endpoint`], its probe in [`Driver::probe`].
static PROVIDERS: [Provider; 3] = [
    Provider {
        name: "OpenAI",
        since: V8_9,
        is_supported: true,
        fields: &OPENAI,
    },
    Provider {
        name: "Azure OpenAI",
        since: V8_9,
        is_supported: false,
        fields: &AZURE,
    },
    Provider {
        name: "Other",
        since: V8_17,
        is_supported: false,
        fields: &OTHER,
    },
];

// First releases: kibana#157228 (the type), #179026 (headers), #213117 (organization and project), #228371 (context
// window), #232097 (function calling), #239806 (temperature). The release of `defaultModel` is not confirmed: 8.11 is
// the oldest whose sources have it.
static OPENAI: [Field; 8] = [
    Field::required(PROVIDER, V8_9, Kind::Text),
    Field::required(URL, V8_9, Kind::Url),
    Field::defaulted(MODEL, V8_11, Kind::Text),
    Field::optional("organizationId", V8_18, Kind::Text),
    Field::optional("projectId", V8_18, Kind::Text),
    Field::optional("headers", V8_14, Kind::Headers),
    Field::optional("contextWindowLength", V9_2, Kind::Count),
    Field::optional("temperature", V9_3, Kind::Temperature),
];
static AZURE: [Field; 6] = [
    Field::required(PROVIDER, V8_9, Kind::Text),
    Field::required(URL, V8_9, Kind::Url),
    Field::optional(MODEL, V9_2, Kind::Text),
    Field::optional("headers", V8_14, Kind::Headers),
    Field::optional("contextWindowLength", V9_2, Kind::Count),
    Field::optional("temperature", V9_3, Kind::Temperature),
];
static OTHER: [Field; 8] = [
    Field::required(PROVIDER, V8_17, Kind::Text),
    Field::required(URL, V8_17, Kind::Url),
    Field::required(MODEL, V8_17, Kind::Text),
    Field::optional("headers", V8_17, Kind::Headers),
    Field::optional("contextWindowLength", V9_2, Kind::Count),
    Field::optional("temperature", V9_3, Kind::Temperature),
    Field::defaulted(
        "verificationMode",
        V9_1,
        Kind::OneOf(&["full", "certificate", "none"]),
    ),
    Field::optional("enableNativeFunctionCalling", V9_2, Kind::Flag),
];

/// The driver of `.gen-ai`.
#[derive(Debug)]
pub(super) struct GenAi;

impl Driver for GenAi {
    fn connector_type(&self) -> &'static str {
        TYPE
    }

    fn check(&self, config_json: &str) -> Result<(), Vec<InvalidConfig>> {
        accept(config_json).map(|_| ())
    }

    fn check_version(
        &self,
        config_json: &str,
        version: &Version,
    ) -> Result<(), Vec<InvalidConfig>> {
        let config = accept(config_json)?;
        let problems = config.too_new_for(version);
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    fn canonical(&self, config_json: &str) -> Result<String, Vec<InvalidConfig>> {
        accept(config_json).map(|config| Value::Object(config.fields).to_string())
    }

    fn render(
        &self,
        config_json: &str,
        display_name: &str,
        secret: &SecretString,
        version: &Version,
    ) -> Result<Write, Vec<InvalidConfig>> {
        let config = accept(config_json)?;
        let name = display_name.trim();
        let mut invalid = config.too_new_for(version);
        invalid.extend(check_display_name(name).err());
        invalid.extend(check_secret(secret, name, &config.fields));
        if !invalid.is_empty() {
            return Err(invalid);
        }
        let secrets = vec![("apiKey", secret.clone())];
        Ok(Write {
            connector_type_id: TYPE,
            name: name.to_owned(),
            config: config.fields,
            secrets,
        })
    }

    fn differences(
        &self,
        config_json: &str,
        display_name: &str,
        observed: &Observed,
    ) -> Vec<Difference> {
        let Ok(config) = accept(config_json) else {
            return vec![difference(
                "config",
                "a valid definition",
                "a definition that this agent cannot read",
            )];
        };
        let mut differences = Vec::new();
        if observed.connector_type_id != TYPE {
            differences.push(difference("type", TYPE, &observed.connector_type_id));
        }
        if observed.name != display_name.trim() {
            differences.push(difference(
                "displayName",
                display_name.trim(),
                &observed.name,
            ));
        }
        differences.extend(fields::differences(
            config.provider.fields,
            &config.fields,
            &observed.config,
        ));
        if observed.is_missing_secrets {
            differences.push(difference("secrets", "present", "missing"));
        }
        differences
    }

    fn probe(&self, config_json: &str) -> Value {
        let mut body = json!({
            "messages": [{"role": "user", "content": "ping"}],
            "max_completion_tokens": PROBE_TOKENS,
        });
        // Without a model Kibana fills in the connector's own.
        if let (Some(model), Value::Object(fields)) = (self.model(config_json), &mut body) {
            fields.insert("model".to_owned(), Value::String(model));
        }
        json!({"subAction": "test", "subActionParams": {"body": body.to_string()}})
    }

    fn read_probe(&self, execution: &Execution) -> ProbeResult {
        probe::read(execution)
    }

    fn destination(&self, config_json: &str) -> Option<Url> {
        let fields = fields::parse(config_json).ok()?;
        endpoint::parse(fields.get(URL)?.as_str()?).ok()
    }

    fn model(&self, config_json: &str) -> Option<String> {
        let fields = fields::parse(config_json).ok()?;
        fields
            .get(MODEL)?
            .as_str()
            .filter(|model| !model.is_empty())
            .map(str::to_owned)
    }
}

/// A config that passed every check that needs no version.
struct Config {
    provider: &'static Provider,
    fields: Map<String, Value>,
}

impl Config {
    fn too_new_for(&self, version: &Version) -> Vec<InvalidConfig> {
        if *version < V8_9 {
            return vec![InvalidConfig::new("type", fields::needs(V8_9, version))];
        }
        if *version < self.provider.since {
            return vec![InvalidConfig::new(
                format!("config.{PROVIDER}"),
                fields::needs(self.provider.since, version),
            )];
        }
        fields::check_version(self.provider.fields, &self.fields, version)
    }
}

fn accept(config_json: &str) -> Result<Config, Vec<InvalidConfig>> {
    let fields = fields::parse(config_json)?;
    let provider = provider(&fields)
        .map_err(|problem| vec![InvalidConfig::new(format!("config.{PROVIDER}"), problem)])?;
    let mut invalid = fields::check(provider.fields, &fields);
    for unknown in &mut invalid {
        explain_foreign(provider, unknown);
    }
    invalid.extend(check_endpoint(&fields));
    if invalid.is_empty() {
        Ok(Config { provider, fields })
    } else {
        Err(invalid)
    }
}

fn provider(fields: &Map<String, Value>) -> Result<&'static Provider, String> {
    let supported: Vec<_> = PROVIDERS
        .iter()
        .filter(|provider| provider.is_supported)
        .map(|p| p.name)
        .collect();
    let supported = supported.join(" or ");
    let Some(value) = fields.get(PROVIDER) else {
        return Err(format!("is missing; write {supported}"));
    };
    let known = value
        .as_str()
        .and_then(|name| PROVIDERS.iter().find(|provider| provider.name == name));
    match known {
        Some(provider) if provider.is_supported => Ok(provider),
        Some(provider) => Err(format!(
            "{} is not supported yet by this version; write {supported}",
            provider.name
        )),
        None => Err(format!(
            "is not a provider that Kibana knows; write {supported}"
        )),
    }
}

/// A field of another provider gets a better sentence than an unknown one.
fn explain_foreign(provider: &Provider, unknown: &mut InvalidConfig) {
    let has = |provider: &Provider, path: &str| {
        provider
            .fields
            .iter()
            .any(|field| path.strip_prefix("config.") == Some(field.name))
    };
    if has(provider, &unknown.field) {
        return;
    }
    if let Some(owner) = PROVIDERS.iter().find(|other| has(other, &unknown.field)) {
        unknown.problem = format!(
            "belongs to the provider {}, not to {}; remove it",
            owner.name, provider.name
        );
    }
}

/// Says nothing about a URL that the table refuses already.
fn check_endpoint(fields: &Map<String, Value>) -> Option<InvalidConfig> {
    let url = endpoint::parse(fields.get(URL)?.as_str()?).ok()?;
    let problem = endpoint::check_completions(&url).err()?;
    Some(InvalidConfig::new(format!("config.{URL}"), problem))
}

/// The last look at a key before it goes out. The key is never repeated in an error.
fn check_secret(
    secret: &SecretString,
    name: &str,
    config: &Map<String, Value>,
) -> Option<InvalidConfig> {
    let key = secret.expose_secret();
    let problem = if key.is_empty() {
        "is empty; write the key into Vault"
    } else if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        "holds a space, a line break or another character that no API key has; write the bare key into Vault"
    } else if key.starts_with("sk-admin-") {
        "is an admin key of the organization, which must never reach a Kibana; use a project's key"
    } else if key.len() >= SECRET_CHARS_SEARCHED && (name.contains(key) || holds(config, key)) {
        "stands in the name or config too, where everyone who may read connectors sees it; remove it there"
    } else {
        return None;
    };
    Some(InvalidConfig::new("secrets.apiKey", problem))
}

/// Whether any text in a map, names included, has `part` in it.
fn holds(map: &Map<String, Value>, part: &str) -> bool {
    map.iter().any(|(name, value)| {
        name.contains(part)
            || match value {
                Value::String(text) => text.contains(part),
                Value::Object(inner) => holds(inner, part),
                Value::Number(number) => number.to_string().contains(part),
                Value::Null | Value::Bool(_) | Value::Array(_) => false,
            }
    })
}

fn difference(field: &str, want: &str, have: &str) -> Difference {
    Difference {
        field: field.to_owned(),
        want: want.to_owned(),
        have: have.to_owned(),
    }
}
