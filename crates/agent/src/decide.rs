//! What to do next about one binding: a pure function of what is wanted, what was done and what Kibana shows.
//!
//! Each step is small and its outcome changes the situation, so that a new desired state, the fleet-wide stop
//! or a crash between any two steps needs no case of its own.

use jiff::Timestamp;
use keyfleet_core::binding::Failure;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::placement::DriftPolicy;

use crate::ledger::{Applied, Drift, Entry};
use crate::wish::{Goal, Wish};

/// How often one goal is written before the agent concludes that somebody undoes its writes.
const WRITES_MAX: u32 = 3;

/// Why a connector cannot move between Kibana and Elasticsearch, or from one task there to another.
const MOVED: &str = "it was made as another type or for another task, and would stay there with its key; make a new connector with another name and let it replace this one";

/// What Kibana showed when it was last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Not asked yet, or something happened since.
    Unknown,
    /// No connector of this id in this space.
    Absent,
    /// A connector that we may write.
    Ours {
        /// How it differs from what we wrote, or would write; empty: it agrees.
        differences: Vec<String>,
        /// What is new to this Kibana since we wrote: fields that were left out and that it can hold now.
        news: Vec<String>,
    },
    /// A connector of this id that we must not touch, and why.
    Foreign(Failure),
}

/// Everything the next step depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation<'a> {
    pub(crate) wish: &'a Wish,
    pub(crate) entry: &'a Entry,
    pub(crate) seen: &'a Seen,
    /// The key that a write would need is in memory.
    pub(crate) key_here: bool,
    /// The fleet-wide stop is on: no write begins.
    pub(crate) andon: bool,
    /// The connector was tried before this change.
    pub(crate) baseline_taken: bool,
    /// The proof is older than it may be, or of another Kibana than the one that runs now.
    pub(crate) probe_due: bool,
    /// What a removal waits for is proven.
    pub(crate) successor_proven: bool,
    pub(crate) now: Timestamp,
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask Kibana what it holds.
    Look,
    /// Try the connector as it is, before it is changed.
    Baseline,
    /// The key must come from control first.
    AskKey,
    /// Make the connector.
    Create,
    /// Replace the connector.
    Update,
    /// Kibana shows what was written: note it.
    Agree,
    /// Prove the connector by a live call.
    Prove,
    /// Take the connector away.
    Delete,
    /// It is gone: say so.
    Removed,
    /// Kibana differs without our doing: note it. The proof is void.
    NoteDrift(Drift),
    /// It differs, and the policy, or a fight over it, says to leave it.
    LeaveDrift(Failure),
    /// It is to go, and stays until another one is proven.
    Stay(String),
    /// Only a new try can take this up again.
    GiveUp(Failure),
    /// The fleet-wide stop holds the write.
    Hold,
    /// All is as wanted.
    Rest,
}

/// The next step for a binding.
pub(crate) fn next(situation: &Situation<'_>) -> Step {
    let given_up = |goal| {
        situation
            .entry
            .failure
            .as_ref()
            .filter(|failure| failure.goal == goal)
    };
    let wish = situation.wish;
    match (wish.goal, situation.seen) {
        (Some(_), _) if has_moved(situation) => Step::GiveUp(Failure {
            class: FailureClass::Rejected,
            text: MOVED.to_owned(),
        }),
        (_, Seen::Unknown) => Step::Look,
        (_, Seen::Foreign(why)) => Step::GiveUp(why.clone()),
        (None, Seen::Absent) => Step::Removed,
        (None, Seen::Ours { .. }) => remove(situation),
        (Some(goal), Seen::Absent | Seen::Ours { .. }) => match given_up(goal) {
            Some(given_up) => Step::GiveUp(given_up.failure()),
            None if *situation.seen == Seen::Absent && !is_taken(situation) => {
                Step::GiveUp(conflict(&format!(
                    "the connector {} that was to be adopted is gone; take it out of `adopt`, and a new one is made",
                    wish.connector_id
                )))
            }
            None => install(situation, goal),
        },
    }
}

/// It is there and shall go.
fn remove(situation: &Situation<'_>) -> Step {
    match &situation.wish.after {
        Some(successor) if !situation.successor_proven => {
            Step::Stay(format!("stays until {successor} is proven here"))
        }
        _ if !is_taken(situation) => Step::GiveUp(conflict(
            "this agent never wrote the connector that was there before it, so it does not remove it; remove it in Kibana",
        )),
        _ if situation.andon => Step::Hold,
        _ => Step::Delete,
    }
}

/// True where the wish is kept elsewhere than what was written for it, which would stay there with its key.
fn has_moved(situation: &Situation<'_>) -> bool {
    let Situation { wish, entry, .. } = situation;
    entry.applied.is_some() && entry.task != wish.task
}

