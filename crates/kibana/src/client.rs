//! The one HTTP layer, for Kibana and for the Elasticsearch behind it: how a request is made and how its answer is read.

mod answer;
mod call;
mod elastic;
mod refusal;
mod settings;
mod trip;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use keyfleet_core::id::SpaceId;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Proxy, redirect};
use url::Url;

pub(crate) use self::answer::Answer;
pub use self::call::{Call, Service};
pub(crate) use self::elastic::Told;
pub use self::settings::{Credentials, Elasticsearch, Settings};
use self::settings::{address, authorization, certificates, check_url, unusable};
use self::trip::{Trip, root_cause};
use crate::api::events;
use crate::error::Error;

/// The longest answer that is read. The longest real ones, the list of types and the status page, are some
/// hundred kilobytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// The longest list that is read: room for some ten thousand connectors.
const LIST_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most that is read of a stream: a single event of a provider that answers is some hundred bytes.
const EVENTS_BYTES_MAX: usize = 64 * 1024;
/// Kibana refuses a write without this header; the value is free.
const XSRF: HeaderName = HeaderName::from_static("kbn-xsrf");
/// The only version of the public API; Kibana on premises ignores it, serverless reads it.
const API_VERSION: (HeaderName, HeaderValue) = (
    HeaderName::from_static("elastic-api-version"),
    HeaderValue::from_static("2023-10-31"),
);

/// Speaks to one Kibana, and to its Elasticsearch where the settings name it. Cheap to clone; connections are shared
/// and reused.
#[derive(Clone)]
pub struct Client {
    kibana: Server,
    elasticsearch: Option<Server>,
    /// Host and port of the proxy.
    proxy: Option<String>,
    n_requests: Arc<AtomicU64>,
    pub(crate) timeout: Duration,
    pub(crate) probe_timeout: Duration,
}

/// One base URL, with the credentials and the trust that belong to it.
#[derive(Clone)]
struct Server {
    http: reqwest::Client,
    url: Url,
    has_own_ca: bool,
}

impl Client {
    /// Builds the client; nothing is sent.
    ///
    /// # Errors
    /// [`Error::Settings`] for an unusable URL, CA file, proxy or credential.
    ///
    /// # Panics
    /// If the process has installed no `rustls` crypto provider.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let (timeout, probe_timeout) = (settings.timeout, settings.probe_timeout);
        let proxy = settings.proxy.as_ref();
        let kibana = Elasticsearch {
            url: settings.url,
            credentials: settings.credentials,
            ca_pem: settings.ca_pem,
        };
        let open = |service, place| Server::new(service, place, proxy, timeout);
        Ok(Self {
            kibana: open(Service::Kibana, kibana)?,
            elasticsearch: settings
                .elasticsearch
                .map(|place| open(Service::Elasticsearch, place))
                .transpose()?,
            proxy: proxy.map(address),
            n_requests: Arc::default(),
            timeout,
            probe_timeout,
        })
    }

    /// How many requests this client and its clones have sent, to Kibana and to Elasticsearch.
    pub fn requests(&self) -> u64 {
        self.n_requests.load(Ordering::Relaxed)
    }

    /// True where the settings name an Elasticsearch.
    pub fn has_elasticsearch(&self) -> bool {
        self.elasticsearch.is_some()
    }

    /// How the way to a server is protected; `None` where the settings do not name it.
    pub(crate) fn trust(&self, service: Service) -> Option<Trust> {
        let server = self.server(service)?;
        let is_loopback = match server.url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        Some(match server.url.scheme() {
            "https" if server.has_own_ca => Trust::OwnCa,
            "https" => Trust::SystemCa,
            _ if is_loopback && self.proxy.is_none() => Trust::Loopback,
            _ => Trust::Plain,
        })
    }

    fn server(&self, service: Service) -> Option<&Server> {
        match service {
            Service::Kibana => Some(&self.kibana),
            Service::Elasticsearch => self.elasticsearch.as_ref(),
        }
    }

    /// Sends one request and reads the answer, whatever its status.
    pub(crate) async fn send(&self, request: Request<'_>) -> Result<Answer, Error> {
        let service = request.service;
        let server = self.server(service).ok_or_else(|| {
            unusable("this connector is an inference endpoint of Elasticsearch; write its URL as `url` under `[elasticsearch]`")
        })?;
        let url = server.locate(request.space, request.path);
        let line = format!("{} {}", request.method, url.path());
        let trip = Trip {
            call: Call { service, line },
            limit: request.timeout,
            proxy: self.proxy.as_deref(),
        };
        let needs_xsrf = service == Service::Kibana && request.method != Method::GET;
        let mut builder = server.http.request(request.method, url);
        builder = builder.timeout(request.timeout);
        if needs_xsrf {
            builder = builder.header(XSRF, "keyfleet");
        }
        if let Some(body) = request.body {
            builder = builder.header(CONTENT_TYPE, "application/json").body(body);
        }
        self.n_requests.fetch_add(1, Ordering::Relaxed);
        let response = builder.send().await.map_err(|error| trip.broken(&error))?;
        trip.read(response, request.reading).await
    }
}

