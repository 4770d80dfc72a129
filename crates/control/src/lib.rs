//! The control service: pulls keys from Vault, pushes connectors to agents, proves them, and says why it waits.
//!
//! # Who owns what
//! - the database: one writer thread (crate `store`); every change is one transaction of a use case in `app`
//! - live sessions: `sessions`, in memory; a session's task is owned by its gRPC stream
//! - key values: `keyring`, in memory, wiped when nobody needs them
//! - decisions: crate `core`; `tasks::planner` is the only caller that acts on a plan
//!
//! Reading order: [`serve`], `app` (the use cases), `grpc` (the transports), `tasks`.

mod app;
pub mod backup;
pub mod ca;
mod clock;
pub mod config;
mod error;
mod files;
#[cfg(test)]
mod fuzz;
pub mod gates;
mod grpc;
pub mod init;
mod keyring;
mod limits;
mod manifest;
pub mod serve;
mod sessions;
mod simulate;
mod tasks;
mod tls;
mod web;
