//! How to reach Vault and how to log in.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;
use url::{Host, Url};

use crate::Error;

/// Vault answers in milliseconds; this much means that something on the way hangs.
const TIMEOUT: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 4;

/// How to reach Vault and how to log in. Nothing is ever taken from the environment.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Base address, for example `https://vault.example:8200`; `http` only on loopback (an agent's proxy).
    pub address: Url,
    /// PEM file with the only authorities to trust; without it the system's are trusted.
    pub ca_file: Option<PathBuf>,
    /// Namespace for the login and for every read.
    pub namespace: Option<String>,
    /// How to log in.
    pub auth: Auth,
    /// Time limit of one request, from connecting to the last byte.
    pub timeout: Duration,
    /// How often one call is tried where the trouble may pass; at least 1.
    pub attempts: u32,
    /// Proxy to go through.
    pub proxy: Option<Proxy>,
}

/// How to log in.
#[derive(Debug, Clone)]
pub enum Auth {
    /// A token in a file, which something else keeps fresh or which we renew.
    TokenFile(PathBuf),
    /// AppRole. The file is read at each login, so that a rotated secret id is picked up.
    AppRole {
        /// Where the method is mounted, usually `approle`.
        mount: String,
        /// The role's id; not a secret.
        role_id: String,
        /// File that holds the secret id.
        secret_id_file: PathBuf,
    },
}

/// An HTTP CONNECT proxy.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Its address.
    pub url: Url,
    /// Hosts that are reached directly: names, domains, addresses and networks, separated by commas.
    pub no_proxy: Option<String>,
}

impl Settings {
    /// Settings with the defaults: system authorities, no namespace, no proxy, 10 seconds, 4 attempts.
    pub fn new(address: Url, auth: Auth) -> Self {
        Self {
            address,
            ca_file: None,
            namespace: None,
            auth,
            timeout: TIMEOUT,
            attempts: ATTEMPTS,
            proxy: None,
        }
    }

    /// Checks what can be checked without Vault.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |what: &str| {
            Err(Error::Settings {
                what: what.to_owned(),
            })
        };
        match (self.address.scheme(), self.address.host()) {
            ("https", Some(_)) => {}
            ("http", Some(host)) if is_loopback(&host) => {}
            _ => return wrong("the address must be https://host:port (http only on loopback)"),
        }
        if !self.address.username().is_empty() || self.address.password().is_some() {
            return wrong("the address must not carry credentials");
        }
        if self.address.query().is_some() || self.address.fragment().is_some() {
            return wrong("the address must end with the port or a path");
        }
        if self.timeout.is_zero() || self.attempts == 0 {
            return wrong("timeout and attempts must be greater than 0");
        }
        self.namespace_header().map(drop)
    }

    pub(crate) fn namespace_header(&self) -> Result<Option<HeaderValue>, Error> {
        let Some(namespace) = &self.namespace else {
            return Ok(None);
        };
        let what = "the namespace must be visible ASCII".to_owned();
        HeaderValue::from_str(namespace.trim())
            .map(Some)
            .map_err(|_| Error::Settings { what })
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_would_leak_the_token_are_refused() {
        let cases = [
            ("https://vault.example:8200", true),
            ("https://vault.example/prefix", true),
            ("http://127.0.0.1:8200", true),
            ("http://[::1]:8200", true),
            ("http://localhost:8200", true),
            ("http://vault.example:8200", false),
            ("https://user:word@vault.example", false),
            ("https://vault.example/?x=1", false),
            ("ftp://vault.example", false),
        ];
        for (address, ok) in cases {
            let settings = Settings::new(address.parse().unwrap(), Auth::TokenFile("token".into()));
            assert_eq!(settings.check().is_ok(), ok, "{address}");
        }
    }
}
