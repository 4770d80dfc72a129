//! What contradicts itself in the waves.

use super::{Checked, check_concurrency, check_span, invalid};
use crate::fleet::{LABEL_CHARS_MAX, is_label};
use crate::rollout::strategy::{Amount, Approval, Sample, Spread, Strategy, Wave};
use crate::rollout::waiting::Human;

pub(super) fn validate(strategy: &Strategy) -> Checked {
    if strategy.waves.is_empty() {
        return Err(invalid("waves", "a strategy needs at least one wave"));
    }
    for (index, wave) in strategy.waves.iter().enumerate() {
        let at = At { strategy, index };
        at.name(wave)?;
        at.takes_somebody(wave)?;
        check_concurrency(&at.field("concurrency"), wave.concurrency)?;
        if let Some(sample) = &wave.sample {
            at.sample(sample)?;
        }
        if let Some(spread) = &wave.spread {
            at.spread(spread, wave.concurrency)?;
        }
        at.soak(wave)?;
        if let Some(approval) = wave.approval {
            at.approval(approval)?;
        }
    }
    Ok(())
}

/// One wave of the strategy.
struct At<'a> {
    strategy: &'a Strategy,
    index: usize,
}

impl At<'_> {
    fn field(&self, name: &str) -> String {
        format!("waves[{}].{name}", self.index)
    }

    fn earlier(&self) -> &[Wave] {
        &self.strategy.waves[..self.index]
    }

    fn is_last(&self) -> bool {
        self.index + 1 == self.strategy.waves.len()
    }

    fn name(&self, wave: &Wave) -> Checked {
        if wave.name.trim().is_empty() {
            return Err(invalid(self.field("name"), "a wave needs a name"));
        }
        if self.earlier().iter().any(|other| other.name == wave.name) {
            let problem = format!("another wave is called {:?}: rename one", wave.name);
            return Err(invalid(self.field("name"), problem));
        }
        Ok(())
    }

    /// The last wave also takes what none selects: only a wave that takes everything leaves it nothing.
    fn takes_somebody(&self, wave: &Wave) -> Checked {
        let takes_all = |other: &&Wave| {
            let is_wide = match self.is_last() {
                true => other.selector.is_everything(),
                false => wave.selector.implies(&other.selector),
            };
            other.sample.is_none() && is_wide
        };
        match self.earlier().iter().find(takes_all) {
            None => Ok(()),
            Some(greedy) => Err(invalid(
                self.field("select"),
                format_args!(
                    "takes nobody, because wave {:?} before it takes all of them: give that one a narrower `select` or a `sample`, or remove this wave",
                    greedy.name
                ),
            )),
        }
    }

    fn sample(&self, sample: &Sample) -> Checked {
        if self.is_last() {
            let problem =
                "the last wave takes all that is left: remove the sample, or add a wave after it";
            return Err(invalid(self.field("sample"), problem));
        }
        check_concurrency(&self.field("sample"), sample.amount)?;
        match &sample.spread {
            Some(label) => check_label(&self.field("sample.spread"), label),
            None => Ok(()),
        }
    }

    fn spread(&self, spread: &Spread, concurrency: Amount) -> Checked {
        check_label(&self.field("spread.label"), &spread.label)?;
        let field = self.field("spread.max");
        match concurrency {
            _ if spread.max == 0 => Err(invalid(field, "nothing would ever begin: use at least 1")),
            Amount::Count(count) if spread.max > count => {
                let problem = format!(
                    "is {}, and the wave allows {count} at a time: use at most {count}, or remove the spread",
                    spread.max
                );
                Err(invalid(field, problem))
            }
            Amount::Count(_) | Amount::Percent(_) => Ok(()),
        }
    }

    /// A deployment that takes all the time it may, and then soaks, must not make its wave overdue.
    fn soak(&self, wave: &Wave) -> Checked {
        let field = self.field("soak");
        check_span(&field, wave.soak)?;
        let deadlines = &self.strategy.deadlines;
        let longest = wave.soak.saturating_add(deadlines.steps());
        if longest < deadlines.wave || wave.soak.is_zero() {
            return Ok(());
        }
        let problem = format!(
            "{} and what one deployment may take ({}: the deadlines ack, apply and prove together) are no shorter than deadlines.wave ({}), so the wave could not end in time: soak for less, or raise deadlines.wave",
            Human(wave.soak),
            Human(deadlines.steps()),
            Human(deadlines.wave)
        );
        Err(invalid(field, problem))
    }

    fn approval(&self, approval: Approval) -> Checked {
        let field = self.field("approval.required");
        match approval.required {
            0 => Err(invalid(
                field,
                "nobody has to agree: use at least 1, or remove the approval",
            )),
            1..=APPROVALS_MAX => Ok(()),
            _ => Err(invalid(field, format_args!("use at most {APPROVALS_MAX}"))),
        }
    }
}

/// More people than this never agree.
const APPROVALS_MAX: u32 = 20;

fn check_label(field: &str, label: &str) -> Checked {
    if is_label(label) {
        return Ok(());
    }
    let problem = format!(
        "is not a label: use the key of one, 1 to {LABEL_CHARS_MAX} letters, digits, `-`, `_`, `.` or `/`"
    );
    Err(invalid(field, problem))
}
