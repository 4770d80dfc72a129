//! Why the deployments of a rollout wait: the one place that every view of a rollout takes its sentences from.

use std::collections::BTreeMap;

use keyfleet_core::binding::BindingState;
use keyfleet_core::id::{ConnectorName, DeploymentId, RolloutId};
use keyfleet_core::rollout::{About, WaitingOn};

use super::{Sight, short};
use crate::error::Error;

/// The sentences of one active rollout, as its planner published them, for the deployments in sight.
pub(super) struct Waits {
    rollout: RolloutId,
    /// One for each deployment that is not converged.
    deployments: BTreeMap<DeploymentId, String>,
}

impl Waits {
    /// Those of this rollout; none where it has ended.
    pub(super) fn load(sight: &Sight<'_>, rollout: RolloutId) -> Result<Self, Error> {
        let mut deployments = BTreeMap::new();
        let mut is_cut_off = Vec::new();
        for waiting in sight.waiting(rollout) {
            if let About::Deployment(id) = waiting.about {
                deployments.insert(id, waiting.on.to_string());
                if matches!(waiting.on, WaitingOn::CutOff(_)) {
                    is_cut_off.push(id);
                }
            }
        }
        let mut waits = Self {
            rollout,
            deployments,
        };
        waits.name_rivals(sight, &is_cut_off)?;
        waits.add_vault(sight)?;
        Ok(waits)
    }

    /// Every deployment that waits, in the order of their ids.
    pub(super) fn all(&self) -> impl Iterator<Item = (DeploymentId, &str)> {
        let all = self.deployments.iter();
        all.map(|(id, sentence)| (*id, sentence.as_str()))
    }

    /// The sentence of a deployment, where it has one.
    pub(super) fn get(&self, deployment: DeploymentId) -> Option<&str> {
        self.deployments.get(&deployment).map(String::as_str)
    }

    /// The sentence of a deployment that is not converged: the planner may not have looked yet.
    pub(super) fn of(&self, deployment: DeploymentId) -> String {
        let sentence = self.get(deployment).map(ToOwned::to_owned);
        sentence.unwrap_or_else(|| about_to_act(self.rollout))
    }

    /// The planner names nobody: who shares a Kibana with whom is said to those who may see both.
    fn name_rivals(&mut self, sight: &Sight<'_>, cut_off: &[DeploymentId]) -> Result<(), Error> {
        if cut_off.is_empty() {
            return Ok(());
        }
        let (barred, names) = (sight.barred()?, sight.names());
        for id in cut_off {
            if let Some(sentence) = barred.rivals().sentence(*id, &names) {
                self.deployments.insert(*id, sentence);
            }
        }
        Ok(())
    }

    /// A write that needs a key waits for Vault too.
    fn add_vault(&mut self, sight: &Sight<'_>) -> Result<(), Error> {
        let troubles = vault_troubles(sight)?;
        if troubles.is_empty() || self.deployments.is_empty() {
            return Ok(());
        }
        let mut told: BTreeMap<DeploymentId, &str> = BTreeMap::new();
        for binding in sight.bindings_in(self.rollout)? {
            let needs_key = matches!(
                binding.progress.state,
                BindingState::Offered | BindingState::Received
            );
            let trouble = troubles.get(&binding.id.connector);
            if let Some(trouble) = trouble.filter(|_| needs_key) {
                told.entry(binding.id.deployment).or_insert(trouble);
            }
        }
        for (id, trouble) in told {
            if let Some(sentence) = self.deployments.get_mut(&id) {
                sentence.push_str("; Vault: ");
                sentence.push_str(trouble);
            }
        }
        Ok(())
    }
}

/// Why the run as a whole waits.
pub(super) fn of_run(sight: &Sight<'_>, rollout: RolloutId) -> String {
    let sentences = sight
        .waiting(rollout)
        .filter(|waiting| waiting.about == About::Run)
        .map(|waiting| waiting.on.to_string());
    sentences.collect::<Vec<_>>().join("; ")
}

/// Why its wave of this index does not advance; empty where it does, or is done.
pub(super) fn of_wave(sight: &Sight<'_>, rollout: RolloutId, index: usize) -> String {
    let found = sight
        .waiting(rollout)
        .find(|waiting| waiting.about == About::Wave(index));
    found
        .map(|waiting| waiting.on.to_string())
        .unwrap_or_default()
}

/// Said until the planner has looked at a rollout for the first time.
pub(super) fn about_to_act(rollout: RolloutId) -> String {
    format!("rollout {} is about to act", short(rollout))
}

/// The connectors whose key Vault does not serve, and what it says.
fn vault_troubles(sight: &Sight<'_>) -> Result<BTreeMap<ConnectorName, String>, Error> {
    let mut rows = sight.keys()?;
    rows.retain(|row| row.vault_status != "ok");
    if rows.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut key_of = BTreeMap::new();
    for connector in sight.connectors()? {
        // The newest revision comes first.
        let revision = connector.revision;
        key_of
            .entry(revision.connector)
            .or_insert(revision.spec.key);
    }
    let trouble = |(connector, key)| {
        let row = rows.iter().find(|row| row.key.name == key)?;
        Some((connector, row.vault_status.clone()))
    };
    Ok(key_of.into_iter().filter_map(trouble).collect())
}
