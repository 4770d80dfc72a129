//! What all drivers share: a connector type is a [`Schema`], which is tables and a few functions; here it becomes a
//! [`Driver`].

mod config;

use std::fmt;

use keyfleet_core::connector::{Probe, Provider as Api};
use serde_json::{Map, Value};
use url::Url;

use self::config::{accept, variant_of};
use super::endpoint;
use super::fields::{self, Field};
use super::secrets::{self, KeyForm};
use super::{
    Difference, Driver, Feature, InvalidConfig, KeyValue, ProbeResult, SecretPart, Surface,
    check_display_name, probe,
};
use crate::api::{Execution, Observed};
use crate::version::Version;
use crate::write::{Secrets, Write};

/// What Kibana calls the URL and the model in its own LLM types.
pub(super) const URL: &str = "apiUrl";
pub(super) const MODEL: &str = "defaultModel";

/// One strict schema of a connector type: a value of the field that selects it, or the only one.
#[derive(Debug)]
pub(super) struct Variant {
    /// The value that selects it; empty where it is the only one.
    pub(super) name: &'static str,
    pub(super) since: Version,
    pub(super) fields: &'static [Field],
    /// What a key for it may be, the usual form first.
    pub(super) keys: &'static [KeyForm],
    /// Whose API it is, where others can prove its key.
    pub(super) api: Option<Api>,
}

impl Variant {
    pub(super) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// A connector type. `fields` is a config that may be good or bad, where nothing else is said.
pub(super) trait Schema: fmt::Debug + Send + Sync + 'static {
    /// Kibana's id of the type.
    fn connector_type(&self) -> &'static str;
    /// The first Kibana that has it.
    fn since(&self) -> Version;
    /// The field whose value selects the variant.
    fn selector(&self) -> Option<&'static str> {
        None
    }
    fn variants(&self) -> &'static [Variant];
    /// What the tables cannot say, mostly about URLs. `fields` may be bad, and what the tables refuse is refused already.
    fn check_more(&self, variant: &Variant, fields: &Map<String, Value>) -> Vec<InvalidConfig>;
    /// The field of `secrets` that all parts of the key are inside of.
    fn secrets_within(&self) -> Option<&'static str> {
        None
    }
    /// Whether people see the name of the definition.
    fn has_display_name(&self) -> bool {
        true
    }
    /// See [`Driver::surface`].
    fn surface(&self, _fields: &Map<String, Value>) -> Surface {
        Surface::Kibana
    }
    /// See [`Driver::endpoint`].
    fn endpoint(&self, _fields: &Map<String, Value>) -> Option<String> {
        None
    }
    /// See [`Driver::check_update`]; `differences` are those of the config.
    fn check_update(&self, _differences: &[Difference]) -> Result<(), InvalidConfig> {
        Ok(())
    }
    /// See [`Driver::destination`].
    fn destination(&self, fields: &Map<String, Value>) -> Option<Url> {
        endpoint::parse(text(fields, URL)?).ok()
    }
    /// See [`Driver::model`].
    fn model(&self, fields: &Map<String, Value>) -> Option<String> {
        text(fields, MODEL).map(str::to_owned)
    }
    /// See [`Driver::probe`].
    fn call(&self, fields: &Map<String, Value>, probe: &Probe) -> Value;
    /// See [`Driver::probe_again`].
    fn call_again(
        &self,
        _fields: &Map<String, Value>,
        _probe: &Probe,
        _execution: &Execution,
    ) -> Option<Value> {
        None
    }
    /// What of a call this type cannot send, beside what no type can.
    fn check_call(&self, fields: &Map<String, Value>, probe: &Probe) -> Vec<InvalidConfig>;
    /// See [`Driver::read_probe`].
    fn read(&self, execution: &Execution) -> ProbeResult;
}

