//! States that no shell produces and no clock shows: `plan` is total, so it answers all the same.

use keyfleet_core::Timestamp;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::rollout::{Phase, PlanInput, Run, Step, Target, default_strategy, plan};
use proptest::prelude::*;

use crate::world::id;

/// Any moment, the ends of time among them.
fn moment() -> impl Strategy<Value = Timestamp> {
    let second = Timestamp::MIN.as_second()..=Timestamp::MAX.as_second();
    let near = 0..7_200_i64;
    prop_oneof![
        Just(Timestamp::MIN),
        Just(Timestamp::MAX),
        near.prop_map(|second| Timestamp::from_second(second).unwrap()),
        second.prop_map(|second| Timestamp::from_second(second).unwrap()),
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

fn target() -> impl Strategy<Value = Target> {
    (step(), 0..5_usize, any::<[bool; 4]>()).prop_map(|(step, wave, flags)| Target {
        deployment: id(0),
        wave,
        step,
        online: flags[0],
        baseline_red: flags[1],
        forgiven: flags[2],
        can_roll_back: flags[3],
    })
}

fn run() -> impl Strategy<Value = Run> {
    (0..Phase::ALL.len(), 0..5_usize, moment()).prop_map(|(phase, wave, wave_started_at)| Run {
        phase: Phase::ALL[phase],
        wave,
        wave_started_at,
        hold_reason: String::new(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_state_has_a_plan_whose_events_are_legal(
        (run, now, andon) in (run(), moment(), any::<bool>()),
        mut targets in prop::collection::vec(target(), 0..12),
        waves in 0..=3_usize,
    ) {
        for (index, target) in targets.iter_mut().enumerate() {
            target.deployment = id(index);
        }
        let mut strategy = default_strategy("total".parse().unwrap());
        strategy.waves.truncate(waves);
        let input = PlanInput { now, andon: andon.then_some("ops"), strategy: &strategy, run: &run, targets: &targets };
        let made = plan(&input);
        prop_assert_eq!(&made, &plan(&input));
        let mut phase = run.phase;
        for (event, _) in &made.events {
            phase = phase.next(*event).unwrap();
        }
        let reasons = made.waiting_on.iter().filter(|waiting| waiting.deployment.is_some());
        prop_assert!(reasons.count() <= targets.len());
        for waiting in &made.waiting_on {
            prop_assert!(!waiting.on.to_string().is_empty());
        }
    }
}
