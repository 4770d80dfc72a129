//! What must hold after every plan, counted here anew from the targets.

use std::collections::BTreeSet;

use keyfleet_core::Timestamp;
use keyfleet_core::rollout::{Action, Event, Phase, Plan, Step, Target, budget_use, plan};

use crate::world::World;

/// Checks a plan before it is carried out.
pub(crate) fn check_plan(world: &World, made: &Plan) {
    let log = &world.log;
    assert_eq!(
        &plan(&world.input()),
        made,
        "the plan is not deterministic\n{log}"
    );
    let phase = world.run.phase;
    if phase.is_terminal() {
        assert_eq!(made, &Plan::default(), "{phase}\n{log}");
        return;
    }
    let offers = phase == Phase::Progressing && !world.andon;
    assert!(offers || made.offer.is_empty(), "{phase} offers\n{log}");
    let returns = phase == Phase::RollingBack && !world.andon;
    assert!(
        returns || made.roll_back.is_empty(),
        "{phase} rolls back\n{log}"
    );
    let judged = made.timed_out.is_empty() && made.events.is_empty();
    assert!(!world.andon || judged, "decides under andon\n{log}");
    let acts = made.offer.len() + made.roll_back.len() + made.events.len();
    assert!(
        made.timed_out.is_empty() || acts == 0,
        "acts before time-outs are noted\n{log}"
    );
    for (event, sentence) in &made.events {
        assert!(!sentence.is_empty());
        check_event(world, made, *event);
    }
    let finishes = made
        .events
        .iter()
        .any(|(event, _)| *event == Event::Finished);
    for target in &world.targets {
        if made.offer.contains(&target.deployment) {
            assert_eq!(target.step, Step::Waiting, "offered twice\n{log}");
            assert!(
                target.wave <= world.run.wave || finishes,
                "offered in a later wave\n{log}"
            );
            assert!(target.online != finishes, "offered while away\n{log}");
        }
        if made.roll_back.contains(&target.deployment) {
            assert!(
                target.can_roll_back && target.step != Step::Waiting,
                "{log}"
            );
        }
    }
    check_room(world, made, finishes);
    check_reasons(world, made);
    check_wake(world, made);
}

/// Invariant 7: in a strict wave the failure that breaks a budget is the last one started.
pub(crate) fn check_state(world: &World) {
    let forward = [Phase::Progressing, Phase::Paused, Phase::Halted].contains(&world.run.phase);
    if !forward || world.regressed {
        return;
    }
    for (index, wave) in world
        .strategy
        .waves
        .iter()
        .enumerate()
        .filter(|(_, wave)| wave.strict)
    {
        let of = |target: &&Target| target.wave == index;
        let size = world.targets.iter().filter(of).count() as u32;
        let in_flight = world
            .targets
            .iter()
            .filter(of)
            .filter(|t| in_flight(world, t))
            .count();
        let Some(left) = budget_left(world, index) else {
            continue;
        };
        let limit = wave.concurrency.of_at_least_one(size).min(left + 1);
        assert!(
            in_flight as u32 <= limit,
            "strict wave {index}: {in_flight} > {limit}\n{}",
            world.log
        );
    }
}

fn check_event(world: &World, made: &Plan, event: Event) {
    let log = &world.log;
    match event {
        Event::Started => {}
        Event::RollbackFinished => assert!(world.targets.iter().all(back), "not all back\n{log}"),
        Event::RollbackFailed => assert!(!world.targets.iter().all(back), "all back\n{log}"),
        Event::WaveStarted(wave) => {
            assert!(world.targets.is_empty() || world.targets.iter().any(|t| t.wave == wave));
            let earlier = || world.targets.iter().filter(|target| target.wave < wave);
            assert!(
                earlier().all(|target| settled(world, target)),
                "wave {wave} too early\n{log}"
            );
        }
        Event::Finished => {
            assert!(
                world.targets.iter().all(|target| settled(world, target)),
                "{log}"
            );
            let forgotten = world
                .targets
                .iter()
                .filter(|target| target.step == Step::Waiting);
            assert_eq!(
                forgotten.count(),
                made.offer.len(),
                "somebody is forgotten\n{log}"
            );
        }
        Event::BudgetSpent(action) => {
            assert_ne!(action, Action::Continue);
            assert!(made.offer.is_empty(), "offers beside a breach\n{log}");
        }
        Event::WaveOverdue | Event::RollbackImpossible => {
            assert!(made.offer.is_empty(), "offers beside a halt\n{log}");
        }
        Event::Superseded | Event::Verb(_) => panic!("the planner does not say {event:?}\n{log}"),
    }
}

fn back(target: &Target) -> bool {
    match target.step {
        Step::Waiting | Step::RolledBack(_) => true,
        Step::RollbackOffered(_) => !target.online,
        Step::RollbackFailed(..) => target.baseline_red,
        _ => false,
    }
}

