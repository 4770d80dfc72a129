//! The rollout engine under a small simulated fleet in virtual time: the same `plan` and `Phase::next` as in
//! production, model agents, one invariant checker that looks at every plan.

#![cfg(test)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "a simulated fleet has a dozen deployments"
)]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "most steps mean nothing to most checks"
)]

mod invariants;
mod random;
mod scenarios;
mod total;
mod world;
