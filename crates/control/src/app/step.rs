//! One step of a rollout, in one transaction: load, plan, save.

mod anew;
mod come;
mod sites;
mod tell;

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::Timestamp;
use keyfleet_core::binding::{Assignment, BindingId, BindingState};
use keyfleet_core::id::{ConnectorName, DeploymentId, RolloutId};
use keyfleet_core::rollout::{
    Event as RunEvent, Phase, Plan, PlanInput, Target, Waiting, is_past_deadline, plan,
};
use keyfleet_store::{Binding, Event, EventScope, Rollout, RolloutBinding, RolloutTarget, Tx};

use super::KEYFLEET;
use super::andon::words;
use super::audit::record_own;
use super::ending::{finish, key_at, release};
use super::start::{Exchanges, NOBODY_LEFT, Spread, start_rollouts, supersede};
use crate::error::Error;
pub(crate) use anew::{begin_again, begin_anew, is_under_way};
use come::{come, step_of, was_broken};
use sites::Sites;
use tell::Direction;

/// Plans of one step: each applies what the last decided. The planner's own tests show that a handful is enough;
/// the bound turns a mistake into a logged oddity instead of a stuck service.
const PLANS_MAX: usize = 32;

/// What a step needs to know that is not in the database.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) now: Timestamp,
    pub(crate) epoch: u64,
    pub(crate) online: BTreeSet<DeploymentId>,
    /// Since when each could make live calls, where agents wait for their turn.
    pub(crate) turns: BTreeMap<DeploymentId, Timestamp>,
    /// Sees every decision before it is carried out: what tests check it with.
    pub(crate) watch: Watch,
}