/// Concurrency holds for what is offered; who comes back with an old offer may exceed it.
fn check_room(world: &World, made: &Plan, finishes: bool) {
    let log = &world.log;
    let begun = |target: &&Target| target.wave <= world.run.wave;
    if !made.offer.is_empty() && !finishes {
        let wave = &world.strategy.waves[world.run.wave];
        let size = world
            .targets
            .iter()
            .filter(|t| t.wave == world.run.wave)
            .count() as u32;
        let now = world
            .targets
            .iter()
            .filter(begun)
            .filter(|t| in_flight(world, t))
            .count();
        let after = (now + made.offer.len()) as u32;
        let limit = wave.concurrency.of_at_least_one(size);
        assert!(
            after <= limit,
            "{after} in flight, concurrency {limit}\n{log}"
        );
        let left = budget_left(world, world.run.wave);
        assert!(
            !wave.strict || left.is_none_or(|left| after <= left + 1),
            "{after} in flight, left {left:?}\n{log}"
        );
    }
    let online = |target: &&Target| target.online && made.roll_back.contains(&target.deployment);
    let starts = world.targets.iter().filter(online).count();
    if starts > 0 {
        let going = |t: &&Target| t.online && matches!(t.step, Step::RollbackOffered(_));
        let going = world.targets.iter().filter(going).count();
        let touched = world
            .targets
            .iter()
            .filter(|t| t.step != Step::Waiting)
            .count() as u32;
        let limit = world.strategy.rollback_concurrency.of_at_least_one(touched);
        assert!(
            (going + starts) as u32 <= limit,
            "rollback concurrency {limit}\n{log}"
        );
    }
}

/// Invariant 13: every deployment that is not converged has one reason, and only those.
fn check_reasons(world: &World, made: &Plan) {
    let log = &world.log;
    let reasons: Vec<_> = made
        .waiting_on
        .iter()
        .filter_map(|w| w.deployment)
        .collect();
    let once: BTreeSet<_> = reasons.iter().collect();
    assert_eq!(once.len(), reasons.len(), "two reasons\n{log}");
    for target in &world.targets {
        let has = once.contains(&target.deployment);
        let converged = match target.step {
            _ if world.run.phase == Phase::Pending => false,
            Step::Proven(_) if world.run.phase.is_rollback() => false,
            Step::Proven(at) => {
                // Under andon nothing is said about soaking.
                let soaking = !soaked(world, target, at);
                if soaking && world.andon {
                    continue;
                } else {
                    !soaking
                }
            }
            Step::Waiting => world.run.phase.is_rollback(),
            Step::RolledBack(_) => true,
            Step::RollbackFailed(..) => target.baseline_red && world.run.phase.is_rollback(),
            _ => false,
        };
        assert_eq!(has, !converged, "{:?} {target:?}\n{log}", world.run.phase);
    }
    let run = made
        .waiting_on
        .iter()
        .filter(|w| w.deployment.is_none())
        .count();
    assert_eq!(
        run,
        usize::from(made.events.is_empty()),
        "reasons of the run\n{log}"
    );
    assert!(
        made.waiting_on
            .iter()
            .all(|waiting| !waiting.on.to_string().is_empty())
    );
}

fn check_wake(world: &World, made: &Plan) {
    let again = !made.events.is_empty() || !made.timed_out.is_empty();
    match made.wake_at {
        Some(at) if again => assert_eq!(at, world.now),
        Some(at) => assert!(at > world.now, "wakes in the past\n{}", world.log),
        None => {
            let asleep = world.run.phase != Phase::Progressing || world.andon;
            assert!(asleep && !again, "nothing wakes the run\n{}", world.log);
        }
    }
}

/// What the wave still bears; `None` where no budget would ever hold it.
fn budget_left(world: &World, wave: usize) -> Option<u32> {
    let used = budget_use(&world.strategy, &world.targets, wave);
    let budgets = used.iter().zip(&world.strategy.budgets);
    let holding = budgets.filter(|(_, budget)| budget.action != Action::Continue);
    holding
        .map(|(used, _)| used.max.saturating_sub(used.failures))
        .min()
}

fn in_flight(world: &World, target: &Target) -> bool {
    match target.step {
        Step::Offered(at) => target.online || !past(world, at, world.strategy.deadlines.ack),
        Step::Received(_) | Step::Applied(_) => true,
        _ => false,
    }
}

fn settled(world: &World, target: &Target) -> bool {
    match target.step {
        Step::Proven(at) => soaked(world, target, at),
        Step::Failed(..) => true,
        Step::Waiting | Step::Offered(_) => !target.online && !in_flight(world, target),
        _ => false,
    }
}

fn soaked(world: &World, target: &Target, at: Timestamp) -> bool {
    past(world, at, world.strategy.waves[target.wave].soak)
}

fn past(world: &World, at: Timestamp, limit: std::time::Duration) -> bool {
    world.now >= at.checked_add(limit).unwrap()
}
