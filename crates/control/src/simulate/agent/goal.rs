//! What a model agent knows of one binding: what is wanted, what was done, what was said.

use keyfleet_core::Timestamp;
use keyfleet_core::binding::{Assignment, BindingState};
use keyfleet_core::failure::FailureClass;
use keyfleet_proto::v1;

use crate::simulate::kibana::{Held, KeyId};

/// What a binding shall run, and the how-manieth try of it this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Goal {
    pub(crate) assignment: Assignment,
    pub(crate) attempt: u32,
}

/// What was done to one binding; kept on disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    /// A write that was begun and whose outcome is not known.
    pub(super) intent: Option<Intent>,
    pub(crate) applied: Option<Applied>,
    /// This goal was given up.
    pub(super) failure: Option<(Goal, FailureClass)>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Intent {
    pub(super) goal: Goal,
    pub(super) baseline_ok: Option<bool>,
}

/// A write that succeeded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Applied {
    pub(crate) goal: Goal,
    pub(crate) baseline_ok: Option<bool>,
    /// A read after the write was equal.
    pub(crate) agreed: bool,
    pub(crate) proven_at: Option<Timestamp>,
    pub(crate) ever_proven: bool,
}

/// What is wanted of one binding, in memory.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) wish: v1::DesiredBinding,
    pub(super) serial: u64,
    pub(super) baseline_ok: Option<bool>,
    /// What went wrong last, and whether it is tried again by itself.
    pub(super) strain: Option<Strain>,
    pub(super) n_failures: u32,
    pub(super) shown: Option<Shown>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Strain {
    pub(super) class: FailureClass,
    /// When it is tried again; `None` = once something changes.
    pub(super) not_before: Option<Timestamp>,
}

/// What was said last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) state: BindingState,
    pub(super) failure: Option<FailureClass>,
    pub(super) proven_at: Option<Timestamp>,
    pub(super) removed: bool,
}

/// The goal of a wish; a removal has none.
pub(crate) fn goal_of(wish: &v1::DesiredBinding) -> Option<Goal> {
    let assignment = wish.assignment.filter(|_| !wish.remove)?;
    Some(Goal {
        assignment: assignment.into(),
        attempt: wish.attempt,
    })
}

impl Goal {
    pub(super) fn held(self, key: KeyId) -> Held {
        Held {
            assignment: self.assignment,
            key,
        }
    }
}

impl Slot {
    pub(super) fn new(wish: v1::DesiredBinding, serial: u64) -> Self {
        Self {
            wish,
            serial,
            baseline_ok: None,
            strain: None,
            n_failures: 0,
            shown: None,
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.shown.is_some_and(|shown| shown.removed)
    }
}

impl Entry {
    /// What was done before the simulation began.
    pub(crate) fn done(applied: Applied) -> Self {
        Self {
            applied: Some(applied),
            ..Self::default()
        }
    }

    pub(crate) fn running(&self) -> Option<Assignment> {
        self.applied.map(|applied| applied.goal.assignment)
    }

    pub(super) fn wrote(&mut self, goal: Goal) {
        let intent = self.intent.take().filter(|intent| intent.goal == goal);
        let ever_proven = self.ever_proven(goal);
        self.failure = None;
        self.applied = Some(Applied {
            goal,
            baseline_ok: intent.and_then(|intent| intent.baseline_ok),
            agreed: false,
            proven_at: None,
            ever_proven,
        });
    }

    pub(super) fn proved(&mut self, goal: Goal, at: Timestamp) {
        if let Some(applied) = &mut self.applied {
            (applied.goal, applied.proven_at) = (goal, Some(at));
            applied.ever_proven = true;
        }
    }

    /// This very try was proven once.
    pub(super) fn ever_proven(&self, goal: Goal) -> bool {
        let proven = |applied: Applied| applied.goal == goal && applied.ever_proven;
        self.applied.is_some_and(proven)
    }

    pub(super) fn is_proven(&self, goal: Goal) -> bool {
        let proven = |applied: Applied| {
            applied.goal == goal && applied.agreed && applied.proven_at.is_some()
        };
        self.intent.is_none() && self.failure.is_none() && self.applied.is_some_and(proven)
    }

    /// The proof does not hold any more.
    pub(super) fn void_proof(&mut self) {
        if let Some(applied) = &mut self.applied {
            applied.proven_at = None;
        }
    }
}
