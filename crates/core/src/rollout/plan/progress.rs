//! The way forward: start, offer, judge, soak, go on to the next wave, finish.

use crate::id::DeploymentId;

use super::reasons;
use super::room::Rooms;
use super::view::{Stage, Tally, View, due};
use super::{Plan, Step, Target};
use crate::rollout::budget::Breach;
use crate::rollout::phase::Event;
use crate::rollout::strategy::Action;
use crate::rollout::waiting::{Deployments, Human, WaveHold};

/// Begins the run with its first wave that has deployments.
pub(super) fn start(view: &View<'_>) -> Plan {
    let first = (0..=view.current).find(|&index| view.tally(index).outcomes.deployments > 0);
    let wave = first.or_else(|| view.next_wave()).unwrap_or(0);
    let deployments = Deployments(view.input.targets.len());
    let events = vec![
        (
            Event::Started,
            format!("the rollout to {deployments} started"),
        ),
        wave_started(view, wave),
    ];
    let waiting_on = reasons::not_started(view);
    Plan {
        events,
        waiting_on,
        ..Plan::default()
    }
}

/// Goes on. In order: what passed its deadline, a budget that is spent, the end of the wave, its deadline;
/// only when there is none of these is anything offered, so that nothing new leaves before a verdict.
pub(super) fn progress(view: &View<'_>) -> Plan {
    let mut plan = Plan {
        timed_out: view.timed_out(),
        ..Plan::default()
    };
    let mut rooms = Rooms::new(view);
    let mut hold = wave_hold(view);
    if plan.timed_out.is_empty() {
        match (verdict(view), hold) {
            (Some(event), _) => plan.events.push(event),
            (None, None) => advance(view, &mut plan),
            (None, Some(_)) if view.passed(view.wave_due()) => plan.events.push(overdue(view)),
            (None, Some(_)) => plan.offer = offers(view, &mut rooms),
        }
    }
    if let Some(WaveHold::Running { in_flight, .. }) = &mut hold {
        *in_flight = rooms.in_flight();
    }
    plan.waiting_on = reasons::forward(view, &plan, hold, &rooms);
    let ack = due(view.input.now, view.input.strategy.deadlines.ack);
    let ack = (!plan.offer.is_empty()).then_some(ack);
    let moments = [
        view.next_deadline(),
        view.soaked_at(),
        Some(view.wave_due()),
        ack,
    ];
    plan.wake_at = moments
        .into_iter()
        .flatten()
        .filter(|at| !view.passed(*at))
        .min();
    plan
}

/// Offers nothing; what is in flight goes on and its deadlines are judged.
pub(super) fn hold(view: &View<'_>) -> Plan {
    let mut plan = Plan {
        timed_out: view.timed_out(),
        ..Plan::default()
    };
    plan.waiting_on = reasons::forward(view, &plan, None, &Rooms::new(view));
    plan.wake_at = view.next_deadline();
    plan
}

/// What a spent budget does to the run: the strongest action of all waves that have begun.
fn verdict(view: &View<'_>) -> Option<(Event, String)> {
    let strategy = view.input.strategy;
    let mut worst: Option<Breach> = None;
    for (index, tally) in view.begun() {
        for breach in tally.outcomes.breaches(strategy, view.wave(index)) {
            // The first of equals stays, so that the sentence names the earliest wave.
            if worst
                .as_ref()
                .is_none_or(|worst| worst.budget.action < breach.budget.action)
            {
                worst = Some(breach);
            }
        }
    }
    let breach = worst?;
    let touched = || view.input.targets.iter().filter(|target| touched(target));
    let impossible = touched().filter(|target| !target.can_roll_back).count();
    if breach.budget.action == Action::Rollback && impossible > 0 {
        let touched = touched().count();
        let sentence = format!(
            "{breach}, but {impossible} of {touched} touched deployments cannot go back: halt"
        );
        return Some((Event::RollbackImpossible, sentence));
    }
    Some((Event::BudgetSpent(breach.budget.action), breach.to_string()))
}

/// True where the change may have reached the deployment.
pub(super) fn touched(target: &Target) -> bool {
    target.step != Step::Waiting
}

