//! A strategy: how a change spreads. Frozen when a rollout starts.

use std::fmt;
use std::time::Duration;

use crate::failure::FailureClass;
use crate::fleet::Selector;
use crate::id::StrategyName;

/// How a change spreads. Waves, concurrency and budgets count deployments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strategy {
    /// Its name.
    pub name: StrategyName,
    /// At least one; a deployment belongs to the first that takes it, the rest to the last.
    pub waves: Vec<Wave>,
    /// How long each step of one deployment, and a whole wave, may take.
    pub deadlines: Deadlines,
    /// How many failures of which class are bearable, counted per wave; the first that names a class decides.
    pub budgets: Vec<Budget>,
    /// Share of a wave, in percent, that may be offline without holding the wave up.
    pub offline_max_percent: u8,
    /// How many deployments are rolled back at a time.
    pub rollback_concurrency: Amount,
}

/// One wave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wave {
    /// Its name, for people.
    pub name: String,
    /// Which deployments may belong to it.
    pub selector: Selector,
    /// How many of those; `None` = all.
    pub sample: Option<Sample>,
    /// How many deployments may be between offered and proven at a time.
    pub concurrency: Amount,
    /// In a strict wave no more are in flight than failures are left in the budget, plus one:
    /// the failure that breaks a budget is the last one started.
    pub strict: bool,
    /// How long every deployment of the wave must have been proven before the next wave begins.
    pub soak: Duration,
}

/// How many of the deployments that match belong to the wave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample(pub Amount);

/// A number, or a share of a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// This many.
    Count(u32),
    /// This many of a hundred, 0 to 100.
    Percent(u8),
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// From offered to received.
    pub ack: Duration,
    /// From received to applied.
    pub apply: Duration,
    /// From applied to proven.
    pub prove: Duration,
    /// From the start of a wave to its end, soak included.
    pub wave: Duration,
}

/// How many failures are bearable, and what happens beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Which failures; `None` = every class that no other budget names.
    pub class: Option<FailureClass>,
    /// How many per wave; a percentage is of the wave's deployments, rounded down.
    pub max: Amount,
    /// In a wave that is not strict, the budget is looked at only when this many deployments of the wave
    /// have settled (proven or failed), or all have.
    pub min_sample: u32,
    /// What happens when there are more.
    pub action: Action,
}

/// What happens when a budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Nothing: the failures are reported.
    Continue,
    /// The rollout pauses.
    Pause,
    /// The rollout halts.
    Halt,
    /// The rollout halts and rolls back.
    Rollback,
}

/// A strategy that contradicts itself: where, and what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidStrategy {
    /// Path of the field in the manifest, such as `waves[1].concurrency`.
    pub field: String,
    /// What is wrong and what to change.
    pub problem: String,
}

impl Amount {
    /// How many of `whole` this is: a percentage is rounded down.
    pub fn of(self, whole: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => {
                let share = u64::from(whole) * u64::from(percent) / 100;
                u32::try_from(share).unwrap_or(u32::MAX)
            }
        }
    }

    /// How many of `whole` this is, but at least one: what concurrency and samples mean.
    pub fn of_at_least_one(self, whole: u32) -> u32 {
        self.of(whole).max(1)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Action {
    /// Every action, the mildest first.
    pub const ALL: [Self; 4] = [Self::Continue, Self::Pause, Self::Halt, Self::Rollback];

    /// The name in manifests and sentences.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Continue => "continue",
            Self::Pause => "pause",
            Self::Halt => "halt",
            Self::Rollback => "rollback",
        }
    }

    /// The action of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == text)
    }
}

impl Strategy {
    /// The budget that counts failures of this class, if any does.
    pub fn budget_for(&self, class: FailureClass) -> Option<&Budget> {
        self.budgets
            .iter()
            .find(|budget| budget.class == Some(class))
            .or_else(|| self.budgets.iter().find(|budget| budget.class.is_none()))
    }

    /// Finds what contradicts itself.
    ///
    /// # Errors
    /// The first [`InvalidStrategy`], with the field's path.
    pub fn validate(&self) -> Result<(), InvalidStrategy> {
        if self.waves.is_empty() {
            return Err(invalid("waves", "a strategy needs at least one wave"));
        }
        for (index, wave) in self.waves.iter().enumerate() {
            wave.validate(index, self.deadlines.wave)?;
        }
        if let Some(last) = self.waves.last()
            && last.sample.is_some()
        {
            let field = format!("waves[{}].sample", self.waves.len() - 1);
            return Err(invalid(
                &field,
                "the last wave takes all that is left: remove the sample",
            ));
        }
        for (index, budget) in self.budgets.iter().enumerate() {
            let same = self.budgets[..index]
                .iter()
                .any(|other| other.class == budget.class);
            if same {
                let field = format!("budgets[{index}].class");
                return Err(invalid(
                    &field,
                    "an earlier budget names the same class: keep one",
                ));
            }
            check_percent(&format!("budgets[{index}].max"), budget.max)?;
        }
        if self.offline_max_percent > 100 {
            return Err(invalid("offline.maxPercent", "use 0 to 100"));
        }
        check_concurrency("rollback.concurrency", self.rollback_concurrency)
    }
}

