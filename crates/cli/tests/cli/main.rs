//! Runs the real `keyfleet` with a fresh home against a control service that holds state, and looks at what a
//! person, a script and a pipeline would see.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on stops at the line that says why"
)]

mod fake;
mod harness;

mod apply;
mod audit;
mod campaign;
mod context;
mod delete;
mod deployment;
mod errors;
mod preflight;
mod proxy;
mod read;
mod rollout;
mod simulate;
mod stop;
mod terminal;
mod token;
