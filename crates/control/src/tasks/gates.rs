//! Asks the gates of the rollouts under way, and keeps what they answer.
//!
//! When a gate is asked again follows from its last answer in the database. All that is in memory is who is being asked
//! right now; after a restart they are asked again.

use std::collections::HashMap;
use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::id::RolloutId;
use keyfleet_core::rollout::{Gate, GateState, Phase, Run};
use keyfleet_store::{Rollout, Tx};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::clock;
use crate::error::Error;
use crate::gates::{Answer, Asker};

/// How many are asked at a time: one server that does not answer holds up no other.
const ASKED_AT_ONCE: usize = 8;

/// Rollouts change often while they run, and the database may fail: what is due is looked at no more often for that.
const LOOK_AGAIN_MIN: Duration = Duration::from_secs(1);

/// Without news everything is looked at again after this long.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(60);

/// A gate of a rollout, to be asked.
#[derive(Debug, Clone)]
struct Question {
    rollout: RolloutId,
    gate: Gate,
    /// When the gate is due.
    due: Timestamp,
    /// What the run was when this was read: the answer is for no other.
    of: Moment,
}

/// What must not change between a question and its answer. `resume`, `retry` and the beginning of a wave change it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Moment {
    wave_started_at: Timestamp,
    last: Option<GateState>,
}

/// Who is being asked.
#[derive(Default)]
struct Asking {
    tasks: JoinSet<(Question, Answer)>,
    gates: HashMap<Id, (RolloutId, String)>,
}

/// Runs until the shutdown.
pub(crate) async fn run(app: App, asker: Asker, shutdown: CancellationToken) {
    let mut asking = Asking::default();
    let mut changes = app.watch();
    loop {
        changes.mark_unchanged();
        let wake_after = match due(&app).await {
            Ok(questions) => asking.begin(questions, &asker, clock::now()),
            Err(err) => {
                tracing::error!(error = %err, "which gates are due was not read; it is tried again");
                LOOK_AGAIN_MIN
            }
        };
        let news = async {
            tokio::time::sleep(LOOK_AGAIN_MIN).await;
            // The sender lives as long as the app.
            let _ = changes.changed().await;
        };
        let answered = tokio::select! {
            // Cancel-safe: the token keeps its state.
            () = shutdown.cancelled() => break,
            // Cancel-safe: an answer stays in the set until it is taken.
            Some(answered) = asking.tasks.join_next_with_id() => Some(answered),
            // Cancel-safe: a change that was not taken is still to be seen.
            () = news => None,
            // Cancel-safe: a new timer is made each time.
            () = tokio::time::sleep(wake_after) => None,
        };
        let Some((question, answer)) = answered.and_then(|answered| asking.end(answered)) else {
            continue;
        };
        if let Err(err) = keep(&app, question, answer).await {
            tracing::error!(error = %err, "the answer of a gate was not stored; it is asked again");
            tokio::time::sleep(LOOK_AGAIN_MIN).await;
        }
    }
    // They are asked again after the start.
    asking.tasks.shutdown().await;
}

impl Asking {
    /// Asks what is due, those first that have waited the longest; returns when to look again.
    fn begin(&mut self, mut questions: Vec<Question>, asker: &Asker, now: Timestamp) -> Duration {
        questions.sort_by_key(|question| question.due);
        let is_asked = |gates: &HashMap<_, _>, question: &Question| {
            let mut asked = gates.values();
            asked.any(|(id, name)| *id == question.rollout && *name == question.gate.name)
        };
        for question in questions {
            if is_asked(&self.gates, &question) {
                continue;
            }
            if question.due > now {
                return until(question.due, now);
            }
            if self.gates.len() >= ASKED_AT_ONCE {
                // The next answer makes room.
                break;
            }
            let (asker, key) = (
                asker.clone(),
                (question.rollout, question.gate.name.clone()),
            );
            let task = self.tasks.spawn(async move {
                let answer = asker.ask(&question.gate).await;
                (question, answer)
            });
            self.gates.insert(task.id(), key);
        }
        LOOK_AGAIN_MAX
    }

