//! Kibana's HTTP API, inference endpoints of its Elasticsearch, and the connector drivers.
//!
//! Two halves that meet in [`Write`] and [`Observed`]:
//!
//! - [`Client`] speaks to one Kibana, and to the Elasticsearch behind it: what it is, what it holds, and the four verbs
//!   on connectors and inference endpoints. It knows nothing of a connector type's fields. [`preflight()`] asks
//!   everything that must hold before the first write, and tells it question by question.
//! - a [`Driver`] knows one connector type: which fields it has, since which Kibana, how a definition is rendered,
//!   compared with what Kibana stored, and proven by a live call. It does no IO, so the control service uses it for
//!   dry checks. Nothing outside this crate knows a type's fields.
//!
//! Adding a connector type: one module beside `driver/gen_ai.rs`, one row in `driver::DRIVERS`. Adding a provider to
//! `.gen-ai`: rows in `driver/gen_ai/providers.rs`.
//!
//! Sources of the rules are Kibana's own code and tests; each rule names the Kibana version it began with.

mod api;
mod client;
mod driver;
mod error;
mod preflight;
mod text;
mod version;
mod write;

pub use api::{Execution, Observed, Space, Status, TypeInfo};
pub use client::{Call, Client, Credentials, Elasticsearch, Service, Settings};
pub use driver::{
    Difference, Driver, Feature, InvalidConfig, KeyValue, ProbeResult, SecretPart, Surface,
    check_display_name, driver, driver_types, is_plain_text,
};
pub use error::Error;
pub use preflight::{Check, CheckName, CheckOutcome, Preflight, Problem, Scope, Wanted, preflight};
pub use version::{InvalidVersion, Version};
pub use write::Write;
