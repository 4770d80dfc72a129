//! How a change spreads over the fleet: waves, concurrency, soak, deadlines, budgets, rollback.
//!
//! [`plan`] is one pure, total, deterministic function, used to act, to preview and to test.
//! [`Phase::next`] is the one table that changes a phase. The shell around them is always the same:
//! load, plan, save, publish, sleep until `wake_at` or a nudge.

mod budget;
mod estimate;
mod gate;
pub mod invariants;
mod phase;
mod plan;
mod run;
mod strategy;
mod waiting;
mod waves;

pub use budget::{Breach, BudgetUse, budget_use};
pub use estimate::{Estimate, estimate};
pub use gate::{Comparison, Gate, GateCheck, GateState, InvalidThreshold, Threshold, Verdict};
pub use phase::{Event, IllegalTransition, Phase, Verb};
pub use plan::{Opening, Plan, PlanInput, Step, Target, is_past_deadline, plan};
pub use run::{Approved, Run};
pub use strategy::{
    Action, Amount, Approval, Blackout, Budget, CatchUp, Deadlines, InvalidStrategy, LOW_COUNT,
    Offline, Per, Ramp, Rollback, Sample, Spread, Strategy, TIME_ZONE_LABEL, Wave, Window, Zone,
    default_strategy,
};
pub use waiting::{About, Deadline, RollbackHold, Waiting, WaitingOn, WaveHold, WaveRef};
pub use waves::{WaveShape, assign_waves, wave_shapes};
