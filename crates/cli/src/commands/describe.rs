//! `keyfleet describe`: one object with everything known of it.

use clap::Subcommand;
use keyfleet_proto::v1;

use super::{Session, campaign, rollout};
use crate::client::Client;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Printer;
use crate::views;

/// What to describe.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A Kibana deployment with its bindings and events
    #[command(after_long_help = "\
Example:
  keyfleet describe deployment kibana-a")]
    Deployment {
        /// Name of the deployment
        name: String,
    },
    /// A connector with its revisions and bindings
    #[command(after_long_help = "\
Example:
  keyfleet describe connector assistant")]
    Connector {
        /// Name of the connector
        name: String,
    },
    /// A key with its versions, never its secret
    #[command(after_long_help = "\
Example:
  keyfleet describe key openai-prod")]
    Key {
        /// Name of the key
        name: String,
    },
    /// A campaign with the path it took
    #[command(after_long_help = "\
Example:
  keyfleet describe campaign 0192f3a4")]
    Campaign {
        /// Id of the campaign, or its beginning; the active one where left out
        #[arg(default_value = "", hide_default_value = true)]
        id: String,
    },
    /// A rollout with its waves, targets and events
    #[command(after_long_help = "\
Example:
  keyfleet describe rollout 0192f3a4")]
    Rollout {
        /// Id of the rollout, or its beginning; the active one where left out
        id: Option<String>,
    },
}

pub(super) async fn run(session: &Session<'_>, command: Command) -> Result<Exit, Error> {
    let client = session.client().await?;
    let printer = session.printer;
    match command {
        Command::Deployment { name } => deployment(&client, printer, name).await?,
        Command::Connector { name } => connector(&client, printer, name).await?,
        Command::Key { name } => key(&client, printer, name).await?,
        Command::Campaign { id } => campaign::show(&client, printer, id).await?,
        Command::Rollout { id } => rollout::show(&client, printer, id.as_deref()).await?,
    }
    Ok(Exit::Ok)
}

/// Also `keyfleet deployment show`.
pub(super) async fn deployment(
    client: &Client,
    printer: &Printer,
    name: String,
) -> Result<(), Error> {
    let request = v1::GetDeploymentRequest { name };
    let response = client
        .call(request, async |api, request| {
            api.get_deployment(request).await
        })
        .await?;
    printer.show(&response, |view| views::deployment::page(&response, view))
}

async fn connector(client: &Client, printer: &Printer, name: String) -> Result<(), Error> {
    let request = v1::GetConnectorRequest { name };
    let response = client
        .call(request, async |api, request| {
            api.get_connector(request).await
        })
        .await?;
    printer.show(&response, |view| views::connector::page(&response, view))
}

/// Also `keyfleet key show`.
pub(super) async fn key(client: &Client, printer: &Printer, name: String) -> Result<(), Error> {
    let request = v1::GetKeyRequest { name };
    let response = client
        .call(request, async |api, request| api.get_key(request).await)
        .await?;
    printer.show(&response, |view| views::key::page(&response, view))
}
