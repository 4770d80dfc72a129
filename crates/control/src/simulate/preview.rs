//! The preview: what manifests would do to a fleet, tried on a copy of the database and a model of everything else.
//!
//! When a deployment was offered the change and when it settled is read from the copy once nothing happens any more:
//! what was in flight, and for how long, follows from that.

mod fates;
mod make_up;
mod told;
mod worst;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::id::{DeploymentId, RolloutId};
use keyfleet_core::rollout::{GateState, Phase, Verb, Verdict};
use keyfleet_proto::v1;
use keyfleet_store::{Rollout, Scratch};

use super::{Conditions, Simulation};
use crate::error::Error;
use fates::settled;
pub(crate) use make_up::{DEPLOYMENTS_MAX, make_up};
use worst::Worst;

/// What has not ended by then, in virtual time, stays as it is: longer than any window is away.
const LONGEST: Duration = Duration::from_secs(400 * 86_400);

/// Nobody is there to let go on what is held, and what waits for no time waits for ever: after so long without change
/// it is left as it is.
const HELD: Duration = Duration::from_secs(3_600);

/// Happenings between two reports.
const REPORT_EACH: u32 = 256;

/// What is tried.
pub(crate) struct Preview {
    /// The database after the manifests were applied to it.
    pub(crate) scratch: Scratch,
    /// The deployments whose agents are away.
    pub(crate) away: BTreeSet<DeploymentId>,
    /// When it starts.
    pub(crate) start: Timestamp,
    /// The same seed gives the same answer.
    pub(crate) seed: u64,
    /// What goes wrong.
    pub(crate) conditions: Conditions,
}

/// Who waits for the answer.
pub(crate) trait Audience {
    /// False where nobody wants the answer any more, or it takes too long. Asked again and again.
    fn waits(&self) -> bool;

    /// Hears how far it is.
    fn hear(&mut self, progress: v1::SimulationProgress);
}

/// Waits as long as it takes.
#[cfg(test)]
pub(crate) struct Patient;

#[cfg(test)]
impl Audience for Patient {
    fn waits(&self) -> bool {
        true
    }

    fn hear(&mut self, _: v1::SimulationProgress) {}
}

/// How one try ended.
struct Tried {
    simulation: Simulation,
    start: Timestamp,
    /// When each run stopped going on.
    stopped: BTreeMap<RolloutId, Timestamp>,
    /// When each wave of each run began.
    begun: BTreeMap<(RolloutId, usize), Timestamp>,
    notes: BTreeSet<String>,
}

/// Where the active runs stand: as long as it is the same, nothing goes on.
type Stand = Vec<(RolloutId, Phase, Option<usize>)>;

impl Preview {
    /// Tries it, and then the worst cases. `None` where nobody wants the answer any more.
    ///
    /// # Errors
    /// Where the database in memory fails.
    pub(crate) fn run(
        &self,
        audience: &mut impl Audience,
    ) -> Result<Option<v1::SimulationResult>, Error> {
        let Some(tried) = self.attempt(&self.conditions, &self.away, "as asked", audience)? else {
            return Ok(None);
        };
        let rollouts = tried.rollouts()?;
        let mut result = v1::SimulationResult {
            seed: self.seed,
            deployments: tried.simulation.n_agents(),
            ..Default::default()
        };
        for rollout in &rollouts {
            result.rollouts.push(tried.rollout(rollout)?);
        }
        result.notes.extend(tried.notes);
        result.notes.push(format!(
            "agents and Kibanas are models: each step of an agent takes about {}",
            told::span(self.conditions.step)
        ));
        drop(tried.simulation);
        for class in Worst::classes(&rollouts) {
            let what = format!("every deployment fails with {class}");
            // At worst everybody is there to fail.
            let conditions = Conditions {
                step: self.conditions.step,
                ..Conditions::all_fail(class)
            };
            let nobody = BTreeSet::new();
            let Some(tried) = self.attempt(&conditions, &nobody, &what, audience)? else {
                return Ok(None);
            };
            result.worst_cases.extend(tried.worst_case(class)?);
        }
        Ok(Some(result))
    }

    fn attempt(
        &self,
        conditions: &Conditions,
        away: &BTreeSet<DeploymentId>,
        what: &str,
        audience: &mut impl Audience,
    ) -> Result<Option<Tried>, Error> {
        if !audience.waits() {
            return Ok(None);
        }
        let scratch = self.scratch.fork()?;
        let mut simulation = Simulation::new(scratch, self.start, self.seed, conditions)?;
        simulation.hurry();
        for id in away {
            simulation.begin_away(*id);
        }
        let mut tried = Tried {
            simulation,
            start: self.start,
            stopped: BTreeMap::new(),
            begun: BTreeMap::new(),
            notes: BTreeSet::new(),
        };
        let is_wanted = tried.go_on(what, audience)?;
        Ok(is_wanted.then_some(tried))
    }
}

