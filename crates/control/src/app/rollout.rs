//! What operators may do to rollouts.

mod approve;

use std::collections::BTreeSet;

use keyfleet_core::Timestamp;
use keyfleet_core::binding::BindingState;
use keyfleet_core::id::{DeploymentId, KeyName, KeyVersion, RolloutId};
use keyfleet_core::key::KeyState;
use keyfleet_core::rollout::{Event as RunEvent, Phase, Verb};
use keyfleet_core::token::Role;
use keyfleet_store::{Binding, Event, EventScope, KeyVersionRow, Rollout, Tx};

use super::apply::agree_with_references;
use super::audit::{Act, record};
use super::campaign::of_key;
use super::ending::key_at;
use super::start::{Spread, refresh_goals, start_rollouts};
use super::step::{Loaded, load};
use super::view::Sight;
use super::{Actor, App};
use crate::clock;
use crate::error::Error;
use approve::approve;

impl App {
    /// Does what an operator says to a rollout.
    pub(crate) async fn change_rollout(
        &self,
        actor: &Actor,
        id: &str,
        verb: Verb,
        wave: &str,
        reason: &str,
    ) -> Result<RolloutId, Error> {
        actor.must_be(Role::Operator)?;
        let said = Said {
            verb,
            wave: wave.trim().to_owned(),
            reason: reason.trim().to_owned(),
        };
        let (id, actor, scene) = (id.to_owned(), actor.clone(), self.scene());
        let now = clock::now();
        let changed = move |tx: &Tx<'_>| {
            let sight = Sight::load(tx, &scene, &actor.scope)?;
            let loaded = load(tx, find(&sight, &id)?)?;
            must_see_all(tx, &sight, &loaded, verb, &actor)?;
            change(tx, loaded, &actor, &said, now)
        };
        let id = self.store.write(changed).await?;
        self.changed();
        Ok(id)
    }
}

/// What an operator says to a rollout.
pub(crate) struct Said {
    pub(crate) verb: Verb,
    /// Which wave is approved; empty = the next that asks for it.
    pub(crate) wave: String,
    /// Why; may be empty.
    pub(crate) reason: String,
}

/// Does what an operator says, inside of one transaction. Says which rollout that concerns: trying one again that has
/// ended starts another.
pub(crate) fn change(
    tx: &Tx<'_>,
    mut loaded: Loaded,
    actor: &Actor,
    said: &Said,
    now: Timestamp,
) -> Result<RolloutId, Error> {
    record(tx, actor, act(&loaded, said), now)?;
    let phase = loaded.rollout.run.phase;
    let is_over = phase.is_terminal() && phase != Phase::Superseded;
    if is_over && said.verb == Verb::Retry {
        return start_again(tx, &loaded, &actor.principal, now);
    }
    say(tx, &mut loaded, &actor.principal, said, now)?;
    Ok(loaded.rollout.id)
}

/// Refuses a caller who does not see everything that the verb changes. What goes back takes its revision or key
/// version away from everybody, and what is tried again gives it to everybody: both ask for every deployment that
/// has one of the connectors, or a connector with one of the Keys of which there is another version.
fn must_see_all(
    tx: &Tx<'_>,
    sight: &Sight<'_>,
    loaded: &Loaded,
    verb: Verb,
    actor: &Actor,
) -> Result<(), Error> {
    let mut out_of_sight = BTreeSet::new();
    let mut look = |id: DeploymentId| {
        if !sight.sees(id) {
            out_of_sight.insert(id);
        }
    };
    for target in &loaded.targets {
        look(target.deployment);
    }
    if matches!(verb, Verb::Rollback | Verb::Retry) {
        let (connectors, keys) = (loaded.connectors(), new_keys(tx, loaded)?);
        for binding in tx.bindings()? {
            let connector = &binding.id.connector;
            let key = binding
                .goal
                .map(|goal| key_at(tx, connector, goal.revision));
            let is_of_key = key.transpose()?.is_some_and(|key| keys.contains(&key));
            if is_of_key || connectors.contains(connector) {
                look(binding.id.deployment);
            }
        }
    }
    if out_of_sight.is_empty() {
        return Ok(());
    }
    let (who, scope, more) = (&actor.principal, &actor.scope, out_of_sight.len());
    Err(Error::Forbidden(format!(
        "the token of {who} is for deployments with {scope} only, and this also concerns {more} others"
    )))
}

/// The Keys of which a rollout brings another version.
fn new_keys(tx: &Tx<'_>, loaded: &Loaded) -> Result<BTreeSet<KeyName>, Error> {
    let mut keys = BTreeSet::new();
    for change in loaded.changes.values().flatten() {
        let Some(to) = change.to else { continue };
        if change.from.map(|from| from.key_version) != Some(to.key_version) {
            keys.insert(key_at(tx, &change.id.connector, to.revision)?);
        }
    }
    Ok(keys)
}

fn act(loaded: &Loaded, said: &Said) -> Act {
    let rollout = &loaded.rollout;
    let connectors: Vec<String> = loaded
        .connectors()
        .iter()
        .map(ToString::to_string)
        .collect();
    let (phase, count) = (rollout.run.phase, loaded.targets.len());
    Act {
        action: match said.verb {
            Verb::Pause => "rollout.pause",
            Verb::Resume => "rollout.resume",
            Verb::Abort => "rollout.abort",
            Verb::Rollback => "rollout.rollback",
            Verb::Retry => "rollout.retry",
            Verb::Approve => "rollout.approve",
            Verb::FastForward => "rollout.fast-forward",
        },
        target: format!("rollout {}", rollout.id),
        reason: said.reason.clone(),
        detail: format!(
            "it was {phase}; connectors {}, {count} deployments, cause: {}",
            connectors.join(", "),
            rollout.cause
        ),
    }
}

