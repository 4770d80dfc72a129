//! What a strategy says, in plain sentences: `plan`, `get strategies` and the dashboard print the same.

use std::fmt::Write;

use super::{Amount, Blackout, Budget, CatchUp, LOW_COUNT, Per, Strategy, Wave, Window, Zone};
use crate::rollout::gate::{Gate, GateCheck};
use crate::rollout::waiting::Human;

/// Said once where any percentage stands.
const ROUNDING: &str = "percentages are rounded down: a sample and a concurrency are at least 1, a budget and the offline share may be 0";

impl Wave {
    /// The wave in a sentence: `canary: 1 of tier=canary, 1 at a time, strict, soak 10m`.
    pub fn sentence(&self) -> String {
        let mut text = format!("{}: {}", self.name, self.taken());
        let mut add = |part: String| {
            text.push_str(", ");
            text.push_str(&part);
        };
        add(format!("{} at a time", self.concurrency));
        if let Some(spread) = &self.spread {
            add(format!("{} of each {}", spread.max, spread.label));
        }
        if self.strict {
            add("strict".to_owned());
        }
        if self.mandatory {
            add("mandatory".to_owned());
        }
        add(format!("soak {}", Human(self.soak)));
        if let Some(approval) = self.approval {
            let approvals = counted(approval.required, "approval");
            let author = match approval.not_author {
                true => ", not by who started it",
                false => "",
            };
            add(format!("after {approvals}{author}"));
        }
        text
    }

    /// Whom it takes.
    fn taken(&self) -> String {
        let Some(sample) = &self.sample else {
            return format!("all of {}", self.selector);
        };
        let mut text = format!("{} of {}", sample.amount, self.selector);
        if let Some(label) = &sample.spread {
            let _ = write!(text, " spread over {label}");
        }
        if sample.min_matching > 1 {
            let _ = write!(text, " if at least {} match", sample.min_matching);
        }
        text
    }
}

impl Strategy {
    /// What holds for all waves, each in a sentence.
    pub fn rules(&self) -> Vec<String> {
        let mut rules = Vec::new();
        rules.extend(self.ramp.map(|ramp| {
            let (whole, hundredths) = (ramp.factor_percent / 100, ramp.factor_percent % 100);
            let factor = format!("{whole}.{hundredths:02}");
            let factor = factor.trim_end_matches('0').trim_end_matches('.');
            let start = ramp.start;
            format!(
                "each wave begins with {start} at a time, and {factor} times as many each time that as many are proven"
            )
        }));
        rules.extend(self.max_per_minute.map(|max| {
            let deployments = counted(max, "deployment");
            format!("at most {deployments} may be offered the change within any minute")
        }));
        rules.push(self.deadlines_rule());
        rules.extend(self.budgets.iter().map(budget_rule));
        rules.push(self.offline_rule());
        rules.extend(self.windows.iter().map(|window| self.window_rule(window)));
        rules.extend(self.blackouts.iter().map(blackout_rule));
        rules.extend(self.gates.iter().map(gate_rule));
        rules.push(self.rollback_rule());
        if self.has_percentages() {
            rules.push(ROUNDING.to_owned());
        }
        rules
    }

    fn deadlines_rule(&self) -> String {
        let of = &self.deadlines;
        format!(
            "deadlines: ack {}, apply {}, prove {}, wave {}",
            Human(of.ack),
            Human(of.apply),
            Human(of.prove),
            Human(of.wave)
        )
    }

    fn offline_rule(&self) -> String {
        let is_ever_closed = !self.windows.is_empty() || !self.blackouts.is_empty();
        let asks = self.waves.iter().any(|wave| wave.approval.is_some());
        let when = match self.offline.catch_up {
            CatchUp::Immediate if is_ever_closed => {
                "as soon as it is connected again, after the end of the rollout also outside of its windows and in a blackout"
            }
            CatchUp::Immediate => "as soon as it is connected again",
            CatchUp::InWindow if asks => {
                "in its window once it is connected again, after the end of the rollout by one of its own, which asks for approval again"
            }
            CatchUp::InWindow => "in its window once it is connected again",
        };
        format!(
            "offline: up to {}% of a wave may be away; who was away gets the change {when}",
            self.offline.max_percent
        )
    }

    fn window_rule(&self, window: &Window) -> String {
        let zone = match &window.zone {
            Zone::Named(name) => name,
            Zone::OfDeployment => "each deployment's own time zone",
        };
        format!(
            "window: {} for {}, {zone}; nothing is offered in its last {}, which one deployment may take",
            window.cron,
            Human(window.duration),
            Human(self.deadlines.steps())
        )
    }

    fn rollback_rule(&self) -> String {
        let back = &self.rollback;
        let deadline = back.deadline.unwrap_or_else(|| self.deadlines.steps());
        let rate = back.max_per_minute;
        let rate = rate.map_or_else(String::new, |max| format!(", {max} per minute"));
        format!(
            "way back: {} of those that were touched at a time{rate}, each within {}; waves, soak, windows, gates and approvals do not hold it",
            back.concurrency,
            Human(deadline)
        )
    }

