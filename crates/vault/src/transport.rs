//! Sends one request: our own HTTP client around the request types of `vaultrs`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rustify::Endpoint;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use crate::answer::Answer;
use crate::settings::host_and_port;
use crate::{Error, Settings, client};

/// Far above any secret or list of versions.
const BODY_LIMIT: usize = 1024 * 1024;

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// Every Vault and OpenBao wants it where `require_request_header` is set on an agent's listener.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");
/// State of the cluster an answer was given from (Vault Enterprise, OpenBao 2.7 on raft). Sent back together with
/// [`INCONSISTENT`], it makes a standby that lags behind hand the request to the active node.
const INDEX: HeaderName = HeaderName::from_static("x-vault-index");
const INCONSISTENT: HeaderName = HeaderName::from_static("x-vault-inconsistent");
const FORWARD: HeaderValue = HeaderValue::from_static("forward-active-node");

/// What a request is about; login and reads may lie in different namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// Our own token.
    Login,
    /// Secrets.
    Reads,
}

/// The HTTP side of [`crate::Vault`].
pub(crate) struct Transport {
    settings: Settings,
    http: Mutex<reqwest::Client>,
    nodes: Vec<Url>,
    /// Place in `nodes` of the one that is asked; it stays until it fails.
    node: AtomicUsize,
    namespace: Option<HeaderValue>,
    login_namespace: Option<HeaderValue>,
    index: Mutex<Option<HeaderValue>>,
    /// Until when a rate limit told us to be quiet, and what it said.
    quiet: Mutex<Option<(Instant, Duration)>>,
}

impl Transport {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        Ok(Self {
            http: Mutex::new(client::build(settings)?),
            nodes: settings.addresses().cloned().collect(),
            node: AtomicUsize::new(0),
            namespace: settings.namespace_header()?,
            login_namespace: settings.login_namespace_header()?,
            index: Mutex::new(None),
            quiet: Mutex::new(None),
            settings: settings.clone(),
        })
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes the files of TLS as they are now: a certificate that logs in may have been renewed.
    pub(crate) fn read_files_again(&self) -> Result<(), Error> {
        *lock(&self.http) = client::build(&self.settings)?;
        Ok(())
    }

    /// Sends the request of `endpoint`, with `token` where it needs one, and returns any answer that is no refusal
    /// (see [`Answer::check`]). A node that cannot answer is left for the next; where it surely did nothing, the next
    /// is asked at once.
    pub(crate) async fn send<E: Endpoint>(
        &self,
        about: About,
        endpoint: &E,
        token: Option<&HeaderValue>,
    ) -> Result<Answer, Error> {
        self.check_quiet()?;
        let mut others = self.nodes.len().saturating_sub(1);
        loop {
            let place = self.node.load(Ordering::Relaxed);
            let answer = self.send_to(place, about, endpoint, token).await;
            match &answer {
                Err(Error::Stale) => {
                    // An index of a cluster that was since restored from a backup is never reached: ask without one.
                    *lock(&self.index) = None;
                }
                Err(Error::RateLimited { retry_after }) => {
                    *lock(&self.quiet) = retry_after.map(|after| (Instant::now() + after, after));
                }
                Err(error) if error.is_about_the_node() => {
                    self.leave(place);
                    if others > 0 && error.was_not_taken() {
                        others -= 1;
                        continue;
                    }
                }
                Ok(_) | Err(_) => {}
            }
            return answer;
        }
    }

    async fn send_to<E: Endpoint>(
        &self,
        place: usize,
        about: About,
        endpoint: &E,
        token: Option<&HeaderValue>,
    ) -> Result<Answer, Error> {
        let at = endpoint.path().trim().trim_matches('/').to_owned();
        let mut request = self
            .request(place, endpoint)
            .ok_or_else(|| Error::Request { at: at.clone() })?;
        self.add_headers(about, request.headers_mut(), token);
        self.exchange(request, at).await?.check()
    }

