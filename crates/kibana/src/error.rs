//! What can go wrong between the agent and Kibana, and what each case means.

use std::time::Duration;

use keyfleet_core::failure::FailureClass;

use crate::version::Version;

/// Why a call to Kibana failed. `call` is the method and path, for example `PUT /s/soc/api/actions/connector/…`.
///
/// No variant holds a header, a request body, or a text of Kibana that could repeat a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client could not be built from its settings.
    #[error("the Kibana settings cannot be used: {problem}")]
    Settings {
        /// Which setting, and what to write instead.
        problem: String,
    },
    /// Nobody listens, or the name does not resolve.
    #[error(
        "{call}: Kibana cannot be reached ({reason}); check that it runs and that the URL in the agent's config is right"
    )]
    Unreachable {
        /// Method and path.
        call: String,
        /// The system's words.
        reason: String,
    },
    /// The proxy on the way gives none.
    #[error(
        "{call}: no way to Kibana through the proxy {proxy} ({reason}); check the proxy in the agent's config, and that it lets the agent through"
    )]
    Proxy {
        /// Method and path.
        call: String,
        /// The proxy's host and port.
        proxy: String,
        /// The system's or the library's words.
        reason: String,
    },
    /// The TLS connection failed.
    #[error(
        "{call}: no trusted connection to Kibana ({reason}); check Kibana's certificate and the CA file in the agent's config"
    )]
    Tls {
        /// Method and path.
        call: String,
        /// The TLS library's words.
        reason: String,
    },
    /// The deadline passed. A write may have been carried out.
    #[error("{call}: no complete answer from Kibana within {} ms", limit.as_millis())]
    Timeout {
        /// Method and path.
        call: String,
        /// The deadline.
        limit: Duration,
    },
    /// The connection broke before the answer was complete. A write may have been carried out.
    #[error(
        "{call}: the connection to Kibana broke before its answer was complete; it may have restarted, or another service listens there"
    )]
    Truncated {
        /// Method and path.
        call: String,
    },
    /// The answer is longer than this client reads.
    #[error(
        "{call}: the answer is longer than {limit_bytes} bytes; this is not what Kibana answers here"
    )]
    TooLarge {
        /// Method and path.
        call: String,
        /// The most that is read.
        limit_bytes: usize,
    },
    /// The answer is not JSON, for example a page of a proxy or "Kibana server is not ready yet".
    #[error(
        "{call}: Kibana answered {status} with something that is not JSON; it may be starting, or a proxy answers in its place"
    )]
    NotJson {
        /// Method and path.
        call: String,
        /// The HTTP status.
        status: u16,
    },
    /// JSON without the fields that Kibana has here, or a status that it does not use here.
    #[error("{call}: {problem}; check that the URL in the agent's config is Kibana's own")]
    Unexpected {
        /// Method and path.
        call: String,
        /// What is unusual.
        problem: String,
    },
    /// The answer sends the client elsewhere. Redirects are never followed: they would carry credentials away.
    #[error(
        "{call}: the answer is a redirect ({status}); write the final URL of Kibana, behind no login page, into the agent's config"
    )]
    Redirected {
        /// Method and path.
        call: String,
        /// The HTTP status.
        status: u16,
    },
    /// 502, 503 or 504.
    #[error("{call}: Kibana is not ready ({status})")]
    NotReady {
        /// Method and path.
        call: String,
        /// The HTTP status.
        status: u16,
        /// What `Retry-After` asked for.
        retry_after: Option<Duration>,
    },
    /// 429: Kibana or its Elasticsearch sheds load.
    #[error("{call}: Kibana is overloaded and refused the call (429)")]
    TooManyRequests {
        /// Method and path.
        call: String,
        /// What `Retry-After` asked for.
        retry_after: Option<Duration>,
    },
    /// 5xx without a known cause.
    #[error("{call}: Kibana failed ({status}); its log has the reason")]
    ServerError {
        /// Method and path.
        call: String,
        /// The HTTP status.
        status: u16,
    },
    /// 401.
    #[error(
        "{call}: Kibana refused the credentials (401); check that the API key in the agent's config is right, not expired and not revoked"
    )]
    Unauthorized {
        /// Method and path.
        call: String,
    },
    /// `/api/status` left the version out, as it does for a caller it does not know.
    #[error(
        "{call}: Kibana hides its version from these credentials; give the agent an API key of this cluster"
    )]
    Redacted {
        /// Method and path.
        call: String,
    },
    /// 403 for lack of privileges.
    #[error(
        "{call}: the credentials lack a privilege (403); give the API key `feature_actions.all` in this space"
    )]
    Forbidden {
        /// Method and path.
        call: String,
    },
    /// 403: the licence does not include the connector type, or has expired.
    #[error(
        "{call}: the Elastic licence does not allow this connector type, or it has expired; `.gen-ai` needs Enterprise or a trial"
    )]
    Licence {
        /// Method and path.
        call: String,
    },
    /// 403: the type is not in `xpack.actions.enabledActionTypes`.
    #[error(
        "{call}: the connector type is switched off; add it to `xpack.actions.enabledActionTypes` in kibana.yml"
    )]
    TypeNotEnabled {
        /// Method and path.
        call: String,
    },
    /// 400: the host of `apiUrl` is not in `xpack.actions.allowedHosts`.
    #[error(
        "{call}: Kibana may not call the connector's host; add it to `xpack.actions.allowedHosts` in kibana.yml"
    )]
    HostNotAllowed {
        /// Method and path.
        call: String,
    },
    /// 400 or 413: Kibana refused the definition.
    #[error("{call}: Kibana refused the definition: {problem}")]
    Rejected {
        /// Method and path.
        call: String,
        /// Kibana's words where they are about config or name, else ours.
        problem: String,
    },
    /// 400: the connector is preconfigured in kibana.yml or belongs to Kibana itself.
    #[error(
        "{call}: this connector is kept in kibana.yml or by Kibana itself and cannot be changed through its API"
    )]
    NotOurs {
        /// Method and path.
        call: String,
    },
    /// 409: the id exists (perhaps in another space), or somebody wrote at the same moment.
    #[error("{call}: somebody else created or changed this connector (409)")]
    Conflict {
        /// Method and path.
        call: String,
    },
    /// 404 for a connector that was there: somebody deleted it.
    #[error("{call}: the connector is gone; somebody deleted it")]
    Gone {
        /// Method and path.
        call: String,
    },
    /// 404 for the route itself.
    #[error(
        "{call}: nothing is at this address (404); check the URL's path prefix, that the space exists, and that Kibana is {} or newer",
        Version::OLDEST
    )]
    NoSuchRoute {
        /// Method and path.
        call: String,
    },
    /// 500 on a connector route of a Kibana without an encryption key.
    #[error(
        "{call}: Kibana has no encryption key for secrets; set `xpack.encryptedSavedObjects.encryptionKey` in kibana.yml"
    )]
    NoEncryptionKey {
        /// Method and path.
        call: String,
    },
    /// 500 on a connector route, and Kibana does not tell whether it has its encryption key, or it has one.
    #[error(
        "{call}: Kibana failed (500), most likely because it cannot decrypt the connector's secrets; check that `xpack.encryptedSavedObjects.encryptionKey` is set, unchanged, and the same on all instances"
    )]
    Undecryptable {
        /// Method and path.
        call: String,
    },
}

