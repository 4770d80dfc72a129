//! Why nothing is told about a binding, although it has not what it shall have: the one place that knows all reasons
//! that no rollout can do anything about.

use std::collections::BTreeMap;

use keyfleet_core::binding::BindingId;
use keyfleet_core::id::DeploymentId;
use keyfleet_store::{Binding, Tx};

use super::adopt;
use super::rivals::Rivals;
use super::start::absent;
use super::travel;
use crate::error::Error;

/// The bindings about which nothing new is told now.
#[derive(Debug, Default)]
pub(crate) struct Barred {
    /// By what concerns them alone: a key that may not travel there, a connector that cannot be adopted, a space
    /// that is not seen any more.
    alone: BTreeMap<BindingId, String>,
    /// With all others of their deployment.
    rivals: Rivals,
}

impl Barred {
    /// Those of now.
    pub(crate) fn load(tx: &Tx<'_>, bindings: &[Binding]) -> Result<Self, Error> {
        let deployments = tx.deployments()?;
        let mut alone = travel::barred(tx, &deployments, bindings)?;
        // Where both are so, what is to be done about the key comes first.
        for (id, why) in adopt::waiting(tx, bindings)? {
            alone.entry(id).or_insert(why);
        }
        for (id, why) in absent(tx, &deployments, bindings)? {
            alone.entry(id).or_insert(why);
        }
        Ok(Self {
            alone,
            rivals: Rivals::find(tx, &deployments, Some(bindings))?,
        })
    }

    /// True where nothing new may be told.
    pub(crate) fn contains(&self, id: &BindingId) -> bool {
        self.alone.contains_key(id) || self.rivals.contains(id.deployment)
    }

    /// Why, in a sentence for somebody who knows deployments by these names.
    pub(crate) fn why<N: ToString>(
        &self,
        id: &BindingId,
        names: &BTreeMap<DeploymentId, N>,
    ) -> Option<String> {
        let rivals = self.rivals.sentence(id.deployment, names);
        rivals.or_else(|| self.alone.get(id).cloned())
    }

    /// The deployments that are told nothing at all.
    pub(crate) fn rivals(&self) -> &Rivals {
        &self.rivals
    }
}
