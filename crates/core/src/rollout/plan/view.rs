//! One look at the run: where every deployment stands now, and what each wave adds up to.

use std::sync::Arc;
use std::time::Duration;

use crate::Timestamp;
use crate::failure::FailureClass;
use crate::id::DeploymentId;

use super::pace::LastMinute;
use super::{Opening, PlanInput, Step, Target};
use crate::rollout::budget::Outcomes;
use crate::rollout::strategy::Wave;
use crate::rollout::waiting::{Deadline, WaveRef};

/// The input, with what is counted from it.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) input: &'a PlanInput<'a>,
    /// Index of the running wave; `None` = none has begun.
    pub(super) current: Option<usize>,
    /// Where every target stands, in their order.
    pub(super) stages: Vec<Stage>,
    /// What was offered within the last minute.
    pub(super) offered: LastMinute,
    /// When the change was last offered to anybody.
    pub(super) last_offered: Option<Timestamp>,
    /// The longest time for which windows kept the change from a deployment of the running wave, or from one of an earlier
    /// wave that has yet to finish.
    pub(super) shut: Duration,
    /// When a window next opens or closes for somebody who may be offered the change.
    pub(super) window_turns: Option<Timestamp>,
    /// When the next window opens for somebody who waits for it.
    pub(super) window_opens: Option<Timestamp>,
    /// When the next window opens for somebody of the running wave who is away and was not offered the change.
    pub(super) away_opens: Option<Timestamp>,
    /// One for each wave of the strategy.
    tallies: Vec<Tally>,
    /// The names of the waves.
    names: Vec<Arc<str>>,
}

/// What one wave adds up to.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) outcomes: Outcomes,
    /// Offered and not settled, the offline ledger aside.
    pub(super) in_flight: u32,
    /// Connected and not offered.
    pub(super) waiting: u32,
    /// The part of them that waits for a window.
    pub(super) shut: u32,
    /// Away and not offered, while none of their windows is open.
    pub(super) shut_away: u32,
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
    /// It left the run, and nothing of it is in flight.
    Left,
}

impl<'a> View<'a> {
    /// Looks at the run; `None` for a strategy without waves, which `validate` refuses.
    pub(super) fn new(input: &'a PlanInput<'a>) -> Option<Self> {
        let waves = &input.strategy.waves;
        let last = waves.len().checked_sub(1)?;
        let mut view = Self {
            input,
            current: input.run.wave.map(|wave| wave.min(last)),
            stages: Vec::with_capacity(input.targets.len()),
            offered: LastMinute::new(input.now),
            last_offered: None,
            shut: Duration::ZERO,
            window_turns: None,
            window_opens: None,
            away_opens: None,
            tallies: vec![Tally::default(); waves.len()],
            names: waves.iter().map(|wave| wave.name.as_str().into()).collect(),
        };
        for target in input.targets {
            view.look_at(target);
        }
        Some(view)
    }

    fn look_at(&mut self, target: &Target) {
        let stage = self.stage_of(target);
        let index = self.wave_of(target);
        self.tallies[index].count(target, stage);
        self.stages.push(stage);
        if let Some(at) = target.offered_at {
            self.offered.count(at);
            self.last_offered = self.last_offered.max(Some(at.min(self.input.now)));
        }
        let waits = stage == Stage::Waiting && self.has_begun(index);
        if waits {
            self.look_at_window(target, index);
        }
        if waits || stage.is_in_flight() || self.current == Some(index) {
            self.shut = self.shut.max(target.shut);
        }
        let is_away = stage == (Stage::Ledger { offered: false });
        if is_away
            && self.current == Some(index)
            && let Opening::Closed { opens, .. } = target.opening
        {
            self.tallies[index].shut_away += 1;
            self.away_opens = opens.into_iter().chain(self.away_opens).min();
        }
    }

    fn look_at_window(&mut self, target: &Target, index: usize) {
        let sooner = |one: Option<Timestamp>, other| one.into_iter().chain(other).min();
        let turns = match target.opening {
            Opening::Always => return,
            Opening::Open { until } if !self.passed(until) => Some(until),
            Opening::Open { .. } => None,
            Opening::Closed { opens, .. } => opens,
        };
        self.window_turns = sooner(turns, self.window_turns);
        if !self.is_open(target) {
            self.tallies[index].shut += 1;
            self.window_opens = sooner(turns, self.window_opens);
        }
    }

    /// Notes that the targets of these indices are offered the change now: from here on the view is of what is then.
    pub(super) fn offer(&mut self, chosen: &[usize]) {
        let now = self.input.now;
        let stage = Stage::InFlight {
            deadline: Deadline::Ack,
            due: due(now, self.input.strategy.deadlines.ack),
        };
        for &index in chosen {
            let wave = self.wave_of(&self.input.targets[index]);
            self.stages[index] = stage;
            self.tallies[wave].waiting -= 1;
            self.tallies[wave].in_flight += 1;
            self.offered.count(now);
            self.last_offered = Some(now);
        }
    }

    /// The targets, with where they stand.
    pub(super) fn targets(&self) -> impl Iterator<Item = (&'a Target, Stage)> {
        self.input.targets.iter().zip(self.stages.iter().copied())
    }

