//! What the end of a rollout means beyond itself: for key versions, for revisions, for what was left undone.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::Timestamp;
use keyfleet_core::binding::{Assignment, BindingId};
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::{ConnectorName, DeploymentId, KeyName, KeyVersion, Revision};
use keyfleet_core::key::KeyState;
use keyfleet_core::rollout::{CatchUp, Phase};
use keyfleet_store::{Binding, Event, EventScope, RolloutBinding, Tx};

use super::KEYFLEET;
use super::audit::record_own;
use super::start::{Spread, phase_of, refresh_goals};
use super::step::Loaded;
use crate::error::Error;

/// Does what the end of a rollout asks for; says which other rollouts it concerns.
pub(crate) fn finish(tx: &Tx<'_>, loaded: &Loaded, now: Timestamp) -> Result<Spread, Error> {
    let phase = loaded.rollout.run.phase;
    if phase == Phase::Completed {
        promote(tx, loaded)?;
        hold_who_was_away(tx, loaded)?;
    } else if phase == Phase::RolledBack {
        return withdraw(tx, loaded, now);
    } else if phase == Phase::Aborted {
        hold(tx, loaded, |binding, _| !binding.is_told_goal())?;
    }
    Ok(Spread::default())
}

/// Who was away and gets the change in its windows only is not told it now: [`release`] lets it go on.
fn hold_who_was_away(tx: &Tx<'_>, loaded: &Loaded) -> Result<(), Error> {
    let strategy = &loaded.rollout.strategy;
    if strategy.offline.catch_up == CatchUp::Immediate || strategy.windows.is_empty() {
        return Ok(());
    }
    hold(tx, loaded, |binding, change| {
        !binding.is_told_goal() && binding.goal == change.to
    })
}

/// Lets the connected go on that were away when a rollout was completed; true where there are some.
pub(crate) fn release(tx: &Tx<'_>, online: &BTreeSet<DeploymentId>) -> Result<bool, Error> {
    let mut phases = BTreeMap::new();
    let mut is_any = false;
    for binding in tx.bindings()? {
        let Some(id) = binding.held_by else { continue };
        if !online.contains(&binding.id.deployment) {
            continue;
        }
        let phase = match phases.get(&id) {
            Some(phase) => *phase,
            None => *phases.entry(id).or_insert(phase_of(tx, id)?),
        };
        if phase == Some(Phase::Completed) {
            is_any = true;
            tx.put_binding(&Binding {
                held_by: None,
                ..binding
            })?;
        }
    }
    Ok(is_any)
}

/// A key version that every binding was told and that a whole rollout has proven is the current one.
fn promote(tx: &Tx<'_>, loaded: &Loaded) -> Result<(), Error> {
    let mut brought: BTreeSet<(KeyName, KeyVersion)> = BTreeSet::new();
    for to in changes(loaded).filter_map(|change| Some((&change.id.connector, change.to?))) {
        brought.insert((key_at(tx, to.0, to.1.revision)?, to.1.key_version));
    }
    let bindings = tx.bindings()?;
    for (key, version) in brought {
        let mut everybody_has_it = true;
        for binding in &bindings {
            let Some(goal) = binding.goal else { continue };
            let is_of_key = key_at(tx, &binding.id.connector, goal.revision)? == key;
            everybody_has_it &= !is_of_key || binding.is_told_goal() || goal.key_version != version;
        }
        if everybody_has_it {
            make_current(tx, &key, version)?;
        }
    }
    Ok(())
}

/// Makes it the current version, and those before it previous ones.
pub(crate) fn make_current(tx: &Tx<'_>, key: &KeyName, version: KeyVersion) -> Result<(), Error> {
    for row in tx.key_versions(key)? {
        let is_open = matches!(row.state, KeyState::Pending | KeyState::Current);
        if row.version == version && row.state == KeyState::Pending {
            tx.set_key_state(key, row.version, KeyState::Current)?;
        } else if row.version < version && is_open {
            // Also a version that this one overtook before it was proven everywhere.
            tx.set_key_state(key, row.version, KeyState::Previous)?;
        }
    }
    Ok(())
}

/// What was rolled back is not spread again by itself.
///
/// A key version that was on its way is abandoned where the provider refused it, or where nothing else was new; else
/// the revision is withdrawn. Neither happens to what a binding outside of this rollout has proven: then the
/// trouble is this rollout's own, and its bindings are held until somebody retries or something new comes.
fn withdraw(tx: &Tx<'_>, loaded: &Loaded, now: Timestamp) -> Result<Spread, Error> {
    let blame = Blame::find(tx, loaded)?;
    for (key, version) in &blame.versions {
        tx.set_key_state(key, *version, KeyState::Abandoned)?;
        note(tx, loaded, format!("key {key} {version} is abandoned"), now)?;
        let (target, detail) = (format!("key {key} {version}"), because(loaded));
        record_own(tx, "key-version.abandon", target, detail, now)?;
    }
    for (connector, revision) in &blame.revisions {
        tx.withdraw_connector(connector, *revision, Some(loaded.rollout.id))?;
        note(
            tx,
            loaded,
            format!("connector {connector} {revision} is withdrawn"),
            now,
        )?;
        let (target, detail) = (format!("connector {connector} {revision}"), because(loaded));
        record_own(tx, "revision.withdraw", target, detail, now)?;
    }
    forget_proofs(tx, loaded)?;
    let goals = refresh_goals(tx, now)?;
    hold(tx, loaded, |binding, change| {
        !binding.is_told_goal() && binding.goal == change.to
    })?;
    Ok(goals.spread())
}

