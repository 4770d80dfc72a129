//! `.gen-ai`, Kibana's connector for OpenAI and for services that speak like it.
//!
//! Deprecated since Kibana 9.5 and gone from its pages in 9.6, where the API still creates and edits it.

mod providers;

use keyfleet_core::connector::Provider as Api;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use url::Url;

use self::providers::{PROVIDERS, Provider, V8_9};
use super::fields;
use super::{
    Difference, Driver, Feature, InvalidConfig, ProbeResult, check_display_name, endpoint, probe,
};
use crate::api::{Execution, Observed};
use crate::version::Version;
use crate::write::Write;

const TYPE: &str = ".gen-ai";
const PROVIDER: &str = "apiProvider";
const URL: &str = "apiUrl";
const MODEL: &str = "defaultModel";

/// From this length a secret cannot be an ordinary word of a URL or a name.
const SECRET_CHARS_SEARCHED: usize = 8;

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

    fn for_version(&self, config_json: &str, if_supported: &[String], version: &Version) -> String {
        let Ok(mut config) = accept(config_json) else {
            return config_json.to_owned();
        };
        let provider = config.provider;
        let is_left_out = |name: &String| {
            let may_go = if_supported.contains(name);
            let field = provider.field(name);
            may_go && field.is_some_and(|field| !field.is_required && field.since > *version)
        };
        config.fields.retain(|name, _| !is_left_out(name));
        Value::Object(config.fields).to_string()
    }

    fn check_if_supported(
        &self,
        config_json: &str,
        if_supported: &[String],
    ) -> Result<(), InvalidConfig> {
        let config = accept(config_json).map_err(|_| {
            InvalidConfig::new("ifSupported", "cannot be read without a good config")
        })?;
        for (index, name) in if_supported.iter().enumerate() {
            if let Some(problem) = config.must_stay(name) {
                return Err(InvalidConfig::new(format!("ifSupported[{index}]"), problem));
            }
        }
        Ok(())
    }

    fn features(&self) -> Vec<Feature> {
        let of = |provider: &'static Provider| {
            provider.fields.iter().map(|field| Feature {
                provider: provider.name,
                field: field.name,
                is_required: field.is_required,
                since: field.since,
            })
        };
        PROVIDERS.iter().flat_map(of).collect()
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
        probe::params(probe::LIMIT, self.probed_model(config_json))
    }

    fn probe_again(&self, config_json: &str, execution: &Execution) -> Option<Value> {
        let provider = provider_of(config_json);
        let is_any_server = provider.is_some_and(|provider| provider.api == Api::Other);
        probe::refuses_limit(execution, is_any_server)
            .then(|| probe::params(probe::OLD_LIMIT, self.probed_model(config_json)))
    }

    fn read_probe(&self, execution: &Execution) -> ProbeResult {
        probe::read(execution)
    }

    fn destination(&self, config_json: &str) -> Option<Url> {
        let fields = fields::parse(config_json).ok()?;
        endpoint::parse(fields.get(URL)?.as_str()?).ok()
    }

    fn provider(&self, config_json: &str) -> Option<Api> {
        provider_of(config_json).map(|provider| provider.api)
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

impl GenAi {
    /// The model that a probe names. Without one Kibana fills in the connector's own, but not for `Other`.
    fn probed_model(&self, config_json: &str) -> Option<String> {
        let takes_model =
            provider_of(config_json).is_none_or(|provider| provider.api != Api::AzureOpenAi);
        self.model(config_json).filter(|_| takes_model)
    }
}

/// A config that passed every check that needs no version.
struct Config {
    provider: &'static Provider,
    fields: Map<String, Value>,
}

impl Config {
    /// Why a field cannot be left out where a Kibana is too old for it; `None` where it can.
    fn must_stay(&self, name: &str) -> Option<String> {
        let provider = self.provider;
        let Some(field) = provider.field(name) else {
            return Some(format!(
                "is not a field of {TYPE} with the provider {}",
                provider.name
            ));
        };
        if !self.fields.contains_key(name) {
            return Some(format!("names {name}, which the config does not have"));
        }
        if field.is_required {
            return Some(format!("names {name}, without which no connector works"));
        }
        (field.since <= provider.since).then(|| {
            format!(
                "names {name}, which every Kibana with the provider {} has; remove it here",
                provider.name
            )
        })
    }

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
    let provider = Provider::of(&fields)
        .map_err(|problem| vec![InvalidConfig::new(format!("config.{PROVIDER}"), problem)])?;
    let mut invalid = fields::check(provider.fields, &fields);
    for unknown in &mut invalid {
        provider.explain_foreign(unknown);
    }
    invalid.extend(provider.check_endpoint(&fields));
    if invalid.is_empty() {
        Ok(Config { provider, fields })
    } else {
        Err(invalid)
    }
}

fn provider_of(config_json: &str) -> Option<&'static Provider> {
    Provider::of(&fields::parse(config_json).ok()?).ok()
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
