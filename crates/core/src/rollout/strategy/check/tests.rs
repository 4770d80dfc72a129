//! Each contradiction, and what is said of it.

use std::time::Duration;

use jiff::civil::date;

use crate::failure::FailureClass;
use crate::fleet::{Labels, Selector};
use crate::rollout::gate::{Gate, GateCheck};
use crate::rollout::strategy::{
    Action, Amount, Approval, Blackout, Budget, CatchUp, Per, Ramp, Sample, Spread, Strategy,
    Window, Zone, default_strategy,
};

type Change = fn(&mut Strategy);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn selector(value: &str) -> Selector {
    Selector::from_labels(&Labels::from([("tier".to_owned(), value.to_owned())]))
}

fn window(duration: u64) -> Window {
    Window {
        cron: "0 22 * * 1-4".to_owned(),
        duration: secs(duration),
        zone: Zone::OfDeployment,
    }
}

fn http(url: &str) -> Gate {
    Gate {
        name: "open".to_owned(),
        check: GateCheck::Http {
            url: url.parse().unwrap(),
        },
        interval: secs(60),
        action: Action::Pause,
        fail_after: 1,
        inconclusive_after: 3,
    }
}

fn prometheus(url: &str, query: &str) -> Gate {
    Gate {
        check: GateCheck::Prometheus {
            url: url.parse().unwrap(),
            query: query.to_owned(),
            fail_if: "> 0.02".parse().unwrap(),
        },
        ..http("https://h")
    }
}

fn gate(s: &mut Strategy, change: fn(&mut Gate)) {
    let mut gate = http("https://gates.example.com/go");
    change(&mut gate);
    s.gates = vec![gate];
}

fn sample(amount: Amount, spread: &str) -> Option<Sample> {
    Some(Sample {
        amount,
        spread: (!spread.is_empty()).then(|| spread.to_owned()),
        min_matching: 0,
    })
}

fn spread(label: &str, max: u32) -> Option<Spread> {
    let label = label.to_owned();
    Some(Spread { label, max })
}

