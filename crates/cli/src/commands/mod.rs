//! One command a file: its arguments, then `run`, which asks control and prints the answer.
//!
//! A new command: a file here with its arguments and `run`, a variant in [`crate::cli::Command`], an arm in
//! [`run`], a view in [`crate::views`] where it prints something new, a test in `tests/`.

pub(crate) mod apply;
pub(crate) mod completions;
pub(crate) mod context;
pub(crate) mod describe;
pub(crate) mod get;
pub(crate) mod key;
pub(crate) mod plan;
pub(crate) mod rollout;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod version;

use std::time::Duration;

use crate::cli::{Cli, Command, Global};
use crate::client::{CALL_DEADLINE, Client};
use crate::contexts::{self, Contexts};
use crate::env::Env;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Printer;

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

    async fn connect(&self, deadline: Duration) -> Result<Client, Error> {
        let contexts = Contexts::load(&contexts::path(&Env::read())?)?;
        let (_, context) = contexts.choose(self.global.context.as_deref())?;
        Ok(Client::connect(context, deadline).await?)
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
        Command::Get(command) => get::run(&session, command).await,
        Command::Describe(command) => describe::run(&session, command).await,
        Command::Status => status::run(&session).await,
        Command::Rollout(command) => rollout::run(&session, command).await,
        Command::Token(command) => token::run(&session, command).await,
        Command::Key(command) => key::run(&session, command).await,
        Command::Completions(args) => completions::run(&session, &args),
        Command::Version(args) => version::run(&session, &args).await,
    }
}
