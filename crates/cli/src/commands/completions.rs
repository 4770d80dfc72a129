//! `keyfleet completions`: a completion script for a shell.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Session;
use crate::cli::Cli;
use crate::error::Error;
use crate::exit::Exit;

/// Arguments of `completions`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Example:
  source <(keyfleet completions bash)")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(session: &Session<'_>, args: &CompletionsArgs) -> Result<Exit, Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "keyfleet", &mut script);
    session.printer.text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
