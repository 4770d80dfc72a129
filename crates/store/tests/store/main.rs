//! The store on a real file: who may open it, what a crash leaves, and that every row is read back as it was.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests; they join the tasks they start"
)]

mod any;
mod audit;
mod backup;
mod campaigns;
mod common;
mod crash;
mod damage;
mod file;
mod holdings;
mod migration;
mod restore;
mod rows;
mod scratch;
mod seen;
