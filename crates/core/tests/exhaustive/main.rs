//! Every state that a small run can reach: three deployments, two waves, all verbs, all failures, absences, andon.
//!
//! The model is the shell alone: it carries out what the very [`plan`](keyfleet_core::rollout::plan) says, and changes
//! phases by the very `Run::happen`. Breadth first, from every state each thing that can happen does happen. Times are
//! whole units, and matter only as far as a rule can tell them apart: that makes the states finite.
//!
//! Of each state is shown: no plan on the way to it breaks an invariant; planning comes to rest; and if from then on
//! everything works, the run ends.

#![cfg(test)]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "most steps mean nothing to most acts"
)]

mod calm;
mod explore;
mod model;
mod state;
mod variants;
