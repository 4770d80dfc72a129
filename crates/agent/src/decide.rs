//! What to do next about one binding: a pure function of what is wanted, what was done and what Kibana shows.
//!
//! Each step is small and its outcome changes the situation, so that a new desired state, the fleet-wide stop
//! or a crash between any two steps needs no case of its own.

use keyfleet_core::binding::Failure;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::placement::DriftPolicy;

use crate::ledger::{Applied, Entry};
use crate::wish::{Goal, Wish};

/// How often one goal is written before the agent concludes that somebody undoes its writes.
const WRITES_MAX: u32 = 3;

/// What Kibana showed when it was last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Not asked yet, or something happened since.
    Unknown,
    /// No connector of this id in this space.
    Absent,
    /// A connector that we may write.
    Ours {
        /// How it differs from the wish; empty: it agrees.
        differences: Vec<String>,
    },
    /// A connector of this id that we must not touch, and why.
    Foreign(String),
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
    /// The proof is older than it may be.
    pub(crate) probe_due: bool,
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
    NoteDrift(String),
    /// It differs, and the policy says to leave it.
    LeaveDrift(String),
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
    match (situation.wish.goal, situation.seen) {
        (_, Seen::Unknown) => Step::Look,
        (_, Seen::Foreign(why)) => Step::GiveUp(conflict(why)),
        (None, Seen::Absent) => Step::Removed,
        (None, Seen::Ours { .. }) if situation.andon => Step::Hold,
        (None, Seen::Ours { .. }) => Step::Delete,
        (Some(goal), Seen::Absent | Seen::Ours { .. }) => match given_up(goal) {
            Some(given_up) => Step::GiveUp(given_up.failure()),
            None => install(situation, goal),
        },
    }
}

/// Nothing was given up: compare what was written with what is there.
fn install(situation: &Situation<'_>, goal: Goal) -> Step {
    let entry = situation.entry;
    let written =
        |applied: &&Applied| entry.intent.is_none() && applied.goal.assignment == goal.assignment;
    let Some(applied) = entry.applied.as_ref().filter(written) else {
        return change(situation, goal);
    };
    if let Some(drift) = &entry.drift {
        let resumed = goal.attempt > drift.attempt;
        return match situation.wish.drift_policy {
            DriftPolicy::Correct => change(situation, goal),
            DriftPolicy::Report | DriftPolicy::Pause if resumed => change(situation, goal),
            DriftPolicy::Report | DriftPolicy::Pause => Step::LeaveDrift(drift.text.clone()),
        };
    }
    match difference(situation.seen) {
        None => settle(situation, goal, applied),
        Some(text) if applied.agreed => Step::NoteDrift(text),
        Some(text) if applied.n_writes >= WRITES_MAX => {
            let text = format!("Kibana does not keep what is written to the connector: {text}");
            Step::GiveUp(conflict(&text))
        }
        Some(_) => change(situation, goal),
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
        return Step::LeaveDrift(drift.text.clone());
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

/// How Kibana differs, in words; `None`: it agrees.
fn difference(seen: &Seen) -> Option<String> {
    match seen {
        Seen::Ours { differences } if differences.is_empty() => None,
        Seen::Ours { differences } => Some(differences.join("; ")),
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
