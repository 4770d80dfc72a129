//! The way back: who may be told to go back, how many at a time, and when it is over.

use std::time::Duration;

use crate::Timestamp;
use crate::rollout::phase::Event;
use crate::rollout::plan::{Plan, Step, Target};

use super::Found;
use super::count::{Count, at_least_one, number};

pub(super) fn check(found: &mut Found, count: &Count<'_>, plan: &Plan) {
    if !count.phase().is_rollback() {
        return;
    }
    lateness(found, count, plan);
    for (event, _) in &plan.events {
        // Who left goes back where that is possible, and holds nobody up where it is not.
        let gone = |target: &Target| target.left && !is_on_its_way(target) && !can_go_back(target);
        let all_back = count
            .targets()
            .all(|target| is_back(target) || gone(target));
        match event {
            Event::RollbackFinished => {
                found.unless(all_back, || "back, but not everybody is".to_owned());
            }
            Event::RollbackFailed => {
                found.unless(!all_back, || "failed, but everybody is back".to_owned());
                let open = |target: &Target| is_on_its_way(target) || can_go_back(target);
                found.unless(!count.targets().any(open), || {
                    "failed while somebody could still go back".to_owned()
                });
            }
            Event::Started
            | Event::WaveStarted(_)
            | Event::BudgetSpent(_)
            | Event::WaveOverdue
            | Event::GateFailed(_)
            | Event::GateInconclusive
            | Event::RollbackImpossible
            | Event::Finished
            | Event::Superseded
            | Event::Verb(_) => {}
        }
    }
    starts(found, count, plan);
}

/// Who is told, and how many at a time and within a minute.
fn starts(found: &mut Found, count: &Count<'_>, plan: &Plan) {
    let told = |target: &&Target| plan.roll_back.contains(&target.deployment);
    for target in count.targets().filter(told) {
        found.unless(can_go_back(target), || {
            format!(
                "{} is told to go back: {:?}",
                target.deployment, target.step
            )
        });
    }
    let starts = number(count.targets().filter(told).filter(|t| t.online).count());
    if starts == 0 {
        return;
    }
    let going = number(
        count
            .targets()
            .filter(|target| is_on_its_way(target))
            .count(),
    );
    let touched = count.targets().filter(|t| t.step != Step::Waiting).count();
    let rollback = &count.strategy().rollback;
    let limit = at_least_one(rollback.concurrency, touched);
    found.unless(going + starts <= limit, || {
        format!("{} go back at a time, {limit} may", going + starts)
    });
    // Who is away is told without taking from the rate, for nobody hears it.
    let heard = |target: &&Target| target.online && !matches!(target.step, Step::Waiting);
    let moments = count.targets().filter(heard).filter_map(|t| t.rollback_at);
    let within = count.within_a_minute(moments) + starts;
    found.unless(
        rollback.max_per_minute.is_none_or(|max| within <= max),
        || format!("{within} are told to go back within a minute"),
    );
}

/// Whoever takes too long is said to, nobody else is, and the run wakes in time to say so.
fn lateness(found: &mut Found, count: &Count<'_>, plan: &Plan) {
    let limit = limit(count);
    for target in count.targets() {
        let id = target.deployment;
        let due = told_at(target).map(|at| at.checked_add(limit).unwrap_or(Timestamp::MAX));
        let late = due.is_some_and(|due| count.input.now >= due);
        let said = plan.timed_out.iter().any(|(late, _)| *late == id);
        found.unless(said == late, || {
            format!("{id} is late on its way back: {late}, said: {said}")
        });
        let in_time = |due: Timestamp| plan.wake_at.is_some_and(|wake| wake <= due);
        found.unless(late || due.is_none_or(in_time), || {
            format!("nothing wakes the run when {id} is late on its way back")
        });
    }
}

fn limit(count: &Count<'_>) -> Duration {
    let deadlines = &count.strategy().deadlines;
    let sum = deadlines.ack + deadlines.apply + deadlines.prove;
    count.strategy().rollback.deadline.unwrap_or(sum)
}

fn is_on_its_way(target: &Target) -> bool {
    told_at(target).is_some()
}

/// When it was told to go back, where it hears that and has not answered.
fn told_at(target: &Target) -> Option<Timestamp> {
    match target.step {
        Step::RollbackOffered(at) => target.online.then_some(at),
        Step::Waiting
        | Step::Offered(_)
        | Step::Received(_)
        | Step::Applied(_)
        | Step::Proven(_)
        | Step::Failed(..)
        | Step::RolledBack(_)
        | Step::RollbackFailed(..) => None,
    }
}

fn can_go_back(target: &Target) -> bool {
    target.can_roll_back
        && matches!(
            target.step,
            Step::Offered(_)
                | Step::Received(_)
                | Step::Applied(_)
                | Step::Proven(_)
                | Step::Failed(..)
        )
}

/// It has what it had before, or gets it on its return, or was broken before and stays so; who left and cannot go back
/// holds nobody up.
fn is_back(target: &Target) -> bool {
    let failed = matches!(target.step, Step::RollbackFailed(..));
    if target.left && (failed || !target.can_roll_back) {
        return !is_on_its_way(target);
    }
    match target.step {
        Step::Waiting | Step::RolledBack(_) => true,
        Step::RollbackOffered(_) => !target.online,
        Step::RollbackFailed(..) => target.baseline_red,
        Step::Offered(_)
        | Step::Received(_)
        | Step::Applied(_)
        | Step::Proven(_)
        | Step::Failed(..) => false,
    }
}
