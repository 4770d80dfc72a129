//! The way forward: start, offer, judge, soak, go on to the next wave, finish.

use std::time::Duration;

use super::reasons::{self, Reasons};
use super::room::Rooms;
use super::verdict::verdict;
use super::view::{Stage, View};
use super::wave::{barrier, closed_gate, gates_fresh_until, hold, is_absence, overdue_at};
use super::{Plan, Step, Target};
use crate::Timestamp;
use crate::id::DeploymentId;
use crate::rollout::phase::Event;
use crate::rollout::strategy::CatchUp;
use crate::rollout::waiting::{Deployments, Human, WaveHold};

/// Begins the run. Its first wave begins by the next plan, as every wave does.
pub(super) fn start(view: &View<'_>) -> Plan {
    let deployments = Deployments(view.input.targets.iter().filter(|t| !t.left).count());
    let sentence = format!("the rollout to {deployments} started");
    Plan {
        events: vec![(Event::Started, sentence)],
        waiting_on: reasons::not_started(view),
        ..Plan::default()
    }
}

/// Goes on. In order: what passed its deadline, a budget that is spent or a gate that failed, the end of the wave, its
/// deadline; only when there is none of these is anything offered, so that nothing new leaves before a verdict.
pub(super) fn progress(view: &mut View<'_>) -> Plan {
    let mut plan = Plan {
        timed_out: view.timed_out(),
        ..Plan::default()
    };
    if plan.timed_out.is_empty() {
        match (verdict(view), hold(view)) {
            (Some(event), _) => plan.events.push(event),
            (None, None) => advance(view, &mut plan),
            (None, Some(hold)) => go_on(view, hold, &mut plan),
        }
    }
    let rooms = Rooms::new(view);
    let reasons = Reasons::new(view, &plan, Some(&rooms));
    plan.waiting_on = reasons.all();
    plan.wake_at = wake_at(view, &rooms);
    plan
}

/// Offers nothing; what is in flight goes on and its deadlines are judged.
pub(super) fn held(view: &View<'_>) -> Plan {
    let mut plan = Plan {
        timed_out: view.timed_out(),
        ..Plan::default()
    };
    plan.waiting_on = Reasons::new(view, &plan, None).all();
    plan.wake_at = view.next_deadline();
    plan
}

/// True where the change may have reached the deployment.
pub(super) fn touched(target: &Target) -> bool {
    target.step != Step::Waiting
}

/// Offers what there is room for, unless the wave is overdue.
fn go_on(view: &mut View<'_>, hold: WaveHold, plan: &mut Plan) {
    if overdue_at(view, hold).is_some_and(|at| view.passed(at)) {
        plan.events.push(overdue(view));
        return;
    }
    let chosen = match closed_gate(view) {
        Some(_) => Vec::new(),
        None => Rooms::new(view).choose(),
    };
    let id = |index: &usize| view.input.targets[*index].deployment;
    plan.offer = chosen.iter().map(id).collect();
    view.offer(&chosen);
}

/// Ends the wave: begins the next as soon as it may, or finishes the run.
fn advance(view: &View<'_>, plan: &mut Plan) {
    match view.next_wave() {
        Some(next) if barrier(view, next).is_some() => {}
        Some(next) => plan.events.push(wave_started(view, next)),
        None if closed_gate(view).is_some() && missing(view).next().is_some() => {}
        None => finish(view, plan),
    }
}

/// Who is offered the change at the end although it is away: nobody is forgotten, unless the strategy wants that in a
/// window, which is for the shell to wait for.
fn missing(view: &View<'_>) -> impl Iterator<Item = DeploymentId> {
    let is_immediate = view.input.strategy.offline.catch_up == CatchUp::Immediate;
    let missing = move |(_, stage): &(&Target, Stage)| {
        is_immediate && *stage == Stage::Ledger { offered: false }
    };
    let all = view.targets().filter(missing);
    all.map(|(target, _)| target.deployment)
}

/// Ends the run.
fn finish(view: &View<'_>, plan: &mut Plan) {
    plan.offer = missing(view).collect();
    let outcomes = view.outcomes();
    let (proven, deployments) = (outcomes.proven, outcomes.deployments);
    let mut sentence = format!("every wave is done: {proven} of {deployments} deployments proven");
    let failed = outcomes.all_failed();
    if failed > 0 {
        sentence.push_str(&format!(", {failed} failed within budget"));
    }
    let offline = view.sum(|tally| tally.offline);
    if offline > 0 {
        let when = match view.input.strategy.offline.catch_up == CatchUp::InWindow {
            false => "they converge when they return",
            true => "they converge in their windows once they return",
        };
        sentence.push_str(&format!(", {offline} offline: {when}"));
    }
    let left = view
        .input
        .targets
        .iter()
        .filter(|target| target.left)
        .count();
    if left > 0 {
        sentence.push_str(&format!(", {left} left the rollout"));
    }
    plan.events.push((Event::Finished, sentence));
}

fn wave_started(view: &View<'_>, index: usize) -> (Event, String) {
    let deployments = view.tally(index).outcomes.deployments;
    let deployments = Deployments(usize::try_from(deployments).unwrap_or(usize::MAX));
    let sentence = format!("{} started: {deployments}", view.wave_ref(index));
    (Event::WaveStarted(index), sentence)
}

fn overdue(view: &View<'_>) -> (Event, String) {
    let current = view.current.unwrap_or_default();
    let (wave, outcomes) = (view.wave_ref(current), &view.tally(current).outcomes);
    let limit = Human(view.input.strategy.deadlines.wave);
    let (proven, deployments) = (outcomes.proven, outcomes.deployments);
    let beside = match view.shut {
        Duration::ZERO => String::new(),
        shut => format!(", beside {} for which windows were closed", Human(shut)),
    };
    let sentence = format!(
        "{wave} took longer than its deadline of {limit}{beside}: {proven} of {deployments} deployments proven"
    );
    (Event::WaveOverdue, sentence)
}

/// The next moment at which anything here may be another: deadlines, soak, windows, the rate, and what a gate said.
fn wake_at(view: &View<'_>, rooms: &Rooms<'_>) -> Option<Timestamp> {
    let waits = view.sum(|tally| tally.waiting) > 0;
    let hold = hold(view);
    let moments = [
        view.next_deadline(),
        view.soaked_at(),
        hold.and_then(|hold| overdue_at(view, hold)),
        view.away_opens.filter(|_| hold.is_some_and(is_absence)),
        view.window_turns,
        rooms.rate_full_until().filter(|_| waits),
        gates_fresh_until(view),
    ];
    let later = |at: &Timestamp| !view.passed(*at);
    moments.into_iter().flatten().filter(later).min()
}
