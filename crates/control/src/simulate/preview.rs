//! The preview: what manifests would do to a fleet, tried on a copy of the database and a model of everything else.
//!
//! When a deployment was offered the change and when it settled is read from the copy once nothing happens any more:
//! what was in flight, and for how long, follows from that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::binding::BindingState;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::fleet::Labels;
use keyfleet_core::id::{DeploymentId, RolloutId};
use keyfleet_core::rollout::{Phase, Verb};
use keyfleet_proto::{Invalid, v1};
use keyfleet_store::{EventScope, Rollout, RolloutTarget, Scratch, Tx};

use super::fleet::made_up;
use super::{Conditions, Simulation};
use crate::app::start::refresh_goals;
use crate::error::Error;

/// The largest made-up fleet: the most that one control serves.
pub(crate) const DEPLOYMENTS_MAX: u32 = 20_000;

/// What has not ended by then, in virtual time, stays as it is: longer than any window is away.
const LONGEST: Duration = Duration::from_secs(400 * 86_400);

/// A run that is held and quiet for so long is held for ever: nobody is there to let it go on.
const HELD: Duration = Duration::from_secs(3_600);

/// Virtual time between two looks at the rollouts.
const LOOK: Duration = Duration::from_secs(1);

/// Happenings between two reports.
const REPORT_EACH: u32 = 256;

/// Sentences of one rollout that are shown.
const EVENTS_MAX: u32 = 40;

/// What is tried.
pub(crate) struct Preview {
    /// The database after the manifests were applied to it.
    pub(crate) scratch: Scratch,
    /// Names of the deployments whose agents are away.
    pub(crate) away: Vec<String>,
    /// When it starts.
    pub(crate) start: Timestamp,
    /// The same seed gives the same answer.
    pub(crate) seed: u64,
    /// What goes wrong.
    pub(crate) conditions: Conditions,
}

/// Hears how far it is; false = nobody wants the answer any more.
pub(crate) type Report<'a> = &'a mut dyn FnMut(v1::SimulationProgress) -> bool;

/// A deployment of a run, as it ended.
struct Fate {
    wave: usize,
    offered: Option<Timestamp>,
    settled: Option<Timestamp>,
    back: Option<Timestamp>,
    is_proven: bool,
    has_failed: bool,
}

/// How one try ended.
struct Tried {
    simulation: Simulation,
    start: Timestamp,
    /// When each run stopped going on, and each ended.
    stopped: BTreeMap<RolloutId, Timestamp>,
    notes: BTreeSet<String>,
}

impl Preview {
    /// Tries it, and then the worst case of each budget. `None` where nobody wants the answer any more.
    ///
    /// # Errors
    /// Where the database in memory fails.
    pub(crate) fn run(&self, report: Report<'_>) -> Result<Option<v1::SimulationResult>, Error> {
        let Some(tried) = self.attempt(&self.conditions, "as asked", report)? else {
            return Ok(None);
        };
        let mut result = v1::SimulationResult {
            seed: self.seed,
            ..Default::default()
        };
        let mut classes = BTreeSet::new();
        for rollout in tried.rollouts()? {
            classes.extend(rollout.strategy.budgets.iter().filter_map(|b| b.class));
            result.rollouts.push(tried.rollout(&rollout)?);
        }
        let fleet = tried.simulation.look(|tx| Ok(tx.deployments()?.len()))?;
        result.deployments = u32::try_from(fleet).unwrap_or(u32::MAX);
        result.notes.extend(tried.notes);
        result
            .notes
            .push("agents and Kibanas are models; gates pass".to_owned());
        for class in classes {
            let what = format!("every deployment fails with {class}");
            let conditions = Conditions::all_fail(class);
            let Some(tried) = self.attempt(&conditions, &what, report)? else {
                return Ok(None);
            };
            result.worst_cases.extend(tried.worst_case(class)?);
        }
        Ok(Some(result))
    }