/// False for a connector that was there before us and that we have not begun to write.
fn is_taken(situation: &Situation<'_>) -> bool {
    let Situation { wish, entry, .. } = situation;
    !wish.adopted || entry.adopted.as_deref() == Some(wish.connector_id.as_str())
}

/// Nothing was given up: compare what was written with what is there.
fn install(situation: &Situation<'_>, goal: Goal) -> Step {
    let entry = situation.entry;
    if entry.removing && *situation.seen == Seen::Absent {
        return change(situation, goal);
    }
    let is_same = entry.adopted.as_deref() == situation.wish.adopted_id();
    let written = |applied: &&Applied| {
        is_same && entry.intent.is_none() && applied.goal.assignment == goal.assignment
    };
    let Some(applied) = entry.applied.as_ref().filter(written) else {
        return change(situation, goal);
    };
    if let Some(drift) = &entry.drift {
        let is_corrected = situation.wish.drift_policy == DriftPolicy::Correct && !drift.is_fight;
        return match is_corrected || goal.attempt > drift.attempt {
            true => change(situation, goal),
            false => Step::LeaveDrift(drift.failure()),
        };
    }
    match difference(situation.seen) {
        // Kibana was upgraded: what it can hold now is our own change.
        None if has_news(situation.seen) => change(situation, goal),
        None => settle(situation, goal, applied),
        Some(text) if applied.agreed => Step::NoteDrift(drift(situation, goal, text)),
        Some(text) if applied.n_writes >= WRITES_MAX => {
            let text = format!("Kibana does not keep what is written to the connector: {text}");
            Step::GiveUp(conflict(&text))
        }
        Some(_) => change(situation, goal),
    }
}

/// Somebody else changed the connector; perhaps not for the first time.
fn drift(situation: &Situation<'_>, goal: Goal, text: String) -> Drift {
    let is_fight = situation.wish.drift_policy == DriftPolicy::Correct
        && situation.entry.is_fought_over(situation.now);
    let text = match is_fight {
        true => format!(
            "another writer changes this connector again and again, so Keyfleet leaves it as it is now: {text}; stop the other writer, then retry"
        ),
        false => text,
    };
    Drift {
        attempt: goal.attempt,
        text,
        class: FailureClass::Conflict,
        is_fight,
    }
}

/// Kibana shows what we wrote.
fn settle(situation: &Situation<'_>, goal: Goal, applied: &Applied) -> Step {
    let same_try = applied.goal.attempt == goal.attempt;
    let proven = applied.proven_at.is_some();
    match (applied.agreed, proven, same_try) {
        // A new try of something that never worked writes again: that repairs what cannot be seen, such as
        // secrets that Kibana can no longer decrypt.
        (_, false, false) => change(situation, goal),
        (false, _, true) => Step::Agree,
        (true, false, true) => Step::Prove,
        (true, true, true) if situation.probe_due => Step::Prove,
        (true, true, true) => Step::Rest,
        (_, true, false) => Step::Prove,
    }
}

/// A write is needed.
fn change(situation: &Situation<'_>, goal: Goal) -> Step {
    let Situation {
        wish, entry, seen, ..
    } = situation;
    if let (DriftPolicy::Pause, Some(drift)) = (wish.drift_policy, &entry.drift)
        && goal.attempt <= drift.attempt
    {
        return Step::LeaveDrift(drift.failure());
    }
    if situation.andon {
        return Step::Hold;
    }
    if !situation.key_here {
        return Step::AskKey;
    }
    let begun = entry
        .intent
        .as_ref()
        .is_some_and(|intent| intent.goal == goal);
    let same = entry.running() == Some(goal.assignment);
    // What never worked since we wrote it needs no try: it was our change that broke it, not "before".
    let untried = !situation.baseline_taken
        && entry
            .applied
            .as_ref()
            .is_none_or(|applied| applied.ever_proven);
    match seen {
        Seen::Ours { .. } if !begun && !same && untried => Step::Baseline,
        Seen::Ours { .. } => Step::Update,
        Seen::Absent | Seen::Unknown | Seen::Foreign(_) => Step::Create,
    }
}

fn has_news(seen: &Seen) -> bool {
    matches!(seen, Seen::Ours { news, .. } if !news.is_empty())
}

/// How Kibana differs, in words; `None`: it agrees.
fn difference(seen: &Seen) -> Option<String> {
    match seen {
        Seen::Ours { differences, .. } if differences.is_empty() => None,
        Seen::Ours { differences, .. } => Some(differences.join("; ")),
        Seen::Absent | Seen::Unknown | Seen::Foreign(_) => {
            Some("the connector was deleted".to_owned())
        }
    }
}

fn conflict(text: &str) -> Failure {
    Failure {
        class: FailureClass::Conflict,
        text: text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
