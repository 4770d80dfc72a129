//! `keyfleet token`: tokens that let agents join and operators call.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use keyfleet_proto::v1;

use super::{Session, get};
use crate::duration;
use crate::error::Error;
use crate::exit::Exit;
use crate::files;
use crate::output::{Printer, rfc3339};

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a token; its value is shown this once
    #[command(subcommand)]
    Create(Create),
    /// List the tokens, without their values
    #[command(visible_alias = "ls")]
    List,
    /// Revoke a token
    Revoke {
        /// Id of the token, as `token list` shows it
        id: String,
    },
}

/// Which kind of token.
#[derive(Debug, Subcommand)]
pub(crate) enum Create {
    /// A token that lets agents enrol
    Join(JoinArgs),
    /// A token for a person or a pipeline
    Operator(OperatorArgs),
}

/// A join token.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// How many agents may enrol with it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    /// How long it can be used
    #[arg(long, default_value = "1h", value_parser = duration::parse, value_name = "TIME")]
    ttl: Duration,
    /// Label that an agent must claim exactly so; may be given several times
    #[arg(long = "label", value_parser = label, value_name = "KEY=VALUE")]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    output: OutputArgs,
}

/// An operator token.
#[derive(Debug, Args)]
pub(crate) struct OperatorArgs {
    /// Who acts with it: a person or a pipeline
    #[arg(long, value_name = "NAME")]
    principal: String,
    /// What it may do; each role includes the ones before it
    #[arg(long, value_enum)]
    role: Role,
    /// How long it can be used
    #[arg(long, default_value = "90d", value_parser = duration::parse, value_name = "TIME")]
    ttl: Duration,
    #[command(flatten)]
    output: OutputArgs,
}

/// Where the value goes.
#[derive(Debug, Args)]
struct OutputArgs {
    /// Write the value to this new file, readable by you alone, instead of showing it
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
}

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Reads everything
    Viewer,
    /// Changes connectors, placements, strategies and rollouts
    Operator,
    /// Changes keys and tokens too
    Admin,
}

impl From<Role> for v1::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Operator => Self::Operator,
            Role::Admin => Self::Admin,
        }
    }
}

fn label(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("write KEY=VALUE"),
    }
}

pub(super) async fn run(session: &Session<'_>, command: Command) -> Result<Exit, Error> {
    match command {
        Command::Create(Create::Join(args)) => {
            let labels: BTreeMap<_, _> = args.labels.into_iter().collect();
            let request = v1::CreateTokenRequest {
                kind: v1::TokenKind::Join.into(),
                labels,
                uses: args.uses,
                ttl_secs: keyfleet_proto::duration_secs(args.ttl),
                ..v1::CreateTokenRequest::default()
            };
            create(session, request, args.output.output_file.as_deref()).await?;
        }
        Command::Create(Create::Operator(args)) => {
            let request = v1::CreateTokenRequest {
                kind: v1::TokenKind::Operator.into(),
                principal: args.principal,
                role: v1::Role::from(args.role).into(),
                ttl_secs: keyfleet_proto::duration_secs(args.ttl),
                ..v1::CreateTokenRequest::default()
            };
            create(session, request, args.output.output_file.as_deref()).await?;
        }
        Command::List => get::tokens(&session.client().await?, session.printer).await?,
        Command::Revoke { id } => revoke(session, id).await?,
    }
    Ok(Exit::Ok)
}

async fn create(
    session: &Session<'_>,
    request: v1::CreateTokenRequest,
    file: Option<&Path>,
) -> Result<(), Error> {
    let client = session.client().await?;
    // The file comes first: a token whose value could not be written would be lost.
    let opened = file.map(files::create_private).transpose()?;
    let outcome = client
        .call(request, async |api, request| {
            api.create_token(request).await
        })
        .await;
    if let (Err(_), Some(file)) = (&outcome, file) {
        // The empty file is ours, made a moment ago; where it stays, it holds nothing.
        let _ = fs::remove_file(file);
    }
    let mut response = outcome?;
    if let (Some(mut opened), Some(file)) = (opened, file) {
        let value = std::mem::take(&mut response.value);
        writeln!(opened, "{value}")
            .and_then(|()| opened.sync_all())
            .map_err(|source| files::Error::Write {
                path: file.to_owned(),
                source,
            })?;
    }
    print(session.printer, &response, file)
}

/// The value alone on stdout, so that a script can take it; the rest is a note.
fn print(
    printer: &Printer,
    response: &v1::CreateTokenResponse,
    file: Option<&Path>,
) -> Result<(), Error> {
    let token = response.token.clone().unwrap_or_default();
    let place = match file {
        Some(file) => format!("its value is in {}", file.display()),
        None => "its value is shown this once".to_owned(),
    };
    printer.note(format_args!(
        "token {} is valid until {}; {place}",
        token.id,
        rfc3339(token.expires_at)
    ));
    if printer.is_machine() {
        return printer.show(response, |_| String::new());
    }
    if response.value.is_empty() {
        Ok(())
    } else {
        printer.text(&response.value)
    }
}

async fn revoke(session: &Session<'_>, written: String) -> Result<(), Error> {
    let client = session.client().await?;
    let list = client
        .call(v1::ListTokensRequest {}, async |api, request| {
            api.list_tokens(request).await
        })
        .await?;
    let mut matching = list
        .tokens
        .into_iter()
        .map(|token| token.id)
        .filter(|id| id.starts_with(&written));
    // Only a beginning that is plain is completed; control answers for everything else.
    let id = match (matching.next(), matching.next()) {
        (Some(id), None) => id,
        _ => written,
    };
    let request = v1::RevokeTokenRequest { id: id.clone() };
    client
        .call(request, async |api, request| {
            api.revoke_token(request).await
        })
        .await?;
    session.printer.note(format_args!("token {id} is revoked"));
    Ok(())
}
