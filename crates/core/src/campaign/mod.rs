//! Key rotation campaigns: from a new key to the verified death of the old one (design 8).
//!
//! [`State`] is the one table of where a campaign is, [`mint`] decides the next step of making a key at the provider so
//! that no crash loses or doubles one, [`guard`] says what stands between a key version and its revocation, and [`step()`]
//! puts them together: what a campaign does next, or why it waits.

pub mod guard;
pub mod mint;
mod state;
mod step;

pub use guard::Case;
pub use state::{Course, Event, IllegalTransition, State, Verb};
pub use step::{Campaign, Found, REFUSALS_NEEDED, Step, Trial, Wait, list, step, trial_waits};
