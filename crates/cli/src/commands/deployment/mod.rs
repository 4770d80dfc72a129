//! `keyfleet deployment`: whether agents are trusted with keys, and what deployments are labelled.

mod label;
mod preflight;
mod replace;

use clap::{Args, Subcommand};
use keyfleet_proto::v1;
use prost::{Message, Name};

use super::agree::{ReasonArgs, agree};
use super::{Session, describe, get};
use crate::client::Client;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{Canonical, Printer, View};
use crate::views;

/// What to do with deployments.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the deployments
    #[command(visible_alias = "ls")]
    #[command(after_long_help = "\
Example:
  keyfleet deployment list -l env=prod")]
    List {
        /// Only those with these labels, such as env=prod,region in (eu,us)
        #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
        selector: String,
    },
    /// Show a deployment with its bindings and events
    #[command(after_long_help = "\
Example:
  keyfleet deployment show kibana-a")]
    Show {
        /// Name of the deployment
        name: String,
    },
    /// Show what an agent found of its Kibana before it writes there, with the role that it needs
    #[command(after_long_help = "\
Examples:
  keyfleet deployment preflight kibana-a
  keyfleet deployment preflight kibana-a --fresh

Ends with exit code 1 where a check failed, or nothing was checked yet.")]
    Preflight {
        /// Name of the deployment
        name: String,
        /// Have the agent look now, and wait for it up to 30 seconds
        #[arg(long)]
        fresh: bool,
    },
    /// List the connectors in a Kibana that are not Keyfleet's, and how to adopt one
    #[command(after_long_help = "\
Examples:
  keyfleet deployment connectors kibana-a
  keyfleet deployment connectors kibana-a -o json")]
    Connectors {
        /// Name of the deployment
        name: String,
    },
    /// Cut agents off from keys and changes until they are resumed
    #[command(after_long_help = "\
Example:
  keyfleet deployment suspend kibana-a --reason 'odd logins on its host'

The agent may stay connected and report. Connectors in its Kibana stay as they are.")]
    Suspend(VerbArgs),
    /// Trust suspended agents again; also settles a suspected clone
    #[command(after_long_help = "\
Example:
  keyfleet deployment resume kibana-a --reason 'host checked'")]
    Resume(VerbArgs),
    /// Void agents' certificates: within a second they are cut off and cannot come back
    #[command(after_long_help = "\
Example:
  keyfleet deployment revoke kibana-a --reason 'laptop stolen' --yes

Prints every key version that the agent ever held: whoever has its host may know
them. `keyfleet deployment replace` lets a new agent in.")]
    Revoke(AgreedArgs),
    /// Let agents whose certificate has ended renew it once
    #[command(after_long_help = "\
Example:
  keyfleet deployment allow-renewal kibana-a --reason 'host was off for a month'")]
    AllowRenewal(VerbArgs),
    /// Void an agent's identity and get a join token for a new agent of the same deployment
    #[command(after_long_help = "\
Example:
  keyfleet deployment replace kibana-a --reason 'new host' --yes --output-file join-token

The new agent keeps the name, the labels and the connectors. Prints every key version
that the old agent ever held.")]
    Replace(replace::ReplaceArgs),
    /// Forget deployments; the connectors in their Kibanas stay as they are
    #[command(visible_alias = "rm")]
    #[command(after_long_help = "\
Example:
  keyfleet deployment remove kibana-a --reason 'switched off' --yes

Prints every key version that the agent ever held: nothing here waits for its
Kibana any more before a key is revoked.")]
    Remove(AgreedArgs),
    /// Change the labels of a deployment: KEY=VALUE sets one, KEY- takes one away
    #[command(after_long_help = "\
Examples:
  keyfleet deployment label kibana-a env=prod tier- --dry-run
  keyfleet deployment label kibana-a env=prod tier- --reason 'went live'

What placements then no longer select is removed by a rollout, and needs --yes.")]
    Label(label::LabelArgs),
}

/// Which deployments, and why.
#[derive(Debug, Args)]
pub(crate) struct VerbArgs {
    /// Names of the deployments
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    reason: ReasonArgs,
}

/// Which deployments, and why; for what cannot be taken back.
#[derive(Debug, Args)]
pub(crate) struct AgreedArgs {
    #[command(flatten)]
    verb: VerbArgs,
    /// Agree: it cannot be taken back
    #[arg(long, short = 'y')]
    yes: bool,
}