impl Tried {
    /// Until every run has ended or is held; false where nobody wants the answer any more.
    fn go_on(&mut self, what: &str, audience: &mut impl Audience) -> Result<bool, Error> {
        let (mut happened, mut changed) = (0_u32, self.start);
        let (mut progress, mut counted) = (v1::SimulationProgress::default(), 0);
        let mut stand = self.look()?;
        let mut plans = self.simulation.plans();
        while let Some(now) = self.simulation.advance()? {
            if !audience.waits() {
                return Ok(false);
            }
            happened = happened.saturating_add(1);
            if happened.is_multiple_of(REPORT_EACH) {
                // Counting looks at every deployment: so it happens about once for as many happenings.
                if happened - counted >= progress.deployments {
                    (progress, counted) = (self.simulation.look(settled)?, happened);
                }
                progress.virtual_secs = since(self.start, now).as_secs();
                what.clone_into(&mut progress.now);
                audience.hear(progress.clone());
            }
            // Only control's plans move a run.
            if plans != self.simulation.plans() {
                plans = self.simulation.plans();
                let newer = self.look()?;
                if newer != stand {
                    (stand, changed) = (newer, now);
                }
            }
            if stand.is_empty() || self.is_stuck(&stand, since(changed, now)) {
                break;
            }
            if since(self.start, now) > LONGEST {
                let days = LONGEST.as_secs() / 86_400;
                self.notes.insert(format!(
                    "what has not ended after {days} days is shown as it is then"
                ));
                break;
            }
        }
        Ok(true)
    }

    /// Notes what the active runs do, and does for them what people and gates would.
    fn look(&mut self) -> Result<Stand, Error> {
        let now = self.simulation.now();
        let mut stand = Stand::new();
        for rollout in self.simulation.look(|tx| Ok(tx.active_rollouts()?))? {
            let (id, phase, wave) = (rollout.id, rollout.run.phase, rollout.run.wave);
            if phase != Phase::Progressing && phase != Phase::Pending {
                self.stopped.entry(id).or_insert(now);
            }
            if let Some(wave) = wave {
                self.begun.entry((id, wave)).or_insert(now);
            }
            self.agree(&rollout)?;
            self.open_gates(&rollout)?;
            stand.push((id, phase, wave));
        }
        Ok(stand)
    }

    /// Whoever has to agree does so as soon as the run is there, and is none of those who started it or have agreed.
    fn agree(&mut self, rollout: &Rollout) -> Result<(), Error> {
        for (index, wave) in rollout.strategy.waves.iter().enumerate() {
            let Some(approval) = wave.approval else {
                continue;
            };
            let given = rollout.run.agreed(index, approval);
            if given >= approval.required {
                continue;
            }
            self.notes.insert(format!(
                "wave {} waits for {} to agree: here they do so at once",
                wave.name, approval.required
            ));
            let mut missing = approval.required - given;
            let is_new = |who: &String| {
                let has_agreed = |known: &keyfleet_core::rollout::Approved| {
                    known.wave == index && known.principal == *who
                };
                *who != rollout.run.author && !rollout.run.approvals.iter().any(has_agreed)
            };
            let names = (1_u32..).map(|number| format!("approver {number}"));
            for who in names.filter(is_new) {
                if missing == 0 {
                    break;
                }
                let name = &wave.name;
                self.simulation
                    .say(rollout.id, Verb::Approve, &who, name, "preview")?;
                missing -= 1;
            }
        }
        Ok(())
    }

    /// Every gate has passed, and its answer counts to the end: nothing happens because one is asked again.
    fn open_gates(&mut self, rollout: &Rollout) -> Result<(), Error> {
        let gates = &rollout.strategy.gates;
        let at = self
            .start
            .checked_add(LONGEST.saturating_mul(2))
            .unwrap_or(Timestamp::MAX);
        let stay = rollout.run.gates.iter().filter(|state| state.at >= at);
        if stay.count() == gates.len() {
            return Ok(());
        }
        for gate in gates {
            let strategy = &rollout.strategy.name;
            self.notes.insert(format!(
                "gate {} of strategy {strategy} is taken to pass",
                gate.name
            ));
        }
        let passed = gates.iter().map(|gate| {
            let text = "the preview lets it pass".to_owned();
            GateState::after(None, gate, Verdict::Pass, text, at)
        });
        let passed: Vec<GateState> = passed.collect();
        let id = rollout.id;
        self.simulation
            .change(|tx, _| Ok::<_, Error>(tx.put_gates(id, &passed)?))
    }

    /// True where nothing goes on by itself any more, whatever the agents try again.
    fn is_stuck(&self, stand: &Stand, quiet: Duration) -> bool {
        if quiet < HELD {
            return false;
        }
        let end = self.start.checked_add(LONGEST).unwrap_or(Timestamp::MAX);
        let waits_for_time = self.simulation.plans_at().is_some_and(|at| at <= end);
        !waits_for_time || stand.iter().all(|(_, phase, _)| is_held(*phase))
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

#[cfg(test)]
mod tests;
