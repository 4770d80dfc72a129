//! The next step of each binding, and what control hears of it.

use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::binding::BindingState;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::KeyVersion;
use keyfleet_proto::{WireTime, v1};

use super::goal::{Shown, Strain};
use super::{Agent, Effect, Entry, Goal, Intent, Job, KEY_PATIENCE, Task, goal_of};
use crate::simulate::kibana::{KeyId, Place};
use crate::simulate::random::Random;

/// A failure that may pass by itself is said after so many tries, and given up after as many where it is not Kibana's.
const TRIES_MAX: u32 = 3;

/// How long the agent waits after the first failed try; each further one doubles it.
const BACKOFF: Duration = Duration::from_secs(2);

impl Agent {
    /// Goes on as far as it can now, and says what is new.
    pub(crate) fn go_on(&mut self, random: &mut Random, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        if !self.is_running {
            return effects;
        }
        if !self.is_stuck {
            let places: Vec<Place> = self.memory.slots.keys().cloned().collect();
            for place in places {
                while self.advance(&place, random, now, &mut effects) {}
            }
        }
        if self.session.is_some() && self.memory.is_welcome {
            let n_bindings = self.memory.slots.len();
            while let Some(message) = self.memory.outbox.next(n_bindings) {
                effects.push(Effect::Send(Box::new(message)));
            }
        }
        effects
    }

    /// One step of one binding; true where there may be more to do at once.
    fn advance(
        &mut self,
        place: &Place,
        random: &mut Random,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(slot) = self.memory.slots.get(place) else {
            return false;
        };
        let is_waiting = |strain: Strain| strain.not_before.is_none_or(|at| at > now);
        if self.memory.busy.contains_key(place)
            || slot.is_gone()
            || slot.strain.is_some_and(is_waiting)
        {
            return false;
        }
        let entry = self.disk.entries.entry(place.clone()).or_default().clone();
        match goal_of(&slot.wish) {
            None => self.remove(place, random, effects),
            Some(goal) => match entry.failure.filter(|(given_up, _)| *given_up == goal) {
                Some((_, class)) => {
                    self.show(place, BindingState::Failed, Some(class), false);
                    false
                }
                None => self.install(place, goal, &entry, (random, now), effects),
            },
        }
    }

    fn remove(&mut self, place: &Place, random: &mut Random, effects: &mut Vec<Effect>) -> bool {
        if !self.kibana.holds.contains_key(place) && !self.kibana.is_down {
            self.disk.entries.remove(place);
            self.show(place, BindingState::Applied, None, true);
        } else if !self.is_successor_proven(place) {
            self.show(place, BindingState::Received, None, false);
        } else if !self.memory.andon {
            self.begin(place, Task::Delete, random, effects);
        }
        false
    }

    /// True where what a removal waits for works here.
    fn is_successor_proven(&self, place: &Place) -> bool {
        let wish = self.memory.slots.get(place).map(|slot| &slot.wish);
        let Some(after) = wish
            .map(|wish| wish.after_connector.as_str())
            .filter(|name| !name.is_empty())
        else {
            return true;
        };
        let theirs = self.memory.slots.iter();
        let mut theirs = theirs
            .filter(|((_, connector), _)| connector.as_str() == after)
            .filter_map(|(place, slot)| Some((place, goal_of(&slot.wish)?)))
            .map(|(place, goal)| {
                let entry = self.disk.entries.get(place);
                entry.is_some_and(|entry| entry.is_proven(goal))
            })
            .peekable();
        theirs.peek().is_some() && theirs.all(|proven| proven)
    }

    fn install(
        &mut self,
        place: &Place,
        goal: Goal,
        entry: &Entry,
        (random, now): (&mut Random, Timestamp),
        effects: &mut Vec<Effect>,
    ) -> bool {
        let same = entry
            .applied
            .filter(|applied| entry.intent.is_none() && applied.goal.assignment == goal.assignment);
        let Some(applied) = same else {
            return self.change(place, goal, entry, (random, now), effects);
        };
        let same_try = applied.goal.attempt == goal.attempt;
        match (applied.agreed, applied.proven_at.is_some(), same_try) {
            (_, false, false) => self.change(place, goal, entry, (random, now), effects),
            (false, _, true) => {
                if let Some(applied) = self.applied_at(place) {
                    applied.agreed = true;
                }
                self.show(place, BindingState::Applied, None, false);
                true
            }
            (true, true, true) => {
                self.show(place, BindingState::Proven, None, false);
                false
            }
            (true, false, true) | (_, true, false) => {
                self.begin(place, Task::Prove(goal), random, effects);
                false
            }
        }
    }

    fn applied_at(&mut self, place: &Place) -> Option<&mut super::Applied> {
        self.disk.entries.get_mut(place)?.applied.as_mut()
    }