    fn has_percentages(&self) -> bool {
        let of_waves = self.waves.iter().flat_map(|wave| {
            let sample = wave.sample.as_ref().map(|sample| sample.amount);
            sample.into_iter().chain([wave.concurrency])
        });
        let of_budgets = self.budgets.iter().map(|budget| budget.max);
        let mut all = of_waves
            .chain(of_budgets)
            .chain([self.rollback.concurrency]);
        all.any(|amount| matches!(amount, Amount::Percent(_)))
    }
}

fn budget_rule(budget: &Budget) -> String {
    let class = budget
        .class
        .map_or("every other class", |class| class.as_str());
    let of = match budget.per {
        Per::Wave => "a wave",
        Per::Run => "the run",
    };
    let max = match budget.max {
        Amount::Count(1) => "1 failure".to_owned(),
        Amount::Count(count) => format!("{count} failures"),
        percent @ Amount::Percent(_) => format!("{percent} failed"),
    };
    let mut text = format!(
        "budget: {class}: {} at more than {max} in {of}",
        budget.action.as_str()
    );
    if budget.min_sample > 1 {
        let _ = write!(
            text,
            ", looked at when {} have settled (at once in a strict wave, and among fewer than {LOW_COUNT})",
            budget.min_sample
        );
    }
    text
}

fn blackout_rule(blackout: &Blackout) -> String {
    let Blackout {
        from,
        until,
        reason,
    } = blackout;
    let days = match from == until {
        true => format!("on {from}"),
        false => format!("from {from} to {until}"),
    };
    let why = match reason.is_empty() {
        true => String::new(),
        false => format!(" ({reason})"),
    };
    format!("blackout: nothing is offered {days}{why}, in each deployment's own time zone")
}

fn gate_rule(gate: &Gate) -> String {
    let asks = match &gate.check {
        GateCheck::Http { .. } => gate.shown_url(),
        GateCheck::Prometheus { query, fail_if, .. } => {
            format!("{} for {query} (fails {fail_if})", gate.shown_url())
        }
    };
    format!(
        "gate {:?}: asks {asks} every {}; {} after {}, pause after {}",
        gate.name,
        Human(gate.interval),
        gate.action.as_str(),
        counted(gate.fail_after, "failing answer"),
        counted(gate.inconclusive_after, "answer") + " that say nothing",
    )
}

fn counted(count: u32, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::rollout::strategy::{Action, Approval, Ramp, Sample, Spread, default_strategy};

    use super::*;

    #[test]
    fn the_default_in_sentences() {
        let strategy = default_strategy("default".parse().unwrap());
        let waves = strategy.waves.iter().map(Wave::sentence);
        let all: Vec<String> = waves.chain(strategy.rules()).collect();
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn everything_in_sentences() {
        let mut strategy = default_strategy("all".parse().unwrap());
        let wave = &mut strategy.waves[0];
        wave.sample = Some(Sample {
            amount: Amount::Percent(10),
            spread: Some("region".to_owned()),
            min_matching: 5,
        });
        wave.spread = Some(Spread {
            label: "region".to_owned(),
            max: 1,
        });
        wave.mandatory = true;
        wave.approval = Some(Approval {
            required: 2,
            not_author: true,
        });
        strategy.ramp = Some(Ramp {
            start: 1,
            factor_percent: 150,
        });
        strategy.max_per_minute = Some(600);
        strategy.offline.catch_up = CatchUp::InWindow;
        strategy.windows = vec![Window {
            cron: "0 22 * * 1-4".to_owned(),
            duration: Duration::from_secs(4 * 3600),
            zone: Zone::OfDeployment,
        }];
        strategy.blackouts = vec![Blackout {
            from: jiff::civil::date(2026, 12, 24),
            until: jiff::civil::date(2026, 12, 26),
            reason: "holidays".to_owned(),
        }];
        let gate = |name: &str, check| Gate {
            name: name.to_owned(),
            check,
            interval: Duration::from_secs(60),
            action: Action::Halt,
            fail_after: 2,
            inconclusive_after: 3,
        };
        strategy.gates = vec![
            gate(
                "change-freeze",
                GateCheck::Http {
                    url: "https://gates.example.com:8443/go?token=x".parse().unwrap(),
                },
            ),
            gate(
                "chat-errors",
                GateCheck::Prometheus {
                    url: "https://prometheus.example.com".parse().unwrap(),
                    query: "error_rate".to_owned(),
                    fail_if: "> 0.02".parse().unwrap(),
                },
            ),
        ];
        strategy.rollback.max_per_minute = Some(60);
        assert_eq!(strategy.validate(), Ok(()));
        let waves = strategy.waves.iter().map(Wave::sentence);
        let all: Vec<String> = waves.chain(strategy.rules()).collect();
        insta::assert_snapshot!(all.join("\n"));
        strategy.offline.catch_up = CatchUp::Immediate;
        let outside = "after the end of the rollout also outside of its windows and in a blackout";
        assert!(strategy.rules().iter().any(|rule| rule.ends_with(outside)));
    }
}
