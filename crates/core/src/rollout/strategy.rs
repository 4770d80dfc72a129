//! A strategy: how a change spreads. Frozen when a rollout starts.

mod check;
mod rules;
mod usual;

use std::fmt;
use std::time::Duration;

use jiff::civil::Date;

use crate::failure::FailureClass;
use crate::fleet::Selector;
use crate::id::StrategyName;

use super::gate::Gate;
pub use usual::default_strategy;

/// How a change spreads. Waves, concurrency and budgets count deployments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strategy {
    /// Its name.
    pub name: StrategyName,
    /// At least one; a deployment belongs to the first that takes it, the rest to the last.
    pub waves: Vec<Wave>,
    /// How each wave begins: with few at a time, more as deployments are proven; `None` = concurrency alone holds.
    pub ramp: Option<Ramp>,
    /// How many deployments may be offered the change within any minute, in all waves together; `None` = any number.
    pub max_per_minute: Option<u32>,
    /// How long each step of one deployment, and a whole wave, may take.
    pub deadlines: Deadlines,
    /// How many failures of which class are bearable. All that name a class hold; those without one count every class that
    /// none names.
    pub budgets: Vec<Budget>,
    /// What deployments that are not connected mean.
    pub offline: Offline,
    /// When deployments may be offered the change; empty = always.
    pub windows: Vec<Window>,
    /// Days on which no deployment is offered the change.
    pub blackouts: Vec<Blackout>,
    /// Questions asked in the background while the run goes on.
    pub gates: Vec<Gate>,
    /// How the way back is taken: waves, soak, ramp, windows, gates and approvals do not hold it.
    pub rollback: Rollback,
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
    /// Spreads what is in flight over the values of a label.
    pub spread: Option<Spread>,
    /// In a strict wave no more are in flight than failures are left in the budget, plus one:
    /// the failure that breaks a budget is the last one started.
    pub strict: bool,
    /// In a mandatory wave every deployment has to be proven before the next wave begins: nobody may be away,
    /// and one failure of any class halts the run where no budget says more.
    pub mandatory: bool,
    /// How long every deployment of the wave must have been proven before the next wave begins.
    pub soak: Duration,
    /// Who has to agree before the wave begins; `None` = nobody.
    pub approval: Option<Approval>,
}

/// How many of the deployments that match belong to the wave; the rest is left to later waves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// How many: a percentage is of those that match and that no earlier wave took, rounded down, at least one.
    pub amount: Amount,
    /// A label: the sample takes from each of its values in turn, so that every value is in it before any is in it
    /// twice. `None` = the lowest ids.
    pub spread: Option<String>,
    /// Where fewer deployments match, the wave takes none: a canary of a tiny fleet is the fleet.
    pub min_matching: u32,
}

/// How many deployments with the same value of a label may be in flight in a wave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spread {
    /// The label; deployments without it have one value together.
    pub label: String,
    /// How many of one value, at least 1.
    pub max: u32,
}

/// Success-driven growth of what may be in flight in a wave.
///
/// It begins with `start` at a time. Each time that as many more deployments of the wave are proven as were allowed at a
/// time, `factor_percent` times as many are allowed (rounded down, at least one more), up to the wave's concurrency:
/// with 1 and 200 that is 1, 2, 4, 8. A failure lets nothing grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ramp {
    /// How many at first, at least 1.
    pub start: u32,
    /// By how much it grows, in percent: 150 to 500, as in AWS IoT Jobs (1.1 to 5).
    pub factor_percent: u32,
}

/// Who has to agree before a wave begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Approval {
    /// How many distinct principals, at least 1.
    pub required: u32,
    /// True where whoever started the rollout is none of them.
    pub not_author: bool,
}

/// What deployments that are not connected mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offline {
    /// Share of a wave, in percent, that may be offline without holding the wave up.
    pub max_percent: u8,
    /// When who was away gets the change.
    pub catch_up: CatchUp,
}

/// When a deployment that was away while its wave ran gets the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUp {
    /// As soon as it is connected again, also after the end of the run and outside of its windows.
    Immediate,
    /// As soon as it is connected again and one of its windows is open; after the end of the run by a run of its own.
    InWindow,
}

/// Whose time a window or a blackout is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Zone {
    /// An IANA time zone, such as `Europe/Berlin`.
    Named(String),
    /// That of the deployment: its label [`TIME_ZONE_LABEL`], else UTC.
    OfDeployment,
}

/// The label of a deployment that names its IANA time zone.
pub const TIME_ZONE_LABEL: &str = "timezone";

/// A maintenance window: a deployment is offered the change only in one of them, and not so late in it that its
/// deadlines ack, apply and prove would end outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// When it opens, as five cron fields: minute, hour, day of month, month, day of week.
    pub cron: String,
    /// How long it stays open.
    pub duration: Duration,
    /// Whose clock the cron fields are read from.
    pub zone: Zone,
}

/// Days without change, in the deployment's own time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blackout {
    /// The first day.
    pub from: Date,
    /// The last day.
    pub until: Date,
    /// Why, for people.
    pub reason: String,
}

/// How the way back is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollback {
    /// How many deployments are on their way back at a time; a percentage is of those that the change touched.
    pub concurrency: Amount,
    /// How many may be told to go back within any minute; `None` = any number.
    pub max_per_minute: Option<u32>,
    /// How long one deployment may take; `None` = the sum of ack, apply and prove.
    pub deadline: Option<Duration>,
}

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
    /// What is counted together.
    pub per: Per,
    /// How many; a percentage is of the deployments that are counted, rounded down, so that it may be none.
    pub max: Amount,
    /// In a wave that is not strict, the budget is looked at only when this many of the counted deployments have
    /// settled (proven or failed), or all have. Among fewer than [`LOW_COUNT`] it is looked at at once.
    pub min_sample: u32,
    /// What happens when there are more.
    pub action: Action,
}

/// What a budget counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Per {
    /// The deployments of each wave.
    Wave,
    /// Those of all waves that have begun; a percentage is of all deployments of the run.
    Run,
}

/// Shares of fewer deployments than this are no statistics: `min_sample` of a budget does not apply to them.
pub const LOW_COUNT: u32 = 20;

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

impl Deadlines {
    /// How long one deployment may take: ack, apply and prove together.
    pub fn steps(&self) -> Duration {
        self.ack
            .saturating_add(self.apply)
            .saturating_add(self.prove)
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
    /// The first budget that counts failures of this class, if any does.
    pub fn budget_for(&self, class: FailureClass) -> Option<&Budget> {
        self.budgets
            .iter()
            .find(|budget| budget.class == Some(class))
            .or_else(|| self.budgets.iter().find(|budget| budget.class.is_none()))
    }
}

impl Per {
    /// The name in manifests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wave => "wave",
            Self::Run => "run",
        }
    }

    /// What has this name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Wave, Self::Run]
            .into_iter()
            .find(|per| per.as_str() == text)
    }
}

impl CatchUp {
    /// The name in manifests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Immediate => "immediate",
            Self::InWindow => "inWindow",
        }
    }

    /// What has this name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Immediate, Self::InWindow]
            .into_iter()
            .find(|catch_up| catch_up.as_str() == text)
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
