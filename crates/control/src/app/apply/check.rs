//! What manifests may not say together: wrong references, overlaps, keys that would travel too far, fields too new.
//!
//! Whoever changes an object answers for it. What became wrong by itself (labels were changed, a deployment enrolled,
//! a setting was narrowed) is a warning: it must not keep anybody from applying something else.

mod fit;

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::connector::ConnectorSpec;
use keyfleet_core::fleet::Selector;
use keyfleet_core::id::{ConnectorName, DeploymentId};
use keyfleet_core::placement::{Overlap, Placement, overlaps};
use keyfleet_core::travel::may_travel;
use keyfleet_kibana::{Version, driver};
use keyfleet_store::{Binding, Connector, Deployment, Tx};

use crate::app::preview::Change;
use crate::app::start::site;
use crate::app::travel::{Travel, destination};
use crate::error::Error;
use crate::manifest::{InvalidManifest, Manifest, Object, Place};

/// Most warnings of one change: nobody reads more.
const WARNINGS_MAX: usize = 20;

/// Checks everything that is stored now. An error blames the manifest that is nearest to the trouble.
pub(super) fn check(
    tx: &Tx<'_>,
    manifests: &[Manifest],
    changes: &[Change],
    scope: &Selector,
) -> Result<Vec<String>, Error> {
    let changed = changes.iter().filter(|change| change.is_change());
    let changed = changed.map(|c| (c.kind, c.name.as_str())).collect();
    let mut deployments = tx.deployments()?;
    // Nobody hears of deployments that he may not see; what he may change concerns no others.
    deployments.retain(|row| scope.matches(&row.labels));
    let mut view = View::load(tx, manifests, changed, deployments)?;
    view.keys_fit(tx)?;
    view.connectors_fit()?;
    view.references(tx)?;
    view.replacements(tx)?;
    view.spaces_fit()?;
    view.endpoints_fit()?;
    view.parts_fit()?;
    view.deployments_fit()?;
    view.endpoints_differ()?;
    view.overlaps(tx)?;
    Ok(view.warnings())
}

/// What is wrong with one deployment after its labels were changed.
pub(in crate::app) fn warnings_of(
    tx: &Tx<'_>,
    deployment: DeploymentId,
) -> Result<Vec<String>, Error> {
    let deployments = tx.deployment(deployment)?.into_iter().collect();
    let mut view = View::load(tx, &[], BTreeSet::new(), deployments)?;
    view.deployments_fit()?;
    view.endpoints_differ()?;
    view.overlaps(tx)?;
    Ok(view.warnings())
}

struct View<'a> {
    manifests: &'a [Manifest],
    changed: BTreeSet<(&'a str, &'a str)>,
    travel: Travel,
    connectors: BTreeMap<ConnectorName, ConnectorSpec>,
    placements: Vec<Placement>,
    deployments: Vec<Deployment>,
    warnings: BTreeSet<String>,
}

impl<'a> View<'a> {
    fn load(
        tx: &Tx<'_>,
        manifests: &'a [Manifest],
        changed: BTreeSet<(&'a str, &'a str)>,
        deployments: Vec<Deployment>,
    ) -> Result<Self, Error> {
        let mut connectors = BTreeMap::new();
        for connector in tx.connectors()?.into_iter().filter(Connector::is_live) {
            let revision = connector.revision;
            connectors
                .entry(revision.connector)
                .or_insert(revision.spec);
        }
        Ok(Self {
            manifests,
            changed,
            travel: Travel::load(tx)?,
            connectors,
            placements: tx.placements()?,
            deployments,
            warnings: BTreeSet::new(),
        })
    }

    fn is_changed(&self, kind: &str, name: &str) -> bool {
        self.changed.contains(&(kind, name))
    }

    fn is_given(&self, kind: &str, name: &str) -> bool {
        let is_it = |m: &Manifest| m.object.kind() == kind && m.object.name() == name;
        self.manifests.iter().any(is_it)
    }

    /// The error at the manifest of this object, or at the first of all where it was stored earlier.
    fn blame(&self, kind: &str, name: &str, field: &str, problem: String) -> InvalidManifest {
        let own = self
            .manifests
            .iter()
            .find(|m| m.object.kind() == kind && m.object.name() == name);
        if let Some(own) = own {
            return own.invalid(field, problem);
        }
        let first = self
            .manifests
            .first()
            .map(|manifest| manifest.place.clone());
        InvalidManifest {
            place: first.unwrap_or_else(|| Place {
                file: "(stored)".to_owned(),
                line: 1,
            }),
            field: field.to_owned(),
            problem: format!("{kind} {name}, stored earlier: {problem}"),
        }
    }

    fn warnings(self) -> Vec<String> {
        let n = self.warnings.len();
        let mut warnings: Vec<String> = self.warnings.into_iter().take(WARNINGS_MAX).collect();
        if n > WARNINGS_MAX {
            warnings.push(format!("and {} more like these", n - WARNINGS_MAX));
        }
        warnings
    }

    /// A Key lists no host that the settings forbid.
    fn keys_fit(&self, tx: &Tx<'_>) -> Result<(), Error> {
        let outbound = tx.outbound()?;
        for manifest in self.manifests {
            let Object::Key(key) = &manifest.object else {
                continue;
            };
            for (index, host) in key.allowed_hosts.iter().enumerate() {
                let url = format!("https://{host}/").parse().ok();
                if let Err(stays) = may_travel(key, url.as_ref(), &outbound) {
                    let field = format!("spec.allowedHosts[{index}]");
                    return Err(manifest.invalid(&field, stays.to_string()).into());
                }
            }
        }
        Ok(())
    }

