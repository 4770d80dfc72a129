//! One step of a rollout, in one transaction: load, plan, save.

mod come;

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::Timestamp;
use keyfleet_core::binding::{Assignment, BindingId, BindingState, Failure};
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::{ConnectorName, DeploymentId, RolloutId};
use keyfleet_core::rollout::{
    Deadline, Event as RunEvent, Phase, Plan, PlanInput, Run, Target, Waiting, plan,
};
use keyfleet_store::{
    Binding, Desired, Event, EventScope, Progress, Rollout, RolloutBinding, RolloutTarget, Tx,
};

use super::KEYFLEET;
use super::andon::words;
use super::audit::record_own;
use super::ending::{finish, key_at};
use super::start::{Spread, start_rollouts};
use crate::error::Error;
use come::{step_of, was_broken};

/// Plans of one step: each applies what the last decided. The planner's own tests show that a handful is enough;
/// the bound turns a mistake into a logged oddity instead of a stuck service.
const PLANS_MAX: usize = 32;

/// What a step needs to know that is not in the database.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) now: Timestamp,
    pub(crate) epoch: u64,
    pub(crate) online: BTreeSet<DeploymentId>,
}

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
}

/// Gives everything that is under way a new beginning: after a start of control nobody was watching, and agents
/// need a moment to come back. Without it every deadline would have passed at once.
pub(crate) fn begin_anew(tx: &Tx<'_>, now: Timestamp) -> Result<(), Error> {
    for rollout in tx.active_rollouts()? {
        let run = Run {
            wave_started_at: now,
            ..rollout.run
        };
        tx.set_run(rollout.id, &run, None)?;
        for mut binding in tx.bindings_in(rollout.id)? {
            let is_under_way = matches!(
                binding.progress.state,
                BindingState::Offered | BindingState::Received | BindingState::Applied
            );
            if is_under_way {
                binding.progress.at = now;
                tx.put_binding(&binding)?;
            }
        }
    }
    Ok(())
}

/// Takes one rollout as far as it goes now.
pub(crate) fn step(tx: &Tx<'_>, rollout: Rollout, around: &Surroundings) -> Result<Outcome, Error> {
    let andon = tx.andon()?.as_ref().map(words);
    let mut loaded = load(tx, rollout)?;
    let mut outcome = Outcome::default();
    for _ in 0..PLANS_MAX {
        let targets = loaded.plan_targets(tx, &around.online)?;
        let plan = plan(&PlanInput {
            now: around.now,
            andon: andon.as_deref(),
            strategy: &loaded.rollout.strategy,
            run: &loaded.rollout.run,
            targets: &targets,
        });
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
    })
}

