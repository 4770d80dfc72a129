//! Failure budgets: how many are used, and which is spent.

use std::collections::BTreeMap;
use std::fmt;

use crate::failure::FailureClass;

use super::plan::{Step, Target};
use super::strategy::{Action, Budget, Strategy, Wave};

/// How much of one budget a wave has used, for display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetUse {
    /// Which failures it counts; `None` = every class that no other budget names.
    pub class: Option<FailureClass>,
    /// How many deployments of the wave failed so.
    pub failures: u32,
    /// How many are bearable.
    pub max: u32,
}

/// A budget with more failures than it bears; prints as the sentence of the rollout's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// The budget.
    pub budget: Budget,
    /// The classes that failed, in the order of [`FailureClass::ALL`].
    pub classes: Vec<FailureClass>,
    /// How many deployments failed.
    pub failures: u32,
    /// How many are bearable.
    pub max: u32,
    /// How many deployments the wave counts.
    pub deployments: u32,
    /// The wave's name.
    pub wave: String,
}

/// How much of every budget of the strategy the wave of this index has used, in the order of the budgets.
pub fn budget_use(strategy: &Strategy, targets: &[Target], wave: usize) -> Vec<BudgetUse> {
    let mut outcomes = Outcomes::default();
    for target in targets.iter().filter(|target| target.wave == wave) {
        outcomes.count(target);
    }
    strategy
        .budgets
        .iter()
        .map(|budget| outcomes.used(strategy, budget))
        .collect()
}

/// What has become of the deployments of one wave, as budgets count them.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcomes {
    /// Deployments of the wave.
    pub(super) deployments: u32,
    /// Those that are proven.
    pub(super) proven: u32,
    /// Those that failed and were already broken before the change, unless an operator forgave them.
    pub(super) broken_before: u32,
    /// Those that failed and were already broken before the change.
    uncounted: u32,
    /// Those that are proven or failed.
    settled: u32,
    /// Those that are connected and neither proven nor failed.
    open_online: u32,
    /// Failures that count, by class.
    failures: BTreeMap<FailureClass, u32>,
}

impl Outcomes {
    /// Adds a deployment of the wave.
    pub(super) fn count(&mut self, target: &Target) {
        self.deployments += 1;
        match target.step {
            Step::Proven(_) => {
                self.proven += 1;
                self.settled += 1;
            }
            Step::Failed(_, class) => {
                self.settled += 1;
                if target.baseline_red {
                    self.uncounted += 1;
                    self.broken_before += u32::from(!target.forgiven);
                } else if !target.forgiven {
                    *self.failures.entry(class).or_default() += 1;
                }
            }
            Step::Waiting
            | Step::Offered(_)
            | Step::Received(_)
            | Step::Applied(_)
            | Step::RollbackOffered(_)
            | Step::RolledBack(_)
            | Step::RollbackFailed(..) => self.open_online += u32::from(target.online),
        }
    }

    /// How many more failures the wave bears: the smallest of its budgets that would hold the run;
    /// `None` where none would.
    pub(super) fn budget_left(&self, strategy: &Strategy) -> Option<u32> {
        let holding = strategy
            .budgets
            .iter()
            .filter(|budget| budget.action != Action::Continue);
        let left = |budget| {
            let used = self.used(strategy, budget);
            used.max.saturating_sub(used.failures)
        };
        holding.map(left).min()
    }

    /// The budgets that are spent and say to hold the run, in the order of the strategy.
    pub(super) fn breaches<'a>(
        &'a self,
        strategy: &'a Strategy,
        wave: &'a Wave,
    ) -> impl Iterator<Item = Breach> + 'a {
        strategy.budgets.iter().filter_map(move |budget| {
            let used = self.used(strategy, budget);
            let looked_at =
                wave.strict || self.open_online == 0 || self.settled >= budget.min_sample;
            let spent = budget.action != Action::Continue && used.failures > used.max;
            (looked_at && spent).then(|| Breach {
                budget: *budget,
                classes: self
                    .classes(strategy, budget)
                    .map(|(class, _)| class)
                    .collect(),
                failures: used.failures,
                max: used.max,
                deployments: self.counted(),
                wave: wave.name.clone(),
            })
        })
    }

    /// The deployments that percentages are of: a broken one that stays broken says nothing.
    fn counted(&self) -> u32 {
        self.deployments - self.uncounted
    }

    fn used(&self, strategy: &Strategy, budget: &Budget) -> BudgetUse {
        BudgetUse {
            class: budget.class,
            failures: self
                .classes(strategy, budget)
                .map(|(_, failures)| failures)
                .sum(),
            max: budget.max.of(self.counted()),
        }
    }

    /// The failures that count against this budget.
    fn classes<'a>(
        &'a self,
        strategy: &'a Strategy,
        budget: &'a Budget,
    ) -> impl Iterator<Item = (FailureClass, u32)> + 'a {
        let counts = |class| {
            strategy
                .budget_for(class)
                .is_some_and(|of| of.class == budget.class)
        };
        self.failures
            .iter()
            .map(|(class, n)| (*class, *n))
            .filter(move |(class, _)| counts(*class))
    }
}

