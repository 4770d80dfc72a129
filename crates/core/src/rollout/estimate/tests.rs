//! How long a run still takes, by hand.

use jiff::SignedDuration;

use super::*;
use crate::failure::FailureClass;
use crate::id::DeploymentId;
use crate::rollout::gate::{Gate, GateCheck, GateState};
use crate::rollout::run::{Approved, Run};
use crate::rollout::strategy::{
    Action, Amount, Approval, Ramp, Spread, Strategy, default_strategy,
};

const NOW: i64 = 1_000_000;

fn at(ago: i64) -> Timestamp {
    Timestamp::from_second(NOW - ago).unwrap()
}

/// `n` connected deployments of a wave at this step; what was proven took 2m 10s, and what is back 20 s.
fn some(n: usize, wave: usize, step: Step) -> Vec<Target> {
    let before = |moment: Timestamp, secs| moment - SignedDuration::from_secs(secs);
    let (mut offered_at, mut rollback_at) = (Some(at(300)), None);
    if let Step::Proven(proven) = step {
        offered_at = Some(before(proven, 130));
    }
    if let Step::RolledBack(back) = step {
        rollback_at = Some(before(back, 20));
    }
    if step == Step::Waiting {
        offered_at = None;
    }
    let one = Target {
        deployment: DeploymentId::new(uuid::Uuid::nil()),
        wave,
        group: None,
        offered_at,
        rollback_at,
        opening: Opening::Always,
        shut: Duration::ZERO,
        left: false,
        step,
        online: true,
        baseline_red: false,
        forgiven: false,
        can_roll_back: true,
    };
    vec![one; n]
}

fn proven(n: usize, wave: usize, ago: i64) -> Vec<Target> {
    some(n, wave, Step::Proven(at(ago)))
}

fn waiting(n: usize, wave: usize) -> Vec<Target> {
    some(n, wave, Step::Waiting)
}

/// A run in its second wave: 4 at a time, 10 minutes of soak.
struct World {
    strategy: Strategy,
    run: Run,
    targets: Vec<Target>,
    andon: bool,
}

impl World {
    fn new() -> Self {
        let mut strategy = default_strategy("test".parse().unwrap());
        for wave in &mut strategy.waves {
            wave.concurrency = Amount::Count(4);
        }
        strategy.waves.truncate(2);
        strategy.waves[1].sample = None;
        let mut run = Run::new("ann", at(9_000));
        (run.phase, run.wave) = (Phase::Progressing, Some(1));
        Self {
            strategy,
            run,
            targets: [proven(1, 0, 2_000), proven(11, 1, 60), waiting(40, 1)].concat(),
            andon: false,
        }
    }

    fn said(&self) -> String {
        let input = PlanInput {
            now: at(0),
            andon: self.andon.then_some("ann stopped it"),
            strategy: &self.strategy,
            run: &self.run,
            targets: &self.targets,
        };
        estimate(&input).to_string()
    }
}

fn gate() -> Gate {
    Gate {
        name: "errors".to_owned(),
        check: GateCheck::Http {
            url: "https://h".parse().unwrap(),
        },
        interval: Duration::from_secs(60),
        action: Action::Pause,
        fail_after: 1,
        inconclusive_after: 1,
    }
}

fn gate_state(verdict: Verdict) -> GateState {
    GateState::after(None, &gate(), verdict, String::new(), at(5))
}

type Change = fn(&mut World);

