//! The command line: start a simulator, or talk to one that runs.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::client::Client;
use crate::kibana::{self, Licence, Version};
use crate::openai;
use crate::proxy;
use crate::server::Server;

/// Simulated Kibana and OpenAI that hold state, follow the rules of their version and fail on demand.
#[derive(Parser)]
#[command(name = "keyfleet-sim", version, about)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Simulates one Kibana until it is told to end.
    Kibana(KibanaArguments),
    /// Simulates the OpenAI API until it is told to end.
    Openai(OpenAiArguments),
    /// Runs an HTTP proxy that lists what it forwarded (`keyfleet-sim log`).
    Proxy(ProxyArguments),
    /// Shows, sets or clears the fault switches of a running simulator.
    #[command(after_help = FAULT_HELP)]
    Fault {
        /// The simulator's address, as its ready line printed it.
        #[arg(long)]
        url: String,
        /// Switches everything off.
        #[arg(long, conflicts_with = "faults")]
        clear: bool,
        /// The switches as JSON; they replace the present ones. Without it the present ones are shown.
        faults: Option<String>,
    },
    /// Prints the request log of a running simulator as JSON.
    Log {
        /// The simulator's address, as its ready line printed it.
        #[arg(long)]
        url: String,
        /// Empties the log and its counters instead.
        #[arg(long)]
        clear: bool,
    },
    /// Lists, adds or revokes keys of a running simulated OpenAI.
    Keys {
        /// The simulator's address, as its ready line printed it.
        #[arg(long)]
        url: String,
        #[command(subcommand)]
        change: Option<KeyChange>,
    },
}

const FAULT_HELP: &str = "\
For a Kibana:
  '{\"provider\": {\"status\": 401}}'
      every run fails as with a bad key; mode: status, network, timeout;
      also model, message, delay_ms, remaining
  '{\"api\": {\"mode\": \"status\", \"status\": 429, \"methods\": [\"PUT\"], \"remaining\": 3}}'
      mode: down, hang, slow, status, html, half_closed, write_then_fail;
      also delay_ms, retry_after_secs, retry_after_date, path_contains
  '{\"licence\": \"basic\"}'
      also type_disabled, licence_expired, privilege (none, read, all), privilege_in,
      encryption_key_missing, undecryptable, secrets_missing, status_level,
      clock_skew_secs, upgrade_to
  '{\"undecryptable\": [\"ID\"], \"type_disabled\": [\".bedrock\"]}'
      only for these connectors or types

For the Elasticsearch beside a Kibana: api and provider as above, and
  '{\"privilege\": \"monitor\"}'
      none, monitor, manage

For an OpenAI:
  '{\"mode\": \"quota\"}'
      mode: down, hang, slow, status, html, half_closed, quota, rate_limit,
      server_error, revoked, missing_scope, ip_not_authorized, region,
      model_denied, wrong_model
  '{\"mode\": \"revoked\", \"key_tail\": \"MxYA\", \"remaining\": 2}'
      also status, message, delay_ms, retry_after_secs, model, methods,
      path_contains";

#[derive(Subcommand)]
enum KeyChange {
    /// Makes a key work.
    Add {
        /// The key.
        key: String,
    },
    /// Makes a key fail with 401.
    Revoke {
        /// The key.
        key: String,
    },
}

#[derive(Args)]
struct KibanaArguments {
    /// The version to play, 8.0 to 9.x.
    #[arg(long, default_value = "9.4.0")]
    version: Version,
    /// Where to listen; port 0 takes any free port.
    #[arg(long, default_value = "127.0.0.1:5601")]
    listen: SocketAddr,
    /// The spaces; `default` is always there.
    #[arg(long, value_delimiter = ',', default_value = "default")]
    spaces: Vec<String>,
    /// The API key it accepts, as in `Authorization: ApiKey KEY`.
    #[arg(long)]
    api_key: String,
    /// The name in its status.
    #[arg(long, default_value = "kibana")]
    name: String,
    /// Its licence.
    #[arg(long, value_enum, default_value = "enterprise")]
    licence: Licence,
    /// Where the Elasticsearch under it listens, for inference endpoints; none without it.
    #[arg(long)]
    elasticsearch_listen: Option<SocketAddr>,
    /// Takes the place of the public addresses of OpenAI and Azure in inference endpoints that name no other.
    #[arg(long)]
    provider_url: Option<String>,
    /// Hosts that connectors may call.
    #[arg(long, value_delimiter = ',', default_value = "*")]
    allowed_hosts: Vec<String>,
    /// A connector from kibana.yml, as `id=name`; repeat it for more.
    #[arg(long, value_parser = id_and_name)]
    preconfigured: Vec<(String, String)>,
    /// Each answer comes this many milliseconds later.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// How long a run waits for the provider.
    #[arg(long, default_value_t = 60_000)]
    provider_timeout_ms: u64,
    /// Keeps the connectors in this file, secrets included, so that they survive a restart.
    #[arg(long)]
    state: Option<PathBuf>,
}

