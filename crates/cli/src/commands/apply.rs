//! `keyfleet apply`: stores manifests and starts the rollouts they need.

use clap::Args;
use keyfleet_proto::v1;
use serde::Serialize;

use super::Session;
use super::plan::{ManifestArgs, manifest_err, plan};
use crate::client::{self, Client};
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Canonical;
use crate::views;
use crate::watch::{self, Follow};

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    manifests: ManifestArgs,
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
    let files = args.manifests.read()?;
    let client = if args.wait {
        session.waiting_client().await?
    } else {
        session.client().await?
    };
    let request = v1::ApplyRequest {
        files,
        yes: args.yes,
    };
    let response = client
        .call(request, async |api, request| api.apply(request).await)
        .await;
    let response = response.map_err(|err| apply_err(err, args.yes))?;
    if args.wait {
        wait(session, &client, &response).await
    } else {
        started(session, &response)
    }
}

/// Prints what was stored, and how to watch what was started.
fn started(session: &Session<'_>, response: &v1::ApplyResponse) -> Result<Exit, Error> {
    session.printer.show(response, |_| applied(response))?;
    for id in &response.rollout_ids {
        session.printer.note(format_args!(
            "watch it: keyfleet rollout watch {}",
            views::rollout::short_id(id)
        ));
    }
    Ok(Exit::Ok)
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
        printer.text(&applied(response))?;
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

/// Control wants a word of agreement before it removes anything.
fn apply_err(err: client::Error, agreed: bool) -> Error {
    if let (client::Error::Precondition(text), false) = (&err, agreed) {
        return Error::NotAgreed(text.clone());
    }
    manifest_err(err)
}

fn applied(response: &v1::ApplyResponse) -> String {
    let result = response.result.clone().unwrap_or_default();
    let mut text = views::plan::applied(&result);
    for id in &response.rollout_ids {
        text.push_str(&format!(
            "rollout {} started\n",
            views::rollout::short_id(id)
        ));
    }
    text
}
