//! `POST /v1/chat/completions`, and the same of Azure and of compatible servers.

use serde_json::{Value, json};

use super::OpenAi;
use super::dialect::Dialect;
use super::errors::Refusal;
use crate::log::now_ms;
use crate::reply::{Call, Reply};

/// Models that think before they answer: they refuse `max_tokens` and may run out of a small limit.
const REASONING_PREFIXES: [&str; 4] = ["o1", "o3", "o4", "gpt-5"];
/// With fewer tokens a reasoning model cannot finish.
const REASONING_TOKENS_MIN: u64 = 16;

impl OpenAi {
    /// Checks the request as OpenAI does and answers with one short message.
    ///
    /// `deployment` is the model of an Azure deployment: a model in the body is then not looked at.
    pub(super) fn chat(&self, call: &Call, deployment: Option<&str>) -> Result<Reply, Refusal> {
        let unreadable = || {
            Refusal::invalid(
                None,
                None,
                "We could not parse the JSON body of your request.",
            )
        };
        let body = call
            .json()
            .filter(Value::is_object)
            .ok_or_else(unreadable)?;
        Dialect::of(&call.path).check_parameters(call, &body)?;
        let Some(model) = deployment.or_else(|| body["model"].as_str()) else {
            return Err(Refusal::invalid(
                None,
                None,
                "you must provide a model parameter",
            ));
        };
        let Some(messages) = body["messages"].as_array() else {
            return Err(Refusal::invalid(
                Some("missing_required_parameter"),
                Some("messages"),
                "Missing required parameter: 'messages'.",
            ));
        };
        let model = match deployment {
            Some(name) => self
                .known_model(name)
                .map_err(|_| Dialect::no_deployment())?,
            None => self.known_model(model)?,
        };
        if REASONING_PREFIXES
            .iter()
            .any(|prefix| model.starts_with(prefix))
        {
            check_reasoning(&body)?;
        }
        let answer = completion(model, messages);
        match body["stream"].as_bool() {
            Some(true) => Ok(streamed(&answer)),
            Some(false) | None => Ok(Reply::json(200, &answer)),
        }
    }
}

fn check_reasoning(body: &Value) -> Result<(), Refusal> {
    if !body["max_tokens"].is_null() {
        return Err(Refusal::invalid(
            Some("unsupported_parameter"),
            Some("max_tokens"),
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        ));
    }
    match body["max_completion_tokens"].as_u64() {
        Some(limit) if limit < REASONING_TOKENS_MIN => Err(Refusal::invalid(
            None,
            None,
            "Could not finish the message because max_tokens or model output limit was reached. Please try again with \
             higher max_tokens.",
        )),
        Some(_) | None => Ok(()),
    }
}

fn completion(model: &str, messages: &[Value]) -> Value {
    let words = |message: &Value| {
        message["content"]
            .as_str()
            .map_or(1, |text| text.split_whitespace().count())
    };
    let prompt: usize = messages.iter().map(words).sum();
    json!({
        "id": format!("chatcmpl-{}", uuid::Uuid::new_v4().simple()),
        "object": "chat.completion",
        "created": now_ms() / 1000,
        "model": model,
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": "pong", "refusal": null },
            "finish_reason": "stop",
        }],
        "usage": { "prompt_tokens": prompt, "completion_tokens": 1, "total_tokens": prompt + 1 },
    })
}

/// The same answer as server-sent events: one chunk with the text, one that ends it.
fn streamed(answer: &Value) -> Reply {
    let chunk = |delta: Value, finish: Value| {
        let choices = json!([{ "index": 0, "delta": delta, "finish_reason": finish }]);
        json!({
            "id": answer["id"],
            "object": "chat.completion.chunk",
            "created": answer["created"],
            "model": answer["model"],
            "choices": choices,
        })
    };
    let text = chunk(answer["choices"][0]["message"].clone(), Value::Null);
    let end = chunk(json!({}), json!("stop"));
    Reply {
        content_type: "text/event-stream",
        body: format!("data: {text}\n\ndata: {end}\n\ndata: [DONE]\n\n").into_bytes(),
        ..Reply::json(200, &Value::Null)
    }
}
