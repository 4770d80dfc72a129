//! Takes each binding one step further, as far as is allowed now.

use std::io;

use keyfleet_core::binding::BindingState;
use keyfleet_core::failure::FailureClass;
use tokio::time::Instant;

use super::check::Block;
use super::slot::Stage;
use super::{JOBS_MAX, KEY_PATIENCE, KEY_REPEAT, Reconciler};
use crate::decide::{Seen, Situation, Step, next};
use crate::ledger::{Drift, Entry, Intent};
use crate::wish::{Goal, Place, Wish};
use crate::work::{Job, Task, Trouble, failure};

/// Failures that may pass by themselves are not reported before this many: a restart of Kibana is no news.
pub(super) const QUIET_TRIES: u32 = 3;

/// The loop looks around at least this often.
const IDLE: std::time::Duration = std::time::Duration::from_secs(60);

/// What became of one attempt to go on.
enum Advance {
    /// Something was noted without a call; there may be more to do at once.
    Again,
    /// A call is under way, or nothing can be done before this time, or before something happens.
    Wait(Option<Instant>),
}

impl Reconciler {
    /// Starts every call that is due and says when to come back.
    pub(super) fn start_what_is_due(&mut self) -> Instant {
        let now = Instant::now();
        let mut wake = now + IDLE;
        match self.check.begin(now) {
            Ok(job) => self.begin(job),
            Err(due) => wake = due.map_or(wake, |due| wake.min(due)),
        }
        let places: Vec<Place> = self.slots.keys().cloned().collect();
        for place in places {
            let at = loop {
                match self.advance(&place, now) {
                    Advance::Again => {}
                    Advance::Wait(at) => break at,
                }
            };
            wake = at.map_or(wake, |at| wake.min(at));
        }
        wake
    }

    fn advance(&mut self, place: &Place, now: Instant) -> Advance {
        if self.is_held_back(place) {
            return Advance::Wait(None);
        }
        let Some(slot) = self.slots.get_mut(place) else {
            return Advance::Wait(None);
        };
        if let Some(strain) = slot
            .strain
            .as_ref()
            .filter(|strain| strain.not_before > now)
        {
            return Advance::Wait(Some(strain.not_before));
        }
        let look_at = slot.seen_at + self.drift_interval;
        if look_at <= now && !(slot.seen == Seen::Absent && slot.wish.goal.is_none()) {
            slot.seen = Seen::Unknown;
        }
        let wish = slot.wish.clone();
        let entry = self.ledger.get(place);
        let (step, probe_in) = self.decide(place, &wish, &entry);
        let probe_at = probe_in.map(|probe_in| now + probe_in);
        let rest = Advance::Wait(Some(probe_at.map_or(look_at, |at| at.min(look_at))));
        match (step, wish.goal) {
            (Step::Look, _) => self.start(place, &wish, Task::Look),
            (Step::Delete, _) => self.start(place, &wish, Task::Delete),
            (Step::Baseline, _) => self.start_paced(place, &wish, Task::Baseline, now),
            (Step::Prove, Some(goal)) => self.start_paced(place, &wish, Task::Prove(goal), now),
            (Step::Create, Some(goal)) => self.start_write(place, &wish, (goal, true), now),
            (Step::Update, Some(goal)) => self.start_write(place, &wish, (goal, false), now),
            (Step::AskKey, _) => self.ask_key(place, &wish, now),
            (Step::Agree, _) => self.note(place, BindingState::Applied, |entry| {
                if let Some(applied) = &mut entry.applied {
                    (applied.agreed, applied.n_writes) = (true, 0);
                }
            }),
            (Step::NoteDrift(text), Some(goal)) => self.note_drift(place, goal, text),
            (Step::LeaveDrift(text), _) => {
                self.say(place, BindingState::Drifted, Some(&text), rest)
            }
            (Step::GiveUp(failure), _) => {
                self.report_failed(place, &failure);
                rest
            }
            (Step::Removed, _) => self.note_removed(place),
            (Step::Hold, _) => rest,
            (Step::Rest, _) => self.say(place, BindingState::Proven, None, rest),
            // Only a wish with a goal is installed.
            (Step::Prove | Step::Create | Step::Update | Step::NoteDrift(_), None) => rest,
        }
    }

