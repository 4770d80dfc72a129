//! Elasticsearch's error bodies.

use serde_json::{Value, json};

use super::super::provider::{TIMED_OUT, Trouble};
use crate::reply::{Reply, reason};

/// What Elasticsearch refuses with.
#[derive(Debug, Clone)]
pub(in crate::kibana) struct Refusal {
    pub(in crate::kibana) status: u16,
    kind: &'static str,
    pub(in crate::kibana) reason: String,
    caused_by: Option<Box<Refusal>>,
    /// What a provider said of itself, which a refused stream repeats.
    told: Value,
}

impl Refusal {
    pub(super) fn new(status: u16, kind: &'static str, reason: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            reason: reason.into(),
            caused_by: None,
            told: Value::Null,
        }
    }

    pub(super) fn status(status: u16, reason: impl Into<String>) -> Self {
        Self::new(status, "status_exception", reason)
    }

    pub(super) fn security(status: u16, reason: impl Into<String>) -> Self {
        Self::new(status, "security_exception", reason)
    }

    /// Settings that do not fit, counted from one.
    pub(super) fn invalid(problems: &[String]) -> Self {
        let lines: Vec<String> = problems
            .iter()
            .enumerate()
            .map(|(index, problem)| format!("{}: {problem};", index + 1))
            .collect();
        let text = format!("Validation Failed: {}", lines.join(""));
        Self::new(400, "validation_exception", text)
    }

    /// A call to the provider that failed, in a request for this endpoint.
    pub(super) fn provider(id: &str, trouble: &Trouble) -> Self {
        match trouble {
            Trouble::Answered { status, body } => {
                let words = trouble
                    .words()
                    .map(|words| format!(". Error message: [{words}]"))
                    .unwrap_or_default();
                let text = format!(
                    "{} for request from inference entity id [{id}] status [{status}]{words}",
                    beginning(*status)
                );
                Self {
                    told: body["error"].clone(),
                    ..Self::status(*status, text)
                }
            }
            Trouble::Unanswered { code, words } if *code == TIMED_OUT => Self {
                caused_by: Some(Box::new(Self::new(
                    500,
                    "socket_timeout_exception",
                    words.clone(),
                ))),
                ..Self::new(408, "timeout_exception", "Request timed out after [30s]")
            },
            Trouble::Unanswered { words, .. } => {
                let text =
                    format!("Http client failed to send request from inference entity id [{id}]");
                Self {
                    caused_by: Some(Box::new(Self::new(500, "connect_exception", words.clone()))),
                    ..Self::new(500, "exception", text)
                }
            }
        }
    }

    /// The trial call before an endpoint is stored failed.
    pub(super) fn untried(self) -> Self {
        let text = "Could not complete inference endpoint creation as validation call to service threw an exception.";
        Self {
            caused_by: Some(Box::new(self)),
            ..Self::status(400, text)
        }
    }

    /// The usual body.
    pub(super) fn reply(&self) -> Reply {
        let mut error = self.describe();
        error["root_cause"] = json!([{ "type": self.kind, "reason": self.reason }]);
        if self.reason.starts_with("current license is non-compliant") {
            error["license.expired.feature"] = Value::from("inference");
        }
        Reply::json(
            self.status,
            &json!({ "error": error, "status": self.status }),
        )
    }

    /// The same as the one event of a stream that could not begin.
    pub(in crate::kibana) fn event(&self) -> Reply {
        let name = reason(self.status).to_lowercase().replace(' ', "_");
        let code = self.told["code"].as_str().unwrap_or(&name);
        let kind = self.told["type"].as_str().unwrap_or(self.kind);
        let mut error = json!({ "code": code, "message": self.reason, "type": kind });
        if let Some(param) = self.told["param"].as_str() {
            error["param"] = Value::from(param);
        }
        events(
            self.status,
            &[("error", json!({ "error": error }).to_string())],
        )
    }

    /// As the client library of Kibana puts it in one text.
    pub(in crate::kibana) fn one_text(&self) -> String {
        let Some(cause) = &self.caused_by else {
            return format!(
                "{}\n\tRoot causes:\n\t\t{}: {}",
                self.kind, self.kind, self.reason
            );
        };
        format!(
            "{}\n\tCaused by:\n\t\t{}: {}\n\tRoot causes:\n\t\t{}: {}",
            self.kind, cause.kind, cause.reason, self.kind, self.reason
        )
    }

    fn describe(&self) -> Value {
        let mut error = json!({ "type": self.kind, "reason": self.reason });
        if let Some(cause) = &self.caused_by {
            error["caused_by"] = cause.describe();
        }
        error
    }
}

/// A stream of server-sent events, which Elasticsearch begins with a byte order mark.
pub(super) fn events(status: u16, events: &[(&str, String)]) -> Reply {
    let lines: String = events
        .iter()
        .map(|(name, data)| format!("event: {name}\ndata: {data}\n\n"))
        .collect();
    Reply {
        content_type: "text/event-stream",
        body: format!("\u{feff}{lines}").into_bytes(),
        ..Reply::json(status, &Value::Null)
    }
}

/// A path that no release, or not this one, has.
pub(super) fn no_handler(method: &str, path: &str) -> Reply {
    let text = format!("no handler found for uri [{path}] and method [{method}]");
    Reply::json(400, &json!({ "error": text }))
}

/// What the services that speak as OpenAI does make of a provider's status.
fn beginning(status: u16) -> String {
    let usage = "Token limit [unknown], remaining tokens [unknown]. Request limit [unknown], remaining requests \
                 [unknown]";
    match status {
        400 => "Received a bad request status code".to_owned(),
        401 => "Received an authentication error status code".to_owned(),
        413 => "Received a content too large status code".to_owned(),
        429 => format!("Received a rate limit status code. {usage}"),
        503 => "Received a server busy error status code".to_owned(),
        300..400 => "Unhandled redirection".to_owned(),
        500.. => "Received a server error status code".to_owned(),
        _ => "Received an unsuccessful status code".to_owned(),
    }
}