/// What the running wave waits for; `None` when it is done.
fn wave_hold(view: &View<'_>) -> Option<WaveHold> {
    let tally = view.tally(view.current);
    let wave = view.wave(view.current);
    let limit_percent = view.input.strategy.offline_max_percent;
    let deployments = tally.outcomes.deployments;
    let offline = tally.offline;
    let in_flight = view.begun().map(|(_, tally)| tally.in_flight).sum();
    let waiting: u32 = view.begun().map(|(_, tally)| tally.waiting).sum();
    if waiting + in_flight > 0 {
        let (proven, left) = (tally.outcomes.proven, view.left(view.wave_due()));
        return Some(WaveHold::Running {
            proven,
            deployments,
            in_flight,
            left,
        });
    }
    if u64::from(offline) * 100 > u64::from(limit_percent) * u64::from(deployments) {
        return Some(WaveHold::Offline {
            offline,
            deployments,
            limit_percent,
        });
    }
    // A canary does not pass because its only deployment is away, nor, where it is strict, because all it
    // has was broken before; an operator who resumes lets the latter pass.
    let broken_before = tally.outcomes.broken_before;
    let silent = offline > 0 || (wave.strict && broken_before > 0);
    if tally.outcomes.proven == 0 && silent {
        return Some(WaveHold::Unproven {
            offline,
            broken_before,
            deployments,
        });
    }
    let soaking = view.soaked_at().filter(|at| !view.passed(*at))?;
    Some(WaveHold::Soaking {
        left: view.left(soaking),
    })
}

/// Ends the wave: begins the next, or finishes the run. Whoever is offline then is offered the change, so
/// that nobody is forgotten.
fn advance(view: &View<'_>, plan: &mut Plan) {
    if let Some(next) = view.next_wave() {
        plan.events.push(wave_started(view, next));
        return;
    }
    let missing = |target: &&Target| view.stage(target) == Stage::Ledger { offered: false };
    plan.offer = view
        .input
        .targets
        .iter()
        .filter(missing)
        .map(|t| t.deployment)
        .collect();
    let sum = |count: fn(&Tally) -> u32| view.begun().map(|(_, tally)| count(tally)).sum::<u32>();
    let proven = sum(|tally| tally.outcomes.proven);
    let offline = sum(|tally| tally.offline);
    let deployments = view.input.targets.len();
    let failed = view
        .input
        .targets
        .iter()
        .filter(|t| matches!(t.step, Step::Failed(..)))
        .count();
    let mut sentence = format!("every wave is done: {proven} of {deployments} deployments proven");
    if failed > 0 {
        sentence.push_str(&format!(", {failed} failed within budget"));
    }
    if offline > 0 {
        sentence.push_str(&format!(
            ", {offline} offline: they converge when they return"
        ));
    }
    plan.events.push((Event::Finished, sentence));
}

fn wave_started(view: &View<'_>, index: usize) -> (Event, String) {
    let deployments = view
        .input
        .targets
        .iter()
        .filter(|target| view.wave_of(target) == index);
    let deployments = Deployments(deployments.count());
    let sentence = format!("{} started: {deployments}", view.wave_ref(index));
    (Event::WaveStarted(index), sentence)
}

fn overdue(view: &View<'_>) -> (Event, String) {
    let wave = view.wave_ref(view.current);
    let outcomes = &view.tally(view.current).outcomes;
    let limit = Human(view.input.strategy.deadlines.wave);
    let (proven, deployments) = (outcomes.proven, outcomes.deployments);
    let sentence = format!(
        "{wave} took longer than its deadline of {limit}: {proven} of {deployments} deployments proven"
    );
    (Event::WaveOverdue, sentence)
}

/// Whom to offer the change now: earlier waves first, then in order of ids, as far as there is room.
fn offers(view: &View<'_>, rooms: &mut Rooms) -> Vec<DeploymentId> {
    let mut offers = Vec::new();
    for (index, _) in view.begun().filter(|(_, tally)| tally.waiting > 0) {
        let mut waiting =
            view.input.targets.iter().filter(|target| {
                view.wave_of(target) == index && view.stage(target) == Stage::Waiting
            });
        while let Some(target) = waiting.next()
            && rooms.take(index)
        {
            offers.push(target.deployment);
        }
    }
    offers
}
