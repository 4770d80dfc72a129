//! `keyfleet deployment replace`: the join token goes where those of `token create` go.

use std::time::Duration;

use clap::Args;
use keyfleet_proto::v1;

use crate::client::Client;
use crate::commands::Session;
use crate::commands::agree::ReasonArgs;
use crate::commands::token::{OutputArgs, ValueFile, show_value};
use crate::duration;
use crate::error::Error;
use crate::exit::Exit;
use crate::views;

/// Which deployment, and where the join token goes.
#[derive(Debug, Args)]
pub(crate) struct ReplaceArgs {
    /// Name of the deployment
    name: String,
    #[command(flatten)]
    reason: ReasonArgs,
    /// How long the join token can be used
    #[arg(long, default_value = "1h", value_parser = duration::parse, value_name = "TIME")]
    ttl: Duration,
    /// Agree: the old agent cannot come back
    #[arg(long, short = 'y')]
    yes: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(
    session: &Session<'_>,
    client: &Client,
    args: ReplaceArgs,
) -> Result<Exit, Error> {
    if !args.yes {
        let names = [args.name.clone()];
        super::look(session, client, &names, views::deployment::REPLACED).await?;
    }
    let request = v1::ReplaceDeploymentRequest {
        name: args.name.clone(),
        reason: args.reason.reason,
        ttl_secs: keyfleet_proto::duration_secs(args.ttl),
    };
    // The file comes first: a token whose value could not be written would be lost.
    let file = ValueFile::create(&args.output)?;
    let outcome = client
        .call(request, async |api, request| {
            api.replace_deployment(request).await
        })
        .await;
    let mut response = match outcome {
        Ok(response) => response,
        Err(err) => {
            file.discard();
            return Err(err.into());
        }
    };
    let printer = session.printer;
    // What the old agent knew is told before the value, and beside it: the value stands alone on stdout.
    if !printer.is_machine() {
        printer.note(views::held::page(
            &args.name,
            &response.held,
            &printer.view(),
        ));
    }
    file.fill(&mut response.value)?;
    show_value(
        printer,
        &response,
        response.token.as_ref(),
        &response.value,
        &file,
    )?;
    Ok(Exit::Ok)
}
