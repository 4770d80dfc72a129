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
    /// The mark of a used wrapping token cannot be written, so the token was not used.
    #[error("cannot note in {} that the wrapping token is used", path.display())]
    NotNoted {
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
    /// The token of a token file is dead, also after the file was read again.
    #[error(
        "the token in {} is expired or revoked: let whatever writes that file put a fresh one there",
        path.display()
    )]
    TokenExpired {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else has or may have the secret id that was meant for us.
    #[error(
        "TAMPER ALARM: the wrapping token in {} {what}: treat the secret id as stolen: destroy the secret ids of the role, look into Vault's audit log for who unwrapped it, then put a newly wrapped one there",
        path.display()
    )]
    Tampered {
        /// The file with the wrapping token.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The secret id came wrapped, is used up, and cannot log in again.
    #[error(
        "the wrapped secret id in {} is used up and cannot log in again: put a newly wrapped one there (`bao write -wrap-ttl=10m -force -field=wrapping_token {made_by}`)",
        path.display()
    )]
    SecretIdSpent {
        /// The file with the wrapping token.
        path: PathBuf,
        /// The API path that makes secret ids.
        made_by: String,
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
    #[error("Vault is not initialised; an operator must initialise it")]
    Uninitialised,
    /// A standby that finds no active node: an election is under way, or too many nodes are gone.
    #[error(
        "Vault's standby finds no active node: a new one is being elected, or too many nodes are down"
    )]
    NoLeader,
    /// 412, a bare 429, or an answer older than one seen before.
    #[error("the answering Vault standby has not caught up yet")]
    Stale,
    /// 429.
    #[error(
        "Vault limits our rate{}: raise its quota, or poll less often",
        after(retry_after)
    )]
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
    #[error("{}the secret at {at} has no text field of that name", of(version))]
    MissingField {
        /// `mount/path#field`.
        at: String,
        /// The version that was read; KV version 1 has none.
        version: Option<KeyVersion>,
    },
    /// The secret has no such text field for a part of the key.
    #[error(
        "{}the secret at {at} has no text field `{field}`, which shall hold the part `{part}` of the key",
        of(version)
    )]
    MissingPart {
        /// `mount/path`.
        at: String,
        /// The version that was read; KV version 1 has none.
        version: Option<KeyVersion>,
        /// Name of the part.
        part: String,
        /// The field that shall hold it.
        field: String,
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
    /// The mount is something else than a KV engine.
    #[error("the mount `{mount}` is of type `{found}`, but keys need a KV engine")]
    WrongEngine {
        /// The mount.
        mount: String,
        /// What it is.
        found: String,
    },
    /// The path of the API where the path of the secret belongs.
    #[error(
        "Vault has no secret at {at}, and its path begins with `{with}/`: the API of KV version 2 adds that by itself, leave it away"
    )]
    ApiPath {
        /// `mount/path`.
        at: String,
        /// `data` or `metadata`.
        with: &'static str,
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
    #[error("{}{at} cannot be a key: {fault}", of(version))]
    Value {
        /// `mount/path#field`.
        at: String,
        /// The version; KV version 1 has none.
        version: Option<KeyVersion>,
        /// What is wrong with it.
        fault: ValueFault,
    },
    /// The value of a field cannot be a part of a key.
    #[error("{}{at} cannot be the part `{part}` of a key: {fault}", of(version))]
    Part {
        /// `mount/path#field`.
        at: String,
        /// The version; KV version 1 has none.
        version: Option<KeyVersion>,
        /// Name of the part.
        part: String,
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
    /// No connection: nothing was sent.
    #[error("cannot reach Vault at {to} ({fault})")]
    Unreachable {
        /// Host and port.
        to: String,
        /// What the system says.
        fault: String,
    },
    /// The connection broke after the request was sent.
    #[error("the connection to Vault at {to} broke ({fault})")]
    Broken {
        /// Host and port.
        to: String,
        /// What the system says.
        fault: String,
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
    /// A control character in a part of a key, where lines may be.
    #[error("it has a control character in it")]
    Control,
    /// More than any set of certificates.
    #[error("it is larger than 64 KiB")]
    TooLarge,
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
            | Self::NoLeader
            | Self::Stale
            | Self::RateLimited { .. }
            | Self::Timeout { .. }
            | Self::Unreachable { .. }
            | Self::Broken { .. } => true,
            Self::Status { status, .. } | Self::BadAnswer { status, .. } => *status >= 500,
            Self::Settings { .. }
            | Self::File { .. }
            | Self::NotNoted { .. }
            | Self::Credential { .. }
            | Self::LoginRefused { .. }
            | Self::TokenExpired { .. }
            | Self::Tampered { .. }
            | Self::SecretIdSpent { .. }
            | Self::Denied { .. }
            | Self::MissingPath { .. }
            | Self::MissingVersion { .. }
            | Self::MissingField { .. }
            | Self::MissingPart { .. }
            | Self::Deleted { .. }
            | Self::Destroyed { .. }
            | Self::WrongEngine { .. }
            | Self::ApiPath { .. }
            | Self::MissingNamespace
            | Self::MissingMount { .. }
            | Self::Location { .. }
            | Self::Value { .. }
            | Self::Part { .. }
            | Self::Tls { .. }
            | Self::Redirected { .. }
            | Self::TooLarge { .. }
            | Self::Request { .. } => false,
        }
    }
    /// Whether another node of the cluster may do better.
    pub(crate) fn is_about_the_node(&self) -> bool {
        self.was_not_taken() || matches!(self, Self::Timeout { .. } | Self::Broken { .. })
    }

    /// Whether the node surely did nothing, so that the same request may go to another node at once.
    pub(crate) fn was_not_taken(&self) -> bool {
        matches!(
            self,
            Self::Sealed
                | Self::Uninitialised
                | Self::NoLeader
                | Self::Unreachable { .. }
                | Self::Tls { .. }
        )
    }
}

/// `v3 of `, or nothing in an engine without versions.
fn of(version: &Option<KeyVersion>) -> String {
    version.map_or_else(String::new, |version| format!("{version} of "))
}

fn after(retry_after: &Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |after| format!(" for {} s", after.as_secs()))
}
