//! One look at the run: where every deployment stands now, and what each wave adds up to.

use std::time::Duration;

use crate::Timestamp;
use crate::failure::FailureClass;
use crate::id::DeploymentId;

use super::{PlanInput, Step, Target};
use crate::rollout::budget::Outcomes;
use crate::rollout::strategy::Wave;
use crate::rollout::waiting::{Deadline, WaveRef};

/// The input, with what is counted from it.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) input: &'a PlanInput<'a>,
    /// Index of the running wave.
    pub(super) current: usize,
    /// One for each wave of the strategy.
    tallies: Vec<Tally>,
}

/// What one wave adds up to.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) outcomes: Outcomes,
    /// Offered and not settled, the offline ledger aside.
    pub(super) in_flight: u32,
    /// Connected and not offered.
    pub(super) waiting: u32,
    /// In the offline ledger: away and not offered, or offered and away beyond the ack deadline.
    pub(super) offline: u32,
    /// The part of the ledger that was offered the change: it may come back with it at any moment.
    pub(super) away: u32,
    /// When the last proven deployment will have soaked.
    pub(super) soaked_at: Option<Timestamp>,
}

/// Where a deployment stands on its way forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Connected and not offered.
    Waiting,
    /// Not connected and not waited for; `offered` where the change was offered.
    Ledger { offered: bool },
    /// At work, until the deadline.
    InFlight { deadline: Deadline, due: Timestamp },
    /// At work for too long.
    Overdue(Deadline),
    /// Proven; good for the next wave from then on.
    Proven { soaked_at: Timestamp },
    /// Failed.
    Failed(FailureClass),
}

impl<'a> View<'a> {
    /// Looks at the run; `None` for a strategy without waves, which `validate` refuses.
    pub(super) fn new(input: &'a PlanInput<'a>) -> Option<Self> {
        let waves = input.strategy.waves.len();
        let current = input.run.wave.min(waves.checked_sub(1)?);
        let mut view = Self {
            input,
            current,
            tallies: vec![Tally::default(); waves],
        };
        for target in input.targets {
            let stage = view.stage(target);
            let index = view.wave_of(target);
            view.tallies[index].count(target, stage);
        }
        Some(view)
    }

    /// The wave of this index, or the last.
    pub(super) fn wave(&self, index: usize) -> &'a Wave {
        &self.input.strategy.waves[self.clamp(index)]
    }

    /// The index of the target's wave, never beyond the last.
    pub(super) fn wave_of(&self, target: &Target) -> usize {
        self.clamp(target.wave)
    }

    /// There are as many tallies as waves, and at least one.
    fn clamp(&self, index: usize) -> usize {
        index.min(self.tallies.len() - 1)
    }

    /// The wave of this index as sentences name it.
    pub(super) fn wave_ref(&self, index: usize) -> WaveRef {
        WaveRef {
            name: self.wave(index).name.clone(),
            number: index + 1,
            of: self.input.strategy.waves.len(),
        }
    }

    /// What the wave of this index adds up to.
    pub(super) fn tally(&self, index: usize) -> &Tally {
        &self.tallies[self.clamp(index)]
    }

    /// The waves that have begun, with what they add up to.
    pub(super) fn begun(&self) -> impl Iterator<Item = (usize, &Tally)> {
        self.tallies.iter().enumerate().take(self.current + 1)
    }

    /// The first wave after the running one that has deployments.
    pub(super) fn next_wave(&self) -> Option<usize> {
        let later = self.tallies.iter().enumerate().skip(self.current + 1);
        later
            .filter(|(_, tally)| tally.outcomes.deployments > 0)
            .map(|(index, _)| index)
            .next()
    }

    /// Where the target stands on its way forward.
    pub(super) fn stage(&self, target: &Target) -> Stage {
        let deadlines = &self.input.strategy.deadlines;
        match target.step {
            Step::Offered(at) if !target.online && self.passed(due(at, deadlines.ack)) => {
                Stage::Ledger { offered: true }
            }
            Step::Offered(at) => self.at_work(Deadline::Ack, due(at, deadlines.ack)),
            Step::Received(at) => self.at_work(Deadline::Apply, due(at, deadlines.apply)),
            Step::Applied(at) => self.at_work(Deadline::Prove, due(at, deadlines.prove)),
            Step::Proven(at) => {
                let soak = self.wave(self.wave_of(target)).soak;
                Stage::Proven {
                    soaked_at: due(at, soak),
                }
            }
            Step::Failed(_, class) => Stage::Failed(class),
            // On the way forward, what went back is as good as never offered.
            Step::Waiting
            | Step::RollbackOffered(_)
            | Step::RolledBack(_)
            | Step::RollbackFailed(..) => match target.online {
                true => Stage::Waiting,
                false => Stage::Ledger { offered: false },
            },
        }
    }

    fn at_work(&self, deadline: Deadline, due: Timestamp) -> Stage {
        if self.passed(due) {
            Stage::Overdue(deadline)
        } else {
            Stage::InFlight { deadline, due }
        }
    }

    /// True from that moment on.
    pub(super) fn passed(&self, moment: Timestamp) -> bool {
        self.input.now >= moment
    }

    /// How long until that moment; nothing once it has passed.
    pub(super) fn left(&self, moment: Timestamp) -> Duration {
        Duration::try_from(moment.duration_since(self.input.now)).unwrap_or_default()
    }

    /// When the running wave is overdue.
    pub(super) fn wave_due(&self) -> Timestamp {
        due(
            self.input.run.wave_started_at,
            self.input.strategy.deadlines.wave,
        )
    }

    /// The deployments that passed a deadline on their way forward.
    pub(super) fn timed_out(&self) -> Vec<(DeploymentId, Deadline)> {
        let late = |target: &Target| self.stage(target).overdue().map(|d| (target.deployment, d));
        self.input.targets.iter().filter_map(late).collect()
    }

    /// The next moment at which a deadline of a deployment on its way forward ends.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.input
            .targets
            .iter()
            .filter_map(|target| self.stage(target).due())
            .min()
    }

    /// When every deployment of the waves that have begun will have soaked.
    pub(super) fn soaked_at(&self) -> Option<Timestamp> {
        self.begun().filter_map(|(_, tally)| tally.soaked_at).max()
    }
}

impl Stage {
    fn overdue(self) -> Option<Deadline> {
        if let Self::Overdue(deadline) = self {
            Some(deadline)
        } else {
            None
        }
    }

    fn due(self) -> Option<Timestamp> {
        if let Self::InFlight { due, .. } = self {
            Some(due)
        } else {
            None
        }
    }
}

impl Tally {
    fn count(&mut self, target: &Target, stage: Stage) {
        self.outcomes.count(target);
        match stage {
            Stage::Waiting => self.waiting += 1,
            Stage::Ledger { offered } => {
                self.offline += 1;
                self.away += u32::from(offered);
            }
            Stage::InFlight { .. } | Stage::Overdue(_) => self.in_flight += 1,
            Stage::Proven { soaked_at } => self.soaked_at = self.soaked_at.max(Some(soaked_at)),
            Stage::Failed(_) => {}
        }
    }
}

/// When a step that began then has taken too long.
pub(super) fn due(at: Timestamp, limit: Duration) -> Timestamp {
    at.checked_add(limit).unwrap_or(Timestamp::MAX)
}
