//! The calls of Amazon Bedrock and of Google Vertex AI: enough to take or refuse a key and a model.
//!
//! A key of Bedrock is `ACCESSKEY:SECRET`, one of Vertex AI is the id of the service account's private key; see
//! `kibana::models` for how they travel.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::OpenAi;
use super::errors::Refusal;
use crate::reply::{Call, Reply};

/// The models that Kibana's connectors ask for by default, beside those of the options.
const MODELS: [&str; 6] = [
    "anthropic.claude-3-sonnet-20240229-v1:0",
    "anthropic.claude-3-5-sonnet-20240620-v1:0",
    "us.anthropic.claude-3-7-sonnet-20250219-v1:0",
    "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "gemini-1.5-pro-002",
    "gemini-2.5-pro",
];
/// A model that thinks says nothing with fewer tokens.
const THINKING_TOKENS_MIN: u64 = 64;

impl OpenAi {
    /// `POST /model/{id}/invoke` with Anthropic's messages.
    pub(super) fn bedrock(&self, call: &Call, model: &str) -> Result<Reply, Refusal> {
        if !self.has(model) {
            let text = "The provided model identifier is invalid.";
            return Err(Refusal::invalid(Some("ValidationException"), None, text));
        }
        let body = call.json().unwrap_or(Value::Null);
        let needed = ["anthropic_version", "max_tokens", "messages"];
        if let Some(key) = needed.iter().find(|key| body[**key].is_null()) {
            let text = format!(
                "Malformed input request: #: required key [{key}] not found, please reformat your input and try again."
            );
            return Err(Refusal::invalid(Some("ValidationException"), None, text));
        }
        Ok(Reply::json(
            200,
            &json!({
                "id": format!("msg_bdrk_{}", uuid::Uuid::new_v4().simple()),
                "type": "message",
                "role": "assistant",
                "content": [{ "type": "text", "text": "pong" }],
                "stop_reason": "end_turn",
                "usage": { "input_tokens": 8, "output_tokens": 1 },
            }),
        ))
    }

    /// `POST …/publishers/google/models/{model}:generateContent`.
    pub(super) fn gemini(&self, call: &Call, model: &str) -> Result<Reply, Refusal> {
        if !self.has(model) {
            let text = format!(
                "Publisher Model `{model}` was not found or your project does not have access to it."
            );
            return Err(Refusal::new(404, "NOT_FOUND", None, text));
        }
        let body = call.json().unwrap_or(Value::Null);
        if !body["contents"].is_array() {
            let text = "* GenerateContentRequest.contents: contents is not specified";
            return Err(Refusal::new(400, "INVALID_ARGUMENT", None, text));
        }
        let limit = ["generationConfig", "generation_config"]
            .iter()
            .find_map(|part| body[*part]["maxOutputTokens"].as_u64());
        let thinks = model.starts_with("gemini-2.5");
        if thinks && limit.is_some_and(|limit| limit < THINKING_TOKENS_MIN) {
            let candidate = json!({ "content": { "role": "model" }, "finishReason": "MAX_TOKENS" });
            let usage = json!({ "promptTokenCount": 1, "totalTokenCount": 1 });
            let cut = json!({ "candidates": [candidate], "usageMetadata": usage });
            return Ok(Reply::json(200, &cut));
        }
        let content = json!({ "role": "model", "parts": [{ "text": "pong" }] });
        let usage =
            json!({ "promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2 });
        Ok(Reply::json(
            200,
            &json!({
                "candidates": [{ "content": content, "finishReason": "STOP" }],
                "usageMetadata": usage,
                "modelVersion": model,
            }),
        ))
    }

    fn has(&self, model: &str) -> bool {
        MODELS.contains(&model) || self.options.models.iter().any(|known| known == model)
    }
}

/// `ACCESSKEY:SECRET` of a request that is signed as a simulated Kibana signs it.
pub(super) fn signed_with(authorization: &str) -> Option<String> {
    let (_, rest) = authorization.split_once("Credential=")?;
    let (access, _) = rest.split_once('/')?;
    let (_, signature) = authorization.split_once("Signature=")?;
    let secret = String::from_utf8(STANDARD.decode(signature).ok()?).ok()?;
    Some(format!("{access}:{secret}"))
}

/// A name as it stands in a path, decoded.
pub(super) fn decoded(segment: &str) -> String {
    url::form_urlencoded::parse(segment.as_bytes())
        .next()
        .map(|(name, _)| name.into_owned())
        .unwrap_or_default()
}