    fn attempt(
        &self,
        conditions: &Conditions,
        what: &str,
        report: Report<'_>,
    ) -> Result<Option<Tried>, Error> {
        let scratch = self.scratch.fork()?;
        let mut simulation = Simulation::new(scratch, self.start, self.seed, conditions)?;
        simulation.keep_no_log();
        for name in &self.away {
            simulation.connect(name, false);
        }
        let mut tried = Tried {
            simulation,
            start: self.start,
            stopped: BTreeMap::new(),
            notes: BTreeSet::new(),
        };
        tried.approve()?;
        let is_wanted = tried.go_on(what, report)?;
        Ok(is_wanted.then_some(tried))
    }
}

impl Tried {
    /// Whoever has to agree does so at once.
    fn approve(&mut self) -> Result<(), Error> {
        for rollout in self.rollouts()? {
            for wave in &rollout.strategy.waves {
                let Some(approval) = wave.approval else {
                    continue;
                };
                self.notes.insert(format!(
                    "wave {} waits for {} to agree: here they do so at once",
                    wave.name, approval.required
                ));
                for number in 0..approval.required {
                    let who = format!("approver {}", number + 1);
                    self.simulation
                        .say(rollout.id, Verb::Approve, &who, &wave.name, "preview")?;
                }
            }
        }
        Ok(())
    }

    /// Until every run has ended or is held; false where nobody wants the answer any more.
    fn go_on(&mut self, what: &str, report: Report<'_>) -> Result<bool, Error> {
        let (mut happened, mut looked, mut changed) = (0_u32, self.start, self.start);
        let (mut progress, mut counted) = (v1::SimulationProgress::default(), 0);
        let mut last = Vec::new();
        while let Some(now) = self.simulation.advance()? {
            happened = happened.saturating_add(1);
            if happened.is_multiple_of(REPORT_EACH) {
                // Counting looks at every deployment: so it happens about once for as many happenings.
                if happened - counted >= progress.deployments {
                    (progress, counted) = (self.simulation.look(settled)?, happened);
                }
                progress.virtual_secs = since(self.start, now).as_secs();
                progress.now = what.to_owned();
                if !report(progress.clone()) {
                    return Ok(false);
                }
            }
            if since(looked, now) < LOOK {
                continue;
            }
            looked = now;
            let active = self.simulation.look(|tx| Ok(tx.active_rollouts()?))?;
            let phases: Vec<_> = active.iter().map(|r| (r.id, r.run.phase)).collect();
            if phases != last {
                changed = now;
            }
            for (id, phase) in &phases {
                if *phase != Phase::Progressing && *phase != Phase::Pending {
                    self.stopped.entry(*id).or_insert(now);
                }
            }
            let is_held = phases.iter().all(|(_, phase)| is_held(*phase));
            if (is_held && since(changed, now) >= HELD) || since(self.start, now) > LONGEST {
                break;
            }
            if phases.is_empty() {
                break;
            }
            last = phases;
        }
        Ok(true)
    }

    /// The runs that were under way at the start or came later, the oldest first.
    fn rollouts(&self) -> Result<Vec<Rollout>, Error> {
        let start = self.start;
        let mut rollouts = self.simulation.look(|tx| Ok(tx.rollouts(u32::MAX)?))?;
        rollouts.retain(|rollout| rollout.ended_at.is_none_or(|ended| ended > start));
        rollouts.sort_by(|a, b| (a.started_at, &a.cause).cmp(&(b.started_at, &b.cause)));
        Ok(rollouts)
    }

    fn secs(&self, at: Timestamp) -> u64 {
        since(self.start, at).as_secs()
    }

