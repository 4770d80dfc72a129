//! Key rotation campaigns: from a new key to the verified death of the old one (design 8).
//!
//! Three parts that know nothing of each other's insides: [`State`] is the one table of where a campaign is, [`mint`]
//! decides the next step of making a key at the provider so that no crash loses or doubles one, and [`guard`] says what
//! stands between a key version and its revocation.

pub mod guard;
pub mod mint;
mod state;

pub use state::{Course, Event, IllegalTransition, State, Verb};