    fn end(
        &mut self,
        ended: Result<(Id, (Question, Answer)), JoinError>,
    ) -> Option<(Question, Answer)> {
        match ended {
            Ok((id, answered)) => {
                self.gates.remove(&id);
                Some(answered)
            }
            Err(err) => {
                self.gates.remove(&err.id());
                tracing::error!(error = %err, "a gate was not asked to the end; it is asked again");
                None
            }
        }
    }
}

fn until(due: Timestamp, now: Timestamp) -> Duration {
    let left = Duration::try_from(due.duration_since(now)).unwrap_or_default();
    left.min(LOOK_AGAIN_MAX)
}

/// Every gate that is asked at all, with when it is due. None while andon is on.
async fn due(app: &App) -> Result<Vec<Question>, Error> {
    let now = clock::now();
    let read = move |tx: &Tx<'_>| {
        if tx.andon()?.is_some() {
            return Ok(Vec::new());
        }
        let runs = tx.active_rollouts()?.into_iter();
        Ok::<_, Error>(runs.flat_map(|rollout| questions(&rollout, now)).collect())
    };
    app.store.read(read).await
}

fn questions(rollout: &Rollout, now: Timestamp) -> Vec<Question> {
    if !is_asked(&rollout.run) {
        return Vec::new();
    }
    let question = |gate: &Gate| {
        let of = Moment::of(&rollout.run, &gate.name);
        // An answer of the future was given before the clock was set back.
        let last = of.last.as_ref().filter(|last| last.at <= now);
        let due = last.map_or(now, |last| {
            last.at.saturating_add(gate.interval).unwrap_or(now)
        });
        Question {
            rollout: rollout.id,
            gate: gate.clone(),
            due,
            of,
        }
    };
    rollout.strategy.gates.iter().map(question).collect()
}

/// True where what a gate says matters: the run goes on, or is about to begin.
fn is_asked(run: &Run) -> bool {
    matches!(run.phase, Phase::Pending | Phase::Progressing)
}

impl Moment {
    fn of(run: &Run, gate: &str) -> Self {
        let last = run.gates.iter().find(|state| state.name == gate);
        Self {
            wave_started_at: run.wave_started_at,
            last: last.cloned(),
        }
    }
}

/// Stores an answer where its run is still what it was, and lets the planner look at it.
async fn keep(app: &App, question: Question, answer: Answer) -> Result<(), Error> {
    let now = clock::now();
    let is_kept = app
        .store
        .write(move |tx| note(tx, &question, answer, now))
        .await?;
    if is_kept {
        app.changed();
    }
    Ok(())
}

fn note(tx: &Tx<'_>, question: &Question, answer: Answer, now: Timestamp) -> Result<bool, Error> {
    let id = question.rollout;
    let found = tx.rollouts_with_prefix(&id.to_string())?.into_iter().next();
    let Some(Rollout { strategy, run, .. }) = found else {
        return Ok(false);
    };
    let gate = &question.gate;
    let is_meant = is_asked(&run) && Moment::of(&run, &gate.name) == question.of;
    if !is_meant || tx.andon()?.is_some() {
        return Ok(false);
    }
    let last = question.of.last.as_ref();
    let state = GateState::after(last, gate, answer.verdict, answer.text, now);
    if last.map(|last| last.verdict) != Some(state.verdict) {
        let (gate, verdict) = (&gate.name, state.verdict.as_str());
        tracing::info!(rollout = %id, gate, verdict, text = state.text, "a gate answered");
    }
    let mut gates = run.gates;
    let is_known = |name: &str| strategy.gates.iter().any(|gate| gate.name == name);
    gates.retain(|other| other.name != gate.name && is_known(&other.name));
    gates.push(state);
    tx.put_gates(id, &gates)?;
    Ok(true)
}

#[cfg(test)]
mod tests;