/// Who is away may have proven what is withdrawn now, and still run it. It is told to go back, and nothing later may
/// return to what was withdrawn.
fn forget_proofs(tx: &Tx<'_>, loaded: &Loaded) -> Result<(), Error> {
    for change in changes(loaded) {
        let Some(mut binding) = tx.binding(&change.id)? else {
            continue;
        };
        if change.to.is_some() && binding.last_proven == change.to {
            binding.last_proven = change.from;
            tx.put_binding(&binding)?;
        }
    }
    Ok(())
}

fn because(loaded: &Loaded) -> String {
    let rollout = &loaded.rollout;
    format!("rollout {}: {}", rollout.id, rollout.run.hold_reason)
}

/// What a rollback blames.
#[derive(Default)]
struct Blame {
    versions: BTreeSet<(KeyName, KeyVersion)>,
    revisions: BTreeSet<(ConnectorName, Revision)>,
}

impl Blame {
    fn find(tx: &Tx<'_>, loaded: &Loaded) -> Result<Self, Error> {
        let elsewhere = Elsewhere::find(tx, loaded)?;
        // Where nothing failed, an operator asked for the rollback of all of it.
        let nothing_failed = changes(loaded).all(|change| change.failure.is_none());
        let mut refused = BTreeSet::new();
        let mut failed = BTreeSet::new();
        for change in changes(loaded).filter(|change| change.failure.is_some()) {
            let Some(to) = change.to else { continue };
            failed.insert(change.id.connector.clone());
            if change.failure == Some(FailureClass::Auth) {
                let key = key_at(tx, &change.id.connector, to.revision)?;
                refused.insert((key, to.key_version));
            }
        }
        let mut blame = Self::default();
        for change in changes(loaded) {
            let Some(to) = change.to else { continue };
            let connector = &change.id.connector;
            let version = (key_at(tx, connector, to.revision)?, to.key_version);
            let revision = (connector.clone(), to.revision);
            let is_blamed = nothing_failed || failed.contains(connector);
            let new_version = change
                .from
                .is_none_or(|from| from.key_version != to.key_version)
                && is_pending(tx, &version)?
                && !elsewhere.versions.contains(&version);
            let new_revision = change.from.is_none_or(|from| from.revision != to.revision)
                && !elsewhere.revisions.contains(&revision);
            if new_version && (refused.contains(&version) || (is_blamed && !new_revision)) {
                blame.versions.insert(version);
            } else if new_revision && is_blamed {
                blame.revisions.insert(revision);
            }
        }
        Ok(blame)
    }
}

/// What is proven, and not what a rollout brought: elsewhere, or by its own bindings before it told them.
struct Elsewhere {
    versions: BTreeSet<(KeyName, KeyVersion)>,
    revisions: BTreeSet<(ConnectorName, Revision)>,
}

impl Elsewhere {
    fn find(tx: &Tx<'_>, loaded: &Loaded) -> Result<Self, Error> {
        let mut found = Self {
            versions: BTreeSet::new(),
            revisions: BTreeSet::new(),
        };
        let brought = changes(loaded).filter_map(|change| Some((&change.id, change.to?)));
        let brought: BTreeSet<(&BindingId, Assignment)> = brought.collect();
        for binding in tx.bindings()? {
            let Some(proven) = binding.last_proven else {
                continue;
            };
            if brought.contains(&(&binding.id, proven)) {
                continue;
            }
            let key = key_at(tx, &binding.id.connector, proven.revision)?;
            found.versions.insert((key, proven.key_version));
            found
                .revisions
                .insert((binding.id.connector, proven.revision));
        }
        Ok(found)
    }
}

/// What a rollout left undone waits for an operator, or for something new.
fn hold(
    tx: &Tx<'_>,
    loaded: &Loaded,
    is_left: impl Fn(&Binding, &RolloutBinding) -> bool,
) -> Result<(), Error> {
    for change in changes(loaded) {
        let Some(binding) = tx.binding(&change.id)? else {
            continue;
        };
        if is_left(&binding, change) {
            tx.put_binding(&Binding {
                held_by: Some(loaded.rollout.id),
                ..binding
            })?;
        }
    }
    Ok(())
}

fn changes(loaded: &Loaded) -> impl Iterator<Item = &RolloutBinding> {
    loaded.changes.values().flatten()
}

fn is_pending(tx: &Tx<'_>, (key, version): &(KeyName, KeyVersion)) -> Result<bool, Error> {
    let versions = tx.key_versions(key)?;
    Ok(versions
        .iter()
        .any(|row| row.version == *version && row.state == KeyState::Pending))
}

fn note(tx: &Tx<'_>, loaded: &Loaded, text: String, now: Timestamp) -> Result<(), Error> {
    let event = Event {
        at: now,
        actor: KEYFLEET.to_owned(),
        text,
    };
    tx.add_event(EventScope::Rollout(loaded.rollout.id), &event)?;
    Ok(())
}

/// The Key of a connector at a revision.
pub(crate) fn key_at(
    tx: &Tx<'_>,
    connector: &ConnectorName,
    revision: Revision,
) -> Result<KeyName, Error> {
    let stored = tx.connector(connector, revision)?;
    let name = || format!("{connector} {revision}");
    let stored = stored.ok_or_else(|| Error::NotFound {
        kind: "connector revision",
        name: name(),
    })?;
    Ok(stored.revision.spec.key)
}
