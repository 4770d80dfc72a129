//! What this agent did to its Kibana, on disk: never a secret, always written atomically.
//!
//! Before each write goes an intent, after it the outcome. An agent that was killed in between finds the
//! intent and knows that it does not know what Kibana holds.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use keyfleet_core::binding::{Assignment, Failure};
use keyfleet_core::id::{KeyVersion, Revision};
use keyfleet_proto::v1;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::files::write_atomically;
use crate::wish::{Goal, Place};

const LEDGER: &str = "ledger.json";
const DESIRED: &str = "desired.pb";
const REJECTED: &str = "rejected.pb";

/// The format of the file. A newer one is not read: an older agent would lose what it does not know.
const FORMAT: u32 = 1;

/// The ledger, in memory as on disk.
#[derive(Debug)]
pub(crate) struct Ledger {
    directory: PathBuf,
    entries: BTreeMap<Place, Entry>,
}

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

/// The last refusal of a desired state, with the version of the agent that refused: another one may read more.
#[derive(Clone, PartialEq, Message)]
struct Refusal {
    #[prost(string, tag = "1")]
    agent_version: String,
    #[prost(message, optional, tag = "2")]
    answer: Option<v1::DesiredAnswer>,
}

#[derive(Serialize, Deserialize)]
struct Content {
    format: u32,
    bindings: BTreeMap<String, Entry>,
}

impl Ledger {
    /// The ledger of this state directory. One that cannot be read is moved aside: every binding is then looked
    /// at in Kibana and written once more, because nobody can tell which key it holds.
    ///
    /// # Errors
    /// Where the directory itself cannot be used.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join(LEDGER);
        let entries = match fs::read(&path) {
            Ok(bytes) => match parse(&bytes) {
                Some(entries) => entries,
                None => {
                    set_aside(&path, "every connector will be read and written once more")?;
                    BTreeMap::new()
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        Ok(Self {
            directory: directory.to_owned(),
            entries,
        })
    }

    /// What was done to a binding; the default where nothing was.
    pub(crate) fn get(&self, place: &Place) -> Entry {
        self.entries.get(place).cloned().unwrap_or_default()
    }

    /// Changes an entry and keeps it, if it changed.
    ///
    /// # Errors
    /// What the system said; the change holds in memory.
    pub(crate) fn change(
        &mut self,
        place: &Place,
        change: impl FnOnce(&mut Entry),
    ) -> io::Result<()> {
        let before = self.get(place);
        let mut after = before.clone();
        change(&mut after);
        if after == before {
            return Ok(());
        }
        if after == Entry::default() {
            self.entries.remove(place);
        } else {
            self.entries.insert(place.clone(), after);
        }
        self.save()
    }

    fn save(&self) -> io::Result<()> {
        let bindings = self
            .entries
            .iter()
            .map(|(place, entry)| (place.to_string(), entry.clone()))
            .collect();
        let json = serde_json::to_vec_pretty(&Content {
            format: FORMAT,
            bindings,
        })?;
        write_atomically(&self.directory.join(LEDGER), &json)
    }

    /// The desired state that was kept last; one that cannot be read is moved aside and asked for again.
    ///
    /// # Errors
    /// Where the directory itself cannot be used.
    pub(crate) fn desired(&self) -> io::Result<Option<v1::Desired>> {
        read(
            &self.directory.join(DESIRED),
            "control will send the desired state again",
        )
    }

    /// Keeps the desired state, which holds no secret.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn keep_desired(&self, desired: &v1::Desired) -> io::Result<()> {
        write_atomically(&self.directory.join(DESIRED), &desired.encode_to_vec())
    }

    /// The answer that refused the last desired state; `None` where that was taken, or refused by another version.
    ///
    /// # Errors
    /// Where the directory itself cannot be used.
    pub(crate) fn rejected(&self) -> io::Result<Option<v1::DesiredAnswer>> {
        let path = self.directory.join(REJECTED);
        let refusal: Option<Refusal> = read(&path, "control may offer what was refused again")?;
        Ok(refusal
            .filter(|refusal| refusal.agent_version == env!("CARGO_PKG_VERSION"))
            .and_then(|refusal| refusal.answer))
    }

    /// Keeps the refusal of the last desired state; `None` forgets it.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn keep_rejected(&self, answer: Option<&v1::DesiredAnswer>) -> io::Result<()> {
        let path = self.directory.join(REJECTED);
        let Some(answer) = answer else {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            };
        };
        let refusal = Refusal {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            answer: Some(answer.clone()),
        };
        write_atomically(&path, &refusal.encode_to_vec())
    }
}

