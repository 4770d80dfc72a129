//! How many more deployments may be offered the change: concurrency and ramp, in strict waves the budget, the rate, and
//! the spread.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Target;
use super::pace::{LastMinute, RampStep};
use super::view::{Stage, View};
use crate::Timestamp;
use crate::rollout::budget::{budgets_of_run, budgets_of_wave};
use crate::rollout::waiting::WaitingOn;

/// The room of every wave that has begun. An offer in an earlier wave (somebody came back) takes room in
/// that wave and in the running one.
#[derive(Debug)]
pub(super) struct Rooms<'a> {
    view: &'a View<'a>,
    waves: Vec<Room<'a>>,
    rate: LastMinute,
}

/// The room of one wave.
#[derive(Debug)]
struct Room<'a> {
    wave: Arc<str>,
    concurrency: u32,
    ramp: Option<RampStep>,
    in_flight: u32,
    /// In a strict wave, whoever was offered the change and went away keeps its place: it may come back
    /// and fail at any moment.
    away: u32,
    /// How many more failures are bearable, where the wave is strict and any budget would hold it.
    budget_left: Option<u32>,
    spread: Option<Groups<'a>>,
}

/// How many of each value of a label are in flight in a wave.
#[derive(Debug)]
struct Groups<'a> {
    label: Arc<str>,
    max: u32,
    taken: BTreeMap<Option<&'a str>, u32>,
}

impl<'a> Rooms<'a> {
    pub(super) fn new(view: &'a View<'a>) -> Self {
        let mut waves: Vec<Room<'a>> = view
            .begun()
            .map(|(index, _)| Room::new(view, index))
            .collect();
        if let Some((running, earlier)) = waves.split_last_mut() {
            running.in_flight += earlier.iter().map(|room| room.in_flight).sum::<u32>();
        }
        count_groups(view, &mut waves);
        Self {
            view,
            waves,
            rate: view.offered,
        }
    }

    /// Whom to offer the change now, as indices of targets: earlier waves first, then in order of ids, as far as there is
    /// room. Takes the room.
    pub(super) fn choose(&mut self) -> Vec<usize> {
        let view = self.view;
        let waits = |(target, stage): (&Target, Stage)| {
            stage == Stage::Waiting && view.has_begun(view.wave_of(target)) && view.is_open(target)
        };
        let mut waiting: Vec<(usize, usize)> = view
            .targets()
            .enumerate()
            .filter(|(_, of)| waits(*of))
            .map(|(index, (target, _))| (view.wave_of(target), index))
            .collect();
        // As a rule they are in order already, which costs one look at each.
        waiting.sort();
        let free = |(_, index): &(usize, usize)| {
            let target = &view.input.targets[*index];
            let is_free = self.held_by(target).is_none();
            if is_free {
                self.take(target);
            }
            is_free
        };
        waiting
            .into_iter()
            .filter(free)
            .map(|(_, index)| index)
            .collect()
    }

    fn take(&mut self, target: &'a Target) {
        let index = self.view.wave_of(target);
        self.rate.count(self.view.input.now);
        let last = self.waves.len().saturating_sub(1);
        for room in [Some(index), (index != last).then_some(last)]
            .into_iter()
            .flatten()
        {
            if let Some(room) = self.waves.get_mut(room) {
                room.in_flight += 1;
            }
        }
        if let Some(groups) = self
            .waves
            .get_mut(index)
            .and_then(|room| room.spread.as_mut())
        {
            groups.add(target);
        }
    }

    /// The rule that leaves no place for a target whose wave has begun.
    pub(super) fn held_by(&self, target: &Target) -> Option<WaitingOn> {
        let own = self.waves.get(self.view.wave_of(target));
        own.and_then(Room::held_by)
            .or_else(|| self.waves.last().and_then(Room::held_by))
            .or_else(|| {
                Some(WaitingOn::Rate {
                    max: self.view.input.strategy.max_per_minute?,
                    left: self.view.left(self.rate_full_until()?),
                })
            })
            .or_else(|| own.and_then(|room| room.spread.as_ref()?.held_by(&room.wave, target)))
    }

