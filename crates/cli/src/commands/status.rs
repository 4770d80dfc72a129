//! `keyfleet status`: the fleet in short.

use keyfleet_proto::v1;

use super::Session;
use crate::error::Error;
use crate::exit::Exit;
use crate::views;

pub(super) async fn run(session: &Session<'_>) -> Result<Exit, Error> {
    let client = session.client().await?;
    let status = client
        .call(v1::GetStatusRequest {}, async |api, request| {
            api.get_status(request).await
        })
        .await?;
    session
        .printer
        .show(&status, |view| views::status::page(&status, view))?;
    Ok(Exit::Ok)
}
