//! The phase of a rollout, and the one table that changes it.

use std::fmt;

use super::strategy::Action;

/// Where a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Stored, not begun.
    Pending,
    /// Offering, proving, soaking.
    Progressing,
    /// Held by an operator or by a budget that says `pause`; what is in flight goes on.
    Paused,
    /// Held by a budget or a deadline; an operator decides.
    Halted,
    /// Returning every touched deployment to what it last proved.
    RollingBack,
    /// The same, held by an operator.
    RollbackPaused,
    /// The rollback itself failed somewhere; an operator decides.
    RollbackHalted,
    /// Every wave is done.
    Completed,
    /// Every touched deployment is back.
    RolledBack,
    /// Ended by an operator: what was changed stays changed.
    Aborted,
    /// A newer rollout of the same connectors took over.
    Superseded,
}

/// What an operator may do to a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Offer nothing more for now.
    Pause,
    /// Go on; failures so far are forgiven, budgets start anew. Where an operator had paused the run, what failed since
    /// then is judged: who paused it could not know of that.
    Resume,
    /// End here; change nothing back.
    Abort,
    /// Return every touched deployment to what it last proved.
    Rollback,
    /// Offer failed deployments again, as a new attempt.
    Retry,
    /// Agree that the next wave may begin, where its approval is asked for.
    Approve,
    /// Wait no longer for the running wave's soak, for who is away in it, nor for its deadline. Budgets, concurrency,
    /// approvals, gates and windows stay.
    FastForward,
}

/// What happened to a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// The planner took it up.
    Started,
    /// The wave of this index began.
    WaveStarted(usize),
    /// A failure budget is spent: this action follows.
    BudgetSpent(Action),
    /// A wave took longer than its deadline.
    WaveOverdue,
    /// A gate failed: this action follows.
    GateFailed(Action),
    /// A gate says nothing: the run pauses.
    GateInconclusive,
    /// A rollback was called for, and cannot be done everywhere.
    RollbackImpossible,
    /// The last wave is done.
    Finished,
    /// Every touched deployment is back.
    RollbackFinished,
    /// The rollback failed on some deployment.
    RollbackFailed,
    /// A newer rollout of the same connectors took over.
    Superseded,
    /// An operator spoke.
    Verb(Verb),
}

