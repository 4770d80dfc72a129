//! Starts and ends real processes for the demo and the system tests.
//!
//! Whatever this crate starts, it ends: every child is in a process group of its own and in one registry, which is
//! emptied on drop, on a panic, on Ctrl-C and on SIGTERM. Reading order: [`process`], [`bao`], [`stack`].

pub mod bao;
pub mod bench;
pub mod binaries;
pub mod demo;
pub mod fleet;
pub mod fuzz;
pub mod http;
pub mod manifests;
pub mod net;
pub mod process;
pub mod registry;
pub mod say;
pub mod simulate;
pub mod stack;
pub mod wait;
