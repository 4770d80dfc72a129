//! Free ports on loopback.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result};

/// Ports are taken from below the range that the kernel gives to outgoing connections (from 32768 on Linux), so that
/// no connection takes a port between the moment it is chosen, or its server is restarted, and the moment it is bound.
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;
const TRIES: usize = 200;

/// A port on 127.0.0.1 that nobody listens on now.
///
/// # Errors
/// No free port was found.
pub fn free_port() -> Result<u16> {
    free_ports(1)
}

/// The first of two neighbouring free ports. OpenBao listens on the port it is given and on the next one.
///
/// # Errors
/// No such pair was found.
pub fn free_port_pair() -> Result<u16> {
    free_ports(2)
}

fn free_ports(n: u16) -> Result<u16> {
    (0..TRIES)
        .map(|_| random_port())
        .find(|first| (0..n).all(|offset| is_free(first + offset)))
        .with_context(|| format!("no free port on 127.0.0.1 between {FIRST} and {LAST}"))
}

fn random_port() -> u16 {
    // Each `RandomState` is seeded anew: randomness enough to keep parallel tests apart.
    let offset = RandomState::new().hash_one(std::process::id()) % u64::from(LAST - FIRST);
    u16::try_from(offset).map_or(FIRST, |offset| FIRST + offset)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_can_be_bound_and_a_taken_one_is_not_offered() {
        let port = free_port().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert!(!is_free(port));
        drop(listener);
        let first = free_port_pair().unwrap();
        let both = [first, first + 1].map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
        assert!(both.iter().all(Result::is_ok));
    }
}
