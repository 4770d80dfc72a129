//! Strategies: what is not said is as in the built-in default, and what contradicts itself is refused.

use std::time::Duration;

use keyfleet_core::id::StrategyName;
use keyfleet_core::rollout::{
    Action, Approval, Blackout, Budget, Deadlines, Gate, GateCheck, Offline, Per, Ramp, Rollback,
    Sample, Spread, Strategy, Wave, Window, Zone, default_strategy,
};

use super::Reader;
use crate::app::calendar;
use crate::manifest::yaml::{
    BlackoutForm, BudgetForm, DeadlinesForm, GateForm, OfflineForm, RollbackForm, Span,
    StrategyForm, WaveForm, WindowForm, Word,
};
use crate::manifest::{InvalidManifest, Object};

/// How often a gate is asked where it does not say.
const GATE_INTERVAL: Duration = Duration::from_secs(60);

/// After how many answers in a row that say nothing a run pauses: one scrape that is missed is no reason.
const INCONCLUSIVE_AFTER: u32 = 3;

/// The word for the time zone that each deployment's label names.
const ZONE_OF_DEPLOYMENT: &str = "deployment";

impl Reader<'_> {
    pub(super) fn strategy(&self) -> Result<Object, InvalidManifest> {
        let (name, form): (StrategyName, StrategyForm) = self.document()?;
        self.nobody_may_be_away(&form)?;
        let usual = default_strategy(name.clone());
        let mut gates = Vec::new();
        for (index, form) in form.gates.into_iter().enumerate() {
            let field = format!("spec.gates[{index}]");
            gates.push(gate(form).map_err(|problem| self.wrong(&field, problem))?);
        }
        let strategy = Strategy {
            name,
            waves: form.waves.into_iter().map(wave).collect(),
            ramp: form.ramp.map(|ramp| Ramp {
                start: ramp.start,
                factor_percent: ramp.factor.0.0,
            }),
            max_per_minute: form.max_per_minute,
            deadlines: deadlines(form.deadlines, usual.deadlines),
            budgets: form.budgets.map_or(usual.budgets, |budgets| {
                budgets.iter().map(budget).collect()
            }),
            offline: offline(form.offline, usual.offline),
            windows: form.windows.into_iter().map(window).collect(),
            blackouts: form.blackouts.into_iter().map(blackout).collect(),
            gates,
            rollback: rollback(form.rollback, usual.rollback),
        };
        strategy
            .validate()
            .map_err(|err| self.wrong(&format!("spec.{}", err.field), err.problem))?;
        calendar::check(&strategy)
            .map_err(|(field, problem)| self.wrong(&format!("spec.{field}"), problem))?;
        Ok(Object::Strategy(strategy))
    }

    /// What is written here and means nothing is a mistake; what the default says is none.
    fn nobody_may_be_away(&self, form: &StrategyForm) -> Result<(), InvalidManifest> {
        let is_mandatory = form.waves.iter().all(|wave| wave.mandatory);
        match form.offline.max_percent {
            Some(percent @ 1..) if is_mandatory => {
                let problem = format!(
                    "is {percent}, and nobody may be away in a mandatory wave, which every wave is: write 0, or take `mandatory` from a wave"
                );
                Err(self.wrong("spec.offline.maxPercent", problem))
            }
            _ => Ok(()),
        }
    }
}

fn span(word: Option<Word<Span>>, usual: Duration) -> Duration {
    word.map_or(usual, |word| word.0.0)
}

fn wave(form: WaveForm) -> Wave {
    Wave {
        name: form.name,
        selector: form.select.into(),
        sample: form.sample.map(|sample| Sample {
            amount: sample.0.amount.0,
            spread: sample.0.spread,
            min_matching: sample.0.min_matching,
        }),
        concurrency: form.concurrency.0,
        spread: form.spread.map(|spread| Spread {
            label: spread.label,
            max: spread.max,
        }),
        strict: form.strict,
        mandatory: form.mandatory,
        soak: span(form.soak, Duration::ZERO),
        approval: form.approval.map(|approval| Approval {
            required: approval.required,
            not_author: approval.not_author,
        }),
    }
}

fn deadlines(form: DeadlinesForm, usual: Deadlines) -> Deadlines {
    Deadlines {
        ack: span(form.ack, usual.ack),
        apply: span(form.apply, usual.apply),
        prove: span(form.prove, usual.prove),
        wave: span(form.wave, usual.wave),
    }
}