fn read<M: Message + Default>(path: &Path, consequence: &str) -> io::Result<Option<M>> {
    match fs::read(path) {
        Ok(bytes) => match M::decode(bytes.as_slice()) {
            Ok(message) => Ok(Some(message)),
            Err(_) => {
                set_aside(path, consequence)?;
                Ok(None)
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(bytes: &[u8]) -> Option<BTreeMap<Place, Entry>> {
    let content: Content = serde_json::from_slice(bytes)
        .ok()
        .filter(|content: &Content| content.format == FORMAT)?;
    let place = |text: &str| {
        let (space, connector) = text.split_once('/')?;
        Some(Place {
            space: space.parse().ok()?,
            connector: connector.parse().ok()?,
        })
    };
    content
        .bindings
        .into_iter()
        .map(|(text, entry)| Some((place(&text)?, entry)))
        .collect()
}

fn set_aside(path: &Path, consequence: &str) -> io::Result<()> {
    let aside = path.with_extension("damaged");
    fs::rename(path, &aside)?;
    tracing::error!(path = %path.display(), moved_to = %aside.display(), "a file of the agent's state is damaged; {consequence}");
    Ok(())
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
mod tests {
    use super::*;
    use keyfleet_core::failure::FailureClass;

    fn place() -> Place {
        Place {
            space: "default".parse().unwrap(),
            connector: "assistant".parse().unwrap(),
        }
    }

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

    fn full() -> Entry {
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
    fn what_was_done_survives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        assert_eq!(ledger.get(&place()), Entry::default());
        ledger.change(&place(), |entry| *entry = full()).unwrap();
        let again = Ledger::open(directory.path()).unwrap();
        assert_eq!(again.get(&place()), full());
        ledger
            .change(&place(), |entry| *entry = Entry::default())
            .unwrap();
        assert_eq!(
            Ledger::open(directory.path()).unwrap().get(&place()),
            Entry::default()
        );
    }

    #[test]
    fn a_damaged_ledger_is_moved_aside() {
        for damage in [
            "",
            "{",
            "[]",
            r#"{"format": 99, "bindings": {}}"#,
            r#"{"format": 1, "bindings": {"x": {}}}"#,
        ] {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join(LEDGER), damage).unwrap();
            let ledger = Ledger::open(directory.path()).unwrap();
            assert_eq!(ledger.get(&place()), Entry::default(), "{damage}");
            assert_eq!(
                fs::read_to_string(directory.path().join("ledger.damaged")).unwrap(),
                damage
            );
        }
    }

    #[test]
    fn the_desired_state_survives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(directory.path()).unwrap();
        assert_eq!(ledger.desired().unwrap(), None);
        let desired = v1::Desired {
            digest: vec![1, 2].into(),
            ..v1::Desired::default()
        };
        ledger.keep_desired(&desired).unwrap();
        assert_eq!(ledger.desired().unwrap(), Some(desired));
        fs::write(directory.path().join(DESIRED), [0xff]).unwrap();
        assert_eq!(ledger.desired().unwrap(), None);
    }

    #[test]
    fn a_refusal_survives_a_restart_but_no_other_version() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(directory.path()).unwrap();
        ledger.keep_rejected(None).unwrap();
        assert_eq!(ledger.rejected().unwrap(), None);
        let answer = v1::DesiredAnswer {
            digest: vec![1, 2].into(),
            rejected: "why".to_owned(),
            ..v1::DesiredAnswer::default()
        };
        ledger.keep_rejected(Some(&answer)).unwrap();
        assert_eq!(ledger.rejected().unwrap(), Some(answer.clone()));
        let other = Refusal {
            agent_version: "0.0.0-other".to_owned(),
            answer: Some(answer),
        };
        fs::write(directory.path().join(REJECTED), other.encode_to_vec()).unwrap();
        assert_eq!(ledger.rejected().unwrap(), None);
        fs::write(directory.path().join(REJECTED), [0xff]).unwrap();
        assert_eq!(ledger.rejected().unwrap(), None);
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
