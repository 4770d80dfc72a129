//! Where a key may travel, who may have it, and which secrets may serve as Keys at all.
//!
//! The same functions are asked at `apply`, before a desired document is composed, before control's own probe and
//! before each read of Vault: what was allowed when it was stored may be forbidden now.

mod asked;

use std::fmt;
use std::str::FromStr;

use url::{Host, Url};

use crate::fleet::{Labels, Selector};
use crate::id::KeyName;
use crate::key::{Key, KeyLocation};
pub use asked::{AskedHost, NotAsked, may_ask};

/// A host that keys may travel to: exact, or `*.` and a domain. With `http://` in front also without encryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    /// The host, or the domain whose subdomains are meant; in the form that a URL has it.
    host: String,
    is_domain: bool,
    unencrypted: bool,
}

/// A text that is not a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a host: {problem}")]
pub struct InvalidHost {
    text: String,
    problem: String,
}

/// Why a key stays where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stays {
    /// Nobody can tell where the connector would send it.
    #[error("key {key} stays here: nobody can tell where the connector would send it")]
    NoDestination {
        /// The Key.
        key: KeyName,
    },
    /// The Key itself does not list the host.
    #[error("key {key} may travel to {allowed} only, not to {host} (Key field spec.allowedHosts)")]
    NotOfKey {
        /// The Key.
        key: KeyName,
        /// Where the connector would send it.
        host: String,
        /// Where it may go, for people.
        allowed: String,
    },
    /// The settings of control do not list the host.
    #[error(
        "key {key} may not travel to {host}: the control service lets keys go to {allowed} only (setting outbound.allowed_hosts)"
    )]
    NotOutbound {
        /// The Key.
        key: KeyName,
        /// Where the connector would send it.
        host: String,
        /// Where keys may go, for people.
        allowed: String,
    },
    /// Anybody on the way could read it.
    #[error(
        "key {key} would cross the network unencrypted: write https://{host} (or list http://{host} in the setting outbound.allowed_hosts)"
    )]
    Unencrypted {
        /// The Key.
        key: KeyName,
        /// Where the connector would send it.
        host: String,
    },
    /// The deployment is none of those that may use it.
    #[error(
        "key {key} may only be used where {scope}: change its spec.scope, the placement or the deployment's labels"
    )]
    OutOfScope {
        /// The Key.
        key: KeyName,
        /// Where it may be used.
        scope: Selector,
    },
}

/// Why a secret may not serve as a Key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// The path could mean another one than it shows.
    #[error(
        "{full} may not serve as a Key: write mount and path with letters, digits, `-`, `_`, `.`, `@` and `:` between single slashes, without `..`"
    )]
    NotPlain {
        /// Mount and path.
        full: String,
    },
    /// No setting allows it.
    #[error(
        "{full} may not serve as a Key: the control service allows what lies below {allowed} (setting vault.key_paths)"
    )]
    NotAllowed {
        /// Mount and path.
        full: String,
        /// What is allowed, for people.
        allowed: String,
    },
}

/// The host of a text, in the form that a URL has it: lower case, an IPv6 address in brackets.
///
/// # Errors
/// Where the text is no host, ends in a dot, or names it in another way than a URL would (a port, an address as one
/// number, letters beyond ASCII).
pub fn host(text: &str) -> Result<String, InvalidHost> {
    let wrong = |problem: String| InvalidHost {
        text: text.chars().take(80).collect(),
        problem,
    };
    let example = "write a name or an address without scheme, port or path, such as api.openai.com";
    let parsed = Host::parse(text).map_err(|_| wrong(example.to_owned()))?;
    let host = parsed.to_string();
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if matches!(parsed, Host::Domain(_)) && !host.chars().all(is_name) {
        return Err(wrong(example.to_owned()));
    }
    if host.ends_with('.') {
        return Err(wrong("remove the dot at the end".to_owned()));
    }
    if !text.eq_ignore_ascii_case(&host) {
        return Err(wrong(format!("write {host}")));
    }
    Ok(host)
}

