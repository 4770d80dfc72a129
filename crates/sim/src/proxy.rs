//! A small HTTP proxy (RFC 9110, section 9.3.6, and absolute requests of RFC 9112, section 3.2.2) that keeps a list of
//! what it was asked for.
//!
//! `GET /_sim/requests` on its own address shows the list; nothing else is answered there. It forwards to anywhere it
//! can reach, so it listens on loopback.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::server::{Error, Server};

/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How many requests the list keeps.
const KEPT: usize = 10_000;

/// How the proxy is set up.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Where to listen; port 0 takes any free port.
    pub listen: SocketAddr,
    /// `user:password` that must be sent; nobody is asked without it.
    pub user: Option<String>,
    /// Destinations (`host:port`) that are refused with 403.
    pub deny: Vec<String>,
}

impl Options {
    /// On any free port, for everybody and everything.
    #[must_use]
    pub fn new() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            user: None,
            deny: Vec::new(),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

/// One request as the list shows it.
#[derive(Debug, Clone, Serialize)]
struct Entry {
    method: String,
    /// `host:port`.
    target: String,
    /// What the proxy answered: 200 for an open way.
    status: u16,
}

struct Proxy {
    user: Option<String>,
    deny: Vec<String>,
    seen: Mutex<VecDeque<Entry>>,
}

/// Starts a proxy; it runs as long as the returned handle.
///
/// # Errors
/// [`Error::Listen`].
pub async fn start(options: Options) -> Result<Server, Error> {
    let failed = |source| Error::Listen {
        address: options.listen,
        source,
    };
    let listener = TcpListener::bind(options.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let proxy = Arc::new(Proxy {
        user: options.user,
        deny: options.deny,
        seen: Mutex::default(),
    });
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(accept(listener, proxy, stop.clone()));
    Ok(Server::new(address, stop, tasks))
}

async fn accept(listener: TcpListener, proxy: Arc<Proxy>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => if let Ok((socket, _)) = accepted {
                let proxy = Arc::clone(&proxy);
                // A connection that breaks is its client's business.
                connections.spawn(async move { drop(proxy.serve(socket).await) });
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// A request's head, as far as a proxy reads it.
struct Head<'a> {
    method: &'a str,
    target: &'a str,
    headers: Vec<(&'a str, &'a str)>,
}

impl<'a> Head<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut lines = text.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        let header = |line: &'a str| {
            line.split_once(':')
                .map(|(name, value)| (name, value.trim()))
        };
        Some(Self {
            method,
            target,
            headers: lines.filter_map(header).collect(),
        })
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| *value)
    }
}

impl Proxy {
    async fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
                break at + 4;
            }
            if bytes.len() > HEAD_BYTES_MAX || client.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        let rest = bytes.split_off(end);
        let text = String::from_utf8_lossy(&bytes);
        let Some(head) = Head::parse(&text) else {
            return Ok(());
        };
        if head.target.starts_with('/') {
            return client.write_all(self.list().as_bytes()).await;
        }
        let (target, onward) = if head.method == "CONNECT" {
            (head.target.to_owned(), Vec::new())
        } else {
            let Some((target, onward)) = rewritten(&head) else {
                return client.write_all(&answer(400, "")).await;
            };
            (target, [onward, rest].concat())
        };
        let opened = self.open(&head, &target).await;
        self.note(
            &head,
            &target,
            opened.as_ref().map_or_else(|status| *status, |_| 200),
        );
        let mut server = match opened {
            Ok(server) => server,
            Err(status) => return client.write_all(&answer(status, "")).await,
        };
        if head.method == "CONNECT" {
            client
                .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                .await?;
        }
        server.write_all(&onward).await?;
        copy_bidirectional(&mut client, &mut server).await.map(drop)
    }

    /// The connection to the destination, or the status that says why there is none.
    async fn open(&self, head: &Head<'_>, target: &str) -> Result<TcpStream, u16> {
        let expected = self.user.as_deref().map(basic);
        if expected.is_some() && head.header("proxy-authorization") != expected.as_deref() {
            return Err(407);
        }
        if self.deny.iter().any(|denied| denied == target) {
            return Err(403);
        }
        TcpStream::connect(target).await.map_err(|_| 502)
    }

    fn note(&self, head: &Head<'_>, target: &str, status: u16) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= KEPT {
            seen.pop_front();
        }
        seen.push_back(Entry {
            method: head.method.to_owned(),
            target: target.to_owned(),
            status,
        });
    }

    fn list(&self) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let body = json!({ "requests": *seen }).to_string();
        String::from_utf8_lossy(&answer(200, &body)).into_owned()
    }
}

/// What a client with this `user:password` sends.
fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(user))
}

fn answer(status: u16, body: &str) -> Vec<u8> {
    let extra = if status == 407 {
        "Proxy-Authenticate: Basic realm=\"sim\"\r\n"
    } else {
        ""
    };
    let length = body.len();
    format!(
        "HTTP/1.1 {status} proxy\r\n{extra}Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The destination of an absolute request, and the request as its server wants it. One request a connection.
fn rewritten(head: &Head<'_>) -> Option<(String, Vec<u8>)> {
    let (authority, path) = match head.target.strip_prefix("http://")?.split_once('/') {
        Some((authority, path)) => (authority, path),
        None => (head.target.strip_prefix("http://")?, ""),
    };
    let target = match authority.rsplit_once(':') {
        Some((_, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => authority.to_owned(),
        _ => format!("{authority}:80"),
    };
    let mut request = format!("{} /{path} HTTP/1.1\r\n", head.method);
    for (name, value) in &head.headers {
        let mine = name.eq_ignore_ascii_case("connection")
            || name.to_ascii_lowercase().starts_with("proxy-");
        if !mine {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    request.push_str("Connection: close\r\n\r\n");
    Some((target, request.into_bytes()))
}