    fn connectors_fit(&mut self) -> Result<(), InvalidManifest> {
        for (name, spec) in &self.connectors {
            if self.travel.key(&spec.key).is_none() {
                let problem = format!("there is no Key {:?}", spec.key.as_str());
                return Err(self.blame("Connector", name.as_str(), "spec.key", problem));
            }
            let Some(problem) = self.travel.stays(spec) else {
                continue;
            };
            let is_given = self.is_given("Connector", name.as_str());
            if is_given || self.is_given("Key", spec.key.as_str()) {
                return Err(self.blame("Connector", name.as_str(), "spec.config.apiUrl", problem));
            }
            let to = destination(spec).map_or_else(String::new, |url| format!(" ({url})"));
            self.warnings
                .insert(format!("connector {name}{to} gets no key: {problem}"));
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

    /// Two placements of one binding: an error for who brings it about, else the present owner keeps it.
    fn overlaps(&mut self, tx: &Tx<'_>) -> Result<(), Error> {
        let bindings = tx.bindings()?;
        let mut known: BTreeMap<DeploymentId, Vec<&Binding>> = BTreeMap::new();
        for binding in &bindings {
            known
                .entry(binding.id.deployment)
                .or_default()
                .push(binding);
        }
        let fleet = self.deployments.iter().map(|row| {
            let own = known.remove(&row.id);
            site(row, own.into_iter().flatten())
        });
        for overlap in overlaps(&self.placements, fleet) {
            let Overlap {
                binding,
                first,
                second,
            } = &overlap;
            let deployment = self.deployments.iter().find(|d| d.id == binding.deployment);
            let name = deployment.map_or_else(String::new, |d| format!(" ({})", d.name));
            let changed = [second, first]
                .into_iter()
                .find(|name| self.is_changed("Placement", name.as_str()));
            if let Some(changed) = changed {
                let problem =
                    format!("{overlap}{name}: change a selector, a space or a connector of one");
                let blamed = self.blame("Placement", changed.as_str(), "spec.selector", problem);
                return Err(blamed.into());
            }
            let owner = tx.binding(binding)?.map(|binding| binding.placement);
            let owner = owner.filter(|owner| owner == first || owner == second);
            let owner = owner.unwrap_or_else(|| first.clone());
            self.warnings.insert(format!(
                "{overlap}{name}: it belongs to {owner} until a selector, a space or a connector of one is changed"
            ));
        }
        Ok(())
    }

    fn deployments_fit(&mut self) -> Result<(), InvalidManifest> {
        let mut found = Vec::new();
        for deployment in &self.deployments {
            let fitting = self
                .placements
                .iter()
                .filter(|p| p.selector.matches(&deployment.labels));
            for placement in fitting {
                for name in &placement.connectors {
                    let in_scope = self.in_scope(deployment, placement, name)?;
                    found.extend(
                        in_scope
                            .into_iter()
                            .chain(self.knows_fields(deployment, placement, name)?)
                            .chain(self.takes_parts(deployment, placement, name)?),
                    );
                }
            }
        }
        self.warnings.extend(found);
        Ok(())
    }

    /// What is wrong where the Key may not be used there.
    fn in_scope(
        &self,
        deployment: &Deployment,
        placement: &Placement,
        name: &ConnectorName,
    ) -> Result<Option<String>, InvalidManifest> {
        let spec = self.connectors.get(name);
        let Some((spec, key)) = spec.and_then(|s| Some((s, self.travel.key(&s.key)?))) else {
            return Ok(None);
        };
        if key.scope.matches(&deployment.labels) {
            return Ok(None);
        }
        let is_own = self.is_changed("Placement", placement.name.as_str())
            || self.is_changed("Connector", name.as_str())
            || self.is_changed("Key", spec.key.as_str());
        if !is_own {
            return Ok(Some(format!(
                "deployment {} is not in the scope ({}) of key {}: connector {name} gets no key there",
                deployment.name, key.scope, key.name
            )));
        }
        let problem = format!(
            "connector {name} would bring key {} to deployment {}, which its scope ({}) does not allow",
            key.name, deployment.name, key.scope
        );
        Err(self.blame(
            "Placement",
            placement.name.as_str(),
            "spec.selector",
            problem,
        ))
    }

    /// What is wrong where a Kibana is too old for a field.
    fn knows_fields(
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
        let checked = driver(&spec.connector_type).map(|driver| {
            let config = driver.for_version(&spec.config, &spec.if_supported, &version);
            driver.check_version(&config, &version)
        });
        let Some(Err(problems)) = checked else {
            return Ok(None);
        };
        let Some(first) = problems.first() else {
            return Ok(None);
        };
        let problem = format!(
            "deployment {} runs Kibana {version}: {}",
            deployment.name, first.problem
        );
        let is_own = self.is_changed("Placement", placement.name.as_str())
            || self.is_changed("Connector", name.as_str());
        if !is_own {
            return Ok(Some(format!("connector {name}: {problem}")));
        }
        let field = format!("spec.{}", first.field);
        Err(self.blame("Connector", name.as_str(), &field, problem))
    }
}
