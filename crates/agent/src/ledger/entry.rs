//! What the ledger knows of one binding, and how it is written.

use jiff::Timestamp;
use keyfleet_core::binding::{Assignment, Failure};
use keyfleet_core::id::{KeyVersion, Revision};
use serde::{Deserialize, Serialize};

use crate::wish::Goal;

/// What was done to one binding.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Entry {
    /// A write that was begun and whose outcome is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) intent: Option<Intent>,
    /// The last write that Kibana answered with success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) applied: Option<Applied>,
    /// Kibana differed without our doing; what it holds now is not ours until we write again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) drift: Option<Drift>,
    /// Why this goal was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<GivenUp>,
}

/// A write that was begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Intent {
    pub(crate) goal: Goal,
    /// What the connector did before the change.
    pub(crate) baseline_ok: Option<bool>,
    /// How often this goal was written, this time included.
    pub(crate) n_writes: u32,
}

/// A write that succeeded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Applied {
    pub(crate) goal: Goal,
    /// Control's name for the key's value.
    pub(crate) fingerprint: String,
    pub(crate) baseline_ok: Option<bool>,
    pub(crate) n_writes: u32,
    /// A read after the write was equal.
    pub(crate) agreed: bool,
    /// When the live call behind the proof began.
    #[serde(with = "point_in_time", default)]
    pub(crate) proven_at: Option<Timestamp>,
    /// It was proven once, even if that proof is void by now.
    #[serde(default)]
    pub(crate) ever_proven: bool,
}

/// A difference that was not our doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Drift {
    /// The try that was under way; a later one is an operator's or a rollout's word to write again.
    pub(crate) attempt: u32,
    /// Which fields, for people.
    pub(crate) text: String,
}

/// A goal that only a new try can take up again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct GivenUp {
    pub(crate) goal: Goal,
    #[serde(with = "class")]
    pub(crate) class: keyfleet_core::failure::FailureClass,
    pub(crate) text: String,
}

impl GivenUp {
    pub(crate) fn failure(&self) -> Failure {
        Failure {
            class: self.class,
            text: self.text.clone(),
        }
    }
}

impl Entry {
    /// What Kibana runs of ours, as far as we know.
    pub(crate) fn running(&self) -> Option<Assignment> {
        self.applied.as_ref().map(|applied| applied.goal.assignment)
    }

    /// True where this very try was proven once, even if that proof is void by now.
    pub(crate) fn ever_proven(&self, goal: Goal) -> bool {
        self.applied
            .as_ref()
            .is_some_and(|applied| applied.goal == goal && applied.ever_proven)
    }

    /// True where this goal is proven and nothing has happened since.
    pub(crate) fn is_proven(&self, goal: Goal) -> bool {
        let proven = |applied: &Applied| {
            applied.goal == goal && applied.agreed && applied.proven_at.is_some()
        };
        self.intent.is_none()
            && self.drift.is_none()
            && self.failure.is_none()
            && self.applied.as_ref().is_some_and(proven)
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct GoalRow {
    revision: u64,
    key_version: u64,
    attempt: u32,
}

impl From<GoalRow> for Goal {
    fn from(row: GoalRow) -> Self {
        let assignment = Assignment {
            revision: Revision(row.revision),
            key_version: KeyVersion(row.key_version),
        };
        Self {
            assignment,
            attempt: row.attempt,
        }
    }
}

impl From<Goal> for GoalRow {
    fn from(goal: Goal) -> Self {
        let Assignment {
            revision,
            key_version,
        } = goal.assignment;
        Self {
            revision: revision.0,
            key_version: key_version.0,
            attempt: goal.attempt,
        }
    }
}

mod point_in_time {
    use super::*;
    use serde::{Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        at: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        at.map(|at| at.to_string()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| {
            text.parse()
                .map_err(|_| D::Error::custom("not a point in time"))
        })
        .transpose()
    }
}

mod class {
    use super::*;
    use keyfleet_core::failure::FailureClass;
    use serde::{Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        class: &FailureClass,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        class.as_str().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<FailureClass, D::Error> {
        let text = String::deserialize(deserializer)?;
        FailureClass::parse(&text).ok_or_else(|| D::Error::custom("not a failure class"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use keyfleet_core::failure::FailureClass;

    fn goal() -> Goal {
        let assignment = Assignment {
            revision: Revision(2),
            key_version: KeyVersion(3),
        };
        Goal {
            assignment,
            attempt: 1,
        }
    }

    pub(in super::super) fn full() -> Entry {
        Entry {
            intent: Some(Intent {
                goal: goal(),
                baseline_ok: Some(true),
                n_writes: 1,
            }),
            applied: Some(Applied {
                goal: goal(),
                fingerprint: "0123456789abcdef".to_owned(),
                baseline_ok: None,
                n_writes: 1,
                agreed: true,
                proven_at: Some("2026-11-23T12:00:00.5Z".parse().unwrap()),
                ever_proven: true,
            }),
            drift: Some(Drift {
                attempt: 1,
                text: "name is a, should be b".to_owned(),
            }),
            failure: Some(GivenUp {
                goal: goal(),
                class: FailureClass::Auth,
                text: "no".to_owned(),
            }),
        }
    }

    #[test]
    fn proven_means_this_goal_and_nothing_since() {
        let clean = Entry {
            intent: None,
            drift: None,
            failure: None,
            ..full()
        };
        assert!(clean.is_proven(goal()));
        assert!(!clean.is_proven(Goal {
            attempt: 2,
            ..goal()
        }));
        assert!(!full().is_proven(goal()));
    }
}
