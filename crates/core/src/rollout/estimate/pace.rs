//! The pace of a run, and how long a wave takes at it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{count, is_open};
use crate::Timestamp;
use crate::rollout::plan::{Step, Target};
use crate::rollout::strategy::{Action, Strategy, Wave};

const MINUTE: Duration = Duration::from_secs(60);

/// How long one deployment took, on average.
pub(super) struct Pace<'a> {
    strategy: &'a Strategy,
    mean: Duration,
}

/// What is left of one wave.
pub(super) struct Part {
    /// How many have yet to be proven.
    pub(super) open: u32,
    /// How many at a time.
    pub(super) places: u32,
    /// How long until they are.
    pub(super) work: Duration,
    /// How long they then soak; with nothing left to do, how long the last one still does.
    pub(super) soak: Duration,
}

impl<'a> Pace<'a> {
    pub(super) fn new(strategy: &'a Strategy, mean: Duration) -> Self {
        Self { strategy, mean }
    }

    /// How long a wave still takes.
    pub(super) fn wave(&self, now: Timestamp, wave: &Wave, targets: &[&Target]) -> Part {
        let open = count(targets.iter().filter(|target| is_open(target)).count());
        let places = self.places(wave, targets);
        let work = self.rounds(open, places, proven(targets));
        let soaked = targets.iter().filter_map(|target| {
            let at = proven_at(target)?;
            at.checked_add(wave.soak).ok()
        });
        let soak = match (open, soaked.max()) {
            (0, Some(soaked)) => Duration::try_from(soaked.duration_since(now)).unwrap_or_default(),
            (0, None) => Duration::ZERO,
            _ => wave.soak,
        };
        Part {
            open,
            places,
            work: work.max(self.paced(open, self.strategy.max_per_minute)),
            soak,
        }
    }

    /// How long the way back still takes for these of all that were touched, and how many go at a time.
    pub(super) fn rollback(&self, left: u32, touched: u32) -> (Duration, u32) {
        let rollback = &self.strategy.rollback;
        let places = rollback.concurrency.of_at_least_one(touched);
        let work = self.mean.saturating_mul(left.div_ceil(places));
        (work.max(self.paced(left, rollback.max_per_minute)), places)
    }

    /// How many may be in flight in the wave once it is at full speed.
    fn places(&self, wave: &Wave, targets: &[&Target]) -> u32 {
        let size = count(targets.len());
        let mut places = wave.concurrency.of_at_least_one(size);
        if let Some(spread) = &wave.spread {
            let groups: BTreeSet<_> = targets.iter().map(|target| &target.group).collect();
            places = places.min(spread.max.saturating_mul(count(groups.len())));
        }
        if wave.strict {
            let budgets = self.strategy.budgets.iter();
            let holding = budgets.filter(|budget| budget.action != Action::Continue);
            let bearable = holding.map(|budget| match wave.mandatory {
                true => 0,
                false => budget.max.of(size),
            });
            places = places.min(bearable.min().unwrap_or(u32::MAX).saturating_add(1));
        }
        places.max(1)
    }

    /// Round after round, as many as the ramp lets by then.
    fn rounds(&self, open: u32, places: u32, proven: u32) -> Duration {
        let Some(ramp) = self.strategy.ramp else {
            return self.mean.saturating_mul(open.div_ceil(places));
        };
        let (mut left, mut rounds, mut limit) = (open, 0_u32, ramp.start.max(1));
        let mut before = proven;
        while left > 0 && limit < places {
            // What was proven already has brought the ramp this far.
            if before >= limit {
                before -= limit;
            } else {
                left = left.saturating_sub(limit);
                rounds += 1;
            }
            let grown = u64::from(limit) * u64::from(ramp.factor_percent) / 100;
            let grown = u32::try_from(grown).unwrap_or(u32::MAX);
            limit = grown.max(limit.saturating_add(1));
        }
        self.mean
            .saturating_mul(rounds.saturating_add(left.div_ceil(places)))
    }

    /// How long it takes to begin so many.
    fn paced(&self, open: u32, max_per_minute: Option<u32>) -> Duration {
        let Some(max) = max_per_minute else {
            return Duration::ZERO;
        };
        let minutes = open.saturating_sub(1) / max.max(1);
        MINUTE
            .saturating_mul(minutes)
            .saturating_add(match minutes {
                0 => Duration::ZERO,
                _ => self.mean,
            })
    }
}

fn proven(targets: &[&Target]) -> u32 {
    count(
        targets
            .iter()
            .filter_map(|target| proven_at(target))
            .count(),
    )
}

fn proven_at(target: &Target) -> Option<Timestamp> {
    if let Step::Proven(at) = target.step {
        Some(at)
    } else {
        None
    }
}

/// The mean time from offered to proven of what was proven in this run.
pub(super) fn forward_mean(targets: &[Target]) -> Option<Duration> {
    let span = |target: &Target| Some((target.offered_at?, proven_at(target)?));
    mean(targets.iter().filter_map(span))
}

/// The mean time that the way back took.
pub(super) fn rollback_mean(targets: &[Target]) -> Option<Duration> {
    mean(targets.iter().filter_map(|target| {
        if let Step::RolledBack(at) = target.step {
            Some((target.rollback_at?, at))
        } else {
            None
        }
    }))
}

/// Of spans from one moment to another; a clock that was set back makes a span of nothing.
fn mean(spans: impl Iterator<Item = (Timestamp, Timestamp)>) -> Option<Duration> {
    let (mut total, mut n) = (Duration::ZERO, 0_u32);
    for (from, to) in spans {
        let span = Duration::try_from(to.duration_since(from)).unwrap_or_default();
        total = total.saturating_add(span);
        n = n.saturating_add(1);
    }
    total.checked_div(n)
}
