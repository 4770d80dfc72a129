//! The gRPC edge: authenticate, convert, call a use case, convert back.

pub(crate) mod agent;
pub(crate) mod operator;
mod session;
