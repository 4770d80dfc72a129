//! What a plan shows of one binding.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::binding::{Assignment, BindingId};
use keyfleet_core::id::{ConnectorName, DeploymentId};
use keyfleet_proto::v1;
use keyfleet_store::{Binding, Rollout, RolloutBinding, Tx};

use crate::app::adopt;
use crate::app::start::Exchanges;
use crate::error::Error;

/// The changes of one rollout, and what is known of their bindings.
pub(super) struct Changes {
    changes: Vec<RolloutBinding>,
    bindings: BTreeMap<BindingId, Binding>,
    why: String,
    exchanges: Exchanges,
    /// Which connectors go, and which come.
    going: BTreeSet<(DeploymentId, ConnectorName)>,
    coming: BTreeSet<(DeploymentId, ConnectorName)>,
}

impl Changes {
    pub(super) fn load(tx: &Tx<'_>, rollout: &Rollout) -> Result<Self, Error> {
        let changes = tx.rollout_bindings(rollout.id)?;
        let bindings = tx.bindings_in(rollout.id)?.into_iter();
        let of = |goes: bool| {
            let chosen = changes
                .iter()
                .filter(move |change| change.to.is_none() == goes);
            let place = |c: &RolloutBinding| (c.id.deployment, c.id.connector.clone());
            chosen.map(place).collect()
        };
        Ok(Self {
            bindings: bindings.map(|b| (b.id.clone(), b)).collect(),
            why: rollout.cause.clone(),
            exchanges: Exchanges::load(tx)?,
            going: of(true),
            coming: of(false),
            changes,
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &RolloutBinding> {
        self.changes.iter()
    }

    /// One of them for the operator; `told` is what its agent was told before.
    pub(super) fn wire(
        &self,
        tx: &Tx<'_>,
        change: &RolloutBinding,
        told: Option<Assignment>,
    ) -> Result<v1::BindingChange, Error> {
        let binding = self.bindings.get(&change.id);
        let kind = match (told, change.to) {
            (_, None) => v1::ChangeKind::Remove,
            (None, Some(_)) => v1::ChangeKind::Create,
            (Some(_), Some(_)) => v1::ChangeKind::Update,
        };
        let exchange = self.exchange(change);
        let going = binding.filter(|_| change.to.is_none());
        let adopted = match going.is_some_and(|binding| binding.adopted_id.is_some()) {
            true => "; it was there before Keyfleet, and is deleted like any other",
            false => "",
        };
        Ok(v1::BindingChange {
            binding: Some(reference(&change.id)),
            change: kind.into(),
            from: change.from.map(Into::into),
            to: change.to.map(Into::into),
            why: format!("{}{exchange}{adopted}", self.why),
            cannot_roll_back: match (change.from, change.to, exchange.is_empty()) {
                (None, None, false) => "it was never proven: there is nothing to go back to".into(),
                _ => cannot_roll_back(tx, change, binding)?,
            },
            adoption: match binding {
                Some(binding) => adopt::shown(tx, binding)?,
                None => None,
            },
            references: going.map_or(0, |binding| binding.references),
        })
    }

    /// What comes in exchange for what, if anything does.
    fn exchange(&self, change: &RolloutBinding) -> String {
        let (deployment, connector) = (change.id.deployment, &change.id.connector);
        if change.to.is_none() {
            let is_coming =
                |newer: &&ConnectorName| self.coming.contains(&(deployment, (*newer).clone()));
            let newer = self.exchanges.newer_of(connector).find(is_coming);
            return newer.map_or_else(String::new, |newer| {
                format!("; {newer} takes its place: it stays until that is proven here")
            });
        }
        let is_going =
            |older: &&ConnectorName| self.going.contains(&(deployment, (*older).clone()));
        let older = self.exchanges.older_of(connector).iter().find(is_going);
        older.map_or_else(String::new, |older| {
            format!("; replaces {older}: {older} stays until this is proven here")
        })
    }
}

fn reference(id: &BindingId) -> v1::BindingRef {
    v1::BindingRef {
        space: id.space.to_string(),
        connector: id.connector.to_string(),
    }
}

/// A binding that gets nothing before somebody solves what is wrong.
pub(super) fn waiting(id: &BindingId, adoption: v1::Adoption) -> v1::BindingChange {
    v1::BindingChange {
        binding: Some(reference(id)),
        change: v1::ChangeKind::Unchanged.into(),
        adoption: Some(adoption),
        ..v1::BindingChange::default()
    }
}

fn cannot_roll_back(
    tx: &Tx<'_>,
    change: &RolloutBinding,
    binding: Option<&Binding>,
) -> Result<String, Error> {
    let Some(from) = change.from else {
        let is_adopted = binding.is_some_and(|binding| binding.adopted_id.is_some());
        let why = match is_adopted {
            true => "the key that it had before is not known to Keyfleet",
            false => "",
        };
        return Ok(why.to_owned());
    };
    let Some(connector) = tx.connector(&change.id.connector, from.revision)? else {
        return Ok(format!("revision {} is not stored any more", from.revision));
    };
    let key = connector.revision.spec.key;
    let versions = tx.key_versions(&key)?;
    let known = versions.iter().find(|row| row.version == from.key_version);
    Ok(match known {
        Some(row) if row.may_be_assigned() => String::new(),
        Some(row) if !row.readable => {
            format!(
                "Vault has the value of key {key} {} no more",
                from.key_version
            )
        }
        Some(row) => format!("key {key} {} is {}", from.key_version, row.state.as_str()),
        None => format!("key {key} {} is not known", from.key_version),
    })
}