    /// The next node is asked from now on, unless another caller has moved on already.
    fn leave(&self, place: usize) {
        let next = (place + 1) % self.nodes.len().max(1);
        let _ = self
            .node
            .compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whoever was told to wait asks nothing until then.
    fn check_quiet(&self) -> Result<(), Error> {
        match *lock(&self.quiet) {
            Some((until, after)) if Instant::now() < until => Err(Error::RateLimited {
                retry_after: Some(after),
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// The status of `sys/health`. Its body is not read: products and versions differ in it.
    pub(crate) async fn health(&self) -> Result<u16, Error> {
        let place = self.node.load(Ordering::Relaxed);
        let request = reqwest::Request::new(Method::GET, self.url(place, "/sys/health", None));
        let answer = self.exchange(request, "sys/health".to_owned()).await;
        if answer.as_ref().is_err_and(Error::is_about_the_node) {
            self.leave(place);
        }
        Ok(answer?.status.as_u16())
    }

    /// Path, method, query and body as `vaultrs` defines them; it also escapes each segment of the path.
    fn request<E: Endpoint>(&self, place: usize, endpoint: &E) -> Option<reqwest::Request> {
        let formed = endpoint.request("https://vault/").ok()?;
        let url = self.url(place, formed.uri().path(), formed.uri().query());
        let mut request = reqwest::Request::new(formed.method().clone(), url);
        let body = formed.into_body();
        if !body.is_empty() {
            *request.body_mut() = Some(body.into());
        }
        Some(request)
    }

    fn url(&self, place: usize, path: &str, query: Option<&str>) -> Url {
        let base = self.nodes.get(place).unwrap_or(&self.settings.address);
        let mut url = base.clone();
        url.set_path(&format!("{}/v1{path}", base.path().trim_end_matches('/')));
        url.set_query(query.filter(|query| !query.is_empty()));
        url
    }

    fn add_headers(&self, about: About, headers: &mut HeaderMap, token: Option<&HeaderValue>) {
        headers.insert(REQUEST, HeaderValue::from_static("true"));
        if let Some(token) = token {
            headers.insert(TOKEN, token.clone());
        }
        let namespace = match about {
            About::Login => &self.login_namespace,
            About::Reads => &self.namespace,
        };
        if let Some(namespace) = namespace {
            headers.insert(NAMESPACE, namespace.clone());
        }
        if let Some(index) = &*lock(&self.index) {
            headers.insert(INDEX, index.clone());
            headers.insert(INCONSISTENT, FORWARD);
        }
    }

    async fn exchange(&self, request: reqwest::Request, at: String) -> Result<Answer, Error> {
        let to = self.shown(request.url());
        let http = lock(&self.http).clone();
        let mut response = http
            .execute(request)
            .await
            .map_err(|error| self.failed(&error, &to))?;
        if let Some(index) = response.headers().get(INDEX) {
            *lock(&self.index) = Some(index.clone());
        }
        let (status, headers) = (response.status(), response.headers());
        let (retry_after, location) = (seconds(headers), location(headers));
        let mut body = Zeroizing::new(Vec::new());
        let broke = |error: reqwest::Error| self.failed(&error, &to);
        while let Some(chunk) = response.chunk().await.map_err(broke)? {
            if body.len() + chunk.len() > BODY_LIMIT {
                return Err(Error::TooLarge {
                    at,
                    limit: BODY_LIMIT,
                });
            }
            append(&mut body, &chunk);
        }
        Ok(Answer {
            at,
            status,
            retry_after,
            location,
            body,
        })
    }

    fn shown(&self, url: &Url) -> String {
        let to = host_and_port(url);
        match &self.settings.proxy {
            Some(proxy) => format!("{to} through the proxy {}", proxy.shown()),
            None => to,
        }
    }

    fn failed(&self, error: &reqwest::Error, to: &str) -> Error {
        let to = to.to_owned();
        if let Some(fault) = tls_fault(error) {
            return Error::Tls { fault };
        }
        match (error.is_connect(), error.is_timeout()) {
            (true, true) => Error::Unreachable {
                to,
                fault: "no answer to the attempt to connect".to_owned(),
            },
            (true, false) => Error::Unreachable {
                to,
                fault: innermost(error),
            },
            (false, true) => Error::Timeout {
                limit: self.settings.timeout,
            },
            (false, false) => Error::Broken {
                to,
                fault: innermost(error),
            },
        }
    }
}

/// Grows into a new allocation and wipes the old one, which `Vec` would only free.
fn append(body: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    if body.capacity() < body.len() + chunk.len() {
        let mut larger = Zeroizing::new(Vec::with_capacity(
            (body.len() + chunk.len()).next_power_of_two(),
        ));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.extend_from_slice(chunk);
}

fn seconds(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
        .map(Duration::from_secs)
}

/// Host and port only: the rest of a foreign address may hold anything.
fn location(headers: &HeaderMap) -> Option<String> {
    let url = Url::parse(headers.get(LOCATION)?.to_str().ok()?).ok()?;
    url.has_host().then(|| host_and_port(&url))
}

/// What the system says at the end of the chain. The errors before it may name the URL, this one never does.
fn innermost(error: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    if std::ptr::addr_eq(last, error) {
        return "no answer".to_owned();
    }
    last.to_string()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What rustls says, found in the chain of sources. An `io::Error` hides what it wraps from `source()`.
fn tls_fault(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(tls.to_string());
    }
    let wrapped = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref);
    match wrapped {
        Some(inner) => tls_fault(inner),
        None => tls_fault(error.source()?),
    }
}
