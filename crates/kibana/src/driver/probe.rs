//! What the outcome of a live call means, for connectors that speak OpenAI's chat completions.

use keyfleet_core::failure::{FailureClass, classify_provider, is_tiny_limit_refusal};

use super::ProbeResult;
use crate::api::Execution;

/// The most of a message that is kept.
const TEXT_CHARS_MAX: usize = 500;

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
    let text = execution
        .message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(TEXT_CHARS_MAX);
    ProbeResult::Failed {
        class: class(execution),
        text: text.collect(),
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
