//! What has become of deployments, as budgets count them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Breach, BudgetUse, counts};
use crate::failure::FailureClass;
use crate::rollout::plan::{Step, Target};
use crate::rollout::strategy::{Action, Budget, LOW_COUNT, Strategy};

/// What has become of the deployments of one wave, or of the run. Those that left it are not among them.
#[derive(Debug, Clone, Default)]
pub(in crate::rollout) struct Outcomes {
    /// How many deployments there are.
    pub(in crate::rollout) deployments: u32,
    /// Those that are proven.
    pub(in crate::rollout) proven: u32,
    /// Those that failed and were already broken before the change, unless an operator forgave them.
    pub(in crate::rollout) broken_before: u32,
    /// Those that failed and were already broken before the change.
    uncounted: u32,
    /// Those that failed otherwise.
    failed: u32,
    /// Those that are connected and neither proven nor failed.
    open_online: u32,
    /// Failures that count, by class.
    failures: BTreeMap<FailureClass, u32>,
}

impl Outcomes {
    /// Adds a deployment.
    pub(in crate::rollout) fn count(&mut self, target: &Target) {
        if target.left {
            return;
        }
        self.deployments += 1;
        match target.step {
            Step::Proven(_) => self.proven += 1,
            Step::Failed(..) if target.baseline_red => {
                self.uncounted += 1;
                self.broken_before += u32::from(!target.forgiven);
            }
            Step::Failed(_, class) => {
                self.failed += 1;
                if !target.forgiven {
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

    /// Adds what has become of the deployments of a wave; whose wave has not begun is not waited for.
    pub(in crate::rollout) fn add(&mut self, other: &Self, has_begun: bool) {
        self.deployments += other.deployments;
        self.proven += other.proven;
        self.broken_before += other.broken_before;
        self.uncounted += other.uncounted;
        self.failed += other.failed;
        self.open_online += if has_begun { other.open_online } else { 0 };
        for (class, count) in &other.failures {
            *self.failures.entry(*class).or_default() += count;
        }
    }

    /// How many failed, counted or not.
    pub(in crate::rollout) fn all_failed(&self) -> u32 {
        self.failed + self.uncounted
    }

    /// How many more failures are bearable: the smallest of these budgets that would hold the run;
    /// `None` where none would.
    pub(in crate::rollout) fn budget_left<'a>(
        &self,
        strategy: &Strategy,
        budgets: impl IntoIterator<Item = &'a Budget>,
    ) -> Option<u32> {
        let holding = budgets
            .into_iter()
            .filter(|budget| budget.action != Action::Continue);
        let left = |budget| {
            let used = self.used(strategy, budget);
            used.max.saturating_sub(used.failures)
        };
        holding.map(left).min()
    }

    /// What there is to say where this budget is spent and says to hold the run. In a strict wave a budget is looked at
    /// after every failure, elsewhere once there are enough results to tell.
    pub(in crate::rollout) fn breach(
        &self,
        strategy: &Strategy,
        budget: &Budget,
        strict: bool,
        wave: Option<&Arc<str>>,
    ) -> Option<Breach> {
        if self.failures.is_empty() || budget.action == Action::Continue {
            return None;
        }
        let used = self.used(strategy, budget);
        let looked_at = strict
            || self.open_online == 0
            || self.counted() < LOW_COUNT
            || self.proven + self.failed >= budget.min_sample;
        (looked_at && used.failures > used.max).then(|| Breach {
            budget: *budget,
            classes: self
                .classes(strategy, budget)
                .map(|(class, _)| class)
                .collect(),
            failures: used.failures,
            max: used.max,
            deployments: self.counted(),
            wave: wave.cloned(),
        })
    }

    /// How much of the budget these have used.
    pub(super) fn used(&self, strategy: &Strategy, budget: &Budget) -> BudgetUse {
        let failures = self.classes(strategy, budget).map(|(_, count)| count).sum();
        BudgetUse {
            class: budget.class,
            per: budget.per,
            failures,
            max: budget.max.of(self.counted()),
        }
    }

    /// The deployments that percentages are of: a broken one that stays broken says nothing.
    fn counted(&self) -> u32 {
        self.deployments - self.uncounted
    }

    /// The failures that count against this budget.
    fn classes(
        &self,
        strategy: &Strategy,
        budget: &Budget,
    ) -> impl Iterator<Item = (FailureClass, u32)> {
        let all = self.failures.iter().map(|(class, count)| (*class, *count));
        all.filter(move |(class, _)| counts(strategy, budget, *class))
    }
}
