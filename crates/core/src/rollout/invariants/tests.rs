//! Plans made wrong by hand: each rule must be found broken, and a good plan breaks none.

use std::time::Duration;

use super::violations;
use crate::Timestamp;
use crate::failure::FailureClass;
use crate::id::DeploymentId;
use crate::rollout::gate::{Gate, GateCheck, GateState, Verdict};
use crate::rollout::phase::{Event, Phase, Verb};
use crate::rollout::plan::{Opening, Plan, PlanInput, Step, Target, plan};
use crate::rollout::run::Run;
use crate::rollout::strategy::{
    Action, Amount, Approval, Ramp, Sample, Spread, Strategy, Window, Zone, default_strategy,
};
use crate::rollout::waiting::{About, Deadline, Waiting, WaitingOn};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// A run of two waves, the first of them running: of each wave four deployments.
struct Case {
    strategy: Strategy,
    run: Run,
    targets: Vec<Target>,
    andon: bool,
    plan: Plan,
}

fn id(index: usize) -> DeploymentId {
    DeploymentId::new(uuid::Uuid::from_u128(index as u128 + 1))
}

fn ago(seconds: u64) -> Timestamp {
    NOW.checked_sub(Duration::from_secs(seconds)).unwrap()
}

impl Case {
    /// What the planner itself says: nothing of it is wrong. The first wave is running, and takes all it has.
    fn new() -> Self {
        let mut strategy = default_strategy("case".parse().unwrap());
        strategy.waves.remove(1);
        strategy.waves[0].sample = Some(Sample {
            amount: Amount::Count(4),
            spread: None,
            min_matching: 0,
        });
        strategy.waves[0].concurrency = Amount::Count(4);
        strategy.waves[0].strict = false;
        strategy.waves[0].soak = Duration::ZERO;
        let mut run = Run::new("ops", NOW);
        run.phase = Phase::Progressing;
        run.wave = Some(0);
        let target = |index| Target {
            deployment: id(index),
            wave: index / 4,
            group: None,
            offered_at: None,
            rollback_at: None,
            opening: Opening::Always,
            shut: Duration::ZERO,
            left: false,
            step: Step::Waiting,
            online: true,
            baseline_red: false,
            forgiven: false,
            can_roll_back: true,
        };
        Self {
            strategy,
            run,
            targets: (0..8).map(target).collect(),
            andon: false,
            plan: Plan::default(),
        }
    }

    fn input(&self) -> PlanInput<'_> {
        PlanInput {
            now: NOW,
            andon: self.andon.then_some("ops: a test"),
            strategy: &self.strategy,
            run: &self.run,
            targets: &self.targets,
        }
    }
}

/// The situation is changed, the planner's plan for it is made wrong, and exactly that must be found.
fn check(situation: impl Fn(&mut Case), spoil: impl Fn(&mut Case), expected: &str) {
    let mut case = Case::new();
    situation(&mut case);
    case.plan = plan(&case.input());
    let found = violations(&case.input(), &case.plan);
    assert!(found.is_empty(), "{expected}: {found:?} of {:?}", case.plan);
    spoil(&mut case);
    let found = violations(&case.input(), &case.plan);
    let bites = found.iter().any(|sentence| sentence.contains(expected));
    assert!(bites, "{expected:?} is not in {found:#?}");
}

fn usual(_: &mut Case) {}

fn offers(indices: &[usize]) -> impl Fn(&mut Case) + use<> {
    let ids: Vec<_> = indices.iter().map(|index| id(*index)).collect();
    move |case| case.plan.offer = ids.clone()
}

fn says(event: Event) -> impl Fn(&mut Case) {
    move |case| {
        case.plan.offer.clear();
        case.plan.events = vec![(event, "so it is".to_owned())];
    }
}

/// The first wave is done.
fn proven(case: &mut Case) {
    case.targets[..4]
        .iter_mut()
        .for_each(|target| target.step = Step::Proven(ago(10)));
}

