//! The provider's API: proves with one or two small calls that a key works for a model.
//!
//! First `GET /models/{model}`, which costs no tokens; only where its answer proves nothing, one chat completion of at
//! most 16 tokens, which is what a connector itself would send. Azure and compatible servers are asked for the
//! completion at once: the one has no such page, the others may show it to everybody.
//!
//! [`admin`] is the other side of the provider: it makes and deletes the keys.
//!
//! **Invariant:** the provider's message text is looked at and dropped. A refusal of a key repeats parts of the key,
//! of a short one all of it.
//!
//! The client needs rustls' process-wide provider: `main` installs ring's before [`Client::new`].

pub mod admin;
mod client;
mod refusal;
mod transport;
mod verify;

pub use client::{Client, Error, Proxy, Settings};
pub use refusal::Refusal;
pub use verify::{Proof, Verified};
