//! Live calls of connectors that speak OpenAI's chat completions.

use keyfleet_core::connector::Probe;
use keyfleet_core::failure::{FailureClass, classify_provider, is_tiny_limit_refusal};
use serde_json::{Value, json};

use super::{TOKENS, needs_list, own_body};
use crate::api::Execution;
use crate::driver::InvalidConfig;

/// The parameter that limits an answer; newer models refuse [`OLD_LIMIT`].
pub(in crate::driver) const LIMIT: &str = "max_completion_tokens";
/// What it was called before; servers that are only compatible with OpenAI, and old API versions of Azure, know this
/// one alone.
pub(in crate::driver) const OLD_LIMIT: &str = "max_tokens";

/// The body of a tiny call, or the definition's own; `model` is put in where the definition names none.
pub(in crate::driver) fn body(probe: &Probe, limit: &str, model: Option<&str>) -> Value {
    let tiny = || {
        json!({
            "messages": [{"role": "user", "content": "ping"}],
            limit: probe.max_tokens.unwrap_or(TOKENS),
        })
    };
    let mut body = own_body(probe).unwrap_or_else(tiny);
    let model = probe.model.as_deref().or(model);
    if let (Some(model), None) = (model, body.get("model")) {
        body["model"] = json!(model);
    }
    body
}

/// What is wrong with a body of one's own.
pub(in crate::driver) fn check_body(probe: &Probe) -> Vec<InvalidConfig> {
    needs_list(probe, "messages")
}

/// True where the server may only not know [`LIMIT`]: it says so, or it is one of many (`is_any_server`) and refused
/// the request without blaming key or model.
pub(in crate::driver) fn refuses_limit(execution: &Execution, is_any_server: bool) -> bool {
    let (status, text) = (execution.status_code, &execution.message);
    let is_refused = !execution.ok && matches!(status, Some(400 | 422));
    let is_tiny = is_tiny_limit_refusal(status, text);
    let blames_nobody = classify_provider(status, None, None, text) == FailureClass::Provider;
    is_refused && !is_tiny && (text.contains(LIMIT) || (is_any_server && blames_nobody))
}
