//! `keyfleet token`: tokens that let agents join and operators call.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use keyfleet_proto::v1;
use prost::{Message, Name};

use super::agree::OptionalReasonArgs;
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
    #[command(after_long_help = "\
Example:
  keyfleet token list")]
    List,
    /// Revoke a token
    #[command(after_long_help = "\
Example:
  keyfleet token revoke 0192f3a4 --reason 'ada left'")]
    Revoke {
        /// Id of the token, or its beginning, as `token list` shows it
        id: String,
        #[command(flatten)]
        reason: OptionalReasonArgs,
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
#[command(after_long_help = "\
Example:
  keyfleet token create join --uses 5 --ttl 2h --label env=prod --output-file join-token")]
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
    reason: OptionalReasonArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// An operator token.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  keyfleet token create operator --principal ci --role operator --output-file ci-token
  keyfleet token create operator --principal soc --role operator --scope team=soc")]
pub(crate) struct OperatorArgs {
    /// Who acts with it: a person or a pipeline
    #[arg(long, value_name = "NAME")]
    principal: String,
    /// What it may do; each role includes the ones before it
    #[arg(long, value_enum)]
    role: Role,
    /// Only for deployments with these labels, such as team=soc; all of them where left out
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "SELECTOR"
    )]
    scope: String,
    /// How long it can be used
    #[arg(long, default_value = "90d", value_parser = duration::parse, value_name = "TIME")]
    ttl: Duration,
    #[command(flatten)]
    reason: OptionalReasonArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Where the value goes.
#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// Write the value to this new file, readable by you alone, instead of showing it
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
}

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Reads everything
    Viewer,
    /// Changes connectors, placements, strategies and rollouts; stops the fleet and reads the audit log
    Operator,
    /// Changes keys, tokens, agents' identities and the CA too
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
                reason: args.reason.reason,
                ..v1::CreateTokenRequest::default()
            };
            create(session, request, &args.output).await?;
        }
        Command::Create(Create::Operator(args)) => {
            let request = v1::CreateTokenRequest {
                kind: v1::TokenKind::Operator.into(),
                principal: args.principal,
                role: v1::Role::from(args.role).into(),
                ttl_secs: keyfleet_proto::duration_secs(args.ttl),
                scope: args.scope,
                reason: args.reason.reason,
                ..v1::CreateTokenRequest::default()
            };
            create(session, request, &args.output).await?;
        }
        Command::List => get::tokens(&session.client().await?, session.printer).await?,
        Command::Revoke { id, reason } => revoke(session, id, reason.reason).await?,
    }
    Ok(Exit::Ok)
}

async fn create(
    session: &Session<'_>,
    request: v1::CreateTokenRequest,
    output: &OutputArgs,
) -> Result<(), Error> {
    let client = session.client().await?;
    // The file comes first: a token whose value could not be written would be lost.
    let file = ValueFile::create(output)?;
    let outcome = client
        .call(request, async |api, request| {
            api.create_token(request).await
        })
        .await;
    let mut response = match outcome {
        Ok(response) => response,
        Err(err) => {
            file.discard();
            return Err(err.into());
        }
    };
    file.fill(&mut response.value)?;
    show_value(
        session.printer,
        &response,
        response.token.as_ref(),
        &response.value,
        &file,
    )
}

/// The new file for a token's value, where one is wanted.
pub(super) struct ValueFile(Option<(PathBuf, File)>);

impl ValueFile {
    /// Makes the file, empty.
    pub(super) fn create(output: &OutputArgs) -> Result<Self, Error> {
        let create = |path: &PathBuf| Ok((path.clone(), files::create_private(path)?));
        output
            .output_file
            .as_ref()
            .map(create)
            .transpose()
            .map(Self)
    }

    /// Takes the file away: there is no token.
    pub(super) fn discard(self) {
        if let Some((path, _)) = self.0 {
            // The empty file is ours, made a moment ago; where it stays, it holds nothing.
            let _ = fs::remove_file(path);
        }
    }

    /// Moves the value into the file; without a file it stays where it is.
    pub(super) fn fill(&self, value: &mut String) -> Result<(), Error> {
        let Some((path, file)) = &self.0 else {
            return Ok(());
        };
        let value = std::mem::take(value);
        let mut file: &File = file;
        writeln!(file, "{value}")
            .and_then(|()| file.sync_all())
            .map_err(|source| files::Error::Write {
                path: path.clone(),
                source,
            })?;
        Ok(())
    }
}

/// The value alone on stdout, so that a script can take it; the rest is a note.
pub(super) fn show_value<M: Message + Name>(
    printer: &Printer,
    response: &M,
    token: Option<&v1::Token>,
    value: &str,
    file: &ValueFile,
) -> Result<(), Error> {
    let token = token.cloned().unwrap_or_default();
    let place = match &file.0 {
        Some((path, _)) => format!("its value is in {}", path.display()),
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
    if value.is_empty() {
        Ok(())
    } else {
        printer.text(value)
    }
}

async fn revoke(session: &Session<'_>, written: String, reason: String) -> Result<(), Error> {
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
    let request = v1::RevokeTokenRequest {
        id: id.clone(),
        reason,
    };
    client
        .call(request, async |api, request| {
            api.revoke_token(request).await
        })
        .await?;
    session.printer.note(format_args!("token {id} is revoked"));
    Ok(())
}