    /// True where nothing can be done for this binding now, which is reported if somebody must act.
    fn is_held_back(&mut self, place: &Place) -> bool {
        let Some(slot) = self.slots.get(place) else {
            return true;
        };
        if self.busy.contains(place) || slot.refused.is_some() {
            return true;
        }
        let problem = match self.check.blocks(place, &slot.wish) {
            None => return false,
            Some(Block::NotYet | Block::Passing) => return true,
            Some(Block::Lasting(problem)) => failure(problem.class, &problem.sentence),
        };
        // What works, works without us.
        let proven = slot
            .wish
            .goal
            .is_some_and(|goal| self.ledger.get(place).is_proven(goal));
        if !proven {
            self.report_failed(place, &problem);
        }
        true
    }

    /// The next step, and how long the proof is still good for.
    fn decide(
        &self,
        place: &Place,
        wish: &Wish,
        entry: &Entry,
    ) -> (Step, Option<std::time::Duration>) {
        let Some(slot) = self.slots.get(place) else {
            return (Step::Rest, None);
        };
        let proven_at = entry.applied.as_ref().and_then(|applied| applied.proven_at);
        let probe_in = slot.probe_in(proven_at, Self::now_on_the_wall());
        let step = next(&Situation {
            wish,
            entry,
            seen: &slot.seen,
            key_here: wish.key().is_some_and(|key| self.keys.contains_key(&key)),
            andon: self.andon,
            baseline_taken: slot.baseline_ok.is_some(),
            probe_due: probe_in.is_some_and(|probe_in| probe_in.is_zero()),
        });
        (step, probe_in.filter(|probe_in| !probe_in.is_zero()))
    }

    fn start(&mut self, place: &Place, wish: &Wish, task: Task) -> Advance {
        if self.work.len() >= JOBS_MAX {
            return Advance::Wait(None);
        }
        let Some(serial) = self.slots.get(place).map(|slot| slot.serial) else {
            return Advance::Wait(None);
        };
        self.busy.insert(place.clone());
        self.begin(Job::Step {
            place: place.clone(),
            serial,
            wish: Box::new(wish.clone()),
            version: self.version(),
            task,
        });
        Advance::Wait(None)
    }

    /// A live call costs a token of the pace that control sets.
    fn start_paced(&mut self, place: &Place, wish: &Wish, task: Task, now: Instant) -> Advance {
        if self.work.len() >= JOBS_MAX {
            return Advance::Wait(None);
        }
        match self.bucket.take(now) {
            Ok(()) => self.start(place, wish, task),
            Err(at) => Advance::Wait(Some(at)),
        }
    }

    /// A write begins with its intent on disk.
    fn start_write(
        &mut self,
        place: &Place,
        wish: &Wish,
        (goal, create): (Goal, bool),
        now: Instant,
    ) -> Advance {
        if self.work.len() >= JOBS_MAX {
            return Advance::Wait(None);
        }
        let key = wish.key().and_then(|id| self.keys.get(&id));
        let (Some(version), Some(key)) = (self.version(), key) else {
            return Advance::Wait(None);
        };
        let (value, fingerprint) = (key.value.clone(), key.fingerprint.clone());
        if let Err(error) = self.note_intent(place, goal) {
            let text = format!(
                "cannot write the agent's ledger ({error}), so nothing is written to Kibana; check its disk"
            );
            self.strain(
                place,
                Stage::Write,
                Trouble::new(FailureClass::Agent, &text, true),
                now,
            );
            return Advance::Again;
        }
        tracing::info!(binding = %place, assignment = %goal.assignment, attempt = goal.attempt, create, %fingerprint, "writing a connector");
        self.start(
            place,
            wish,
            Task::Write {
                goal,
                create,
                key: value,
                fingerprint,
                version,
            },
        )
    }

