//! What the ledger knows of one binding, and how it is written.

use std::time::Duration;

use jiff::Timestamp;
use keyfleet_core::binding::{Assignment, Failure, Rung};
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::{KeyVersion, Revision};
use keyfleet_kibana::Version;
use serde::{Deserialize, Serialize};

use crate::wish::Goal;

mod texts;

/// Corrections older than this say nothing about a fight that goes on now.
const FIGHT_WINDOW: Duration = Duration::from_secs(3600);
/// After so many corrections within [`FIGHT_WINDOW`] the next difference is not corrected any more.
const CORRECTIONS_MAX: usize = 3;

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
    /// When what another writer had changed was written again; begins anew with each goal.
    #[serde(with = "texts::several", skip_serializing_if = "Vec::is_empty")]
    pub(crate) corrections: Vec<Timestamp>,
    /// The id of a connector that was there before us and that we began to write: only then may we remove it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) adopted: Option<String>,
    /// It is an inference endpoint of this task. A removal does not say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) task: Option<String>,
    /// A removal was begun: if the connector is gone, that was us.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) removing: bool,
    /// Rules and others that refer to the connector, as last seen.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) references: u32,
}

/// A write that was begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Intent {
    pub(crate) goal: Goal,
    /// What the connector did before the change.
    pub(crate) baseline_ok: Option<bool>,
    /// How often this goal was written, this time included.
    pub(crate) n_writes: u32,
    /// An earlier write may have been carried out too: a refusal of this one does not tell what Kibana holds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) unsure: bool,
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
    #[serde(with = "texts::one", default)]
    pub(crate) proven_at: Option<Timestamp>,
    /// It was proven once, even if that proof is void by now.
    #[serde(default)]
    pub(crate) ever_proven: bool,
    /// The Kibana that it was rendered for, or proven on since.
    #[serde(with = "texts::one", default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<Version>,
    /// How far the last live call came.
    #[serde(with = "texts::rung", default, skip_serializing_if = "Option::is_none")]
    pub(crate) rung: Option<Rung>,
    /// What is worth knowing about the proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    /// It was written once more because Kibana could not read its secrets, and not proven since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) repaired: bool,
}

/// A difference that was not our doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Drift {
    /// The try that was under way; a later one is an operator's or a rollout's word to write again.
    pub(crate) attempt: u32,
    /// Which fields, for people.
    pub(crate) text: String,
    #[serde(with = "texts::class", default = "conflict")]
    pub(crate) class: FailureClass,
    /// Another writer undoes every correction: only a new try writes again, whatever the policy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_fight: bool,
}

/// A goal that only a new try can take up again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct GivenUp {
    pub(crate) goal: Goal,
    #[serde(with = "texts::class")]
    pub(crate) class: FailureClass,
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

impl Drift {
    pub(crate) fn failure(&self) -> Failure {
        Failure {
            class: self.class,
            text: self.text.clone(),
        }
    }
}

impl Entry {
    /// True where so much was corrected lately that one more correction would only go on with a fight.
    pub(crate) fn is_fought_over(&self, now: Timestamp) -> bool {
        self.corrected_lately(now).count() >= CORRECTIONS_MAX
    }

    /// A write to this connector is about to begin. What was written to another one says nothing of it.
    pub(crate) fn turn_to(&mut self, adopted: Option<&str>) {
        if self.adopted.as_deref() != adopted {
            *self = Self {
                adopted: adopted.map(str::to_owned),
                references: self.references,
                ..Self::default()
            };
        }
    }

    /// Kibana refused the write that was begun: nothing came of it.
    pub(crate) fn refused(&mut self) {
        self.intent.take_if(|intent| !intent.unsure);
    }

    /// A write succeeded: what was begun, what differed and what was given up is over.
    pub(crate) fn wrote(&mut self, applied: Applied, now: Timestamp) {
        let before = self.applied.as_ref().map(|before| before.goal);
        let mut corrections = Vec::new();
        if before == Some(applied.goal) {
            let others = |drift: &&Drift| drift.class == FailureClass::Conflict;
            let corrected = self.drift.as_ref().filter(others).map(|_| now);
            corrections.extend(self.corrected_lately(now).chain(corrected));
        }
        (self.intent, self.drift, self.failure) = (None, None, None);
        self.removing = false;
        (self.applied, self.corrections) = (Some(applied), corrections);
    }