    /// The wave of this index, or the last.
    pub(super) fn wave(&self, index: usize) -> &'a Wave {
        &self.input.strategy.waves[self.clamp(index)]
    }

    /// The index of the target's wave, never beyond the last.
    pub(super) fn wave_of(&self, target: &Target) -> usize {
        self.clamp(target.wave)
    }

    /// There are as many tallies and names as waves, and at least one.
    fn clamp(&self, index: usize) -> usize {
        index.min(self.tallies.len() - 1)
    }

    /// The name of the wave of this index.
    pub(super) fn name(&self, index: usize) -> Arc<str> {
        self.names[self.clamp(index)].clone()
    }

    /// The wave of this index as sentences name it.
    pub(super) fn wave_ref(&self, index: usize) -> WaveRef {
        WaveRef {
            name: self.name(index),
            number: index + 1,
            of: self.tallies.len(),
        }
    }

    /// What the wave of this index adds up to.
    pub(super) fn tally(&self, index: usize) -> &Tally {
        &self.tallies[self.clamp(index)]
    }

    /// How many waves the strategy has.
    pub(super) fn waves(&self) -> usize {
        self.tallies.len()
    }

    /// What each wave adds up to, in their order.
    pub(super) fn tallies(&self) -> impl Iterator<Item = (usize, &Tally)> {
        self.tallies.iter().enumerate()
    }

    /// True where the wave of this index has begun.
    pub(super) fn has_begun(&self, index: usize) -> bool {
        self.current.is_some_and(|current| index <= current)
    }

    /// The waves that have begun, with what they add up to.
    pub(super) fn begun(&self) -> impl Iterator<Item = (usize, &Tally)> {
        self.tallies().filter(|(index, _)| self.has_begun(*index))
    }

    /// The sum over the waves that have begun.
    pub(super) fn sum(&self, count: fn(&Tally) -> u32) -> u32 {
        self.begun().map(|(_, tally)| count(tally)).sum()
    }

    /// The first wave after the running one that has deployments.
    pub(super) fn next_wave(&self) -> Option<usize> {
        let has_some = |tally: &Tally| tally.outcomes.deployments > 0;
        self.tallies()
            .find(|(index, tally)| !self.has_begun(*index) && has_some(tally))
            .map(|(index, _)| index)
    }

    /// What has become of all deployments of the run.
    pub(super) fn outcomes(&self) -> Outcomes {
        let mut all = Outcomes::default();
        for (index, tally) in self.tallies() {
            all.add(&tally.outcomes, self.has_begun(index));
        }
        all
    }

    /// True where an operator no longer waits for who is away, for the soak and for the deadline of the running wave.
    pub(super) fn is_fast_forward(&self) -> bool {
        self.current.is_some() && self.input.run.fast_forward == self.input.run.wave
    }

    /// True where the windows of the target let it be offered the change now.
    pub(super) fn is_open(&self, target: &Target) -> bool {
        match &target.opening {
            Opening::Always => true,
            Opening::Open { until } => !self.passed(*until),
            Opening::Closed { .. } => false,
        }
    }

    /// How long the wave of this index soaks: not at all once an operator went past it, also in the waves after it.
    fn soak(&self, index: usize) -> Duration {
        let run = self.input.run;
        let is_past =
            run.fast_forward.is_some_and(|past| index <= past) && run.fast_forward <= run.wave;
        if is_past {
            return Duration::ZERO;
        }
        self.wave(index).soak
    }

    fn stage_of(&self, target: &Target) -> Stage {
        let deadlines = &self.input.strategy.deadlines;
        let stage = match target.step {
            Step::Offered(at) if !target.online && self.passed(due(at, deadlines.ack)) => {
                Stage::Ledger { offered: true }
            }
            Step::Offered(at) => self.at_work(Deadline::Ack, due(at, deadlines.ack)),
            Step::Received(at) => self.at_work(Deadline::Apply, due(at, deadlines.apply)),
            Step::Applied(at) => self.at_work(Deadline::Prove, due(at, deadlines.prove)),
            Step::Proven(at) => Stage::Proven {
                soaked_at: due(at, self.soak(self.wave_of(target))),
            },
            Step::Failed(_, class) => Stage::Failed(class),
            // On the way forward, what went back is as good as never offered.
            Step::Waiting
            | Step::RollbackOffered(_)
            | Step::RolledBack(_)
            | Step::RollbackFailed(..) => match target.online {
                true => Stage::Waiting,
                false => Stage::Ledger { offered: false },
            },
        };
        if target.left && !stage.is_in_flight() {
            return Stage::Left;
        }
        stage
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

    /// The deployments that passed a deadline on their way forward.
    pub(super) fn timed_out(&self) -> Vec<(DeploymentId, Deadline)> {
        let late = |(target, stage): (&Target, Stage)| {
            if let Stage::Overdue(deadline) = stage {
                Some((target.deployment, deadline))
            } else {
                None
            }
        };
        self.targets().filter_map(late).collect()
    }

    /// The next moment at which a deadline of a deployment on its way forward ends.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let due = |stage: &Stage| {
            if let Stage::InFlight { due, .. } = stage {
                Some(*due)
            } else {
                None
            }
        };
        self.stages.iter().filter_map(due).min()
    }

    /// When every deployment of the waves that have begun will have soaked.
    pub(super) fn soaked_at(&self) -> Option<Timestamp> {
        self.begun().filter_map(|(_, tally)| tally.soaked_at).max()
    }
}

impl Stage {
    /// True where the change is at work there.
    pub(super) fn is_in_flight(self) -> bool {
        matches!(self, Self::InFlight { .. } | Self::Overdue(_))
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
            Stage::Failed(_) | Stage::Left => {}
        }
    }
}

/// When a step that began then has taken too long.
pub(super) fn due(at: Timestamp, limit: Duration) -> Timestamp {
    at.checked_add(limit).unwrap_or(Timestamp::MAX)
}