    /// The Kibana's version, as the last preflight found it.
    fn version(&self) -> Option<keyfleet_kibana::Version> {
        let found = self.check.found.as_ref()?;
        Some(found.status.as_ref()?.version)
    }

    fn note_intent(&mut self, place: &Place, goal: Goal) -> io::Result<()> {
        let tried = self.slots.get(place).and_then(|slot| slot.baseline_ok);
        self.ledger.change(place, |entry| {
            let before = entry.intent.take().filter(|intent| intent.goal == goal);
            let applied = entry
                .applied
                .as_ref()
                .filter(|applied| applied.goal == goal);
            let n_before = before
                .as_ref()
                .map(|intent| intent.n_writes)
                .or(applied.map(|applied| applied.n_writes));
            let baseline_ok = tried
                .or(before.and_then(|intent| intent.baseline_ok))
                .or(applied.and_then(|applied| applied.baseline_ok));
            entry.intent = Some(Intent {
                goal,
                baseline_ok,
                n_writes: n_before.unwrap_or(0).saturating_add(1),
            });
        })
    }

    /// Waits for the key that control sends with a change; asks where it does not come.
    fn ask_key(&mut self, place: &Place, wish: &Wish, now: Instant) -> Advance {
        let Some(id) = wish.key() else {
            return Advance::Wait(None);
        };
        let refused = self.keys_refused.get(&id).cloned();
        if let Some(reason) = &refused {
            let text = format!(
                "the control service does not send key {} {}: {reason}",
                id.0, id.1
            );
            self.report_failed(place, &failure(FailureClass::Agent, &text));
        }
        let ask_at = match self.keys_asked.get(&id) {
            Some(asked) => *asked + KEY_REPEAT,
            None => self.desired_at.map_or(now, |at| at + KEY_PATIENCE),
        };
        if ask_at > now {
            return Advance::Wait(Some(ask_at));
        }
        tracing::info!(binding = %place, key = %id.0, version = %id.1, "asking for a key");
        if refused.is_none() {
            let text = format!("waiting for key {} {} from the control service", id.0, id.1);
            self.report(
                place,
                BindingState::Received,
                Some(&failure(FailureClass::Agent, &text)),
            );
        }
        self.keys_asked.insert(id.clone(), now);
        self.outbox.request(id);
        Advance::Wait(Some(now + KEY_REPEAT))
    }

    /// Notes something in the ledger and reports it; a ledger that cannot be written is reported too.
    fn note(
        &mut self,
        place: &Place,
        state: BindingState,
        change: impl FnOnce(&mut Entry),
    ) -> Advance {
        self.keep(place, change);
        self.report(place, state, None);
        Advance::Again
    }

    fn note_drift(&mut self, place: &Place, goal: Goal, text: String) -> Advance {
        tracing::warn!(binding = %place, difference = %text, "Kibana differs without our doing");
        let said = text.clone();
        self.keep(place, |entry| {
            entry.drift = Some(Drift {
                attempt: goal.attempt,
                text,
            });
            if let Some(applied) = &mut entry.applied {
                applied.proven_at = None;
            }
        });
        self.say(place, BindingState::Drifted, Some(&said), Advance::Again)
    }

    fn note_removed(&mut self, place: &Place) -> Advance {
        self.keep(place, |entry| *entry = Entry::default());
        self.report_removed(place);
        Advance::Wait(None)
    }

    fn say(
        &mut self,
        place: &Place,
        state: BindingState,
        text: Option<&str>,
        then: Advance,
    ) -> Advance {
        let failure = text.map(|text| failure(FailureClass::Conflict, text));
        self.report(place, state, failure.as_ref());
        then
    }
}
