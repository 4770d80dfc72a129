//! The client against a simulated Kibana, and against servers that answer nonsense.
#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml frees tests, but not the helpers beside them"
)]

mod bad_answers;
mod calls;
mod endpoints;
mod endpoints_life;
mod fuzz;
mod lists;
mod preflight;
mod support;
mod tls;
