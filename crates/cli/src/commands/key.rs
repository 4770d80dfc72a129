//! `keyfleet key`: keys and their versions, never their secrets.

use clap::Subcommand;

use super::{Session, describe, get};
use crate::error::Error;
use crate::exit::Exit;

/// What to show.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the keys
    #[command(visible_alias = "ls")]
    #[command(after_long_help = "\
Example:
  keyfleet key list")]
    List,
    /// Show a key with its versions
    #[command(after_long_help = "\
Example:
  keyfleet key show openai-prod")]
    Show {
        /// Name of the key
        name: String,
    },
}

pub(super) async fn run(session: &Session<'_>, command: Command) -> Result<Exit, Error> {
    let client = session.client().await?;
    match command {
        Command::List => get::keys(&client, session.printer).await?,
        Command::Show { name } => describe::key(&client, session.printer, name).await?,
    }
    Ok(Exit::Ok)
}