    fn rollout(&self, rollout: &Rollout) -> Result<v1::SimulatedRollout, Error> {
        let fates = self.simulation.look(|tx| fates(tx, rollout))?;
        let events = self
            .simulation
            .look(|tx| Ok(tx.events(EventScope::Rollout(rollout.id), EVENTS_MAX)?))?;
        let ended = rollout.ended_at.unwrap_or_else(|| self.simulation.now());
        let begins = |index: usize| {
            let of_wave = fates.iter().filter(|fate| fate.wave == index);
            of_wave.filter_map(|fate| fate.offered).min()
        };
        let waves = rollout.strategy.waves.iter().enumerate();
        let waves = waves.map(|(index, wave)| {
            let of_wave: Vec<&Fate> = fates.iter().filter(|fate| fate.wave == index).collect();
            let count = |is: fn(&Fate) -> bool| number(of_wave.iter().filter(|f| is(f)).count());
            let proven = of_wave.iter().filter(|fate| fate.is_proven);
            let later = (index + 1..rollout.strategy.waves.len()).find_map(begins);
            let is_done = rollout.run.phase == Phase::Completed;
            let ends = later.or(begins(index).filter(|_| is_done).map(|_| ended));
            v1::SimulatedWave {
                name: wave.name.clone(),
                deployments: number(of_wave.len()),
                begins_secs: begins(index).map(|at| self.secs(at)),
                proven_secs: proven
                    .filter_map(|f| f.settled)
                    .max()
                    .map(|at| self.secs(at)),
                ends_secs: ends.map(|at| self.secs(at)),
                proven: count(|fate| fate.is_proven),
                failed: count(|fate| fate.has_failed),
                offline: count(|fate| !fate.is_proven && !fate.has_failed),
                in_flight_max: most(of_wave.iter().filter_map(|f| Some((f.offered?, f.settled)))),
            }
        });
        Ok(v1::SimulatedRollout {
            cause: rollout.cause.clone(),
            strategy: rollout.strategy.name.to_string(),
            waves: waves.collect(),
            phase: v1::RolloutPhase::from(rollout.run.phase).into(),
            reason: rollout.run.hold_reason.clone(),
            ends_secs: self.secs(ended),
            events: events
                .into_iter()
                .map(|event| v1::SimulatedEvent {
                    at_secs: self.secs(event.at),
                    text: event.text,
                })
                .collect(),
        })
    }

    /// What the run that breaks most looks like.
    fn worst_case(&self, class: FailureClass) -> Result<Option<v1::WorstCase>, Error> {
        let mut worst: Option<v1::WorstCase> = None;
        for rollout in self.rollouts()? {
            let fates = self.simulation.look(|tx| fates(tx, &rollout))?;
            let hurt = || fates.iter().filter(|fate| fate.has_failed);
            let broken_max = most(hurt().filter_map(|fate| Some((fate.offered?, fate.back))));
            if worst.as_ref().is_some_and(|w| w.broken_max >= broken_max) {
                continue;
            }
            let ended = rollout.ended_at.unwrap_or_else(|| self.simulation.now());
            let held = self.stopped.get(&rollout.id).copied().unwrap_or(ended);
            let are_back = hurt().all(|fate| fate.back.is_some());
            let back = hurt()
                .filter_map(|fate| fate.back)
                .max()
                .filter(|_| are_back);
            let phase = rollout.run.phase;
            let end = match back {
                Some(at) => format!("all are back after {} s", self.secs(at)),
                None => "they stay so until an operator acts".to_owned(),
            };
            worst = Some(v1::WorstCase {
                failure_class: v1::FailureClass::from(class).into(),
                broken_max,
                phase: v1::RolloutPhase::from(phase).into(),
                held_secs: self.secs(held),
                back_secs: back.map(|at| self.secs(at)),
                sentence: format!(
                    "if every deployment failed with {class}, at most {broken_max} would be broken at a time; the rollout ends {phase}, and {end}"
                ),
            });
        }
        Ok(worst)
    }
}

