//! `keyfleet plan`: what manifests would change. Stores nothing.

use std::path::PathBuf;

use clap::Args;
use keyfleet_proto::v1;

use super::Session;
use crate::client::{self, Client};
use crate::error::Error;
use crate::exit::Exit;
use crate::files;
use crate::views;

/// Where manifests come from.
#[derive(Debug, Args)]
pub(crate) struct ManifestArgs {
    /// Manifest file, folder with everything below it (*.yaml, *.yml), or - for standard input
    #[arg(short = 'f', long = "file", required = true, value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    /// The files are the whole of this named set: their objects become members of it
    #[arg(long, value_name = "NAME")]
    set: Option<String>,
    /// Delete what else is in the set
    #[arg(long, requires = "set")]
    prune: bool,
}

impl ManifestArgs {
    /// Reads them all, as the question what they would change.
    ///
    /// # Errors
    /// Names the first file that cannot be used.
    pub(super) fn read(&self) -> Result<v1::PlanRequest, Error> {
        Ok(v1::PlanRequest {
            files: files::manifests(&self.files)?,
            set: self.set.clone().unwrap_or_default(),
            prune: self.prune,
        })
    }
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  keyfleet plan -f fleet/
  keyfleet plan -f fleet/ --set prod --prune
  keyfleet plan -f fleet/ --exit-code -q || echo 'there are changes'")]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    manifests: ManifestArgs,
    /// End with code 10 where there are changes
    #[arg(long)]
    exit_code: bool,
}

pub(super) async fn run(session: &Session<'_>, args: &PlanArgs) -> Result<Exit, Error> {
    let result = plan(session, &args.manifests).await?;
    let changes = views::plan::has_changes(&result);
    Ok(if args.exit_code && changes {
        Exit::Changes
    } else {
        Exit::Ok
    })
}

/// Plans and prints; `apply --dry-run` is the same.
///
/// # Errors
/// Where a manifest is not valid or control does not answer.
pub(super) async fn plan(
    session: &Session<'_>,
    manifests: &ManifestArgs,
) -> Result<v1::PlanResult, Error> {
    let request = manifests.read()?;
    let client = session.client().await?;
    let result = ask(&client, request).await?;
    session
        .printer
        .show(&result, |view| views::plan::page(&result, view))?;
    Ok(result)
}

/// Asks what these manifests would change.
///
/// # Errors
/// Where a manifest is not valid or control does not answer.
pub(super) async fn ask(
    client: &Client,
    request: v1::PlanRequest,
) -> Result<v1::PlanResult, Error> {
    let response = client
        .call(request, async |api, request| api.plan(request).await)
        .await;
    let response = response.map_err(manifest_err)?;
    response.result.ok_or(Error::Incomplete("result"))
}

/// In a plan or an apply, what is not valid is a manifest.
pub(super) fn manifest_err(err: client::Error) -> Error {
    if let client::Error::Invalid(text) = err {
        return Error::Manifest(text);
    }
    err.into()
}
