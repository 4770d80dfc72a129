//! What a simulator says and how it says it: plain values, turned into HTTP in `server` alone.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

/// One request, read to its end.
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Without the query.
    pub(crate) path: String,
    /// Without the question mark; empty when there is none.
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    /// `None` when the body was longer than the server takes.
    pub(crate) body: Option<Vec<u8>>,
}

impl Call {
    /// A header's value, when it is there and readable.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON, when it is JSON.
    pub(crate) fn json(&self) -> Option<Value> {
        serde_json::from_slice(self.body.as_deref()?).ok()
    }

    /// The first value of a query parameter, decoded.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }
}

/// One complete answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// A JSON answer.
    pub(crate) fn json(status: u16, value: &Value) -> Self {
        Self {
            status,
            content_type: "application/json; charset=utf-8",
            headers: Vec::new(),
            body: value.to_string().into_bytes(),
        }
    }

    /// 204: done, nothing to say.
    pub(crate) fn empty() -> Self {
        Self {
            body: Vec::new(),
            ..Self::json(204, &Value::Null)
        }
    }

    /// What a proxy or a server that still starts answers: a page.
    pub(crate) fn html(status: u16, text: &str) -> Self {
        Self {
            content_type: "text/html; charset=utf-8",
            body: format!("<!DOCTYPE html><html><body><p>{text}</p></body></html>").into_bytes(),
            ..Self::json(status, &Value::Null)
        }
    }

    /// An error of the simulator's own interface under `/_sim/`.
    pub(crate) fn sim_error(status: u16, message: &str) -> Self {
        Self::json(status, &json!({ "error": message }))
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// The standard words for a status code, as both servers print them.
pub(crate) fn reason(status: u16) -> &'static str {
    StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Unknown")
}

/// What happens on the connection.
pub(crate) enum Outcome {
    Answer(Reply),
    /// The head and half of the body, then the connection breaks.
    Half(Reply),
    /// The connection breaks without an answer.
    Close,
}

/// What an active fault does to a request.
pub(crate) enum Effect {
    None,
    Close,
    Hang,
    /// The request is carried out at once; only the answer is late, as with a server that works on after its client
    /// has gone.
    Delay(Duration),
    Reply(Reply),
    Half,
    AnswerThenClose,
}

impl Effect {
    /// Carries the fault out around the normal answer, which runs only where the fault lets it.
    pub(crate) async fn around(self, answer: impl Future<Output = Reply>) -> Outcome {
        match self {
            Self::None => Outcome::Answer(answer.await),
            Self::Close => Outcome::Close,
            Self::Hang => std::future::pending().await,
            Self::Delay(delay) => {
                let reply = answer.await;
                tokio::time::sleep(delay).await;
                Outcome::Answer(reply)
            }
            Self::Reply(reply) => Outcome::Answer(reply),
            Self::Half => Outcome::Half(answer.await),
            Self::AnswerThenClose => {
                answer.await;
                Outcome::Close
            }
        }
    }
}

/// The last four characters of a key: enough to tell keys apart, too few to use one.
pub(crate) fn tail(key: &str) -> String {
    let n_chars = key.chars().count();
    key.chars().skip(n_chars.saturating_sub(4)).collect()
}
