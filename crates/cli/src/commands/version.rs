//! `keyfleet version`: of this command, and of the control service where asked.

use clap::Args;
use keyfleet_proto::v1;
use serde::Serialize;

use super::Session;
use crate::error::Error;
use crate::exit::Exit;

/// Arguments of `version`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Example:
  keyfleet version --control")]
pub(crate) struct VersionArgs {
    /// Also ask the control service
    #[arg(long)]
    control: bool,
}

#[derive(Serialize)]
struct Versions {
    keyfleet: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    control: Option<String>,
}

pub(super) async fn run(session: &Session<'_>, args: &VersionArgs) -> Result<Exit, Error> {
    let control = if args.control {
        Some(ask(session).await?)
    } else {
        None
    };
    let versions = Versions {
        keyfleet: env!("CARGO_PKG_VERSION"),
        control,
    };
    if session.printer.is_machine() {
        session.printer.machine(&versions)?;
        return Ok(Exit::Ok);
    }
    let mut text = format!("keyfleet {}", versions.keyfleet);
    if let Some(control) = &versions.control {
        text.push_str(&format!("\ncontrol {control}"));
    }
    session.printer.text(&text)?;
    Ok(Exit::Ok)
}

async fn ask(session: &Session<'_>) -> Result<String, Error> {
    let client = session.client().await?;
    let status = client
        .call(v1::GetStatusRequest {}, async |api, request| {
            api.get_status(request).await
        })
        .await?;
    Ok(status.control_version)
}
