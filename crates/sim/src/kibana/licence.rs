//! Elastic's licences and the connector types that need them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::version::{GEN_AI_DEPRECATED, Since, TYPE_DEPRECATED_FLAG, TYPE_SOURCE, Version};

/// A licence, from the least to the most; a trial allows all that `enterprise` does.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Licence {
    /// Free.
    Basic,
    /// Standard.
    Standard,
    /// Gold.
    Gold,
    /// Platinum.
    Platinum,
    /// What `.gen-ai` needs.
    Enterprise,
    /// Thirty days of everything.
    Trial,
}

impl Licence {
    /// The name in Kibana's answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Standard => "standard",
            Self::Gold => "gold",
            Self::Platinum => "platinum",
            Self::Enterprise => "enterprise",
            Self::Trial => "trial",
        }
    }
}

/// A connector type that the simulator registers.
pub(super) struct ConnectorType {
    pub(super) id: &'static str,
    name: &'static str,
    since: Since,
    pub(super) licence: Licence,
    features: &'static [&'static str],
}

/// The id of the one type that is simulated in full.
pub(super) const GEN_AI: &str = ".gen-ai";

/// `.gen-ai` is simulated in full; the others take any config and exist so that a space can hold foreign connectors.
const TYPES: [ConnectorType; 4] = [
    ConnectorType {
        id: GEN_AI,
        name: "OpenAI",
        since: Since(8, 9),
        licence: Licence::Enterprise,
        features: &[
            "generativeAIForSecurity",
            "generativeAIForObservability",
            "generativeAIForSearchPlayground",
        ],
    },
    ConnectorType {
        id: ".index",
        name: "Index",
        since: Since(8, 0),
        licence: Licence::Basic,
        features: &["alerting", "siem", "uptime"],
    },
    ConnectorType {
        id: ".server-log",
        name: "Server log",
        since: Since(8, 0),
        licence: Licence::Basic,
        features: &["alerting", "uptime"],
    },
    ConnectorType {
        id: ".webhook",
        name: "Webhook",
        since: Since(8, 0),
        licence: Licence::Gold,
        features: &["alerting", "siem", "uptime"],
    },
];

/// The type with this id, when that version has it.
pub(super) fn find(version: Version, id: &str) -> Option<&'static ConnectorType> {
    all(version).find(|kind| kind.id == id)
}

/// Every type of that version.
pub(super) fn all(version: Version) -> impl Iterator<Item = &'static ConnectorType> {
    TYPES.iter().filter(move |kind| version.has(kind.since))
}

impl ConnectorType {
    /// The row of `GET /api/actions/connector_types`.
    pub(super) fn describe(
        &self,
        version: Version,
        licence: Licence,
        enabled_in_config: bool,
    ) -> Value {
        let enabled_in_license = licence >= self.licence;
        let mut row = json!({
            "id": self.id,
            "name": self.name,
            "enabled": enabled_in_config && enabled_in_license,
            "enabled_in_config": enabled_in_config,
            "enabled_in_license": enabled_in_license,
            "minimum_license_required": self.licence.name(),
            "supported_feature_ids": self.features,
            "is_system_action_type": false,
        });
        if version.has(TYPE_DEPRECATED_FLAG) {
            row["is_deprecated"] = Value::from(is_deprecated(version, self.id));
        }
        if version.has(TYPE_SOURCE) {
            row["source"] = Value::from("stack");
        }
        row
    }
}

/// Whether the type is marked as deprecated in that version.
pub(super) fn is_deprecated(version: Version, id: &str) -> bool {
    id == GEN_AI && version.has(GEN_AI_DEPRECATED)
}
