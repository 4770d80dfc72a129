//! Deleting objects: by name, or because the files of a set do not have them any more.
//!
//! Deleting never takes a key away from anybody: what a placement placed is removed by a rollout, a connector stays as
//! a tombstone until its last binding is confirmed gone, and a Key stays as long as anybody may hold it.

use std::collections::BTreeSet;

use keyfleet_core::Timestamp;
use keyfleet_core::connector::ConnectorSpec;
use keyfleet_core::id::{KeyName, SetName};
use keyfleet_core::placement::Placement;
use keyfleet_core::token::Role;
use keyfleet_store::{Connector, Holding, Tx};

use super::reach;
use crate::app::Actor;
use crate::app::preview::Change;
use crate::error::Error;
use crate::manifest::{Manifest, Object};

/// In this order nothing is deleted that something else still names.
const KINDS: [&str; 4] = ["Placement", "Connector", "Strategy", "Key"];

/// Holdings that a refusal names.
const NAMED_MAX: usize = 3;

/// An object that was deleted.
pub(crate) struct Pruned {
    pub(crate) change: Change,
    /// What it was, where it was a connector.
    spec: Option<ConnectorSpec>,
}

/// Deletes what the set has and the files have not. A Key that somebody may still hold stays, and the plan says so.
pub(super) fn prune(
    tx: &Tx<'_>,
    actor: &Actor,
    set: &SetName,
    manifests: &[Manifest],
    now: Timestamp,
) -> Result<Vec<Pruned>, Error> {
    let kept: BTreeSet<(&str, &str)> = manifests
        .iter()
        .map(|m| (m.object.kind(), m.object.name()))
        .collect();
    let members = tx.sets()?;
    let mut pruned = Vec::new();
    for kind in KINDS {
        let gone = members.iter().filter(|((of, name), own)| {
            of == kind && *own == set && !kept.contains(&(kind, name.as_str()))
        });
        for ((_, name), _) in gone {
            if let Some(reason) = key_in_use(tx, kind, name)? {
                let mut change = Change::unchanged(kind, name);
                change
                    .warnings
                    .push(format!("{reason}; it stays until then, prune again"));
                pruned.push(Pruned { change, spec: None });
            } else {
                pruned.push(delete(tx, actor, kind, name, now)?);
            }
        }
    }
    Ok(pruned)
}

/// Says where a connector is gone and the same is there under another name.
pub(super) fn say_renamed(manifests: &[Manifest], changes: &mut [Change], pruned: &[Pruned]) {
    for change in changes.iter_mut().filter(|change| change.is_new()) {
        let own = manifests.iter().find_map(|manifest| {
            let Object::Connector(name, spec) = &manifest.object else {
                return None;
            };
            (name.as_str() == change.name).then_some(spec)
        });
        let old = pruned
            .iter()
            .find(|p| p.spec.is_some() && p.spec.as_ref() == own);
        if let (Some(old), "Connector") = (old, change.kind) {
            change.warnings.push(format!(
                "connector {} becomes {}: a new name is a new connector with a new id in each Kibana, and the old one is deleted there; what uses the old id must be pointed to the new one",
                old.change.name, change.name
            ));
        }
    }
}

/// The kind as manifests write it, whatever the case.
pub(crate) fn kind_named(text: &str) -> Option<&'static str> {
    KINDS
        .into_iter()
        .find(|kind| kind.eq_ignore_ascii_case(text))
}

/// Deletes one object that nothing names any more.
pub(crate) fn delete(
    tx: &Tx<'_>,
    actor: &Actor,
    kind: &'static str,
    name: &str,
    now: Timestamp,
) -> Result<Pruned, Error> {
    reach::may_delete(tx, actor, kind, name)?;
    let pruned = match kind {
        "Placement" => delete_placement(tx, name, now)?,
        "Connector" => delete_connector(tx, name, now)?,
        "Strategy" => delete_strategy(tx, name)?,
        _ => {
            actor.must_be(Role::Admin)?;
            delete_key(tx, name)?
        }
    };
    tx.put_in_set(kind, name, None)?;
    Ok(pruned)
}

fn missing(kind: &'static str, name: &str) -> impl FnOnce() -> Error {
    let name = name.to_owned();
    move || Error::NotFound { kind, name }
}

fn delete_placement(tx: &Tx<'_>, name: &str, now: Timestamp) -> Result<Pruned, Error> {
    let found = tx
        .placements()?
        .into_iter()
        .find(|p| p.name.as_str() == name);
    let placement: Placement = found.ok_or_else(missing("placement", name))?;
    tx.delete_placement(&placement.name, now)?;
    let detail = format!(
        "what it placed is removed by strategy {}",
        placement.strategy
    );
    Ok(Pruned {
        change: Change::removed("Placement", name, vec![detail]),
        spec: None,
    })
}