    /// When the rate lets one more be offered the change, where this is later than now.
    pub(super) fn rate_full_until(&self) -> Option<Timestamp> {
        self.rate
            .full_until(self.view.input.strategy.max_per_minute)
    }
}

impl<'a> Room<'a> {
    fn new(view: &'a View<'a>, index: usize) -> Self {
        let wave = view.wave(index);
        let (strategy, tally) = (view.input.strategy, view.tally(index));
        let concurrency = wave.concurrency.of_at_least_one(tally.outcomes.deployments);
        let budget_left = || {
            let own = budgets_of_wave(strategy, wave);
            let of_wave = tally.outcomes.budget_left(strategy, &own);
            let of_run = view
                .outcomes()
                .budget_left(strategy, budgets_of_run(strategy));
            of_wave.into_iter().chain(of_run).min()
        };
        let has_places = tally.waiting > 0;
        Self {
            wave: view.name(index),
            concurrency,
            ramp: strategy
                .ramp
                .map(|ramp| RampStep::of(ramp, concurrency, tally.outcomes.proven)),
            in_flight: tally.in_flight,
            away: tally.away,
            budget_left: wave.strict.then(budget_left).flatten(),
            spread: wave
                .spread
                .as_ref()
                .filter(|_| has_places)
                .map(|spread| Groups {
                    label: spread.label.as_str().into(),
                    max: spread.max.max(1),
                    taken: BTreeMap::new(),
                }),
        }
    }

    fn held_by(&self) -> Option<WaitingOn> {
        let (in_flight, away) = (self.in_flight, self.away);
        let limit = self.ramp.map_or(self.concurrency, |ramp| ramp.limit);
        let wave = || self.wave.clone();
        if let Some(left) = self.budget_left
            && (left < limit || away > 0)
        {
            let full = in_flight.saturating_add(away) >= limit.min(left.saturating_add(1));
            return full.then(|| WaitingOn::Strict {
                wave: wave(),
                in_flight,
                away,
                budget_left: left,
            });
        }
        if in_flight < limit {
            return None;
        }
        Some(match self.ramp {
            Some(RampStep { limit, missing }) if missing > 0 => WaitingOn::Ramp {
                wave: wave(),
                limit,
                concurrency: self.concurrency,
                in_flight,
                missing,
            },
            Some(_) | None => WaitingOn::Concurrency {
                wave: wave(),
                limit,
                in_flight,
            },
        })
    }
}

impl<'a> Groups<'a> {
    fn add(&mut self, target: &'a Target) {
        *self.taken.entry(target.group.as_deref()).or_default() += 1;
    }

    fn held_by(&self, wave: &Arc<str>, target: &Target) -> Option<WaitingOn> {
        let taken = self.taken.get(&target.group.as_deref()).copied();
        let in_flight = taken.unwrap_or_default();
        (in_flight >= self.max).then(|| WaitingOn::Spread {
            wave: wave.clone(),
            label: self.label.clone(),
            value: target.group.clone(),
            max: self.max,
            in_flight,
        })
    }
}

/// Counts who has a place in the waves that are spread and have somebody to offer the change to.
fn count_groups<'a>(view: &'a View<'a>, waves: &mut [Room<'a>]) {
    if waves.iter().all(|room| room.spread.is_none()) {
        return;
    }
    for (target, stage) in view.targets() {
        let index = view.wave_of(target);
        let keeps = stage == (Stage::Ledger { offered: true }) && view.wave(index).strict;
        if let Some(groups) = waves.get_mut(index).and_then(|room| room.spread.as_mut())
            && (keeps || stage.is_in_flight())
        {
            groups.add(target);
        }
    }
}
