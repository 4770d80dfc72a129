//! Why a call of the Admin API failed, and whether it was done all the same.

use std::time::Duration;

use crate::Refusal;

/// Why a call failed. No error holds a text of an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The admin key cannot be sent at all.
    #[error("the admin key has characters that no HTTP header can carry")]
    Key,
    /// An id that cannot be part of an address.
    #[error("an id may have only letters, digits, `_` and `-`; check the project's id")]
    Id,
    /// The provider, or something on the way, refused.
    #[error("the Admin API refused: {0}")]
    Refused(Refusal),
    /// The time limit passed, perhaps after the request had arrived.
    #[error("the Admin API did not answer within {limit:?}")]
    Timeout {
        /// The limit of one request.
        limit: Duration,
    },
    /// No connection was made.
    #[error("cannot reach the Admin API")]
    Unreachable {
        /// What the system says.
        source: reqwest::Error,
    },
    /// The connection broke, perhaps after the request had arrived.
    #[error("the connection to the Admin API broke before its answer was whole")]
    Broken {
        /// What the system says.
        source: reqwest::Error,
    },
    /// Success by its status, but not what the provider sends.
    #[error("the answer is not the Admin API's (status {status}); is there a proxy on the way?")]
    BadAnswer {
        /// HTTP status.
        status: u16,
    },
    /// A list without an end.
    #[error("the Admin API lists more than {limit} objects; delete old service accounts first")]
    TooMany {
        /// The most that is read.
        limit: usize,
    },
}

/// Whether a failed mutation may have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was changed.
    NotDone,
    /// It may have been done: look before anything is tried again.
    Unknown,
}

impl Error {
    /// Whether the mutation may have happened. A refusal counts as final only with a 4xx status other than 408 and
    /// 409; whatever is not known to be harmless is [`Outcome::Unknown`].
    pub fn outcome(&self) -> Outcome {
        let is_not_done = match self {
            Self::Key | Self::Id | Self::Unreachable { .. } => true,
            Self::Refused(refusal) => {
                (400..500).contains(&refusal.status) && !matches!(refusal.status, 408 | 409)
            }
            Self::Timeout { .. }
            | Self::Broken { .. }
            | Self::BadAnswer { .. }
            | Self::TooMany { .. } => false,
        };
        if is_not_done {
            Outcome::NotDone
        } else {
            Outcome::Unknown
        }
    }

    /// How long the provider wants to be left alone, where it says so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            Self::Key
            | Self::Id
            | Self::Timeout { .. }
            | Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::BadAnswer { .. }
            | Self::TooMany { .. } => None,
        }
    }
}
