//! Where a key may travel, who may have it, and which secrets may serve as Keys at all.
//!
//! The same functions are asked at `apply`, before a desired document is composed, before control's own probe and
//! before each read of Vault: what was allowed when it was stored may be forbidden now.

use std::fmt;
use std::str::FromStr;

use url::{Host, Url};

use crate::fleet::{Labels, Selector};
use crate::id::KeyName;
use crate::key::{Key, KeyLocation};

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

/// Why the control service does not ask somebody, such as a gate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAsked {
    /// Nobody could tell who is asked, or a secret would stand in the URL.
    #[error("the URL must be https://HOST/PATH or http://HOST/PATH, without user and password")]
    NotPlain,
    /// The settings do not list the host.
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

/// Whether the control service may ask at this address because a manifest says so. `allowed` is the setting
/// `gates.allowed_hosts`; plain HTTP needs `http://` in front of the host there, unless it stays within the machine.
///
/// # Errors
/// The first [`NotAsked`].
pub fn may_ask(url: &Url, allowed: &[HostPattern]) -> Result<(), NotAsked> {
    let is_plain = matches!(url.scheme(), "https" | "http")
        && url.username().is_empty()
        && url.password().is_none();
    let Some(host) = url.host_str().filter(|_| is_plain) else {
        return Err(NotAsked::NotPlain);
    };
    let host = host.to_ascii_lowercase();
    let fitting: Vec<_> = allowed.iter().filter(|a| a.matches(&host)).collect();
    if fitting.is_empty() {
        let allowed = match allowed {
            [] => "none".to_owned(),
            _ => list(allowed),
        };
        return Err(NotAsked::NotListed { host, allowed });
    }
    if url.scheme() != "https" && !is_here(url) && !fitting.iter().any(|a| a.unencrypted) {
        return Err(NotAsked::Unencrypted { host });
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
mod tests {
    use super::*;

    fn key(hosts: &[&str]) -> Key {
        Key {
            name: "openai".parse().unwrap(),
            location: location("secret", "keyfleet/openai"),
            allowed_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            scope: Selector::default(),
        }
    }

    fn location(mount: &str, path: &str) -> KeyLocation {
        KeyLocation {
            mount: mount.to_owned(),
            path: path.to_owned(),
            field: "api_key".into(),
        }
    }

    /// `outcome` is empty where the key may go, else a part of the sentence.
    fn check(url: &str, outbound: &[&str], outcome: &str) {
        let key = key(&["api.openai.com", "x.gateway.example", "[::1]", "127.0.0.1"]);
        let outbound: Vec<HostPattern> = outbound.iter().map(|o| o.parse().unwrap()).collect();
        let url = Url::parse(url).unwrap();
        let said = may_travel(&key, Some(&url), &outbound)
            .map_or_else(|stays| stays.to_string(), |()| String::new());
        let is_right = said.contains(outcome) && said.is_empty() == outcome.is_empty();
        assert!(is_right, "{url}: {said:?}, not {outcome:?}");
    }

    #[test]
    fn a_key_travels_where_both_its_key_and_the_settings_allow() {
        let usual = ["api.openai.com", "*.gateway.example", "[::1]"];
        check("https://api.openai.com/v1/chat/completions", &usual, "");
        check("https://API.OpenAI.com:8443/v1", &usual, "");
        check("https://x.gateway.example/v1", &usual, "");
        check("http://[::1]:9/v1", &usual, "");
        check("http://[0:0:0:0:0:0:0:1]/v1", &usual, "");
        check(
            "https://api.openai.com./v1",
            &usual,
            "not to api.openai.com.",
        );
        check(
            "https://api.openai.com@evil.example/v1",
            &usual,
            "not to evil.example",
        );
        check(
            "https://api.openai.com.evil.example/v1",
            &usual,
            "not to api.openai.com.evil",
        );
        check(
            "https://evil.example\\@api.openai.com/v1",
            &usual,
            "not to evil.example",
        );
        check("https://аpi.openai.com/v1", &usual, "not to xn--");
        check(
            "https://x.api.openai.com/v1",
            &usual,
            "not to x.api.openai.com",
        );
        check(
            "https://[::ffff:7f00:1]/v1",
            &usual,
            "not to [::ffff:7f00:1]",
        );
        check(
            "http://127.0.0.1/v1",
            &usual,
            "setting outbound.allowed_hosts",
        );
        check(
            "http://2130706433/v1",
            &usual,
            "setting outbound.allowed_hosts",
        );
        check("https://api.openai.com/v1", &[], "to nowhere only");
        check("http://api.openai.com/v1", &usual, "unencrypted");
        check("http://api.openai.com/v1", &["http://api.openai.com"], "");
        check(
            "https://x.gateway.example/v1",
            &["gateway.example"],
            "may not travel",
        );
        check(
            "https://x.gateway.example/v1",
            &["*.y.gateway.example"],
            "may not travel",
        );
    }

    #[test]
    fn a_gate_may_ask_hosts_of_the_settings_only() {
        let check = |url: &str, allowed: &[&str], text: &str| {
            let allowed: Vec<HostPattern> = allowed.iter().map(|a| a.parse().unwrap()).collect();
            let said = may_ask(&url.parse().unwrap(), &allowed);
            let said = said.map_or_else(|err| err.to_string(), |()| String::new());
            assert_eq!(said.is_empty(), text.is_empty(), "{url}: {said}");
            assert!(said.contains(text), "{url}: {said}");
        };
        let usual = [
            "prometheus.example",
            "*.ops.example",
            "127.0.0.1",
            "[::1]",
            "localhost",
        ];
        check("https://prometheus.example:9090/a?b", &usual, "");
        check("https://PROMETHEUS.example", &usual, "");
        check("https://a.ops.example/", &usual, "");
        check("http://127.0.0.1:9090/", &usual, "");
        check("http://[::1]:9090/", &usual, "");
        check("http://localhost/", &usual, "");
        check(
            "https://ops.example/",
            &usual,
            "ops.example may not be asked: add it",
        );
        check(
            "https://prometheus.example.evil/",
            &usual,
            "may not be asked",
        );
        check(
            "https://a/",
            &[],
            "gates.allowed_hosts of the control service, which lists none",
        );
        check("http://127.0.0.2/", &usual, "127.0.0.2 may not be asked");
        check("http://169.254.169.254/", &usual, "may not be asked");
        check(
            "http://prometheus.example/",
            &usual,
            "unencrypted: write https://prometheus.example",
        );
        check(
            "http://prometheus.example/",
            &["http://prometheus.example"],
            "",
        );
        for wrong in [
            "https://user@localhost/",
            "https://:pass@localhost/",
            "ftp://localhost/",
            "file:///etc/passwd",
            "data:localhost",
        ] {
            check(wrong, &usual, "without user and password");
        }
    }

    #[test]
    fn a_domain_stands_for_what_lies_below_it() {
        let pattern: HostPattern = "*.example.org".parse().unwrap();
        for (host, fits) in [
            ("a.example.org", true),
            ("a.b.example.org", true),
            ("example.org", false),
            (".example.org", false),
            ("aexample.org", false),
            ("a.example.org.evil", false),
        ] {
            assert_eq!(pattern.matches(host), fits, "{host}");
        }
        for text in [
            "a.example",
            "*.a.example",
            "http://a.example",
            "http://*.a.example",
        ] {
            assert_eq!(text.parse::<HostPattern>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "*",
            "*.",
            "a.*",
            "https://a",
            "a:443",
            "a/b",
            "a.",
            "ä.example",
            "1.2.3",
            "a b",
            "u@a",
        ] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_is_sent_within_its_scope_only() {
        let mut key = key(&["api.openai.com"]);
        key.scope = "env=prod".parse().unwrap();
        let to = Url::parse("https://api.openai.com/v1").unwrap();
        let outbound = ["api.openai.com".parse().unwrap()];
        let prod = Labels::from([("env".to_owned(), "prod".to_owned())]);
        assert_eq!(may_be_sent(&key, Some(&to), &prod, &outbound), Ok(()));
        let said = may_be_sent(&key, Some(&to), &Labels::new(), &outbound).unwrap_err();
        assert!(
            said.to_string().contains("only be used where env=prod"),
            "{said}"
        );
        let said = may_be_sent(&key, None, &prod, &outbound).unwrap_err();
        assert!(matches!(said, Stays::NoDestination { .. }), "{said}");
    }

    #[test]
    fn only_what_lies_below_an_allowed_beginning_serves_as_a_key() {
        let below = ["secret/keyfleet/".to_owned(), "kv/one/key".to_owned()];
        let check = |mount: &str, path: &str, allowed: bool| {
            let found = may_serve(&location(mount, path), &below);
            assert_eq!(found.is_ok(), allowed, "{mount} {path}: {found:?}");
        };
        check("secret", "keyfleet/openai", true);
        check("secret", "keyfleet/team/openai", true);
        check("secret/keyfleet", "openai", true);
        check("kv", "one/key", true);
        check("kv", "one/key/below", true);
        check("kv", "one/keys", false);
        check("secret", "keyfleet", false);
        check("secret", "keyfleet-admin/openai", false);
        check("secret", "other", false);
        for path in [
            "keyfleet/../admin",
            "keyfleet/..",
            "keyfleet//openai",
            "/keyfleet/openai",
            "keyfleet/openai/",
            "keyfleet/./openai",
            "keyfleet/%2e%2e/admin",
            "keyfleet/%2fadmin",
            "keyfleet\\..\\admin",
            "keyfleet/open ai",
            "keyfleet/a?b",
            "keyfleet/a#b",
            "keyfleet/*",
            "keyfleet/ä",
            "keyfleet/\u{202e}a",
            "",
        ] {
            check("secret", path, false);
        }
        for mount in ["", "/secret", "secret/", "secret/../secret", "SECRET"] {
            check(mount, "keyfleet/openai", false);
        }
        for beginnings in [vec![], vec![String::new()], vec!["/".to_owned()]] {
            assert!(may_serve(&location("secret", "keyfleet/openai"), &beginnings).is_err());
        }
    }
}