impl Loaded {
    /// The targets as the planner sees them.
    pub(crate) fn plan_targets(
        &self,
        tx: &Tx<'_>,
        online: &BTreeSet<DeploymentId>,
    ) -> Result<Vec<Target>, Error> {
        let mut targets = Vec::with_capacity(self.targets.len());
        let mut assignable = BTreeMap::new();
        for target in &self.targets {
            let mut can_roll_back = true;
            for change in self.changes_of(target.deployment) {
                can_roll_back &= self.can_return(tx, change, &mut assignable)?;
            }
            let bindings = || {
                self.changes_of(target.deployment)
                    .iter()
                    .filter_map(|c| self.bindings.get(&c.id))
            };
            targets.push(Target {
                deployment: target.deployment,
                wave: target.wave,
                step: step_of(target, bindings().map(|binding| &binding.progress)),
                online: online.contains(&target.deployment),
                baseline_red: was_broken(bindings().map(|binding| &binding.progress)),
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

    /// True where what the binding had before can be had again; nothing is always to be had.
    fn can_return(
        &self,
        tx: &Tx<'_>,
        change: &RolloutBinding,
        assignable: &mut BTreeMap<(ConnectorName, Assignment), bool>,
    ) -> Result<bool, Error> {
        let Some(from) = change.from else {
            return Ok(true);
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
        let phase = self.rollout.run.phase.next(event)?;
        let run = &mut self.rollout.run;
        let is_new = phase != run.phase;
        run.phase = phase;
        if let RunEvent::WaveStarted(wave) = event {
            run.wave = wave;
            run.wave_started_at = now;
        }
        if matches!(event, RunEvent::Verb(_)) && phase == Phase::Progressing {
            run.wave_started_at = now;
        }
        if event == RunEvent::RollbackFinished {
            // Why it went back matters more than that it has arrived.
            run.hold_reason = format!("{}; {reason}", run.hold_reason);
        } else if is_new {
            run.hold_reason = if phase == Phase::Progressing {
                String::new()
            } else {
                reason.to_owned()
            };
        }
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

    fn time_out(
        &mut self,
        tx: &Tx<'_>,
        deployment: DeploymentId,
        deadline: Deadline,
        now: Timestamp,
    ) -> Result<(), Error> {
        let text = format!(
            "the {} deadline passed without an answer",
            deadline.as_str()
        );
        let ids: Vec<BindingId> = self
            .changes_of(deployment)
            .iter()
            .map(|change| change.id.clone())
            .collect();
        for id in ids {
            let Some(binding) = self.bindings.get_mut(&id) else {
                continue;
            };
            if binding.progress.state != BindingState::Proven {
                let failure = Failure {
                    class: FailureClass::Timeout,
                    text: text.clone(),
                };
                binding.progress.state = BindingState::Failed;
                binding.progress.at = now;
                binding.progress.failure = Some(failure);
                tx.put_binding(binding)?;
            }
        }
        Ok(())
    }

    /// Writes what a deployment shall have into its desired state, holdings first.
    fn tell(
        &mut self,
        tx: &Tx<'_>,
        deployment: DeploymentId,
        direction: Direction,
        around: &Surroundings,
    ) -> Result<(), Error> {
        let generation = tx.next_generation(deployment, around.epoch)?;
        let floor = tx.floors()?.attempt;
        let mut changes = self.changes.remove(&deployment).unwrap_or_default();
        let mut failure = None;
        for change in &mut changes {
            let assignment = match direction {
                Direction::Forward => change.to,
                Direction::Back => change.from,
            };
            let Some(binding) = self.bindings.get_mut(&change.id) else {
                continue;
            };
            if let Some(assignment) = assignment {
                let key = key_at(tx, &change.id.connector, assignment.revision)?;
                tx.open_holding(&change.id, &key, assignment.key_version, around.now)?;
            }
            if let (Direction::Back, Some(failed)) = (direction, &binding.progress.failure) {
                tx.blame(self.rollout.id, &change.id, failed.class)?;
                change.failure = Some(failed.class);
                failure = failure.or(Some(failed.clone()));
            }
            let is_same = binding
                .desired
                .is_some_and(|told| told.assignment == assignment);
            let tried = binding.desired.map_or(0, |told| told.attempt);
            binding.desired = Some(Desired {
                assignment,
                // Never counts anew: an answer to an older try must not pass for an answer to this one.
                attempt: tried.max(floor) + 1,
                generation,
            });
            // A retry of the same is still judged by what was there before the first try.
            let is_new = direction == Direction::Forward && !is_same;
            let baseline_ok = binding.progress.baseline_ok.filter(|_| !is_new);
            let state = BindingState::Offered;
            binding.progress = Progress {
                state,
                at: around.now,
                failure: None,
                baseline_ok,
            };
            tx.put_binding(binding)?;
        }
        self.changes.insert(deployment, changes);
        if let Some(target) = self.targets.iter_mut().find(|t| t.deployment == deployment) {
            match direction {
                Direction::Forward => target.offered_at = Some(around.now),
                Direction::Back => {
                    target.rollback_at = Some(around.now);
                    target.failure = target.failure.take().or(failure);
                }
            }
            tx.put_rollout_target(self.rollout.id, target)?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Back,
}

/// Steps every active rollout; leftovers that waited for one that ended are started.
pub(crate) fn step_all(
    tx: &Tx<'_>,
    around: &Surroundings,
) -> Result<BTreeMap<RolloutId, Outcome>, Error> {
    let mut outcomes: BTreeMap<RolloutId, Outcome> = BTreeMap::new();
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
