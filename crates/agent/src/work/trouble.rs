//! What a failed call means: what to say, and whether the same may succeed soon.

use std::time::Duration;

use keyfleet_core::binding::Failure;
use keyfleet_core::failure::FailureClass;
use keyfleet_kibana::Error;
use keyfleet_seal::scrub;

/// Longest text about a failure, in characters: enough for a person, and a report stays small.
const TEXT_CHARS_MAX: usize = 600;

/// A step that failed, and what to make of it.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) failure: Failure,
    /// The same may succeed soon.
    pub(crate) retryable: bool,
    /// Kibana asked to be left alone for so long.
    pub(crate) retry_after: Option<Duration>,
    /// Nothing was written for certain.
    pub(crate) refused: bool,
    /// Kibana cannot read the connector's secrets: only a write can repair that.
    pub(crate) is_unreadable: bool,
}

impl Trouble {
    pub(crate) fn new(class: FailureClass, text: &str, retryable: bool) -> Self {
        Self {
            failure: failure(class, text),
            retryable,
            retry_after: None,
            refused: true,
            is_unreadable: false,
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self {
            failure: failure(error.class(), &error.to_string()),
            retryable: error.is_retryable(),
            retry_after: error.retry_after(),
            refused: is_refusal(&error),
            is_unreadable: matches!(error, Error::Undecryptable { .. }),
        }
    }
}

/// A failure whose text is scrubbed and short. Every text that leaves this module goes through here.
pub(crate) fn failure(class: FailureClass, text: &str) -> Failure {
    Failure {
        class,
        text: scrub(text).chars().take(TEXT_CHARS_MAX).collect(),
    }
}

/// True where Kibana did not carry the call out. After any other error of a write nobody knows.
fn is_refusal(error: &Error) -> bool {
    match error {
        Error::Settings { .. }
        | Error::Unreachable { .. }
        | Error::Proxy { .. }
        | Error::Tls { .. }
        | Error::Redirected { .. }
        | Error::TooManyRequests { .. }
        | Error::Unauthorized { .. }
        | Error::Redacted { .. }
        | Error::Forbidden { .. }
        | Error::Licence { .. }
        | Error::TypeNotEnabled { .. }
        | Error::HostNotAllowed { .. }
        | Error::Rejected { .. }
        | Error::NotOurs { .. }
        | Error::InUse { .. }
        | Error::Conflict { .. }
        | Error::Gone { .. }
        | Error::NoSuchRoute { .. } => true,
        // Where the provider said nothing, Elasticsearch itself may have been too slow to tell.
        Error::ProviderRefused { status, .. } => status.is_some(),
        Error::Timeout { .. }
        | Error::Truncated { .. }
        | Error::TooLarge { .. }
        | Error::ListTooLarge { .. }
        | Error::NotJson { .. }
        | Error::Unexpected { .. }
        | Error::NotReady { .. }
        | Error::ServerError { .. }
        | Error::NoEncryptionKey { .. }
        | Error::Undecryptable { .. } => false,
    }
}

/// True where trying again may help without anybody doing anything, judged by the provider's refusal alone.
pub(crate) fn is_transient(class: FailureClass) -> bool {
    match class {
        FailureClass::RateLimit
        | FailureClass::Network
        | FailureClass::Provider
        | FailureClass::KibanaDown
        | FailureClass::Timeout => true,
        FailureClass::Auth
        | FailureClass::Egress
        | FailureClass::Quota
        | FailureClass::Model
        | FailureClass::Licence
        | FailureClass::KibanaAuth
        | FailureClass::Rejected
        | FailureClass::Conflict
        | FailureClass::Encryption
        | FailureClass::Unreachable
        | FailureClass::Agent => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyfleet_kibana::{Call, Service};

    #[test]
    fn only_an_answer_of_the_provider_tells_that_nothing_was_stored() {
        for (status, refused) in [(Some(401), true), (None, false)] {
            let error = Error::ProviderRefused {
                call: Call {
                    service: Service::Elasticsearch,
                    line: "PUT /x".to_owned(),
                },
                status,
                class: FailureClass::Timeout,
            };
            assert_eq!(Trouble::from(error).refused, refused, "{status:?}");
        }
    }
}
