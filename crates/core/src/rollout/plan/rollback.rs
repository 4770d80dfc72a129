//! The way back: every deployment that the change may have reached returns to what it last proved.

use std::collections::BTreeSet;

use crate::Timestamp;
use crate::failure::FailureClass;
use crate::id::DeploymentId;

use super::progress::touched;
use super::reasons::{change, every, held, with_run};
use super::view::{View, due};
use super::{Plan, Step, Target};
use crate::rollout::phase::Event;
use crate::rollout::waiting::{Deadline, RollbackHold, Waiting, WaitingOn};

/// Where a deployment stands on its way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The change never reached it.
    Untouched,
    /// It has to go back.
    ToDo,
    /// It cannot go back.
    Impossible,
    /// It is told to go back, until the deadline.
    OnItsWay { due: Timestamp },
    /// It took too long.
    Overdue,
    /// It goes back when it is connected again.
    Away,
    /// It is back, or was broken before and stays so.
    Back,
    /// It could not be brought back.
    Failed(FailureClass),
}

/// What the run adds up to on its way back.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    touched: u32,
    to_do: u32,
    in_progress: u32,
    back: u32,
    failed: u32,
    impossible: u32,
}

/// Goes on: rolls back as many at a time as the strategy allows, and ends when nothing is left to do.
/// Waves, soak and budgets do not hold a rollback.
pub(super) fn roll_back(view: &View<'_>) -> Plan {
    let mut plan = Plan {
        timed_out: timed_out(view),
        ..Plan::default()
    };
    let mut tally = Tally::new(view);
    if plan.timed_out.is_empty() {
        if tally.to_do + tally.in_progress == 0 {
            plan.events.push(end(tally));
        } else {
            plan.roll_back = choose(view, &mut tally);
        }
    }
    plan.waiting_on = reasons(view, tally, &plan);
    let started = (!plan.roll_back.is_empty()).then(|| rollback_due(view, view.input.now));
    plan.wake_at = next_deadline(view).into_iter().chain(started).min();
    plan
}

/// Takes nothing back; deadlines of what is on its way are judged.
pub(super) fn hold(view: &View<'_>) -> Plan {
    let mut plan = Plan {
        timed_out: timed_out(view),
        ..Plan::default()
    };
    plan.waiting_on = reasons(view, Tally::new(view), &plan);
    plan.wake_at = next_deadline(view);
    plan
}

fn end(tally: Tally) -> (Event, String) {
    let Tally {
        touched,
        back,
        failed,
        impossible,
        ..
    } = tally;
    if failed + impossible == 0 {
        let sentence = format!("{back} of {touched} touched deployments are back");
        return (Event::RollbackFinished, sentence);
    }
    let sentence = format!(
        "{back} of {touched} touched deployments are back, {failed} failed to go back, {impossible} cannot"
    );
    (Event::RollbackFailed, sentence)
}

/// Whom to roll back now: everybody who is away (they learn it on return), and of the others as many as
/// there is room for, in order of ids. The tally counts them as begun.
fn choose(view: &View<'_>, tally: &mut Tally) -> Vec<DeploymentId> {
    let limit = limit(view, *tally);
    let mut chosen = Vec::new();
    for target in view
        .input
        .targets
        .iter()
        .filter(|target| stage(view, target) == Stage::ToDo)
    {
        match target.online {
            true if tally.in_progress >= limit => continue,
            true => tally.in_progress += 1,
            false => tally.back += 1,
        }
        chosen.push(target.deployment);
    }
    chosen
}

fn limit(view: &View<'_>, tally: Tally) -> u32 {
    view.input
        .strategy
        .rollback_concurrency
        .of_at_least_one(tally.touched)
}

fn stage(view: &View<'_>, target: &Target) -> Stage {
    match target.step {
        Step::Waiting => Stage::Untouched,
        Step::Offered(_)
        | Step::Received(_)
        | Step::Applied(_)
        | Step::Proven(_)
        | Step::Failed(..) => match target.can_roll_back {
            true => Stage::ToDo,
            false => Stage::Impossible,
        },
        Step::RollbackOffered(_) if !target.online => Stage::Away,
        Step::RollbackOffered(at) => match rollback_due(view, at) {
            due if view.passed(due) => Stage::Overdue,
            due => Stage::OnItsWay { due },
        },
        Step::RolledBack(_) => Stage::Back,
        Step::RollbackFailed(..) if target.baseline_red => Stage::Back,
        Step::RollbackFailed(_, class) => Stage::Failed(class),
    }
}

/// A rollback has one deadline: the sum of the three of a change.
fn rollback_due(view: &View<'_>, at: Timestamp) -> Timestamp {
    let deadlines = view.input.strategy.deadlines;
    let limits = [deadlines.ack, deadlines.apply, deadlines.prove];
    limits.into_iter().fold(at, due)
}

fn timed_out(view: &View<'_>) -> Vec<(DeploymentId, Deadline)> {
    let late = view
        .input
        .targets
        .iter()
        .filter(|target| stage(view, target) == Stage::Overdue);
    late.map(|target| (target.deployment, Deadline::Prove))
        .collect()
}

fn next_deadline(view: &View<'_>) -> Option<Timestamp> {
    let due = |target| {
        if let Stage::OnItsWay { due } = stage(view, target) {
            Some(due)
        } else {
            None
        }
    };
    view.input.targets.iter().filter_map(due).min()
}

fn reasons(view: &View<'_>, tally: Tally, plan: &Plan) -> Vec<Waiting> {
    let limit = limit(view, tally);
    let Tally {
        back,
        touched,
        in_progress,
        ..
    } = tally;
    let chosen: BTreeSet<DeploymentId> = plan.roll_back.iter().copied().collect();
    let run = held(view).or_else(|| change(plan));
    let on = |hold| Some(WaitingOn::Rollback(hold));
    let step = |due| {
        on(RollbackHold::Step {
            left: view.left(due),
        })
    };
    let reasons = every(view, |target| match stage(view, target) {
        Stage::Untouched | Stage::Back => None,
        Stage::ToDo if chosen.contains(&target.deployment) => match target.online {
            true => step(rollback_due(view, view.input.now)),
            false => on(RollbackHold::Offline),
        },
        Stage::ToDo => run
            .clone()
            .or_else(|| on(RollbackHold::Concurrency { limit, in_progress })),
        Stage::Impossible => on(RollbackHold::Impossible),
        Stage::OnItsWay { due } => step(due),
        Stage::Overdue => on(RollbackHold::Failed(FailureClass::Timeout)),
        Stage::Away => on(RollbackHold::Offline),
        Stage::Failed(class) => on(RollbackHold::Failed(class)),
    });
    let whole = || {
        on(RollbackHold::Run {
            back,
            touched,
            in_progress,
        })
    };
    let run = if plan.events.is_empty() {
        run.or_else(whole)
    } else {
        None
    };
    with_run(reasons, run)
}

impl Tally {
    fn new(view: &View<'_>) -> Self {
        let mut tally = Self::default();
        for target in view.input.targets {
            tally.touched += u32::from(touched(target));
            match stage(view, target) {
                Stage::Untouched => {}
                Stage::ToDo => tally.to_do += 1,
                Stage::Impossible => tally.impossible += 1,
                Stage::OnItsWay { .. } | Stage::Overdue => tally.in_progress += 1,
                Stage::Away | Stage::Back => tally.back += 1,
                Stage::Failed(_) => tally.failed += 1,
            }
        }
        tally
    }
}
