//! What protects keys on their way: sealing to one agent, fingerprints, scrubbing, process hardening.
//!
//! - [`Sealer`] and [`Opener`] are the two ends of one sealing context per session (HPKE, RFC 9180).
//! - [`FingerprintKey`] and [`shown`] name a secret without telling it, to machines and to people.
//! - [`scrub`] takes out of a text whatever looks like a key, before the text is logged or sent.
//! - [`harden_process`] keeps the process's memory out of core dumps and other processes.

mod error;
mod fingerprint;
mod harden;
mod scrub;
mod sealing;

pub use error::Error;
pub use fingerprint::{FingerprintKey, shown};
pub use harden::harden_process;
pub use scrub::scrub;
pub use sealing::{Opener, Sealer, SealingSecret, SessionInfo};
