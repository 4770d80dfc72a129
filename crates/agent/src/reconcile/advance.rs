//! Takes each binding one step further, as far as is allowed now.

use std::io;
use std::sync::Arc;

use keyfleet_core::binding::BindingState;
use keyfleet_core::failure::FailureClass;
use tokio::time::Instant;

use super::check::Block;
use super::slot::{Slot, Stage};
use super::{JOBS_MAX, KEY_PATIENCE, KEY_REPEAT, Reconciler};
use crate::decide::{Seen, Situation, Step, next};
use crate::ledger::{Drift, Entry, Intent};
use crate::wish::{Goal, Place, Wish};
use crate::work::{Job, Task, Trouble, Versions, failure};

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
        if let Some(until) = self.keep_quiet(now) {
            return until;
        }
        let mut wake = now + IDLE;
        // It comes before everything else, so everything else makes room for it.
        if self.n_calls() + self.check.n_calls_due(now) > JOBS_MAX {
            return wake;
        }
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
        let (lists, grants) = (self.start_lists(now), self.ask_for_grants(now));
        lists.into_iter().chain(grants).fold(wake, Instant::min)
    }

    /// Calls to Kibana that are under way.
    fn n_calls(&self) -> usize {
        self.work.len() + self.writes.len() + self.check.n_more_calls()
    }

    /// True where another call may begin.
    pub(super) fn has_room(&self) -> bool {
        self.n_calls() < JOBS_MAX
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
        let wish = slot.wish.clone();
        let look_at = self.idle_look(place, now);
        let entry = self.ledger.get(place);
        let (step, probe_in) = self.decide(place, &wish, &entry);
        let probe_at = probe_in.map(|probe_in| now + probe_in);
        let rest = Advance::Wait(probe_at.into_iter().chain(look_at).min());
        match (step, wish.goal) {
            (Step::Look, _) => self.start(place, &wish, Task::Look),
            (Step::Delete, _) => self.start_removal(place, &wish),
            (Step::Baseline, _) => {
                let config = self.slots.get(place).map(|slot| slot.config.clone());
                let task = Task::Baseline(config.unwrap_or_default());
                self.start_paced(place, &wish, task, now)
            }
            (Step::Prove, Some(goal)) => self.start_paced(place, &wish, Task::Prove(goal), now),
            (Step::Create, Some(goal)) => self.start_write(place, &wish, (goal, true)),
            (Step::Update, Some(goal)) => self.start_write(place, &wish, (goal, false)),
            (Step::AskKey, _) => self.ask_key(place, &wish, now),
            (Step::Agree, _) => self.note(place, BindingState::Applied, |entry| {
                if let Some(applied) = &mut entry.applied {
                    (applied.agreed, applied.n_writes) = (true, 0);
                }
            }),
            (Step::NoteDrift(drift), _) => self.note_drift(place, drift),
            (Step::LeaveDrift(failure), _) => {
                self.report(place, BindingState::Drifted, Some(&failure));
                rest
            }
            (Step::Stay(text), _) => {
                let why = failure(FailureClass::Agent, &text);
                self.report(place, BindingState::Received, Some(&why));
                rest
            }
            (Step::GiveUp(failure), _) => {
                self.void_proof(place);
                self.report_failed(place, &failure);
                rest
            }
            (Step::Removed, _) => self.note_removed(place),
            (Step::Hold, _) => rest,
            (Step::Rest, _) => {
                let note = entry.applied.and_then(|applied| applied.note);
                let note = note.map(|note| failure(FailureClass::Agent, &note));
                self.report(place, BindingState::Proven, note.as_ref());
                rest
            }
            // Only a wish with a goal is installed.
            (Step::Prove | Step::Create | Step::Update, None) => rest,
        }
    }

    /// True where nothing can be done for this binding now, which is reported if somebody must act.
    fn is_held_back(&mut self, place: &Place) -> bool {
        let Some(slot) = self.slots.get(place) else {
            return true;
        };
        if self.busy.contains(place) || slot.refused.is_some() || slot.is_gone() {
            return true;
        }
        let problem = match self.check.blocks(place, &slot.wish) {
            None => return false,
            Some(Block::NotYet | Block::Passing) => return true,
            Some(Block::Lasting(problem)) => failure(problem.class, &problem.sentence),
        };
        let proven = slot
            .wish
            .goal
            .is_some_and(|goal| self.ledger.get(place).is_proven(goal));
        // What works, works without us, unless Kibana itself does not run it any more.
        if !proven || is_broken_by(problem.class) {
            self.void_proof(place);
            self.report_failed(place, &problem);
        }
        true
    }

    /// The proof does not hold any more; what was proven once is proven again as soon as that can be.
    pub(super) fn void_proof(&mut self, place: &Place) {
        self.keep(place, |entry| {
            if let Some(applied) = &mut entry.applied {
                applied.proven_at = None;
            }
        });
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
        let (probe_due, probe_in) = self.is_probe_due(slot, entry);
        let step = next(&Situation {
            wish,
            entry,
            seen: &slot.seen,
            key_here: wish.key().is_some_and(|key| self.keys.contains_key(&key)),
            andon: self.andon,
            baseline_taken: slot.baseline_ok.is_some(),
            probe_due,
            successor_proven: self.is_successor_proven(wish),
            now: Self::now_on_the_wall(),
        });
        (step, probe_in.filter(|probe_in| !probe_in.is_zero()))
    }

    /// Whether a proof is too old, by its interval or because control asked for a newer one, or of another Kibana than the one that runs now; and how long it is good for.
    fn is_probe_due(&self, slot: &Slot, entry: &Entry) -> (bool, Option<std::time::Duration>) {
        let applied = entry.applied.as_ref();
        let proven_at = applied.and_then(|applied| applied.proven_at);
        let probe_in = slot.probe_in(proven_at, Self::now_on_the_wall());
        let proven_on = applied.and_then(|applied| applied.version);
        let is_upgraded = self
            .version()
            .zip(proven_on)
            .is_some_and(|(version, proven_on)| version != proven_on);
        let is_old = probe_in.is_some_and(|probe_in| probe_in.is_zero());
        let is_asked = self
            .prove_since
            .zip(proven_at)
            .is_some_and(|(since, proven_at)| proven_at < since);
        (is_upgraded || is_old || is_asked, probe_in)
    }

    /// True where what a removal waits for works: every binding of that connector is proven, was seen as it was
    /// written since the agent started, and has nothing left to do.
    fn is_successor_proven(&self, wish: &Wish) -> bool {
        let Some(successor) = &wish.after else {
            return true;
        };
        let mut theirs = self.slots.iter().filter_map(|(place, slot)| {
            let goal = slot.wish.goal.filter(|_| place.connector == *successor)?;
            let agrees =
                matches!(&slot.seen, Seen::Ours { differences, .. } if differences.is_empty());
            let entry = self.ledger.get(place);
            let rests = slot.refused.is_none()
                && slot.strain.is_none()
                && !self.busy.contains(place)
                && !self.is_probe_due(slot, &entry).0;
            Some(rests && agrees && entry.is_proven(goal))
        });
        let first = theirs.next();
        first.is_some_and(|first| first && theirs.all(|proven| proven))
    }

    fn start(&mut self, place: &Place, wish: &Arc<Wish>, task: Task) -> Advance {
        if let Some(job) = self.job(place, wish, task) {
            self.begin(job);
        }
        Advance::Wait(None)
    }

    /// The call, if there is room for one more.
    fn job(&mut self, place: &Place, wish: &Arc<Wish>, task: Task) -> Option<Job> {
        let serial = self.slots.get(place)?.serial;
        if !self.has_room() {
            return None;
        }
        self.busy.insert(place.clone());
        let entry = self.ledger.get(place);
        Some(Job::Step {
            place: place.clone(),
            serial,
            wish: Arc::clone(wish),
            surface: wish.surface(&entry),
            versions: Versions::of(wish, &entry, self.version()),
            task,
        })
    }

    /// Who wants the connector again before the outcome is known must not take its absence for somebody else's doing.
    fn start_removal(&mut self, place: &Place, wish: &Arc<Wish>) -> Advance {
        if let Some(job) = self.job(place, wish, Task::Delete) {
            self.keep(place, |entry| entry.removing = true);
            self.writes.push(job);
        }
        Advance::Wait(None)
    }

    /// A live call waits for its turn in the fleet and costs a token of this agent's own pace.
    fn start_paced(
        &mut self,
        place: &Place,
        wish: &Arc<Wish>,
        task: Task,
        now: Instant,
    ) -> Advance {
        if !self.grants.is_turn(place, now) || !self.has_room() {
            return Advance::Wait(None);
        }
        match self.bucket.take(now) {
            Ok(()) => {
                self.grants.spend(place);
                self.start(place, wish, task)
            }
            Err(at) => Advance::Wait(Some(at)),
        }
    }

    /// A write begins with its intent on disk.
    fn start_write(
        &mut self,
        place: &Place,
        wish: &Arc<Wish>,
        (goal, create): (Goal, bool),
    ) -> Advance {
        if !self.has_room() {
            return Advance::Wait(None);
        }
        let key = wish.key().and_then(|id| self.keys.get(&id));
        let (Some(version), Some(key)) = (self.version(), key) else {
            return Advance::Wait(None);
        };
        let (value, fingerprint) = (key.value.clone(), key.fingerprint.clone());
        self.note_intent(place, wish, goal);
        tracing::info!(binding = %place, assignment = %goal.assignment, attempt = goal.attempt, create, %fingerprint, "writing a connector");
        let task = Task::Write {
            goal,
            create,
            key: value,
            fingerprint,
            version,
        };
        let job = self.job(place, wish, task);
        self.writes.extend(job);
        Advance::Wait(None)
    }

    /// Keeps what changed, and only then begins the writes that it tells of. False where the disk refuses and writes
    /// have to wait.
    pub(super) fn keep_and_write(&mut self) -> bool {
        let kept = self.flush();
        let writes = std::mem::take(&mut self.writes);
        let Err(error) = kept else {
            writes.into_iter().for_each(|job| self.begin(job));
            return true;
        };
        let text = format!(
            "cannot write the agent's ledger ({error}), so nothing is written to Kibana; check its disk"
        );
        let none = writes.is_empty();
        for job in writes {
            if let Job::Step { place, .. } = job {
                self.busy.remove(&place);
                let trouble = Trouble::new(FailureClass::Agent, &text, true);
                self.strain(&place, Stage::Write, trouble, Instant::now());
            }
        }
        none
    }

    /// Keeps what changed.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.ledger.flush().inspect_err(|error| {
            tracing::error!(%error, "cannot write the ledger; after a restart connectors may be written once more");
        })
    }

    /// The Kibana's version, as the last preflight found it.
    pub(super) fn version(&self) -> Option<keyfleet_kibana::Version> {
        let found = self.check.found.as_ref()?;
        Some(found.status.as_ref()?.version)
    }

    fn note_intent(&mut self, place: &Place, wish: &Wish, goal: Goal) {
        let tried = self.slots.get(place).and_then(|slot| slot.baseline_ok);
        self.keep(place, |entry| {
            entry.turn_to(wish.adopted_id());
            let before = entry.intent.take();
            let unsure = before.is_some();
            let before = before.filter(|intent| intent.goal == goal);
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
            entry.task.clone_from(&wish.task);
            entry.intent = Some(Intent {
                goal,
                baseline_ok,
                n_writes: n_before.unwrap_or(0).saturating_add(1),
                unsure,
            });
        });
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

    fn note_drift(&mut self, place: &Place, drift: Drift) -> Advance {
        self.drifted(place, drift);
        Advance::Again
    }

    /// Notes and reports that Kibana does not hold any more what was written.
    pub(super) fn drifted(&mut self, place: &Place, drift: Drift) {
        tracing::warn!(binding = %place, difference = %drift.text, is_fight = drift.is_fight, "Kibana differs without our doing");
        let said = drift.failure();
        self.keep(place, |entry| {
            entry.drift = Some(drift);
            if let Some(applied) = &mut entry.applied {
                applied.proven_at = None;
            }
        });
        self.report(place, BindingState::Drifted, Some(&said));
    }

    fn note_removed(&mut self, place: &Place) -> Advance {
        self.keep(place, |entry| *entry = Entry::default());
        self.report_removed(place);
        Advance::Wait(None)
    }
}

/// True where Kibana does not run the connector any more while this problem lasts. A Kibana that is down, or credentials
/// of the agent that are not good any more, say nothing about the connector.
fn is_broken_by(class: FailureClass) -> bool {
    matches!(
        class,
        FailureClass::Licence | FailureClass::Rejected | FailureClass::Encryption
    )
}
