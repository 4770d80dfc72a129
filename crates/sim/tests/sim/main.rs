//! The simulators, seen from outside over HTTP.

mod connectors;
mod execute;
mod faults;
mod openai;
mod order;
mod process;
mod schema;
mod support;
