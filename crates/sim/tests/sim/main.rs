//! The simulators, seen from outside over HTTP.

mod connectors;
mod elastic;
mod execute;
mod faults;
mod openai;
mod order;
mod process;
mod schema;
mod support;
mod switches;
mod types;
