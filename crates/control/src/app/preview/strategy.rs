//! What is different in a strategy, field by field.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use keyfleet_core::rollout::{
    Blackout, Budget, CatchUp, Deadlines, Gate, GateCheck, Ramp, Strategy, Wave, Window, Zone,
};

use super::{differences, given};

/// Said of every change: what runs is not touched.
const FROZEN: &str = "running rollouts keep the strategy they started with";

/// A part of a list: what tells it from the others, and its fields.
type Part = (String, Vec<(&'static str, String)>);

/// What is different, the parts of lists by their names; nothing where nothing is.
pub(super) fn strategy_differences(old: &Strategy, new: &Strategy) -> Vec<String> {
    if old == new {
        return Vec::new();
    }
    let mut all = differences(&[("spec.waves", order(old), order(new))]);
    all.extend(parts("waves", &old.waves, &new.waves, wave));
    let (of_old, of_new) = (single(old), single(new));
    let changed = of_old.into_iter().zip(of_new);
    let changed = changed.filter(|(old, new)| old != new);
    all.extend(changed.map(|((field, old), (_, new))| format!("spec.{field}: {old} -> {new}")));
    all.extend(parts("budgets", &old.budgets, &new.budgets, budget));
    all.extend(parts("windows", &old.windows, &new.windows, window));
    all.extend(parts("blackouts", &old.blackouts, &new.blackouts, blackout));
    all.extend(parts("gates", &old.gates, &new.gates, gate));
    all.extend(hidden(&old.gates, &new.gates));
    all.push(FROZEN.to_owned());
    all
}

fn order(strategy: &Strategy) -> String {
    let names: Vec<&str> = strategy
        .waves
        .iter()
        .map(|wave| wave.name.as_str())
        .collect();
    names.join(", ")
}

/// The parts of a list that are different: one that is new or gone in one line, the others field by field.
fn parts<T>(list: &str, old: &[T], new: &[T], read: fn(&T) -> Part) -> Vec<String> {
    let by_name = |items: &[T]| items.iter().map(read).collect::<BTreeMap<_, _>>();
    let (mut before, after) = (by_name(old), by_name(new));
    let mut all = Vec::new();
    for (name, fields) in after {
        let path = format!("spec.{list}[{name}]");
        let Some(old) = before.remove(&name) else {
            all.push(format!("{path}: (none) -> {}", line(&fields)));
            continue;
        };
        let changed = old.iter().zip(&fields).filter(|(old, new)| old != new);
        all.extend(changed.map(|((field, old), (_, new))| {
            let dot = if field.is_empty() { "" } else { "." };
            format!("{path}{dot}{field}: {old} -> {new}")
        }));
    }
    let gone = before.iter();
    all.extend(
        gone.map(|(name, fields)| format!("spec.{list}[{name}]: {} -> (none)", line(fields))),
    );
    all
}

fn line(fields: &[(&'static str, String)]) -> String {
    let said = fields.iter().filter(|(_, value)| value != NONE);
    let said: Vec<String> = said
        .map(|(field, value)| match field.is_empty() {
            true => value.clone(),
            false => format!("{field} {value}"),
        })
        .collect();
    said.join(", ")
}

const NONE: &str = "(none)";

/// What stands once in a strategy.
fn single(strategy: &Strategy) -> Vec<(&'static str, String)> {
    let Deadlines {
        ack,
        apply,
        prove,
        wave,
    } = strategy.deadlines;
    let back = &strategy.rollback;
    vec![
        ("ramp", given(strategy.ramp.map(ramp))),
        ("maxPerMinute", given(strategy.max_per_minute)),
        ("deadlines.ack", span(ack)),
        ("deadlines.apply", span(apply)),
        ("deadlines.prove", span(prove)),
        ("deadlines.wave", span(wave)),
        (
            "offline.maxPercent",
            strategy.offline.max_percent.to_string(),
        ),
        (
            "offline.catchUp",
            CatchUp::as_str(strategy.offline.catch_up).to_owned(),
        ),
        ("rollback.concurrency", back.concurrency.to_string()),
        ("rollback.maxPerMinute", given(back.max_per_minute)),
        ("rollback.deadline", given(back.deadline.map(span))),
    ]
}

fn ramp(ramp: Ramp) -> String {
    let (whole, hundredths) = (ramp.factor_percent / 100, ramp.factor_percent % 100);
    format!("start {}, factor {whole}.{hundredths:02}", ramp.start)
}

fn wave(wave: &Wave) -> Part {
    let sample = wave.sample.as_ref().map(|sample| {
        let spread = sample.spread.as_ref();
        let spread = spread.map_or_else(String::new, |label| format!(" spread over {label}"));
        let least = match sample.min_matching {
            0 => String::new(),
            least => format!(" of at least {least}"),
        };
        format!("{}{spread}{least}", sample.amount)
    });
    let spread = wave.spread.as_ref();
    let approval = wave.approval.map(|approval| {
        let author = if approval.not_author {
            ", not the author"
        } else {
            ""
        };
        format!("{}{author}", approval.required)
    });
    let fields = vec![
        ("select", wave.selector.to_string()),
        ("sample", given(sample)),
        ("concurrency", wave.concurrency.to_string()),
        (
            "spread",
            given(spread.map(|spread| format!("{} of each {}", spread.max, spread.label))),
        ),
        ("strict", wave.strict.to_string()),
        ("mandatory", wave.mandatory.to_string()),
        ("soak", span(wave.soak)),
        ("approval", given(approval)),
    ];
    (wave.name.clone(), fields)
}

fn budget(budget: &Budget) -> Part {
    let class = budget.class.map_or("any", |class| class.as_str());
    let fields = vec![
        ("max", budget.max.to_string()),
        ("minSample", budget.min_sample.to_string()),
        ("action", budget.action.as_str().to_owned()),
    ];
    (format!("{class} per {}", budget.per.as_str()), fields)
}

fn window(window: &Window) -> Part {
    let zone = match &window.zone {
        Zone::Named(name) => name,
        Zone::OfDeployment => "deployment",
    };
    let fields = vec![("duration", span(window.duration))];
    (format!("{} {zone}", window.cron), fields)
}

fn blackout(blackout: &Blackout) -> Part {
    let days = format!("{} to {}", blackout.from, blackout.until);
    (days, vec![("reason", blackout.reason.clone())])
}

fn gate(gate: &Gate) -> Part {
    let (kind, query, fail_if) = match &gate.check {
        GateCheck::Http { .. } => ("http", None, None),
        GateCheck::Prometheus { query, fail_if, .. } => ("prometheus", Some(query), Some(fail_if)),
    };
    let fields = vec![
        ("", kind.to_owned()),
        ("url", gate.shown_url()),
        ("query", given(query)),
        ("failIf", given(fail_if)),
        ("interval", span(gate.interval)),
        ("action", gate.action.as_str().to_owned()),
        ("failAfter", gate.fail_after.to_string()),
        ("inconclusiveAfter", gate.inconclusive_after.to_string()),
    ];
    (gate.name.clone(), fields)
}

/// What is different in the part of a URL that is not shown, because it may hold a token.
fn hidden(old: &[Gate], new: &[Gate]) -> Vec<String> {
    let is_hidden = |old: &Gate, new: &Gate| {
        old.name == new.name && old.url() != new.url() && old.shown_url() == new.shown_url()
    };
    let differ = new
        .iter()
        .filter(|new| old.iter().any(|old| is_hidden(old, new)));
    differ
        .map(|gate| {
            let name = &gate.name;
            format!("spec.gates[{name}].url: what follows its path is different; it is not shown")
        })
        .collect()
}

fn span(span: Duration) -> String {
    let span = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    format!("{span:#}")
}

#[cfg(test)]
mod tests {
    use keyfleet_core::rollout::{Action, Amount, Approval, Per, Sample, default_strategy};

    use super::*;

    type Change = fn(&mut Strategy);

    fn check(change: Change, expected: &[&str]) {
        let old = default_strategy("a".parse().unwrap());
        let mut new = old.clone();
        change(&mut new);
        let mut expected: Vec<&str> = expected.to_vec();
        expected.push(FROZEN);
        assert_eq!(strategy_differences(&old, &new), expected);
    }

    #[test]
    fn the_same_strategy_has_no_differences() {
        let same = default_strategy("a".parse().unwrap());
        assert_eq!(strategy_differences(&same, &same.clone()), [""; 0]);
    }

    #[test]
    fn every_difference_has_its_field() {
        check(
            |s| {
                s.waves[0].soak = Duration::from_secs(1_200);
                s.waves[2].approval = Some(Approval {
                    required: 2,
                    not_author: true,
                });
            },
            &[
                "spec.waves[canary].soak: 10m -> 20m",
                "spec.waves[fleet].approval: (none) -> 2, not the author",
            ],
        );
        check(
            |s| {
                s.waves.remove(1);
                s.waves[0].sample = Some(Sample {
                    amount: Amount::Percent(5),
                    spread: Some("region".to_owned()),
                    min_matching: 9,
                });
            },
            &[
                "spec.waves: canary, early, fleet -> canary, fleet",
                "spec.waves[canary].sample: 1 -> 5% spread over region of at least 9",
                "spec.waves[early]: select (all), sample 10%, concurrency 25%, strict false, mandatory false, soak 10m -> (none)",
            ],
        );
        check(
            |s| {
                s.ramp = Some(Ramp {
                    start: 1,
                    factor_percent: 150,
                });
                s.max_per_minute = Some(600);
                s.deadlines.wave = Duration::from_secs(3_600);
                s.offline.catch_up = CatchUp::InWindow;
                s.rollback.concurrency = Amount::Count(3);
            },
            &[
                "spec.ramp: (none) -> start 1, factor 1.50",
                "spec.maxPerMinute: (none) -> 600",
                "spec.deadlines.wave: 2h -> 1h",
                "spec.offline.catchUp: immediate -> inWindow",
                "spec.rollback.concurrency: 50% -> 3",
            ],
        );
    }

    #[test]
    fn what_a_list_holds_is_told_by_its_name() {
        check(
            |s| {
                s.budgets[0].action = Action::Halt;
                s.budgets.push(Budget {
                    per: Per::Run,
                    ..s.budgets[0]
                });
                s.windows.push(Window {
                    cron: "0 22 * * *".to_owned(),
                    duration: Duration::from_secs(14_400),
                    zone: Zone::OfDeployment,
                });
                s.blackouts.push(Blackout {
                    from: jiff::civil::date(2026, 12, 24),
                    until: jiff::civil::date(2026, 12, 26),
                    reason: "holidays".to_owned(),
                });
            },
            &[
                "spec.budgets[AUTH per run]: (none) -> max 0, minSample 1, action halt",
                "spec.budgets[AUTH per wave].action: rollback -> halt",
                "spec.windows[0 22 * * * deployment]: (none) -> duration 4h",
                "spec.blackouts[2026-12-24 to 2026-12-26]: (none) -> reason holidays",
            ],
        );
    }

    #[test]
    fn a_gate_is_shown_with_what_it_asks() {
        let gate = |fail_if: &str| Gate {
            name: "errors".to_owned(),
            check: GateCheck::Prometheus {
                url: "https://h".parse().unwrap(),
                query: "up".to_owned(),
                fail_if: fail_if.parse().unwrap(),
            },
            interval: Duration::from_secs(60),
            action: Action::Halt,
            fail_after: 1,
            inconclusive_after: 3,
        };
        let mut old = default_strategy("a".parse().unwrap());
        let mut new = old.clone();
        new.gates = vec![gate("< 1")];
        let added = "spec.gates[errors]: (none) -> prometheus, url https://h/, query up, failIf < 1, interval 1m, action halt, failAfter 1, inconclusiveAfter 3";
        assert_eq!(strategy_differences(&old, &new), [added, FROZEN]);
        old.gates = vec![gate("< 2")];
        let changed = "spec.gates[errors].failIf: < 2 -> < 1";
        assert_eq!(strategy_differences(&old, &new), [changed, FROZEN]);
    }

    #[test]
    fn what_may_be_a_token_is_not_shown() {
        let gate = |url: &str| Gate {
            name: "go".to_owned(),
            check: GateCheck::Http {
                url: url.parse().unwrap(),
            },
            interval: Duration::from_secs(60),
            action: Action::Halt,
            fail_after: 1,
            inconclusive_after: 3,
        };
        let mut old = default_strategy("a".parse().unwrap());
        let mut new = old.clone();
        new.gates = vec![gate("https://h:8443/go?token=canary")];
        let added = strategy_differences(&old, &new).join(" ");
        assert!(added.contains("url https://h:8443/go, "), "{added}");
        assert!(!added.contains("canary"), "{added}");
        old.gates = vec![gate("https://h:8443/go?token=older")];
        let changed = "spec.gates[go].url: what follows its path is different; it is not shown";
        assert_eq!(strategy_differences(&old, &new), [changed, FROZEN]);
    }
}
