//! What a use case answers when it cannot do what was asked, and its one mapping to gRPC.

use keyfleet_core::rollout::IllegalTransition;
use keyfleet_proto::Invalid;
use keyfleet_telemetry::error_chain;

use crate::manifest::InvalidManifest;

/// Why a use case did not do what was asked. The texts are for the caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A field of the message cannot be used.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] InvalidManifest),
    /// The caller did not say who it is, or not convincingly.
    #[error("{0}")]
    Unauthenticated(String),
    /// The caller may not do that.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such thing.
    #[error("there is no {kind} {name:?}")]
    NotFound {
        /// What kind of thing.
        kind: &'static str,
        /// What was asked for.
        name: String,
    },
    /// It is there already.
    #[error("{0}")]
    AlreadyExists(String),
    /// Something else must be done first.
    #[error("{0}")]
    Precondition(String),
    /// The rollout does not take that now.
    #[error(transparent)]
    IllegalTransition(#[from] IllegalTransition),
    /// Something needed does not answer; try again.
    #[error("{0}")]
    Unavailable(String),
    /// A bug or a broken machine: the log has the cause under this id.
    #[error("internal error {id}: the log of keyfleet-control says more")]
    Internal {
        /// Finds the log line.
        id: uuid::Uuid,
    },
}

impl Error {
    /// Logs the cause and hides it from the caller.
    pub(crate) fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        let id = uuid::Uuid::new_v4();
        tracing::error!(error.id = %id, error = %error_chain(cause), "internal error");
        Self::Internal { id }
    }
}

impl From<keyfleet_store::Error> for Error {
    fn from(err: keyfleet_store::Error) -> Self {
        match err {
            keyfleet_store::Error::Closed | keyfleet_store::Error::GivenUp => {
                Self::Unavailable(err.to_string())
            }
            keyfleet_store::Error::Disk { trouble, .. } => {
                tracing::error!(error = %error_chain(&err), "the disk of the database fails");
                Self::Unavailable(trouble.to_string())
            }
            keyfleet_store::Error::Locked { .. }
            | keyfleet_store::Error::Lock { .. }
            | keyfleet_store::Error::TooNew { .. }
            | keyfleet_store::Error::Damaged { .. }
            | keyfleet_store::Error::File { .. }
            | keyfleet_store::Error::Exists { .. }
            | keyfleet_store::Error::Sqlite(_)
            | keyfleet_store::Error::Corrupt { .. } => Self::internal(&err),
        }
    }
}

impl From<Error> for tonic::Status {
    fn from(err: Error) -> Self {
        let text = err.to_string();
        match err {
            Error::Invalid(_) | Error::Manifest(_) => Self::invalid_argument(text),
            Error::Unauthenticated(_) => Self::unauthenticated(text),
            Error::Forbidden(_) => Self::permission_denied(text),
            Error::NotFound { .. } => Self::not_found(text),
            Error::AlreadyExists(_) => Self::already_exists(text),
            Error::Precondition(_) | Error::IllegalTransition(_) => Self::failed_precondition(text),
            Error::Unavailable(_) => Self::unavailable(text),
            Error::Internal { .. } => Self::internal(text),
        }
    }
}
