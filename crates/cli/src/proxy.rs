//! Which way leads to the control service: straight, or through an HTTP proxy of the context or of the environment.

use std::fmt;
use std::net::IpAddr;

use keyfleet_proto::tunnel::{Direct, ParseError, Proxy};
use secrecy::ExposeSecret as _;
use url::{Host, Url};

use crate::contexts::Context;
use crate::env::Env;

/// Who named the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The context.
    Context,
    /// This variable of the environment.
    Variable(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Context => f.write_str("the context"),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// A proxy and who named it.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    /// The proxy.
    pub(crate) proxy: Proxy,
    /// Who named it.
    pub(crate) source: Source,
}

/// A proxy that is named but cannot be one.
#[derive(Debug, thiserror::Error)]
#[error("the proxy of {of} {problem}")]
pub(crate) struct Error {
    of: Source,
    problem: ParseError,
}

/// The proxy for this context: its own one always, else the one of the environment, except for hosts that `NO_PROXY` lists and for this
/// machine itself.
///
/// # Errors
/// Where what is named is no address of a proxy.
pub(crate) fn choose(context: &Context, env: &Env) -> Result<Option<Way>, Error> {
    let way = |source, text: &str| {
        Proxy::parse(text)
            .map(|proxy| Some(Way { proxy, source }))
            .map_err(|problem| Error {
                of: source,
                problem,
            })
    };
    if let Some(proxy) = &context.proxy {
        return way(Source::Context, proxy.expose_secret());
    }
    match &env.proxy {
        Some((name, proxy)) if !is_direct(&context.endpoint, &env.no_proxy) => {
            way(Source::Variable(name), proxy.expose_secret())
        }
        _ => Ok(None),
    }
}

fn is_direct(endpoint: &str, no_proxy: &str) -> bool {
    let url = Url::parse(endpoint).ok();
    let Some(host) = url.as_ref().and_then(Url::host) else {
        return true;
    };
    let is_this_machine = match &host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => IpAddr::from(*address).is_loopback(),
        Host::Ipv6(address) => IpAddr::from(*address).is_loopback(),
    };
    is_this_machine || Direct::parse(no_proxy).includes(&host.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::SecretString;

    #[test]
    fn the_context_comes_before_the_environment() {
        let check = |endpoint: &str, own: &str, variable: &str, no_proxy: &str, expect: &str| {
            let secret = |text: &str| (!text.is_empty()).then(|| SecretString::from(text));
            let context = Context {
                endpoint: endpoint.to_owned(),
                token: SecretString::default(),
                proxy: secret(own),
                ca: String::new(),
            };
            let env = Env {
                proxy: secret(variable).map(|proxy| ("HTTPS_PROXY", proxy)),
                no_proxy: no_proxy.to_owned(),
                ..Env::default()
            };
            let text = match choose(&context, &env) {
                Ok(None) => "straight".to_owned(),
                Ok(Some(way)) => format!("{} of {}", way.proxy, way.source),
                Err(err) => err.to_string(),
            };
            assert!(text.contains(expect), "{text}");
        };
        let control = "https://control.corp:8443";
        check(control, "", "", "", "straight");
        check(
            control,
            "http://p:1",
            "http://q:2",
            "*",
            "http://p:1 of the context",
        );
        check(control, "", "http://q:2", "", "http://q:2 of HTTPS_PROXY");
        check(control, "", "http://q:2", "lab,.corp", "straight");
        check("https://localhost:1", "", "http://q:2", "", "straight");
        check("https://127.0.0.1:1", "", "http://q:2", "", "straight");
        check("https://[::1]:1", "", "http://q:2", "", "straight");
        check(
            "https://10.0.0.1:1",
            "",
            "http://q:2",
            "10.0.0.0/8",
            "straight",
        );
        check(
            "https://localhost:1",
            "http://p:1",
            "",
            "",
            "of the context",
        );
        check(
            control,
            "",
            "socks5://q:2",
            "",
            "HTTPS_PROXY must begin with http://",
        );
    }
}
