//! What manifests may not say together: wrong references, overlaps, keys that would travel too far, fields too new.

use std::collections::BTreeMap;

use keyfleet_core::connector::ConnectorSpec;
use keyfleet_core::id::{ConnectorName, KeyName};
use keyfleet_core::key::Key;
use keyfleet_core::placement::{Placement, bind};
use keyfleet_kibana::{Version, driver};
use keyfleet_store::{Deployment, Tx};

use crate::error::Error;
use crate::manifest::{InvalidManifest, Manifest, Place};

/// Checks everything that is stored now, blaming the manifest that is nearest to the trouble.
pub(super) fn check(tx: &Tx<'_>, manifests: &[Manifest]) -> Result<(), Error> {
    let view = View {
        manifests,
        keys: tx
            .keys()?
            .into_iter()
            .map(|row| (row.key.name.clone(), row.key))
            .collect(),
        connectors: newest_connectors(tx)?,
        placements: tx.placements()?,
        deployments: tx.deployments()?,
    };
    view.connectors_fit()?;
    view.references(tx)?;
    view.overlaps()?;
    view.deployments_fit()?;
    Ok(())
}

fn newest_connectors(tx: &Tx<'_>) -> Result<BTreeMap<ConnectorName, ConnectorSpec>, Error> {
    let mut newest = BTreeMap::new();
    for connector in tx.connectors()? {
        newest
            .entry(connector.revision.connector)
            .or_insert(connector.revision.spec);
    }
    Ok(newest)
}

struct View<'a> {
    manifests: &'a [Manifest],
    keys: BTreeMap<KeyName, Key>,
    connectors: BTreeMap<ConnectorName, ConnectorSpec>,
    placements: Vec<Placement>,
    deployments: Vec<Deployment>,
}

impl View<'_> {
    /// The error at the manifest of this object, or at the first of all where it was stored earlier.
    fn blame(&self, kind: &str, name: &str, field: &str, problem: String) -> InvalidManifest {
        let own = self
            .manifests
            .iter()
            .find(|m| m.object.kind() == kind && m.object.name() == name);
        let place = own
            .or(self.manifests.first())
            .map(|manifest| manifest.place.clone());
        let place = place.unwrap_or(Place {
            file: "(stored)".to_owned(),
            line: 1,
        });
        let problem = match own {
            Some(_) => problem,
            None => format!("{kind} {name}, stored earlier: {problem}"),
        };
        InvalidManifest {
            place,
            field: field.to_owned(),
            problem,
        }
    }

    fn connectors_fit(&self) -> Result<(), InvalidManifest> {
        for (name, spec) in &self.connectors {
            let blame =
                |field: &str, problem| Err(self.blame("Connector", name.as_str(), field, problem));
            let Some(key) = self.keys.get(&spec.key) else {
                return blame(
                    "spec.key",
                    format!("there is no Key {:?}", spec.key.as_str()),
                );
            };
            let destination = driver(&spec.connector_type)
                .and_then(|driver| driver.destination(&spec.config))
                .and_then(|url| url.host_str().map(str::to_ascii_lowercase));
            let Some(host) = destination else { continue };
            if !key.allowed_hosts.contains(&host) {
                let problem = format!(
                    "key {} may travel to {} only, not to {host} (Key field spec.allowedHosts)",
                    key.name,
                    key.allowed_hosts.join(", ")
                );
                return blame("spec.config.apiUrl", problem);
            }
        }
        Ok(())
    }

    fn references(&self, tx: &Tx<'_>) -> Result<(), Error> {
        let strategies = tx.strategies()?;
        for placement in &self.placements {
            let blame = |field: &str, problem| {
                Err(self
                    .blame("Placement", placement.name.as_str(), field, problem)
                    .into())
            };
            for (index, connector) in placement.connectors.iter().enumerate() {
                if !self.connectors.contains_key(connector) {
                    let field = format!("spec.connectors[{index}]");
                    return blame(
                        &field,
                        format!("there is no Connector {:?}", connector.as_str()),
                    );
                }
            }
            let name = &placement.strategy;
            let is_known = name.as_str() == "default" || strategies.iter().any(|s| s.name == *name);
            if !is_known {
                return blame(
                    "spec.strategyRef",
                    format!("there is no Strategy {:?}", name.as_str()),
                );
            }
        }
        Ok(())
    }

    fn overlaps(&self) -> Result<(), InvalidManifest> {
        let fleet = self.deployments.iter().map(|d| (d.id, &d.labels));
        let Err(overlap) = bind(&self.placements, fleet) else {
            return Ok(());
        };
        let deployment = self
            .deployments
            .iter()
            .find(|deployment| deployment.id == overlap.binding.deployment);
        let name = deployment.map_or_else(String::new, |d| format!(" ({})", d.name));
        let problem = format!("{overlap}{name}: change a selector, a space or a connector of one");
        Err(self.blame(
            "Placement",
            overlap.second.as_str(),
            "spec.selector",
            problem,
        ))
    }

    fn deployments_fit(&self) -> Result<(), InvalidManifest> {
        for deployment in &self.deployments {
            for placement in self
                .placements
                .iter()
                .filter(|p| p.selector.matches(&deployment.labels))
            {
                for name in &placement.connectors {
                    self.deployment_fits(deployment, placement, name)?;
                }
            }
        }
        Ok(())
    }

    fn deployment_fits(
        &self,
        deployment: &Deployment,
        placement: &Placement,
        name: &ConnectorName,
    ) -> Result<(), InvalidManifest> {
        let Some(spec) = self.connectors.get(name) else {
            return Ok(());
        };
        if let Some(key) = self.keys.get(&spec.key)
            && !key.scope.matches(&deployment.labels)
        {
            let problem = format!(
                "connector {name} would bring key {} to deployment {}, which its scope ({}) does not allow",
                key.name, deployment.name, key.scope
            );
            return Err(self.blame(
                "Placement",
                placement.name.as_str(),
                "spec.selector",
                problem,
            ));
        }
        let version = deployment
            .facts
            .as_ref()
            .and_then(|facts| facts.version.parse::<Version>().ok());
        let (Some(version), Some(driver)) = (version, driver(&spec.connector_type)) else {
            return Ok(());
        };
        let Err(problems) = driver.check_version(&spec.config, &version) else {
            return Ok(());
        };
        let Some(first) = problems.first() else {
            return Ok(());
        };
        let problem = format!(
            "deployment {} runs Kibana {version}: {}",
            deployment.name, first.problem
        );
        let field = format!("spec.{}", first.field);
        Err(self.blame("Connector", name.as_str(), &field, problem))
    }
}
