//! One HTTP client for one Kibana: how a request is made and how its answer is read.

mod refusal;
mod settings;

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use keyfleet_core::id::SpaceId;
use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use reqwest::{Method, Proxy, redirect};
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use url::Url;

pub use self::settings::{Credentials, Settings};
use self::settings::{address, authorization, certificates, check_url, unusable};
use crate::error::Error;

/// The longest answer that is read. The longest real ones, the list of types and the status page, are some
/// hundred kilobytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Only a proxy answers so (RFC 9110, section 15.5.8).
const PROXY_AUTHENTICATION_REQUIRED: u16 = 407;
/// The most that `Retry-After` is honoured: a broken header must not silence an agent for hours.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// Kibana refuses a write without this header; the value is free.
const XSRF: HeaderName = HeaderName::from_static("kbn-xsrf");
/// The only version of the public API; Kibana on premises ignores it, serverless reads it.
const API_VERSION: (HeaderName, HeaderValue) = (
    HeaderName::from_static("elastic-api-version"),
    HeaderValue::from_static("2023-10-31"),
);

/// Speaks to one Kibana. Cheap to clone; connections are shared and reused.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: Url,
    /// Host and port of the proxy.
    proxy: Option<String>,
    pub(crate) timeout: Duration,
    pub(crate) probe_timeout: Duration,
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
        check_url(&settings.url)?;
        let headers = HeaderMap::from_iter([
            (AUTHORIZATION, authorization(&settings.credentials)?),
            API_VERSION,
        ]);
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(settings.timeout)
            .no_proxy();
        let proxy_address = settings.proxy.as_ref().map(address);
        if let Some(url) = settings.proxy {
            let proxy = Proxy::all(url)
                .map_err(|_| unusable("the proxy must be an http:// or https:// URL"))?;
            builder = builder.proxy(proxy);
        }
        if let Some(pem) = settings.ca_pem {
            builder = builder.tls_certs_only(certificates(&pem)?);
        }
        let http = builder.build().map_err(|error| {
            unusable(format!(
                "the HTTP client cannot be built ({})",
                root_cause(&error)
            ))
        })?;
        let (timeout, probe_timeout) = (settings.timeout, settings.probe_timeout);
        Ok(Self {
            http,
            url: settings.url,
            proxy: proxy_address,
            timeout,
            probe_timeout,
        })
    }

    /// Sends one request and reads the whole answer, whatever its status.
    pub(crate) async fn send(&self, request: Request<'_>) -> Result<Answer, Error> {
        let url = self.locate(request.space, request.path);
        let call = format!("{} {}", request.method, url.path());
        let is_write = request.method != Method::GET;
        let mut builder = self
            .http
            .request(request.method, url)
            .timeout(request.timeout);
        if is_write {
            builder = builder.header(XSRF, "keyfleet");
        }
        if let Some(body) = request.body {
            builder = builder.header(CONTENT_TYPE, "application/json").body(body);
        }
        let proxy = self.proxy.as_deref();
        let broken = |call: &str, error: reqwest::Error| {
            transport_error(call, request.timeout, proxy, &error)
        };
        let mut response = builder.send().await.map_err(|error| broken(&call, error))?;
        let status = response.status().as_u16();
        if let (PROXY_AUTHENTICATION_REQUIRED, Some(proxy)) = (status, proxy) {
            return Err(no_way(
                &call,
                proxy,
                "it does not accept the user and password, 407",
            ));
        }
        let retry_after = retry_after(response.headers());
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| broken(&call, error))?
        {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Error::TooLarge {
                    call,
                    limit_bytes: ANSWER_BYTES_MAX,
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            call,
            status,
            retry_after,
            body,
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
        f.debug_struct("Client")
            .field("url", &self.url.as_str())
            .finish_non_exhaustive()
    }
}

/// One request, before it is located.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) space: Option<&'a SpaceId>,
    /// Path segments after the space; each is escaped.
    pub(crate) path: &'a [&'a str],
    pub(crate) body: Option<Bytes>,
    pub(crate) timeout: Duration,
}

/// One answer, complete, of any status.
pub(crate) struct Answer {
    pub(crate) call: String,
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    body: Vec<u8>,
}

impl Answer {
    /// True for 2xx.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body of a good answer, or what a refusal means.
    pub(crate) fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        if !self.is_success() {
            return Err(self.refusal());
        }
        self.parse().map_err(|error| self.unreadable(&error))
    }

    /// The body as JSON, whatever the status.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    fn unreadable(self, error: &serde_json::Error) -> Error {
        let Self {
            call, status, body, ..
        } = self;
        let begins_as_json = body
            .trim_ascii_start()
            .first()
            .is_some_and(|byte| b"{[".contains(byte));
        match error.classify() {
            Category::Eof if begins_as_json => Error::Truncated { call },
            Category::Data => {
                let problem = "the answer lacks fields that Kibana has here".to_owned();
                Error::Unexpected { call, problem }
            }
            Category::Eof | Category::Syntax | Category::Io => Error::NotJson { call, status },
        }
    }
}

/// Seconds only: Kibana sends no dates.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// What a failure below HTTP means. The words of the library's outer errors are dropped: they hold the URL.
fn transport_error(
    call: &str,
    limit: Duration,
    proxy: Option<&str>,
    error: &reqwest::Error,
) -> Error {
    let reason = root_cause(error);
    if error.is_timeout() {
        let call = call.to_owned();
        Error::Timeout { call, limit }
    } else if error.is_connect() && is_about_tls(&reason) {
        let call = call.to_owned();
        Error::Tls { call, reason }
    } else if let (true, Some(proxy)) = (error.is_connect(), proxy) {
        no_way(call, proxy, &reason)
    } else if error.is_connect() {
        let call = call.to_owned();
        Error::Unreachable { call, reason }
    } else {
        let call = call.to_owned();
        Error::Truncated { call }
    }
}

/// With a proxy every connection is one to the proxy, or was asked of it.
fn no_way(call: &str, proxy: &str, reason: &str) -> Error {
    Error::Proxy {
        call: call.to_owned(),
        proxy: proxy.to_owned(),
        reason: reason.to_owned(),
    }
}

/// The texts of `rustls::Error` and of its handshake: the system's own errors never use these words.
fn is_about_tls(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    [
        "certificate",
        "handshake",
        "tls",
        "corrupt message",
        "fatal alert",
        "peer is",
        "peer misbehaved",
    ]
    .iter()
    .any(|words| reason.contains(words))
}

/// The innermost error of a chain: the system's or the TLS library's own words.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn StdError = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_bounded_and_nonsense_is_ignored() {
        for (text, seconds) in [
            ("2", Some(2)),
            ("86400", Some(300)),
            ("soon", None),
            ("-1", None),
        ] {
            let headers =
                HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
            assert_eq!(
                retry_after(&headers),
                seconds.map(Duration::from_secs),
                "{text}"
            );
        }
    }
    #[test]
    fn a_reset_connection_is_no_certificate_trouble() {
        for reason in [
            "Connection reset by peer (os error 104)",
            "Connection refused (os error 111)",
        ] {
            assert!(!is_about_tls(reason), "{reason}");
        }
        for reason in [
            "invalid peer certificate: UnknownIssuer",
            "tls handshake eof",
            "received fatal alert: x",
        ] {
            assert!(is_about_tls(reason), "{reason}");
        }
    }
}
