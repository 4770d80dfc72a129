//! Whom the control service may ask because a manifest says so, such as a gate.

use std::fmt;
use std::str::FromStr;

use url::Url;

use super::{HostPattern, InvalidHost, is_here, list};

/// Whom the control service may ask: a host as [`HostPattern`] has it, and the port: that of the scheme (443, or 80
/// without encryption) unless another stands behind the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedHost {
    host: HostPattern,
    port: Option<u16>,
}

/// Why the control service does not ask somebody, such as a gate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAsked {
    /// Nobody could tell who is asked, or a secret would stand in the URL.
    #[error("the URL must be https://HOST/PATH or http://HOST/PATH, without user and password")]
    NotPlain,
    /// The settings do not list the host, or not with this port.
    #[error(
        "{host} may not be asked: add it to the setting gates.allowed_hosts of the control service, which lists {allowed}"
    )]
    NotListed {
        /// Who would be asked.
        host: String,
        /// Who may be, for people.
        allowed: String,
    },
    /// Anybody on the way could change the answer.
    #[error(
        "{host} would be asked unencrypted: write https://{host} (or list http://{host} in the setting gates.allowed_hosts)"
    )]
    Unencrypted {
        /// Who would be asked.
        host: String,
    },
}

impl FromStr for AskedHost {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let is_number = |port: &str| !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
        // In an address of version 6 a colon is no port, unless it comes behind the brackets.
        let split = text.rsplit_once(':').filter(|(host, port)| {
            let is_address = host.contains('[') && !host.ends_with(']');
            is_number(port) && !is_address
        });
        let Some((host, port)) = split else {
            let (host, port) = (text.parse()?, None);
            return Ok(Self { host, port });
        };
        let port = port.parse().ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| InvalidHost {
            text: text.chars().take(80).collect(),
            problem: "a port is a number from 1 to 65535".to_owned(),
        })?;
        let (host, port) = (host.parse()?, Some(port));
        Ok(Self { host, port })
    }
}

impl fmt::Display for AskedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl AskedHost {
    /// True where it stands for this host, in the form that a URL has it, at the port that a URL names beside that of its
    /// scheme.
    fn matches(&self, host: &str, port: Option<u16>) -> bool {
        self.host.matches(host) && self.port == port
    }
}

/// Whether the control service may ask at this address because a manifest says so. `allowed` is the setting
/// `gates.allowed_hosts`; plain HTTP needs `http://` in front of the host there, unless it stays within the machine.
///
/// # Errors
/// The first [`NotAsked`].
pub fn may_ask(url: &Url, allowed: &[AskedHost]) -> Result<(), NotAsked> {
    let is_plain = matches!(url.scheme(), "https" | "http")
        && url.username().is_empty()
        && url.password().is_none();
    let Some(name) = url.host_str().filter(|_| is_plain) else {
        return Err(NotAsked::NotPlain);
    };
    let name = name.to_ascii_lowercase();
    let port = url.port();
    let host = || port.map_or_else(|| name.clone(), |port| format!("{name}:{port}"));
    let fits = |allowed: &&AskedHost| allowed.matches(&name, port) || is_usual(allowed, &name, url);
    let fitting: Vec<_> = allowed.iter().filter(fits).collect();
    if fitting.is_empty() {
        let allowed = match allowed {
            [] => "none".to_owned(),
            _ => list(allowed),
        };
        let host = host();
        return Err(NotAsked::NotListed { host, allowed });
    }
    let is_open = || fitting.iter().any(|allowed| allowed.host.unencrypted);
    if url.scheme() != "https" && !is_here(url) && !is_open() {
        return Err(NotAsked::Unencrypted { host: host() });
    }
    Ok(())
}

/// True where the port of the scheme is written out in the setting: a URL leaves it out.
fn is_usual(allowed: &AskedHost, host: &str, url: &Url) -> bool {
    let usual = url.port_or_known_default();
    url.port().is_none() && allowed.matches(host, usual)
}