/// Takes the place of the deployments with `n` made-up ones that have nothing yet.
///
/// # Errors
/// Where the database fails, or a label cannot be one.
pub(crate) fn make_up(
    tx: &Tx<'_>,
    n: u32,
    labels: &BTreeMap<String, Vec<String>>,
    seed: u64,
    now: Timestamp,
) -> Result<(), Error> {
    if n > DEPLOYMENTS_MAX {
        let problem = format!("is {n}, and at most {DEPLOYMENTS_MAX} are tried");
        return Err(Invalid::new("deployments", problem).into());
    }
    for mut rollout in tx.active_rollouts()? {
        rollout.run.phase = Phase::Aborted;
        tx.set_run(rollout.id, &rollout.run, Some(now))?;
    }
    for row in tx.deployments()? {
        tx.remove_deployment(row.id, "preview", now)?;
    }
    for number in 0..n {
        let index = usize::try_from(number).unwrap_or_default();
        let own = labels.iter().filter_map(|(key, values)| {
            let value = values.get(index % values.len().max(1))?;
            Some((key.clone(), value.clone()))
        });
        let own: Labels = own.collect();
        let id = u128::from(seed) << 64 | u128::from(number + 1);
        let id = DeploymentId::new(uuid::Uuid::from_u128(id));
        let name = format!("sim-{:04}", number + 1);
        tx.insert_deployment(&made_up(id, &name, own, now)?)?;
    }
    refresh_goals(tx, now)?;
    Ok(())
}

/// How many deployments of the active runs have settled.
fn settled(tx: &Tx<'_>) -> Result<v1::SimulationProgress, Error> {
    let mut progress = v1::SimulationProgress::default();
    for rollout in tx.active_rollouts()? {
        for fate in fates(tx, &rollout)? {
            progress.deployments += 1;
            progress.settled += u32::from(fate.settled.is_some());
        }
    }
    Ok(progress)
}

/// How each deployment of a run stands: it is as good as its worst binding.
fn fates(tx: &Tx<'_>, rollout: &Rollout) -> Result<Vec<Fate>, Error> {
    let mut rows = BTreeMap::new();
    for row in tx.bindings_in(rollout.id)? {
        rows.insert(row.id.clone(), row);
    }
    let mut changes: BTreeMap<DeploymentId, Vec<_>> = BTreeMap::new();
    for change in tx.rollout_bindings(rollout.id)? {
        changes
            .entry(change.id.deployment)
            .or_default()
            .push(change);
    }
    let fate = |target: RolloutTarget| {
        let own = changes
            .get(&target.deployment)
            .map_or(&[][..], Vec::as_slice);
        let found: Vec<_> = own
            .iter()
            .map(|change| (change, rows.get(&change.id)))
            .collect();
        // What was removed has no row any more.
        let has_it = found.iter().all(|(change, row)| {
            row.map_or(change.to.is_none(), |row| {
                let told = row.desired.and_then(|desired| desired.assignment);
                told == change.to && row.progress.state == BindingState::Proven
            })
        });
        let failed = target.failure.is_some()
            || found.iter().any(|(change, row)| {
                let is_failed = row.is_some_and(|row| row.progress.state == BindingState::Failed);
                is_failed || change.failure.is_some()
            });
        let last = found
            .iter()
            .filter_map(|(_, row)| Some(row.as_ref()?.progress.at))
            .max();
        let is_proven = target.offered_at.is_some() && has_it;
        let is_back = target.rollback_at.is_some()
            && found
                .iter()
                .all(|(_, row)| row.is_none_or(|row| row.progress.state == BindingState::Proven));
        let settled = target.rollback_at.or(last.filter(|_| is_proven || failed));
        Fate {
            wave: target.wave,
            offered: target.offered_at,
            settled,
            back: last.or(target.rollback_at).filter(|_| is_back),
            is_proven,
            has_failed: failed,
        }
    };
    Ok(tx
        .rollout_targets(rollout.id)?
        .into_iter()
        .map(fate)
        .collect())
}

/// How many spans are open at the same time, at most; one without an end never closes.
fn most(spans: impl Iterator<Item = (Timestamp, Option<Timestamp>)>) -> u32 {
    let mut steps = Vec::new();
    for (from, until) in spans {
        steps.push((from, 1));
        // Who leaves makes room before the next one comes.
        steps.extend(until.map(|until| (until.max(from), -1)));
    }
    steps.sort_unstable();
    let (mut now, mut most) = (0_i64, 0_i64);
    for (_, step) in steps {
        now += step;
        most = most.max(now);
    }
    u32::try_from(most).unwrap_or_default()
}

fn is_held(phase: Phase) -> bool {
    matches!(
        phase,
        Phase::Paused | Phase::Halted | Phase::RollbackPaused | Phase::RollbackHalted
    )
}

fn since(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