pub(super) async fn run(session: &Session<'_>, command: Command) -> Result<Exit, Error> {
    use v1::DeploymentVerb::{AllowRenewal, Resume, Revoke, Suspend};
    let client = session.client().await?;
    match command {
        Command::List { selector } => {
            get::deployments(&client, session.printer, selector).await?;
            Ok(Exit::Ok)
        }
        Command::Show { name } => {
            describe::deployment(&client, session.printer, name).await?;
            Ok(Exit::Ok)
        }
        Command::Preflight { name, fresh } => {
            preflight::run(client, session.printer, name, fresh).await
        }
        Command::Connectors { name } => preflight::connectors(&client, session.printer, name).await,
        Command::Suspend(args) => change(session, &client, args, Suspend).await,
        Command::Resume(args) => change(session, &client, args, Resume).await,
        Command::AllowRenewal(args) => change(session, &client, args, AllowRenewal).await,
        Command::Revoke(args) => {
            if !args.yes {
                look(
                    session,
                    &client,
                    &args.verb.names,
                    views::deployment::REVOKED,
                )
                .await?;
            }
            change(session, &client, args.verb, Revoke).await
        }
        Command::Remove(args) => {
            if !args.yes {
                look(
                    session,
                    &client,
                    &args.verb.names,
                    views::deployment::REMOVED,
                )
                .await?;
            }
            remove(session, &client, args.verb).await
        }
        Command::Replace(args) => replace::run(session, &client, args).await,
        Command::Label(args) => label::run(session, &client, args).await,
    }
}

/// Shows the deployments as they are and what would become of them, and asks for agreement.
async fn look(
    session: &Session<'_>,
    client: &Client,
    names: &[String],
    consequence: views::deployment::Consequence,
) -> Result<(), Error> {
    let mut deployments = Vec::new();
    for name in names {
        let request = v1::GetDeploymentRequest { name: name.clone() };
        let response = client
            .call(request, async |api, request| {
                api.get_deployment(request).await
            })
            .await?;
        deployments.push(response.deployment.ok_or(Error::Incomplete("deployment"))?);
    }
    let page = views::deployment::before(&deployments, &consequence, &session.printer.view());
    agree(session.printer, &page, &consequence.clause(names))
}

async fn change(
    session: &Session<'_>,
    client: &Client,
    args: VerbArgs,
    verb: v1::DeploymentVerb,
) -> Result<Exit, Error> {
    let reason = args.reason.reason;
    for_each(session, args.names, async |name| {
        let request = v1::ChangeDeploymentRequest {
            name,
            verb: verb.into(),
            reason: reason.clone(),
        };
        let response = client
            .call(request, async |api, request| {
                api.change_deployment(request).await
            })
            .await?;
        item(session.printer, &response, |view| {
            views::deployment::changed(&response, verb, view)
        })
    })
    .await
}

async fn remove(session: &Session<'_>, client: &Client, args: VerbArgs) -> Result<Exit, Error> {
    let reason = args.reason.reason;
    for_each(session, args.names, async |name| {
        let request = v1::RemoveDeploymentRequest {
            name: name.clone(),
            reason: reason.clone(),
            yes: true,
        };
        let response = client
            .call(request, async |api, request| {
                api.remove_deployment(request).await
            })
            .await?;
        item(session.printer, &response, |view| {
            views::deployment::removed(&name, &response, view)
        })
    })
    .await
}

/// One of several answers: an item for machines, or a page for people.
fn item<M: Message + Name>(
    printer: &Printer,
    response: &M,
    page: impl FnOnce(&View) -> String,
) -> Result<(), Error> {
    if printer.is_machine() {
        return printer.machine_item(&Canonical::new(response)?);
    }
    printer.text(&page(&printer.view()))
}

/// Does it for each: who revokes three agents after a theft wants the other two revoked although one name is wrong.
async fn for_each(
    session: &Session<'_>,
    names: Vec<String>,
    act: impl AsyncFn(String) -> Result<(), Error>,
) -> Result<Exit, Error> {
    let mut exit = Exit::Ok;
    let n_names = names.len();
    for name in names {
        match act(name).await {
            Ok(()) => {}
            Err(err) if n_names == 1 => return Err(err),
            Err(err) => {
                session.printer.error(&err);
                exit = exit.max(err.exit());
            }
        }
    }
    Ok(exit)
}
