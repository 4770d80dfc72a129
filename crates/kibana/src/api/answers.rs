//! Kibana's answers as they come over the wire. Unknown fields are ignored; missing and `null` ones are let pass
//! where an older Kibana does not have them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{Execution, Space, Status};
use crate::client::Call;
use crate::error::Error;
use crate::text::word;

/// The plugins without which no connector works; the whole can be `available` without them.
const PLUGINS: [&str; 5] = [
    "actions",
    "stackConnectors",
    "encryptedSavedObjects",
    "licensing",
    "spaces",
];
/// The feature that a space may switch off: "Actions and Connectors".
const ACTIONS_FEATURE: &str = "actions";

#[derive(Deserialize)]
pub(super) struct StatusBody {
    #[serde(default)]
    name: String,
    #[serde(default)]
    uuid: String,
    pub(super) version: Option<VersionBody>,
    status: Option<LevelsBody>,
}

#[derive(Deserialize)]
pub(super) struct VersionBody {
    number: String,
    build_flavor: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct LevelsBody {
    overall: LevelBody,
    #[serde(default)]
    plugins: BTreeMap<String, LevelBody>,
}

#[derive(Deserialize)]
pub(super) struct LevelBody {
    #[serde(default)]
    level: String,
}

#[derive(Deserialize)]
pub(super) struct SpaceBody {
    id: String,
    #[serde(default, rename = "disabledFeatures", deserialize_with = "or_default")]
    disabled_features: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct HealthBody {
    pub(super) has_permanent_encryption_key: Option<bool>,
}

#[derive(Deserialize)]
pub(super) struct ExecutionBody {
    status: String,
    #[serde(default, deserialize_with = "or_default")]
    message: String,
    #[serde(default, deserialize_with = "or_default")]
    service_message: String,
}

impl StatusBody {
    pub(super) fn read(self, call: Call, status: u16) -> Result<Status, Error> {
        let Some(version) = self.version else {
            return Err(Error::Redacted { call });
        };
        let release = version.number.parse();
        let release = release.map_err(|error| Error::Unexpected {
            call,
            problem: format!("{error}"),
        })?;
        let usable = |level: &LevelBody| matches!(level.level.as_str(), "available" | "degraded");
        let levels_usable = self.status.is_some_and(|levels| {
            let plugins = PLUGINS
                .iter()
                .filter_map(|plugin| levels.plugins.get(*plugin));
            usable(&levels.overall) && plugins.into_iter().all(usable)
        });
        Ok(Status {
            version: release,
            uuid: word(&self.uuid),
            name: word(&self.name),
            flavor: word(version.build_flavor.as_deref().unwrap_or("traditional")),
            available: status == 200 && levels_usable,
        })
    }
}

impl SpaceBody {
    pub(super) fn read(self) -> Option<Space> {
        let actions_enabled = !self
            .disabled_features
            .iter()
            .any(|feature| feature == ACTIONS_FEATURE);
        Some(Space {
            id: self.id.parse().ok()?,
            actions_enabled,
        })
    }
}

impl ExecutionBody {
    pub(super) fn read(self) -> Execution {
        let message = if self.service_message.is_empty() {
            self.message
        } else {
            self.service_message
        };
        Execution {
            ok: self.status == "ok",
            status_code: status_code(&message),
            message,
        }
    }
}

/// The number in `Status code: 401. Message: …`, the form of every provider error in `service_message`.
fn status_code(message: &str) -> Option<u16> {
    let (_, rest) = message.split_once("Status code: ")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest.get(..digits)?.parse().ok()
}

/// Kibana writes `null` for some fields that it does not have.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A number that no decision but one about removal needs: an odd one must not spoil a whole list.
pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(value.as_u64().map(|n| u32::try_from(n).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_provider_status_is_read_where_there_is_one() {
        for (message, status) in [
            (
                "Status code: 401. Message: Unauthorized API Error - Incorrect API key",
                Some(401),
            ),
            (
                "Status code: undefined. Message: Unexpected API Error: ECONNREFUSED",
                None,
            ),
            ("Status code: 99999999. Message: x", None),
            ("Status code: ", None),
            ("Sub action \"x\" is not registered.", None),
            ("", None),
        ] {
            assert_eq!(status_code(message), status, "{message}");
        }
    }

    #[test]
    fn debug_of_an_execution_hides_the_text_that_may_repeat_a_key() {
        let execution = Execution {
            ok: false,
            status_code: Some(401),
            message: "kk-canary".to_owned(),
        };
        assert!(!format!("{execution:?}").contains("canary"));
    }
}
