//! What the outcome of a live call means, for connectors that speak OpenAI's chat completions.

use keyfleet_core::failure::{FailureClass, classify_provider, is_tiny_limit_refusal};

use serde_json::{Value, json};

use super::ProbeResult;
use crate::api::Execution;
use crate::text::one_line;

/// The most of a message that is kept.
const TEXT_CHARS_MAX: usize = 500;

/// Enough for an answer of every model without reasoning; a model with reasoning refuses in a way that still proves
/// the key.
const PROBE_TOKENS: u32 = 16;
/// The parameter that limits an answer; newer models refuse [`OLD_LIMIT`].
pub(super) const LIMIT: &str = "max_completion_tokens";
/// What it was called before; servers that are only compatible with OpenAI, and old API versions of Azure, know this
/// one alone.
pub(super) const OLD_LIMIT: &str = "max_tokens";

/// The `params` of a tiny live call.
pub(super) fn params(limit: &str, model: Option<String>) -> Value {
    let mut body = json!({
        "messages": [{"role": "user", "content": "ping"}],
        limit: PROBE_TOKENS,
    });
    if let (Some(model), Value::Object(fields)) = (model, &mut body) {
        fields.insert("model".to_owned(), Value::String(model));
    }
    json!({"subAction": "test", "subActionParams": {"body": body.to_string()}})
}

/// True where the server may only not know [`LIMIT`]: it says so, or it is one of many (`is_any_server`) and refused
/// the request without blaming key or model.
pub(super) fn refuses_limit(execution: &Execution, is_any_server: bool) -> bool {
    let text = &execution.message;
    let is_refused = !execution.ok && matches!(execution.status_code, Some(400 | 422));
    let is_tiny = is_tiny_limit_refusal(execution.status_code, text);
    let may_be =
        text.contains(LIMIT) || (is_any_server && class(execution) == FailureClass::Provider);
    is_refused && !is_tiny && may_be
}

/// Reads the outcome. Kibana's `retry` and `errorSource` are not used: a wrong key has `retry: true` too.
pub(super) fn read(execution: &Execution) -> ProbeResult {
    if execution.ok {
        return ProbeResult::Proven { note: None };
    }
    if is_tiny_limit_refusal(execution.status_code, &execution.message) {
        let note = "the model wanted more tokens than the probe allows; it accepted key and model";
        return ProbeResult::Proven {
            note: Some(note.to_owned()),
        };
    }
    ProbeResult::Failed {
        class: class(execution),
        text: one_line(&execution.message, TEXT_CHARS_MAX),
    }
}

fn class(execution: &Execution) -> FailureClass {
    match execution.status_code {
        Some(status) => classify_provider(Some(status), None, None, &execution.message),
        None => class_without_status(&execution.message.to_ascii_lowercase()),
    }
}

/// The provider gave no status: either it was not reached, or Kibana stopped before. `text` is in lower case.
fn class_without_status(text: &str) -> FailureClass {
    let has = |part: &str| text.contains(part);
    if has("timeout of ") || has("econnaborted") {
        FailureClass::Timeout
    } else if has("xpack.actions.allowedhosts") {
        FailureClass::Egress
    } else if has("status code: undefined") {
        FailureClass::Network
    } else if has(" type secrets") || has("decrypt") || has("missing encryption key") {
        FailureClass::Encryption
    } else if has(" type config") {
        FailureClass::Rejected
    } else if has("action params") || has("sub action") {
        // This Kibana does not know our probe: neither definition nor key is to blame.
        FailureClass::Agent
    } else if has(" license ") {
        FailureClass::Licence
    } else {
        FailureClass::Provider
    }
}
