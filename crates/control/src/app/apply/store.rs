//! Stores one object of a manifest, and says what that changes.

use keyfleet_core::connector::{ConnectorRevision, ConnectorSpec};
use keyfleet_core::id::{ConnectorName, SetName};
use keyfleet_core::key::Key;
use keyfleet_core::token::Role;
use keyfleet_store::{Connector, Tx};

use super::Job;
use crate::app::campaign::store_version;
use crate::app::preview::Change;
use crate::error::Error;
use crate::manifest::{InvalidManifest, Manifest, Object};

/// Stores the object where it is new or changed.
pub(super) fn store(tx: &Tx<'_>, job: &Job, manifest: &Manifest) -> Result<Change, Error> {
    match &manifest.object {
        Object::Key(key) => store_key(tx, job, manifest, key),
        Object::Connector(name, spec) => store_connector(tx, job, name, spec),
        Object::Placement(placement) => {
            let old = tx
                .placements()?
                .into_iter()
                .find(|old| old.name == placement.name);
            tx.put_placement(placement)?;
            Ok(Change::placement(old.as_ref(), placement))
        }
        Object::Strategy(strategy) => {
            let old = tx
                .strategies()?
                .into_iter()
                .find(|old| old.name == strategy.name);
            tx.put_strategy(strategy)?;
            Ok(Change::strategy(old.as_ref(), strategy))
        }
    }
}

/// Makes the object a member of the set.
pub(super) fn join(
    tx: &Tx<'_>,
    manifest: &Manifest,
    set: &SetName,
    change: &mut Change,
) -> Result<(), Error> {
    let (kind, name) = (manifest.object.kind(), manifest.object.name());
    let known = tx.sets()?;
    match known.get(&(kind.to_owned(), name.to_owned())) {
        Some(own) if own == set => Ok(()),
        Some(other) => {
            let problem = format!(
                "{kind} {name} belongs to the set {other}, and an object belongs to one set only: keep it in the files of one"
            );
            Err(manifest.invalid("metadata.name", problem).into())
        }
        None => {
            change.add(format!("set: (none) -> {set}"));
            Ok(tx.put_in_set(kind, name, Some(set))?)
        }
    }
}

fn store_key(tx: &Tx<'_>, job: &Job, manifest: &Manifest, key: &Key) -> Result<Change, Error> {
    let old = tx.keys()?.into_iter().find(|row| row.key.name == key.name);
    let old = old.map(|row| row.key);
    if old.as_ref().is_some_and(|old| old.location != key.location) {
        return Err(moved(manifest).into());
    }
    if old.as_ref() != Some(key) {
        job.actor.must_be(Role::Admin)?;
    }
    let change = Change::key(old.as_ref(), key);
    tx.put_key(key)?;
    if let Some(version) = job.versions.get(&key.name) {
        store_version(tx, &key.name, version, job.now)?;
        tx.set_vault_status(&key.name, "ok", job.now)?;
    }
    Ok(change)
}

fn store_connector(
    tx: &Tx<'_>,
    job: &Job,
    name: &ConnectorName,
    spec: &ConnectorSpec,
) -> Result<Change, Error> {
    let known = tx.connectors()?.into_iter();
    let known: Vec<Connector> = known
        .filter(|old| old.revision.connector == *name && old.deleted_at.is_none())
        .collect();
    let current = known.iter().find(|old| old.is_live());
    let withdrawn = known
        .first()
        .filter(|old| old.revision.spec == *spec)
        .and_then(|old| old.withdrawn_by);
    if let (Some(rollout), false) = (withdrawn, current.is_some_and(|c| c.revision.spec == *spec)) {
        let mut change = Change::connector(name, Some(spec), spec);
        change.warnings.push(format!(
            "connector {name}: rollout {rollout} rolled this content back; `keyfleet rollout retry {rollout}` tries it again"
        ));
        return Ok(change);
    }
    let change = Change::connector(name, current.map(|old| &old.revision.spec), spec);
    if !change.is_change() {
        return Ok(change);
    }
    let new = ConnectorRevision {
        connector: name.clone(),
        revision: tx.next_revision(name)?,
        spec: spec.clone(),
    };
    tx.insert_connector(&new, job.now)?;
    Ok(change)
}

/// Versions are counted by the secret in Vault: at another place the same numbers would mean other values.
fn moved(manifest: &Manifest) -> InvalidManifest {
    let problem = "cannot change, because version numbers would mean other values: make a new Key and let the connectors name it";
    manifest.invalid("spec.vault", problem.to_owned())
}