#[derive(Args)]
struct OpenAiArguments {
    /// Where to listen; port 0 takes any free port.
    #[arg(long, default_value = "127.0.0.1:9100")]
    listen: SocketAddr,
    /// A key that works; repeat it for more.
    #[arg(long)]
    key: Vec<String>,
    /// A model it has; repeat it for more. Without it there are a few usual ones.
    #[arg(long)]
    model: Vec<String>,
    /// Each answer comes this many milliseconds later.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
}

#[derive(Args)]
struct ProxyArguments {
    /// Where to listen; port 0 takes any free port.
    #[arg(long, default_value = "127.0.0.1:3128")]
    listen: SocketAddr,
    /// The `user:password` that it wants.
    #[arg(long)]
    user: Option<String>,
    /// A destination (`host:port`) that it refuses; repeat it for more.
    #[arg(long)]
    deny: Vec<String>,
}

/// Without the arguments, which may hold keys.
impl std::fmt::Debug for Arguments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arguments").finish_non_exhaustive()
    }
}

/// Carries out the command.
///
/// # Errors
/// When a simulator cannot start or cannot be reached; the text says why.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Kibana(arguments) => {
            let label = format!("kibana {}", String::from(arguments.version));
            serve(&label, kibana::start(arguments.into()).await?).await
        }
        Command::Openai(arguments) => serve("openai", openai::start(arguments.into()).await?).await,
        Command::Proxy(arguments) => serve("proxy", proxy::start(arguments.into()).await?).await,
        Command::Fault { url, clear, faults } => {
            print(&Client::new(&url)?.faults(clear, faults).await?)
        }
        Command::Log { url, clear } => print(&Client::new(&url)?.log(clear).await?),
        Command::Keys { url, change } => {
            let change = change.map(|change| match change {
                KeyChange::Add { key } => ("add", key),
                KeyChange::Revoke { key } => ("revoke", key),
            });
            print(&Client::new(&url)?.keys(change).await?)
        }
    }
}

/// Prints the ready line, then serves until SIGTERM or Ctrl-C.
async fn serve(label: &str, server: Server) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let beside = server
        .elasticsearch_url()
        .map(|url| format!(" and elasticsearch at {url}"))
        .unwrap_or_default();
    print(&format!(
        "keyfleet-sim: {label} ready at {}{beside}",
        server.url()
    ))?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot listen for Ctrl-C")?,
    }
    server.shutdown().await;
    Ok(())
}

fn print(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("cannot write to standard output")
}

fn id_and_name(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((id, name)) if !id.is_empty() && !name.is_empty() => {
            Ok((id.to_owned(), name.to_owned()))
        }
        _ => Err("write it as id=name".to_owned()),
    }
}

impl From<KibanaArguments> for kibana::Options {
    fn from(arguments: KibanaArguments) -> Self {
        Self {
            listen: arguments.listen,
            spaces: arguments.spaces,
            name: arguments.name,
            licence: arguments.licence,
            allowed_hosts: arguments.allowed_hosts,
            preconfigured: arguments.preconfigured,
            elasticsearch: arguments.elasticsearch_listen,
            provider_url: arguments.provider_url,
            delay: Duration::from_millis(arguments.delay_ms),
            provider_timeout: Duration::from_millis(arguments.provider_timeout_ms),
            state_file: arguments.state,
            ..Self::new(arguments.version, arguments.api_key)
        }
    }
}

impl From<ProxyArguments> for proxy::Options {
    fn from(arguments: ProxyArguments) -> Self {
        Self {
            listen: arguments.listen,
            user: arguments.user,
            deny: arguments.deny,
        }
    }
}

impl From<OpenAiArguments> for openai::Options {
    fn from(arguments: OpenAiArguments) -> Self {
        let usual = Self::new(arguments.key);
        Self {
            listen: arguments.listen,
            models: if arguments.model.is_empty() {
                usual.models
            } else {
                arguments.model
            },
            delay: Duration::from_millis(arguments.delay_ms),
            ..usual
        }
    }
}
