//! What should happen next: the pure decisions of Keyfleet.
//!
//! Nothing here does IO, reads a clock, draws a random number, waits, or serialises. The edges load values,
//! ask this crate what to do, and act. The same functions decide, preview (`keyfleet plan`) and are tested.
//!
//! Reading order: [`id`] and [`fleet`] (the nouns), [`connector`] and [`key`] (what is spread), [`binding`]
//! (the smallest thing that is proven), [`rollout`] (how it is spread).

pub mod adoption;
pub mod audit;
pub mod binding;
pub mod campaign;
pub mod connector;
pub mod failure;
pub mod fleet;
pub mod goal;
pub mod id;
pub mod key;
pub mod models;
pub mod placement;
pub mod rollout;
pub mod space;
pub mod standing;
pub mod token;
pub mod travel;

pub use jiff::Timestamp;
