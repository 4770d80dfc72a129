//! What can go wrong with Vault, one sentence each: what, where, what to do.

use std::path::PathBuf;
use std::time::Duration;

use keyfleet_core::id::KeyVersion;

/// What can go wrong with Vault. No variant carries text of an answer, which may hold a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that cannot work.
    #[error("the settings for Vault cannot work: {what}")]
    Settings {
        /// The rule that is broken.
        what: String,
    },
    /// A file with a credential or an authority cannot be read.
    #[error("cannot read {} for Vault", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file with a credential holds none.
    #[error("{} must hold one credential for Vault in visible ASCII and nothing else", path.display())]
    Credential {
        /// The file.
        path: PathBuf,
    },
    /// The login was refused.
    #[error(
        "Vault refused the login with {with}: the credential is expired, revoked or wrong, or the method is not mounted there"
    )]
    LoginRefused {
        /// Which credential.
        with: String,
    },
    /// 403 with a living token.
    #[error("Vault denies access to {at}: the policy of our login lacks `read` on it")]
    Denied {
        /// API path.
        at: String,
    },
    /// 503.
    #[error("Vault is sealed; an operator must unseal it")]
    Sealed,
    /// 501.
    #[error("Vault is not initialised")]
    Uninitialised,
    /// 412, a bare 429, or an answer older than one seen before.
    #[error("the answering Vault standby has not caught up yet")]
    Stale,
    /// 429.
    #[error("Vault limits our rate; raise the quota or slow down")]
    RateLimited {
        /// What its `Retry-After` says.
        retry_after: Option<Duration>,
    },
    /// No such secret.
    #[error("Vault has no secret at {at}")]
    MissingPath {
        /// `mount/path`.
        at: String,
    },
    /// No such version.
    #[error("Vault has no {version} of the secret at {at}: it was pruned or never written")]
    MissingVersion {
        /// `mount/path`.
        at: String,
        /// The version.
        version: KeyVersion,
    },
    /// The secret has no such text field.
    #[error("the secret at {at} has no text field of that name in {version}")]
    MissingField {
        /// `mount/path#field`.
        at: String,
        /// The version that was read.
        version: KeyVersion,
    },
    /// The version is deleted, but can be brought back.
    #[error("{version} of the secret at {at} is deleted; `undelete` brings it back")]
    Deleted {
        /// `mount/path`.
        at: String,
        /// The version.
        version: KeyVersion,
    },
    /// The version is gone for good.
    #[error("{version} of the secret at {at} is destroyed")]
    Destroyed {
        /// `mount/path`.
        at: String,
        /// The version.
        version: KeyVersion,
    },
    /// The mount is something else than KV v2.
    #[error("the mount `{mount}` is {found}, but keys need a KV version 2 engine")]
    WrongEngine {
        /// The mount.
        mount: String,
        /// What it is.
        found: String,
    },
    /// No such namespace.
    #[error("Vault has no namespace of the configured name")]
    MissingNamespace,
    /// No such mount.
    #[error("nothing is mounted in Vault for {at}")]
    MissingMount {
        /// API path.
        at: String,
    },
    /// Mount, path or field cannot be one.
    #[error("`{at}` cannot be the location of a key: {rule}")]
    Location {
        /// `mount/path#field`.
        at: String,
        /// The rule that is broken.
        rule: &'static str,
    },
    /// The value cannot be a key.
    #[error("{version} of {at} cannot be a key: {fault}")]
    Value {
        /// `mount/path#field`.
        at: String,
        /// The version.
        version: KeyVersion,
        /// What is wrong with it.
        fault: ValueFault,
    },
    /// The TLS handshake failed.
    #[error("no trusted TLS connection to Vault ({fault}); check the address and the CA file")]
    Tls {
        /// What rustls says.
        fault: String,
    },
    /// The time limit passed.
    #[error("Vault did not answer within {limit:?}")]
    Timeout {
        /// The limit of one request.
        limit: Duration,
    },
    /// No connection, or it broke.
    #[error("cannot reach Vault")]
    Unreachable {
        /// What the system says.
        source: reqwest::Error,
    },
    /// 3xx. We never follow: the token would go along.
    #[error(
        "Vault sends us to {to}; set that address in the configuration, redirects are never followed"
    )]
    Redirected {
        /// Host and port of the `Location`.
        to: String,
    },
    /// The answer is larger than any secret.
    #[error("the answer for {at} is larger than {limit} bytes")]
    TooLarge {
        /// API path.
        at: String,
        /// The limit.
        limit: usize,
    },
    /// The answer is no JSON, or not of the expected shape.
    #[error(
        "the answer for {at} is not what Vault sends (status {status}); is there something between us and Vault?"
    )]
    BadAnswer {
        /// API path.
        at: String,
        /// HTTP status.
        status: u16,
    },
    /// Any other status.
    #[error("Vault answered {status} for {at}")]
    Status {
        /// API path.
        at: String,
        /// HTTP status.
        status: u16,
    },
    /// The client could not be built, or a request not be formed.
    #[error("cannot form the request for {at}")]
    Request {
        /// API path.
        at: String,
    },
}

/// What makes a value impossible as a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueFault {
    /// Nothing in it.
    #[error("it is empty")]
    Empty,
    /// Whitespace or a control character, beyond one newline at the end.
    #[error("it has a space, a newline or a control character in it")]
    Whitespace,
    /// A character that no HTTP header can carry.
    #[error("it has a character outside ASCII")]
    NotAscii,
    /// An organisation's admin key where a connector's key belongs.
    #[error("it is an admin key (sk-admin-…), which must never reach a Kibana")]
    AdminKey,
}

impl Error {
    /// Whether the same call may succeed later without anybody changing anything in Vault or in the settings.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Sealed
            | Self::Uninitialised
            | Self::Stale
            | Self::RateLimited { .. }
            | Self::Timeout { .. }
            | Self::Unreachable { .. } => true,
            Self::Status { status, .. } | Self::BadAnswer { status, .. } => *status >= 500,
            Self::Settings { .. }
            | Self::File { .. }
            | Self::Credential { .. }
            | Self::LoginRefused { .. }
            | Self::Denied { .. }
            | Self::MissingPath { .. }
            | Self::MissingVersion { .. }
            | Self::MissingField { .. }
            | Self::Deleted { .. }
            | Self::Destroyed { .. }
            | Self::WrongEngine { .. }
            | Self::MissingNamespace
            | Self::MissingMount { .. }
            | Self::Location { .. }
            | Self::Value { .. }
            | Self::Tls { .. }
            | Self::Redirected { .. }
            | Self::TooLarge { .. }
            | Self::Request { .. } => false,
        }
    }
}
