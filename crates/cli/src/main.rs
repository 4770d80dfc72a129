//! `keyfleet`: the operator's command.
//!
//! Data goes to stdout, everything else to stderr. One command is one file in `commands/`; what a message looks
//! like to a person is in `views/`; `watch/` is the live view of a rollout.

mod audit;
mod cli;
mod client;
mod commands;
mod contexts;
mod duration;
mod env;
mod error;
mod exit;
mod files;
#[cfg(test)]
mod fuzz;
mod output;
mod proxy;
mod trust;
mod views;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::Cli;
use crate::exit::Exit;
use crate::output::Printer;

fn main() -> ExitCode {
    // Err says that a provider is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    let printer = Printer::new(&cli.global);
    let exit = match run(cli, &printer) {
        Ok(exit) => exit,
        Err(err) => {
            printer.error(&err);
            err.exit()
        }
    };
    exit.into()
}

fn run(cli: Cli, printer: &Printer) -> Result<Exit, error::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(error::Error::Runtime)?;
    runtime.block_on(commands::run(cli, printer))
}