impl fmt::Display for BudgetUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class {
            Some(class) => write!(f, "{class} {}/{}", self.failures, self.max),
            None => write!(f, "other {}/{}", self.failures, self.max),
        }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            failures,
            deployments,
            max,
            wave,
            ..
        } = self;
        write!(
            f,
            "wave {wave}: {failures} of {deployments} deployments failed with "
        )?;
        for (index, class) in self.classes.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{class}")?;
        }
        write!(f, ", budget {max}: {}", self.budget.action.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;
    use crate::id::DeploymentId;
    use crate::rollout::strategy::{Amount, default_strategy};

    /// One letter a deployment: `p` proven, `w` waiting, `o` waiting and offline, `A` failed with AUTH,
    /// `M` with MODEL, `N` with NETWORK, `b` failed and broken before, `f` failed and forgiven.
    fn outcomes(letters: &str) -> Outcomes {
        let at = Timestamp::UNIX_EPOCH;
        let mut outcomes = Outcomes::default();
        for letter in letters.chars() {
            outcomes.count(&Target {
                deployment: DeploymentId::new(uuid::Uuid::nil()),
                wave: 0,
                step: match letter {
                    'p' => Step::Proven(at),
                    'A' | 'b' | 'f' => Step::Failed(at, FailureClass::Auth),
                    'M' => Step::Failed(at, FailureClass::Model),
                    'N' => Step::Failed(at, FailureClass::Network),
                    _ => Step::Waiting,
                },
                online: letter != 'o',
                baseline_red: letter == 'b',
                forgiven: letter == 'f',
                can_roll_back: true,
            });
        }
        outcomes
    }

    fn strategy(budgets: &[(Option<FailureClass>, Amount, u32, Action)]) -> Strategy {
        let mut strategy = default_strategy("test".parse().unwrap());
        strategy.budgets = budgets
            .iter()
            .map(|&(class, max, min_sample, action)| Budget {
                class,
                max,
                min_sample,
                action,
            })
            .collect();
        strategy
    }

    #[test]
    fn a_budget_is_spent_by_one_failure_more_than_it_bears() {
        let strategy = strategy(&[
            (
                Some(FailureClass::Auth),
                Amount::Count(0),
                4,
                Action::Rollback,
            ),
            (
                Some(FailureClass::Network),
                Amount::Count(0),
                0,
                Action::Continue,
            ),
            (None, Amount::Percent(25), 0, Action::Halt),
        ]);
        let check = |letters: &str, strict: bool, expected: &[&str]| {
            let wave = Wave {
                strict,
                ..strategy.waves[0].clone()
            };
            let breaches: Vec<_> = outcomes(letters)
                .breaches(&strategy, &wave)
                .map(|b| b.to_string())
                .collect();
            assert_eq!(breaches, expected, "{letters} strict={strict}");
        };
        let auth = |n: u32, of: u32| {
            format!("wave canary: {n} of {of} deployments failed with AUTH, budget 0: rollback")
        };
        check("", true, &[]);
        check("A", true, &[&auth(1, 1)]);
        check("Apww", true, &[&auth(1, 4)]);
        // Not strict: looked at after four, or when all that are online have settled.
        check("Apww", false, &[]);
        check("Apppw", false, &[&auth(1, 5)]);
        check("Apoo", false, &[&auth(1, 4)]);
        // Forgiven and already broken ones do not count; the latter leave the denominator too.
        check("bf", true, &[]);
        check("bA", true, &[&auth(1, 1)]);
        check("NNNN", true, &[]);
        check("Mppp", true, &[]);
        check(
            "Mppb",
            true,
            &["wave canary: 1 of 3 deployments failed with MODEL, budget 0: halt"],
        );
        check(
            "MMpp",
            true,
            &["wave canary: 2 of 4 deployments failed with MODEL, budget 1: halt"],
        );
    }

    #[test]
    fn the_catch_all_names_every_class_it_counts() {
        let strategy = strategy(&[(None, Amount::Count(0), 0, Action::Pause)]);
        let outcomes = outcomes("MAp");
        let breach = outcomes
            .breaches(&strategy, &strategy.waves[0])
            .next()
            .unwrap();
        let expected = "wave canary: 2 of 3 deployments failed with AUTH, MODEL, budget 0: pause";
        assert_eq!(breach.to_string(), expected);
    }

    #[test]
    fn what_is_left_is_the_smallest_budget_that_would_hold_the_run() {
        let budgets = [
            (
                Some(FailureClass::Auth),
                Amount::Count(3),
                9,
                Action::Rollback,
            ),
            (
                Some(FailureClass::Network),
                Amount::Count(0),
                9,
                Action::Continue,
            ),
            (None, Amount::Percent(50), 9, Action::Halt),
        ];
        let check = |letters: &str, expected: u32| {
            let left = outcomes(letters).budget_left(&strategy(&budgets));
            assert_eq!(left, Some(expected), "{letters}");
        };
        check("wwww", 2);
        check("Mwww", 1);
        check("MMMw", 0);
        check("AAww", 1);
        check("NNww", 2);
        check("fbww", 1);
        assert_eq!(outcomes("AA").budget_left(&strategy(&[])), None);
    }
}
