//! TLS of both ports: TLS 1.2 and 1.3 with forward secrecy and authenticated ciphers only, certificates that change
//! without a restart, and connections that can be hung up.
//!
//! tonic's own TLS offers HTTP/2 only, has one certificate for ever, and gives no hold of the connection.

use std::convert::Infallible;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, stream};
use keyfleet_core::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ConfigBuilder, ServerConfig, WantsVerifier};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use crate::ca::{self, AgentVerifier, Authority, SERVER_RENEWAL, provider};
use crate::clock;

/// Handshakes under way at once; more wait in the listener's backlog.
const HANDSHAKES_MAX: usize = 2_048;

/// Connections of one port at once; more wait in the listener's backlog. Each is a file handle, and the service unit
/// allows two such ports and some more.
const CONNECTIONS_MAX: usize = 65_536;

/// A connection from which nothing comes for so long is ended: a live one answers HTTP/2's pings, one every 20 s.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How long nothing is accepted after the system refused to: it has no file handles left, most likely.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What a server presents: made anew when the CA changes and well before its end.
pub(crate) struct Presented {
    authority: Authority,
    names: Vec<String>,
    now: Mutex<Made>,
}

struct Made {
    certified: Arc<CertifiedKey>,
    at: Timestamp,
    /// Pin of the CA that signed it.
    ca: String,
}

impl Made {
    fn new(authority: &Authority, names: &[String], now: Timestamp) -> Result<Self, ca::Error> {
        let cas = authority.cas();
        Ok(Self {
            certified: Arc::new(cas.server(names, now)?),
            at: now,
            ca: cas.current.pin.clone(),
        })
    }

    fn is_due(&self, authority: &Authority, now: Timestamp) -> bool {
        let age = Duration::try_from(now.duration_since(self.at)).unwrap_or_default();
        age >= SERVER_RENEWAL || self.ca != authority.cas().current.pin
    }
}

impl Presented {
    /// A first certificate for these names.
    ///
    /// # Errors
    /// Where a name is not a DNS name or an address.
    pub(crate) fn new(authority: &Authority, names: &[String]) -> Result<Arc<Self>, ca::Error> {
        let made = Made::new(authority, names, clock::now())?;
        Ok(Arc::new(Self {
            authority: authority.clone(),
            names: names.to_vec(),
            now: Mutex::new(made),
        }))
    }

    fn at(&self, now: Timestamp) -> Arc<CertifiedKey> {
        let mut made = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if made.is_due(&self.authority, now) {
            match Made::new(&self.authority, &self.names, now) {
                Ok(new) => *made = new,
                Err(err) => {
                    tracing::error!(error = %keyfleet_telemetry::error_chain(&err), "the server's certificate was not renewed");
                }
            }
        }
        made.certified.clone()
    }
}

impl std::fmt::Debug for Presented {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presented")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Presented {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(clock::now()))
    }
}

/// Settings of the operators' port. It speaks HTTP/1.1 beside HTTP/2: probes and scrapers often know nothing else.
///
/// # Errors
/// Where the provider of TLS lacks a version: a bug.
pub(crate) fn operators(presented: Arc<Presented>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut settings = versions()?
        .with_no_client_auth()
        .with_cert_resolver(presented);
    harden(&mut settings, &[b"h2", b"http/1.1"]);
    Ok(Arc::new(settings))
}

/// Settings of the agents' port, which checks client certificates where there are some.
///
/// # Errors
/// As [`operators`].
pub(crate) fn agents(
    presented: Arc<Presented>,
    authority: &Authority,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let verifier = Arc::new(AgentVerifier::new(authority.clone()));
    let mut settings = versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(presented);
    harden(&mut settings, &[b"h2"]);
    Ok(Arc::new(settings))
}

fn versions() -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, rustls::Error> {
    // All the suites of the provider have forward secrecy and authenticated encryption; a test looks.
    ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
}

fn harden(settings: &mut ServerConfig, protocols: &[&[u8]]) {
    settings.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    // A resumed connection would skip the check of the client's certificate, against a CA that may be gone by now.
    settings.session_storage = Arc::new(NoServerSessionStorage {});
    settings.send_tls13_tickets = 0;
    // RFC 7627: without it TLS 1.2 connections can be mixed up with each other.
    settings.require_ems = true;
}

/// Who is at the other end of a connection; a request carries it among its extensions.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// The client's certificate, its chain checked.
    pub(crate) certificate: Option<CertificateDer<'static>>,
    /// Ends the connection at once, whatever the other end does.
    pub(crate) hang_up: CancellationToken,
}

/// A connection behind its handshake.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    hung_up: Pin<Box<WaitForCancellationFutureOwned>>,
    silence: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TlsStream<TcpStream>, place: OwnedSemaphorePermit) -> Self {
        let certificates = stream.get_ref().1.peer_certificates();
        let certificate = certificates.and_then(<[_]>::first).cloned();
        let hang_up = CancellationToken::new();
        Self {
            stream,
            hung_up: Box::pin(hang_up.clone().cancelled_owned()),
            silence: Box::pin(tokio::time::sleep(SILENCE_MAX)),
            _place: place,
            peer: Peer {
                certificate,
                hang_up,
            },
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // HTTP/2 always waits to read, so that this is where a connection is woken and ended.
        if self.hung_up.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.silence.as_mut().reset(Instant::now() + SILENCE_MAX);
        } else if self.silence.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The connections whose handshake succeeded within the deadline. One that hangs holds nobody else up.
pub(crate) fn incoming(
    listener: TcpListener,
    settings: Arc<ServerConfig>,
    deadline: Duration,
) -> impl Stream<Item = Result<Connection, Infallible>> {
    let acceptor = TlsAcceptor::from(settings);
    let handshakes = JoinSet::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    stream::unfold((listener, handshakes), move |(listener, mut handshakes)| {
        let (acceptor, places) = (acceptor.clone(), places.clone());
        async move {
            loop {
                let has_room = handshakes.len() < HANDSHAKES_MAX;
                tokio::select! {
                    // Cancel-safe: an ended handshake stays in the set until it is taken.
                    Some(done) = handshakes.join_next() => {
                        if let Ok(Some(connection)) = done {
                            return Some((Ok(connection), (listener, handshakes)));
                        }
                    }
                    // Cancel-safe: a connection that was not taken stays in the backlog.
                    accepted = accept(&listener, &places), if has_room => match accepted {
                        Ok((tcp, place)) => {
                            let handshake = handshake(tcp, acceptor.clone(), deadline);
                            handshakes.spawn(async { Some(Connection::new(handshake.await?, place)) });
                        }
                        Err(err) => {
                            tracing::warn!(error = %err, "a connection was not accepted");
                            tokio::time::sleep(ACCEPT_AGAIN).await;
                        }
                    },
                }
            }
        }
    })
}

/// The next connection, when there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await;
    let place = place.map_err(io::Error::other)?;
    let (tcp, _) = listener.accept().await?;
    Ok((tcp, place))
}

async fn handshake(
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    deadline: Duration,
) -> Option<TlsStream<TcpStream>> {
    // Small messages are not held back; where the system refuses, they come a little later.
    let _ = tcp.set_nodelay(true);
    match tokio::time::timeout(deadline, acceptor.accept(tcp))
        .await
        .ok()?
    {
        Ok(stream) => Some(stream),
        Err(err) => {
            tracing::debug!(error = %err, "a TLS handshake failed");
            None
        }
    }
}

#[cfg(test)]
mod tests;