/// Somebody who looks at decisions.
pub(crate) type Watch = fn(&PlanInput<'_>, &Plan);

/// Nobody looks.
pub(crate) fn unwatched(_: &PlanInput<'_>, _: &Plan) {}

/// What a step did.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Deployments whose desired state changed.
    pub(crate) touched: BTreeSet<DeploymentId>,
    /// Why the rollout waits.
    pub(crate) waiting: Vec<Waiting>,
    /// When to look again without news.
    pub(crate) wake_at: Option<Timestamp>,
    /// The rollout ended.
    pub(crate) ended: bool,
    /// What its end changed for others.
    spread: Spread,
}

/// A rollout with everything that belongs to it.
pub(crate) struct Loaded {
    pub(crate) rollout: Rollout,
    pub(crate) targets: Vec<RolloutTarget>,
    pub(crate) changes: BTreeMap<DeploymentId, Vec<RolloutBinding>>,
    pub(crate) bindings: BTreeMap<BindingId, Binding>,
    pub(super) exchanges: Exchanges,
}

/// Takes one rollout as far as it goes now.
pub(crate) fn step(tx: &Tx<'_>, rollout: Rollout, around: &Surroundings) -> Result<Outcome, Error> {
    let andon = tx.andon()?.as_ref().map(words);
    let mut loaded = load(tx, rollout)?;
    let mut outcome = Outcome::default();
    if !loaded.take_leave(tx, around.now)? {
        supersede(tx, &loaded.rollout, NOBODY_LEFT, around.now)?;
        outcome.ended = true;
        return Ok(outcome);
    }
    for _ in 0..PLANS_MAX {
        let targets = loaded.plan_targets(tx, around.now, &around.online, &around.turns)?;
        let input = PlanInput {
            now: around.now,
            andon: andon.as_deref(),
            strategy: &loaded.rollout.strategy,
            run: &loaded.rollout.run,
            targets: &targets,
        };
        let plan = plan(&input);
        (around.watch)(&input, &plan);
        let is_quiet = plan.offer.is_empty()
            && plan.roll_back.is_empty()
            && plan.timed_out.is_empty()
            && plan.events.is_empty();
        outcome.waiting.clone_from(&plan.waiting_on);
        outcome.wake_at = plan.wake_at;
        if is_quiet {
            return Ok(outcome);
        }
        loaded.apply(tx, &plan, around, &mut outcome)?;
        if loaded.rollout.run.phase.is_terminal() {
            outcome.ended = true;
            outcome.waiting.clear();
            outcome.wake_at = None;
            return Ok(outcome);
        }
    }
    tracing::warn!(rollout.id = %loaded.rollout.id, "the planner did not come to rest; it goes on at the next change");
    Ok(outcome)
}

/// Loads a rollout with everything that belongs to it.
pub(crate) fn load(tx: &Tx<'_>, rollout: Rollout) -> Result<Loaded, Error> {
    let targets = tx.rollout_targets(rollout.id)?;
    let mut changes: BTreeMap<DeploymentId, Vec<RolloutBinding>> = BTreeMap::new();
    for change in tx.rollout_bindings(rollout.id)? {
        changes
            .entry(change.id.deployment)
            .or_default()
            .push(change);
    }
    let bindings = tx.bindings_in(rollout.id)?;
    let bindings = bindings
        .into_iter()
        .map(|binding| (binding.id.clone(), binding))
        .collect();
    Ok(Loaded {
        rollout,
        targets,
        changes,
        bindings,
        exchanges: Exchanges::load(tx)?,
    })
}

impl Loaded {
    /// True where the running wave's deadline has passed, also while that is not judged.
    pub(crate) fn is_past_deadline(&self, tx: &Tx<'_>, now: Timestamp) -> Result<bool, Error> {
        // Who is connected, and whose turn it is, says nothing about that.
        let targets = self.plan_targets(tx, now, &BTreeSet::new(), &BTreeMap::new())?;
        Ok(is_past_deadline(&PlanInput {
            now,
            andon: None,
            strategy: &self.rollout.strategy,
            run: &self.rollout.run,
            targets: &targets,
        }))
    }

    /// The targets as the planner sees them.
    pub(crate) fn plan_targets(
        &self,
        tx: &Tx<'_>,
        now: Timestamp,
        online: &BTreeSet<DeploymentId>,
        turns: &BTreeMap<DeploymentId, Timestamp>,
    ) -> Result<Vec<Target>, Error> {
        let mut targets = Vec::with_capacity(self.targets.len());
        let mut assignable = BTreeMap::new();
        let mut sites = Sites::load(tx, &self.rollout.strategy, now)?;
        for target in &self.targets {
            let mut can_roll_back = true;
            for change in self.changes_of(target.deployment) {
                can_roll_back &= self.can_return(tx, change, &mut assignable)?;
            }
            let come = come(self, target, turns.get(&target.deployment).copied());
            targets.push(Target {
                deployment: target.deployment,
                wave: target.wave,
                group: sites.group(target),
                offered_at: target.offered_at,
                rollback_at: target.rollback_at,
                opening: sites.opening(target.deployment),
                shut: sites.shut(target, &self.rollout.run),
                left: target.left,
                step: step_of(target, &come),
                online: online.contains(&target.deployment),
                baseline_red: was_broken(&come),
                forgiven: target.forgiven,
                can_roll_back,
            });
        }
        Ok(targets)
    }

    /// The connectors that it changes.
    pub(crate) fn connectors(&self) -> BTreeSet<ConnectorName> {
        let changes = self.changes.values().flatten();
        changes.map(|change| change.id.connector.clone()).collect()
    }

    pub(crate) fn changes_of(&self, deployment: DeploymentId) -> &[RolloutBinding] {
        self.changes.get(&deployment).map_or(&[], Vec::as_slice)
    }

    /// The newer bindings of this run on the same deployment that a removal of it waits for: those that are not proven yet.
    fn waits_for(&self, change: &RolloutBinding) -> impl Iterator<Item = &Binding> {
        let is_removal = change.to.is_none() && !self.exchanges.is_empty();
        let all = if is_removal {
            self.changes_of(change.id.deployment)
        } else {
            &[]
        };
        let newer = all.iter().filter(move |newer| {
            let (newer, older) = (&newer.id.connector, &change.id.connector);
            self.exchanges.is_pair(newer, older)
        });
        newer
            .filter(|newer| newer.to.is_some())
            .filter_map(|newer| self.bindings.get(&newer.id))
    }

    /// True where what the binding had before can be had again. Nothing is always to be had, but not where there was
    /// something that was never ours.
    fn can_return(
        &self,
        tx: &Tx<'_>,
        change: &RolloutBinding,
        assignable: &mut BTreeMap<(ConnectorName, Assignment), bool>,
    ) -> Result<bool, Error> {
        let Some(from) = change.from else {
            let binding = self.bindings.get(&change.id);
            let is_adopted = binding.is_some_and(|binding| binding.adopted_id.is_some());
            // What never was proven could only be removed, before what takes its place is proven.
            let is_exchanged = self.waits_for(change).next().is_some();
            return Ok(!is_adopted && !is_exchanged);
        };
        let cache_key = (change.id.connector.clone(), from);
        if let Some(known) = assignable.get(&cache_key) {
            return Ok(*known);
        }
        let key = key_at(tx, &change.id.connector, from.revision)?;
        let versions = tx.key_versions(&key)?;
        let may = versions
            .iter()
            .any(|v| v.version == from.key_version && v.may_be_assigned());
        assignable.insert(cache_key, may);
        Ok(may)
    }

    fn apply(
        &mut self,
        tx: &Tx<'_>,
        plan: &Plan,
        around: &Surroundings,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        for (deployment, deadline) in &plan.timed_out {
            self.time_out(tx, *deployment, *deadline, around.now)?;
        }
        for deployment in &plan.offer {
            self.tell(tx, *deployment, Direction::Forward, around)?;
            outcome.touched.insert(*deployment);
        }
        for deployment in &plan.roll_back {
            self.tell(tx, *deployment, Direction::Back, around)?;
            outcome.touched.insert(*deployment);
        }
        for (event, reason) in &plan.events {
            outcome.spread = self.happen(tx, *event, reason, KEYFLEET, around.now)?;
        }
        Ok(())
    }

    /// Changes the phase, writes it down, and does what the end of a rollout asks for.
    pub(crate) fn happen(
        &mut self,
        tx: &Tx<'_>,
        event: RunEvent,
        reason: &str,
        actor: &str,
        now: Timestamp,
    ) -> Result<Spread, Error> {
        let run = &mut self.rollout.run;
        let is_new = run.happen(event, reason, now)?;
        let phase = run.phase;
        let ended_at = phase.is_terminal().then_some(now);
        tx.set_run(self.rollout.id, run, ended_at)?;
        if is_new && !matches!(event, RunEvent::Verb(_)) {
            self.record_hold(tx, phase, reason, now)?;
        }
        let text = match (reason.is_empty(), is_new) {
            (true, _) => format!("{event:?}"),
            (false, true) => format!("{phase}: {reason}"),
            (false, false) => reason.to_owned(),
        };
        let entry = Event {
            at: now,
            actor: actor.to_owned(),
            text,
        };
        tx.add_event(EventScope::Rollout(self.rollout.id), &entry)?;
        if phase.is_terminal() {
            return finish(tx, self, now);
        }
        Ok(Spread::default())
    }

    /// What Keyfleet itself holds or takes back is in the audit log beside what operators say.
    fn record_hold(
        &self,
        tx: &Tx<'_>,
        phase: Phase,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        let action = match phase {
            Phase::Paused | Phase::RollbackPaused => "rollout.pause",
            Phase::Halted | Phase::RollbackHalted => "rollout.halt",
            Phase::RollingBack => "rollout.rollback",
            Phase::Pending
            | Phase::Progressing
            | Phase::Completed
            | Phase::RolledBack
            | Phase::Aborted
            | Phase::Superseded => return Ok(()),
        };
        let target = format!("rollout {}", self.rollout.id);
        record_own(tx, action, target, reason.to_owned(), now)
    }
}

/// True where a live call has succeeded, or nobody waits for one.
fn is_proven(binding: &Binding) -> bool {
    matches!(
        binding.progress.state,
        BindingState::Proven | BindingState::Waived
    )
}

/// Steps every active rollout; leftovers that waited for one that ended are started.
pub(crate) fn step_all(
    tx: &Tx<'_>,
    around: &Surroundings,
) -> Result<BTreeMap<RolloutId, Outcome>, Error> {
    let mut outcomes: BTreeMap<RolloutId, Outcome> = BTreeMap::new();
    if release(tx, &around.online)? {
        let cause = "deployments that were away when a rollout ended";
        start_rollouts(tx, &Spread::default(), cause, KEYFLEET, around.now)?;
    }
    // Each round may end rollouts, and an end may let others start or set them aside; only finitely many bindings
    // wait.
    loop {
        let mut spread = Spread::default();
        let mut any_ended = false;
        for rollout in tx.active_rollouts()? {
            let id = rollout.id;
            let mut outcome = step(tx, rollout, around)?;
            any_ended |= outcome.ended;
            spread = std::mem::take(&mut outcome.spread);
            if let Some(older) = outcomes.remove(&id) {
                outcome.touched.extend(older.touched);
            }
            outcomes.insert(id, outcome);
            if !spread.changed.is_empty() {
                // What was withdrawn concerns the rollouts behind this one: they are looked up anew.
                break;
            }
        }
        let cause = match spread.changed.is_empty() {
            true => "deployments or connectors that waited for another rollout",
            false => "another rollout withdrew what these bindings were to have",
        };
        let started = start_rollouts(tx, &spread, cause, KEYFLEET, around.now)?;
        if started.is_empty() && !any_ended {
            return Ok(outcomes);
        }
    }
}