impl Error {
    /// The class that a failed binding is counted under.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Settings { .. } => FailureClass::Agent,
            Self::Timeout { .. } => FailureClass::Timeout,
            Self::Unreachable { .. }
            | Self::Proxy { .. }
            | Self::Tls { .. }
            | Self::Truncated { .. }
            | Self::TooLarge { .. }
            | Self::NotJson { .. }
            | Self::Unexpected { .. }
            | Self::Redirected { .. }
            | Self::NotReady { .. }
            | Self::TooManyRequests { .. }
            | Self::ServerError { .. }
            | Self::NoSuchRoute { .. } => FailureClass::KibanaDown,
            Self::Unauthorized { .. } | Self::Redacted { .. } | Self::Forbidden { .. } => {
                FailureClass::KibanaAuth
            }
            Self::Licence { .. } => FailureClass::Licence,
            Self::HostNotAllowed { .. } => FailureClass::Egress,
            Self::TypeNotEnabled { .. } | Self::Rejected { .. } => FailureClass::Rejected,
            Self::NotOurs { .. } | Self::Conflict { .. } | Self::Gone { .. } => {
                FailureClass::Conflict
            }
            Self::NoEncryptionKey { .. } | Self::Undecryptable { .. } => FailureClass::Encryption,
        }
    }

    /// True where the same call may succeed soon although nobody changes a setting or the definition.
    ///
    /// False does not mean "never again": a person may repair credentials, licence or kibana.yml, so such a call is
    /// worth a try at the slow pace of the periodic checks.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Proxy { .. }
            | Self::Timeout { .. }
            | Self::Truncated { .. }
            | Self::NotJson { .. }
            | Self::NotReady { .. }
            | Self::TooManyRequests { .. }
            | Self::ServerError { .. }
            | Self::Conflict { .. }
            | Self::Gone { .. } => true,
            Self::Settings { .. }
            | Self::Tls { .. }
            | Self::TooLarge { .. }
            | Self::Unexpected { .. }
            | Self::Redirected { .. }
            | Self::NoSuchRoute { .. }
            | Self::Unauthorized { .. }
            | Self::Redacted { .. }
            | Self::Forbidden { .. }
            | Self::Licence { .. }
            | Self::TypeNotEnabled { .. }
            | Self::HostNotAllowed { .. }
            | Self::Rejected { .. }
            | Self::NotOurs { .. }
            | Self::NoEncryptionKey { .. }
            | Self::Undecryptable { .. } => false,
        }
    }

    /// How long Kibana asked to be left alone, at most five minutes.
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::NotReady { retry_after, .. } | Self::TooManyRequests { retry_after, .. } = self
        {
            *retry_after
        } else {
            None
        }
    }
}
