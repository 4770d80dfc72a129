//! Sends one request: our own HTTP client around the request types of `vaultrs`.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rustify::Endpoint;
use url::Url;
use zeroize::Zeroizing;

use crate::answer::Answer;
use crate::{Error, Settings};

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

/// The HTTP side of [`crate::Vault`].
pub(crate) struct Transport {
    http: reqwest::Client,
    base: Url,
    namespace: Option<HeaderValue>,
    timeout: Duration,
    index: Mutex<Option<HeaderValue>>,
}

impl Transport {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        Ok(Self {
            http: client(settings)?,
            base: settings.address.clone(),
            namespace: settings.namespace_header()?,
            timeout: settings.timeout,
            index: Mutex::new(None),
        })
    }

    /// Sends the request of `endpoint`, with `token` where it needs one, and returns any answer that is no refusal
    /// (see [`Answer::check`]).
    pub(crate) async fn send<E: Endpoint>(
        &self,
        endpoint: &E,
        token: Option<&HeaderValue>,
    ) -> Result<Answer, Error> {
        let at = endpoint.path().trim().trim_matches('/').to_owned();
        let mut request = self
            .request(endpoint)
            .ok_or_else(|| Error::Request { at: at.clone() })?;
        self.add_headers(request.headers_mut(), token);
        let answer = self.exchange(request, at).await?.check();
        if matches!(answer, Err(Error::Stale)) {
            // An index of a cluster that was since restored from a backup is never reached: ask without one.
            *self.index.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        answer
    }

    /// The status of `sys/health`. Its body is not read: products and versions differ in it.
    pub(crate) async fn health(&self) -> Result<u16, Error> {
        let url = self.url("/sys/health", None);
        let request = reqwest::Request::new(Method::GET, url);
        Ok(self
            .exchange(request, "sys/health".to_owned())
            .await?
            .status
            .as_u16())
    }

    /// Path, method, query and body as `vaultrs` defines them; it also escapes each segment of the path.
    fn request<E: Endpoint>(&self, endpoint: &E) -> Option<reqwest::Request> {
        let formed = endpoint.request("https://vault/").ok()?;
        let url = self.url(formed.uri().path(), formed.uri().query());
        let mut request = reqwest::Request::new(formed.method().clone(), url);
        let body = formed.into_body();
        if !body.is_empty() {
            *request.body_mut() = Some(body.into());
        }
        Some(request)
    }

    fn url(&self, path: &str, query: Option<&str>) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!(
            "{}/v1{path}",
            self.base.path().trim_end_matches('/')
        ));
        url.set_query(query.filter(|query| !query.is_empty()));
        url
    }

    fn add_headers(&self, headers: &mut HeaderMap, token: Option<&HeaderValue>) {
        headers.insert(REQUEST, HeaderValue::from_static("true"));
        if let Some(token) = token {
            headers.insert(TOKEN, token.clone());
        }
        if let Some(namespace) = &self.namespace {
            headers.insert(NAMESPACE, namespace.clone());
        }
        if let Some(index) = &*self.index.lock().unwrap_or_else(PoisonError::into_inner) {
            headers.insert(INDEX, index.clone());
            headers.insert(INCONSISTENT, FORWARD);
        }
    }

    async fn exchange(&self, request: reqwest::Request, at: String) -> Result<Answer, Error> {
        let mut response = self
            .http
            .execute(request)
            .await
            .map_err(|error| self.failed(error))?;
        if let Some(index) = response.headers().get(INDEX) {
            *self.index.lock().unwrap_or_else(PoisonError::into_inner) = Some(index.clone());
        }
        let (status, headers) = (response.status(), response.headers());
        let (retry_after, location) = (seconds(headers), location(headers));
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(error))? {
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

    fn failed(&self, error: reqwest::Error) -> Error {
        if error.is_timeout() {
            return Error::Timeout {
                limit: self.timeout,
            };
        }
        match tls_fault(&error) {
            Some(fault) => Error::Tls { fault },
            None => Error::Unreachable {
                source: error.without_url(),
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

fn client(settings: &Settings) -> Result<reqwest::Client, Error> {
    let wrong = |what: &str| Error::Settings {
        what: what.to_owned(),
    };
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(settings.timeout)
        .connect_timeout(settings.timeout);
    if let Some(path) = &settings.ca_file {
        let authorities = reqwest::Certificate::from_pem_bundle(&read(path)?).unwrap_or_default();
        if authorities.is_empty() {
            return Err(Error::Settings {
                what: format!("{} holds no PEM certificate", path.display()),
            });
        }
        builder = builder.tls_certs_only(authorities);
    }
    if let Some(proxy) = &settings.proxy {
        let through = reqwest::Proxy::all(proxy.url.clone())
            .map_err(|_| wrong("the proxy's address is none"))?;
        let direct = proxy
            .no_proxy
            .as_deref()
            .and_then(reqwest::NoProxy::from_string);
        builder = builder.proxy(through.no_proxy(direct));
    }
    builder.build().map_err(|_| {
        wrong("the TLS client cannot be built; is every certificate of the CA file valid?")
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::File {
        path: path.to_path_buf(),
        source,
    })
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
    let port = url.port_or_known_default()?;
    Some(format!("{}:{port}", url.host_str()?))
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
