//! What a call can fail with: one text, one hint, one exit code each.

use std::time::Duration;

use crate::exit::Exit;
use crate::proxy::{self, Source};

/// A call that did not succeed. Texts of control are printed as they came: they name file, line and field.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The context cannot be used for a connection.
    #[error("the context cannot be used: {0}")]
    Context(String),
    /// No connection.
    #[error("cannot reach the control service at {endpoint}: {cause}")]
    Unreachable {
        /// Where it was looked for.
        endpoint: String,
        /// What the system says.
        cause: String,
    },
    /// What is named as proxy is none.
    #[error(transparent)]
    ProxyAddress(#[from] proxy::Error),
    /// The proxy does not open a way.
    #[error("cannot reach the control service at {endpoint}: {cause}")]
    Proxy {
        /// Where it was looked for.
        endpoint: String,
        /// What is wrong with the proxy.
        cause: String,
        /// Who named the proxy.
        source_of_proxy: Source,
        /// True where it wants a user and a password, or others.
        credentials: bool,
    },
    /// A connection to somebody the context's CA does not vouch for.
    #[error("the server at {endpoint} is not trusted: {cause}")]
    Untrusted {
        /// Where it was looked for.
        endpoint: String,
        /// What TLS says.
        cause: String,
    },
    /// No answer in time.
    #[error("no answer from {endpoint} within {}", crate::duration::short(deadline.as_secs()))]
    TimedOut {
        /// Who did not answer.
        endpoint: String,
        /// How long was waited.
        deadline: Duration,
    },
    /// Control is there but cannot serve: its store or Vault is away, or it is stopping.
    #[error("the control service cannot answer now: {0}")]
    Unavailable(String),
    /// The token is not accepted.
    #[error("not signed in: {0}")]
    Unauthenticated(String),
    /// The token's role is not enough.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// The request is not valid.
    #[error("{0}")]
    Invalid(String),
    /// What was asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// Not possible in this state.
    #[error("{0}")]
    Precondition(String),
    /// Somebody changed it meanwhile, or it is there already.
    #[error("{0}")]
    Conflict(String),
    /// A limit of control.
    #[error("{0}")]
    LimitReached(String),
    /// Control does not know the call.
    #[error("the control service does not know this request: {0}")]
    Unimplemented(String),
    /// Control failed.
    #[error("the control service failed: {0}")]
    Internal(String),
}

impl Error {
    /// What the operator can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Proxy {
                source_of_proxy,
                credentials,
                ..
            } => return Some(proxy_hint(*source_of_proxy, *credentials)),
            Self::Context(_) => "`keyfleet context set NAME …` mends it",
            Self::Unreachable { .. } => {
                "check that the service runs and that the endpoint is right: `keyfleet context show`"
            }
            Self::Untrusted { .. } => {
                "give the CA of this control service, its ca.pem; it changes with `ca rotate`: `keyfleet context set NAME --ca FILE`"
            }
            Self::TimedOut { .. } => {
                "check the endpoint with `keyfleet context show`; `--timeout` waits longer"
            }
            Self::Unavailable(_) => "try again; `keyfleet status` lists the service's problems",
            Self::Unauthenticated(_) => {
                "the token may be wrong, expired or revoked: ask an admin for `keyfleet token create operator`"
            }
            Self::NotAllowed(_) => {
                "viewers read, operators change connectors and rollouts, admins also keys, tokens, agents' identities and andon; a token with a scope ends there"
            }
            Self::Conflict(_) => "look at it again, then repeat",
            Self::Unimplemented(_) => "it may be older than this command: `keyfleet version`",
            Self::Internal(_) => "the service's log says more",
            Self::Invalid(_)
            | Self::ProxyAddress(_)
            | Self::NotFound(_)
            | Self::Precondition(_)
            | Self::LimitReached(_) => return None,
        };
        Some(text.to_owned())
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. }
            | Self::Proxy { .. }
            | Self::Untrusted { .. }
            | Self::Unavailable(_)
            | Self::Unauthenticated(_)
            | Self::NotAllowed(_) => Exit::NotAllowed,
            Self::TimedOut { .. } => Exit::TimedOut,
            Self::Invalid(_) => Exit::Usage,
            Self::Context(_)
            | Self::ProxyAddress(_)
            | Self::NotFound(_)
            | Self::Precondition(_)
            | Self::Conflict(_)
            | Self::LimitReached(_)
            | Self::Unimplemented(_)
            | Self::Internal(_) => Exit::Error,
        }
    }

    /// True where the same call may succeed a moment later: a lost connection, a restart of control.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Proxy { .. }
            | Self::TimedOut { .. }
            | Self::Unavailable(_)
            | Self::LimitReached(_)
            | Self::Internal(_) => true,
            Self::Context(_)
            | Self::ProxyAddress(_)
            | Self::Untrusted { .. }
            | Self::Unauthenticated(_)
            | Self::NotAllowed(_)
            | Self::Invalid(_)
            | Self::NotFound(_)
            | Self::Precondition(_)
            | Self::Conflict(_)
            | Self::Unimplemented(_) => false,
        }
    }
}

fn proxy_hint(source: Source, credentials: bool) -> String {
    match (credentials, source) {
        (true, Source::Context) => {
            "write http://USER:PASSWORD@HOST:PORT into a file of mode 0600: `keyfleet context set NAME --proxy-file FILE`".to_owned()
        }
        (true, Source::Variable(name)) => {
            format!("set {name} to http://USER:PASSWORD@HOST:PORT, special characters as %XX")
        }
        (false, Source::Context) => {
            "the context names this proxy: `keyfleet context show`".to_owned()
        }
        (false, Source::Variable(name)) => {
            format!("{name} names this proxy; NO_PROXY lists hosts that are reached without it")
        }
    }
}
