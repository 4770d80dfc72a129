//! `keyfleet deployment label`: what that adds and removes is shown first.

use std::collections::BTreeMap;

use clap::Args;
use keyfleet_proto::v1;

use crate::client::Client;
use crate::commands::Session;
use crate::commands::agree::{agree_to_plan, reason, show_plan};
use crate::error::Error;
use crate::exit::Exit;

/// Which labels to change.
#[derive(Debug, Args)]
pub(crate) struct LabelArgs {
    /// Name of the deployment
    name: String,
    /// KEY=VALUE sets a label, KEY- takes one away
    #[arg(required = true, value_parser = change, value_name = "KEY=VALUE|KEY-")]
    changes: Vec<(String, Option<String>)>,
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

/// A label with its new value, or without one where it goes.
fn change(text: &str) -> Result<(String, Option<String>), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => {
            Ok((key.to_owned(), Some(value.to_owned())))
        }
        Some(_) => Err("write KEY=VALUE, or KEY- to take the label away"),
        None => match text.strip_suffix('-') {
            Some(key) if !key.is_empty() => Ok((key.to_owned(), None)),
            _ => Err("write KEY=VALUE, or KEY- to take the label away"),
        },
    }
}

pub(super) async fn run(
    session: &Session<'_>,
    client: &Client,
    args: LabelArgs,
) -> Result<Exit, Error> {
    let changes: BTreeMap<String, Option<String>> = args.changes.iter().cloned().collect();
    if changes.len() < args.changes.len() {
        return Err(Error::LabelTwice);
    }
    let (set, unset): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(_, v)| v.is_some());
    let mut request = v1::LabelDeploymentRequest {
        name: args.name,
        set: set.into_iter().filter_map(|(k, v)| Some((k, v?))).collect(),
        unset: unset.into_iter().map(|(key, _)| key).collect(),
        reason: args.reason.unwrap_or_default(),
        yes: args.yes,
        plan: false,
    };
    if args.dry_run || !args.yes {
        let plan = plan(client, &request).await?;
        if args.dry_run {
            show_plan(session.printer, &plan)?;
            return Ok(Exit::Ok);
        }
        request.yes = agree_to_plan(session.printer, &plan)?;
    }
    let response = label(client, request).await?;
    let result = response.result.clone().unwrap_or_default();
    session.changed(&response, &result, &response.rollout_ids)?;
    Ok(Exit::Ok)
}

async fn plan(
    client: &Client,
    request: &v1::LabelDeploymentRequest,
) -> Result<v1::PlanResult, Error> {
    let request = v1::LabelDeploymentRequest {
        plan: true,
        ..request.clone()
    };
    let response = label(client, request).await?;
    response.result.ok_or(Error::Incomplete("result"))
}

async fn label(
    client: &Client,
    request: v1::LabelDeploymentRequest,
) -> Result<v1::LabelDeploymentResponse, Error> {
    Ok(client
        .call(request, async |api, request| {
            api.label_deployment(request).await
        })
        .await?)
}
