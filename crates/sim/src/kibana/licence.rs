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
    pub(super) name: &'static str,
    since: Since,
    pub(super) licence: Licence,
    features: &'static [&'static str],
}

/// The types that are simulated in full.
pub(super) const GEN_AI: &str = ".gen-ai";
pub(super) const BEDROCK: &str = ".bedrock";
pub(super) const GEMINI: &str = ".gemini";
pub(super) const INFERENCE: &str = ".inference";

/// The features that a language model serves.
const AI: &[&str] = &[
    "generativeAIForSecurity",
    "generativeAIForObservability",
    "generativeAIForSearchPlayground",
];

/// Four are simulated in full; the others take any config and exist so that a space can hold foreign connectors.
/// Sources of the first releases: kibana#166662, #183668, #189027.
const TYPES: [ConnectorType; 7] = [
    ConnectorType {
        id: GEN_AI,
        name: "OpenAI",
        since: Since(8, 9),
        licence: Licence::Enterprise,
        features: AI,
    },
    ConnectorType {
        id: BEDROCK,
        name: "Amazon Bedrock",
        since: Since(8, 11),
        licence: Licence::Enterprise,
        features: AI,
    },
    ConnectorType {
        id: GEMINI,
        name: "Google Gemini",
        since: Since(8, 15),
        licence: Licence::Enterprise,
        features: AI,
    },
    ConnectorType {
        id: INFERENCE,
        name: "AI Connector",
        since: Since(8, 16),
        licence: Licence::Enterprise,
        features: AI,
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
        enabled_in_license: bool,
        enabled_in_config: bool,
    ) -> Value {
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
    [GEN_AI, BEDROCK, GEMINI, INFERENCE].contains(&id) && version.has(GEN_AI_DEPRECATED)
}