/// A verb or event that a phase does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rollout that is {phase} does not take {event:?}")]
pub struct IllegalTransition {
    /// Where the rollout is.
    pub phase: Phase,
    /// What was asked.
    pub event: Event,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 11] = [
        Self::Pending,
        Self::Progressing,
        Self::Paused,
        Self::Halted,
        Self::RollingBack,
        Self::RollbackPaused,
        Self::RollbackHalted,
        Self::Completed,
        Self::RolledBack,
        Self::Aborted,
        Self::Superseded,
    ];

    /// The name in tables, rows and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Progressing => "PROGRESSING",
            Self::Paused => "PAUSED",
            Self::Halted => "HALTED",
            Self::RollingBack => "ROLLING_BACK",
            Self::RollbackPaused => "ROLLBACK_PAUSED",
            Self::RollbackHalted => "ROLLBACK_HALTED",
            Self::Completed => "COMPLETED",
            Self::RolledBack => "ROLLED_BACK",
            Self::Aborted => "ABORTED",
            Self::Superseded => "SUPERSEDED",
        }
    }

    /// The phase of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == text)
    }

    /// True where nothing will ever happen to the rollout again.
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::RolledBack | Self::Aborted | Self::Superseded
        )
    }

    /// True where the rollout is on its way back.
    pub const fn is_rollback(self) -> bool {
        matches!(
            self,
            Self::RollingBack | Self::RollbackPaused | Self::RollbackHalted
        )
    }

    /// The phase after an event: one total table.
    ///
    /// Every verb is legal in every phase that is not terminal, and saying it twice changes nothing.
    ///
    /// # Errors
    /// [`IllegalTransition`] for every other pair.
    pub fn next(self, event: Event) -> Result<Self, IllegalTransition> {
        use Phase::*;
        let phase = match (self, event) {
            (Pending, Event::Started) => Progressing,
            (Progressing, Event::WaveStarted(_)) => Progressing,
            (Progressing, Event::Finished) => Completed,
            (Progressing, Event::GateInconclusive) => Paused,
            (Progressing, Event::BudgetSpent(action) | Event::GateFailed(action)) => match action {
                Action::Continue => Progressing,
                Action::Pause => Paused,
                Action::Halt => Halted,
                Action::Rollback => RollingBack,
            },
            (Progressing, Event::WaveOverdue | Event::RollbackImpossible) => Halted,

            (RollingBack, Event::RollbackFinished) => RolledBack,
            (RollingBack, Event::RollbackFailed) => RollbackHalted,

            (phase, Event::Superseded) if !phase.is_terminal() => Superseded,
            (phase, Event::Verb(verb)) if !phase.is_terminal() => phase.after_verb(verb),
            (phase, event) => return Err(IllegalTransition { phase, event }),
        };
        Ok(phase)
    }

    fn after_verb(self, verb: Verb) -> Self {
        match (self, verb) {
            (_, Verb::Abort) => Self::Aborted,

            (Self::Pending | Self::Progressing | Self::Paused, Verb::Pause) => Self::Paused,
            (Self::RollingBack | Self::RollbackPaused, Verb::Pause) => Self::RollbackPaused,

            (Self::Paused | Self::Halted, Verb::Resume | Verb::Retry) => Self::Progressing,
            (Self::RollbackPaused | Self::RollbackHalted, Verb::Resume | Verb::Retry) => {
                Self::RollingBack
            }

            (
                Self::Pending
                | Self::Progressing
                | Self::Paused
                | Self::Halted
                | Self::RollbackHalted,
                Verb::Rollback,
            ) => Self::RollingBack,

            (
                phase,
                Verb::Pause
                | Verb::Resume
                | Verb::Retry
                | Verb::Rollback
                | Verb::Approve
                | Verb::FastForward,
            ) => phase,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 7] = [
        Self::Pause,
        Self::Resume,
        Self::Abort,
        Self::Rollback,
        Self::Retry,
        Self::Approve,
        Self::FastForward,
    ];

    /// The word on the command line and in the history.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Abort => "abort",
            Self::Rollback => "rollback",
            Self::Retry => "retry",
            Self::Approve => "approve",
            Self::FastForward => "fast-forward",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Vec<Event> {
        let verbs = Verb::ALL.into_iter().map(Event::Verb);
        let spent = Action::ALL.into_iter().map(Event::BudgetSpent);
        let failed = Action::ALL.into_iter().map(Event::GateFailed);
        let others = [
            Event::Started,
            Event::WaveStarted(1),
            Event::WaveOverdue,
            Event::GateInconclusive,
            Event::RollbackImpossible,
            Event::Finished,
            Event::RollbackFinished,
            Event::RollbackFailed,
            Event::Superseded,
        ];
        let actions = spent.chain(failed);
        others.into_iter().chain(actions).chain(verbs).collect()
    }

    #[test]
    fn every_phase_and_verb_has_one_name() {
        for phase in Phase::ALL {
            assert_eq!(Phase::parse(phase.as_str()), Some(phase));
        }
        assert_eq!(Phase::parse("progressing"), None);
        let words: std::collections::BTreeSet<_> = Verb::ALL.map(Verb::as_str).into();
        assert_eq!(words.len(), Verb::ALL.len());
    }

    #[test]
    fn every_verb_is_legal_until_the_end_and_idempotent() {
        for phase in Phase::ALL {
            for verb in Verb::ALL {
                let once = phase.next(Event::Verb(verb));
                assert_eq!(once.is_err(), phase.is_terminal(), "{phase} {verb:?}");
                if let Ok(after) = once
                    && !after.is_terminal()
                {
                    assert_eq!(
                        after.next(Event::Verb(verb)),
                        Ok(after),
                        "{phase} {verb:?} twice"
                    );
                }
            }
        }
    }

    #[test]
    fn nothing_follows_a_terminal_phase() {
        for phase in Phase::ALL.into_iter().filter(|phase| phase.is_terminal()) {
            for event in events() {
                assert_eq!(phase.next(event), Err(IllegalTransition { phase, event }));
            }
        }
    }

    /// The whole table: one line for each phase and event that it takes; every other pair is refused.
    #[test]
    fn the_table() {
        let mut table = String::new();
        for phase in Phase::ALL {
            for event in events() {
                if let Ok(after) = phase.next(event) {
                    table.push_str(&format!(
                        "{phase:<15} {:<22} {after}\n",
                        format!("{event:?}")
                    ));
                }
            }
        }
        insta::assert_snapshot!(table);
    }
}