impl<S: Schema> Driver for S {
    fn connector_type(&self) -> &'static str {
        Schema::connector_type(self)
    }

    fn check(&self, config_json: &str) -> Result<(), Vec<InvalidConfig>> {
        accept(self, config_json).map(|_| ())
    }

    fn check_version(
        &self,
        config_json: &str,
        version: &Version,
    ) -> Result<(), Vec<InvalidConfig>> {
        let config = accept(self, config_json)?;
        none_of(config.too_new_for(self, version))
    }

    fn for_version(&self, config_json: &str, if_supported: &[String], version: &Version) -> String {
        let Ok(mut config) = accept(self, config_json) else {
            return config_json.to_owned();
        };
        let variant = config.variant;
        let is_left_out = |name: &String| {
            let may_go = if_supported.contains(name);
            let field = variant.field(name);
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
        let config = accept(self, config_json).map_err(|_| {
            InvalidConfig::new("ifSupported", "cannot be read without a good config")
        })?;
        for (index, name) in if_supported.iter().enumerate() {
            if let Some(problem) = config.must_stay(self, name) {
                return Err(InvalidConfig::new(format!("ifSupported[{index}]"), problem));
            }
        }
        Ok(())
    }

    fn features(&self) -> Vec<Feature> {
        self.variants().iter().flat_map(features_of).collect()
    }

    fn canonical(&self, config_json: &str) -> Result<String, Vec<InvalidConfig>> {
        accept(self, config_json).map(|config| Value::Object(config.fields).to_string())
    }

    fn render(
        &self,
        config_json: &str,
        display_name: &str,
        secret: &KeyValue<'_>,
        version: &Version,
    ) -> Result<Write, Vec<InvalidConfig>> {
        let config = accept(self, config_json)?;
        let name = display_name.trim();
        let mut invalid = config.too_new_for(self, version);
        invalid.extend(check_display_name(name).err());
        let parts = secrets::take(config.variant.keys, secret, version).and_then(|parts| {
            secrets::check_places(&parts, name, &config.fields)?;
            Ok(parts)
        });
        match parts {
            Ok(parts) if invalid.is_empty() => Ok(Write {
                connector_type_id: Schema::connector_type(self),
                name: name.to_owned(),
                config: config.fields,
                secrets: Secrets {
                    within: self.secrets_within(),
                    parts,
                },
            }),
            Ok(_) => Err(invalid),
            Err(problems) => {
                invalid.extend(problems);
                Err(invalid)
            }
        }
    }

    fn differences(
        &self,
        config_json: &str,
        display_name: &str,
        observed: &Observed,
    ) -> Vec<Difference> {
        let Ok(config) = accept(self, config_json) else {
            return vec![difference(
                "config",
                "a valid definition",
                "a definition that this agent cannot read",
            )];
        };
        let (kind, name) = (Schema::connector_type(self), display_name.trim());
        let mut differences = Vec::new();
        if observed.connector_type_id != kind {
            differences.push(difference("type", kind, &observed.connector_type_id));
        }
        if self.has_display_name() && observed.name != name {
            differences.push(difference("displayName", name, &observed.name));
        }
        differences.extend(config.differences(observed));
        if observed.is_missing_secrets {
            differences.push(difference("secrets", "present", "missing"));
        }
        differences
    }

    fn check_update(&self, config_json: &str, observed: &Observed) -> Result<(), InvalidConfig> {
        let Ok(config) = accept(self, config_json) else {
            return Ok(());
        };
        Schema::check_update(self, &config.differences(observed))
    }

    fn probe(&self, config_json: &str, probe: &Probe) -> Value {
        self.call(&fields_of(config_json), probe)
    }

    fn probe_again(
        &self,
        config_json: &str,
        probe: &Probe,
        execution: &Execution,
    ) -> Option<Value> {
        self.call_again(&fields_of(config_json), probe, execution)
    }

    fn check_probe(&self, config_json: &str, probe: &Probe) -> Result<(), Vec<InvalidConfig>> {
        let mut invalid = probe::check(probe);
        if invalid.is_empty() {
            invalid = self.check_call(&fields_of(config_json), probe);
        }
        none_of(invalid)
    }

    fn secret_parts(&self, config_json: &str) -> Vec<SecretPart> {
        variant_of(self, &fields_of(config_json))
            .map_or_else(|_| Vec::new(), |variant| secrets::parts(variant.keys))
    }

    fn check_secret_parts(
        &self,
        config_json: &str,
        parts: &[String],
        version: Option<&Version>,
    ) -> Result<(), InvalidConfig> {
        let Ok(variant) = variant_of(self, &fields_of(config_json)) else {
            return Ok(());
        };
        secrets::form_of(variant.keys, parts, version).map(|_| ())
    }

    fn surface(&self, config_json: &str) -> Surface {
        Schema::surface(self, &fields_of(config_json))
    }

    fn endpoint(&self, config_json: &str) -> Option<String> {
        Schema::endpoint(self, &fields_of(config_json))
    }

    fn read_probe(&self, execution: &Execution) -> ProbeResult {
        self.read(execution)
    }

    fn destination(&self, config_json: &str) -> Option<Url> {
        Schema::destination(self, &fields_of(config_json))
    }

    fn provider(&self, config_json: &str) -> Option<Api> {
        variant_of(self, &fields_of(config_json)).ok()?.api
    }

    fn model(&self, config_json: &str) -> Option<String> {
        Schema::model(self, &fields_of(config_json))
    }
}

/// A text of a config that is not blank.
pub(super) fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields.get(name)?.as_str().filter(|text| !text.is_empty())
}

fn none_of(invalid: Vec<InvalidConfig>) -> Result<(), Vec<InvalidConfig>> {
    if invalid.is_empty() {
        Ok(())
    } else {
        Err(invalid)
    }
}

fn fields_of(config_json: &str) -> Map<String, Value> {
    fields::parse(config_json).unwrap_or_default()
}

fn features_of(variant: &'static Variant) -> Vec<Feature> {
    let mut features = Vec::new();
    for field in variant.fields {
        let of = |name: String, field: &Field, is_required: bool| Feature {
            provider: variant.name,
            name,
            is_secret: false,
            is_required,
            since: field.since,
        };
        features.push(of(field.name.to_owned(), field, field.is_required));
        for (value, since) in field.newer_values() {
            let name = format!("{}: {value}", field.name);
            features.push(Feature {
                since,
                ..of(name, field, false)
            });
        }
        for inner in field.inner() {
            let is_required = field.is_required && inner.is_required;
            let name = format!("{}.{}", field.name, inner.name);
            features.push(of(name, inner, is_required));
        }
    }
    for (part, since) in secrets::parts_since(variant.keys) {
        features.push(Feature {
            provider: variant.name,
            name: part.name.to_owned(),
            is_secret: true,
            is_required: part.is_required,
            since: since.max(variant.since),
        });
    }
    features
}

pub(super) fn difference(field: &str, want: &str, have: &str) -> Difference {
    Difference {
        field: field.to_owned(),
        want: want.to_owned(),
        have: have.to_owned(),
    }
}
