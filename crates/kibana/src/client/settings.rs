//! What a client is told, and the checks of it.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Certificate;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use url::Url;
use zeroize::Zeroizing;

use super::call::Service;
use crate::error::Error;

/// Who the agent is for Kibana.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// An Elasticsearch API key: the `encoded` text, or `id:api_key`.
    ApiKey(SecretString),
    /// A user of the cluster.
    Basic {
        /// The user's name.
        user: String,
        /// The user's password.
        password: SecretString,
    },
}

/// What a client needs to know.
#[derive(Clone)]
pub struct Settings {
    /// Where Kibana answers, with `server.basePath` if it has one, without a space.
    pub url: Url,
    /// Who the agent is.
    pub credentials: Credentials,
    /// Certificates in PEM that alone are trusted; `None` trusts what the system trusts.
    pub ca_pem: Option<Vec<u8>>,
    /// An HTTP proxy between agent and Kibana, with credentials if it wants some: `http://user:password@host:port`. The
    /// environment's proxy settings are never read.
    pub proxy: Option<Url>,
    /// Kibana's Elasticsearch, for connectors that are inference endpoints; `None`: no such connector can be served.
    pub elasticsearch: Option<Elasticsearch>,
    /// The deadline of every call that waits for no provider.
    pub timeout: Duration,
    /// The deadline of every call that waits for the provider: live calls, and writes of inference endpoints.
    pub probe_timeout: Duration,
}

/// Where inference endpoints are kept. The proxy and the deadlines are those of Kibana.
#[derive(Clone)]
pub struct Elasticsearch {
    /// Where Elasticsearch answers, with the path prefix if it has one.
    pub url: Url,
    /// Who the agent is there: an API key for Kibana is an API key of its Elasticsearch.
    pub credentials: Credentials,
    /// Certificates in PEM that alone are trusted; `None` trusts what the system trusts.
    pub ca_pem: Option<Vec<u8>>,
}

/// Without the credentials that a proxy's URL may hold.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("url", &self.url.as_str())
            .field("credentials", &self.credentials)
            .field("proxy", &self.proxy.as_ref().map(address))
            .field("elasticsearch", &self.elasticsearch)
            .field("timeout", &self.timeout)
            .field("probe_timeout", &self.probe_timeout)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Elasticsearch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elasticsearch")
            .field("url", &self.url.as_str())
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

/// Host and port alone.
pub(super) fn address(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    format!("{host}:{}", url.port_or_known_default().unwrap_or_default())
}

pub(super) fn unusable(problem: impl Into<String>) -> Error {
    Error::Settings {
        problem: problem.into(),
    }
}

pub(super) fn check_url(service: Service, url: &Url) -> Result<(), Error> {
    let problem = if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        "must begin with http:// or https:// and name a host"
    } else if !url.username().is_empty() || url.password().is_some() {
        "must not hold credentials; they have their own setting"
    } else if url.query().is_some() || url.fragment().is_some() {
        "must end with its path; remove what follows `?` or `#`"
    } else {
        return Ok(());
    };
    Err(unusable(format!("the URL of {service} {problem}")))
}

pub(super) fn certificates(service: Service, pem: &[u8]) -> Result<Vec<Certificate>, Error> {
    match Certificate::from_pem_bundle(pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(unusable(format!(
            "the CA file for {service} holds no certificate in PEM form (`-----BEGIN CERTIFICATE-----`)"
        ))),
    }
}

/// The `Authorization` header, marked so that no log shows it.
pub(super) fn authorization(credentials: &Credentials) -> Result<HeaderValue, Error> {
    let text = match credentials {
        Credentials::ApiKey(key) if key.expose_secret().contains(':') => {
            Zeroizing::new(format!("ApiKey {}", STANDARD.encode(key.expose_secret())))
        }
        Credentials::ApiKey(key) => Zeroizing::new(format!("ApiKey {}", key.expose_secret())),
        Credentials::Basic { user, password } => {
            let pair = Zeroizing::new(format!("{user}:{}", password.expose_secret()));
            Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
        }
    };
    let (_, token) = text.split_once(' ').unwrap_or_default();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(unusable(
            "the credential is empty or holds a space, line break or other character no API key has",
        ));
    }
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| unusable("the credential does not fit into a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api_key(text: &str) -> Result<String, Error> {
        let value = authorization(&Credentials::ApiKey(SecretString::from(text)))?;
        assert!(value.is_sensitive());
        Ok(value.to_str().unwrap().to_owned())
    }

    #[test]
    fn an_api_key_is_sent_encoded_in_both_written_forms() {
        assert_eq!(api_key("aWQ6a2V5").unwrap(), "ApiKey aWQ6a2V5");
        assert_eq!(api_key("id:key").unwrap(), "ApiKey aWQ6a2V5");
        for bad in ["", "a b", "abc\n", "kéy"] {
            let Err(Error::Settings { problem }) = api_key(bad) else {
                panic!("{bad:?} was taken")
            };
            assert!(problem.contains("credential"), "{problem}");
        }
    }

    #[test]
    fn debug_shows_the_proxy_without_its_credentials() {
        let settings = Settings {
            url: "https://kibana.example".parse().unwrap(),
            credentials: Credentials::ApiKey(SecretString::from("canary")),
            ca_pem: None,
            proxy: Some("http://me:canary@proxy.example:3128".parse().unwrap()),
            elasticsearch: Some(Elasticsearch {
                url: "https://elasticsearch.example".parse().unwrap(),
                credentials: Credentials::ApiKey(SecretString::from("canary")),
                ca_pem: None,
            }),
            timeout: Duration::from_secs(1),
            probe_timeout: Duration::from_secs(1),
        };
        let text = format!("{settings:?}");
        assert!(
            text.contains("proxy.example:3128") && !text.contains("canary"),
            "{text}"
        );
    }

    #[test]
    fn only_a_plain_url_is_taken() {
        for good in [
            "http://127.0.0.1:5601",
            "https://kibana.example.com/base/path/",
        ] {
            assert!(
                check_url(Service::Kibana, &good.parse().unwrap()).is_ok(),
                "{good}"
            );
        }
        for bad in [
            "ftp://kibana",
            "https://u:p@kibana",
            "https://kibana?a=b",
            "https://kibana#x",
            "mailto:a@b",
        ] {
            assert!(
                check_url(Service::Kibana, &bad.parse().unwrap()).is_err(),
                "{bad}"
            );
        }
    }
}
