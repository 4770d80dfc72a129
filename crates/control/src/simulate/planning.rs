//! Control's planner in the simulated world: when it wakes, and what it does with its plans.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::id::{DeploymentId, RolloutId};
use keyfleet_core::rollout::WaitingOn;

#[cfg(test)]
use super::check;
use super::{Event, Simulation};
use crate::app::step::{Outcome, Surroundings, step_all};
use crate::error::Error;
use crate::tasks::planner::cut_off;

/// How long control takes from a nudge to its plan, and how much more for each deployment of the fleet.
const PLANNING: Duration = Duration::from_millis(20);
const PLANNING_EACH: Duration = Duration::from_micros(50);

/// How long a plan may wait for more news where it is in a hurry, and the news is of progress: such news moves nobody but
/// towards another deadline, and every plan looks at the whole fleet.
const LATER: Duration = Duration::from_secs(2);

impl Simulation {
    /// Wakes the planner.
    pub(super) fn nudge(&mut self) {
        if !self.is_up {
            return;
        }
        let n = u32::try_from(self.agents.len()).unwrap_or(u32::MAX);
        let delay = self.random.about(PLANNING) + PLANNING_EACH.saturating_mul(n);
        self.plan_after(delay);
    }

    /// Wakes the planner for news that decide nothing.
    pub(super) fn nudge_later(&mut self) {
        match self.hurries && self.is_up {
            true => self.plan_after(LATER),
            false => self.nudge(),
        }
    }

    /// Keeps no story from here on, and plans only where something may be decided: both are quicker.
    pub(super) fn hurry(&mut self) {
        self.log = None;
        self.hurries = true;
    }

    /// How often control has planned: nothing else moves a run.
    pub(super) fn plans(&self) -> u64 {
        self.n_plans
    }

    /// When control plans next without news; `None` = nothing waits for a time.
    pub(super) fn plans_at(&self) -> Option<Timestamp> {
        self.plan_at
    }

    pub(super) fn plan_after(&mut self, delay: Duration) {
        let at = self.now.checked_add(delay).unwrap_or(Timestamp::MAX);
        if self.plan_at.is_none_or(|known| at < known) {
            self.plan_at = Some(at);
            self.push_at(at, Event::Plan);
        }
    }

    /// What the planner's task does when it wakes.
    pub(super) fn plan(&mut self) -> Result<bool, Error> {
        if self.plan_at.is_none_or(|at| at > self.now) {
            return Ok(false);
        }
        self.plan_at = None;
        self.n_plans += 1;
        let mut around = Surroundings {
            now: self.control_now(),
            epoch: self.epoch,
            online: self.sessions.keys().copied().collect(),
            turns: BTreeMap::new(),
            #[cfg(test)]
            watch: check::watch,
            #[cfg(not(test))]
            watch: crate::app::step::unwatched,
        };
        let (outcomes, cut_off) = self.scratch.run(|tx| {
            let cut_off = cut_off(tx)?;
            around.online.retain(|id| !cut_off.contains_key(id));
            Ok::<_, Error>((step_all(tx, &around)?, cut_off))
        })?;
        self.publish(outcomes, &cut_off)?;
        self.note_phases()?;
        self.ask_gates()?;
        #[cfg(test)]
        self.step_campaigns()?;
        Ok(true)
    }

    /// Tells the sessions, keeps the reasons, and sleeps until the plans ask for it.
    fn publish(
        &mut self,
        outcomes: BTreeMap<RolloutId, Outcome>,
        cut_off: &BTreeMap<DeploymentId, String>,
    ) -> Result<(), Error> {
        let wake_at = outcomes.values().filter_map(|done| done.wake_at).min();
        self.waiting.clear();
        let mut touched = BTreeSet::new();
        for (id, mut outcome) in outcomes {
            for waiting in &mut outcome.waiting {
                let why = waiting.deployment().and_then(|id| cut_off.get(&id));
                if let Some(why) = why {
                    waiting.on = WaitingOn::CutOff(why.clone());
                }
            }
            touched.extend(outcome.touched);
            if !outcome.ended {
                self.waiting.insert(id, outcome.waiting);
            }
        }
        for id in touched {
            self.tell(id)?;
        }
        if let Some(at) = wake_at {
            let left = at.duration_since(self.control_now());
            #[cfg(test)]
            if !left.is_positive() {
                self.checker
                    .report("a plan that is quiet asks for the next at once".to_owned());
            }
            let left = Duration::try_from(left).unwrap_or_default();
            // A timer fires a moment late, never early.
            self.plan_after(left + Duration::from_millis(1));
        }
        Ok(())
    }
}
