//! `keyfleet-control serve`: puts the parts together, runs them, ends them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use keyfleet_proto::v1::agent_service_server::AgentServiceServer;
use keyfleet_proto::v1::operator_service_server::OperatorServiceServer;
use keyfleet_seal::FingerprintKey;
use keyfleet_store::Store;
use keyfleet_vault::Vault;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use crate::app::App;
use crate::ca::{self, Authority};
use crate::config::{Config, Port};
use crate::gates::{self as gate, Asker};
use crate::grpc::agent::AgentApi;
use crate::grpc::operator::OperatorApi;
use crate::init::{database_path, fingerprint_path};
use crate::keyring::KeyRing;
use crate::tasks::{
    Tasks, audit_log, campaigns, gates, last_seen, planner, rotation, upkeep, vault_poll,
};
use crate::{files, tls, web};

/// HTTP/2 pings that find half-open connections; liveness itself is judged by heartbeats.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A TLS handshake that takes longer is no agent of ours.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// How long calls whose callers have gone may take at the shutdown.
const CALLS_DEADLINE: Duration = Duration::from_secs(2);

/// One stream of an agent and its enrolment; more is abuse.
const AGENT_STREAMS_MAX: u32 = 8;

/// The longest message that is read from an agent. Decoded it may take a hundred times as much, and an agent splits what
/// is longer.
const AGENT_MESSAGE_BYTES_MAX: usize = 512 * 1024;

