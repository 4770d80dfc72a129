//! The way forward: who may be offered the change, when a wave may begin, what may hold the run.

use crate::Timestamp;
use crate::rollout::gate::{GateState, Verdict};
use crate::rollout::phase::{Event, Phase};
use crate::rollout::plan::{Plan, Step, Target};
use crate::rollout::strategy::{Action, CatchUp, Wave};

use super::Found;
use super::budgets;
use super::count::{Count, at_least_one, number};

pub(super) fn check(found: &mut Found, count: &Count<'_>, plan: &Plan) {
    let forward = matches!(
        count.phase(),
        Phase::Progressing | Phase::Paused | Phase::Halted
    );
    if !forward && count.phase() != Phase::Pending {
        return;
    }
    if forward {
        lateness(found, count, plan);
    }
    let finishes = plan
        .events
        .iter()
        .any(|(event, _)| *event == Event::Finished);
    for (event, _) in &plan.events {
        of_event(found, count, *event);
    }
    match finishes {
        true => nobody_is_forgotten(found, count, plan),
        false => offers(found, count, plan),
    }
}

/// Whoever takes too long is said to, nobody else is, and the run wakes in time to say so.
fn lateness(found: &mut Found, count: &Count<'_>, plan: &Plan) {
    for target in count.targets() {
        let id = target.deployment;
        let said = plan.timed_out.iter().any(|(late, _)| *late == id);
        let late = count.is_overdue(target);
        found.unless(said == late, || {
            format!("{id} is late: {late}, said: {said}")
        });
        let due = count.due(target).filter(|_| count.is_in_flight(target));
        let in_time = |due: Timestamp| plan.wake_at.is_some_and(|wake| wake <= due);
        found.unless(late || due.is_none_or(in_time), || {
            format!("nothing wakes the run when {id} is late")
        });
    }
}

fn of_event(found: &mut Found, count: &Count<'_>, event: Event) {
    match event {
        Event::WaveStarted(wave) => wave_may_begin(found, count, wave),
        Event::Finished => {
            wave_is_done(found, count);
            let later = count.present().any(|target| !count.has_begun(target));
            found.unless(!later, || "finished before a later wave".to_owned());
        }
        Event::BudgetSpent(action) => {
            let real = budgets::verdict(count);
            found.unless(real == Some(action) && action != Action::Continue, || {
                format!("a budget is said to {action:?}, but it is {real:?}")
            });
        }
        Event::RollbackImpossible => {
            let wanted = budgets::verdict(count) == Some(Action::Rollback)
                || failing_gate(count) == Some(Action::Rollback);
            let impossible = count
                .targets()
                .any(|t| t.step != Step::Waiting && !t.can_roll_back);
            found.unless(wanted && impossible, || {
                "a rollback is said to be impossible without need".to_owned()
            });
        }
        Event::WaveOverdue => {
            let limit = count.strategy().deadlines.wave;
            let past = count.past(count.input.run.wave_started_at, limit);
            found.unless(
                past && !count.is_fast_forward() && count.running().is_some(),
                || "a wave is overdue that is not".to_owned(),
            );
        }
        Event::GateFailed(action) => {
            let real = failing_gate(count);
            found.unless(real == Some(action), || {
                format!("a gate is said to {action:?}, but it is {real:?}")
            });
        }
        Event::GateInconclusive => found.unless(is_inconclusive(count), || {
            "no gate is inconclusive for long enough".to_owned()
        }),
        Event::Started
        | Event::RollbackFinished
        | Event::RollbackFailed
        | Event::Superseded
        | Event::Verb(_) => {}
    }
}

/// A wave begins when the one before is done, its approvals are complete and all gates pass.
fn wave_may_begin(found: &mut Found, count: &Count<'_>, wave: usize) {
    let running = count.input.run.wave;
    found.unless(running.is_none_or(|running| running < wave), || {
        format!("wave {wave} begins again")
    });
    let empty = count.present().next().is_none();
    found.unless(empty || !count.of_wave(wave).is_empty(), || {
        format!("wave {wave} begins and has nobody")
    });
    let skipped = |target: &Target| !count.has_begun(target) && count.wave_of(target) < wave;
    found.unless(!count.present().any(skipped), || {
        format!("wave {wave} begins before an earlier one")
    });
    let Some(strategy) = count.strategy().waves.get(wave) else {
        return found.unless(false, || format!("there is no wave {wave}"));
    };
    found.unless(is_approved(count, wave, strategy), || {
        format!("wave {wave} begins without its approvals")
    });
    gates_pass(found, count, "a wave begins");
    if running.is_some() {
        wave_is_done(found, count);
    }
}

