//! What can go wrong between the agent and Kibana or its Elasticsearch, and what each case means.

use std::time::Duration;

use keyfleet_core::failure::FailureClass;

use crate::client::Call;

/// Why a call to Kibana or to its Elasticsearch failed. `call` is the method and path, for example
/// `PUT /s/soc/api/actions/connector/…`.
///
/// No variant holds a header, a request body, or a foreign text that could repeat a secret.
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
        "{call}: {} cannot be reached ({reason}); check that it runs and that {} in the agent's config is right",
        call.service,
        call.service.url_setting()
    )]
    Unreachable {
        /// Which call.
        call: Call,
        /// The system's words.
        reason: String,
    },
    /// The proxy on the way gives none.
    #[error(
        "{call}: no way to {} through the proxy {proxy} ({reason}); check the proxy in the agent's config, and that it lets the agent through",
        call.service
    )]
    Proxy {
        /// Which call.
        call: Call,
        /// The proxy's host and port.
        proxy: String,
        /// The system's or the library's words.
        reason: String,
    },
    /// The TLS connection failed.
    #[error(
        "{call}: no trusted connection to {} ({reason}); check its certificate and its CA file in the agent's config",
        call.service
    )]
    Tls {
        /// Which call.
        call: Call,
        /// The TLS library's words.
        reason: String,
    },
    /// The deadline passed. A write may have been carried out.
    #[error("{call}: no complete answer from {} within {} ms", call.service, limit.as_millis())]
    Timeout {
        /// Which call.
        call: Call,
        /// The deadline.
        limit: Duration,
    },
    /// The connection broke before the answer was complete. A write may have been carried out.
    #[error(
        "{call}: the connection to {} broke before its answer was complete; it may have restarted, or another service listens there",
        call.service
    )]
    Truncated {
        /// Which call.
        call: Call,
    },
    /// The answer is longer than this client reads.
    #[error(
        "{call}: the answer is longer than {limit_bytes} bytes; this is not what {} answers here",
        call.service
    )]
    TooLarge {
        /// Which call.
        call: Call,
        /// The most that is read.
        limit_bytes: usize,
    },
    /// A list is longer than this client reads.
    #[error(
        "{call}: the list is longer than {limit_bytes} bytes, more than this client reads; remove from it what nobody uses"
    )]
    ListTooLarge {
        /// Which call.
        call: Call,
        /// The most that is read.
        limit_bytes: usize,
    },
    /// The answer is not JSON, for example a page of a proxy or "Kibana server is not ready yet".
    #[error(
        "{call}: {} answered {status} with something that is not JSON; it may be starting, or a proxy answers in its place",
        call.service
    )]
    NotJson {
        /// Which call.
        call: Call,
        /// The HTTP status.
        status: u16,
    },
    /// JSON without the fields that Kibana has here, or a status that it does not use here.
    #[error(
        "{call}: {problem}; check that {} in the agent's config is the URL of {} itself",
        call.service.url_setting(),
        call.service
    )]
    Unexpected {
        /// Which call.
        call: Call,
        /// What is unusual.
        problem: String,
    },
    /// The answer sends the client elsewhere. Redirects are never followed: they would carry credentials away.
    #[error(
        "{call}: the answer is a redirect ({status}); write the final URL of {}, behind no login page, into the agent's config",
        call.service
    )]
    Redirected {
        /// Which call.
        call: Call,
        /// The HTTP status.
        status: u16,
    },
    /// 502, 503 or 504.
    #[error("{call}: {} is not ready ({status})", call.service)]
    NotReady {
        /// Which call.
        call: Call,
        /// The HTTP status.
        status: u16,
        /// What `Retry-After` asked for.
        retry_after: Option<Duration>,
    },
    /// 429: Kibana or its Elasticsearch sheds load.
    #[error("{call}: {} is overloaded and refused the call (429)", call.service)]
    TooManyRequests {
        /// Which call.
        call: Call,
        /// What `Retry-After` asked for.
        retry_after: Option<Duration>,
    },
    /// 5xx without a known cause.
    #[error("{call}: {} failed ({status}); its log has the reason", call.service)]
    ServerError {
        /// Which call.
        call: Call,
        /// The HTTP status.
        status: u16,
    },
    /// 401.
    #[error(
        "{call}: {} refused the credentials (401); check that the API key in the agent's config is right, not expired and not revoked",
        call.service
    )]
    Unauthorized {
        /// Which call.
        call: Call,
    },
    /// `/api/status` left the version out, as it does for a caller it does not know.
    #[error(
        "{call}: Kibana hides its version from these credentials; give the agent an API key of this cluster"
    )]
    Redacted {
        /// Which call.
        call: Call,
    },
    /// 403 for lack of privileges.
    #[error(
        "{call}: the credentials lack a privilege (403); give the API key {}",
        call.service.privilege()
    )]
    Forbidden {
        /// Which call.
        call: Call,
    },
    /// 403: the licence does not include the connector type, or has expired.
    #[error(
        "{call}: the Elastic licence does not allow {}, or it has expired; LLM connectors need Enterprise or a trial",
        call.service.licensed()
    )]
    Licence {
        /// Which call.
        call: Call,
    },
    /// 403: the type is not in `xpack.actions.enabledActionTypes`.
    #[error(
        "{call}: the connector type is switched off; add it to `xpack.actions.enabledActionTypes` in kibana.yml"
    )]
    TypeNotEnabled {
        /// Which call.
        call: Call,
    },
    /// 400: the host of `apiUrl` is not in `xpack.actions.allowedHosts`.
    #[error(
        "{call}: Kibana may not call the connector's host; add it to `xpack.actions.allowedHosts` in kibana.yml"
    )]
    HostNotAllowed {
        /// Which call.
        call: Call,
    },
    /// 400 or 413: Kibana refused the definition.
    #[error("{call}: {} refused the definition: {problem}", call.service)]
    Rejected {
        /// Which call.
        call: Call,
        /// Its words where they are about config or name, else ours.
        problem: String,
    },
    /// 400: the provider refused the call that Elasticsearch makes before it stores an inference endpoint. Nothing was
    /// stored.
    #[error(
        "{call}: the provider refused the call by which Elasticsearch tries an inference endpoint before it stores it ({})",
        status.map_or("no answer".to_owned(), |status| status.to_string())
    )]
    ProviderRefused {
        /// Which call.
        call: Call,
        /// The provider's HTTP status, where there is one.
        status: Option<u16>,
        /// What it means, told by status and text; the text may repeat a key and is not kept.
        class: FailureClass,
    },
    /// 400: the connector is preconfigured in kibana.yml or belongs to Kibana itself.
    #[error(
        "{call}: this connector is kept in kibana.yml or by Kibana itself and cannot be changed through its API"
    )]
    NotOurs {
        /// Which call.
        call: Call,
    },
    /// 409: the id exists (perhaps in another space), or somebody wrote at the same moment.
    #[error("{call}: somebody else created or changed this connector")]
    Conflict {
        /// Which call.
        call: Call,
    },
    /// 403 or 409: pipelines or fields of Elasticsearch use the inference endpoint.
    #[error(
        "{call}: ingest pipelines or `semantic_text` fields of Elasticsearch still use this inference endpoint; change them first"
    )]
    InUse {
        /// Which call.
        call: Call,
    },
    /// 404 for a connector that was there: somebody deleted it.
    #[error("{call}: the connector is gone; somebody deleted it")]
    Gone {
        /// Which call.
        call: Call,
    },
    /// 404 for the route itself.
    #[error(
        "{call}: nothing is at this address (404); check {} with its path prefix, {}",
        call.service.url_setting(),
        call.service.elsewhere()
    )]
    NoSuchRoute {
        /// Which call.
        call: Call,
    },
    /// 500 on a connector route of a Kibana without an encryption key.
    #[error(
        "{call}: Kibana has no encryption key for secrets; set `xpack.encryptedSavedObjects.encryptionKey` in kibana.yml"
    )]
    NoEncryptionKey {
        /// Which call.
        call: Call,
    },
    /// 500 on a connector route, and Kibana does not tell whether it has its encryption key, or it has one.
    #[error(
        "{call}: Kibana failed (500), most likely because it cannot decrypt the connector's secrets; check that `xpack.encryptedSavedObjects.encryptionKey` is set, unchanged, and the same on all instances"
    )]
    Undecryptable {
        /// Which call.
        call: Call,
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
            | Self::ListTooLarge { .. }
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
            Self::ProviderRefused { class, .. } => *class,
            Self::Licence { .. } => FailureClass::Licence,
            Self::HostNotAllowed { .. } => FailureClass::Egress,
            Self::TypeNotEnabled { .. } | Self::Rejected { .. } => FailureClass::Rejected,
            Self::NotOurs { .. }
            | Self::Conflict { .. }
            | Self::InUse { .. }
            | Self::Gone { .. } => FailureClass::Conflict,
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
            Self::ProviderRefused { class, .. } => may_pass(*class),
            Self::Settings { .. }
            | Self::Tls { .. }
            | Self::TooLarge { .. }
            | Self::ListTooLarge { .. }
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
            | Self::InUse { .. }
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

/// True where a provider may think better of it by itself.
fn may_pass(class: FailureClass) -> bool {
    matches!(
        class,
        FailureClass::RateLimit
            | FailureClass::Network
            | FailureClass::Provider
            | FailureClass::Timeout
    )
}
