//! Logs, metrics and error chains, set up one way for every binary.
//!
//! Logs go to stderr. Their last station is a writer that masks whatever looks like a key: a net below the real
//! protection, which is that no secret is ever logged. Each line it must mask is counted ([`scrubbed`]): more than 0
//! is a bug.

mod chain;
mod log;
#[cfg(feature = "metrics")]
pub mod metrics;
mod panic;

pub use chain::error_chain;
pub use log::{DEFAULT_FILTER, Error, Format, Scrub, init, scrubbed};
pub use panic::install_panic_hook;
