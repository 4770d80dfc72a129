//! A provider's refusal, without its text.

use std::fmt;
use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;
use keyfleet_core::failure::{FailureClass, classify_provider};
use serde_json::Value;

/// Longest code, type or request id that is kept; real ones are far shorter.
const WORD_LIMIT: usize = 80;

/// The most that the provider's wish to be left alone is honoured: a broken header must not silence us for ever.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// What is kept of an answer that is no success. Every part is a short word of the provider's own vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What it means for the connector.
    pub class: FailureClass,
    /// HTTP status.
    pub status: u16,
    /// `error.type`, for example `invalid_request_error`.
    pub kind: Option<String>,
    /// `error.code`, for example `invalid_api_key`.
    pub code: Option<String>,
    /// `x-request-id`, for the provider's support.
    pub request_id: Option<String>,
    /// How long the provider wants to be left alone, at most ten minutes.
    pub retry_after: Option<Duration>,
}

/// A refusal together with what its text said, so far as it decides the next step.
pub(crate) struct Read {
    pub(crate) refusal: Refusal,
    /// The server does not know the parameter `max_completion_tokens`.
    pub(crate) rejects_parameter: bool,
    /// The key and the model work; only our limit was too small for a model that reasons first.
    pub(crate) is_tiny_limit: bool,
}

/// Reads an answer that is no success. OpenAI's form is `{"error": {"message", "type", "code", "param"}}`; servers
/// that are compatible with it also send `{"error": "text"}` or the parts without the `error` around them.
pub(crate) fn read(status: u16, headers: &HeaderMap, body: &[u8]) -> Read {
    let json = serde_json::from_slice::<Value>(body)
        .ok()
        .filter(Value::is_object);
    let detail = json.as_ref().map(|json| json.get("error").unwrap_or(json));
    let part = |name: &str| detail?.get(name)?.as_str();
    let (code, kind) = (part("code"), part("type"));
    let text = part("message")
        .or_else(|| detail?.as_str())
        .unwrap_or_default();
    let mut class = classify_provider(Some(status), code, kind, text);
    if json.is_none() && matches!(class, FailureClass::Auth | FailureClass::Model) {
        // No JSON: a proxy or a gateway on the way speaks, and says nothing about the key.
        class = FailureClass::Egress;
    }
    let names_parameter =
        text.contains("max_completion_tokens") || part("param") == Some("max_completion_tokens");
    Read {
        rejects_parameter: matches!(status, 400 | 422)
            && (names_parameter || code == Some("unsupported_parameter")),
        is_tiny_limit: keyfleet_core::failure::is_tiny_limit_refusal(Some(status), text),
        refusal: Refusal {
            class,
            status,
            kind: kind.and_then(word),
            code: code.and_then(word),
            request_id: header(headers, "x-request-id"),
            retry_after: retry_after(headers),
        },
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (status {}", self.class, self.status)?;
        let named = [
            ("type", &self.kind),
            ("code", &self.code),
            ("request", &self.request_id),
        ];
        for (name, word) in named
            .into_iter()
            .filter_map(|(name, word)| Some((name, word.as_ref()?)))
        {
            write!(f, ", {name} {word}")?;
        }
        f.write_str(")")
    }
}

/// Keeps a text only if it is a word of an interface: nothing that could be a pasted key with its prefix.
pub(crate) fn word(text: &str) -> Option<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let ok = !text.is_empty()
        && text.len() <= WORD_LIMIT
        && text.chars().all(is_word)
        && !text.contains("sk-");
    ok.then(|| text.to_owned())
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    word(headers.get(name)?.to_str().ok()?)
}

/// `retry-after-ms` is finer and comes first, as in the provider's own clients.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    let asked = number("retry-after-ms")
        .map(Duration::from_millis)
        .or_else(|| number(RETRY_AFTER.as_str()).map(Duration::from_secs))?;
    Some(asked.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(status: u16, body: &str) -> FailureClass {
        read(status, &HeaderMap::new(), body.as_bytes())
            .refusal
            .class
    }

    #[test]
    fn a_page_of_a_proxy_never_blames_the_key() {
        assert_eq!(class(401, "<html>Proxy login</html>"), FailureClass::Egress);
        assert_eq!(class(404, "not here"), FailureClass::Egress);
        assert_eq!(
            class(401, r#"{"error":{"code":"invalid_api_key","message":"x"}}"#),
            FailureClass::Auth
        );
        assert_eq!(
            class(401, r#"{"error":{"code":401,"type":null}}"#),
            FailureClass::Auth
        );
    }

    #[test]
    fn no_text_of_the_answer_is_kept() {
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", "req_123".parse().unwrap());
        headers.insert("retry-after-ms", "250".parse().unwrap());
        headers.insert("retry-after", "9".parse().unwrap());
        let body = r#"{"error":{"message":"Incorrect API key provided: canary","type":"sk-canary","code":"a canary"}}"#;
        let refusal = read(401, &headers, body.as_bytes()).refusal;
        assert!(!format!("{refusal} {refusal:?}").contains("canary"));
        assert_eq!(refusal.to_string(), "AUTH (status 401, request req_123)");
        assert_eq!(refusal.retry_after, Some(Duration::from_millis(250)));
    }
}
