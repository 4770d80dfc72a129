//! How a change spreads over the fleet: waves, concurrency, soak, deadlines, budgets, rollback.
//!
//! [`plan`] is one pure, total, deterministic function, used to act, to preview and to test.
//! [`Phase::next`] is the one table that changes a phase. The shell around them is always the same:
//! load, plan, save, publish, sleep until `wake_at` or a nudge.

mod budget;
mod phase;
mod plan;
mod strategy;
mod waiting;
mod waves;

pub use budget::{Breach, BudgetUse, budget_use};
pub use phase::{Event, IllegalTransition, Phase, Verb};
pub use plan::{Plan, PlanInput, Run, Step, Target, plan};
pub use strategy::{
    Action, Amount, Budget, Deadlines, InvalidStrategy, Sample, Strategy, Wave, default_strategy,
};
pub use waiting::{Deadline, RollbackHold, Waiting, WaitingOn, WaveHold, WaveRef};
pub use waves::{WaveShape, assign_waves, wave_shapes};
