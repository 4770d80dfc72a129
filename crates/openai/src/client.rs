//! The HTTP side: one client, its limits, one request.

use std::path::PathBuf;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use keyfleet_core::connector::Provider;
use reqwest::RequestBuilder;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;
use zeroize::Zeroizing;

use crate::Refusal;
use crate::transport::{self, Answer, Lost};

/// A tiny completion of a slow model takes seconds.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Where Azure wants its key; it reads no other header (Azure OpenAI reference, authentication).
const AZURE_KEY: HeaderName = HeaderName::from_static("api-key");
/// What every URL ends with that connectors call.
const COMPLETIONS: &str = "/chat/completions";
/// How to reach the provider. Nothing is ever taken from the environment.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What connectors call, for example `https://api.openai.com/v1/chat/completions`; `http` is for servers on the
    /// own network.
    pub url: Url,
    /// Whose API it is.
    pub provider: Provider,
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
    pub(crate) url: Url,
    pub(crate) provider: Provider,
    timeout: Duration,
}

impl Settings {
    /// Settings with the defaults: system authorities, no proxy, 30 seconds.
    pub fn new(url: Url, provider: Provider) -> Self {
        Self {
            url,
            provider,
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
        let mut url = settings.url.clone();
        // As Kibana does before it calls.
        let path = url.path().trim_end_matches('/').to_owned();
        if !matches!(url.scheme(), "https" | "http") || !path.ends_with(COMPLETIONS) {
            return Err(wrong(
                "the URL must be like https://api.openai.com/v1/chat/completions",
            ));
        }
        url.set_path(&path);
        let http = transport::build(
            settings.ca_file.as_deref(),
            settings.proxy.as_ref(),
            settings.timeout,
        )?;
        Ok(Self {
            http,
            url,
            provider: settings.provider,
            timeout: settings.timeout,
        })
    }

    /// Where a model is described. Only `OpenAI` does so, and only for a key that is good.
    pub(crate) fn model_url(&self, model: &str) -> Option<Url> {
        if self.provider != Provider::OpenAi {
            return None;
        }
        let mut url = self.url.clone();
        url.set_path(self.url.path().strip_suffix(COMPLETIONS)?);
        url.path_segments_mut()
            .ok()?
            .pop_if_empty()
            .extend(["models", model]);
        Some(url)
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
        let (name, value) = key_header(self.provider, key)?;
        transport::send(request.header(name, value))
            .await
            .map_err(|lost| self.failed(lost))
    }

    fn failed(&self, lost: Lost) -> Error {
        match lost {
            Lost::TooLong { status } => Error::BadAnswer { status },
            Lost::Broken(error) if error.is_timeout() => Error::Timeout {
                limit: self.timeout,
            },
            Lost::Broken(source) => Error::Unreachable { source },
        }
    }
}

/// The header of the key, as Kibana sends it to this provider.
fn key_header(provider: Provider, key: &SecretString) -> Result<(HeaderName, HeaderValue), Error> {
    let key = key.expose_secret();
    let (name, text) = match provider {
        Provider::OpenAi | Provider::Other => {
            (AUTHORIZATION, Zeroizing::new(format!("Bearer {key}")))
        }
        Provider::AzureOpenAi => (AZURE_KEY, Zeroizing::new(key.to_owned())),
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| Error::Key)?;
    value.set_sensitive(true);
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_one_segment_whatever_it_is_called() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let new = |url: &str| Client::new(&Settings::new(url.parse().unwrap(), Provider::OpenAi));
        for end in ["", "/"] {
            let client = new(&format!("https://api.openai.com/v1/chat/completions{end}")).unwrap();
            let url = client.model_url("ft:gpt/a?b c").unwrap();
            assert_eq!(
                url.as_str(),
                "https://api.openai.com/v1/models/ft:gpt%2Fa%3Fb%20c"
            );
        }
        for wrong in [
            "ftp://host/v1/chat/completions",
            "https://host/v1",
            "data:x",
        ] {
            assert!(new(wrong).is_err(), "{wrong}");
        }
    }
}