    /// A write is needed.
    fn change(
        &mut self,
        place: &Place,
        goal: Goal,
        entry: &Entry,
        (random, now): (&mut Random, Timestamp),
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(slot) = self.memory.slots.get(place) else {
            return false;
        };
        let Ok(name) = slot.wish.key.parse() else {
            return false;
        };
        let key: KeyId = (name, KeyVersion(goal.assignment.key_version.0));
        let (baseline_ok, is_tried) = (slot.baseline_ok, slot.baseline_ok.is_some());
        if self.memory.andon {
            return false;
        }
        if !self.memory.keys.contains(&key) {
            self.ask_key(key, now, effects);
            return false;
        }
        let begun = entry.intent.filter(|intent| intent.goal == goal);
        let is_ours = self.kibana.holds.contains_key(place);
        let same = entry.running() == Some(goal.assignment);
        let untried = !is_tried && entry.applied.is_none_or(|applied| applied.ever_proven);
        if is_ours && begun.is_none() && !same && untried {
            self.begin(place, Task::Baseline, random, effects);
            return false;
        }
        let baseline_ok = begun.map_or(baseline_ok, |begun| begun.baseline_ok);
        let entry = self.disk.entries.entry(place.clone()).or_default();
        entry.intent = Some(Intent { goal, baseline_ok });
        self.begin(place, Task::Write(goal, key), random, effects);
        false
    }

    fn ask_key(&mut self, key: KeyId, now: Timestamp, effects: &mut Vec<Effect>) {
        let patient = self
            .memory
            .desired_at
            .and_then(|at| at.checked_add(KEY_PATIENCE).ok());
        match patient.filter(|until| *until > now) {
            Some(until) => effects.push(Effect::Look(
                Duration::try_from(until.duration_since(now)).unwrap_or_default(),
            )),
            None if self.memory.asked.insert(key.clone()) => self.memory.outbox.request(key),
            None => {}
        }
    }

    fn begin(&mut self, place: &Place, task: Task, random: &mut Random, effects: &mut Vec<Effect>) {
        let serial = self.memory.slots.get(place).map_or(0, |slot| slot.serial);
        let job = Job {
            place: place.clone(),
            boot: self.boot,
            serial,
            task,
        };
        self.memory.busy.insert(place.clone(), job.clone());
        effects.push(Effect::Work(random.about(self.step), job));
    }

    /// Something failed: it is tried again later, or given up. What worked once is never given up.
    pub(super) fn strain(
        &mut self,
        place: &Place,
        class: FailureClass,
        is_proof: bool,
        now: Timestamp,
    ) {
        let Some(slot) = self.memory.slots.get_mut(place) else {
            return;
        };
        slot.n_failures += 1;
        let n_failures = slot.n_failures;
        let is_transient = matches!(
            class,
            FailureClass::RateLimit
                | FailureClass::Network
                | FailureClass::Provider
                | FailureClass::Timeout
                | FailureClass::KibanaDown
        );
        let is_spent = n_failures >= TRIES_MAX;
        let wait = BACKOFF.saturating_mul(1 << n_failures.min(8));
        let again = (is_transient && !is_spent).then(|| now.checked_add(wait).unwrap_or(now));
        slot.strain = Some(Strain {
            class,
            not_before: again,
        });
        let goal = goal_of(&slot.wish);
        let entry = self.disk.entries.entry(place.clone()).or_default();
        if is_transient && !is_spent {
            return;
        }
        if is_proof {
            entry.void_proof();
        }
        let worked = goal.is_some_and(|goal| entry.ever_proven(goal));
        if let (Some(goal), false) = (goal, worked || class == FailureClass::KibanaDown) {
            entry.failure = Some((goal, class));
            entry.void_proof();
        }
        self.show(place, BindingState::Failed, Some(class), false);
    }

    /// When the next binding is tried again by itself.
    pub(crate) fn tries_again_at(&self) -> Option<Timestamp> {
        let slots = self.memory.slots.values();
        slots.filter_map(|slot| slot.strain?.not_before).min()
    }

    fn show(
        &mut self,
        place: &Place,
        state: BindingState,
        failure: Option<FailureClass>,
        removed: bool,
    ) {
        let entry = self.disk.entries.get(place).cloned().unwrap_or_default();
        let generation = self
            .disk
            .desired
            .as_ref()
            .and_then(|desired| desired.generation);
        let Some(slot) = self.memory.slots.get_mut(place) else {
            return;
        };
        let shown = Shown {
            state,
            failure,
            proven_at: entry.applied.and_then(|applied| applied.proven_at),
            removed,
        };
        if slot.shown == Some(shown) {
            return;
        }
        slot.shown = Some(shown);
        let goal = goal_of(&slot.wish);
        let baseline_ok = match (entry.intent, entry.applied) {
            (Some(intent), _) if Some(intent.goal) == goal => intent.baseline_ok,
            (_, Some(applied)) if Some(applied.goal) == goal => applied.baseline_ok,
            _ => slot.baseline_ok,
        };
        let text = failure.map(|class| format!("the model says {class}"));
        let status = v1::BindingStatus {
            binding: slot.wish.binding.clone(),
            running: entry.running().map(Into::into),
            attempted: goal.map(|goal| goal.assignment.into()),
            attempt: goal.map_or(0, |goal| goal.attempt),
            generation,
            state: v1::BindingState::from(state).into(),
            failure_class: failure.map_or(0, |class| v1::FailureClass::from(class).into()),
            text: text.unwrap_or_default(),
            baseline_ok,
            proven_at: shown.proven_at.map(|at| WireTime(at).into()),
            changed_at: None,
            removed,
            rung: 0,
            references: 0,
        };
        self.memory.outbox.status(place.clone(), status);
    }
}
