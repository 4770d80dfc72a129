//! Strategies drawn at random: each feature now and then, small numbers.

use std::time::Duration;

use keyfleet_core::failure::FailureClass;
use keyfleet_core::fleet::{Labels, Selector};
use keyfleet_core::rollout::{
    Action, Amount, Approval, Blackout, Budget, CatchUp, Deadlines, Gate, GateCheck, Offline, Per,
    Ramp, Rollback, Sample, Spread, Strategy, Wave, Window, Zone,
};

use crate::simulate::random::Random;
use crate::simulate::small::monday;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn small(random: &mut Random) -> u32 {
    u32::try_from(1 + random.below(3)).unwrap()
}

pub(super) fn draw(random: &mut Random) -> Strategy {
    let mut waves = Vec::new();
    if random.chance(7_000) {
        let mut canary = wave(random, "canary");
        canary.strict = random.chance(7_000);
        canary.selector =
            Selector::from_labels(&Labels::from([("tier".to_owned(), "canary".to_owned())]));
        waves.push(canary);
    }
    if random.chance(4_000) {
        let mut early = wave(random, "early");
        early.sample = Some(Sample {
            amount: Amount::Count(small(random)),
            spread: random.chance(5_000).then(|| "region".to_owned()),
            min_matching: 0,
        });
        waves.push(early);
    }
    waves.push(wave(random, "fleet"));
    let ramp = Ramp {
        start: 1,
        factor_percent: 200,
    };
    let (windows, catch_up) = match random.below(10) {
        0 => (vec![window(random)], CatchUp::InWindow),
        1 => (vec![window(random)], CatchUp::Immediate),
        _ => (Vec::new(), CatchUp::Immediate),
    };
    // A gate that is asked through a whole day without change would tell nothing but that.
    let (blackouts, gates) = match random.below(200) {
        0..4 => (vec![today()], Vec::new()),
        4..34 => (Vec::new(), vec![gate(random)]),
        _ => (Vec::new(), Vec::new()),
    };
    Strategy {
        name: "default".parse().unwrap(),
        waves,
        ramp: random.chance(3_000).then_some(ramp),
        max_per_minute: random.chance(2_000).then(|| small(random)),
        deadlines: Deadlines {
            ack: secs(20),
            apply: secs(60),
            prove: secs(60),
            wave: secs(1_200 + random.below(3_600)),
        },
        budgets: budgets(random),
        offline: Offline {
            max_percent: random.pick(&[0, 30, 100]).unwrap_or(100),
            catch_up,
        },
        windows,
        blackouts,
        gates,
        rollback: Rollback {
            concurrency: Amount::Count(small(random)),
            max_per_minute: random.chance(2_000).then(|| small(random)),
            deadline: random.chance(3_000).then(|| secs(120)),
        },
    }
}

fn wave(random: &mut Random, name: &str) -> Wave {
    let spread = Spread {
        label: "region".to_owned(),
        max: 1,
    };
    let approval = Approval {
        required: u32::try_from(1 + random.below(2)).unwrap(),
        not_author: random.chance(5_000),
    };
    Wave {
        name: name.to_owned(),
        selector: Selector::default(),
        sample: None,
        concurrency: match random.chance(5_000) {
            true => Amount::Count(small(random)),
            false => Amount::Percent(50),
        },
        spread: random.chance(2_000).then_some(spread),
        strict: random.chance(2_500),
        mandatory: random.chance(1_500),
        soak: secs(random.pick(&[0, 0, 20, 90]).unwrap_or(0)),
        approval: random.chance(1_000).then_some(approval),
    }
}

/// A quarter of the time, or less.
fn window(random: &mut Random) -> Window {
    Window {
        cron: "*/20 * * * *".to_owned(),
        duration: secs(150 + random.below(150)),
        zone: match random.chance(5_000) {
            true => Zone::OfDeployment,
            false => Zone::Named("Asia/Kolkata".to_owned()),
        },
    }
}

/// The day on which everything happens, so that nothing does.
fn today() -> Blackout {
    let day = jiff::tz::Offset::UTC.to_datetime(monday()).date();
    Blackout {
        from: day,
        until: day,
        reason: "stocktaking".to_owned(),
    }
}

fn gate(random: &mut Random) -> Gate {
    Gate {
        name: "errors".to_owned(),
        check: GateCheck::Http {
            url: "https://gate.example/".parse().unwrap(),
        },
        interval: secs(20),
        action: random
            .pick(&[Action::Pause, Action::Halt, Action::Rollback])
            .unwrap_or(Action::Pause),
        fail_after: small(random),
        inconclusive_after: small(random),
    }
}

fn budgets(random: &mut Random) -> Vec<Budget> {
    let mut budgets = Vec::new();
    let mut add = |random: &mut Random, class: Option<FailureClass>| {
        let max = u32::try_from(random.below(3)).unwrap();
        budgets.push(Budget {
            class,
            per: random.pick(&[Per::Wave, Per::Run]).unwrap_or(Per::Wave),
            max: if random.chance(5_000) {
                Amount::Count(max)
            } else {
                Amount::Percent(34)
            },
            min_sample: u32::try_from(random.below(4)).unwrap(),
            action: random.pick(&Action::ALL).unwrap_or(Action::Halt),
        });
    };
    if random.chance(6_000) {
        add(random, Some(FailureClass::Auth));
    }
    if random.chance(3_000) {
        add(random, Some(FailureClass::Quota));
    }
    if random.chance(8_000) {
        add(random, None);
    }
    budgets
}