impl Wave {
    fn validate(&self, index: usize, wave_deadline: Duration) -> Result<(), InvalidStrategy> {
        let field = |name: &str| format!("waves[{index}].{name}");
        if self.name.trim().is_empty() {
            return Err(invalid(&field("name"), "a wave needs a name"));
        }
        check_concurrency(&field("concurrency"), self.concurrency)?;
        if let Some(Sample(amount)) = self.sample {
            check_concurrency(&field("sample"), amount)?;
        }
        if self.soak >= wave_deadline {
            let problem = "the soak must be shorter than deadlines.wave, else no wave can end";
            return Err(invalid(&field("soak"), problem));
        }
        Ok(())
    }
}

fn invalid(field: &str, problem: &str) -> InvalidStrategy {
    InvalidStrategy {
        field: field.to_owned(),
        problem: problem.to_owned(),
    }
}

fn check_percent(field: &str, amount: Amount) -> Result<(), InvalidStrategy> {
    match amount {
        Amount::Percent(percent) if percent > 100 => Err(invalid(field, "use 0% to 100%")),
        Amount::Percent(_) | Amount::Count(_) => Ok(()),
    }
}

fn check_concurrency(field: &str, amount: Amount) -> Result<(), InvalidStrategy> {
    check_percent(field, amount)?;
    match amount {
        Amount::Count(0) | Amount::Percent(0) => Err(invalid(field, "must be at least 1 or 1%")),
        Amount::Count(_) | Amount::Percent(_) => Ok(()),
    }
}

/// The strategy of placements that name none: one strict canary, then a tenth of the fleet at a time.
///
/// A key that the provider refuses rolls back at once; trouble that is not the change's own
/// (quota, rate limits) pauses; everything else halts above a tenth of a wave.
pub fn default_strategy(name: StrategyName) -> Strategy {
    let minutes = |n: u64| Duration::from_secs(n * 60);
    let wave = |name: &str, sample, concurrency, strict, soak| Wave {
        name: name.to_owned(),
        selector: Selector::default(),
        sample,
        concurrency,
        strict,
        soak,
    };
    let budget = |class, max, min_sample, action| Budget {
        class,
        max,
        min_sample,
        action,
    };
    Strategy {
        name,
        waves: vec![
            wave(
                "canary",
                Some(Sample(Amount::Count(1))),
                Amount::Count(1),
                true,
                minutes(10),
            ),
            wave(
                "early",
                Some(Sample(Amount::Percent(10))),
                Amount::Percent(25),
                false,
                minutes(10),
            ),
            wave("fleet", None, Amount::Percent(10), false, Duration::ZERO),
        ],
        deadlines: Deadlines {
            ack: Duration::from_secs(30),
            apply: minutes(2),
            prove: minutes(3),
            wave: minutes(120),
        },
        budgets: vec![
            budget(
                Some(FailureClass::Auth),
                Amount::Count(0),
                1,
                Action::Rollback,
            ),
            budget(
                Some(FailureClass::Quota),
                Amount::Percent(5),
                20,
                Action::Pause,
            ),
            budget(
                Some(FailureClass::RateLimit),
                Amount::Percent(5),
                20,
                Action::Pause,
            ),
            budget(None, Amount::Percent(10), 10, Action::Halt),
        ],
        offline_max_percent: 20,
        rollback_concurrency: Amount::Percent(50),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strategy() -> Strategy {
        default_strategy("default".parse().unwrap())
    }

    #[test]
    fn percentages_round_down_and_concurrency_is_at_least_one() {
        let cases = [
            (30, 10, 3, 3),
            (30, 9, 2, 2),
            (10, 9, 0, 1),
            (0, 9, 0, 1),
            (100, 9, 9, 9),
        ];
        for (percent, whole, of, at_least_one) in cases {
            assert_eq!(Amount::Percent(percent).of(whole), of);
            assert_eq!(
                Amount::Percent(percent).of_at_least_one(whole),
                at_least_one
            );
        }
    }

    #[test]
    fn the_default_is_valid() {
        assert_eq!(strategy().validate(), Ok(()));
    }

    #[test]
    fn contradictions_name_the_field() {
        type Change = fn(&mut Strategy);
        let cases: [(Change, &str); 7] = [
            (|s| s.waves.clear(), "waves"),
            (|s| s.waves[1].name.clear(), "waves[1].name"),
            (
                |s| s.waves[0].concurrency = Amount::Count(0),
                "waves[0].concurrency",
            ),
            (
                |s| s.waves[0].soak = Duration::from_secs(99_999),
                "waves[0].soak",
            ),
            (
                |s| s.waves[2].sample = Some(Sample(Amount::Count(1))),
                "waves[2].sample",
            ),
            (|s| s.budgets.push(s.budgets[0]), "budgets[4].class"),
            (
                |s| s.budgets[0].max = Amount::Percent(101),
                "budgets[0].max",
            ),
        ];
        for (change, field) in cases {
            let mut strategy = strategy();
            change(&mut strategy);
            assert_eq!(strategy.validate().unwrap_err().field, field);
        }
    }

    #[test]
    fn the_budget_of_a_class_is_its_own_or_the_catch_all() {
        let strategy = strategy();
        assert_eq!(
            strategy.budget_for(FailureClass::Auth).unwrap().action,
            Action::Rollback
        );
        assert_eq!(
            strategy.budget_for(FailureClass::Model).unwrap().action,
            Action::Halt
        );
    }
}
