//! A config held to the tables of its type.

use serde_json::{Map, Value};

use super::{Schema, Variant, none_of};
use crate::api::Observed;
use crate::driver::{Difference, InvalidConfig, fields};
use crate::version::Version;

/// A config that passed every check that needs no version.
pub(super) struct Config {
    pub(super) variant: &'static Variant,
    pub(super) fields: Map<String, Value>,
}

impl Config {
    /// Why a field cannot be left out where a Kibana is too old for it; `None` where it can.
    pub(super) fn must_stay(&self, schema: &impl Schema, name: &str) -> Option<String> {
        let variant = self.variant;
        let with = match variant.name {
            "" => String::new(),
            name => format!(" with the provider {name}"),
        };
        let Some(field) = variant.field(name) else {
            let kind = Schema::connector_type(schema);
            return Some(format!("is not a field of {kind}{with}"));
        };
        if !self.fields.contains_key(name) {
            return Some(format!("names {name}, which the config does not have"));
        }
        if field.is_required {
            return Some(format!("names {name}, without which no connector works"));
        }
        (field.since <= variant.since)
            .then(|| format!("names {name}, which every Kibana{with} has; remove it here"))
    }

    pub(super) fn too_new_for(
        &self,
        schema: &impl Schema,
        version: &Version,
    ) -> Vec<InvalidConfig> {
        let too_old = |path: String, since: Version| {
            vec![InvalidConfig::new(path, fields::needs(since, version))]
        };
        if *version < schema.since() {
            return too_old("type".to_owned(), schema.since());
        }
        if *version < self.variant.since {
            let selector = schema.selector().unwrap_or("type");
            return too_old(format!("config.{selector}"), self.variant.since);
        }
        fields::check_version("config", self.variant.fields, &self.fields, version)
    }

    pub(super) fn differences(&self, observed: &Observed) -> Vec<Difference> {
        fields::differences(
            "config",
            self.variant.fields,
            &self.fields,
            &observed.config,
        )
    }
}

/// Reads a config and checks all that needs no version.
pub(super) fn accept(
    schema: &impl Schema,
    config_json: &str,
) -> Result<Config, Vec<InvalidConfig>> {
    let fields = fields::parse(config_json)?;
    let variant = variant_of(schema, &fields).map_err(|problem| vec![problem])?;
    let mut invalid = fields::check("config", variant.fields, &fields);
    for unknown in &mut invalid {
        explain_foreign(schema, variant, unknown);
    }
    invalid.extend(schema.check_more(variant, &fields));
    none_of(invalid).map(|()| Config { variant, fields })
}

/// The variant that a config names.
pub(super) fn variant_of(
    schema: &impl Schema,
    fields: &Map<String, Value>,
) -> Result<&'static Variant, InvalidConfig> {
    let variants = schema.variants();
    let problem = match schema.selector() {
        None => match variants.first() {
            Some(only) => return Ok(only),
            None => "has no variant".to_owned(),
        },
        Some(selector) => {
            let names: Vec<_> = variants.iter().map(|variant| variant.name).collect();
            let names = names.join(" or ");
            let Some(value) = fields.get(selector) else {
                let problem = format!("is missing; write {names}");
                return Err(InvalidConfig::new(format!("config.{selector}"), problem));
            };
            let is_named = |variant: &&Variant| value.as_str() == Some(variant.name);
            match variants.iter().find(is_named) {
                Some(named) => return Ok(named),
                None => format!("is not a provider that Keyfleet knows; write {names}"),
            }
        }
    };
    let selector = schema.selector().unwrap_or("type");
    Err(InvalidConfig::new(format!("config.{selector}"), problem))
}

/// A field of another variant gets a better sentence than an unknown one.
fn explain_foreign(schema: &impl Schema, variant: &Variant, unknown: &mut InvalidConfig) {
    let Some(name) = unknown.field.strip_prefix("config.") else {
        return;
    };
    let name = name.split('.').next().unwrap_or_default();
    if variant.field(name).is_some() {
        return;
    }
    let mut variants = schema.variants().iter();
    if let Some(owner) = variants.find(|other| other.field(name).is_some()) {
        unknown.problem = format!(
            "belongs to the provider {}, not to {}; remove it",
            owner.name, variant.name
        );
    }
}
