//! Connectors that take the place of others: the older one goes together with the coming of the newer one, or later.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::binding::BindingId;
use keyfleet_core::id::{ConnectorName, DeploymentId, PlacementName};
use keyfleet_store::{Binding, Tx};

use crate::error::Error;

/// Which connector takes the place of which, as the newest revisions say that may be spread.
#[derive(Debug, Default)]
pub(crate) struct Exchanges {
    /// By the newer one, the older, and what that one took the place of, and so on: what is replaced anew before its first
    /// successor is proven needs the last one.
    older: BTreeMap<ConnectorName, Vec<ConnectorName>>,
}

impl Exchanges {
    pub(crate) fn load(tx: &Tx<'_>) -> Result<Self, Error> {
        let mut newest = BTreeMap::new();
        let mut links = BTreeMap::new();
        for connector in tx.connectors()? {
            let is_live = connector.is_live();
            let (name, replaces) = (
                connector.revision.connector,
                connector.revision.spec.replaces,
            );
            // The newest comes first and stays; what is deleted had the place of another all the same.
            if is_live {
                newest
                    .entry(name.clone())
                    .or_insert_with(|| replaces.clone());
            }
            links.entry(name).or_insert(replaces);
        }
        links.extend(newest.clone());
        let chain = |newer: ConnectorName| {
            let older = older_than(&newer, &links);
            (newer, older)
        };
        let pairs = newest.into_keys().map(chain);
        Ok(Self {
            older: pairs.filter(|(_, older)| !older.is_empty()).collect(),
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.older.is_empty()
    }

    /// The connectors whose place this one takes, the nearest first.
    pub(crate) fn older_of(&self, newer: &ConnectorName) -> &[ConnectorName] {
        self.older.get(newer).map_or(&[], Vec::as_slice)
    }

    /// The connectors that take the place of this one.
    pub(crate) fn newer_of(&self, older: &ConnectorName) -> impl Iterator<Item = &ConnectorName> {
        let pairs = self.older.iter();
        pairs.filter_map(move |(newer, all)| all.contains(older).then_some(newer))
    }

    /// True where `newer` takes the place of `older`.
    pub(crate) fn is_pair(&self, newer: &ConnectorName, older: &ConnectorName) -> bool {
        self.older_of(newer).contains(older)
    }

    /// The connectors with all that they take the place of or that take theirs: what happens to one of them concerns
    /// all, and they are in one rollout.
    pub(crate) fn families(&self, connectors: &BTreeSet<ConnectorName>) -> BTreeSet<ConnectorName> {
        let mut family = connectors.clone();
        loop {
            let n_before = family.len();
            for (newer, older) in &self.older {
                if family.contains(newer) || older.iter().any(|name| family.contains(name)) {
                    family.insert(newer.clone());
                    family.extend(older.iter().cloned());
                }
            }
            if family.len() == n_before {
                return family;
            }
        }
    }

    /// The removals that are not done yet and whose connector is to be replaced, each with the bindings that replace it:
    /// those of the same space, or of the deployment where the newer one is not to be in that space.
    pub(crate) fn removals<'a>(
        &self,
        bindings: &'a [Binding],
    ) -> Vec<(&'a Binding, Vec<&'a Binding>)> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut by_deployment: BTreeMap<DeploymentId, Vec<&Binding>> = BTreeMap::new();
        for binding in bindings {
            let all = by_deployment.entry(binding.id.deployment).or_default();
            all.push(binding);
        }
        let mut found = Vec::new();
        for all in by_deployment.values() {
            for removal in all.iter().filter(|b| is_removal(b)) {
                let newer = |b: &&&Binding| {
                    self.is_pair(&b.id.connector, &removal.id.connector) && is_to_stand(b)
                };
                let newer: Vec<&Binding> = all.iter().filter(newer).copied().collect();
                let here = newer.iter().filter(|b| b.id.space == removal.id.space);
                let here: Vec<&Binding> = here.copied().collect();
                let newer = if here.is_empty() { newer } else { here };
                if !newer.is_empty() {
                    found.push((*removal, newer));
                }
            }
        }
        found
    }

    /// Takes to the chosen bindings what goes in exchange for them, and from them what would go too early. Says with
    /// which placement's bindings each removal goes.
    pub(super) fn settle(
        &self,
        bindings: &[Binding],
        chosen: &mut BTreeSet<BindingId>,
    ) -> BTreeMap<BindingId, PlacementName> {
        let mut goes_with = BTreeMap::new();
        for (removal, newer) in self.removals(bindings) {
            let comes = newer.iter().find(|b| chosen.contains(&b.id)).copied();
            if newer
                .iter()
                .any(|b| !chosen.contains(&b.id) && !b.is_converged())
            {
                chosen.remove(&removal.id);
            } else if let Some(comes) = comes.filter(|_| removal.held_by.is_none()) {
                chosen.insert(removal.id.clone());
                goes_with.insert(removal.id.clone(), comes.placement.clone());
            }
        }
        goes_with
    }

    /// The removals that wait for what takes their place, each with a sentence.
    pub(crate) fn waiting(&self, bindings: &[Binding]) -> BTreeMap<BindingId, String> {
        let mut waiting = BTreeMap::new();
        for (removal, newer) in self.removals(bindings) {
            if let Some(newer) = newer.iter().find(|newer| !newer.is_converged()) {
                let name = &newer.id.connector;
                let why = format!("stays until connector {name} is proven on this deployment");
                waiting.insert(removal.id.clone(), why);
            }
        }
        waiting
    }
}

/// What a connector takes the place of, and what that one took the place of, and so on; by what each one `replaces`.
pub(crate) fn older_than(
    newer: &ConnectorName,
    replaces: &BTreeMap<ConnectorName, Option<ConnectorName>>,
) -> Vec<ConnectorName> {
    let mut all: Vec<ConnectorName> = Vec::new();
    let next = |name: &ConnectorName| replaces.get(name)?.clone();
    let mut older = next(newer);
    // Together with one that was deleted it may be a circle.
    while let Some(name) = older.filter(|name| name != newer && !all.contains(name)) {
        older = next(&name);
        all.push(name);
    }
    all
}

/// Told or not, it is to go and is not known to be gone.
fn is_removal(binding: &Binding) -> bool {
    binding.goal.is_none() && !binding.is_untold() && !binding.is_converged()
}

/// It is there, or to come.
fn is_to_stand(binding: &Binding) -> bool {
    binding.goal.is_some() || binding.is_untold()
}
