//! `keyfleet get`: lists of one kind of object.

use clap::{Args, Subcommand};
use keyfleet_proto::v1;

use super::{Session, campaign};
use crate::client::Client;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Printer;
use crate::views;

/// What to list.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Kibana deployments
    #[command(alias = "deployment")]
    #[command(after_long_help = "\
Example:
  keyfleet get deployments -l env=prod -o wide")]
    Deployments {
        /// Only those with these labels, such as env=prod,region in (eu,us)
        #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
        selector: String,
    },
    /// Connectors
    #[command(alias = "connector")]
    #[command(after_long_help = "\
Example:
  keyfleet get connectors")]
    Connectors,
    /// Placements: which connectors go to which deployments
    #[command(alias = "placement")]
    #[command(after_long_help = "\
Example:
  keyfleet get placements")]
    Placements,
    /// Strategies: how change spreads
    #[command(alias = "strategy")]
    #[command(after_long_help = "\
Example:
  keyfleet get strategies -o wide")]
    Strategies,
    /// Keys, never their secrets
    #[command(alias = "key")]
    #[command(after_long_help = "\
Example:
  keyfleet get keys")]
    Keys,
    /// Bindings: one connector in one space of one deployment
    #[command(alias = "binding")]
    #[command(after_long_help = "\
Example:
  keyfleet get bindings --deployment kibana-a")]
    Bindings(BindingsArgs),
    /// Rollouts
    #[command(alias = "rollout")]
    #[command(after_long_help = "\
Example:
  keyfleet get rollouts --active")]
    Rollouts {
        /// Only those that have not ended
        #[arg(long)]
        active: bool,
    },
    /// Campaigns
    #[command(alias = "campaign")]
    #[command(after_long_help = "\
Example:
  keyfleet get campaigns --active")]
    Campaigns {
        /// Only those that have not ended
        #[arg(long)]
        active: bool,
    },
    /// Tokens, without their values
    #[command(alias = "token")]
    #[command(after_long_help = "\
Example:
  keyfleet get tokens")]
    Tokens,
}

/// Which bindings.
#[derive(Debug, Args)]
pub(crate) struct BindingsArgs {
    /// Only those of this deployment
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    deployment: String,
    /// Only those of this connector
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    connector: String,
}

pub(super) async fn run(session: &Session<'_>, command: Command) -> Result<Exit, Error> {
    let client = session.client().await?;
    let printer = session.printer;
    match command {
        Command::Deployments { selector } => deployments(&client, printer, selector).await?,
        Command::Connectors => connectors(&client, printer).await?,
        Command::Placements => placements(&client, printer).await?,
        Command::Strategies => strategies(&client, printer).await?,
        Command::Keys => keys(&client, printer).await?,
        Command::Bindings(args) => bindings(&client, printer, args).await?,
        Command::Rollouts { active } => rollouts(&client, printer, active).await?,
        Command::Campaigns { active } => {
            campaign::list(&client, printer, active, String::new()).await?
        }
        Command::Tokens => tokens(&client, printer).await?,
    }
    Ok(Exit::Ok)
}

/// The note for an empty list.
pub(super) fn empty(is_empty: bool, note: &'static str) -> Option<&'static str> {
    is_empty.then_some(note)
}

/// Also `keyfleet deployment list`.
pub(super) async fn deployments(
    client: &Client,
    printer: &Printer,
    selector: String,
) -> Result<(), Error> {
    let note = if selector.is_empty() {
        "no deployments yet"
    } else {
        "no deployment matches"
    };
    let request = v1::ListDeploymentsRequest { selector };
    let list = client
        .call(request, async |api, request| {
            api.list_deployments(request).await
        })
        .await?;
    let empty = empty(list.deployments.is_empty(), note);
    printer.show_list(&list, empty, |view| {
        views::deployment::table(&list.deployments, view)
    })
}

async fn connectors(client: &Client, printer: &Printer) -> Result<(), Error> {
    let request = v1::ListConnectorsRequest {};
    let list = client
        .call(request, async |api, request| {
            api.list_connectors(request).await
        })
        .await?;
    let empty = empty(list.connectors.is_empty(), "no connectors yet");
    printer.show_list(&list, empty, |view| {
        views::connector::table(&list.connectors, view)
    })
}

async fn placements(client: &Client, printer: &Printer) -> Result<(), Error> {
    let request = v1::ListPlacementsRequest {};
    let list = client
        .call(request, async |api, request| {
            api.list_placements(request).await
        })
        .await?;
    let empty = empty(list.placements.is_empty(), "no placements yet");
    printer.show_list(&list, empty, |_| views::placement::table(&list.placements))
}

async fn strategies(client: &Client, printer: &Printer) -> Result<(), Error> {
    let request = v1::ListStrategiesRequest {};
    let list = client
        .call(request, async |api, request| {
            api.list_strategies(request).await
        })
        .await?;
    let empty = empty(list.strategies.is_empty(), "no strategies yet");
    printer.show_list(&list, empty, |view| {
        views::placement::strategies(&list.strategies, view)
    })
}

/// Also `keyfleet key list`.
pub(super) async fn keys(client: &Client, printer: &Printer) -> Result<(), Error> {
    let list = client
        .call(v1::ListKeysRequest {}, async |api, request| {
            api.list_keys(request).await
        })
        .await?;
    let empty = empty(list.keys.is_empty(), "no keys yet");
    printer.show_list(&list, empty, |view| views::key::table(&list.keys, view))
}

async fn bindings(client: &Client, printer: &Printer, args: BindingsArgs) -> Result<(), Error> {
    let request = v1::ListBindingsRequest {
        deployment: args.deployment,
        connector: args.connector,
    };
    let list = client
        .call(request, async |api, request| {
            api.list_bindings(request).await
        })
        .await?;
    let empty = empty(list.bindings.is_empty(), "no bindings");
    printer.show_list(&list, empty, |view| {
        views::deployment::binding_rows(&list.bindings, view, views::deployment::Column::None)
            .to_string()
    })
}

/// Also `keyfleet rollout list`.
pub(super) async fn rollouts(
    client: &Client,
    printer: &Printer,
    active_only: bool,
) -> Result<(), Error> {
    let request = v1::ListRolloutsRequest { active_only };
    let list = client
        .call(request, async |api, request| {
            api.list_rollouts(request).await
        })
        .await?;
    let empty = empty(
        list.rollouts.is_empty(),
        if active_only {
            "no active rollouts"
        } else {
            "no rollouts yet"
        },
    );
    printer.show_list(&list, empty, |view| {
        views::rollout::rows(&list.rollouts, view).to_string()
    })
}

/// Also `keyfleet token list`.
pub(super) async fn tokens(client: &Client, printer: &Printer) -> Result<(), Error> {
    let list = client
        .call(v1::ListTokensRequest {}, async |api, request| {
            api.list_tokens(request).await
        })
        .await?;
    let empty = empty(list.tokens.is_empty(), "no tokens yet");
    printer.show_list(&list, empty, |view| views::token::table(&list.tokens, view))
}
