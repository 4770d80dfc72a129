//! `keyfleet deployment preflight` and `connectors`: what an agent sees of its Kibana.

use std::time::Duration;

use keyfleet_proto::v1;

use crate::client::Client;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Printer;
use crate::views;

/// How long control waits for an agent that looks.
const LOOK_DEADLINE: Duration = Duration::from_secs(30);

pub(super) async fn run(
    client: Client,
    printer: &Printer,
    name: String,
    fresh: bool,
) -> Result<Exit, Error> {
    let client = match fresh {
        true => client.with_more_time(LOOK_DEADLINE),
        false => client,
    };
    let request = v1::PreflightDeploymentRequest { name, fresh };
    let response = client
        .call(request, async |api, request| {
            api.preflight_deployment(request).await
        })
        .await?;
    printer.show(&response, |view| {
        views::preflight::page(&response, fresh, view)
    })?;
    Ok(match views::preflight::is_good(&response) {
        true => Exit::Ok,
        false => Exit::Error,
    })
}

pub(super) async fn connectors(
    client: &Client,
    printer: &Printer,
    name: String,
) -> Result<Exit, Error> {
    let request = v1::GetDeploymentRequest { name };
    let response = client
        .call(request, async |api, request| {
            api.get_deployment(request).await
        })
        .await?;
    let deployment = response.deployment.ok_or(Error::Incomplete("deployment"))?;
    printer.show(&deployment.facts.clone().unwrap_or_default(), |view| {
        views::preflight::connectors(&deployment, view)
    })?;
    Ok(Exit::Ok)
}
