//! What contradicts itself in a strategy, and what to change.
//!
//! A strategy that passes may still be unwise; one that does not can never do what it says.

mod waves;

use std::fmt::Display;
use std::time::Duration;

use url::Url;

use super::{
    Action, Amount, Budget, CatchUp, Deadlines, InvalidStrategy, LOW_COUNT, Per, Ramp, Strategy,
    Window,
};
use crate::rollout::gate::{Gate, GateCheck};
use crate::rollout::waiting::Human;

/// Longest time of any kind: far beyond any rollout, and small enough to be added to any moment.
const SPAN_MAX: Duration = Duration::from_secs(366 * 86_400);

/// Asked more often than this, a gate only costs.
const GATE_INTERVAL_MIN: Duration = Duration::from_secs(10);

/// A ramp grows by half of what it is at least, and to five times of it at most, as in AWS IoT Jobs.
const RAMP_PERCENT: std::ops::RangeInclusive<u32> = 150..=500;

type Checked = Result<(), InvalidStrategy>;

impl Strategy {
    /// Finds what contradicts itself.
    ///
    /// # Errors
    /// The first [`InvalidStrategy`], with the field's path.
    pub fn validate(&self) -> Result<(), InvalidStrategy> {
        self.deadlines.validate()?;
        waves::validate(self)?;
        if let Some(ramp) = self.ramp {
            self.check_ramp(ramp)?;
        }
        check_rate("maxPerMinute", self.max_per_minute)?;
        self.check_budgets()?;
        if self.offline.max_percent > 100 {
            return Err(invalid("offline.maxPercent", "use 0 to 100"));
        }
        self.check_windows()?;
        self.check_gates()?;
        self.check_rollback()
    }

    fn check_ramp(&self, ramp: Ramp) -> Checked {
        if ramp.start == 0 {
            return Err(invalid(
                "ramp.start",
                "nothing would ever begin: use at least 1",
            ));
        }
        if !RAMP_PERCENT.contains(&ramp.factor_percent) {
            return Err(invalid("ramp.factor", "use a factor from 1.5 to 5"));
        }
        let counts = self.waves.iter().map(|wave| match wave.concurrency {
            Amount::Count(count) => Some(count),
            Amount::Percent(_) => None,
        });
        let most = counts
            .collect::<Option<Vec<u32>>>()
            .and_then(|all| all.into_iter().max());
        match most {
            Some(most) if ramp.start > most => Err(invalid(
                "ramp.start",
                format_args!(
                    "is {}, and no wave allows more than {most} at a time: start with fewer, raise a concurrency, or remove the ramp",
                    ramp.start
                ),
            )),
            Some(_) | None => Ok(()),
        }
    }

    fn check_budgets(&self) -> Checked {
        for (index, budget) in self.budgets.iter().enumerate() {
            let field = |name: &str| format!("budgets[{index}].{name}");
            let same = |other: &Budget| other.class == budget.class && other.per == budget.per;
            if let Some(first) = self.budgets[..index].iter().position(same) {
                let problem = format!(
                    "budgets[{first}] counts the same failures per {}: keep one",
                    budget.per.as_str()
                );
                return Err(invalid(field("class"), problem));
            }
            check_percent(&field("max"), budget.max)?;
            self.check_min_sample(&field("minSample"), budget)?;
        }
        Ok(())
    }

    /// Where a wave has fewer than have to settle, its budget is looked at only when it is too late.
    fn check_min_sample(&self, field: &str, budget: &Budget) -> Checked {
        if budget.per == Per::Run || budget.action == Action::Continue {
            return Ok(());
        }
        for wave in self.waves.iter().filter(|wave| !wave.strict) {
            let Some(Amount::Count(count)) = wave.sample.as_ref().map(|sample| sample.amount)
            else {
                continue;
            };
            if count >= LOW_COUNT && budget.min_sample > count {
                let problem = format!(
                    "is {}, and wave {:?} has {count} deployments, so the budget is looked at when all have settled: use at most {count}, or make the wave strict",
                    budget.min_sample, wave.name
                );
                return Err(invalid(field, problem));
            }
        }
        Ok(())
    }

    fn check_windows(&self) -> Checked {
        let steps = self.deadlines.steps();
        for (index, window) in self.windows.iter().enumerate() {
            let field = format!("windows[{index}].duration");
            check_whole_seconds(&field, window.duration)?;
            check_span(&field, window.duration)?;
            if window.duration <= steps {
                let problem = format!(
                    "{} is no longer than what one deployment may take ({}: the deadlines ack, apply and prove together), so nothing would ever be offered: make the window longer or the deadlines shorter",
                    Human(window.duration),
                    Human(steps)
                );
                return Err(invalid(field, problem));
            }
            let same = |other: &Window| other.cron == window.cron && other.zone == window.zone;
            if let Some(first) = self.windows[..index].iter().position(same) {
                let problem = format!("opens when windows[{first}] does: keep the longer one");
                return Err(invalid(format!("windows[{index}].cron"), problem));
            }
        }
        if self.offline.catch_up == CatchUp::InWindow && self.windows.is_empty() {
            let problem =
                "is inWindow, and the strategy has no windows: add some, or use immediate";
            return Err(invalid("offline.catchUp", problem));
        }
        for (index, blackout) in self.blackouts.iter().enumerate() {
            if blackout.until < blackout.from {
                let problem = format!(
                    "{} is before {}, the first day: exchange them",
                    blackout.until, blackout.from
                );
                return Err(invalid(format!("blackouts[{index}].until"), problem));
            }
        }
        Ok(())
    }