fn budget(form: &BudgetForm) -> Budget {
    Budget {
        class: form.class.0.0,
        per: form.per.as_ref().map_or(Per::Wave, |per| per.0.0),
        max: form.max.0,
        min_sample: form.min_sample,
        action: form.action.0.0,
    }
}

fn offline(form: OfflineForm, usual: Offline) -> Offline {
    Offline {
        max_percent: form.max_percent.unwrap_or(usual.max_percent),
        catch_up: form.catch_up.map_or(usual.catch_up, |word| word.0.0),
    }
}

fn window(form: WindowForm) -> Window {
    Window {
        cron: form.cron,
        duration: form.duration.0.0,
        zone: match form.time_zone {
            Some(name) if name != ZONE_OF_DEPLOYMENT => Zone::Named(name),
            Some(_) | None => Zone::OfDeployment,
        },
    }
}

fn blackout(form: BlackoutForm) -> Blackout {
    Blackout {
        from: form.from.0.0,
        until: form.until.0.0,
        reason: form.reason,
    }
}

/// It asks in one of the two ways.
fn gate(form: GateForm) -> Result<Gate, &'static str> {
    let check = match (form.http, form.prometheus) {
        (Some(http), None) => GateCheck::Http { url: http.url.0.0 },
        (None, Some(prometheus)) => GateCheck::Prometheus {
            url: prometheus.url.0.0,
            query: prometheus.query,
            fail_if: prometheus.fail_if.0,
        },
        (None, None) => {
            return Err(
                "asks nothing: give it `http: {url}` or `prometheus: {url, query, failIf}`",
            );
        }
        (Some(_), Some(_)) => {
            return Err("has `http` and `prometheus`: keep one, or make two gates");
        }
    };
    Ok(Gate {
        name: form.name,
        check,
        interval: span(form.interval, GATE_INTERVAL),
        action: form.action.map_or(Action::Pause, |word| word.0.0),
        fail_after: form.fail_after.unwrap_or(1),
        inconclusive_after: form.inconclusive_after.unwrap_or(INCONCLUSIVE_AFTER),
    })
}

fn rollback(form: RollbackForm, usual: Rollback) -> Rollback {
    Rollback {
        concurrency: form
            .concurrency
            .map_or(usual.concurrency, |amount| amount.0),
        max_per_minute: form.max_per_minute.or(usual.max_per_minute),
        deadline: form.deadline.map(|word| word.0.0).or(usual.deadline),
    }
}

#[cfg(test)]
mod tests {
    use keyfleet_core::rollout::{Amount, CatchUp};

    use super::*;
    use crate::manifest::read;

    /// The head of a strategy: its `spec` begins in line 5.
    const HEAD: &str = "apiVersion: keyfleet/v1\nkind: Strategy\nmetadata: {name: a}\nspec:\n";

    const WAVES: &str = "  waves:
    - name: canary
      sample: 1
      concurrency: 1
    - name: rest
      concurrency: 25%
";

    fn strategy(spec: &str) -> Result<Strategy, String> {
        let manifests = read("f.yaml", &format!("{HEAD}{spec}")).map_err(|err| err.to_string())?;
        let Object::Strategy(strategy) = &manifests[0].object else {
            unreachable!()
        };
        Ok(strategy.clone())
    }

    #[test]
    fn what_is_not_said_is_as_in_the_default() {
        let found = strategy("  waves: [{name: all, concurrency: 1}]\n").unwrap();
        let mut usual = default_strategy("a".parse().unwrap());
        usual.waves = found.waves.clone();
        assert_eq!(found, usual);
        assert_eq!(found.waves[0].soak, Duration::ZERO);
    }

    #[test]
    fn everything_can_be_said() {
        let text = include_str!("../../../../../deploy/strategies/full.yaml");
        let manifests = read("f.yaml", text).unwrap();
        insta::assert_debug_snapshot!(manifests[0].object);
    }