impl Server {
    fn new(
        service: Service,
        place: Elasticsearch,
        proxy: Option<&Url>,
        timeout: Duration,
    ) -> Result<Self, Error> {
        check_url(service, &place.url)?;
        let mut headers =
            HeaderMap::from_iter([(AUTHORIZATION, authorization(&place.credentials)?)]);
        if service == Service::Kibana {
            headers.extend([API_VERSION]);
        }
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(timeout)
            .no_proxy();
        if let Some(url) = proxy {
            let proxy = Proxy::all(url.clone())
                .map_err(|_| unusable("the proxy must be an http:// or https:// URL"))?;
            builder = builder.proxy(proxy);
        }
        let has_own_ca = place.ca_pem.is_some();
        if let Some(pem) = place.ca_pem {
            builder = builder.tls_certs_only(certificates(service, &pem)?);
        }
        let http = builder.build().map_err(|error| {
            unusable(format!(
                "the HTTP client cannot be built ({})",
                root_cause(&error)
            ))
        })?;
        Ok(Self {
            http,
            url: place.url,
            has_own_ca,
        })
    }

    /// The URL of a path in a space; the default space has no prefix.
    fn locate(&self, space: Option<&SpaceId>, path: &[&str]) -> Url {
        let mut url = self.url.clone();
        let space = space
            .map(SpaceId::as_str)
            .filter(|space| *space != "default");
        // `check_url` has refused every URL without a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty();
            if let Some(space) = space {
                segments.push("s").push(space);
            }
            segments.extend(path);
        }
        url
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let elasticsearch = self.elasticsearch.as_ref();
        f.debug_struct("Client")
            .field("url", &self.kibana.url.as_str())
            .field(
                "elasticsearch",
                &elasticsearch.map(|server| server.url.as_str()),
            )
            .finish_non_exhaustive()
    }
}

/// How the way to a server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// TLS, checked against the certificates in the agent's config.
    OwnCa,
    /// TLS, checked against what the system trusts.
    SystemCa,
    /// No TLS, and nothing leaves the machine.
    Loopback,
    /// No TLS.
    Plain,
}

/// One request, before it is located.
pub(crate) struct Request<'a> {
    pub(crate) service: Service,
    pub(crate) method: Method,
    pub(crate) space: Option<&'a SpaceId>,
    /// Path segments after the space; each is escaped.
    pub(crate) path: &'a [&'a str],
    pub(crate) body: Option<Bytes>,
    pub(crate) timeout: Duration,
    pub(crate) reading: Reading,
}

/// How much of an answer is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// All of it.
    Whole,
    /// All of it, and it may be long.
    List,
    /// Until the first event that tells something; the rest of the stream is left.
    FirstEvent,
}

impl Reading {
    const fn bytes_max(self) -> usize {
        match self {
            Self::Whole => ANSWER_BYTES_MAX,
            Self::List => LIST_BYTES_MAX,
            Self::FirstEvent => EVENTS_BYTES_MAX,
        }
    }

    fn is_enough(self, body: &[u8]) -> bool {
        self == Self::FirstEvent && events::first(body).is_some()
    }

    fn too_long(self, call: Call) -> Error {
        let limit_bytes = self.bytes_max();
        match self {
            Self::Whole | Self::FirstEvent => Error::TooLarge { call, limit_bytes },
            Self::List => Error::ListTooLarge { call, limit_bytes },
        }
    }
}
