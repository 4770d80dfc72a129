//! Failure budgets: how many are used, and which is spent.

mod outcomes;

use std::fmt;
use std::sync::Arc;

use crate::failure::FailureClass;

use super::plan::Target;
use super::strategy::{Action, Amount, Budget, Per, Strategy, Wave};
pub(super) use outcomes::Outcomes;

/// How much of one budget is used, for display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetUse {
    /// Which failures it counts; `None` = every class that no other budget names.
    pub class: Option<FailureClass>,
    /// What it counts together.
    pub per: Per,
    /// How many deployments failed so.
    pub failures: u32,
    /// How many are bearable.
    pub max: u32,
}

/// A budget with more failures than it bears; prints as the sentence of the rollout's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// The budget; in a mandatory wave as it is there: none is bearable, and nothing is merely reported.
    pub budget: Budget,
    /// The classes that failed, in the order of [`FailureClass::ALL`].
    pub classes: Vec<FailureClass>,
    /// How many deployments failed.
    pub failures: u32,
    /// How many are bearable.
    pub max: u32,
    /// How many deployments are counted.
    pub deployments: u32,
    /// The wave's name; `None` where the budget is of all waves together.
    pub wave: Option<Arc<str>>,
}

/// How much of every budget of the strategy is used, in the order of the budgets: of those of a wave what the wave of
/// this index has used, of those of the run what all waves have.
pub fn budget_use(strategy: &Strategy, targets: &[Target], wave: usize) -> Vec<BudgetUse> {
    let (mut of_wave, mut of_run) = (Outcomes::default(), Outcomes::default());
    for target in targets {
        of_run.count(target);
        if target.wave == wave {
            of_wave.count(target);
        }
    }
    let is_mandatory = strategy.waves.get(wave).is_some_and(|wave| wave.mandatory);
    let used = |budget: &Budget| match budget.per {
        Per::Wave if is_mandatory => of_wave.used(strategy, &unbearable(budget)),
        Per::Wave => of_wave.used(strategy, budget),
        Per::Run => of_run.used(strategy, budget),
    };
    strategy.budgets.iter().map(used).collect()
}

/// The budgets that hold in a wave by itself.
///
/// In a mandatory wave no failure is bearable, whatever a budget says and whether there is one: it does at once what the
/// budget of its class says, and halts where that says nothing.
pub(super) fn budgets_of_wave(strategy: &Strategy, wave: &Wave) -> Vec<Budget> {
    if !wave.mandatory {
        let of_wave = |budget: &&Budget| budget.per == Per::Wave;
        return strategy.budgets.iter().filter(of_wave).copied().collect();
    }
    let mut budgets: Vec<Budget> = strategy.budgets.iter().map(unbearable).collect();
    if budgets.iter().all(|budget| budget.class.is_some()) {
        budgets.push(unbearable(&Budget {
            class: None,
            per: Per::Wave,
            max: Amount::Count(0),
            min_sample: 0,
            action: Action::Halt,
        }));
    }
    budgets
}

/// The budgets of all waves together.
pub(super) fn budgets_of_run(strategy: &Strategy) -> impl Iterator<Item = &Budget> {
    strategy
        .budgets
        .iter()
        .filter(|budget| budget.per == Per::Run)
}

/// The budget as it is in a mandatory wave.
fn unbearable(budget: &Budget) -> Budget {
    Budget {
        class: budget.class,
        per: Per::Wave,
        max: Amount::Count(0),
        min_sample: 0,
        action: match budget.action {
            Action::Continue => Action::Halt,
            action @ (Action::Pause | Action::Halt | Action::Rollback) => action,
        },
    }
}

/// True where failures of the class count against the budget: it names the class, or no budget does.
fn counts(strategy: &Strategy, budget: &Budget, class: FailureClass) -> bool {
    match budget.class {
        Some(named) => named == class,
        None => strategy
            .budgets
            .iter()
            .all(|other| other.class != Some(class)),
    }
}

impl fmt::Display for BudgetUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class {
            Some(class) => write!(f, "{class} {}/{}", self.failures, self.max)?,
            None => write!(f, "other {}/{}", self.failures, self.max)?,
        }
        match self.per {
            Per::Wave => Ok(()),
            Per::Run => f.write_str(" of the run"),
        }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            failures,
            deployments,
            max,
            ..
        } = self;
        match &self.wave {
            Some(wave) => write!(f, "wave {wave}: ")?,
            None => f.write_str("all waves: ")?,
        }
        write!(f, "{failures} of {deployments} deployments failed with ")?;
        for (index, class) in self.classes.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{class}")?;
        }
        write!(f, ", budget {max}: {}", self.budget.action.as_str())
    }
}

#[cfg(test)]
mod tests;