    #[test]
    fn a_sample_is_an_amount_or_says_how_it_is_taken() {
        let sample = |text: &str| {
            let found = strategy(&WAVES.replace("sample: 1", &format!("sample: {text}")));
            found.map(|mut found| found.waves.remove(0).sample.unwrap())
        };
        let whole = |amount| Sample {
            amount,
            spread: None,
            min_matching: 0,
        };
        assert_eq!(sample("7"), Ok(whole(Amount::Count(7))));
        assert_eq!(sample("10%"), Ok(whole(Amount::Percent(10))));
        assert_eq!(sample("\"7\""), Ok(whole(Amount::Count(7))));
        let spread = Sample {
            amount: Amount::Percent(10),
            spread: Some("region".to_owned()),
            min_matching: 5,
        };
        let text = "{amount: 10%, spread: region, minMatching: 5}";
        assert_eq!(sample(text), Ok(spread));
        for (bad, says) in [
            ("-1", "neither a whole number"),
            ("1.5", "a number, a percentage such as 10%, or {amount"),
            ("many", "neither a whole number"),
            ("[1]", "a number, a percentage such as 10%, or {amount"),
            ("{spread: region}", "amount"),
            ("{amount: 1, spred: region}", "spred"),
        ] {
            let said = sample(bad).unwrap_err();
            let begins = "f.yaml:7: spec.waves[0].sample";
            assert!(
                said.starts_with(begins) && said.contains(says),
                "{bad}: {said}"
            );
        }
    }

    /// What is written after the waves (from line 11), and how the error begins.
    const REFUSED: &[(&str, &str)] = &[
        (
            "  ramp: {start: 2, factor: 6}\n",
            "f.yaml:11: spec.ramp.factor: use a factor from 1.5 to 5",
        ),
        (
            "  ramp: {factor: fast}\n",
            "f.yaml:11: spec.ramp.factor: \"fast\" is not a factor",
        ),
        (
            "  ramp: {factor: 1.555}\n",
            "f.yaml:11: spec.ramp.factor: \"1.555\" is not a factor",
        ),
        (
            "  ramp: 2\n",
            "f.yaml:11: spec.ramp: write fields, each with a value: {",
        ),
        (
            "  windows: {cron: \"0 22 * * *\", duration: 4h}\n",
            "f.yaml:11: spec.windows: write a list: [",
        ),
        (
            "  offline: {maxPercent: 10%}\n",
            "f.yaml:11: spec.offline.maxPercent: write a whole number",
        ),
        (
            "  maxPerMinute: -1\n",
            "f.yaml:11: spec.maxPerMinute: write a whole number",
        ),
        (
            "  maxPerMinute: 0\n",
            "f.yaml:11: spec.maxPerMinute: nothing would ever begin",
        ),
        (
            "  deadlines: {prove: 1us}\n",
            "f.yaml:11: spec.deadlines.prove: \"1us\" is finer",
        ),
        (
            "  budgets:\n    - {class: AUTH, max: 0, action: halt}\n    - {class: AUTH, per: wave, max: 1, action: halt}\n",
            "f.yaml:13: spec.budgets[1].class: budgets[0] counts the same failures per wave",
        ),
        (
            "  budgets:\n    - {class: AUTH, per: fleet, max: 0, action: halt}\n",
            "f.yaml:12: spec.budgets[0].per: unknown count \"fleet\": use one of wave, run",
        ),
        (
            "  offline:\n    catchUp: inWindow\n",
            "f.yaml:12: spec.offline.catchUp: is inWindow, and the strategy has no windows",
        ),
        (
            "  windows:\n    - cron: \"0 22 * * 1-4\"\n      duration: 5m\n",
            "f.yaml:13: spec.windows[0].duration: 5m is no longer than",
        ),
        (
            "  windows:\n    - {cron: \"0 22 * * 1-4\", duration: 4h}\n    - cron: \"61 * * * *\"\n      duration: 4h\n",
            "f.yaml:13: spec.windows[1].cron: ",
        ),
        (
            "  windows:\n    - cron: \"0 22 * * 1-4\"\n      duration: 4h\n      timeZone: Europe/Atlantis\n",
            "f.yaml:14: spec.windows[0].timeZone: there is no time zone \"Europe/Atlantis\"",
        ),
        (
            "  blackouts:\n    - from: 2026-12-26\n      until: 2026-12-24\n",
            "f.yaml:13: spec.blackouts[0].until: 2026-12-24 is before 2026-12-26",
        ),
        (
            "  blackouts:\n    - {from: 2026-12-32, until: 2026-12-33}\n",
            "f.yaml:12: spec.blackouts[0].from: \"2026-12-32\" is not a day",
        ),
        (
            "  blackouts:\n    - {from: 2026-12-24T12:00, until: 2026-12-26}\n",
            "f.yaml:12: spec.blackouts[0].from: \"2026-12-24T12:00\" is not a day",
        ),
        (
            "  gates:\n    - name: none\n",
            "f.yaml:12: spec.gates[0]: asks nothing",
        ),
        (
            "  gates:\n    - name: a\n      http: {url: \"https://a\"}\n    - name: b\n      http: {url: \"https://a\"}\n      prometheus: {url: \"https://a\", query: up, failIf: \"< 1\"}\n",
            "f.yaml:14: spec.gates[1]: has `http` and `prometheus`",
        ),
        (
            "  gates:\n    - name: a\n      http: {url: \"https://a\"}\n      interval: 5s\n",
            "f.yaml:14: spec.gates[0].interval: use at least 10s",
        ),
        (
            "  gates:\n    - name: a\n      http: {url: \"https://me:hunter2@a\"}\n",
            "f.yaml:13: spec.gates[0].http.url: holds a user or a password",
        ),
        (
            "  gates:\n    - {name: a, http: {url: \"me:hunter2@[\"}}\n",
            "f.yaml:12: spec.gates[0].http.url: use an http:// or https:// URL",
        ),
        (
            "  gates:\n    - {name: a, http: {url: \"//me:hunter2@a\"}}\n",
            "f.yaml:12: spec.gates[0].http.url: is not a URL",
        ),
        (
            "  gates:\n    - {name: a, prometheus: {url: \"https://a\", query: up, failIf: 2%}}\n",
            "f.yaml:12: spec.gates[0].prometheus.failIf: \"2%\" is not a threshold",
        ),
        (
            "  gates:\n    - {name: a, action: continue, http: {url: \"https://a\"}}\n",
            "f.yaml:12: spec.gates[0].action: a gate that holds nothing",
        ),
        (
            "  rollback: {concurency: 50%}\n",
            "f.yaml:11: spec.rollback",
        ),
    ];

