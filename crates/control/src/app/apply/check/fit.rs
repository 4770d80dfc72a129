//! Whether connectors fit to what they replace, to where they are placed, and to the parts of their Keys.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::connector::ConnectorSpec;
use keyfleet_core::id::{ConnectorName, PlacementName, SpaceId};
use keyfleet_core::key::Key;
use keyfleet_core::placement::Placement;
use keyfleet_core::space::SpacePattern;
use keyfleet_kibana::{Surface, Version, driver};
use keyfleet_store::{Deployment, Tx};

use super::View;
use crate::error::Error;
use crate::manifest::InvalidManifest;

/// The one space that stands for an Elasticsearch, which has none.
const DEFAULT_SPACE: &str = "default";

impl View<'_> {
    /// A connector replaces another one, which is or was there, and nobody in the end himself.
    pub(super) fn replacements(&mut self, tx: &Tx<'_>) -> Result<(), Error> {
        let known = tx.connectors()?.into_iter().map(|c| c.revision.connector);
        let known: BTreeSet<ConnectorName> = known.collect();
        let mut notes = Vec::new();
        for (name, spec) in &self.connectors {
            let Some(older) = &spec.replaces else {
                continue;
            };
            let problem = if older == name {
                Some("is the connector itself: name the one whose place it takes".to_owned())
            } else if !known.contains(older) {
                Some(format!(
                    "there is no Connector {:?}, and never was",
                    older.as_str()
                ))
            } else {
                self.circle(name)
            };
            if let Some(problem) = problem {
                let blamed = self.blame("Connector", name.as_str(), "spec.replaces", problem);
                return Err(blamed.into());
            }
            let has_both =
                |p: &&Placement| p.connectors.contains(name) && p.connectors.contains(older);
            if let Some(both) = self.placements.iter().find(has_both) {
                notes.push(format!(
                    "connector {name} replaces {older}, and placement {} has both: {older} stays until it is taken out of spec.connectors there",
                    both.name
                ));
            }
        }
        self.warnings.extend(notes);
        Ok(())
    }

    /// What is wrong where a connector takes the place of one that takes its place.
    fn circle(&self, name: &ConnectorName) -> Option<String> {
        let mut names = vec![name];
        while let Some(older) = self.connectors.get(*names.last()?)?.replaces.as_ref() {
            let is_circle = names.contains(&older);
            names.push(older);
            if is_circle {
                let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
                let names = names.join(" replaces ");
                return Some(format!("goes round in a circle: {names}"));
            }
        }
        None
    }

    /// What is kept in Elasticsearch is in no space: it is placed as if in the default one, and only there.
    pub(super) fn spaces_fit(&self) -> Result<(), InvalidManifest> {
        for placement in &self.placements {
            let without =
                |name: &&ConnectorName| self.connectors.get(*name).is_some_and(has_no_spaces);
            let Some(name) = placement.connectors.iter().find(without) else {
                continue;
            };
            let default: Option<SpaceId> = DEFAULT_SPACE.parse().ok();
            let is_default = default.is_some_and(|default| placement.names(&default));
            if is_default && placement.spaces.len() == 1 {
                continue;
            }
            let problem = format!(
                "connector {name} is kept in Elasticsearch, where there are no spaces: write [{DEFAULT_SPACE}], and place what belongs into other spaces with another placement"
            );
            let placement = placement.name.as_str();
            return Err(self.blame("Placement", placement, "spec.spaces", problem));
        }
        Ok(())
    }

    /// What makes an inference endpoint makes one on each Elasticsearch: two of it on one deployment would take turns to
    /// write the other's.
    pub(super) fn endpoints_fit(&self) -> Result<(), InvalidManifest> {
        for placement in &self.placements {
            for name in &placement.connectors {
                let Some(endpoint) = self.connectors.get(name).and_then(endpoint) else {
                    continue;
                };
                let spaces: BTreeSet<&SpacePattern> = placement.spaces.iter().collect();
                if spaces.len() > 1 || placement.has_pattern() {
                    let problem = format!(
                        "connector {name} makes the endpoint {endpoint:?}, and Elasticsearch has one of that name for all spaces: name one space, and no pattern"
                    );
                    return Err(self.blame(
                        "Placement",
                        placement.name.as_str(),
                        "spec.spaces",
                        problem,
                    ));
                }
            }
        }
        Ok(())
    }

    /// The same of several placements that meet on a deployment.
    pub(super) fn endpoints_differ(&mut self) -> Result<(), InvalidManifest> {
        let twice = |row: &Deployment| Some((row.name.to_string(), self.made_twice(row)?));
        let found: Vec<(String, Twice)> = self.deployments.iter().filter_map(twice).collect();
        for (deployment, twice) in &found {
            self.judge_twice(deployment, twice)?;
        }
        Ok(())
    }

    /// The first endpoint of a deployment that two connectors or spaces would make.
    fn made_twice(&self, deployment: &Deployment) -> Option<Twice> {
        let mut made = BTreeMap::new();
        let fitting = self.placements.iter();
        for placement in fitting.filter(|p| p.selector.matches(&deployment.labels)) {
            for connector in &placement.connectors {
                let Some(endpoint) = self.connectors.get(connector).and_then(endpoint) else {
                    continue;
                };
                let space = placement.spaces.first()?.to_string();
                let this = (space, connector.clone(), placement.name.clone());
                let first = made.entry(endpoint.clone()).or_insert_with(|| this.clone());
                // The same binding twice is an overlap, which is said elsewhere.
                if (&first.0, &first.1) != (&this.0, &this.1) {
                    let both = [this, first.clone()];
                    return Some(Twice { endpoint, both });
                }
            }
        }
        None
    }

    /// An error for who brings it about, else a warning.
    fn judge_twice(&mut self, at: &str, twice: &Twice) -> Result<(), InvalidManifest> {
        let [(space, connector, placement), (first_space, first, _)] = &twice.both;
        let problem = format!(
            "connector {connector} in space {space} and connector {first} in space {first_space} of deployment {at} both make the endpoint {:?}, and Elasticsearch has one of that name for all spaces",
            twice.endpoint
        );
        let is_own = twice.both.iter().any(|(_, connector, placement)| {
            self.is_changed("Placement", placement.as_str())
                || self.is_changed("Connector", connector.as_str())
        });
        if is_own {
            return Err(self.blame("Placement", placement.as_str(), "spec.spaces", problem));
        }
        self.warnings.insert(problem);
        Ok(())
    }

    /// A Key has exactly the parts that its connectors need.
    pub(super) fn parts_fit(&mut self) -> Result<(), InvalidManifest> {
        let mut found = Vec::new();
        for (name, spec) in &self.connectors {
            let Some(key) = self.travel.key(&spec.key) else {
                continue;
            };
            let Some(problem) = misfit(spec, key, None) else {
                continue;
            };
            if self.is_given("Connector", name.as_str()) {
                return Err(self.blame("Connector", name.as_str(), "spec.key", problem));
            }
            let problem = format!("connector {name}: {problem}");
            if self.is_given("Key", key.name.as_str()) {
                return Err(self.blame("Key", key.name.as_str(), "spec.vault", problem));
            }
            found.push(problem);
        }
        self.warnings.extend(found);
        Ok(())
    }

    /// What is wrong where a Kibana is too old for a part of the Key.
    pub(super) fn takes_parts(
        &self,
        deployment: &Deployment,
        placement: &Placement,
        name: &ConnectorName,
    ) -> Result<Option<String>, InvalidManifest> {
        let facts = deployment.facts.as_ref();
        let version = facts.and_then(|facts| facts.version.parse::<Version>().ok());
        let (Some(version), Some(spec)) = (version, self.connectors.get(name)) else {
            return Ok(None);
        };
        let key = self.travel.key(&spec.key);
        let Some(problem) = key.and_then(|key| misfit(spec, key, Some(&version))) else {
            return Ok(None);
        };
        let problem = format!(
            "deployment {} runs Kibana {version}: {problem}",
            deployment.name
        );
        let is_own = self.is_changed("Placement", placement.name.as_str())
            || self.is_changed("Connector", name.as_str())
            || self.is_changed("Key", spec.key.as_str());
        if !is_own {
            return Ok(Some(format!("connector {name}: {problem}")));
        }
        Err(self.blame("Connector", name.as_str(), "spec.key", problem))
    }
}

/// An endpoint that is made twice: in which spaces, by which connectors and placements.
struct Twice {
    endpoint: String,
    both: [(String, ConnectorName, PlacementName); 2],
}

fn endpoint(spec: &ConnectorSpec) -> Option<String> {
    driver(&spec.connector_type)?.endpoint(&spec.config)
}

fn has_no_spaces(spec: &ConnectorSpec) -> bool {
    let surface = driver(&spec.connector_type).map(|driver| driver.surface(&spec.config));
    matches!(surface, Some(Surface::Elasticsearch { .. }))
}

/// What is wrong with the parts of a Key for this connector, on any Kibana or on one.
fn misfit(spec: &ConnectorSpec, key: &Key, version: Option<&Version>) -> Option<String> {
    let driver = driver(&spec.connector_type)?;
    let parts = key.location.field.parts();
    let checked = driver.check_secret_parts(&spec.config, &parts, version);
    let problem = checked.err()?.problem;
    Some(format!("key {}: {problem}", key.name))
}
