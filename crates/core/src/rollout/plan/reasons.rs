//! One reason for every deployment that is not converged, and one for the run.

use std::collections::BTreeSet;

use crate::failure::FailureClass;
use crate::id::DeploymentId;

use super::room::Rooms;
use super::view::{Stage, View};
use super::{Plan, Step, Target};
use crate::rollout::phase::Phase;
use crate::rollout::waiting::{Deadline, Deployments, Waiting, WaitingOn, WaveHold};

/// While andon is on, everything that is not converged waits for its end.
///
/// No deadline is judged: the agents have stopped writing, so lateness says nothing about the change.
pub(super) fn andon(view: &View<'_>, words: &str) -> Plan {
    let rollback = view.input.run.phase.is_rollback();
    let converged = |target: &Target| match target.step {
        Step::Proven(_) => !rollback,
        Step::Waiting => rollback,
        Step::RolledBack(_) => true,
        Step::RollbackFailed(..) => rollback && target.baseline_red,
        Step::Offered(_)
        | Step::Received(_)
        | Step::Applied(_)
        | Step::Failed(..)
        | Step::RollbackOffered(_) => false,
    };
    let waiting_on = every(view, |target| {
        (!converged(target)).then(|| WaitingOn::Andon(words.to_owned()))
    });
    Plan {
        waiting_on: with_run(waiting_on, Some(WaitingOn::Andon(words.to_owned()))),
        ..Plan::default()
    }
}

/// Before the start everything waits for it.
pub(super) fn not_started(view: &View<'_>) -> Vec<Waiting> {
    every(view, |_| Some(WaitingOn::NotStarted))
}

/// The reasons on the way forward. `hold` is what the running wave waits for.
pub(super) fn forward(
    view: &View<'_>,
    plan: &Plan,
    hold: Option<WaveHold>,
    rooms: &Rooms,
) -> Vec<Waiting> {
    let offered: BTreeSet<DeploymentId> = plan.offer.iter().copied().collect();
    let run = held(view).or_else(|| change(plan));
    let reasons = every(view, |target| match view.stage(target) {
        Stage::Waiting if offered.contains(&target.deployment) => {
            let left = view.input.strategy.deadlines.ack;
            Some(WaitingOn::Step {
                deadline: Deadline::Ack,
                left,
            })
        }
        Stage::Waiting => Some(
            run.clone()
                .unwrap_or_else(|| not_offered(view, target, rooms)),
        ),
        Stage::Ledger { offered: false } if held(view).is_some() => held(view),
        Stage::Ledger { .. } => Some(offline(view, target, hold)),
        Stage::InFlight { deadline, due } => Some(WaitingOn::Step {
            deadline,
            left: view.left(due),
        }),
        Stage::Overdue(_) => Some(WaitingOn::Failed {
            class: FailureClass::Timeout,
            broken_before: target.baseline_red,
        }),
        Stage::Proven { soaked_at } if view.passed(soaked_at) => None,
        Stage::Proven { soaked_at } => {
            let soak = view.wave(view.wave_of(target)).soak;
            Some(WaitingOn::Soaking {
                left: view.left(soaked_at),
                soak,
            })
        }
        Stage::Failed(class) => Some(WaitingOn::Failed {
            class,
            broken_before: target.baseline_red,
        }),
    });
    let wave = || {
        hold.map(|hold| WaitingOn::Wave {
            wave: view.wave_ref(view.current),
            hold,
        })
    };
    // Events move the run; a run that moves does not wait.
    let run = if plan.events.is_empty() {
        run.or_else(wave)
    } else {
        None
    };
    with_run(reasons, run)
}

/// Why a connected deployment is not offered the change.
fn not_offered(view: &View<'_>, target: &Target, rooms: &Rooms) -> WaitingOn {
    let index = view.wave_of(target);
    if index > view.current {
        return later(view, index);
    }
    let next = || WaitingOn::Change("it is offered next".to_owned());
    rooms.held_by(index).unwrap_or_else(next)
}

/// The wave of this index comes later.
fn later(view: &View<'_>, index: usize) -> WaitingOn {
    let (wave, running) = (view.wave_ref(index), view.wave_ref(view.current));
    WaitingOn::WaveNotStarted { wave, running }
}

/// What a deployment that is not connected means for its wave.
fn offline(view: &View<'_>, target: &Target, hold: Option<WaveHold>) -> WaitingOn {
    let index = view.wave_of(target);
    if index > view.current {
        return later(view, index);
    }
    let tally = view.tally(index);
    let keeps_place = target.step != Step::Waiting && view.wave(index).strict && tally.waiting > 0;
    let holds = match hold {
        _ if keeps_place => true,
        Some(WaveHold::Offline { .. } | WaveHold::Unproven { .. }) => index == view.current,
        Some(WaveHold::Running { .. } | WaveHold::Soaking { .. }) | None => false,
    };
    WaitingOn::Offline {
        offline: tally.offline,
        deployments: tally.outcomes.deployments,
        limit_percent: view.input.strategy.offline_max_percent,
        holds,
    }
}

/// The reason that a held run gives for everything.
pub(super) fn held(view: &View<'_>) -> Option<WaitingOn> {
    let reason = || view.input.run.hold_reason.clone();
    match view.input.run.phase {
        Phase::Paused | Phase::RollbackPaused => Some(WaitingOn::Paused(reason())),
        Phase::Halted | Phase::RollbackHalted => Some(WaitingOn::Halted(reason())),
        Phase::Pending
        | Phase::Progressing
        | Phase::RollingBack
        | Phase::Completed
        | Phase::RolledBack
        | Phase::Aborted
        | Phase::Superseded => None,
    }
}

/// What the plan changes before anything else can happen.
pub(super) fn change(plan: &Plan) -> Option<WaitingOn> {
    let late = Deployments(plan.timed_out.len());
    match plan.events.first() {
        Some((_, sentence)) => Some(WaitingOn::Change(sentence.clone())),
        None if late.0 > 0 => Some(WaitingOn::Change(format!("{late} passed a deadline"))),
        None => None,
    }
}

/// The reasons of all targets that have one, in their order.
pub(super) fn every(
    view: &View<'_>,
    reason: impl Fn(&Target) -> Option<WaitingOn>,
) -> Vec<Waiting> {
    let waiting = |target: &Target| {
        reason(target).map(|on| Waiting {
            deployment: Some(target.deployment),
            on,
        })
    };
    view.input.targets.iter().filter_map(waiting).collect()
}

/// Adds the reason of the run as a whole.
pub(super) fn with_run(mut reasons: Vec<Waiting>, run: Option<WaitingOn>) -> Vec<Waiting> {
    reasons.extend(run.map(|on| Waiting {
        deployment: None,
        on,
    }));
    reasons
}
