//! What a try has shown of each run, for the wire.

use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::rollout::{About, Phase};
use keyfleet_proto::v1;
use keyfleet_store::{EventScope, Rollout};

use super::fates::{Fate, fates, most};
use super::{Tried, is_held, since};
use crate::error::Error;

/// Sentences of one rollout that are shown.
const EVENTS_MAX: u32 = 40;

/// Reasons of a run that neither goes on nor is held.
const REASONS_MAX: usize = 2;

impl Tried {
    pub(super) fn rollout(&self, rollout: &Rollout) -> Result<v1::SimulatedRollout, Error> {
        let fates = self.simulation.look(|tx| fates(tx, rollout))?;
        let events = self
            .simulation
            .look(|tx| Ok(tx.events(EventScope::Rollout(rollout.id), EVENTS_MAX)?))?;
        let ended = self.ended(rollout, &fates);
        let waves = 0..rollout.strategy.waves.len();
        let events = events.into_iter().map(|event| v1::SimulatedEvent {
            at_secs: self.secs(event.at),
            text: event.text,
        });
        Ok(v1::SimulatedRollout {
            cause: rollout.cause.clone(),
            strategy: rollout.strategy.name.to_string(),
            waves: waves
                .map(|index| self.wave(rollout, index, &fates, ended))
                .collect(),
            phase: v1::RolloutPhase::from(rollout.run.phase).into(),
            reason: self.reason(rollout),
            ends_secs: self.secs(ended),
            events: events.collect(),
        })
    }

    fn wave(
        &self,
        rollout: &Rollout,
        index: usize,
        fates: &[Fate],
        ended: Timestamp,
    ) -> v1::SimulatedWave {
        let of_wave: Vec<&Fate> = fates.iter().filter(|fate| fate.wave == index).collect();
        let count = |is: &dyn Fn(&Fate) -> bool| number(of_wave.iter().filter(|f| is(f)).count());
        let has_begun = |index: usize| self.begun.get(&(rollout.id, index)).copied();
        let offered = of_wave.iter().filter_map(|fate| fate.offered).min();
        let begins = offered.or(has_begun(index)).filter(|_| !of_wave.is_empty());
        let proven = of_wave.iter().filter(|fate| fate.is_proven);
        let is_done = rollout.run.phase == Phase::Completed;
        let later = (index + 1..rollout.strategy.waves.len()).find_map(has_begun);
        let ends = later.or(is_done.then_some(ended));
        // Who is there and was not changed waits; only who is not there is offline.
        let is_away =
            |f: &Fate| !f.is_proven && !f.has_failed && self.simulation.is_away(f.deployment);
        v1::SimulatedWave {
            name: rollout
                .strategy
                .waves
                .get(index)
                .map_or_else(String::new, |wave| wave.name.clone()),
            deployments: number(of_wave.len()),
            begins_secs: begins.map(|at| self.secs(at)),
            proven_secs: proven
                .filter_map(|f| f.settled)
                .max()
                .map(|at| self.secs(at)),
            ends_secs: begins.and(ends).map(|at| self.secs(at)),
            proven: count(&|fate| fate.is_proven),
            failed: count(&|fate| fate.has_failed),
            offline: count(&is_away),
            in_flight_max: most(of_wave.iter().filter_map(|f| Some((f.offered?, f.settled)))),
        }
    }

    /// When it ended, or when something last went on in it.
    pub(super) fn ended(&self, rollout: &Rollout, fates: &[Fate]) -> Timestamp {
        let begun = self.begun.iter().filter(|((id, _), _)| *id == rollout.id);
        let begun = begun.map(|(_, at)| *at);
        let stopped = self.stopped.get(&rollout.id).copied();
        let moved = fates.iter().flat_map(|f| [f.offered, f.settled, f.back]);
        let last = moved.flatten().chain(begun).chain(stopped).max();
        let (start, now) = (self.start, self.simulation.now());
        rollout
            .ended_at
            .unwrap_or_else(|| last.unwrap_or(start).clamp(start, now))
    }

    /// Why it ended so, or what it waits for.
    fn reason(&self, rollout: &Rollout) -> String {
        let run = &rollout.run;
        if run.phase.is_terminal() || is_held(run.phase) {
            return run.hold_reason.clone();
        }
        let waiting = self.simulation.waiting().get(&rollout.id);
        let of_run = waiting.into_iter().flatten();
        let of_run = of_run.filter(|waiting| !matches!(waiting.about, About::Deployment(_)));
        let mut sentences: Vec<String> = of_run.map(|waiting| waiting.on.to_string()).collect();
        sentences.dedup();
        sentences.truncate(REASONS_MAX);
        sentences.join("; ")
    }
}

/// A time for people, in whole seconds.
pub(super) fn span(span: Duration) -> String {
    let whole = jiff::SignedDuration::try_from(span).unwrap_or(jiff::SignedDuration::MAX);
    format!("{whole:#}")
}

/// The same from the start of the preview on, without parts of a second.
pub(super) fn after(start: Timestamp, at: Timestamp) -> String {
    span(Duration::from_secs(since(start, at).as_secs()))
}

pub(super) fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
