//! The product as a user has it: real processes over loopback, a real OpenBao, simulated Kibanas and OpenAI.
//!
//! One file per behaviour. Each test has a stack of its own ([`kit::Fleet`]); `cargo xtask test` builds the binaries
//! and fetches OpenBao before.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod ask;
mod kit;
mod leak;

mod crash;
mod drift;
mod halt;
mod install;
mod operators;
mod refuse;
mod rotation;
mod secrets;
mod shutdown;
mod steer;
mod vault;
