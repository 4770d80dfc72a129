//! The strategy that nobody has to write.

use std::time::Duration;

use super::{
    Action, Amount, Budget, CatchUp, Deadlines, Offline, Per, Rollback, Sample, Strategy, Wave,
};
use crate::failure::FailureClass;
use crate::fleet::Selector;
use crate::id::StrategyName;

/// The strategy of placements that name none: one strict canary, then a tenth of the fleet at a time.
///
/// A key that the provider refuses rolls back at once; trouble that is not the change's own
/// (quota, rate limits) pauses; everything else halts above a tenth of a wave.
pub fn default_strategy(name: StrategyName) -> Strategy {
    Strategy {
        name,
        waves: waves(),
        ramp: None,
        max_per_minute: None,
        deadlines: Deadlines {
            ack: Duration::from_secs(30),
            apply: minutes(2),
            prove: minutes(3),
            wave: minutes(120),
        },
        budgets: budgets(),
        offline: Offline {
            max_percent: 20,
            catch_up: CatchUp::Immediate,
        },
        windows: Vec::new(),
        blackouts: Vec::new(),
        gates: Vec::new(),
        rollback: Rollback {
            concurrency: Amount::Percent(50),
            max_per_minute: None,
            deadline: None,
        },
    }
}

fn waves() -> Vec<Wave> {
    let wave = |name: &str, sample: Option<Amount>, concurrency, strict, soak| Wave {
        name: name.to_owned(),
        selector: Selector::default(),
        sample: sample.map(|amount| Sample {
            amount,
            spread: None,
            min_matching: 0,
        }),
        concurrency,
        spread: None,
        strict,
        mandatory: false,
        soak,
        approval: None,
    };
    let (canary, early) = (Amount::Count(1), Amount::Percent(10));
    vec![
        wave("canary", Some(canary), Amount::Count(1), true, minutes(10)),
        wave(
            "early",
            Some(early),
            Amount::Percent(25),
            false,
            minutes(10),
        ),
        wave("fleet", None, Amount::Percent(10), false, Duration::ZERO),
    ]
}

fn budgets() -> Vec<Budget> {
    let budget = |class, max, min_sample, action| Budget {
        class,
        per: Per::Wave,
        max,
        min_sample,
        action,
    };
    let (few, tenth) = (Amount::Percent(5), Amount::Percent(10));
    vec![
        budget(
            Some(FailureClass::Auth),
            Amount::Count(0),
            1,
            Action::Rollback,
        ),
        budget(Some(FailureClass::Quota), few, 20, Action::Pause),
        budget(Some(FailureClass::RateLimit), few, 20, Action::Pause),
        budget(None, tenth, 10, Action::Halt),
    ]
}

fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}
