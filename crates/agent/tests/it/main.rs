//! The agent against a fake control service, a simulated Kibana and a simulated OpenAI, all on loopback.

mod control;
mod crash;
mod drift;
mod enrolment;
mod faults;
mod harness;
mod install;
mod protocol;
