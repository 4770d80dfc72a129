//! The product as a user has it: real processes over loopback, a real OpenBao, simulated Kibanas and OpenAI.
//!
//! One file per behaviour. Each test has a stack of its own ([`kit::Fleet`]); `cargo xtask test` builds the binaries
//! and fetches OpenBao before.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod ask;
mod kit;
mod leak;

mod adoption;
mod andon;
mod audit;
mod authority;
mod backup;
mod campaign;
mod cluster;
mod crash;
mod deputy;
mod disk;
mod drift;
mod edges;
mod explain;
mod faults;
mod gates;
mod halt;
mod identity;
mod install;
mod logins;
mod migration;
mod names;
mod operators;
mod preflight;
mod providers;
mod proxy;
mod refuse;
mod remote;
mod removal;
mod rotation;
mod scopes;
mod secrets;
mod shutdown;
mod spaces;
mod steer;
mod strategy;
mod vault;
