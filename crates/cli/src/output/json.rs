//! Messages as canonical protobuf JSON, and the same value as YAML.

use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde::Serialize;
use serde_json::Value;

use crate::cli::Format;
use crate::error::Error;

/// The contract, read once.
static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(keyfleet_proto::DESCRIPTORS).ok());

/// A message as canonical protobuf JSON, its fields in the order of the alphabet: maps have no order of their own, and
/// the same answer must always be the same text.
///
/// Fields that hold their default are written too, so that a script finds `false` and `0` where it looks for them.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Canonical(Value);

impl Canonical {
    /// Wraps a message.
    ///
    /// # Errors
    /// Where the message is not part of the contract.
    pub(crate) fn new<M: Message + Name>(message: &M) -> Result<Self, Error> {
        let name = M::full_name();
        let problem = |problem: &str| Error::Format {
            format: "json",
            problem: format!("{name}: {problem}"),
        };
        let pool = POOL
            .as_ref()
            .ok_or_else(|| problem("the contract cannot be read"))?;
        let descriptor = pool
            .get_message_by_name(&name)
            .ok_or_else(|| problem("not in the contract"))?;
        let mut dynamic = DynamicMessage::new(descriptor);
        dynamic
            .transcode_from(message)
            .map_err(|err| problem(&err.to_string()))?;
        let options = SerializeOptions::new().skip_default_fields(false);
        let mut value = dynamic
            .serialize_with_options(serde_json::value::Serializer, &options)
            .map_err(|err| problem(&err.to_string()))?;
        value.sort_all_objects();
        Ok(Self(value))
    }
}

/// A whole document.
///
/// # Errors
/// Where the value cannot be written so.
pub(super) fn format(format: Format, value: &impl Serialize) -> Result<String, Error> {
    match format {
        Format::Yaml => yaml(value),
        Format::Json | Format::Table | Format::Wide => {
            serde_json::to_string_pretty(value).map_err(|err| json_err(&err))
        }
    }
}

/// One value of a stream: a line of JSON, or a YAML document with its marker.
///
/// # Errors
/// Where the value cannot be written so.
pub(super) fn format_item(format: Format, value: &impl Serialize) -> Result<String, Error> {
    match format {
        Format::Yaml => Ok(format!("---\n{}", yaml(value)?)),
        Format::Json | Format::Table | Format::Wide => {
            serde_json::to_string(value).map_err(|err| json_err(&err))
        }
    }
}

fn json_err(err: &serde_json::Error) -> Error {
    Error::Format {
        format: "json",
        problem: err.to_string(),
    }
}

fn yaml(value: &impl Serialize) -> Result<String, Error> {
    serde_saphyr::to_string(value).map_err(|err| Error::Format {
        format: "yaml",
        problem: err.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyfleet_proto::v1;

    #[test]
    fn a_message_is_canonical_in_both_formats() {
        let message = v1::GetStatusResponse {
            deployments: 2,
            bindings: vec![v1::StateCount {
                state: v1::BindingState::Proven.into(),
                count: 2,
            }],
            problems: vec!["yes: no".to_owned()],
            ..v1::GetStatusResponse::default()
        };
        let canonical = Canonical::new(&message).unwrap();
        let json: serde_json::Value =
            serde_json::from_str(&format(Format::Json, &canonical).unwrap()).unwrap();
        assert_eq!(json["bindings"][0]["state"], "BINDING_STATE_PROVEN");
        assert_eq!(json["deploymentsConnected"], 0, "defaults are written too");
        assert_eq!(json["andon"], false);
        let yaml = format(Format::Yaml, &canonical).unwrap();
        assert!(yaml.contains("\ndeployments: 2\n"), "{yaml}");
        assert_eq!(
            serde_saphyr::from_str::<serde_json::Value>(&yaml).unwrap(),
            json,
            "{yaml}"
        );
        assert!(
            format_item(Format::Yaml, &canonical)
                .unwrap()
                .starts_with("---\n")
        );
        assert_eq!(
            format_item(Format::Json, &canonical)
                .unwrap()
                .lines()
                .count(),
            1
        );
    }
}
