//! Runs of the types beside `.gen-ai`: Bedrock, Gemini, and conversations through Elasticsearch.
//!
//! Bedrock's requests are signed and Gemini's carry a token that Google gives for an account. Neither is done here: the
//! signature is the secret itself in base64, the token is the id of the account's private key. A simulated provider can
//! so tell a right key from a wrong one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::Kibana;
use super::elastic::Refusal;
use super::execute::{body, parameters, refused};
use super::hooks;
use super::provider::{self, Failure, text, unfit};
use super::state::Connector;
use super::version::ZOD_TEXTS;

impl Kibana {
    /// `test` and `run` of `.bedrock`.
    pub(super) async fn run_bedrock(
        &self,
        connector: &Connector,
        params: Option<&Value>,
    ) -> Result<Value, Failure> {
        let known = [
            "body",
            "model",
            "signal",
            "timeout",
            "raw",
            "telemetryMetadata",
        ];
        let given = parameters(params, &known)?;
        let (config, secrets) = (&connector.config, &connector.secrets);
        let model = model(given, config);
        let path: String = url::form_urlencoded::byte_serialize(model.as_bytes()).collect();
        let signature = STANDARD.encode(text(secrets, "secret"));
        let region = match text(config, "region") {
            "" => "us-east-1",
            region => region,
        };
        let credential = format!(
            "{}/20260101/{region}/bedrock/aws4_request",
            text(secrets, "accessKey")
        );
        let signed = format!(
            "AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature={signature}"
        );
        let request = provider::Request {
            url: format!("{}/model/{path}/invoke", text(config, "apiUrl")),
            headers: vec![("authorization".to_owned(), signed)],
            model: Some(model.to_owned()),
            body: body(given)?.to_owned(),
        };
        let answer = self.ask(connector, request).await?;
        let answer: Value = serde_json::from_str(&answer).unwrap_or(Value::Null);
        if given.get("raw") == Some(&Value::Bool(true)) {
            return Ok(answer);
        }
        let said = answer.pointer("/content/0/text").and_then(Value::as_str);
        let said = said.ok_or_else(|| {
            unfit("[content]: expected value of type [array] but got [undefined]")
        })?;
        Ok(json!({
            "completion": said,
            "stop_reason": answer["stop_reason"],
            "usage": answer["usage"],
        }))
    }

    /// `test` and `run` of `.gemini`.
    pub(super) async fn run_gemini(
        &self,
        connector: &Connector,
        params: Option<&Value>,
    ) -> Result<Value, Failure> {
        let known = [
            "body",
            "model",
            "signal",
            "timeout",
            "temperature",
            "stopSequences",
            "raw",
            "telemetryMetadata",
        ];
        let given = parameters(params, &known)?;
        let config = &connector.config;
        let model = model(given, config);
        let account = text(&connector.secrets, "credentialsJson");
        let account: Value = serde_json::from_str(account).map_err(|_| {
            Failure::text("Failed to parse credentials JSON file: Invalid JSON format".to_owned())
        })?;
        let token = account["private_key_id"].as_str().unwrap_or_default();
        let url = format!(
            "{}/v1/projects/{}/locations/{}/publishers/google/models/{model}:generateContent",
            text(config, "apiUrl"),
            text(config, "gcpProjectID"),
            text(config, "gcpRegion"),
        );
        let request = provider::Request {
            url,
            headers: vec![("authorization".to_owned(), format!("Bearer {token}"))],
            model: Some(model.to_owned()),
            body: body(given)?.to_owned(),
        };
        let answer = self.ask(connector, request).await?;
        let answer: Value = serde_json::from_str(&answer).unwrap_or(Value::Null);
        let usage = &answer["usageMetadata"];
        let counts = [
            "promptTokenCount",
            "candidatesTokenCount",
            "totalTokenCount",
        ];
        if let Some(count) = counts.iter().find(|count| !usage[**count].is_number()) {
            let part = format!(
                "[usageMetadata.{count}]: expected value of type [number] but got [undefined]"
            );
            return Err(unfit(&part));
        }
        match answer.pointer("/candidates/0/content/parts/0/text") {
            Some(said) => Ok(json!({ "completion": said, "usageMetadata": usage })),
            None => Err(Failure::text(
                "Cannot read properties of undefined (reading '0')".to_owned(),
            )),
        }
    }

    /// The sub-actions of `.inference`.
    pub(super) async fn run_inference(
        &self,
        connector: &Connector,
        action: &str,
        params: Option<&Value>,
    ) -> Result<Value, Failure> {
        let (_, id) = hooks::place(connector);
        let is_conversation = action == "unified_completion";
        let given = match is_conversation {
            true => parameters(params, &["body", "signal", "telemetryMetadata"])?,
            false => parameters(params, &["input", "signal"])?,
        };
        let endpoint = self.state().endpoints.get(id).cloned();
        let Some(endpoint) = endpoint else {
            let text = format!("Inference endpoint not found [{id}]");
            return Err(Failure::text(format!(
                "resource_not_found_exception\n\tRoot causes:\n\t\tresource_not_found_exception: {text}"
            )));
        };
        if !is_conversation {
            let answer = self.complete(&endpoint, &json!(given)).await;
            return match answer {
                Ok(answer) => Ok(answer["completion"].clone()),
                Err(refusal) => Err(Failure::text(refusal.one_text())),
            };
        }
        let Some(asked) = given.get("body").filter(|body| body.is_object()) else {
            return Err(refused(
                "[body.messages]: expected value of type [array] but got [undefined]",
            ));
        };
        let data = self.stream(&endpoint, asked).await;
        let data = data.map_err(|refusal| self.refused_stream(id, &refusal))?;
        Ok(message(&data))
    }

    /// What a conversation says that Elasticsearch refused. The words changed; the release is not confirmed.
    fn refused_stream(&self, id: &str, refusal: &Refusal) -> Failure {
        let body = String::from_utf8_lossy(&refusal.event().body).into_owned();
        let is_new = self.state().version.has(ZOD_TEXTS);
        let status = refusal.status;
        Failure {
            status: None,
            is_users: is_new && status < 500,
            service_message: match is_new {
                true => format!("Inference endpoint [{id}] returned status code {status}: {body}"),
                false => body,
            },
        }
    }
}

/// The model of the request, else of the connector.
fn model<'a>(given: &'a Map<String, Value>, config: &'a Map<String, Value>) -> &'a str {
    let asked = given.get("model").and_then(Value::as_str);
    asked.unwrap_or_else(|| text(config, "defaultModel"))
}

/// The chunks of a stream as one message.
fn message(data: &[String]) -> Value {
    let chunks: Vec<Value> = data
        .iter()
        .filter_map(|data| serde_json::from_str(data).ok())
        .collect();
    let first = chunks.first().cloned().unwrap_or(Value::Null);
    let said: String = chunks
        .iter()
        .filter_map(|chunk| chunk.pointer("/choices/0/delta/content")?.as_str())
        .collect();
    json!({
        "id": first["id"],
        "model": first["model"],
        "object": first["object"],
        "choices": [{
            "index": 0,
            "finish_reason": "stop",
            "message": { "role": "assistant", "content": said, "tool_calls": [] },
        }],
        "usage": chunks.iter().find_map(|chunk| chunk.get("usage")),
    })
}