impl FromStr for HostPattern {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let (unencrypted, rest) = match text.strip_prefix("http://") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (is_domain, rest) = match rest.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let host = host(rest)?;
        Ok(Self {
            host,
            is_domain,
            unencrypted,
        })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.unencrypted { "http://" } else { "" };
        let any = if self.is_domain { "*." } else { "" };
        write!(f, "{scheme}{any}{}", self.host)
    }
}

impl HostPattern {
    /// True where it stands for this host, which is in the form that a URL has it. A domain stands for what lies
    /// below it and not for itself.
    pub fn matches(&self, host: &str) -> bool {
        if !self.is_domain {
            return self.host == host;
        }
        let below = host.strip_suffix(self.host.as_str());
        below.is_some_and(|below| below.len() > 1 && below.ends_with('.'))
    }
}

/// Whether a key may travel to where a connector would send it. `to` is the URL as the sender reads it (WHATWG).
///
/// # Errors
/// The first [`Stays`].
pub fn may_travel(key: &Key, to: Option<&Url>, outbound: &[HostPattern]) -> Result<(), Stays> {
    let name = || key.name.clone();
    let Some((to, host)) = to.and_then(|to| Some((to, to.host_str()?.to_ascii_lowercase()))) else {
        return Err(Stays::NoDestination { key: name() });
    };
    if !key.allowed_hosts.contains(&host) {
        return Err(Stays::NotOfKey {
            key: name(),
            host,
            allowed: list(&key.allowed_hosts),
        });
    }
    let fitting: Vec<_> = outbound.iter().filter(|o| o.matches(&host)).collect();
    if fitting.is_empty() {
        return Err(Stays::NotOutbound {
            key: name(),
            host,
            allowed: list(outbound),
        });
    }
    if to.scheme() != "https" && !is_here(to) && !fitting.iter().any(|o| o.unencrypted) {
        return Err(Stays::Unencrypted { key: name(), host });
    }
    Ok(())
}

/// Whether a key may be sent to a deployment with these labels, for a connector that would send it to `to`.
///
/// # Errors
/// The first [`Stays`].
pub fn may_be_sent(
    key: &Key,
    to: Option<&Url>,
    labels: &Labels,
    outbound: &[HostPattern],
) -> Result<(), Stays> {
    if !key.scope.matches(labels) {
        return Err(Stays::OutOfScope {
            key: key.name.clone(),
            scope: key.scope.clone(),
        });
    }
    may_travel(key, to, outbound)
}

/// Whether a secret of Vault may serve as a Key. `beginnings` are those of `mount/path`; each stands for itself, unless
/// it ends in a slash, and for what lies below it: `secret/keyfleet` is no beginning of `secret/keyfleet-admin`.
///
/// # Errors
/// [`NotServed`].
pub fn may_serve(location: &KeyLocation, beginnings: &[String]) -> Result<(), NotServed> {
    let full = format!("{}/{}", location.mount, location.path);
    let is_plain = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.@:".contains(c))
    };
    if location.path.is_empty() || !full.split('/').all(is_plain) {
        return Err(NotServed::NotPlain { full });
    }
    let covers = |beginning: &String| {
        let below = full.strip_prefix(beginning.trim_end_matches('/'));
        below.is_some_and(|rest| {
            let is_itself = rest.is_empty() && !beginning.ends_with('/');
            !beginning.is_empty() && (is_itself || rest.starts_with('/'))
        })
    };
    if beginnings.iter().any(covers) {
        return Ok(());
    }
    let allowed = list(beginnings);
    Err(NotServed::NotAllowed { full, allowed })
}

/// True where a call does not leave the machine: plain HTTP shows nothing to anybody else.
fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    if items.is_empty() {
        return "nowhere".to_owned();
    }
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(" or ")
}

#[cfg(test)]
mod tests;
