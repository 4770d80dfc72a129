//! `keyfleet ca`: the CA that signs agents' certificates.

use clap::{Args, Subcommand};
use keyfleet_proto::v1;

use super::Session;
use super::agree::{ReasonArgs, agree};
use crate::client::Client;
use crate::contexts::{self, Context, Contexts};
use crate::env::Env;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::counted;
use crate::{trust, views};

/// What to do with the CA.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the CA, and how far a rotation is; the context learns to trust the next one
    #[command(after_long_help = "\
Example:
  keyfleet ca show")]
    Show,
    /// Make the next CA and have every agent renew; both are trusted meanwhile
    #[command(after_long_help = "\
Example:
  keyfleet ca rotate --reason 'yearly rotation'
  keyfleet ca show        # how far it is; it ends by itself

Every other operator runs `keyfleet ca show` once before the rotation ends: their
context learns to trust the next CA. Who was away takes ca.pem of the control
service: `keyfleet context set NAME --ca ca.pem`.")]
    Rotate(ReasonArgs),
    /// End a rotation now; agents that have not renewed must be replaced
    #[command(after_long_help = "\
Example:
  keyfleet ca finish --reason 'the old key was stolen' --yes")]
    Finish(FinishArgs),
}

/// How to end a rotation.
#[derive(Debug, Args)]
pub(crate) struct FinishArgs {
    #[command(flatten)]
    reason: ReasonArgs,
    /// Agree to leave agents behind that have not renewed
    #[arg(long, short = 'y')]
    yes: bool,
}

pub(super) async fn run(session: &Session<'_>, command: Command) -> Result<Exit, Error> {
    let client = session.client().await?;
    let ca = match command {
        Command::Show => {
            let ca = get(&client).await?;
            learn(session, &ca);
            ca
        }
        Command::Rotate(args) => {
            let request = v1::RotateCaRequest {
                reason: args.reason,
            };
            let response = client
                .call(request, async |api, request| api.rotate_ca(request).await)
                .await?;
            let ca = response.ca.ok_or(Error::Incomplete("ca"))?;
            learn(session, &ca);
            ca
        }
        Command::Finish(args) => finish(session, &client, args).await?,
    };
    session
        .printer
        .show(&ca, |view| views::ca::page(&ca, view))?;
    Ok(Exit::Ok)
}

async fn get(client: &Client) -> Result<v1::GetCaResponse, Error> {
    Ok(client
        .call(v1::GetCaRequest {}, async |api, request| {
            api.get_ca(request).await
        })
        .await?)
}

/// Lets the context trust the next CA, which came over a connection that it trusts already. Where that cannot be
/// written, what was asked for goes on: the operator is told, also with `--quiet`.
fn learn(session: &Session<'_>, ca: &v1::GetCaResponse) {
    let Some(next) = &ca.next else {
        return;
    };
    match trust(session, &next.certificate_pem) {
        Ok(None) => {}
        Ok(Some(name)) => session.printer.note(format_args!(
            "context {name} trusts the next CA too from here on"
        )),
        Err(err) => session.printer.error(&Error::Untaught(Box::new(err))),
    }
}

/// Adds the CA to what the context trusts; the context's name where it did not trust it yet.
fn trust(session: &Session<'_>, certificate_pem: &str) -> Result<Option<String>, Error> {
    let path = contexts::path(&Env::read())?;
    let mut contexts = Contexts::load(&path)?;
    let (name, context) = contexts.choose(session.global.context.as_deref())?;
    let Some(ca) = trust::with(&context.ca, certificate_pem) else {
        return Ok(None);
    };
    let name = name.to_owned();
    let context = Context {
        ca,
        ..context.clone()
    };
    contexts.contexts.insert(name.clone(), context);
    contexts.save(&path)?;
    Ok(Some(name))
}

async fn finish(
    session: &Session<'_>,
    client: &Client,
    args: FinishArgs,
) -> Result<v1::GetCaResponse, Error> {
    let mut yes = args.yes;
    // Before the end, so that no answer that is lost on its way locks this operator out.
    let ca = get(client).await?;
    learn(session, &ca);
    if !yes {
        let n_left = ca.waiting.len() as u64;
        if n_left > 0 {
            let page = views::ca::page(&ca, &session.printer.view());
            let what = format!(
                "this leaves {} behind that must be replaced",
                counted(n_left, "deployment")
            );
            agree(session.printer, &page, &what)?;
            yes = true;
        }
    }
    let request = v1::FinishCaRotationRequest {
        reason: args.reason.reason,
        yes,
    };
    let response = client
        .call(request, async |api, request| {
            api.finish_ca_rotation(request).await
        })
        .await?;
    response.ca.ok_or(Error::Incomplete("ca"))
}
