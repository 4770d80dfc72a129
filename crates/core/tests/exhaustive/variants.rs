//! The small worlds. Each prints how many states it has.

use keyfleet_core::failure::FailureClass;
use keyfleet_core::rollout::{
    Action, Amount, Approval, Budget, Deadlines, Gate, GateCheck, Per, Phase, Ramp, Rollback,
    Sample, Spread, Strategy, Wave, default_strategy,
};

use crate::explore::explore;
use crate::model::Model;
use crate::state::{UNIT, WAVE_UNITS};

/// A deadline that no state is old enough for: where people or gates are waited for, it would need to look further back
/// than states do.
const NEVER: std::time::Duration = std::time::Duration::from_secs(86_400);

/// A strict canary that soaks, then two deployments at a time.
fn strategy() -> Strategy {
    let mut strategy = default_strategy("small".parse().unwrap());
    let wave = |name: &str, sample, strict, soak| Wave {
        name: name.to_owned(),
        selector: Default::default(),
        sample,
        concurrency: Amount::Count(2),
        spread: None,
        strict,
        mandatory: false,
        soak,
        approval: None,
    };
    let one = Sample {
        amount: Amount::Count(1),
        spread: None,
        min_matching: 0,
    };
    strategy.waves = vec![
        wave("canary", Some(one), true, UNIT),
        wave("rest", None, false, std::time::Duration::ZERO),
    ];
    strategy.deadlines = Deadlines {
        ack: UNIT,
        apply: UNIT,
        prove: UNIT,
        wave: UNIT * WAVE_UNITS,
    };
    let budget = |class, action| Budget {
        class,
        per: Per::Wave,
        max: Amount::Count(0),
        min_sample: 1,
        action,
    };
    strategy.budgets = vec![
        budget(Some(FailureClass::Auth), Action::Rollback),
        budget(None, Action::Pause),
    ];
    strategy.offline.max_percent = 50;
    strategy.rollback = Rollback {
        concurrency: Amount::Count(1),
        max_per_minute: None,
        deadline: Some(UNIT),
    };
    strategy
}

/// Nobody comes or goes, and every live call may fail.
fn model() -> Model {
    Model {
        strategy: strategy(),
        travellers: Vec::new(),
        failures: vec![FailureClass::Auth, FailureClass::Network],
        broken: Vec::new(),
        leaver: None,
        andon: false,
        rollback_fails: false,
    }
}

/// Explores it; the number of states must be within bounds, so that a model that went blind is noticed.
#[expect(
    clippy::print_stdout,
    reason = "how much was looked at is part of the result"
)]
fn check(name: &str, model: &Model, ends: &[Phase]) {
    let explored = explore(model);
    println!(
        "{name}: {} states, {} transitions, {:?}",
        explored.states, explored.transitions, explored.phases
    );
    for end in ends {
        assert!(explored.phases.contains_key(end), "{name} never is {end}");
    }
    assert!(
        (1_000..400_000).contains(&explored.states),
        "{name}: {}",
        explored.states
    );
}

const EVERY_END: [Phase; 3] = [Phase::Completed, Phase::RolledBack, Phase::Aborted];

#[test]
fn failures_of_every_kind() {
    check("failures", &model(), &EVERY_END);
}

#[test]
fn deployments_that_come_and_go() {
    let mut model = model();
    model.travellers = vec![0, 1];
    model.failures = vec![FailureClass::Network];
    check("absences", &model, &EVERY_END);
}

#[test]
fn a_mandatory_canary_that_may_be_away() {
    let mut model = model();
    model.travellers = vec![0, 2];
    model.failures.clear();
    model.strategy.waves[0].mandatory = true;
    check("mandatory", &model, &EVERY_END);
}

#[test]
fn people_who_agree_late_or_never() {
    let mut model = model();
    model.failures = vec![FailureClass::Network];
    model.strategy.waves[1].approval = Some(Approval {
        required: 2,
        not_author: true,
    });
    model.strategy.deadlines.wave = NEVER;
    check("approvals", &model, &EVERY_END);
}

#[test]
fn a_gate_that_answers_as_it_likes() {
    let mut model = model();
    model.failures.clear();
    model.strategy.gates = vec![Gate {
        name: "errors".to_owned(),
        check: GateCheck::Http {
            url: "https://gate.example/".parse().unwrap(),
        },
        interval: UNIT,
        action: Action::Halt,
        fail_after: 2,
        inconclusive_after: 1,
    }];
    model.strategy.deadlines.wave = NEVER;
    check("gates", &model, &EVERY_END);
}

#[test]
fn a_stop_of_the_whole_fleet_and_rollbacks_that_fail() {
    let mut model = model();
    model.andon = true;
    model.rollback_fails = true;
    model.failures = vec![FailureClass::Auth];
    check("andon", &model, &EVERY_END);
}

#[test]
fn a_ramp_a_rate_and_a_spread() {
    let mut model = model();
    model.failures = vec![FailureClass::Network];
    model.strategy.ramp = Some(Ramp {
        start: 1,
        factor_percent: 200,
    });
    model.strategy.max_per_minute = Some(1);
    model.strategy.rollback.max_per_minute = Some(1);
    model.strategy.waves[1].spread = Some(Spread {
        label: "region".to_owned(),
        max: 1,
    });
    check("pace", &model, &EVERY_END);
}

#[test]
fn one_that_leaves_and_one_that_was_broken_before() {
    let mut model = model();
    model.leaver = Some(1);
    model.broken = vec![2];
    model.travellers = vec![1];
    model.failures = vec![FailureClass::Network];
    check("leaver", &model, &EVERY_END);
}

#[test]
fn a_canary_that_was_broken_before() {
    let mut model = model();
    model.broken = vec![0];
    model.rollback_fails = true;
    check("broken canary", &model, &EVERY_END);
}
