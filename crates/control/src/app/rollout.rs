//! Rollouts: what operators may do to them, and what their end means for keys and revisions.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::Timestamp;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::{ConnectorName, DeploymentId, KeyName, KeyVersion, Revision, RolloutId};
use keyfleet_core::key::KeyState;
use keyfleet_core::rollout::{Event as RunEvent, Phase, Verb};
use keyfleet_core::token::Role;
use keyfleet_store::{Binding, Event, EventScope, Rollout, Tx};

use super::start::{refresh_goals, start_rollouts};
use super::step::{Loaded, load};
use super::{Actor, App, KEYFLEET};
use crate::clock;
use crate::error::Error;

impl App {
    /// Does what an operator says to a rollout.
    pub(crate) async fn change_rollout(
        &self,
        actor: &Actor,
        id: &str,
        verb: Verb,
        reason: &str,
    ) -> Result<RolloutId, Error> {
        actor.must_be(Role::Operator)?;
        let (id, reason) = (id.to_owned(), reason.trim().to_owned());
        let (principal, now) = (actor.principal.clone(), clock::now());
        let changed = move |tx: &Tx<'_>| {
            let rollout = find(tx, &id)?;
            let is_over = matches!(rollout.run.phase, Phase::RolledBack | Phase::Aborted);
            if is_over && verb == Verb::Retry {
                return start_again(tx, rollout, &principal, now);
            }
            let mut loaded = load(tx, rollout)?;
            say(tx, &mut loaded, verb, &principal, &reason, now)?;
            Ok(loaded.rollout.id)
        };
        let id = self.store.write(changed).await?;
        self.changed();
        Ok(id)
    }
}

/// The rollout of this id, or of the one id that begins so.
pub(crate) fn find(tx: &Tx<'_>, id: &str) -> Result<Rollout, Error> {
    let mut found = if id.is_empty() {
        Vec::new()
    } else {
        tx.rollouts_with_prefix(id)?
    };
    match (found.pop(), found.pop()) {
        (Some(rollout), None) => Ok(rollout),
        (Some(_), Some(_)) => Err(Error::Precondition(format!(
            "several rollouts begin with {id:?}: give more of the id"
        ))),
        (None, _) => Err(Error::NotFound {
            kind: "rollout",
            name: id.to_owned(),
        }),
    }
}

fn say(
    tx: &Tx<'_>,
    loaded: &mut Loaded,
    verb: Verb,
    principal: &str,
    reason: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let is_rollback = loaded.rollout.run.phase.is_rollback();
    let text = match reason {
        "" => format!("{principal} said {}", verb.as_str()),
        reason => format!("{principal} said {}: {reason}", verb.as_str()),
    };
    loaded.happen(tx, RunEvent::Verb(verb), &text, principal, now)?;
    match verb {
        Verb::Resume if is_rollback => offer_again(tx, loaded, is_rollback),
        Verb::Resume => forgive(tx, loaded),
        Verb::Retry => offer_again(tx, loaded, is_rollback),
        Verb::Pause | Verb::Abort | Verb::Rollback => Ok(()),
    }
}

/// Failures so far do not count any more: budgets start anew.
fn forgive(tx: &Tx<'_>, loaded: &mut Loaded) -> Result<(), Error> {
    let failed = failed(loaded);
    for target in &mut loaded.targets {
        if failed.contains(&target.deployment) && !target.forgiven {
            target.forgiven = true;
            tx.put_rollout_target(loaded.rollout.id, target)?;
        }
    }
    Ok(())
}

/// Failed deployments wait again: the next offer is a new attempt of the same assignment.
fn offer_again(tx: &Tx<'_>, loaded: &mut Loaded, is_rollback: bool) -> Result<(), Error> {
    let failed = failed(loaded);
    for target in &mut loaded.targets {
        if failed.contains(&target.deployment) {
            if is_rollback {
                target.rollback_at = None;
            } else {
                target.offered_at = None;
            }
            target.forgiven = false;
            tx.put_rollout_target(loaded.rollout.id, target)?;
        }
    }
    Ok(())
}

fn failed(loaded: &Loaded) -> BTreeSet<DeploymentId> {
    let bindings = loaded
        .bindings
        .values()
        .filter(|binding| binding.progress.failure.is_some());
    bindings.map(|binding| binding.id.deployment).collect()
}

