//! How to reach Vault and how to log in.

use std::fmt;
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
    /// Other nodes of the same cluster, asked in this order where the one before cannot answer.
    pub more_addresses: Vec<Url>,
    /// PEM file with the only authorities to trust; without it the system's are trusted.
    pub ca_file: Option<PathBuf>,
    /// Namespace of every read, and of the login where that has none of its own.
    pub namespace: Option<String>,
    /// Namespace of the login; an empty one or `/` is the root.
    pub login_namespace: Option<String>,
    /// How to log in.
    pub auth: Auth,
    /// Time limit of one request, from connecting to the last byte.
    pub timeout: Duration,
    /// How often one call is tried where the trouble may pass; at least 1.
    pub attempts: u32,
    /// Proxy to go through.
    pub proxy: Option<Proxy>,
}

/// How to log in. Every file is read again at each login, so that a renewed credential is picked up.
#[derive(Debug, Clone)]
pub enum Auth {
    /// A token in a file, which something else keeps fresh or which we renew.
    TokenFile(PathBuf),
    /// AppRole.
    AppRole {
        /// Where the method is mounted, usually `approle`.
        mount: String,
        /// The role's id; not a secret.
        role_id: String,
        /// File that holds the secret id, or the token it is wrapped in.
        secret_id_file: PathBuf,
        /// The file holds a wrapping token.
        wrapped: Option<Wrapped>,
    },
    /// A JSON Web Token, also that of a Kubernetes service account: both methods take the same request.
    Jwt {
        /// Where the method is mounted, usually `kubernetes` or `jwt`.
        mount: String,
        /// The role to log in as.
        role: String,
        /// File that holds the token.
        token_file: PathBuf,
    },
    /// The certificate of our end of the TLS connection.
    Cert {
        /// Where the method is mounted, usually `cert`.
        mount: String,
        /// The role to log in as; without one, Vault looks for one that takes the certificate.
        role: Option<String>,
        /// PEM file with the certificate and what signs it.
        cert_file: PathBuf,
        /// PEM file with the private key.
        key_file: PathBuf,
    },
}

/// A secret id that was wrapped for its way to us. Wrapping shows whether somebody else has read it.
#[derive(Debug, Clone)]
pub struct Wrapped {
    /// Name of the role the secret id must have been made for.
    pub role: String,
    /// Where to note which wrapping token was used, as a hash. Without it, our own use before a restart looks like a
    /// theft.
    pub used_file: Option<PathBuf>,
}

/// An HTTP CONNECT proxy.
#[derive(Clone)]
pub struct Proxy {
    /// Its address; may carry user and password.
    pub url: Url,
    /// Hosts that are reached directly: names, domains, addresses and networks, separated by commas.
    pub no_proxy: Option<String>,
}

impl Proxy {
    /// Host and port, which is all that may be shown.
    pub(crate) fn shown(&self) -> String {
        host_and_port(&self.url)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("url", &self.shown())
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

impl Settings {
    /// Settings with the defaults: system authorities, no namespace, no proxy, 10 seconds, 4 attempts.
    pub fn new(address: Url, auth: Auth) -> Self {
        Self {
            address,
            more_addresses: Vec::new(),
            ca_file: None,
            namespace: None,
            login_namespace: None,
            auth,
            timeout: TIMEOUT,
            attempts: ATTEMPTS,
            proxy: None,
        }
    }

    /// Every address, in the order they are asked.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &Url> {
        std::iter::once(&self.address).chain(&self.more_addresses)
    }

    /// Checks what can be checked without Vault.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.addresses().try_for_each(check_address)?;
        if self.timeout.is_zero() || self.attempts == 0 {
            return wrong("timeout and attempts must be greater than 0");
        }
        if let Some(proxy) = &self.proxy
            && (!matches!(proxy.url.scheme(), "http" | "https") || !proxy.url.has_host())
        {
            return wrong("the proxy's address must be like http://proxy.example:3128");
        }
        self.namespace_header()?;
        self.login_namespace_header().map(drop)
    }

    /// The namespace of reads.
    pub(crate) fn namespace_header(&self) -> Result<Option<HeaderValue>, Error> {
        header(self.namespace.as_deref())
    }

    /// The namespace of logins.
    pub(crate) fn login_namespace_header(&self) -> Result<Option<HeaderValue>, Error> {
        header(self.login_namespace())
    }

    /// The name of the namespace of logins.
    pub(crate) fn login_namespace(&self) -> Option<&str> {
        let name = self
            .login_namespace
            .as_deref()
            .or(self.namespace.as_deref());
        name.map(|name| name.trim().trim_matches('/'))
    }
}

/// Host and port: the rest of an address may hold a password or anything.
pub(crate) fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn wrong<T>(what: &str) -> Result<T, Error> {
    Err(Error::Settings {
        what: what.to_owned(),
    })
}

fn header(namespace: Option<&str>) -> Result<Option<HeaderValue>, Error> {
    let name = namespace.unwrap_or_default().trim().trim_matches('/');
    if name.is_empty() {
        return Ok(None);
    }
    match HeaderValue::from_str(name) {
        Ok(header) if name.is_ascii() => Ok(Some(header)),
        Ok(_) | Err(_) => wrong("a namespace must be visible ASCII"),
    }
}

fn check_address(address: &Url) -> Result<(), Error> {
    match (address.scheme(), address.host()) {
        ("https", Some(_)) => {}
        ("http", Some(host)) if is_loopback(&host) => {}
        _ => return wrong("the address must be https://host:port (http only on loopback)"),
    }
    if !address.username().is_empty() || address.password().is_some() {
        return wrong("the address must not carry credentials");
    }
    if address.query().is_some() || address.fragment().is_some() {
        return wrong("the address must end with the port or a path");
    }
    Ok(())
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

    #[test]
    fn a_second_address_is_checked_too_and_a_proxy_hides_its_password() {
        let token = Auth::TokenFile("token".into());
        let mut settings = Settings::new("https://vault.example".parse().unwrap(), token);
        settings.more_addresses = vec!["http://vault-2.example".parse().unwrap()];
        assert!(settings.check().is_err());
        settings.more_addresses.clear();
        settings.proxy = Some(Proxy {
            url: "http://user:canary@proxy.example:3128".parse().unwrap(),
            no_proxy: None,
        });
        assert!(settings.check().is_ok());
        let text = format!("{settings:?}");
        assert!(
            text.contains("proxy.example:3128") && !text.contains("canary"),
            "{text}"
        );
    }

    #[test]
    fn a_login_has_the_namespace_of_reads_or_its_own() {
        let cases = [
            (None, None, None),
            (Some("a/b"), None, Some("a/b")),
            (Some("a"), Some("c/"), Some("c")),
            (Some("a"), Some("/"), None),
            (None, Some("c"), Some("c")),
        ];
        for (reads, login, expected) in cases {
            let token = Auth::TokenFile("token".into());
            let mut settings = Settings::new("https://vault.example".parse().unwrap(), token);
            settings.namespace = reads.map(str::to_owned);
            settings.login_namespace = login.map(str::to_owned);
            let header = settings.login_namespace_header().unwrap();
            assert_eq!(
                header.as_ref().and_then(|header| header.to_str().ok()),
                expected
            );
        }
    }
}