    #[test]
    fn a_mistake_has_its_line_and_its_field() {
        for (rest, says) in REFUSED {
            let said = strategy(&format!("{WAVES}{rest}")).unwrap_err();
            assert!(said.starts_with(says), "{rest}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn a_mistake_in_a_wave_has_the_line_of_that_wave() {
        for (from, to, says) in [
            (
                "25%",
                "many",
                "f.yaml:10: spec.waves[1].concurrency: \"many\" is neither",
            ),
            (
                "25%",
                "0%",
                "f.yaml:10: spec.waves[1].concurrency: use at least 1",
            ),
            (
                "name: rest",
                "name: canary",
                "f.yaml:9: spec.waves[1].name: another wave",
            ),
            (
                "name: rest",
                "name: rest\n      soak: 3h",
                "f.yaml:10: spec.waves[1].soak: 3h and what",
            ),
            // What is wrong stands nowhere: the wave's own line.
            (
                "      sample: 1\n",
                "",
                "f.yaml:8: spec.waves[1].select: takes nobody",
            ),
            (
                "25%",
                "2\n      spread: {label: region, max: 3}",
                "f.yaml:11: spec.waves[1].spread.max: is 3",
            ),
            (
                "25%",
                "2\n      approval: {required: 0}",
                "f.yaml:11: spec.waves[1].approval.required: nobody",
            ),
        ] {
            let said = strategy(&WAVES.replace(from, to)).unwrap_err();
            assert!(said.starts_with(says), "{to}: {said}");
        }
    }

    #[test]
    fn nobody_may_be_away_where_every_wave_is_mandatory() {
        let spec = "  waves: [{name: all, concurrency: 1, mandatory: true}]\n";
        assert!(strategy(spec).is_ok());
        assert!(strategy(&format!("{spec}  offline: {{maxPercent: 0}}\n")).is_ok());
        let said = strategy(&format!("{spec}  offline: {{maxPercent: 5}}\n")).unwrap_err();
        let begins = "f.yaml:6: spec.offline.maxPercent: is 5, and nobody may be away";
        assert!(said.starts_with(begins), "{said}");
    }

    #[test]
    fn a_deployment_catches_up_in_its_window_where_that_is_said() {
        let rest = "  offline: {catchUp: inWindow}\n  windows: [{cron: \"0 22 * * *\", duration: 4h, timeZone: deployment}]\n";
        let found = strategy(&format!("{WAVES}{rest}")).unwrap();
        assert_eq!(found.offline.catch_up, CatchUp::InWindow);
        assert_eq!(found.windows[0].zone, Zone::OfDeployment);
    }
}