/// What is changed in the built-in default, the field that is wrong then, and a part of what is said of it.
const CONTRADICTIONS: &[(Change, &str, &str)] = &[
    (|s| s.waves.clear(), "waves", "at least one wave"),
    (
        |s| s.waves[1].name = " ".to_owned(),
        "waves[1].name",
        "needs a name",
    ),
    (
        |s| s.waves[1].name = "canary".to_owned(),
        "waves[1].name",
        "another wave is called \"canary\": rename one",
    ),
    (
        |s| s.waves[0].concurrency = Amount::Count(0),
        "waves[0].concurrency",
        "at least 1",
    ),
    (
        |s| s.waves[0].concurrency = Amount::Percent(101),
        "waves[0].concurrency",
        "0% to 100%",
    ),
    (
        |s| s.waves[1].sample = sample(Amount::Percent(0), ""),
        "waves[1].sample",
        "at least 1",
    ),
    (
        |s| s.waves[1].sample = sample(Amount::Count(1), "a b"),
        "waves[1].sample.spread",
        "is not a label",
    ),
    (
        |s| s.waves[2].sample = sample(Amount::Count(1), ""),
        "waves[2].sample",
        "takes all that is left",
    ),
    (
        |s| s.waves[0].sample = None,
        "waves[1].select",
        "takes nobody, because wave \"canary\" before it takes all",
    ),
    (
        |s| s.waves[1].sample = None,
        "waves[2].select",
        "takes nobody",
    ),
    (
        |s| {
            s.waves[0].sample = None;
            s.waves[0].selector = selector("x");
            s.waves[1].selector = selector("x");
        },
        "waves[1].select",
        "takes nobody",
    ),
    (
        |s| s.waves[1].spread = spread("", 1),
        "waves[1].spread.label",
        "is not a label",
    ),
    (
        |s| s.waves[1].spread = spread("region", 0),
        "waves[1].spread.max",
        "at least 1",
    ),
    (
        |s| s.waves[0].spread = spread("region", 2),
        "waves[0].spread.max",
        "allows 1 at a time: use at most 1",
    ),
    (
        |s| s.waves[0].soak = secs(7_200),
        "waves[0].soak",
        "no shorter than deadlines.wave (2h)",
    ),
    (
        |s| s.waves[0].soak = secs(7_000),
        "waves[0].soak",
        "(5m 30s: the deadlines ack, apply and prove together)",
    ),
    (
        |s| {
            s.waves[0].approval = Some(Approval {
                required: 0,
                not_author: true,
            })
        },
        "waves[0].approval.required",
        "nobody has to agree",
    ),
    (
        |s| {
            s.waves[0].approval = Some(Approval {
                required: 21,
                not_author: false,
            })
        },
        "waves[0].approval.required",
        "at most 20",
    ),
    (
        |s| s.deadlines.ack = secs(0),
        "deadlines.ack",
        "at least 1s",
    ),
    (
        |s| s.deadlines.apply = secs(86_400 * 400),
        "deadlines.apply",
        "is longer than 366d",
    ),
    (
        |s| s.deadlines.wave = secs(330),
        "deadlines.wave",
        "no longer than what one deployment may take (5m 30s",
    ),
    (
        |s| {
            s.ramp = Some(Ramp {
                start: 0,
                factor_percent: 200,
            })
        },
        "ramp.start",
        "at least 1",
    ),
    (
        |s| {
            s.ramp = Some(Ramp {
                start: 1,
                factor_percent: 149,
            })
        },
        "ramp.factor",
        "1.5 to 5",
    ),
    (
        |s| {
            for wave in &mut s.waves {
                wave.concurrency = Amount::Count(4);
            }
            s.ramp = Some(Ramp {
                start: 5,
                factor_percent: 200,
            });
        },
        "ramp.start",
        "is 5, and no wave allows more than 4",
    ),
    (|s| s.max_per_minute = Some(0), "maxPerMinute", "at least 1"),
    (
        |s| s.budgets.push(s.budgets[0]),
        "budgets[4].class",
        "budgets[0] counts the same failures per wave",
    ),
    (
        |s| s.budgets[0].max = Amount::Percent(101),
        "budgets[0].max",
        "0% to 100%",
    ),
    (
        |s| {
            s.waves[1].sample = sample(Amount::Count(25), "");
            s.budgets[1].min_sample = 26;
        },
        "budgets[1].minSample",
        "wave \"early\" has 25 deployments",
    ),
    (
        |s| s.offline.max_percent = 101,
        "offline.maxPercent",
        "0 to 100",
    ),
    (
        |s| s.windows = vec![window(330)],
        "windows[0].duration",
        "5m 30s is no longer than what one deployment may take (5m 30s",
    ),
    (
        |s| {
            let half = Duration::from_millis(500);
            s.windows = vec![window(3_600)];
            s.windows[0].duration += half;
        },
        "windows[0].duration",
        "whole seconds",
    ),
    (
        |s| s.windows = vec![window(3_600), window(7_200)],
        "windows[1].cron",
        "opens when windows[0] does",
    ),
    (
        |s| s.offline.catch_up = CatchUp::InWindow,
        "offline.catchUp",
        "has no windows: add some",
    ),
    (
        |s| {
            s.blackouts = vec![Blackout {
                from: date(2026, 12, 26),
                until: date(2026, 12, 24),
                reason: String::new(),
            }]
        },
        "blackouts[0].until",
        "2026-12-24 is before 2026-12-26",
    ),
    (
        |s| gate(s, |g| g.name.clear()),
        "gates[0].name",
        "needs a name",
    ),
    (
        |s| s.gates = vec![http("https://a"), http("https://b")],
        "gates[1].name",
        "another gate is called \"open\"",
    ),
    (
        |s| s.gates = vec![http("ftp://a")],
        "gates[0].http.url",
        "http:// or https://",
    ),
    (
        |s| s.gates = vec![http("https://me:secret@a")],
        "gates[0].http.url",
        "holds a user or a password",
    ),
    (
        |s| s.gates = vec![prometheus("https://a/api/v1/query", "up")],
        "gates[0].prometheus.url",
        "name the server alone",
    ),
    (
        |s| s.gates = vec![prometheus("https://a", " ")],
        "gates[0].prometheus.query",
        "asks nothing",
    ),
    (
        |s| gate(s, |g| g.interval = secs(9)),
        "gates[0].interval",
        "at least 10s",
    ),
    (
        |s| gate(s, |g| g.interval += Duration::from_millis(1)),
        "gates[0].interval",
        "whole seconds",
    ),
    (
        |s| gate(s, |g| g.action = Action::Continue),
        "gates[0].action",
        "holds nothing",
    ),
    (
        |s| gate(s, |g| g.fail_after = 0),
        "gates[0].failAfter",
        "at least 1",
    ),
    (
        |s| gate(s, |g| g.inconclusive_after = 0),
        "gates[0].inconclusiveAfter",
        "at least 1",
    ),
    (
        |s| s.rollback.concurrency = Amount::Percent(0),
        "rollback.concurrency",
        "at least 1",
    ),
    (
        |s| s.rollback.max_per_minute = Some(0),
        "rollback.maxPerMinute",
        "at least 1",
    ),
    (
        |s| s.rollback.deadline = Some(Duration::ZERO),
        "rollback.deadline",
        "at least 1s",
    ),
];

/// What looks much like one of them, and is none.
const NO_CONTRADICTIONS: &[Change] = &[
    |_| {},
    // A last wave that selects less still gets what nobody took.
    |s| {
        s.waves[1].sample = None;
        s.waves[1].selector = selector("x");
        s.waves[2].selector = selector("x");
    },
    // Some wave lets the ramp begin.
    |s| {
        s.ramp = Some(Ramp {
            start: 5,
            factor_percent: 500,
        })
    },
    |s| {
        s.budgets.push(Budget {
            class: Some(FailureClass::Auth),
            per: Per::Run,
            ..s.budgets[0]
        })
    },
    // Few deployments are looked at at once, and so is a strict wave.
    |s| s.waves[1].sample = sample(Amount::Count(19), ""),
    |s| {
        s.waves[1].strict = true;
        s.waves[1].sample = sample(Amount::Count(25), "");
        s.budgets[1].min_sample = 26;
    },
    |s| s.windows = vec![window(331)],
    |s| s.gates = vec![prometheus("https://a/prometheus/", "up")],
];

#[test]
fn a_contradiction_names_the_field_and_what_to_change() {
    for (change, field, says) in CONTRADICTIONS {
        let mut strategy = default_strategy("test".parse().unwrap());
        change(&mut strategy);
        let found = strategy.validate();
        let Err(found) = found else {
            unreachable!("{field}: {says} is not found");
        };
        assert_eq!(found.field, *field, "{found}");
        assert!(found.problem.contains(says), "{found}, not {says}");
        assert!(!found.problem.contains("secret"), "{found}");
    }
}

#[test]
fn what_can_be_done_is_no_contradiction() {
    for (row, change) in NO_CONTRADICTIONS.iter().enumerate() {
        let mut strategy = default_strategy("test".parse().unwrap());
        change(&mut strategy);
        assert_eq!(strategy.validate(), Ok(()), "row {row}");
    }
}
