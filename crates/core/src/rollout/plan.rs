//! The decision: what to offer, what to take back, what to wait for, when to look again.

mod pace;
mod progress;
mod reasons;
mod rollback;
mod room;
mod verdict;
mod view;
mod wave;

use std::sync::Arc;
use std::time::Duration;

use crate::Timestamp;
use crate::failure::FailureClass;
use crate::id::DeploymentId;

use super::phase::{Event, Phase};
use super::run::Run;
use super::strategy::Strategy;
use super::waiting::{Deadline, Waiting};
use view::View;

/// Everything the decision looks at.
#[derive(Debug, Clone)]
pub struct PlanInput<'a> {
    /// The time of the decision.
    pub now: Timestamp,
    /// Fleet-wide stop, in words: who, since when, why. Nothing new leaves, nothing is decided, no deadline is
    /// judged. When it ends, the shell gives every step in flight and the wave a new beginning, else they are
    /// overdue at once.
    pub andon: Option<&'a str>,
    /// The strategy, as it was when the run started.
    pub strategy: &'a Strategy,
    /// Where the run stands.
    pub run: &'a Run,
    /// The run's deployments, in order of their ids.
    pub targets: &'a [Target],
}

/// One deployment of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which.
    pub deployment: DeploymentId,
    /// Index of its wave, frozen at the start.
    pub wave: usize,
    /// Its value of the label that its wave is spread over; `None` where the wave is not spread, or it has no such label.
    pub group: Option<Arc<str>>,
    /// When the change was last offered to it.
    pub offered_at: Option<Timestamp>,
    /// When it was last told to go back.
    pub rollback_at: Option<Timestamp>,
    /// Whether one of its maintenance windows is open.
    pub opening: Opening,
    /// For how long its windows kept the change from it since the running wave began, up to its last offer: the wave's
    /// deadline leaves that out.
    pub shut: Duration,
    /// True where it no longer belongs to what the run is for: what is in flight is finished, and it counts for nothing.
    pub left: bool,
    /// How far its worst binding in this run has come.
    pub step: Step,
    /// The agent is connected now.
    pub online: bool,
    /// Some binding was already broken before the change: its failure is not counted.
    pub baseline_red: bool,
    /// An operator resumed after this failure: it is not counted.
    pub forgiven: bool,
    /// False where the last proven state cannot be had again.
    pub can_roll_back: bool,
}

/// Whether a deployment may be offered the change now, by the strategy's windows and blackouts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Opening {
    /// No window is asked for.
    #[default]
    Always,
    /// A window is open, for long enough until then.
    Open {
        /// When it closes for new offers: the deadlines ack, apply and prove still fit in.
        until: Timestamp,
    },
    /// None is open.
    Closed {
        /// When the next one opens; `None` = none within a year.
        opens: Option<Timestamp>,
        /// The blackout that it waits for, in words; `None` = a window.
        blackout: Option<Arc<str>>,
    },
}

/// How far a deployment has come in a run, and since when.
///
/// What is offered to an agent that is away is offered anew when it connects: the shell then sets the time
/// of `Offered` and `RollbackOffered`, so that the deadline runs from the moment the agent can know.
/// A retry sets `Failed` to `Waiting`, and `RollbackFailed` to `Failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Not offered.
    Waiting,
    /// Desired state names the change.
    Offered(Timestamp),
    /// The agent has it.
    Received(Timestamp),
    /// Kibana holds it.
    Applied(Timestamp),
    /// A live call with it succeeded.
    Proven(Timestamp),
    /// It could not be applied or proven.
    Failed(Timestamp, FailureClass),
    /// Desired state names what it had before.
    RollbackOffered(Timestamp),
    /// It has what it had before.
    RolledBack(Timestamp),
    /// It could not be brought back.
    RollbackFailed(Timestamp, FailureClass),
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Deployments to offer the change. Beside [`Event::Finished`]: those that are offline, which
    /// converge when they return; nobody where the strategy wants that to happen in a window.
    pub offer: Vec<DeploymentId>,
    /// Deployments to return to their last proven state; those that are offline learn it on return.
    pub roll_back: Vec<DeploymentId>,
    /// Deployments whose current step took too long: they become failures of class TIMEOUT (in a rollback,
    /// which has one deadline, failed rollbacks). Plan again after noting them.
    pub timed_out: Vec<(DeploymentId, Deadline)>,
    /// What happens to the run, in order; plan again after applying them.
    pub events: Vec<(Event, String)>,
    /// Why things wait, once this plan is carried out: one reason for each deployment that is not
    /// converged, in order of `targets`; then, unless events change the run, one for each wave that has deployments
    /// and is not done (on the way forward), and one for the run.
    pub waiting_on: Vec<Waiting>,
    /// When to look again without a nudge; `None` = only on a nudge; `now` = at once, as after every plan
    /// with events or time-outs.
    pub wake_at: Option<Timestamp>,
}

/// Decides. Pure, total and deterministic: the same input gives the same plan.
///
/// The shell carries out a plan and asks again until a plan has neither events nor time-outs.
pub fn plan(input: &PlanInput<'_>) -> Plan {
    let phase = input.run.phase;
    if phase.is_terminal() {
        return Plan::default();
    }
    let Some(mut view) = View::new(input) else {
        return Plan::default();
    };
    let mut plan = match phase {
        Phase::Completed | Phase::RolledBack | Phase::Aborted | Phase::Superseded => {
            Plan::default()
        }
        _ if let Some(andon) = input.andon => reasons::andon(&view, andon),
        Phase::Pending => progress::start(&view),
        Phase::Progressing => progress::progress(&mut view),
        Phase::Paused | Phase::Halted => progress::held(&view),
        Phase::RollingBack => rollback::roll_back(&view),
        Phase::RollbackPaused | Phase::RollbackHalted => rollback::held_back(&view),
    };
    if !plan.events.is_empty() || !plan.timed_out.is_empty() {
        plan.wake_at = Some(input.now);
    }
    plan
}

/// True where the running wave's deadline has passed, also while that is not judged. An approval that comes later than
/// that gives the wave its time anew ([`Run::wait_ended`]); one that comes before changes nothing.
pub fn is_past_deadline(input: &PlanInput<'_>) -> bool {
    let view = View::new(input).filter(|view| view.current.is_some());
    view.is_some_and(|view| view.passed(wave::due_at(&view)))
}

#[cfg(test)]
mod tests;
