//! `keyfleet delete`: deletes one object; what it placed goes away by a rollout.

use clap::{Args, ValueEnum};
use keyfleet_proto::v1;

use super::Session;
use super::agree::{agree_to_plan, reason, show_plan};
use crate::client::Client;
use crate::error::Error;
use crate::exit::Exit;

/// Arguments of `delete`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  keyfleet delete placement everywhere --dry-run
  keyfleet delete placement everywhere --reason 'team moved' --yes
  keyfleet delete key openai-old --reason 'project closed'

A connector can be deleted once no placement names it, a key once no connector uses
it and nothing may hold it, a strategy once no placement names it.")]
pub(crate) struct DeleteArgs {
    /// Kind of the object
    #[arg(value_enum, ignore_case = true)]
    kind: Kind,
    /// Name of the object
    name: String,
    /// Why, for the audit log
    #[arg(long, value_parser = reason, value_name = "TEXT", required_unless_present = "dry_run")]
    reason: Option<String>,
    /// Agree to remove bindings
    #[arg(long, short = 'y')]
    yes: bool,
    /// Show what would change and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// What can be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    // Plain comments: help texts of values would blow up the help.
    #[value(alias = "connectors")]
    Connector,
    #[value(alias = "placements")]
    Placement,
    #[value(alias = "strategies")]
    Strategy,
    #[value(alias = "keys")]
    Key,
}

impl Kind {
    /// As manifests name it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Connector => "Connector",
            Self::Placement => "Placement",
            Self::Strategy => "Strategy",
            Self::Key => "Key",
        }
    }
}

pub(super) async fn run(session: &Session<'_>, args: DeleteArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let mut request = v1::DeleteObjectRequest {
        kind: args.kind.as_str().to_owned(),
        name: args.name,
        reason: args.reason.unwrap_or_default(),
        yes: args.yes,
        plan: false,
    };
    if args.dry_run || !args.yes {
        let plan = plan(&client, &request).await?;
        if args.dry_run {
            show_plan(session.printer, &plan)?;
            return Ok(Exit::Ok);
        }
        request.yes = agree_to_plan(session.printer, &plan)?;
    }
    let response = delete(&client, request).await?;
    let result = response.result.clone().unwrap_or_default();
    session.changed(&response, &result, &response.rollout_ids)?;
    Ok(Exit::Ok)
}

async fn plan(client: &Client, request: &v1::DeleteObjectRequest) -> Result<v1::PlanResult, Error> {
    let request = v1::DeleteObjectRequest {
        plan: true,
        ..request.clone()
    };
    let response = delete(client, request).await?;
    response.result.ok_or(Error::Incomplete("result"))
}

async fn delete(
    client: &Client,
    request: v1::DeleteObjectRequest,
) -> Result<v1::DeleteObjectResponse, Error> {
    Ok(client
        .call(request, async |api, request| {
            api.delete_object(request).await
        })
        .await?)
}
