//! What a simulated Kibana remembers, in memory and, where asked, in a file.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Options;
use super::elastic::{ElasticFaults, Endpoint};
use super::faults::Faults;
use super::foreign::Foreign;
use super::spaces::Space;
use super::version::Version;
use crate::server::Error;

/// What has happened to the secrets of a stored connector.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Damage {
    #[default]
    None,
    Undecryptable,
    SecretsMissing,
}

/// A stored connector. It holds secrets, so it has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Connector {
    pub(super) id: String,
    pub(super) space: String,
    pub(super) name: String,
    pub(super) connector_type_id: String,
    pub(super) config: Map<String, Value>,
    pub(super) secrets: Map<String, Value>,
    #[serde(default)]
    pub(super) damage: Damage,
}

/// Everything that changes while it runs.
pub(super) struct State {
    pub(super) version: Version,
    pub(super) uuid: String,
    pub(super) faults: Faults,
    /// By id: ids are unique over all spaces.
    pub(super) connectors: BTreeMap<String, Connector>,
    /// The connectors that are no saved objects, by id.
    pub(super) foreign: BTreeMap<String, Foreign>,
    /// How many rules and others refer to a connector, by id; none when absent.
    pub(super) references: BTreeMap<String, u64>,
    /// In the order in which they were made.
    pub(super) spaces: Vec<Space>,
    /// The inference endpoints of Elasticsearch, by id.
    pub(super) endpoints: BTreeMap<String, Endpoint>,
    pub(super) elastic_faults: ElasticFaults,
    /// How many lists of connectors were asked for.
    pub(super) n_lists: u64,
}

/// The form on disk.
#[derive(Serialize, Deserialize)]
struct Saved {
    uuid: String,
    connectors: Vec<Connector>,
    /// Those of the options where the file is an older one.
    #[serde(default)]
    spaces: Vec<Space>,
    #[serde(default)]
    references: BTreeMap<String, u64>,
    #[serde(default)]
    endpoints: BTreeMap<String, Endpoint>,
}

impl State {
    /// The state of an earlier run where there is one, else an empty one.
    pub(super) fn load(options: &Options) -> Result<Self, Error> {
        let saved = match &options.state_file {
            Some(path) if path.exists() => read(path)?,
            Some(_) | None => Saved {
                uuid: Uuid::new_v4().to_string(),
                connectors: Vec::new(),
                spaces: Vec::new(),
                references: BTreeMap::new(),
                endpoints: BTreeMap::new(),
            },
        };
        let connectors = saved
            .connectors
            .into_iter()
            .map(|connector| (connector.id.clone(), connector))
            .collect();
        // A space that was removed while it ran comes back only where the options name it.
        let mut spaces = saved.spaces;
        for id in &options.spaces {
            if !spaces.iter().any(|space| space.id == *id) {
                spaces.push(Space::new(id));
            }
        }
        let foreign = options
            .preconfigured
            .iter()
            .map(|(id, name)| (id.clone(), Foreign::preconfigured(name)))
            .collect();
        Ok(Self {
            version: options.version,
            uuid: saved.uuid,
            faults: Faults::default(),
            connectors,
            foreign,
            references: saved.references,
            spaces,
            endpoints: saved.endpoints,
            elastic_faults: ElasticFaults::default(),
            n_lists: 0,
        })
    }

    /// Writes the state in one step: a reader finds the old file or the new one.
    pub(super) fn save(&self, options: &Options) -> std::io::Result<()> {
        let Some(path) = &options.state_file else {
            return Ok(());
        };
        let saved = json!({
            "uuid": self.uuid,
            "connectors": self.connectors.values().collect::<Vec<_>>(),
            "spaces": self.spaces,
            "references": self.references,
            "endpoints": self.endpoints,
        });
        let draft = path.with_extension("new");
        // It holds secrets: nobody else may read it.
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(saved.to_string().as_bytes())?;
        std::fs::rename(&draft, path)
    }

    /// The stored connector with this id, where it lives in this space.
    pub(super) fn connector(&self, space: &str, id: &str) -> Option<&Connector> {
        self.connectors
            .get(id)
            .filter(|connector| connector.space == space)
    }
}

fn read(path: &Path) -> Result<Saved, Error> {
    let failed = |reason: String| Error::State {
        path: path.display().to_string(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    // The parser's own text could quote a secret.
    serde_json::from_str(&text).map_err(|error| {
        failed(format!(
            "not a state file (line {}, column {})",
            error.line(),
            error.column()
        ))
    })
}