/// The rollout of this id, or of the one id that begins so, among those in sight.
pub(crate) fn find(sight: &Sight<'_>, id: &str) -> Result<Rollout, Error> {
    let mut found = if id.is_empty() {
        Vec::new()
    } else {
        sight.rollouts_with_prefix(id)?
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
    principal: &str,
    said: &Said,
    now: Timestamp,
) -> Result<(), Error> {
    let (verb, phase) = (said.verb, loaded.rollout.run.phase);
    let event = RunEvent::Verb(verb);
    // What has ended has nothing to approve either.
    phase.next(event)?;
    let (what, is_news) = match verb {
        Verb::Approve => approve(tx, loaded, principal, &said.wave, now)?,
        Verb::Pause
        | Verb::Resume
        | Verb::Abort
        | Verb::Rollback
        | Verb::Retry
        | Verb::FastForward => (format!("{principal} said {}", verb.as_str()), true),
    };
    let text = match said.reason.as_str() {
        "" => what,
        reason => format!("{what}: {reason}"),
    };
    if !is_news {
        // Said twice it changes nothing: the time of the running wave goes on.
        let (at, actor) = (now, principal.to_owned());
        let entry = Event { at, actor, text };
        return Ok(tx.add_event(EventScope::Rollout(loaded.rollout.id), &entry)?);
    }
    let paused_at = loaded.rollout.run.paused_at;
    loaded.happen(tx, event, &text, principal, now)?;
    let is_rollback = phase.is_rollback();
    match verb {
        Verb::Resume if is_rollback => offer_again(tx, loaded, is_rollback),
        Verb::Resume => forgive(tx, loaded, paused_at),
        Verb::Retry => {
            offer_again(tx, loaded, is_rollback)?;
            agree(tx, loaded)
        }
        Verb::Pause | Verb::Abort | Verb::Rollback | Verb::Approve | Verb::FastForward => Ok(()),
    }
}

/// Failures so far do not count any more: budgets start anew. What failed after an operator paused the run is judged
/// when it goes on: whoever paused it could not know of that. Where Keyfleet held it, `resume` is the answer to all of it.
fn forgive(tx: &Tx<'_>, loaded: &mut Loaded, paused_at: Option<Timestamp>) -> Result<(), Error> {
    let failed = failed(loaded);
    let is_later = |binding: &&Binding| {
        let at = binding.progress.at;
        binding.progress.failure.is_some() && paused_at.is_some_and(|paused_at| at > paused_at)
    };
    let later = loaded.bindings.values().filter(is_later);
    let later: BTreeSet<DeploymentId> = later.map(|binding| binding.id.deployment).collect();
    for target in &mut loaded.targets {
        let id = target.deployment;
        if failed.contains(&id) && !later.contains(&id) && !target.forgiven {
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
        if failed.contains(&target.deployment) && (is_rollback || !target.left) {
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

/// Who tries a removal again has been told how many rules and others refer to the connector.
fn agree(tx: &Tx<'_>, loaded: &mut Loaded) -> Result<(), Error> {
    for binding in loaded.bindings.values_mut() {
        let told = binding.desired.map(|told| told.assignment);
        let is_removal = binding.goal.is_none() || told == Some(None);
        if is_removal && binding.progress.state != BindingState::Proven {
            agree_with_references(tx, binding.clone())?;
            binding.references_agreed = binding.references;
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

/// A version that a campaign under way has given up is not brought back behind its back.
fn is_nobodys(tx: &Tx<'_>, key: &KeyName, version: KeyVersion) -> Result<(), Error> {
    for row in of_key(tx, key)? {
        if row.campaign.dying().contains(&version) {
            return Err(Error::Precondition(format!(
                "campaign {} has given {version} of key {key} up: write a new version to Vault",
                row.id
            )));
        }
    }
    Ok(())
}

/// A rollout that has ended is tried again as a new one: for every binding of it that has not what it shall have.
fn start_again(
    tx: &Tx<'_>,
    loaded: &Loaded,
    principal: &str,
    now: Timestamp,
) -> Result<RolloutId, Error> {
    let old = loaded.rollout.id;
    let mut spread = Spread::default();
    for change in loaded.changes.values().flatten() {
        let connector = &change.id.connector;
        spread.changed.insert(connector.clone());
        let Some(to) = change.to else { continue };
        tx.withdraw_connector(connector, to.revision, None)?;
        let key = key_at(tx, connector, to.revision)?;
        let is_abandoned =
            |row: &KeyVersionRow| row.version == to.key_version && row.state == KeyState::Abandoned;
        if tx.key_versions(&key)?.iter().any(is_abandoned) {
            is_nobodys(tx, &key, to.key_version)?;
            tx.set_key_state(&key, to.key_version, KeyState::Pending)?;
        }
    }
    for binding in loaded.bindings.values() {
        if binding.held_by == Some(old) {
            tx.put_binding(&Binding {
                held_by: None,
                ..binding.clone()
            })?;
        }
    }
    refresh_goals(tx, now)?;
    for binding in tx.bindings_in(old)? {
        // What nobody wants and nobody was told of is as it shall be.
        if binding.is_converged() || (binding.goal.is_none() && binding.is_untold()) {
            continue;
        }
        spread.again.insert(binding.id.clone());
        if binding.goal.is_none() {
            agree_with_references(tx, binding)?;
        }
    }
    let cause = format!("retry of rollout {old}");
    let started = start_rollouts(tx, &spread, &cause, principal, now)?;
    started.first().copied().ok_or_else(|| {
        Error::Precondition(
            "there is nothing left to retry: every binding has what it shall have".to_owned(),
        )
    })
}
