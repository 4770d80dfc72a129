//! `keyfleet andon`: stops the whole fleet, and lets it go on.

use clap::Subcommand;
use keyfleet_proto::v1;

use super::Session;
use super::agree::ReasonArgs;
use crate::error::Error;
use crate::exit::Exit;
use crate::views;

/// What to do with the fleet-wide stop.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Stop the fleet: a second later nothing new is offered, no key leaves, no agent writes
    #[command(after_long_help = "\
Example:
  keyfleet andon on --reason 'wrong model in every canary'

What works goes on working: nothing is taken back. It survives a restart.")]
    On(ReasonArgs),
    /// Let the fleet go on; every deadline begins anew
    #[command(after_long_help = "\
Example:
  keyfleet andon off --reason 'model corrected'")]
    Off(ReasonArgs),
    /// Show whether the fleet is stopped, by whom and why
    #[command(after_long_help = "\
Example:
  keyfleet andon status")]
    Status,
}

pub(super) async fn run(session: &Session<'_>, command: Command) -> Result<Exit, Error> {
    let client = session.client().await?;
    let response = match command {
        Command::Status => {
            let status = client
                .call(v1::GetStatusRequest {}, async |api, request| {
                    api.get_status(request).await
                })
                .await?;
            v1::SetAndonResponse {
                andon: status.andon.then(|| status.andon_state.unwrap_or_default()),
            }
        }
        Command::On(args) => set(&client, true, args).await?,
        Command::Off(args) => set(&client, false, args).await?,
    };
    session.printer.show(&response, |view| {
        views::status::andon(response.andon.as_ref(), view)
    })?;
    Ok(Exit::Ok)
}

async fn set(
    client: &crate::client::Client,
    on: bool,
    args: ReasonArgs,
) -> Result<v1::SetAndonResponse, Error> {
    let request = v1::SetAndonRequest {
        on,
        reason: args.reason,
    };
    Ok(client
        .call(request, async |api, request| api.set_andon(request).await)
        .await?)
}
