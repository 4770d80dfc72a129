//! How many more deployments may be offered the change: concurrency, and in strict waves the budget.

use super::view::View;
use crate::rollout::waiting::WaitingOn;

/// The room of every wave that has begun. An offer in an earlier wave (somebody came back) takes room in
/// that wave and in the running one.
#[derive(Debug)]
pub(super) struct Rooms {
    earlier: Vec<Room>,
    running: Room,
}

/// The room of one wave.
#[derive(Debug, Clone)]
struct Room {
    wave: String,
    concurrency: u32,
    in_flight: u32,
    /// In a strict wave, whoever was offered the change and went away keeps its place: it may come back
    /// and fail at any moment.
    away: u32,
    /// How many more failures the wave bears, where it is strict and any budget would hold it.
    budget_left: Option<u32>,
}

impl Rooms {
    pub(super) fn new(view: &View<'_>) -> Self {
        let earlier: Vec<Room> = (0..view.current)
            .map(|index| Room::new(view, index))
            .collect();
        let mut running = Room::new(view, view.current);
        running.in_flight += earlier.iter().map(|room| room.in_flight).sum::<u32>();
        Self { earlier, running }
    }

    /// Takes a place in the wave of this index, if one is free.
    pub(super) fn take(&mut self, index: usize) -> bool {
        let free = self.held_by(index).is_none();
        if free {
            self.running.in_flight += 1;
            if let Some(room) = self.earlier.get_mut(index) {
                room.in_flight += 1;
            }
        }
        free
    }

    /// How many are in flight in all waves that have begun.
    pub(super) fn in_flight(&self) -> u32 {
        self.running.in_flight
    }

    /// The rule that leaves no place in the wave of this index.
    pub(super) fn held_by(&self, index: usize) -> Option<WaitingOn> {
        self.earlier
            .get(index)
            .and_then(Room::held_by)
            .or_else(|| self.running.held_by())
    }
}

impl Room {
    fn new(view: &View<'_>, index: usize) -> Self {
        let wave = view.wave(index);
        let tally = view.tally(index);
        let budget_left = || tally.outcomes.budget_left(view.input.strategy);
        Self {
            wave: wave.name.clone(),
            concurrency: wave.concurrency.of_at_least_one(tally.outcomes.deployments),
            in_flight: tally.in_flight,
            away: tally.away,
            budget_left: wave.strict.then(budget_left).flatten(),
        }
    }

    fn held_by(&self) -> Option<WaitingOn> {
        let Self {
            concurrency: limit,
            in_flight,
            away,
            ..
        } = *self;
        let wave = self.wave.clone();
        match self.budget_left {
            Some(left) if left < limit || away > 0 => {
                let full = in_flight + away >= limit.min(left.saturating_add(1));
                full.then_some(WaitingOn::Strict {
                    wave,
                    in_flight,
                    away,
                    budget_left: left,
                })
            }
            Some(_) | None => (in_flight >= limit).then_some(WaitingOn::Concurrency {
                wave,
                limit,
                in_flight,
            }),
        }
    }
}
