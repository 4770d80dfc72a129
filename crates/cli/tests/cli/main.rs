//! Runs the real `keyfleet` with a fresh home against a control service that holds state, and looks at what a
//! person, a script and a pipeline would see.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on stops at the line that says why"
)]

mod fake;
mod harness;

mod apply;
mod context;
mod errors;
mod read;
mod rollout;
mod token;