/// Why the service did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The CA of `init`.
    #[error("the CA cannot be used: run `keyfleet-control init` first")]
    Ca(#[from] ca::Error),
    /// A file of `init`.
    #[error("a file of `keyfleet-control init` cannot be used")]
    File(#[from] files::Error),
    /// The fingerprint key.
    #[error("the fingerprint key cannot be used")]
    Fingerprint(#[from] keyfleet_seal::Error),
    /// The database.
    #[error(transparent)]
    Store(#[from] keyfleet_store::Error),
    /// There is no database.
    #[error(
        "there is no database {path}: `keyfleet-control init` makes the first one, `keyfleet-control restore FILE` brings back a backup"
    )]
    NoDatabase {
        /// Where it should be.
        path: std::path::PathBuf,
    },
    /// The settings of Vault.
    #[error("the settings of Vault cannot be used")]
    Vault(#[from] keyfleet_vault::Error),
    /// A port is taken or not ours.
    #[error("cannot listen on {address}: is another service there?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// TLS of a port.
    #[error("a port cannot speak TLS")]
    Tls(#[from] rustls::Error),
    /// Reflection.
    #[error("the descriptors of the API cannot be served")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The hosts of the settings.
    #[error("the setting outbound.allowed_hosts cannot be taken in: {0}")]
    Outbound(String),
    /// The settings of gates.
    #[error("the settings of gates cannot be used")]
    Gates(#[from] gate::Error),
    /// A task ended that never should.
    #[error("{0} ended before the service")]
    TaskEnded(&'static str),
}

/// Runs the service until `shutdown` is cancelled; returns when every stream and task has ended.
///
/// # Errors
/// [`Error`] where it cannot start, or a part of it failed.
pub async fn serve(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let app = build(config, shutdown.clone())?;
    app.load_andon().await?;
    let settled = app.settle_outbound().await;
    settled.map_err(|err| Error::Outbound(err.to_string()))?;
    let asker = Asker::new(&app.config.gates)?;
    let agents = listen(&app.config.agents.port).await?;
    let operators = listen(&app.config.operators).await?;
    let mut tasks = Tasks::new(shutdown.clone());
    tasks.spawn("the planner", planner::run(app.clone(), shutdown.clone()));
    tasks.spawn(
        "the campaigns",
        campaigns::run(app.clone(), shutdown.clone()),
    );
    tasks.spawn(
        "the questions of gates",
        gates::run(app.clone(), asker, shutdown.clone()),
    );
    tasks.spawn(
        "the record of absences",
        last_seen::run(app.clone(), shutdown.clone()),
    );
    tasks.spawn(
        "the care of the database",
        upkeep::run(app.clone(), shutdown.clone()),
    );
    tasks.spawn(
        "the poll of Vault",
        vault_poll::run(app.clone(), shutdown.clone()),
    );
    tasks.spawn(
        "the record of the audit log",
        audit_log::run(app.clone(), shutdown.clone()),
    );
    let (vault, end) = (app.keyring.vault().clone(), shutdown.clone());
    tasks.spawn("the renewal of Vault's token", async move {
        vault.keep_logged_in(end).await
    });
    tasks.spawn(
        "the rotation of the CA",
        rotation::run(app.clone(), shutdown.clone()),
    );
    let incoming = tls::incoming(agents, agents_tls(&app)?, HANDSHAKE_DEADLINE);
    tasks.spawn(
        "the agents' port",
        serve_port("agents", agents_server(&app), incoming, shutdown.clone()),
    );
    let incoming = tls::incoming(operators, operators_tls(&app)?, HANDSHAKE_DEADLINE);
    tasks.spawn(
        "the operators' port",
        serve_port(
            "operators",
            operators_server(&app).await?,
            incoming,
            shutdown,
        ),
    );
    tracing::info!(
        agents.listen = %app.config.agents.port.listen,
        operators.listen = %app.config.operators.listen,
        epoch = app.store.epoch(),
        "control service ready"
    );
    let ended = tasks.until_shutdown().await;
    wind_up(&app, tasks).await;
    ended.map_or(Ok(()), |name| Err(Error::TaskEnded(name)))
}

/// Waits for what goes on, and leaves everything on disk.
async fn wind_up(app: &App, tasks: Tasks) {
    let left = tasks.join(app.config.shutdown_deadline).await;
    if left > 0 {
        tracing::warn!(
            tasks = left,
            "some tasks did not end within the deadline and were cut off"
        );
    }
    if !app.finish(CALLS_DEADLINE).await {
        tracing::warn!("some calls did not end within the deadline and were cut off");
    }
    app.write_counted_refusals().await;
    app.log_audit_head().await;
    app.store.close().await;
    tracing::info!("control service ended");
}

fn build(config: Config, shutdown: CancellationToken) -> Result<App, Error> {
    let authority = Authority::load(&config.data_dir)?;
    let fingerprint =
        FingerprintKey::from_bytes(&files::read(&fingerprint_path(&config.data_dir))?)?;
    let database = database_path(&config.data_dir);
    // An empty one in its place would know no deployment and refuse the whole fleet.
    if !std::fs::metadata(&database).is_ok_and(|file| file.len() > 0) {
        return Err(Error::NoDatabase { path: database });
    }
    let store = Store::open(&database)?;
    let keyring = KeyRing::new(Vault::new(&config.vault)?);
    Ok(App::new(
        config,
        store,
        authority,
        fingerprint,
        keyring,
        shutdown,
    ))
}

async fn listen(port: &Port) -> Result<TcpListener, Error> {
    let address = port.listen;
    TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address, source })
}

/// A port's routes with its TLS, ready to be served.
struct PortServer {
    server: Server,
    routes: Routes,
}

fn agents_server(app: &App) -> PortServer {
    let server = Server::builder()
        .max_concurrent_streams(Some(AGENT_STREAMS_MAX))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT));
    let api = AgentApi {
        app: app.clone(),
        issuing: Arc::default(),
    };
    let service = AgentServiceServer::new(api).max_decoding_message_size(AGENT_MESSAGE_BYTES_MAX);
    let routes = Routes::new(service);
    PortServer { server, routes }
}

fn agents_tls(app: &App) -> Result<Arc<rustls::ServerConfig>, Error> {
    let presented = tls::Presented::new(&app.authority, &app.config.agents.port.names)?;
    Ok(tls::agents(presented, &app.authority)?)
}

fn operators_tls(app: &App) -> Result<Arc<rustls::ServerConfig>, Error> {
    let presented = tls::Presented::new(&app.authority, &app.config.operators.names)?;
    Ok(tls::operators(presented)?)
}

async fn operators_server(app: &App) -> Result<PortServer, Error> {
    let server = Server::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT));
    let api = OperatorServiceServer::new(OperatorApi { app: app.clone() });
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_serving::<OperatorServiceServer<OperatorApi>>()
        .await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(keyfleet_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let grpc = Routes::new(api).add_service(health).add_service(reflection);
    let routes = Routes::from(grpc.into_axum_router().merge(web::router(app.clone())));
    Ok(PortServer { server, routes })
}

async fn serve_port<IO, E>(
    name: &'static str,
    port: PortServer,
    incoming: impl Stream<Item = Result<IO, E>>,
    shutdown: CancellationToken,
) where
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let PortServer { mut server, routes } = port;
    let served = server
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
        .await;
    if let Err(err) = served {
        tracing::error!(port = name, error = %keyfleet_telemetry::error_chain(&err), "a port failed");
    }
}
