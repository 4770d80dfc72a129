//! A binding: one connector in one space of one deployment, the smallest thing that is applied and proven.

use std::fmt;

use uuid::Uuid;

use crate::failure::FailureClass;
use crate::id::{ConnectorName, DeploymentId, KeyVersion, Revision, SpaceId};

/// Which binding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BindingId {
    /// The Kibana.
    pub deployment: DeploymentId,
    /// The space of it.
    pub space: SpaceId,
    /// The connector.
    pub connector: ConnectorName,
}

impl BindingId {
    /// The id of the connector in Kibana: a lowercase UUIDv5 of deployment, space and connector name.
    ///
    /// It is the one form that every Kibana from 8.8 on accepts as a caller's id (8.8 to 9.3 want a UUID,
    /// 9.4 and later a lowercase slug of at most 36 characters), and it differs per space because ids of
    /// connectors are global in a Kibana while reads are per space.
    pub fn connector_id(&self) -> Uuid {
        let name = format!("{}/{}", self.space, self.connector);
        Uuid::new_v5(&self.deployment.uuid(), name.as_bytes())
    }
}

impl fmt::Display for BindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.deployment, self.space, self.connector)
    }
}

/// What a binding runs or shall run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Assignment {
    /// The revision of the connector.
    pub revision: Revision,
    /// The version of its Key.
    pub key_version: KeyVersion,
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.revision, self.key_version)
    }
}

/// Where a binding stands on its way to proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BindingState {
    /// Not offered yet.
    Waiting,
    /// The desired state names it; the agent has not confirmed.
    Offered,
    /// The agent has it.
    Received,
    /// Kibana holds it: written, read back, equal.
    Applied,
    /// A live call with it succeeded.
    Proven,
    /// It could not be applied or proven.
    Failed,
    /// Kibana differs without our doing.
    Drifted,
    /// An operator accepted that it may break.
    Waived,
    /// Nothing was heard yet.
    Unknown,
}

impl BindingState {
    /// Every state, in the order of progress.
    pub const ALL: [Self; 9] = [
        Self::Waiting,
        Self::Offered,
        Self::Received,
        Self::Applied,
        Self::Proven,
        Self::Failed,
        Self::Drifted,
        Self::Waived,
        Self::Unknown,
    ];

    /// The name in tables, rows and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::Offered => "OFFERED",
            Self::Received => "RECEIVED",
            Self::Applied => "APPLIED",
            Self::Proven => "PROVEN",
            Self::Failed => "FAILED",
            Self::Drifted => "DRIFTED",
            Self::Waived => "WAIVED",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// The state of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

impl fmt::Display for BindingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far a live call came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// Kibana could load the connector and its secrets.
    Loaded,
    /// The provider answered.
    Reached,
    /// It took the key.
    KeyAccepted,
    /// The model answered.
    Answered,
}

impl Rung {
    /// Every rung, from the lowest.
    pub const ALL: [Self; 4] = [
        Self::Loaded,
        Self::Reached,
        Self::KeyAccepted,
        Self::Answered,
    ];

    /// The name in tables and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Reached => "reached",
            Self::KeyAccepted => "key accepted",
            Self::Answered => "answered",
        }
    }

    /// The rung of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rung| rung.as_str() == text)
    }
}

/// A failure with its class and a scrubbed text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which budget it counts against.
    pub class: FailureClass,
    /// What happened, without anything that looks like a key.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(space: &str, connector: &str) -> BindingId {
        BindingId {
            deployment: DeploymentId::new(Uuid::from_u128(7)),
            space: space.parse().unwrap(),
            connector: connector.parse().unwrap(),
        }
    }

    #[test]
    fn connector_ids_are_stable_lowercase_and_distinct_per_space() {
        let id = binding("default", "assistant").connector_id();
        assert_eq!(id, binding("default", "assistant").connector_id());
        assert_ne!(id, binding("soc", "assistant").connector_id());
        assert_ne!(id, binding("default", "other").connector_id());
        let text = id.as_hyphenated().to_string();
        assert_eq!(text.len(), 36);
        assert_eq!(text, text.to_lowercase());
    }

    #[test]
    fn every_state_has_one_name() {
        for state in BindingState::ALL {
            assert_eq!(BindingState::parse(state.as_str()), Some(state));
        }
    }
}
