//! One command a file: its arguments, then `run`, which asks control and prints the answer.
//!
//! A new command: a file here with its arguments and `run`, a variant in [`crate::cli::Command`], an arm in
//! [`run`], a view in [`crate::views`] where it prints something new, a test in `tests/`.

pub(crate) mod agree;
pub(crate) mod andon;
pub(crate) mod apply;
pub(crate) mod audit;
pub(crate) mod ca;
pub(crate) mod campaign;
pub(crate) mod completions;
pub(crate) mod context;
pub(crate) mod delete;
pub(crate) mod deployment;
pub(crate) mod describe;
pub(crate) mod get;
pub(crate) mod key;
pub(crate) mod models;
pub(crate) mod plan;
pub(crate) mod rollout;
pub(crate) mod simulate;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod version;

use std::time::Duration;

use keyfleet_proto::v1;
use prost::{Message, Name};

use crate::cli::{Cli, Command, Global};
use crate::client::{self, CALL_DEADLINE, Client};
use crate::contexts::{self, Contexts};
use crate::env::Env;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Printer;
use crate::{proxy, views};

/// What a command works with.
pub(crate) struct Session<'a> {
    /// Where to print.
    pub(crate) printer: &'a Printer,
    global: Global,
}

impl Session<'_> {
    /// A connection for calls; `--timeout` is the deadline of each.
    ///
    /// # Errors
    /// Where the context is missing or nobody trusted answers.
    pub(crate) async fn client(&self) -> Result<Client, Error> {
        self.connect(self.global.timeout.unwrap_or(CALL_DEADLINE))
            .await
    }

    /// A connection for a command that waits: `--timeout` is the deadline of the wait, not of its calls.
    ///
    /// # Errors
    /// Where the context is missing or nobody trusted answers.
    pub(crate) async fn waiting_client(&self) -> Result<Client, Error> {
        self.connect(CALL_DEADLINE).await
    }

    /// The longest wait, where the operator named one.
    pub(crate) fn wait_deadline(&self) -> Option<Duration> {
        self.global.timeout
    }

    /// Prints what a change stored, and how to watch what it started.
    ///
    /// # Errors
    /// Where stdout cannot be written.
    fn changed<M: Message + Name>(
        &self,
        response: &M,
        result: &v1::PlanResult,
        rollout_ids: &[String],
    ) -> Result<(), Error> {
        self.printer
            .show(response, |_| views::plan::applied(result, rollout_ids))?;
        for id in rollout_ids {
            self.printer.note(format_args!(
                "watch it: keyfleet rollout watch {}",
                views::rollout::short_id(id)
            ));
        }
        Ok(())
    }

    async fn connect(&self, deadline: Duration) -> Result<Client, Error> {
        let env = Env::read();
        let contexts = Contexts::load(&contexts::path(&env)?)?;
        let (_, context) = contexts.choose(self.global.context.as_deref())?;
        let way = proxy::choose(context, &env).map_err(client::Error::from)?;
        Ok(Client::connect(context, way, deadline).await?)
    }
}

/// Runs the command of this command line.
///
/// # Errors
/// Whatever the command fails with.
pub(crate) async fn run(cli: Cli, printer: &Printer) -> Result<Exit, Error> {
    let session = Session {
        printer,
        global: cli.global,
    };
    match cli.command {
        Command::Context(command) => context::run(&session, command),
        Command::Plan(args) => plan::run(&session, &args).await,
        Command::Apply(args) => apply::run(&session, &args).await,
        Command::Delete(args) => delete::run(&session, args).await,
        Command::Get(command) => get::run(&session, command).await,
        Command::Describe(command) => describe::run(&session, command).await,
        Command::Status => status::run(&session).await,
        Command::Campaign(command) => campaign::run(&session, command).await,
        Command::Rollout(command) => rollout::run(&session, command).await,
        Command::Deployment(command) => deployment::run(&session, command).await,
        Command::Token(command) => token::run(&session, command).await,
        Command::Key(command) => key::run(&session, command).await,
        Command::Ca(command) => ca::run(&session, command).await,
        Command::Andon(command) => andon::run(&session, command).await,
        Command::Audit(command) => audit::run(&session, command).await,
        Command::Models(args) => models::run(&session, &args),
        Command::Completions(args) => completions::run(&session, &args),
        Command::Version(args) => version::run(&session, &args).await,
    }
}