fn failed(case: &mut Case) {
    proven(case);
    case.targets[1].step = Step::Failed(NOW, FailureClass::Auth);
}

/// Everybody of the first wave has it, and goes back.
fn rollback(case: &mut Case) {
    proven(case);
    case.run.phase = Phase::RollingBack;
}

fn gated(case: &mut Case) {
    case.strategy.gates = vec![Gate {
        name: "errors".to_owned(),
        check: GateCheck::Http {
            url: "https://gate.example/".parse().unwrap(),
        },
        interval: Duration::from_secs(60),
        action: Action::Halt,
        fail_after: 2,
        inconclusive_after: 2,
    }];
}

fn answered(verdict: Verdict, streak: u32, seconds_ago: u64) -> impl Fn(&mut Case) {
    move |case| {
        gated(case);
        case.run.gates = vec![GateState {
            name: "errors".to_owned(),
            verdict,
            streak,
            at: ago(seconds_ago),
            text: "an answer".to_owned(),
        }];
    }
}

#[test]
fn phases_and_andon() {
    let at = |phase| move |case: &mut Case| case.run.phase = phase;
    check(at(Phase::Paused), offers(&[0]), "PAUSED offers");
    check(
        usual,
        |case| case.plan.roll_back = vec![id(0)],
        "rolls back",
    );
    check(at(Phase::Aborted), offers(&[0]), "ABORTED does something");
    check(|case| case.andon = true, offers(&[0]), "under andon");
    check(usual, says(Event::RollbackFinished), "does not take");
    check(usual, says(Event::Verb(Verb::Pause)), "the planner says");
    let mute = |case: &mut Case| {
        case.plan.offer.clear();
        case.plan.events = vec![(Event::Finished, String::new())];
    };
    check(usual, mute, "has no sentence");
    let both = |case: &mut Case| case.plan.timed_out = vec![(id(0), Deadline::Ack)];
    check(usual, both, "before time-outs");
    check(usual, offers(&[0, 0]), "twice");
    check(usual, offers(&[42]), "a stranger");
    let beside = |case: &mut Case| {
        case.plan.events = vec![(Event::BudgetSpent(Action::Halt), "x".to_owned())];
    };
    check(usual, beside, "offered beside an event");
}

#[test]
fn whom_it_is_offered() {
    let with = |change: fn(&mut Target)| move |case: &mut Case| change(&mut case.targets[0]);
    check(with(|t| t.step = Step::Proven(NOW)), offers(&[0]), "twice");
    check(with(|t| t.online = false), offers(&[0]), "while away");
    check(with(|t| t.left = true), offers(&[0]), "after it left");
    check(usual, offers(&[5]), "before its wave");
    let none = |case: &mut Case| case.run.wave = None;
    check(none, offers(&[0]), "before its wave");
    let shut = |t: &mut Target| {
        t.opening = Opening::Closed {
            opens: None,
            blackout: None,
        };
    };
    check(with(shut), offers(&[0]), "outside of its windows");
    let late = |t: &mut Target| t.opening = Opening::Open { until: NOW };
    check(with(late), offers(&[0]), "outside of its windows");
    check(failed, offers(&[1]), "twice");
    let spent = |case: &mut Case| {
        failed(case);
        case.targets[0].step = Step::Waiting;
    };
    check(spent, offers(&[0]), "beside a spent budget");
}