fn is_approved(count: &Count<'_>, wave: usize, strategy: &Wave) -> bool {
    let Some(approval) = strategy.approval else {
        return true;
    };
    let run = count.input.run;
    let mut who: Vec<&str> = run
        .approvals
        .iter()
        .filter(|given| given.wave == wave)
        .map(|given| given.principal.as_str())
        .filter(|principal| !approval.not_author || *principal != run.author)
        .collect();
    who.sort_unstable();
    who.dedup();
    number(who.len()) >= approval.required
}

/// Nobody is at work or could be, the budgets bear what failed, and what is proven has soaked.
fn wave_is_done(found: &mut Found, count: &Count<'_>) {
    found.unless(budgets::verdict(count).is_none(), || {
        "the run goes on beside a spent budget".to_owned()
    });
    let begun: Vec<&Target> = count.present().filter(|t| count.has_begun(t)).collect();
    let busy = begun.iter().any(|target| count.is_in_flight(target));
    found.unless(!busy, || "a wave ends while somebody is at work".to_owned());
    let open = |target: &&&Target| count.is_open(target) && target.online;
    found.unless(!begun.iter().any(|target| open(&target)), || {
        "a wave ends while somebody waits to be offered the change".to_owned()
    });
    let Some((index, wave)) = count.running() else {
        return;
    };
    if count.is_fast_forward() {
        return;
    }
    let proven = |target: &&&Target| matches!(target.step, Step::Proven(_));
    let soaking = |target: &&&Target| proven(target) && !count.is_soaked(target);
    found.unless(!begun.iter().any(|target| soaking(&target)), || {
        "a wave ends while somebody soaks".to_owned()
    });
    let here = count.of_wave(index);
    let offline = here
        .iter()
        .filter(|target| count.is_offline(target))
        .count();
    let limit = usize::from(count.strategy().offline.max_percent) * here.len();
    found.unless(offline * 100 <= limit, || {
        format!("a wave ends with {offline} of {} offline", here.len())
    });
    let broken = |target: &&&Target| {
        target.baseline_red && !target.forgiven && matches!(target.step, Step::Failed(..))
    };
    let broken = here.iter().filter(broken).count();
    found.unless(!wave.mandatory || offline + broken == 0, || {
        format!("a mandatory wave ends with {offline} offline and {broken} broken before")
    });
    let silent = offline > 0 || (wave.strict && broken > 0);
    found.unless(!silent || here.iter().any(|target| proven(&target)), || {
        "a wave ends in which nobody is proven".to_owned()
    });
}

/// Beside the end, whoever is away is offered the change, or waits for its window.
fn nobody_is_forgotten(found: &mut Found, count: &Count<'_>, plan: &Plan) {
    let strategy = count.strategy();
    let held = strategy.offline.catch_up == CatchUp::InWindow && !strategy.windows.is_empty();
    for target in count.targets() {
        let offered = plan.offer.contains(&target.deployment);
        let missing = !target.left && count.is_open(target) && !held;
        found.unless(offered == missing, || {
            format!(
                "{} at the end: misses it {missing}, is offered it {offered}",
                target.deployment
            )
        });
    }
}

/// Who is offered the change, and how many at a time.
fn offers(found: &mut Found, count: &Count<'_>, plan: &Plan) {
    if plan.offer.is_empty() {
        return;
    }
    gates_pass(found, count, "something is offered");
    found.unless(budgets::verdict(count).is_none(), || {
        "something is offered beside a spent budget".to_owned()
    });
    let offered: Vec<&Target> = count
        .targets()
        .filter(|target| plan.offer.contains(&target.deployment))
        .collect();
    for target in &offered {
        let (id, step) = (target.deployment, target.step);
        found.unless(count.is_open(target), || {
            format!("{id} is offered it twice: {step:?}")
        });
        found.unless(target.online, || format!("{id} is offered it while away"));
        found.unless(!target.left, || format!("{id} is offered it after it left"));
        found.unless(count.has_begun(target), || {
            format!("{id} is offered it before its wave")
        });
        found.unless(!count.is_closed(target), || {
            format!("{id} is offered it outside of its windows")
        });
    }
    for (index, wave) in count.begun() {
        room(found, count, &offered, index, wave);
    }
    let before = count.within_a_minute(count.targets().filter_map(|t| t.offered_at));
    let after = before + number(offered.len());
    found.unless(
        count
            .strategy()
            .max_per_minute
            .is_none_or(|max| after <= max),
        || format!("{after} are offered it within a minute"),
    );
}

