//! `keyfleet apply`: stores manifests and starts the rollouts they need.

use clap::Args;
use keyfleet_proto::v1;
use serde::Serialize;

use super::Session;
use super::agree::{OptionalReasonArgs, agree};
use super::plan::{self, ManifestArgs, manifest_err, plan};
use crate::client::{self, Client};
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Canonical;
use crate::views;
use crate::watch::{self, Follow};

/// Arguments of `apply`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  keyfleet apply -f fleet/ --wait
  keyfleet apply -f fleet/ --set prod --prune --reason 'team moved' --yes
  keyfleet apply -f connector.yaml --dry-run

What is in the set and not in the files is deleted with --prune; what that takes away
is removed by a rollout, and needs --yes.")]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    manifests: ManifestArgs,
    #[command(flatten)]
    reason: OptionalReasonArgs,
    /// Agree to remove bindings
    #[arg(long, short = 'y')]
    yes: bool,
    /// Show what would change and store nothing: the same as `plan`
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    /// Watch the rollouts until they end, or until one is paused or halted
    #[arg(long)]
    wait: bool,
}

pub(super) async fn run(session: &Session<'_>, args: &ApplyArgs) -> Result<Exit, Error> {
    if args.dry_run {
        plan(session, &args.manifests).await?;
        return Ok(Exit::Ok);
    }
    let asked = args.manifests.read()?;
    let client = if args.wait {
        session.waiting_client().await?
    } else {
        session.client().await?
    };
    let request = v1::ApplyRequest {
        files: asked.files.clone(),
        set: asked.set.clone(),
        prune: asked.prune,
        yes: args.yes,
        reason: args.reason.reason.clone(),
    };
    let response = match apply(&client, request.clone()).await {
        // Control wants a word of agreement before it removes anything.
        Err(client::Error::Precondition(text)) if !args.yes => {
            agree_to(session, &client, asked, text).await?;
            let agreed = v1::ApplyRequest {
                yes: true,
                ..request
            };
            apply(&client, agreed).await
        }
        outcome => outcome,
    };
    let response = response.map_err(manifest_err)?;
    if args.wait {
        return wait(session, &client, &response).await;
    }
    let result = response.result.clone().unwrap_or_default();
    session.changed(&response, &result, &response.rollout_ids)?;
    Ok(Exit::Ok)
}

async fn apply(
    client: &Client,
    request: v1::ApplyRequest,
) -> Result<v1::ApplyResponse, client::Error> {
    client
        .call(request, async |api, request| api.apply(request).await)
        .await
}

/// Shows what the apply would remove, and asks; where it would remove nothing, it was refused for another reason.
async fn agree_to(
    session: &Session<'_>,
    client: &Client,
    asked: v1::PlanRequest,
    refused: String,
) -> Result<(), Error> {
    let plan = plan::ask(client, asked).await?;
    let what =
        views::plan::removed(&plan).ok_or(Error::Call(client::Error::Precondition(refused)))?;
    let page = views::plan::page(&plan, &session.printer.view());
    agree(session.printer, &page, &what)
}

/// What `apply --wait` prints for a machine: one document.
#[derive(Serialize)]
struct Waited {
    applied: Canonical,
    rollouts: Vec<Canonical>,
}

async fn wait(
    session: &Session<'_>,
    client: &Client,
    response: &v1::ApplyResponse,
) -> Result<Exit, Error> {
    let printer = session.printer;
    if !printer.is_machine() {
        let result = response.result.clone().unwrap_or_default();
        printer.text(&views::plan::applied(&result, &response.rollout_ids))?;
    }
    let follow = Follow {
        until_held: true,
        deadline: session.wait_deadline(),
        print_each: false,
    };
    let ends = watch::follow_all(client, printer, &response.rollout_ids, follow).await?;
    if printer.is_machine() {
        let rollouts = ends.iter().map(Canonical::new).collect::<Result<_, _>>()?;
        printer.machine(&Waited {
            applied: Canonical::new(response)?,
            rollouts,
        })?;
    } else {
        for end in &ends {
            printer.text(&format!("\n{}", views::rollout::outcome(end)))?;
        }
    }
    Ok(watch::exit_of(&ends))
}