#[test]
fn how_many_at_a_time() {
    let room = |change: fn(&mut Strategy)| move |case: &mut Case| change(&mut case.strategy);
    let two = room(|s| s.waves[0].concurrency = Amount::Percent(50));
    check(two, offers(&[0, 1, 2]), "3 in flight in wave canary, 2");
    let ramp = |s: &mut Strategy| {
        s.ramp = Some(Ramp {
            start: 1,
            factor_percent: 200,
        });
    };
    check(room(ramp), offers(&[0, 1]), "2 in flight in wave canary, 1");
    let grown = move |case: &mut Case| {
        ramp(&mut case.strategy);
        case.targets[0].step = Step::Proven(NOW);
    };
    check(grown, offers(&[1, 2, 3]), "3 in flight in wave canary, 2");
    check(
        room(|s| s.waves[0].strict = true),
        offers(&[0, 1]),
        "2 at stake in strict wave",
    );
    let away = |case: &mut Case| {
        case.strategy.waves[0].strict = true;
        case.targets[0].step = Step::Offered(ago(100));
        case.targets[0].online = false;
    };
    check(away, offers(&[1]), "2 at stake in strict wave");
    let rate = |case: &mut Case| {
        case.strategy.max_per_minute = Some(2);
        case.targets[0].step = Step::Proven(ago(1));
        case.targets[0].offered_at = Some(ago(59));
    };
    check(rate, offers(&[1, 2]), "3 are offered it within a minute");
    let spread = |s: &mut Strategy| {
        s.waves[0].spread = Some(Spread {
            label: "region".to_owned(),
            max: 1,
        });
    };
    check(room(spread), offers(&[0, 1]), "2 in flight in group");
}

#[test]
fn when_a_wave_may_begin_or_end() {
    let begins = || says(Event::WaveStarted(1));
    check(usual, begins(), "waits to be offered");
    check(failed, begins(), "beside a spent budget");
    let busy = |case: &mut Case| {
        proven(case);
        case.targets[0].step = Step::Applied(NOW);
    };
    check(busy, begins(), "somebody is at work");
    let soaking = |case: &mut Case| {
        proven(case);
        case.strategy.waves[0].soak = Duration::from_secs(60);
    };
    check(soaking, begins(), "somebody soaks");
    let away = |case: &mut Case| {
        proven(case);
        case.targets[0].step = Step::Waiting;
        case.targets[0].online = false;
    };
    check(away, begins(), "1 of 4 offline");
    let mandatory = move |case: &mut Case| {
        away(case);
        case.strategy.offline.max_percent = 100;
        case.strategy.waves[0].mandatory = true;
    };
    check(mandatory, begins(), "a mandatory wave ends with 1 offline");
    let silent = |case: &mut Case| {
        case.strategy.offline.max_percent = 100;
        case.targets
            .iter_mut()
            .for_each(|target| target.online = false);
    };
    check(silent, begins(), "nobody is proven");
    let asks = |case: &mut Case| {
        proven(case);
        case.strategy.waves[1].approval = Some(Approval {
            required: 2,
            not_author: true,
        });
        case.run.approve(1, "ops");
        case.run.approve(1, "bob");
        case.run.approve(1, "bob");
    };
    check(asks, begins(), "without its approvals");
    check(proven, says(Event::Finished), "before a later wave");
    check(proven, says(Event::WaveStarted(0)), "begins again");
    let both = |case: &mut Case| case.run.wave = None;
    check(both, begins(), "before an earlier one");
}

#[test]
fn what_may_hold_a_run() {
    check(
        usual,
        says(Event::BudgetSpent(Action::Halt)),
        "but it is None",
    );
    check(
        failed,
        says(Event::BudgetSpent(Action::Pause)),
        "but it is Some(Rollback)",
    );
    check(failed, says(Event::RollbackImpossible), "without need");
    check(usual, says(Event::WaveOverdue), "overdue that is not");
    let forward = |case: &mut Case| {
        case.run.wave_started_at = ago(100_000);
        case.run.fast_forward = Some(0);
    };
    check(forward, says(Event::WaveOverdue), "overdue that is not");
    check(
        answered(Verdict::Fail, 1, 0),
        says(Event::GateFailed(Action::Halt)),
        "a gate is said",
    );
    let few = answered(Verdict::Inconclusive, 1, 0);
    check(
        few,
        says(Event::GateInconclusive),
        "no gate is inconclusive",
    );
    check(gated, offers(&[0]), "gate errors does not pass");
    check(
        answered(Verdict::Fail, 1, 0),
        offers(&[0]),
        "gate errors does not pass",
    );
    check(
        answered(Verdict::Pass, 1, 180),
        offers(&[0]),
        "gate errors does not pass",
    );
    let late = |case: &mut Case| case.targets[0].step = Step::Received(ago(1_000));
    check(
        late,
        |case| case.plan.timed_out.clear(),
        "is late: true, said: false",
    );
    let busy = |case: &mut Case| case.targets[0].step = Step::Received(ago(10));
    check(
        busy,
        |case| case.plan.wake_at = None,
        "nothing wakes the run",
    );
}