/// The room of a wave in which somebody is offered the change; what earlier waves do takes room in the running one.
fn room(found: &mut Found, count: &Count<'_>, offered: &[&Target], index: usize, wave: &Wave) {
    let is_running = count.running().is_some_and(|(running, _)| running == index);
    let here = |target: &Target| count.wave_of(target) == index;
    let counts = |target: &Target| here(target) || (is_running && count.has_begun(target));
    let own = offered.iter().filter(|target| here(target)).count();
    let new = offered.iter().filter(|target| counts(target)).count();
    if new == 0 {
        return;
    }
    let busy = |target: &&Target| counts(target) && count.is_in_flight(target);
    let in_flight = number(count.targets().filter(busy).count() + new);
    let members = count.of_wave(index);
    let limit = at_least_one(wave.concurrency, members.len()).min(ramp(count, index));
    found.unless(in_flight <= limit, || {
        format!(
            "{in_flight} in flight in wave {}, {limit} may be",
            wave.name
        )
    });
    let away = |target: &&Target| here(target) && !target.left && count.is_away_with_it(target);
    let at_stake = in_flight + number(count.targets().filter(away).count());
    if wave.strict
        && own > 0
        && let Some(left) = budgets::left(count, index)
    {
        found.unless(at_stake <= left.saturating_add(1), || {
            format!(
                "{at_stake} at stake in strict wave {}, {left} failures left",
                wave.name
            )
        });
    }
    spread(found, count, offered, index, wave);
}

/// No value of the label has more in flight than may be.
fn spread(found: &mut Found, count: &Count<'_>, offered: &[&Target], index: usize, wave: &Wave) {
    let Some(spread) = &wave.spread else {
        return;
    };
    let here = |target: &&Target| count.wave_of(target) == index;
    for of in offered.iter().copied().filter(here) {
        let same = |target: &&Target| here(target) && target.group == of.group;
        let busy = |target: &&Target| {
            let is_away = count.is_away_with_it(target) && !target.left;
            count.is_in_flight(target) || (wave.strict && is_away)
        };
        let before = count.targets().filter(same).filter(busy).count();
        let after = number(before + offered.iter().copied().filter(same).count());
        found.unless(after <= spread.max, || {
            format!(
                "{after} in flight in group {:?} of wave {}",
                of.group, wave.name
            )
        });
    }
}

/// How many the ramp allows in a wave, given how many are proven there.
fn ramp(count: &Count<'_>, index: usize) -> u32 {
    let Some(ramp) = count.strategy().ramp else {
        return u32::MAX;
    };
    let proven =
        |target: &&Target| count.wave_of(target) == index && matches!(target.step, Step::Proven(_));
    let mut proven = count.targets().filter(proven).count() as u64;
    let mut limit = u64::from(ramp.start.max(1));
    while proven >= limit {
        proven -= limit;
        limit = (limit * u64::from(ramp.factor_percent) / 100).max(limit + 1);
    }
    u32::try_from(limit).unwrap_or(u32::MAX)
}

/// Every gate has passed, and lately.
fn gates_pass(found: &mut Found, count: &Count<'_>, what: &str) {
    for gate in &count.strategy().gates {
        let states = &count.input.run.gates;
        let fresh = |state: &&GateState| !count.past(state.at, gate.interval * 3);
        let passes = states
            .iter()
            .filter(|state| state.name == gate.name && state.verdict == Verdict::Pass)
            .any(|state| fresh(&state));
        found.unless(passes, || {
            format!("{what} while gate {} does not pass", gate.name)
        });
    }
}

/// The strongest action of a gate that has failed often enough.
fn failing_gate(count: &Count<'_>) -> Option<Action> {
    let gates = count.strategy().gates.iter();
    gates
        .filter(|gate| {
            let mut states = count.input.run.gates.iter();
            states.any(|state| {
                state.name == gate.name
                    && state.verdict == Verdict::Fail
                    && state.streak >= gate.fail_after
            })
        })
        .map(|gate| gate.action)
        .max()
}

fn is_inconclusive(count: &Count<'_>) -> bool {
    count.strategy().gates.iter().any(|gate| {
        let mut states = count.input.run.gates.iter();
        states.any(|state| {
            state.name == gate.name
                && state.verdict == Verdict::Inconclusive
                && state.streak >= gate.inconclusive_after
        })
    })
}
