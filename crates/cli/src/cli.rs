//! The command line: what every command shares. Each command's own arguments are beside it.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::{
    apply, completions, context, describe, get, key, plan, rollout, token, version,
};
use crate::{duration, exit};

/// Brings keys from Vault to every Kibana, and proves that each one works.
#[derive(Debug, Parser)]
#[command(name = "keyfleet", version, propagate_version = false, after_help = exit::HELP, arg_required_else_help = true)]
#[command(max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Flags of every command")]
pub(crate) struct Global {
    /// Use this context instead of the current one
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Tables for people (wide: every column, full times), json and yaml for machines
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// No colours
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// Give up after this long: a call (30s by default), or a whole wait (never by default)
    #[arg(long, global = true, value_parser = duration::parse, value_name = "TIME")]
    pub(crate) timeout: Option<Duration>,
    /// Print no notes and no progress, only data and errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    // Plain comments: help texts of values would blow up the help of every command.
    // A table that fits the terminal.
    Table,
    // A table with every column and full times.
    Wide,
    // Canonical protobuf JSON.
    Json,
    // The same as YAML.
    Yaml,
}

/// The commands, in the order of their use.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Choose the control service to speak to, and how
    #[command(subcommand)]
    Context(context::Command),
    /// Show what manifests would change, and why
    Plan(plan::PlanArgs),
    /// Store manifests and start the rollouts they need
    Apply(apply::ApplyArgs),
    /// List one kind of object
    #[command(subcommand)]
    Get(get::Command),
    /// Show one object with everything known of it
    #[command(subcommand)]
    Describe(describe::Command),
    /// Show the fleet in short: counts, rollouts, problems, and why things wait
    Status,
    /// Watch and steer rollouts
    #[command(subcommand)]
    Rollout(rollout::Command),
    /// Create, list and revoke tokens of agents and operators
    #[command(subcommand)]
    Token(token::Command),
    /// Show keys and their versions, never their secrets
    #[command(subcommand)]
    Key(key::Command),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Print the version of this command
    Version(version::VersionArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
