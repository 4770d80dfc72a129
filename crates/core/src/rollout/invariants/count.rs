//! The state of a run, counted deployment by deployment.

use std::time::Duration;

use crate::Timestamp;
use crate::rollout::phase::Phase;
use crate::rollout::plan::{Opening, PlanInput, Step, Target};
use crate::rollout::strategy::{Amount, Strategy, Wave};

/// A minute, of which rates speak.
const MINUTE: Duration = Duration::from_secs(60);

/// The state of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count<'a> {
    pub(super) input: &'a PlanInput<'a>,
}

impl<'a> Count<'a> {
    /// `None` for a strategy without waves.
    pub(super) fn new(input: &'a PlanInput<'a>) -> Option<Self> {
        (!input.strategy.waves.is_empty()).then_some(Self { input })
    }

    pub(super) fn strategy(&self) -> &'a Strategy {
        self.input.strategy
    }

    pub(super) fn phase(&self) -> Phase {
        self.input.run.phase
    }

    pub(super) fn targets(&self) -> impl Iterator<Item = &'a Target> + 'a {
        self.input.targets.iter()
    }

    /// Those that still belong to the run.
    pub(super) fn present(&self) -> impl Iterator<Item = &'a Target> + 'a {
        self.targets().filter(|target| !target.left)
    }

    /// The targets of a wave that still belong to the run.
    pub(super) fn of_wave(&self, index: usize) -> Vec<&'a Target> {
        let last = self.strategy().waves.len() - 1;
        self.present()
            .filter(|target| target.wave.min(last) == index)
            .collect()
    }

    pub(super) fn wave_of(&self, target: &Target) -> usize {
        target.wave.min(self.strategy().waves.len() - 1)
    }

    /// The waves that have begun.
    pub(super) fn begun(&self) -> impl Iterator<Item = (usize, &'a Wave)> + 'a {
        let begun = match self.input.run.wave {
            Some(index) => index.saturating_add(1),
            None => 0,
        };
        self.strategy().waves.iter().enumerate().take(begun)
    }

    /// The running wave.
    pub(super) fn running(&self) -> Option<(usize, &'a Wave)> {
        self.begun().last()
    }

    pub(super) fn has_begun(&self, target: &Target) -> bool {
        self.running()
            .is_some_and(|(running, _)| self.wave_of(target) <= running)
    }

    /// True from a step's time plus its limit on.
    pub(super) fn past(&self, at: Timestamp, limit: Duration) -> bool {
        self.input.now >= at.checked_add(limit).unwrap_or(Timestamp::MAX)
    }

    /// When the step that is under way has taken too long.
    pub(super) fn due(&self, target: &Target) -> Option<Timestamp> {
        let deadlines = &self.strategy().deadlines;
        let (at, limit) = match target.step {
            Step::Offered(at) => (at, deadlines.ack),
            Step::Received(at) => (at, deadlines.apply),
            Step::Applied(at) => (at, deadlines.prove),
            Step::Waiting
            | Step::Proven(_)
            | Step::Failed(..)
            | Step::RollbackOffered(_)
            | Step::RolledBack(_)
            | Step::RollbackFailed(..) => return None,
        };
        Some(at.checked_add(limit).unwrap_or(Timestamp::MAX))
    }

    /// Offered, went away, and was not heard of in time: it is not waited for, but may come back with the change.
    pub(super) fn is_away_with_it(&self, target: &Target) -> bool {
        let offered = matches!(target.step, Step::Offered(_));
        offered && !target.online && self.due(target).is_some_and(|due| self.input.now >= due)
    }

    pub(super) fn is_in_flight(&self, target: &Target) -> bool {
        self.due(target).is_some() && !self.is_away_with_it(target)
    }

    /// True where it could still be offered the change: it has not got it, and what it went back from is as if it never had.
    pub(super) fn is_open(&self, target: &Target) -> bool {
        match target.step {
            Step::Waiting
            | Step::RollbackOffered(_)
            | Step::RolledBack(_)
            | Step::RollbackFailed(..) => true,
            Step::Offered(_)
            | Step::Received(_)
            | Step::Applied(_)
            | Step::Proven(_)
            | Step::Failed(..) => false,
        }
    }

    /// Not connected, and not waited for.
    pub(super) fn is_offline(&self, target: &Target) -> bool {
        self.is_away_with_it(target) || (self.is_open(target) && !target.online)
    }

    pub(super) fn is_overdue(&self, target: &Target) -> bool {
        self.is_in_flight(target) && self.due(target).is_some_and(|due| self.input.now >= due)
    }

    pub(super) fn is_soaked(&self, target: &Target) -> bool {
        let (wave, run) = (self.wave_of(target), self.input.run);
        let soak = self.strategy().waves[wave].soak;
        let is_past =
            run.fast_forward.is_some_and(|past| past >= wave) && run.wave >= run.fast_forward;
        matches!(target.step, Step::Proven(at) if is_past || self.past(at, soak))
    }

    pub(super) fn is_closed(&self, target: &Target) -> bool {
        match &target.opening {
            Opening::Always => false,
            Opening::Open { until } => self.input.now >= *until,
            Opening::Closed { .. } => true,
        }
    }

    /// How many of these moments lie within the last minute; one in the future counts as now.
    pub(super) fn within_a_minute(&self, moments: impl Iterator<Item = Timestamp>) -> u32 {
        number(moments.filter(|at| !self.past(*at, MINUTE)).count())
    }

    /// True where an operator no longer waits for the running wave.
    pub(super) fn is_fast_forward(&self) -> bool {
        self.running()
            .is_some_and(|(index, _)| self.input.run.fast_forward == Some(index))
    }
}

/// A share of at least one, computed here anew.
pub(super) fn at_least_one(amount: Amount, whole: usize) -> u32 {
    share(amount, whole).max(1)
}

/// A share, rounded down, computed here anew.
pub(super) fn share(amount: Amount, whole: usize) -> u32 {
    match amount {
        Amount::Count(count) => count,
        Amount::Percent(percent) => number(whole * usize::from(percent) / 100),
    }
}

/// A count as rules name it.
pub(super) fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