/// A rollout that was rolled back or aborted is tried again as a new one.
fn start_again(
    tx: &Tx<'_>,
    rollout: Rollout,
    principal: &str,
    now: Timestamp,
) -> Result<RolloutId, Error> {
    let old = rollout.id;
    let loaded = load(tx, rollout)?;
    let mut connectors = BTreeSet::new();
    for change in loaded.changes.values().flatten() {
        connectors.insert(change.id.connector.clone());
        if let Some(to) = change.to {
            tx.withdraw_connector(&change.id.connector, to.revision, None)?;
            let key = key_at(tx, &change.id.connector, to.revision)?;
            let versions = tx.key_versions(&key)?;
            let abandoned = |v: &&keyfleet_store::KeyVersionRow| {
                v.version == to.key_version && v.state == KeyState::Abandoned
            };
            if versions.iter().any(|v| abandoned(&v)) {
                tx.set_key_state(&key, to.key_version, KeyState::Pending)?;
            }
        }
    }
    for binding in loaded
        .bindings
        .values()
        .filter(|binding| binding.held_by == Some(old))
    {
        tx.put_binding(&Binding {
            held_by: None,
            ..binding.clone()
        })?;
    }
    refresh_goals(tx, now)?;
    let cause = format!("retry of rollout {old}");
    let started = start_rollouts(tx, &connectors, &cause, principal, now)?;
    started.first().copied().ok_or_else(|| {
        Error::Precondition(
            "there is nothing left to retry: every binding has what it shall have".to_owned(),
        )
    })
}

/// What the end of a rollout means beyond itself.
pub(crate) fn finish(tx: &Tx<'_>, loaded: &Loaded, now: Timestamp) -> Result<(), Error> {
    let phase = loaded.rollout.run.phase;
    if phase == Phase::Completed {
        promote(tx, loaded)?;
    } else if phase == Phase::RolledBack {
        withdraw(tx, loaded, now)?;
    } else if phase == Phase::Aborted {
        hold(tx, loaded)?;
    }
    Ok(())
}

/// A key version that every binding was told and that a whole rollout has proven is the current one.
fn promote(tx: &Tx<'_>, loaded: &Loaded) -> Result<(), Error> {
    let mut brought: BTreeSet<(KeyName, KeyVersion)> = BTreeSet::new();
    for change in loaded.changes.values().flatten() {
        if let Some(to) = change.to {
            brought.insert((
                key_at(tx, &change.id.connector, to.revision)?,
                to.key_version,
            ));
        }
    }
    let bindings = tx.bindings()?;
    for (key, version) in brought {
        let mut everybody_has_it = true;
        for binding in bindings.iter().filter(|binding| binding.goal.is_some()) {
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

fn make_current(tx: &Tx<'_>, key: &KeyName, version: KeyVersion) -> Result<(), Error> {
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

/// What was rolled back is not spread again by itself: the refused key version is abandoned, or the
/// revision withdrawn, whichever the failures blame.
fn withdraw(tx: &Tx<'_>, loaded: &Loaded, now: Timestamp) -> Result<(), Error> {
    let refused = |class| class == FailureClass::Auth;
    let blames_key = loaded
        .targets
        .iter()
        .any(|t| t.failure.as_ref().is_some_and(|f| refused(f.class)));
    let mut revisions: BTreeMap<(ConnectorName, Revision), ()> = BTreeMap::new();
    let mut versions: BTreeSet<(KeyName, KeyVersion)> = BTreeSet::new();
    for change in loaded.changes.values().flatten() {
        let Some(to) = change.to else { continue };
        let has_new_revision = change.from.is_none_or(|from| from.revision != to.revision);
        let has_new_version = change
            .from
            .is_none_or(|from| from.key_version != to.key_version);
        let key = key_at(tx, &change.id.connector, to.revision)?;
        let is_pending = tx
            .key_versions(&key)?
            .iter()
            .any(|v| v.version == to.key_version && v.state == KeyState::Pending);
        if has_new_version && is_pending && (blames_key || !has_new_revision) {
            versions.insert((key, to.key_version));
        } else if has_new_revision {
            revisions.insert((change.id.connector.clone(), to.revision), ());
        }
    }
    for (connector, revision) in revisions.into_keys() {
        tx.withdraw_connector(&connector, revision, Some(loaded.rollout.id))?;
        note(
            tx,
            loaded,
            format!("connector {connector} {revision} is withdrawn"),
            now,
        )?;
    }
    for (key, version) in versions {
        tx.set_key_state(&key, version, KeyState::Abandoned)?;
        note(tx, loaded, format!("key {key} {version} is abandoned"), now)?;
    }
    refresh_goals(tx, now)?;
    Ok(())
}

/// What an aborted rollout left undone waits for an operator.
fn hold(tx: &Tx<'_>, loaded: &Loaded) -> Result<(), Error> {
    for binding in loaded
        .bindings
        .values()
        .filter(|binding| !binding.is_told_goal())
    {
        tx.put_binding(&Binding {
            held_by: Some(loaded.rollout.id),
            ..binding.clone()
        })?;
    }
    Ok(())
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

fn key_at(tx: &Tx<'_>, connector: &ConnectorName, revision: Revision) -> Result<KeyName, Error> {
    let stored = tx.connector(connector, revision)?;
    let name = || format!("{connector} {revision}");
    let stored = stored.ok_or_else(|| Error::NotFound {
        kind: "connector revision",
        name: name(),
    })?;
    Ok(stored.revision.spec.key)
}
