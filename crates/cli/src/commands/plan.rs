//! `keyfleet plan`: what manifests would change. Stores nothing.

use std::path::PathBuf;

use clap::Args;
use keyfleet_proto::v1;

use super::Session;
use crate::client;
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
}

impl ManifestArgs {
    /// Reads them all.
    ///
    /// # Errors
    /// Names the first file that cannot be used.
    pub(super) fn read(&self) -> Result<Vec<v1::ManifestFile>, Error> {
        Ok(files::manifests(&self.files)?)
    }
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
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
    let files = manifests.read()?;
    let client = session.client().await?;
    let response = client
        .call(v1::PlanRequest { files }, async |api, request| {
            api.plan(request).await
        })
        .await;
    let response = response.map_err(manifest_err)?;
    let result = response.result.ok_or(Error::Incomplete("result"))?;
    session
        .printer
        .show(&result, |view| views::plan::page(&result, view))?;
    Ok(result)
}

/// In a plan or an apply, what is not valid is a manifest.
pub(super) fn manifest_err(err: client::Error) -> Error {
    if let client::Error::Invalid(text) = err {
        return Error::Manifest(text);
    }
    err.into()
}