    fn check_gates(&self) -> Checked {
        for (index, gate) in self.gates.iter().enumerate() {
            let path = format!("gates[{index}]");
            let same = |other: &Gate| other.name == gate.name;
            if self.gates[..index].iter().any(same) {
                let problem = format!("another gate is called {:?}: rename one", gate.name);
                return Err(invalid(format!("{path}.name"), problem));
            }
            check_gate(&path, gate)?;
        }
        Ok(())
    }

    fn check_rollback(&self) -> Checked {
        check_concurrency("rollback.concurrency", self.rollback.concurrency)?;
        check_rate("rollback.maxPerMinute", self.rollback.max_per_minute)?;
        match self.rollback.deadline {
            Some(deadline) => check_deadline("rollback.deadline", deadline),
            None => Ok(()),
        }
    }
}

impl Deadlines {
    fn validate(&self) -> Checked {
        check_deadline("deadlines.ack", self.ack)?;
        check_deadline("deadlines.apply", self.apply)?;
        check_deadline("deadlines.prove", self.prove)?;
        check_deadline("deadlines.wave", self.wave)?;
        if self.steps() < self.wave {
            return Ok(());
        }
        let problem = format!(
            "{} is no longer than what one deployment may take ({}: ack, apply and prove together): make it longer, or those shorter",
            Human(self.wave),
            Human(self.steps())
        );
        Err(invalid("deadlines.wave", problem))
    }
}

fn check_gate(path: &str, gate: &Gate) -> Checked {
    let field = |name: &str| format!("{path}.{name}");
    if gate.name.trim().is_empty() {
        return Err(invalid(field("name"), "a gate needs a name"));
    }
    match &gate.check {
        GateCheck::Http { url } => check_url(&field("http.url"), url)?,
        GateCheck::Prometheus { url, query, .. } => {
            check_url(&field("prometheus.url"), url)?;
            if url.query().is_some() || url.path().trim_end_matches('/').ends_with("/api/v1/query")
            {
                let problem = "name the server alone, such as https://prometheus.example.com: the rest is added";
                return Err(invalid(field("prometheus.url"), problem));
            }
            if query.trim().is_empty() {
                return Err(invalid(
                    field("prometheus.query"),
                    "asks nothing: write PromQL",
                ));
            }
        }
    }
    check_whole_seconds(&field("interval"), gate.interval)?;
    check_span(&field("interval"), gate.interval)?;
    if gate.interval < GATE_INTERVAL_MIN {
        let problem = format!("use at least {}", Human(GATE_INTERVAL_MIN));
        return Err(invalid(field("interval"), problem));
    }
    if gate.action == Action::Continue {
        let problem =
            "a gate that holds nothing is none: use pause, halt or rollback, or remove it";
        return Err(invalid(field("action"), problem));
    }
    for (name, count) in [
        ("failAfter", gate.fail_after),
        ("inconclusiveAfter", gate.inconclusive_after),
    ] {
        if count == 0 {
            return Err(invalid(field(name), "counts answers: use at least 1"));
        }
    }
    Ok(())
}

/// The text does not repeat the URL: it may hold a password.
fn check_url(field: &str, url: &Url) -> Checked {
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(invalid(field, "use an http:// or https:// URL with a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let problem = "holds a user or a password, which a manifest never does: remove it";
        return Err(invalid(field, problem));
    }
    Ok(())
}

fn invalid(field: impl Into<String>, problem: impl Display) -> InvalidStrategy {
    InvalidStrategy {
        field: field.into(),
        problem: problem.to_string(),
    }
}

fn check_deadline(field: &str, deadline: Duration) -> Checked {
    if deadline.is_zero() {
        return Err(invalid(
            field,
            "nothing could ever be in time: use at least 1s",
        ));
    }
    check_span(field, deadline)
}

fn check_span(field: &str, span: Duration) -> Checked {
    if span <= SPAN_MAX {
        return Ok(());
    }
    let problem = format!(
        "{} is longer than {}: use less",
        Human(span),
        Human(SPAN_MAX)
    );
    Err(invalid(field, problem))
}

fn check_whole_seconds(field: &str, span: Duration) -> Checked {
    match span.subsec_nanos() {
        0 => Ok(()),
        _ => Err(invalid(field, "use whole seconds")),
    }
}

fn check_rate(field: &str, rate: Option<u32>) -> Checked {
    match rate {
        Some(0) => Err(invalid(
            field,
            "nothing would ever begin: use at least 1, or leave it out",
        )),
        Some(_) | None => Ok(()),
    }
}

fn check_percent(field: &str, amount: Amount) -> Checked {
    match amount {
        Amount::Percent(percent) if percent > 100 => Err(invalid(field, "use 0% to 100%")),
        Amount::Percent(_) | Amount::Count(_) => Ok(()),
    }
}

fn check_concurrency(field: &str, amount: Amount) -> Checked {
    check_percent(field, amount)?;
    match amount {
        Amount::Count(0) | Amount::Percent(0) => Err(invalid(field, "use at least 1 or 1%")),
        Amount::Count(_) | Amount::Percent(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