fn delete_connector(tx: &Tx<'_>, name: &str, now: Timestamp) -> Result<Pruned, Error> {
    let is_it = |c: &Connector| c.revision.connector.as_str() == name && c.deleted_at.is_none();
    let found: Vec<Connector> = tx.connectors()?.into_iter().filter(is_it).collect();
    let current = found.iter().find(|c| c.is_live()).or(found.first());
    let current = current.ok_or_else(missing("connector", name))?;
    let placements = tx.placements()?;
    let users = placements
        .iter()
        .filter(|p| p.connectors.contains(&current.revision.connector));
    refuse_used("Connector", name, "placement", users.map(|p| &p.name))?;
    tx.delete_connector(&current.revision.connector, now)?;
    let detail = "its revisions are kept: a new connector of this name counts on".to_owned();
    Ok(Pruned {
        change: Change::removed("Connector", name, vec![detail]),
        spec: Some(current.revision.spec.clone()),
    })
}

fn delete_strategy(tx: &Tx<'_>, name: &str) -> Result<Pruned, Error> {
    let found = tx
        .strategies()?
        .into_iter()
        .find(|s| s.name.as_str() == name);
    let strategy = found.ok_or_else(missing("strategy", name))?;
    let mut details = Vec::new();
    if name == "default" {
        details.push("the built-in strategy of this name takes its place".to_owned());
    } else {
        let placements = tx.placements()?;
        let users = placements.iter().filter(|p| p.strategy == strategy.name);
        refuse_used("Strategy", name, "placement", users.map(|p| &p.name))?;
    }
    tx.delete_strategy(&strategy.name)?;
    Ok(Pruned {
        change: Change::removed("Strategy", name, details),
        spec: None,
    })
}

fn delete_key(tx: &Tx<'_>, name: &str) -> Result<Pruned, Error> {
    let found = tx
        .keys()?
        .into_iter()
        .find(|row| row.key.name.as_str() == name);
    let key = found.ok_or_else(missing("key", name))?.key.name;
    let connectors = tx.connectors()?;
    let users: BTreeSet<_> = connectors
        .iter()
        .filter(|c| c.deleted_at.is_none() && c.revision.spec.key == key)
        .map(|c| &c.revision.connector)
        .collect();
    refuse_used("Key", name, "connector", users.into_iter())?;
    if let Some(reason) = key_in_use(tx, "Key", name)? {
        return Err(Error::Precondition(reason));
    }
    let shown = |row: &keyfleet_store::KeyVersionRow| {
        format!(
            "version {} ({}, {})",
            row.version.0,
            row.state.as_str(),
            row.fingerprint
        )
    };
    let details = tx.key_versions(&key)?.iter().map(shown).collect();
    tx.delete_key(&key)?;
    let mut change = Change::removed("Key", name, details);
    change.warnings.push(format!(
        "key {name}: its values stay in Vault and alive at the provider; Keyfleet only forgets them"
    ));
    Ok(Pruned { change, spec: None })
}

fn refuse_used<T: ToString>(
    kind: &str,
    name: &str,
    by: &str,
    users: impl Iterator<Item = T>,
) -> Result<(), Error> {
    let users: Vec<String> = users.map(|user| user.to_string()).collect();
    if users.is_empty() {
        return Ok(());
    }
    let users = users.join(", ");
    Err(Error::Precondition(format!(
        "{kind} {name} is used by {by} {users}: change or delete that first"
    )))
}

/// Why a Key cannot go yet although nothing names it.
fn key_in_use(tx: &Tx<'_>, kind: &str, name: &str) -> Result<Option<String>, Error> {
    let Ok(key) = name.parse::<KeyName>() else {
        return Ok(None);
    };
    if kind != "Key" {
        return Ok(None);
    }
    let open: Vec<Holding> = tx
        .holdings(&key)?
        .into_iter()
        .filter(|holding| holding.closed_at.is_none())
        .collect();
    if open.is_empty() {
        return Ok(None);
    }
    let mut named = Vec::new();
    for holding in open.iter().take(NAMED_MAX) {
        let id = &holding.binding;
        let deployment = tx.deployment(id.deployment)?.map(|d| d.name.to_string());
        let deployment = deployment.unwrap_or_else(|| id.deployment.to_string());
        named.push(format!(
            "{deployment}/{}/{} {}",
            id.space, id.connector, holding.version
        ));
    }
    let n = open.len();
    let more = if n > NAMED_MAX {
        format!(" and {} more", n - NAMED_MAX)
    } else {
        String::new()
    };
    Ok(Some(format!(
        "key {name} may still be held by {n} bindings ({}{more}): it can be deleted when each has confirmed that its connector is gone or has proven another key",
        named.join(", ")
    )))
}