#[test]
fn the_end_forgets_nobody() {
    let end = |case: &mut Case| {
        case.run.wave = Some(1);
        case.targets
            .iter_mut()
            .for_each(|target| target.step = Step::Proven(ago(10)));
        case.targets[4].step = Step::Waiting;
        case.targets[4].online = false;
        case.strategy.offline.max_percent = 50;
    };
    check(
        end,
        |case| case.plan.offer.clear(),
        "misses it true, is offered it false",
    );
    let in_window = move |case: &mut Case| {
        end(case);
        case.strategy.offline.catch_up = super::super::strategy::CatchUp::InWindow;
        case.strategy.windows = vec![Window {
            cron: "0 22 * * *".to_owned(),
            duration: Duration::from_secs(14_400),
            zone: Zone::OfDeployment,
        }];
    };
    check(
        in_window,
        offers(&[4]),
        "misses it false, is offered it true",
    );
}

#[test]
fn the_way_back() {
    let tells = |indices: &'static [usize]| {
        move |case: &mut Case| case.plan.roll_back = indices.iter().map(|i| id(*i)).collect()
    };
    check(rollback, tells(&[0, 1, 2]), "3 go back at a time, 2 may");
    check(rollback, tells(&[5]), "is told to go back");
    let rate = |case: &mut Case| {
        rollback(case);
        case.strategy.rollback.max_per_minute = Some(1);
    };
    check(
        rate,
        tells(&[0, 1]),
        "2 are told to go back within a minute",
    );
    check(rollback, says(Event::RollbackFinished), "not everybody is");
    check(rollback, says(Event::RollbackFailed), "could still go back");
    let back = |case: &mut Case| {
        rollback(case);
        case.targets[..4]
            .iter_mut()
            .for_each(|t| t.step = Step::RolledBack(NOW));
    };
    check(back, says(Event::RollbackFailed), "everybody is back");
    let late = |case: &mut Case| {
        rollback(case);
        case.targets[0].step = Step::RollbackOffered(ago(10_000));
    };
    check(
        late,
        |case| case.plan.timed_out.clear(),
        "is late on its way back",
    );
    let going = |case: &mut Case| {
        rollback(case);
        case.targets[0].step = Step::RollbackOffered(NOW);
    };
    check(
        going,
        |case| case.plan.wake_at = None,
        "nothing wakes the run",
    );
}

#[test]
fn nothing_waits_without_a_reason() {
    let without = |about: About| {
        move |case: &mut Case| {
            case.plan
                .waiting_on
                .retain(|waiting| waiting.about != about)
        }
    };
    check(
        usual,
        without(About::Deployment(id(5))),
        "needs a reason: true, has one: false",
    );
    check(usual, without(About::Run), "has a reason");
    check(
        usual,
        without(About::Wave(1)),
        "wave 1 does not advance and has no reason",
    );
    let more = |about: About| {
        move |case: &mut Case| {
            let on = WaitingOn::NotStarted;
            case.plan.waiting_on.push(Waiting { about, on });
        }
    };
    check(usual, more(About::Run), "two reasons");
    let one = |case: &mut Case| case.targets[0].step = Step::Proven(ago(10));
    check(
        one,
        more(About::Deployment(id(0))),
        "needs a reason: false, has one: true",
    );
    check(usual, |case| case.plan.wake_at = Some(ago(1)), "wakes at");
    check(failed, |case| case.plan.wake_at = None, "wakes at");
}
