//! `keyfleet-control`: arguments, settings, logs, run, exit code.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // Before anything secret is in memory: no core dumps, no other process of this user looks in.
    let hardened = keyfleet_seal::harden_process();
    keyfleet_telemetry::install_panic_hook();
    // A second installation is refused and changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::run(cli::Cli::parse(), hardened)
}