    fn corrected_lately(&self, now: Timestamp) -> impl Iterator<Item = Timestamp> {
        // A clock that was set back makes a time of the future, which is no reason to forget it.
        let is_late = move |at: &Timestamp| {
            Duration::try_from(now.duration_since(*at)).unwrap_or_default() < FIGHT_WINDOW
        };
        self.corrections.iter().copied().filter(is_late)
    }

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

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// What every difference was before the ledger said more.
fn conflict() -> FailureClass {
    FailureClass::Conflict
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

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
                unsure: true,
            }),
            applied: Some(Applied {
                goal: goal(),
                fingerprint: "0123456789abcdef".to_owned(),
                baseline_ok: None,
                n_writes: 1,
                agreed: true,
                proven_at: Some("2026-11-23T12:00:00.5Z".parse().unwrap()),
                ever_proven: true,
                version: Some(Version::new(9, 4, 0)),
                rung: Some(Rung::KeyAccepted),
                note: Some("a note".to_owned()),
                repaired: true,
            }),
            drift: Some(Drift {
                attempt: 1,
                text: "name is a, should be b".to_owned(),
                class: FailureClass::Encryption,
                is_fight: true,
            }),
            failure: Some(GivenUp {
                goal: goal(),
                class: FailureClass::Auth,
                text: "no".to_owned(),
            }),
            corrections: vec!["2026-11-23T12:00:00Z".parse().unwrap()],
            adopted: Some("old-one".to_owned()),
            task: Some("completion".to_owned()),
            removing: true,
            references: 3,
        }
    }

    fn at(minutes: u32) -> Timestamp {
        format!("2026-11-23T12:{minutes:02}:00Z").parse().unwrap()
    }

    fn drifted(attempt: u32) -> Option<Drift> {
        Some(Drift {
            attempt,
            text: "name".to_owned(),
            class: FailureClass::Conflict,
            is_fight: false,
        })
    }

    #[test]
    fn the_fourth_difference_within_an_hour_is_a_fight() {
        let mut entry = full();
        entry.corrections.clear();
        let applied = entry.applied.clone().unwrap();
        for minutes in [0, 10, 20] {
            assert!(!entry.is_fought_over(at(minutes)));
            entry.drift = drifted(1);
            entry.wrote(applied.clone(), at(minutes));
        }
        assert!(entry.is_fought_over(at(59)));
        let next_day = "2026-11-24T12:00:00Z".parse().unwrap();
        assert!(!entry.is_fought_over(next_day), "it is over");
        // What an operator or a rollout asked for is no correction, and a new beginning.
        entry.drift = drifted(1);
        let retried = Goal {
            attempt: 2,
            ..goal()
        };
        entry.wrote(
            Applied {
                goal: retried,
                ..applied
            },
            at(30),
        );
        assert_eq!(entry.corrections, []);
    }

    #[test]
    fn a_ledger_of_an_older_agent_is_read() {
        let old = r#"{
            "applied": {"goal": {"revision": 2, "key_version": 3, "attempt": 1}, "fingerprint": "f", "baseline_ok": null,
                        "n_writes": 0, "agreed": true, "proven_at": "2026-11-23T12:00:00.5Z", "ever_proven": true},
            "drift": {"attempt": 1, "text": "name"}
        }"#;
        let entry: Entry = serde_json::from_str(old).unwrap();
        assert_eq!(entry.drift, drifted(1));
        let applied = entry.applied.unwrap();
        assert_eq!((applied.version, applied.rung), (None, None));
        assert_eq!(entry.adopted, None);
    }

    #[test]
    fn what_was_written_to_another_connector_says_nothing_of_this_one() {
        let mut entry = full();
        entry.turn_to(Some("old-one"));
        assert_eq!(entry, full());
        entry.turn_to(Some("another"));
        assert_eq!(
            (entry.applied, entry.adopted.as_deref()),
            (None, Some("another"))
        );
        let mut entry = full();
        entry.turn_to(None);
        let expected = Entry {
            references: 3,
            ..Entry::default()
        };
        assert_eq!(entry, expected);
    }

    #[test]
    fn a_refusal_ends_only_a_write_that_was_alone() {
        for unsure in [false, true] {
            let mut entry = full();
            entry.intent.as_mut().unwrap().unsure = unsure;
            entry.refused();
            assert_eq!(entry.intent.is_some(), unsure);
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
