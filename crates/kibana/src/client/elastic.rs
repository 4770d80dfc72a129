//! What a refusal of Elasticsearch means.
//!
//! Elasticsearch passes a provider's refusal on with the provider's own status, so that a 401 may mean the agent's key
//! or the provider's; only the text tells them apart (Elasticsearch, `BaseResponseHandler`).

use keyfleet_core::failure::{FailureClass, classify_provider};
use serde::Deserialize;

use super::{Answer, Call};
use crate::api::events::{self, Event};
use crate::error::Error;
use crate::text::one_line;

/// The most of Elasticsearch's words that is kept.
const TEXT_CHARS_MAX: usize = 300;
/// In every text about a call to a provider: "… for request from inference entity id [x] status [401]. Error message …".
const PROVIDER_WORDS: [&str; 3] = [
    "inference entity id [",
    "inference id [",
    "validation call to service",
];
/// The type of an error where a provider took too long.
const TIMEOUT: &str = "timeout_exception";

/// The body of a refusal: `{"error":{"type":"…","reason":"…","caused_by":{…}},"status":400}`. A chat completion says
/// `message` for `reason`, an unknown route has a text for `error`.
#[derive(Deserialize)]
struct Body {
    error: Cause,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Cause {
    Told {
        #[serde(default, rename = "type")]
        kind: String,
        #[serde(default, alias = "message")]
        reason: Option<String>,
        caused_by: Option<Box<Cause>>,
    },
    Text(String),
}

/// What a refusal says, over all its causes.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Types of the errors, each in `[ ]`.
    kinds: String,
    /// **May repeat a key.**
    pub(crate) text: String,
    is_object: bool,
}

impl Told {
    /// Reads JSON, whole or as the data of an event.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let body: Body = match serde_json::from_slice(body) {
            Ok(body) => body,
            Err(_) => match events::first(body)? {
                Event::Message(data) | Event::Error(data) => serde_json::from_str(&data).ok()?,
                Event::End => return None,
            },
        };
        let mut told = Self::default();
        told.add(&body.error);
        Some(told)
    }

    fn add(&mut self, cause: &Cause) {
        let (reason, inner) = match cause {
            Cause::Told {
                kind,
                reason,
                caused_by,
            } => {
                self.is_object = true;
                self.kinds += &format!("[{kind}]");
                (reason.as_deref().unwrap_or_default(), caused_by.as_deref())
            }
            Cause::Text(text) => (text.as_str(), None),
        };
        if !self.text.is_empty() {
            self.text += " ";
        }
        self.text += reason;
        if let Some(inner) = inner {
            self.add(inner);
        }
    }

    /// True where Elasticsearch did call the provider, or tried to.
    pub(crate) fn is_about_provider(&self) -> bool {
        self.is_timeout() || PROVIDER_WORDS.iter().any(|words| self.text.contains(words))
    }

    /// The provider's status, where it answered.
    pub(crate) fn provider_status(&self) -> Option<u16> {
        let (_, rest) = self.text.split_once(" status [")?;
        let (digits, _) = rest.split_once(']')?;
        digits.parse().ok()
    }

    fn is_timeout(&self) -> bool {
        self.kinds.contains(&format!("[{TIMEOUT}]"))
    }

    fn class(&self) -> FailureClass {
        match self.provider_status() {
            None if self.is_timeout() => FailureClass::Timeout,
            status => classify_provider(status, None, None, &self.text),
        }
    }
}

impl Answer {
    /// How a live call failed that Elasticsearch did make: the provider's refusal, or an answer of its that
    /// Elasticsearch could not read, which it calls a failure of its own.
    pub(crate) fn run_failure(&self) -> Option<Told> {
        let told = Told::read(&self.body).filter(|_| !self.is_success())?;
        let is_unread = self.status == 500 && told.is_object;
        (is_unread || told.is_about_provider()).then_some(told)
    }

    /// The error that this answer (not 2xx) stands for.
    pub(super) fn elastic_refusal(self) -> Error {
        let told = Told::read(&self.body);
        let Self {
            call,
            status,
            retry_after,
            ..
        } = self;
        let found = told.unwrap_or_default();
        let is_empty = found.kinds.is_empty() && found.text.is_empty();
        match status {
            300..400 => Error::Redirected { call, status },
            _ if found.is_about_provider() => Error::ProviderRefused {
                call,
                status: found.provider_status(),
                class: found.class(),
            },
            401 => Error::Unauthorized { call },
            429 => Error::TooManyRequests { call, retry_after },
            502..=504 => Error::NotReady {
                call,
                status,
                retry_after,
            },
            _ if is_empty => Error::NotJson { call, status },
            400 => bad_request(call, &found),
            403 => forbidden(call, &found.text),
            404 if found.is_object => Error::Gone { call },
            404 | 405 => Error::NoSuchRoute { call },
            409 if is_in_use(&found.text) => Error::InUse { call },
            409 => Error::Conflict { call },
            413 => Error::Rejected {
                call,
                problem: "it is larger than `http.max_content_length`".to_owned(),
            },
            500.. => Error::ServerError { call, status },
            _ => Error::Unexpected {
                call,
                problem: format!("the answer has the status {status}"),
            },
        }
    }
}

fn bad_request(call: Call, told: &Told) -> Error {
    let text = told.text.as_str();
    let names_task = text.contains("ask type") || text.contains("task_type");
    let other_task = names_task && (text.contains("does not match") || text.contains("must match"));
    if told.kinds.contains("[resource_already_exists_exception]") || other_task {
        Error::Conflict { call }
    } else if text.starts_with("no handler found for uri") {
        Error::NoSuchRoute { call }
    } else {
        Error::Rejected {
            call,
            problem: safe_text(text),
        }
    }
}

/// A licence that is too small is told by a text: "current license is non-compliant for [inference]".
fn forbidden(call: Call, text: &str) -> Error {
    if text.contains("license is non-compliant") {
        Error::Licence { call }
    } else if is_in_use(text) {
        Error::InUse { call }
    } else {
        Error::Forbidden { call }
    }
}

/// Told with 403 up to 8.14, with 409 since.
fn is_in_use(text: &str) -> bool {
    text.contains("referenced by pipelines") || text.contains("being used in the mapping")
}

/// Elasticsearch's words where they name settings without their values; all others are dropped.
fn safe_text(text: &str) -> String {
    let shows_value = text.contains('{') || text.contains("value [");
    let names_settings = text.starts_with("Validation Failed: ") && !shows_value;
    let names_service = text.starts_with("Unknown service [")
        || (text.starts_with("The [") && text.contains("service does not support task type"));
    if names_settings || names_service {
        one_line(text, TEXT_CHARS_MAX)
    } else {
        "its reason is not shown because it could repeat a secret; Elasticsearch's log has it"
            .to_owned()
    }
}

#[cfg(test)]
mod tests;
