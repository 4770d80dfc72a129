//! Failure budgets, counted anew.

use crate::failure::FailureClass;
use crate::rollout::plan::{Step, Target};
use crate::rollout::strategy::{Action, Budget, LOW_COUNT, Per};

use super::count::{Count, number, share};

/// How much of a budget is used where it is counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    pub(super) action: Action,
    pub(super) failures: u32,
    pub(super) max: u32,
    /// True where the sample is large enough to look at it.
    pub(super) is_looked_at: bool,
}

impl Used {
    /// True where it says to hold the run.
    pub(super) fn is_spent(&self) -> bool {
        self.is_looked_at && self.action != Action::Continue && self.failures > self.max
    }
}

/// All budgets that concern a wave that has begun, those of the run among them.
pub(super) fn of_wave(count: &Count<'_>, index: usize) -> Vec<Used> {
    let wave = &count.strategy().waves[index];
    let here = count.of_wave(index);
    let mut all: Vec<Used> = Vec::new();
    for budget in &count.strategy().budgets {
        let (begun, whole) = match budget.per {
            Per::Wave => (here.clone(), here.clone()),
            Per::Run => {
                let begun = count.present().filter(|target| count.has_begun(target));
                (begun.collect(), count.present().collect())
            }
        };
        let mut used = of(count, budget, &begun, &whole);
        // A budget of the run is looked at as the wave that is running asks for.
        let strict = match budget.per {
            Per::Wave => wave.strict,
            Per::Run => count.running().is_some_and(|(_, running)| running.strict),
        };
        used.is_looked_at |= strict;
        if wave.mandatory {
            // Only the failures of the wave itself are unbearable there.
            let failures = number(failures(count, budget, &here));
            if failures > 0 {
                used.max = 0;
                used.failures = used.failures.max(failures);
                used.is_looked_at = true;
                used.action = used.action.max(forbidden(budget.action));
            }
        }
        all.push(used);
    }
    let unnamed = here.iter().filter(|target| {
        counted_class(target).is_some_and(|class| count.strategy().budget_for(class).is_none())
    });
    if wave.mandatory {
        all.push(Used {
            action: Action::Halt,
            failures: number(unnamed.count()),
            max: 0,
            is_looked_at: true,
        });
    }
    all
}

/// How many more failures the wave bears; `None` where nothing would ever hold it.
pub(super) fn left(count: &Count<'_>, index: usize) -> Option<u32> {
    if count.strategy().waves[index].mandatory {
        return Some(0);
    }
    of_wave(count, index)
        .iter()
        .filter(|used| used.action != Action::Continue)
        .map(|used| used.max.saturating_sub(used.failures))
        .min()
}

/// The strongest action that some spent budget of a wave that has begun asks for.
pub(super) fn verdict(count: &Count<'_>) -> Option<Action> {
    count
        .begun()
        .flat_map(|(index, _)| of_wave(count, index))
        .filter(Used::is_spent)
        .map(|used| used.action)
        .max()
}

/// What a budget's action means where no failure is bearable.
fn forbidden(action: Action) -> Action {
    match action {
        Action::Continue => Action::Halt,
        Action::Pause | Action::Halt | Action::Rollback => action,
    }
}

fn of(count: &Count<'_>, budget: &Budget, begun: &[&Target], whole: &[&Target]) -> Used {
    let red = |target: &&&Target| target.baseline_red && matches!(target.step, Step::Failed(..));
    let counted = whole.len() - whole.iter().filter(red).count();
    let settled = |target: &&&Target| matches!(target.step, Step::Proven(_) | Step::Failed(..));
    let results = begun
        .iter()
        .filter(|target| settled(target) && !red(target));
    let is_large = number(results.count()) >= budget.min_sample;
    let open = begun
        .iter()
        .any(|target| target.online && !settled(&target));
    Used {
        action: budget.action,
        failures: number(failures(count, budget, begun)),
        max: share(budget.max, counted),
        is_looked_at: is_large || !open || number(counted) < LOW_COUNT,
    }
}

/// How many of these failed in a way that this budget counts.
fn failures(count: &Count<'_>, budget: &Budget, of: &[&Target]) -> usize {
    let named = |class: FailureClass| {
        let mut budgets = count.strategy().budgets.iter();
        budgets.any(|other| other.class == Some(class))
    };
    let counts = |class: FailureClass| match budget.class {
        Some(of) => of == class,
        None => !named(class),
    };
    of.iter()
        .filter(|target| counted_class(target).is_some_and(counts))
        .count()
}

/// How it failed, where that is counted: neither broken before nor forgiven.
fn counted_class(target: &Target) -> Option<FailureClass> {
    match target.step {
        Step::Failed(_, class) if !target.baseline_red && !target.forgiven => Some(class),
        Step::Waiting
        | Step::Offered(_)
        | Step::Received(_)
        | Step::Applied(_)
        | Step::Proven(_)
        | Step::Failed(..)
        | Step::RollbackOffered(_)
        | Step::RolledBack(_)
        | Step::RollbackFailed(..) => None,
    }
}