const CASES: &[(Change, &str)] = &[
    // Ten rounds of 2m 10s, and the soak.
    (
        |_| {},
        "about 32m: 40 of 52 deployments left, 4 at a time, 2m 10s each, and 10m of soak",
    ),
    (
        |w| w.targets = [proven(1, 0, 2_000), proven(11, 1, 60)].concat(),
        "about 9m: 0 of 12 deployments left, and 9m of soak",
    ),
    // A failure is not waited for.
    (
        |w| {
            w.targets = [
                proven(1, 1, 900),
                some(3, 1, Step::Failed(at(1), FailureClass::Auth)),
            ]
            .concat()
        },
        "about 0s: 0 of 4 deployments left",
    ),
    // Who left counts for nothing.
    (
        |w| w.targets.iter_mut().skip(12).for_each(|t| t.left = true),
        "about 9m: 0 of 12 deployments left, and 9m of soak",
    ),
    // The first wave is running: both are ahead, each with its soak.
    (
        |w| {
            w.run.wave = Some(0);
            w.strategy.waves[0].strict = true;
            w.targets = [proven(1, 0, 60), waiting(3, 0), waiting(8, 1)].concat();
        },
        "about 31m: 11 of 12 deployments left, 1 to 4 at a time, 2m 10s each, and 20m of soak",
    ),
    // One at a time, two, four, four: the eleven proven ones brought the ramp to its end.
    (
        |w| {
            w.strategy.ramp = Some(Ramp {
                start: 1,
                factor_percent: 200,
            });
            w.targets = [proven(1, 0, 60), proven(1, 1, 60), waiting(7, 1)].concat();
        },
        "about 17m: 7 of 9 deployments left, 4 at a time, 2m 10s each, and 10m of soak",
    ),
    (
        |w| w.strategy.max_per_minute = Some(1),
        "about 52m: 40 of 52 deployments left, 4 at a time, 2m 10s each, and 10m of soak",
    ),
    (
        |w| {
            let label = "region".to_owned();
            w.strategy.waves[1].spread = Some(Spread { label, max: 2 });
        },
        "about 54m: 40 of 52 deployments left, 2 at a time, 2m 10s each, and 10m of soak",
    ),
    (
        |w| w.targets = waiting(5, 1),
        "nobody can tell: nothing has been proven yet",
    ),
    (|w| w.andon = true, "nobody can tell: andon is on"),
    (
        |w| w.run.phase = Phase::Pending,
        "nobody can tell: the rollout has not started",
    ),
    (
        |w| w.run.phase = Phase::Halted,
        "nobody can tell: the rollout is HALTED: an operator decides",
    ),
    (
        |w| w.run.phase = Phase::Completed,
        "nobody can tell: the rollout has ended",
    ),
    (
        |w| w.targets.iter_mut().skip(30).for_each(|t| t.online = false),
        "nobody can tell: 22 of 51 deployments in wave \"early\" are away",
    ),
    (
        |w| {
            w.strategy.waves[1].mandatory = true;
            w.targets[20].online = false;
        },
        "nobody can tell: 1 of 51 deployments in wave \"early\" are away",
    ),
    (
        |w| {
            w.targets.iter_mut().skip(30).for_each(|t| t.online = false);
            w.run.fast_forward = Some(1);
        },
        "about 21m: 18 of 52 deployments left, 4 at a time, 2m 10s each, and 10m of soak",
    ),
    (
        |w| w.strategy.gates = vec![gate()],
        "nobody can tell: gate \"errors\" does not pass now",
    ),
    (
        |w| {
            w.strategy.gates = vec![gate()];
            w.run.gates = vec![gate_state(Verdict::Fail)];
        },
        "nobody can tell: gate \"errors\" does not pass now",
    ),
    (
        |w| {
            w.strategy.gates = vec![gate()];
            w.run.gates = vec![gate_state(Verdict::Pass)];
        },
        "about 32m: 40 of 52 deployments left, 4 at a time, 2m 10s each, and 10m of soak",
    ),
    (
        |w| {
            w.run.wave = Some(0);
            w.run.approvals = ["ann", "bob"]
                .map(|name| Approved {
                    wave: 1,
                    principal: name.to_owned(),
                })
                .into();
            w.strategy.waves[1].approval = Some(Approval {
                required: 2,
                not_author: true,
            });
        },
        "nobody can tell: wave \"early\" needs 2 approvals and has 1",
    ),
    (
        |w| {
            let closed = Opening::Closed {
                opens: None,
                blackout: None,
            };
            w.targets[40].opening = closed;
        },
        "nobody can tell: 1 deployment waits for its maintenance window",
    ),
    (
        |w| w.targets[40].opening = Opening::Open { until: at(-60) },
        "nobody can tell: a maintenance window closes before the end",
    ),
    (
        |w| w.run.phase = Phase::RollingBack,
        "nobody can tell: nothing has gone back yet",
    ),
    (
        |w| {
            w.run.phase = Phase::RollingBack;
            let back = some(2, 1, Step::RolledBack(at(10)));
            w.targets = [
                back,
                some(8, 1, Step::RollbackOffered(at(5))),
                some(3, 1, Step::RollbackFailed(at(5), FailureClass::Timeout)),
                waiting(5, 1),
            ]
            .concat();
        },
        "about 40s: 8 of 13 deployments are on their way back, 6 at a time, 20s each",
    ),
];

#[test]
fn an_estimate_says_what_it_rests_on() {
    for (change, says) in CASES {
        let mut world = World::new();
        change(&mut world);
        assert_eq!(world.said(), *says);
    }
}
