//! The command line: what every command shares. Each command's own arguments are beside it.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::{
    andon, apply, audit, ca, campaign, completions, context, delete, deployment, describe, get,
    key, models, plan, rollout, token, version,
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
    /// Delete an object; what it placed is removed by a rollout
    Delete(delete::DeleteArgs),
    /// List one kind of object
    #[command(subcommand)]
    Get(get::Command),
    /// Show one object with everything known of it
    #[command(subcommand)]
    Describe(describe::Command),
    /// Show the fleet in short: counts, rollouts, problems, and why things wait
    #[command(after_long_help = "\
Example:
  keyfleet status")]
    Status,
    /// Watch and steer rollouts
    #[command(subcommand)]
    Rollout(rollout::Command),
    /// Rotate keys: watch, approve and steer campaigns
    #[command(subcommand)]
    Campaign(campaign::Command),
    /// Suspend, revoke, replace, remove and label deployments
    #[command(subcommand)]
    Deployment(deployment::Command),
    /// Create, list and revoke tokens of agents and operators
    #[command(subcommand)]
    Token(token::Command),
    /// Show keys and their versions, never their secrets
    #[command(subcommand)]
    Key(key::Command),
    /// Show and rotate the CA of agents' certificates
    #[command(subcommand)]
    Ca(ca::Command),
    /// Stop the whole fleet at once, and let it go on
    #[command(subcommand)]
    Andon(andon::Command),
    /// Show, export and verify who did what and why
    #[command(subcommand)]
    Audit(audit::Command),
    /// Show how fit models are for Elastic's tasks, and which end soon
    Models(models::ModelsArgs),
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

    #[test]
    fn every_verb_has_an_example() {
        fn check(path: &str, command: &mut clap::Command) {
            let names: Vec<String> = command
                .get_subcommands()
                .map(|verb| verb.get_name().to_owned())
                .collect();
            for name in &names {
                let verb = command.find_subcommand_mut(name).unwrap();
                check(&format!("{path} {name}"), verb);
            }
            let help = command.render_long_help().to_string();
            let example = help.split("Example").nth(1).unwrap_or_default();
            assert!(
                !names.is_empty() || example.contains(path),
                "{path}:\n{help}"
            );
        }
        check("keyfleet", &mut Cli::command());
    }
}
