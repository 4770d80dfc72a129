//! What inference endpoints do: try themselves, complete a text, stream a conversation.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::Kibana;
use super::super::provider::{self, Trouble};
use super::endpoint::Endpoint;
use super::errors::{Refusal, events};
use crate::fault;
use crate::reply::Reply;

/// How long Elasticsearch waits for a provider.
const DEADLINE: Duration = Duration::from_secs(30);
/// What a conversation may hold.
const CONVERSATION: [&str; 8] = [
    "messages",
    "model",
    "max_completion_tokens",
    "stop",
    "temperature",
    "tool_choice",
    "tools",
    "top_p",
];

impl Kibana {
    /// The trial call before an endpoint is stored.
    pub(super) async fn try_endpoint(&self, endpoint: &Endpoint) -> Result<(), Refusal> {
        let tried = match endpoint.task.as_str() {
            "chat_completion" => {
                let body = json!({ "messages": [{ "role": "user", "content": "how big" }] });
                self.stream(endpoint, &body).await.map(|_| ())
            }
            _ => self
                .complete(endpoint, &json!({ "input": "how big" }))
                .await
                .map(|_| ()),
        };
        tried.map_err(Refusal::untried)
    }

    /// `POST _inference/completion/{id}`.
    pub(in crate::kibana) async fn complete(
        &self,
        endpoint: &Endpoint,
        body: &Value,
    ) -> Result<Value, Refusal> {
        let Some(input) = body["input"].as_str() else {
            let text = "Validation Failed: 1: Field [input] cannot be null;";
            return Err(Refusal::new(
                400,
                "action_request_validation_exception",
                text,
            ));
        };
        let asked = json!({ "messages": [{ "role": "user", "content": input }] });
        let answer = self.call_endpoint(endpoint, asked).await?;
        let answer: Value = serde_json::from_str(&answer).unwrap_or(Value::Null);
        match answer
            .pointer("/choices/0/message/content")
            .and_then(Value::as_str)
        {
            Some(content) => Ok(json!({ "completion": [{ "result": content }] })),
            None => Err(Refusal::new(
                500,
                "illegal_state_exception",
                "Failed to find required field [choices] in OpenAI chat completions response",
            )),
        }
    }

    /// `POST _inference/chat_completion/{id}/_stream`: the data of each event.
    pub(in crate::kibana) async fn stream(
        &self,
        endpoint: &Endpoint,
        body: &Value,
    ) -> Result<Vec<String>, Refusal> {
        let known = |name: &&String| !CONVERSATION.contains(&name.as_str());
        if let Some(unknown) = body.as_object().and_then(|body| body.keys().find(known)) {
            let text = format!("[1:1] [UnifiedCompletionRequest] unknown field [{unknown}]");
            return Err(Refusal::new(400, "x_content_parse_exception", text));
        }
        if !body["messages"].is_array() {
            let text = "Required [messages]";
            return Err(Refusal::new(400, "illegal_argument_exception", text));
        }
        let mut asked = body.clone();
        asked["stream"] = Value::from(true);
        asked["stream_options"] = json!({ "include_usage": true });
        let answer = self.call_endpoint(endpoint, asked).await?;
        let data = answer
            .lines()
            .filter_map(|line| line.strip_prefix("data: "));
        Ok(data.map(str::to_owned).collect())
    }

    async fn call_endpoint(&self, endpoint: &Endpoint, body: Value) -> Result<String, Refusal> {
        let request = endpoint.request(body, self.options.provider_url.as_deref());
        let hit = fault::take(&mut self.state().elastic_faults.provider, |fault| {
            fault.model.is_none() || fault.model == request.model
        });
        let deadline = self.options.provider_timeout.min(DEADLINE);
        let answer = match hit {
            Some(fault) => Err::<_, Trouble>(self.provider_fault(&fault).await),
            None => provider::call(&self.client, request, deadline).await,
        };
        answer.map_err(|trouble| Refusal::provider(&endpoint.id, &trouble))
    }
}

/// The stream as Elasticsearch sends it on.
pub(super) fn streamed(data: &[String]) -> Reply {
    let messages: Vec<(&str, String)> = data.iter().map(|data| ("message", data.clone())).collect();
    events(200, &messages)
}
