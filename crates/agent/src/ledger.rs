//! What this agent did to its Kibana, on disk: never a secret, always written atomically.
//!
//! Before each write goes an intent, after it the outcome. An agent that was killed in between finds the
//! intent and knows that it does not know what Kibana holds.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use keyfleet_core::id::DeploymentId;
use keyfleet_proto::v1;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::files::write_atomically;
use crate::wish::Place;

mod entry;

pub(crate) use entry::{Applied, Drift, Entry, GivenUp, GoalRow, Intent};

const LEDGER: &str = "ledger.json";
const DESIRED: &str = "desired.pb";
const REJECTED: &str = "rejected.pb";

/// The format of the file. A newer one is not read: an older agent would lose what it does not know.
const FORMAT: u32 = 1;

/// The ledger, in memory as on disk.
#[derive(Debug)]
pub(crate) struct Ledger {
    directory: PathBuf,
    deployment: DeploymentId,
    entries: BTreeMap<Place, Entry>,
    /// Something changed that is not on disk yet.
    is_stale: bool,
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
struct Content<E> {
    format: u32,
    /// Whose connectors these are: an agent may enrol again as another deployment.
    deployment: String,
    bindings: BTreeMap<String, E>,
}

impl Ledger {
    /// The ledger of this deployment in this state directory. One that cannot be read is moved aside: every binding is
    /// then looked at in Kibana and written once more, because nobody can tell which key it holds. So is one of another
    /// deployment, together with the desired state that belongs to it.
    ///
    /// # Errors
    /// Where the directory itself cannot be used.
    pub(crate) fn open(directory: &Path, deployment: DeploymentId) -> io::Result<Self> {
        let path = directory.join(LEDGER);
        let mut ledger = Self {
            directory: directory.to_owned(),
            deployment,
            entries: BTreeMap::new(),
            is_stale: false,
        };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                ledger.save()?;
                return Ok(ledger);
            }
            Err(error) => return Err(error),
        };
        match parse(&bytes) {
            Some((owner, entries)) if owner == deployment => ledger.entries = entries,
            Some((owner, _)) => {
                // These first: a crash in between comes here again.
                remove(&directory.join(DESIRED))?;
                remove(&directory.join(REJECTED))?;
                fs::rename(&path, path.with_extension("other"))?;
                tracing::warn!(%owner, %deployment, "this agent was another deployment before; its connectors stay in Kibana as they are");
                ledger.save()?;
            }
            None => {
                set_aside(&path, "every connector will be read and written once more")?;
                ledger.save()?;
            }
        }
        Ok(ledger)
    }

    /// What was done to a binding; the default where nothing was.
    pub(crate) fn get(&self, place: &Place) -> Entry {
        self.entries.get(place).cloned().unwrap_or_default()
    }

    /// Changes an entry in memory; [`Ledger::flush`] keeps it.
    pub(crate) fn change(&mut self, place: &Place, change: impl FnOnce(&mut Entry)) {
        let before = self.get(place);
        let mut after = before.clone();
        change(&mut after);
        if after == before {
            return;
        }
        if after == Entry::default() {
            self.entries.remove(place);
        } else {
            self.entries.insert(place.clone(), after);
        }
        self.is_stale = true;
    }

    /// Keeps everything that changed, in one file at once. Nothing may be sent to Kibana before its intent is kept.
    ///
    /// # Errors
    /// What the system said; the changes hold in memory, and the next call tries again.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.is_stale {
            self.save()?;
            self.is_stale = false;
        }
        Ok(())
    }

    fn save(&self) -> io::Result<()> {
        let bindings = self
            .entries
            .iter()
            .map(|(place, entry)| (place.to_string(), entry))
            .collect();
        // One line: with hundreds of spaces it is written often.
        let json = serde_json::to_vec(&Content {
            format: FORMAT,
            deployment: self.deployment.to_string(),
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
            return remove(&path);
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

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn parse(bytes: &[u8]) -> Option<(DeploymentId, BTreeMap<Place, Entry>)> {
    let content: Content<Entry> = serde_json::from_slice(bytes)
        .ok()
        .filter(|content: &Content<Entry>| content.format == FORMAT)?;
    let place = |text: &str| {
        let (space, connector) = text.split_once('/')?;
        Some(Place {
            space: space.parse().ok()?,
            connector: connector.parse().ok()?,
        })
    };
    let entries = content
        .bindings
        .into_iter()
        .map(|(text, entry)| Some((place(&text)?, entry)))
        .collect::<Option<_>>()?;
    Some((content.deployment.parse().ok()?, entries))
}

fn set_aside(path: &Path, consequence: &str) -> io::Result<()> {
    let aside = path.with_extension("damaged");
    fs::rename(path, &aside)?;
    tracing::error!(path = %path.display(), moved_to = %aside.display(), "a file of the agent's state is damaged; {consequence}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use entry::tests::full;

    fn open(directory: &Path) -> Ledger {
        Ledger::open(directory, deployment(1)).unwrap()
    }

    fn deployment(n: u128) -> DeploymentId {
        DeploymentId::new(uuid::Uuid::from_u128(n))
    }

    fn place() -> Place {
        Place {
            space: "default".parse().unwrap(),
            connector: "assistant".parse().unwrap(),
        }
    }

    #[test]
    fn what_was_done_survives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = open(directory.path());
        assert_eq!(ledger.get(&place()), Entry::default());
        ledger.change(&place(), |entry| *entry = full());
        assert_eq!(open(directory.path()).get(&place()), Entry::default());
        ledger.flush().unwrap();
        let again = open(directory.path());
        assert_eq!(again.get(&place()), full());
        ledger.change(&place(), |entry| *entry = Entry::default());
        ledger.flush().unwrap();
        assert_eq!(open(directory.path()).get(&place()), Entry::default());
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
            let ledger = open(directory.path());
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
        let ledger = open(directory.path());
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
        let ledger = open(directory.path());
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
    fn another_deployment_begins_anew() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = open(directory.path());
        ledger.change(&place(), |entry| *entry = full());
        ledger.flush().unwrap();
        ledger.keep_desired(&v1::Desired::default()).unwrap();
        ledger
            .keep_rejected(Some(&v1::DesiredAnswer::default()))
            .unwrap();
        let other = Ledger::open(directory.path(), deployment(2)).unwrap();
        assert_eq!(other.get(&place()), Entry::default());
        assert_eq!(other.desired().unwrap(), None);
        assert_eq!(other.rejected().unwrap(), None);
        let kept = fs::read_to_string(directory.path().join("ledger.other")).unwrap();
        assert!(kept.contains("0123456789abcdef"));
    }
}
