//! The HTTP side: one client, its limits, one request.

use std::path::PathBuf;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use reqwest::RequestBuilder;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;
use zeroize::Zeroizing;

use crate::Refusal;

/// A tiny completion of a slow model takes seconds.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Far above any answer to our calls.
const BODY_LIMIT: usize = 256 * 1024;

/// How to reach the provider. Nothing is ever taken from the environment.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Base of the API, for example `https://api.openai.com/v1`; `http` is for servers on the own network.
    pub base_url: Url,
    /// PEM file with authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Proxy to go through.
    pub proxy: Option<Proxy>,
    /// Time limit of one request, from connecting to the last byte.
    pub timeout: Duration,
}

/// An HTTP CONNECT proxy.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Its address.
    pub url: Url,
    /// Hosts that are reached directly: names, domains, addresses and networks, separated by commas.
    pub no_proxy: Option<String>,
}

/// Why a key could not be proven.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that cannot work.
    #[error("the settings for the provider cannot work: {what}")]
    Settings {
        /// The rule that is broken.
        what: String,
    },
    /// The CA file cannot be read.
    #[error("cannot read {} for the provider", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The key cannot be sent at all.
    #[error("the key has characters that no HTTP header can carry")]
    Key,
    /// The provider, or something on the way, refused.
    #[error("the provider refused: {0}")]
    Refused(Refusal),
    /// The time limit passed.
    #[error("the provider did not answer within {limit:?}")]
    Timeout {
        /// The limit of one request.
        limit: Duration,
    },
    /// No connection, or it broke.
    #[error("cannot reach the provider")]
    Unreachable {
        /// What the system says.
        source: reqwest::Error,
    },
    /// Success by its status, but not what the provider sends.
    #[error("the answer is not the provider's (status {status}); is there a proxy on the way?")]
    BadAnswer {
        /// HTTP status.
        status: u16,
    },
}

/// A client of one provider; cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    timeout: Duration,
}

/// One answer. The body is dropped by whoever reads it.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

impl Settings {
    /// Settings with the defaults: system authorities, no proxy, 30 seconds.
    pub fn new(base_url: Url) -> Self {
        Self {
            base_url,
            ca_file: None,
            proxy: None,
            timeout: TIMEOUT,
        }
    }
}

impl Client {
    /// Builds the client. Nothing is sent.
    ///
    /// # Errors
    /// A setting that cannot work, or an unreadable CA file.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let wrong = |what: &str| Error::Settings {
            what: what.to_owned(),
        };
        let base = &settings.base_url;
        if !matches!(base.scheme(), "https" | "http") || !base.has_host() || base.query().is_some()
        {
            return Err(wrong("the base URL must be like https://api.openai.com/v1"));
        }
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(settings.timeout)
            .connect_timeout(settings.timeout);
        if let Some(path) = &settings.ca_file {
            let pem = std::fs::read(path).map_err(|source| Error::File {
                path: path.clone(),
                source,
            })?;
            let authorities = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
            if authorities.is_empty() {
                return Err(Error::Settings {
                    what: format!("{} holds no PEM certificate", path.display()),
                });
            }
            builder = builder.tls_certs_merge(authorities);
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
        let http = builder
            .build()
            .map_err(|_| wrong("the TLS client cannot be built; check the CA file"))?;
        Ok(Self {
            http,
            base: base.clone(),
            timeout: settings.timeout,
        })
    }

    /// The address of `segments` below the base, each segment escaped.
    pub(crate) fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    pub(crate) fn get(&self, url: Url) -> RequestBuilder {
        self.http.get(url)
    }

    pub(crate) fn post(&self, url: Url) -> RequestBuilder {
        self.http.post(url)
    }

    /// Sends a request with the key and reads the answer up to a limit.
    pub(crate) async fn send(
        &self,
        request: RequestBuilder,
        key: &SecretString,
    ) -> Result<Answer, Error> {
        let request = request.header(AUTHORIZATION, bearer(key)?);
        let mut response = request.send().await.map_err(|error| self.failed(error))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(error))? {
            if body.len() + chunk.len() > BODY_LIMIT {
                return Err(Error::BadAnswer { status });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    fn failed(&self, error: reqwest::Error) -> Error {
        if error.is_timeout() {
            return Error::Timeout {
                limit: self.timeout,
            };
        }
        Error::Unreachable {
            source: error.without_url(),
        }
    }
}

fn bearer(key: &SecretString) -> Result<HeaderValue, Error> {
    let text = Zeroizing::new(format!("Bearer {}", key.expose_secret()));
    let mut value = HeaderValue::from_str(&text).map_err(|_| Error::Key)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_one_segment_whatever_it_is_called() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        for base in ["https://api.openai.com/v1", "https://api.openai.com/v1/"] {
            let client = Client::new(&Settings::new(base.parse().unwrap())).unwrap();
            let url = client.url(&["models", "ft:gpt/a?b c"]);
            assert_eq!(
                url.as_str(),
                "https://api.openai.com/v1/models/ft:gpt%2Fa%3Fb%20c"
            );
        }
        for wrong in ["ftp://host/v1", "https://host/v1?x=1", "data:x"] {
            assert!(
                Client::new(&Settings::new(wrong.parse().unwrap())).is_err(),
                "{wrong}"
            );
        }
    }
}
