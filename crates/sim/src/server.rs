//! The HTTP server under both simulators: one listener, one task per connection, all owned by a [`Server`].

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use futures_util::stream;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::reply::{Call, Outcome, Reply};

/// The longest body either simulator reads: Kibana's `server.maxPayload` of 1 MiB.
const BODY_BYTES_MAX: usize = 1_048_576;

/// How long to wait after the system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Why a simulator did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}; choose a free address, or port 0 for any free port")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The HTTP client with which a simulated Kibana calls a provider could not be made.
    #[error("cannot make the HTTP client for provider calls")]
    Client(#[source] reqwest::Error),
    /// The state file of an earlier run cannot be used.
    #[error("cannot use the state file {path}: {reason}; remove it to start without connectors")]
    State {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A running simulator. Dropping it stops it at once; [`Server::shutdown`] also waits until it has stopped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    elasticsearch: Option<SocketAddr>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Server {
    pub(crate) fn new(address: SocketAddr, stop: CancellationToken, tasks: JoinSet<()>) -> Self {
        Self {
            address,
            elasticsearch: None,
            stop,
            tasks,
        }
    }

    /// The base address without a trailing slash, for example `http://127.0.0.1:5601`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The base address of the simulated Elasticsearch beside it, where there is one.
    #[must_use]
    pub fn elasticsearch_url(&self) -> Option<String> {
        self.elasticsearch
            .map(|address| format!("http://{address}"))
    }

    /// The address it really listens on, never port 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves the Elasticsearch of this Kibana too, for as long.
    pub(crate) async fn beside<S: Simulated>(
        &mut self,
        listen: SocketAddr,
        simulated: Arc<S>,
    ) -> Result<(), Error> {
        let (listener, address) = bind(listen).await?;
        self.elasticsearch = Some(address);
        let stop = self.stop.clone();
        self.tasks.spawn(accept(listener, simulated, stop));
        Ok(())
    }

    /// Closes the listener and every connection, finished or not, and returns when all are gone.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// A thing that answers requests.
pub(crate) trait Simulated: Send + Sync + 'static {
    /// Answers one request, or says how to break the connection.
    fn handle(self: Arc<Self>, call: Call) -> impl Future<Output = Outcome> + Send;
}

/// Serves `simulated` until the returned handle is shut down or dropped.
pub(crate) async fn serve<S: Simulated>(
    listen: SocketAddr,
    simulated: Arc<S>,
) -> Result<Server, Error> {
    let (listener, address) = bind(listen).await?;
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(accept(listener, simulated, stop.clone()));
    Ok(Server::new(address, stop, tasks))
}

async fn bind(listen: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Listen {
        address: listen,
        source,
    };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

async fn accept<S: Simulated>(listener: TcpListener, simulated: Arc<S>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => { connections.spawn(connection(socket, Arc::clone(&simulated))); }
                // Out of sockets: leave time for some to close rather than spin.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn connection<S: Simulated>(socket: TcpStream, simulated: Arc<S>) {
    // Small answers must not wait for the peer's acknowledgement.
    let _ = socket.set_nodelay(true);
    let service = tower::service_fn(move |request| respond(Arc::clone(&simulated), request));
    let _ = Builder::new(TokioExecutor::new())
        .http1_only()
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(service))
        .await;
}

/// The connection is to be dropped without an answer.
#[derive(Debug, thiserror::Error)]
#[error("connection closed by a simulated fault")]
struct Closed;

impl From<Infallible> for Closed {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Reads the body, asks the simulator, writes its answer. An error makes the HTTP layer drop the connection.
async fn respond<S: Simulated, B>(
    simulated: Arc<S>,
    request: Request<B>,
) -> Result<Response<Body>, Closed>
where
    B: axum::body::HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let (head, body) = request.into_parts();
    let call = Call {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: to_bytes(Body::new(body), BODY_BYTES_MAX)
            .await
            .ok()
            .map(Into::into),
    };
    match simulated.handle(call).await {
        Outcome::Answer(reply) => {
            let body = Body::from(reply.body.clone());
            Ok(response(&reply, body))
        }
        Outcome::Half(reply) => {
            let mut response = response(&reply, half(&reply.body));
            response.headers_mut().insert(
                header::CONTENT_LENGTH,
                HeaderValue::from(reply.body.len().max(2)),
            );
            Ok(response)
        }
        Outcome::Close => Err(Closed),
    }
}

fn response(reply: &Reply, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(reply.content_type),
    );
    for (name, value) in &reply.headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(*name, value);
        }
    }
    response
}

/// The first half of a body, then an error. The pause between lets the first half leave the machine.
fn half(body: &[u8]) -> Body {
    let first = Bytes::copy_from_slice(body.get(..body.len() / 2).unwrap_or_default());
    let broken = async {
        tokio::task::yield_now().await;
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted))
    };
    let chunks = stream::once(async move { Ok(first) });
    Body::from_stream(futures_util::StreamExt::chain(chunks, stream::once(broken)))
}
