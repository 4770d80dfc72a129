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
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::Connected;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::app::App;
use crate::ca::{self, Authority};
use crate::config::{Config, Port};
use crate::grpc::agent::AgentApi;
use crate::grpc::operator::OperatorApi;
use crate::init::{database_path, fingerprint_path};
use crate::keyring::KeyRing;
use crate::tasks::{Tasks, last_seen, planner, vault_poll};
use crate::{clock, files, tls, web};

/// HTTP/2 pings that find half-open connections; liveness itself is judged by heartbeats.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A TLS handshake that takes longer is no agent of ours.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// One stream of an agent and its enrolment; more is abuse.
const AGENT_STREAMS_MAX: u32 = 8;

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
    /// The certificate of the operators' port.
    #[error("the certificate of the operators' port cannot be used")]
    Tls(#[from] rustls::Error),
    /// TLS or gRPC of a port.
    #[error("a port cannot be served")]
    Transport(#[from] tonic::transport::Error),
    /// Reflection.
    #[error("the descriptors of the API cannot be served")]
    Reflection(#[from] tonic_reflection::server::Error),
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
    let agents = listen(&app.config.agents.port).await?;
    let operators = listen(&app.config.operators).await?;
    let mut tasks = Tasks::new(shutdown.clone());
    tasks.spawn("the planner", planner::run(app.clone(), shutdown.clone()));
    tasks.spawn(
        "the record of absences",
        last_seen::run(app.clone(), shutdown.clone()),
    );
    tasks.spawn(
        "the poll of Vault",
        vault_poll::run(app.clone(), shutdown.clone()),
    );
    let (vault, end) = (app.keyring.vault().clone(), shutdown.clone());
    tasks.spawn("the renewal of Vault's token", async move {
        vault.keep_logged_in(end).await
    });
    let (server, incoming) = (agents_server(&app)?, TcpListenerStream::new(agents));
    tasks.spawn(
        "the agents' port",
        serve_port("agents", server, incoming, shutdown.clone()),
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
    let left = tasks.join(app.config.shutdown_deadline).await;
    if left > 0 {
        tracing::warn!(
            tasks = left,
            "some tasks did not end within the deadline and were cut off"
        );
    }
    app.store.close().await;
    tracing::info!("control service ended");
    ended.map_or(Ok(()), |name| Err(Error::TaskEnded(name)))
}

fn build(config: Config, shutdown: CancellationToken) -> Result<App, Error> {
    let authority = Authority::load(&config.data_dir)?;
    let fingerprint =
        FingerprintKey::from_bytes(&files::read(&fingerprint_path(&config.data_dir))?)?;
    let store = Store::open(&database_path(&config.data_dir))?;
    let keyring = KeyRing::new(Vault::new(config.vault.clone())?);
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

fn agents_server(app: &App) -> Result<PortServer, Error> {
    let (chain, key) = app
        .authority
        .server(&app.config.agents.port.names, clock::now())?;
    // Enrolment comes without a client certificate; every other call checks for one itself.
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(chain, key))
        .client_ca_root(Certificate::from_pem(app.authority.certificate_pem()))
        .client_auth_optional(true)
        .timeout(HANDSHAKE_DEADLINE);
    let server = Server::builder()
        .tls_config(tls)?
        .max_concurrent_streams(Some(AGENT_STREAMS_MAX))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT));
    let routes = Routes::new(AgentServiceServer::new(AgentApi { app: app.clone() }));
    Ok(PortServer { server, routes })
}

fn operators_tls(app: &App) -> Result<Arc<rustls::ServerConfig>, Error> {
    let names = &app.config.operators.names;
    let (chain, key) = app.authority.server(names, clock::now())?;
    Ok(tls::settings(&chain, &key)?)
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
