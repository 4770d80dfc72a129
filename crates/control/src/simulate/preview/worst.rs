//! The worst cases: what if every deployment failed in the same way, for each way that a budget counts, and for one that
//! no budget names.

use std::collections::BTreeSet;

use keyfleet_core::failure::FailureClass;
use keyfleet_core::rollout::Strategy;
use keyfleet_proto::v1;
use keyfleet_store::Rollout;

use super::Tried;
use super::fates::{Fate, fates, most};
use super::told::{after, number};
use crate::error::Error;

/// Ways in which everybody may fail.
pub(super) struct Worst;

impl Worst {
    /// The classes that the budgets name, and the first that none names: all of those are counted alike.
    pub(super) fn classes(rollouts: &[Rollout]) -> BTreeSet<FailureClass> {
        let mut classes = BTreeSet::new();
        for rollout in rollouts {
            let budgets = rollout.strategy.budgets.iter();
            let named: BTreeSet<_> = budgets.filter_map(|budget| budget.class).collect();
            let mut all = FailureClass::ALL.into_iter();
            classes.extend(all.find(|class| !named.contains(class)));
            classes.extend(named);
        }
        classes
    }
}

impl Tried {
    /// What the run that breaks most looks like.
    pub(super) fn worst_case(&self, class: FailureClass) -> Result<Option<v1::WorstCase>, Error> {
        let mut worst: Option<v1::WorstCase> = None;
        for rollout in self.rollouts()? {
            let fates = self.simulation.look(|tx| fates(tx, &rollout))?;
            let case = self.case(&rollout, &fates, class);
            if worst
                .as_ref()
                .is_none_or(|w| w.broken_max < case.broken_max)
            {
                worst = Some(case);
            }
        }
        Ok(worst)
    }

    fn case(&self, rollout: &Rollout, fates: &[Fate], class: FailureClass) -> v1::WorstCase {
        let hurt = || fates.iter().filter(|fate| fate.has_failed);
        let broken_max = most(hurt().filter_map(|fate| Some((fate.offered?, fate.back))));
        let ended = self.ended(rollout, fates);
        let held = self.stopped.get(&rollout.id).copied().unwrap_or(ended);
        let back = match hurt().all(|fate| fate.back.is_some()) {
            true => hurt().filter_map(|fate| fate.back).max(),
            false => None,
        };
        let phase = rollout.run.phase;
        let n_broken = match (broken_max, number(fates.len())) {
            (0, _) => "nobody would be broken".to_owned(),
            (n, all) if n == all => format!("all {all} would be broken"),
            (n, all) => format!("at most {n} of {all} would be broken at a time"),
        };
        let why = match rollout.run.hold_reason.as_str() {
            "" => String::new(),
            reason => format!(" ({reason})"),
        };
        let end = match back {
            Some(at) => format!(", and all work again after {}", after(self.start, at)),
            None if broken_max == 0 => String::new(),
            None => ", and they stay so until an operator acts".to_owned(),
        };
        let subject = subject(&rollout.strategy, class);
        v1::WorstCase {
            failure_class: v1::FailureClass::from(class).into(),
            broken_max,
            phase: v1::RolloutPhase::from(phase).into(),
            held_secs: self.secs(held),
            back_secs: back.map(|at| self.secs(at)),
            sentence: format!("{subject}: {n_broken}; the rollout ends {phase}{why}{end}"),
        }
    }
}

/// Who fails how, and which budget counts that.
fn subject(strategy: &Strategy, class: FailureClass) -> String {
    let budgets = &strategy.budgets;
    let every = format!("if every deployment failed with {class}");
    if budgets.is_empty() {
        return format!("{every}, as with any other class: the strategy has no budgets");
    }
    let has = |class| budgets.iter().any(|budget| budget.class == class);
    match (has(Some(class)), has(None)) {
        (true, _) => every,
        (false, true) => {
            format!("{every}, or with another class that only the budget `any` counts")
        }
        (false, false) => format!("{every}, or with another class that no budget counts"),
    }
}
