//! States that no shell produces and no clock shows: `plan` is total, so it answers all the same, and breaks no invariant.

#![cfg(test)]

use keyfleet_core::Timestamp;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::DeploymentId;
use keyfleet_core::rollout::{
    Approval, Opening, Phase, PlanInput, Ramp, Run, Spread, Step, Target, default_strategy,
    invariants, plan,
};
use proptest::prelude::*;

/// The id of the deployment with this index; ids are in the order of indices.
fn id(index: usize) -> DeploymentId {
    DeploymentId::new(uuid::Uuid::from_u128(index as u128 + 1))
}

/// Any moment, the ends of time among them.
fn moment() -> impl Strategy<Value = Timestamp> {
    let second = Timestamp::MIN.as_second()..=Timestamp::MAX.as_second();
    let near = 0..7_200_i64;
    prop_oneof![
        1 => Just(Timestamp::MIN),
        1 => Just(Timestamp::MAX),
        6 => near.prop_map(|second| Timestamp::from_second(second).unwrap()),
        1 => second.prop_map(|second| Timestamp::from_second(second).unwrap()),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    (0..9, moment(), 0..FailureClass::ALL.len()).prop_map(|(kind, at, class)| {
        let class = FailureClass::ALL[class];
        match kind {
            0 => Step::Waiting,
            1 => Step::Offered(at),
            2 => Step::Received(at),
            3 => Step::Applied(at),
            4 => Step::Proven(at),
            5 => Step::Failed(at, class),
            6 => Step::RollbackOffered(at),
            7 => Step::RolledBack(at),
            _ => Step::RollbackFailed(at, class),
        }
    })
}

fn opening() -> impl Strategy<Value = Opening> {
    prop_oneof![
        2 => Just(Opening::Always),
        1 => moment().prop_map(|until| Opening::Open { until }),
        1 => prop::option::of(moment()).prop_map(|opens| Opening::Closed { opens, blackout: None }),
    ]
}

fn target() -> impl Strategy<Value = Target> {
    let moments = [(); 2].map(|()| prop::option::of(moment()));
    (step(), 0..5_usize, any::<[bool; 6]>(), moments, opening()).prop_map(
        |(step, wave, flags, [offered_at, rollback_at], opening)| Target {
            deployment: id(0),
            wave,
            group: flags[4].then(|| "same".into()),
            offered_at,
            rollback_at,
            opening,
            shut: std::time::Duration::ZERO,
            left: flags[5],
            step,
            online: flags[0],
            baseline_red: flags[1],
            forgiven: flags[2],
            can_roll_back: flags[3],
        },
    )
}

fn run() -> impl Strategy<Value = Run> {
    let wave = || prop::option::of(0..5_usize);
    let agreed = prop::collection::vec((0..3_usize, 0..3_usize), 0..6);
    (0..Phase::ALL.len(), wave(), moment(), wave(), agreed).prop_map(
        |(phase, wave, wave_started_at, fast_forward, agreed)| {
            let mut run = Run {
                phase: Phase::ALL[phase],
                wave,
                fast_forward,
                ..Run::new("ops", wave_started_at)
            };
            for (wave, who) in agreed {
                run.approve(wave, ["ops", "bob", "carol"][who]);
            }
            run
        },
    )
}

/// A strategy of up to three waves with some of the rules that hold things back.
fn strategy() -> impl Strategy<Value = keyfleet_core::rollout::Strategy> {
    (0..=3_usize, any::<[bool; 6]>()).prop_map(|(waves, rules)| {
        let mut strategy = default_strategy("total".parse().unwrap());
        strategy.waves.truncate(waves);
        strategy.max_per_minute = rules[0].then_some(2);
        strategy.rollback.max_per_minute = rules[1].then_some(2);
        strategy.ramp = rules[2].then_some(Ramp {
            start: 1,
            factor_percent: 200,
        });
        for wave in &mut strategy.waves {
            wave.mandatory = rules[3];
            wave.approval = rules[4].then_some(Approval {
                required: 2,
                not_author: true,
            });
            wave.spread = rules[5].then(|| Spread {
                label: "region".to_owned(),
                max: 1,
            });
        }
        strategy
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_state_has_a_plan_that_breaks_no_invariant(
        (mut run, now, andon) in (run(), moment(), any::<bool>()),
        mut targets in prop::collection::vec(target(), 0..12),
        strategy in strategy(),
    ) {
        for (index, target) in targets.iter_mut().enumerate() {
            target.deployment = id(index);
        }
        // Rows name waves that the frozen strategy has.
        let exists = |wave: &usize| *wave < strategy.waves.len();
        run.wave = run.wave.filter(exists);
        run.fast_forward = run.fast_forward.filter(exists);
        let input = PlanInput { now, andon: andon.then_some("ops"), strategy: &strategy, run: &run, targets: &targets };
        let made = plan(&input);
        prop_assert_eq!(&made, &plan(&input), "not deterministic");
        // At the end of time no later moment is left to wake at.
        let is_last = now.as_second() > Timestamp::MAX.as_second() / 2;
        let found = if is_last { Vec::new() } else { invariants::violations(&input, &made) };
        prop_assert!(found.is_empty(), "{:#?}\nof {:#?}", found, made);
    }
}
