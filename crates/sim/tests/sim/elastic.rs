//! Inference endpoints of the Elasticsearch beside a Kibana.

use keyfleet_sim::kibana;
use serde_json::{Value, json};

use crate::support::{API_KEY, Answer, GOOD_KEY, Sim, options};

const OTHER_KEY: &str = "sk-proj-simulated0000000000000000Other";

/// A Kibana with its Elasticsearch, and a provider.
struct World {
    kibana: Sim,
    models: Sim,
    elastic: String,
    http: reqwest::Client,
}

impl World {
    async fn new(version: &str) -> Self {
        let keys = vec![GOOD_KEY.to_owned(), OTHER_KEY.to_owned()];
        let models = keyfleet_sim::openai::start(keyfleet_sim::openai::Options::new(keys));
        let models = Sim::new(models.await.expect("an answer"));
        let kibana = Sim::kibana_with(kibana::Options {
            elasticsearch: Some(([127, 0, 0, 1], 0).into()),
            provider_url: Some(models.url()),
            ..options(version)
        })
        .await;
        Self {
            elastic: kibana.server.elasticsearch_url().expect("an answer"),
            http: kibana::provider_client().expect("an answer"),
            kibana,
            models,
        }
    }

    async fn send(&self, method: &str, path: &str, body: Value) -> Answer {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("an answer");
        let request = self
            .http
            .request(method, format!("{}{path}", self.elastic))
            .header("authorization", format!("ApiKey {API_KEY}"))
            .header("content-type", "application/json");
        let request = match body.is_null() {
            true => request,
            false => request.body(body.to_string()),
        };
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("an answer");
        let body = serde_json::from_str(&text).unwrap_or(Value::from(text));
        Answer {
            status,
            body,
            headers,
        }
    }

    async fn check(&self, method: &str, path: &str, body: Value, status: u16, says: &str) -> Value {
        let answer = self.send(method, path, body.clone()).await;
        let text = answer.body.to_string();
        assert_eq!(answer.status, status, "{method} {path} {body}: {text}");
        assert!(text.contains(says), "{method} {path} {body}: {text}");
        answer.body
    }
}

fn openai(key: &str) -> Value {
    json!({ "service": "openai", "service_settings": { "model_id": "gpt-4.1", "api_key": key } })
}

fn question() -> Value {
    json!({ "messages": [{ "role": "user", "content": "ping" }] })
}

#[tokio::test]
async fn an_endpoint_lives_and_dies() {
    let world = World::new("9.4.0").await;
    let talk = "/_inference/chat_completion/talk";
    let stream = "/_inference/chat_completion/talk/_stream";
    world
        .check(
            "GET",
            talk,
            Value::Null,
            404,
            "Inference endpoint not found [talk]",
        )
        .await;
    let wrong = "Could not complete inference endpoint creation";
    world
        .check("PUT", talk, openai("sk-wrong"), 400, wrong)
        .await;
    let made = world.check("PUT", talk, openai(GOOD_KEY), 200, "").await;
    assert_eq!(
        made,
        json!({
            "inference_id": "talk",
            "task_type": "chat_completion",
            "service": "openai",
            "service_settings": { "model_id": "gpt-4.1", "rate_limit": { "requests_per_minute": 500 } },
        })
    );
    world
        .check(
            "PUT",
            talk,
            openai(GOOD_KEY),
            400,
            "resource_already_exists_exception",
        )
        .await;
    let read = world.check("GET", talk, Value::Null, 200, "").await;
    assert_eq!(read["endpoints"], json!([made]));
    world
        .check(
            "GET",
            "/_inference/completion/talk",
            Value::Null,
            400,
            "does not match",
        )
        .await;

    let answer = world
        .check("POST", stream, question(), 200, "event: message")
        .await;
    assert!(
        answer
            .as_str()
            .expect("an answer")
            .ends_with("data: [DONE]\n\n")
    );
    world
        .check(
            "POST",
            talk,
            question(),
            400,
            "please use the _inference/chat_completion/talk/_stream URL",
        )
        .await;
    let mut small = question();
    small["max_tokens"] = json!(5);
    world
        .check("POST", stream, small, 400, "unknown field [max_tokens]")
        .await;
}

#[tokio::test]
async fn a_key_is_changed_after_a_trial() {
    let world = World::new("9.4.0").await;
    let talk = "/_inference/chat_completion/talk";
    let stream = "/_inference/chat_completion/talk/_stream";
    let wrong = "Could not complete inference endpoint creation";
    let made = world.check("PUT", talk, openai(GOOD_KEY), 200, "").await;
    let update = "/_inference/chat_completion/talk/_update";
    let key = |key: &str| json!({ "service_settings": { "api_key": key, "model_id": "ignored" } });
    world
        .check("PUT", update, key("sk-wrong"), 400, wrong)
        .await;
    let changed = world.check("PUT", update, key(OTHER_KEY), 200, "").await;
    assert_eq!(changed, made);
    let shown = world
        .check("GET", "/_sim/endpoints", Value::Null, 200, "")
        .await;
    assert_eq!(shown[0]["secret_tail"], "ther");
    // The same key once more is not even tried.
    let calls = world.models.count("class=chat").await;
    world.check("PUT", update, key(OTHER_KEY), 200, "").await;
    assert_eq!(world.models.count("class=chat").await, calls);

    let revoke = json!({ "revoke": OTHER_KEY });
    world.models.switch("POST", "keys", revoke).await;
    let refused = world
        .check("POST", stream, question(), 401, "event: error")
        .await;
    assert!(
        refused
            .as_str()
            .expect("an answer")
            .contains("invalid_api_key")
    );
    world
        .check("DELETE", talk, Value::Null, 200, "acknowledged")
        .await;
    world
        .check("DELETE", talk, Value::Null, 404, "not found")
        .await;
    world.kibana.server.shutdown().await;
}

#[tokio::test]
async fn completions_and_azure() {
    let world = World::new("9.4.0").await;
    let path = "/_inference/completion/write";
    let azure = json!({
        "service": "azureopenai",
        "service_settings": {
            "resource_name": "ours",
            "deployment_id": "gpt-4o",
            "api_version": "2024-10-21",
            "api_key": GOOD_KEY,
        },
    });
    world.check("PUT", path, azure, 200, "azureopenai").await;
    let answer = world
        .check("POST", path, json!({ "input": "ping" }), 200, "")
        .await;
    assert_eq!(answer, json!({ "completion": [{ "result": "pong" }] }));
    let wrong_task = "does not match the model type [completion]";
    let other = "/_inference/chat_completion/write/_stream";
    world
        .check("POST", other, question(), 400, wrong_task)
        .await;
}

#[tokio::test]
async fn definitions_are_checked_before_the_call() {
    let world = World::new("9.4.0").await;
    let settings = |settings: Value| json!({ "service": "openai", "service_settings": settings });
    let cases = [
        (
            "x",
            json!({ "service": "nothing" }),
            "Unknown service [nothing]",
        ),
        (
            "x",
            settings(json!({ "api_key": GOOD_KEY })),
            "does not contain the required setting [model_id]",
        ),
        (
            "x",
            settings(json!({ "model_id": "m" })),
            "does not contain the required setting [api_key]",
        ),
        (
            "x",
            settings(json!({ "model_id": "m", "api_key": "" })),
            "[api_key] must be a non-empty string",
        ),
        (
            "x",
            settings(json!({ "model_id": "m", "api_key": "k", "a": "b" })),
            "unknown to the [openai] service",
        ),
    ];
    for (id, body, says) in cases {
        world
            .check(
                "PUT",
                &format!("/_inference/chat_completion/{id}"),
                body,
                400,
                says,
            )
            .await;
    }
    let body = openai(GOOD_KEY);
    world
        .check(
            "PUT",
            "/_inference/dance/x",
            body.clone(),
            400,
            "Unknown task_type [dance]",
        )
        .await;
    world
        .check(
            "PUT",
            "/_inference/rerank/x",
            body,
            400,
            "does not support task type [rerank]",
        )
        .await;
    assert_eq!(world.models.count("class=chat").await, 0);
}

#[tokio::test]
async fn versions_rights_and_licence() {
    let talk = "/_inference/chat_completion/talk";
    let write = "/_inference/completion/write";
    let update = json!({ "service_settings": { "api_key": "sk-untried" } });
    let cases = [
        ("8.9.0", 400, 400, 400),
        ("8.15.0", 400, 200, 400),
        ("8.17.0", 400, 200, 200),
        ("8.18.0", 200, 200, 200),
        ("9.3.0", 200, 200, 400),
    ];
    for (version, chat, completion, changed) in cases {
        let world = World::new(version).await;
        world.check("PUT", talk, openai(GOOD_KEY), chat, "").await;
        world
            .check("PUT", write, openai(GOOD_KEY), completion, "")
            .await;
        let path = format!("{write}/_update");
        world.check("PUT", &path, update.clone(), changed, "").await;
    }
}

#[tokio::test]
async fn rights_licence_and_faults() {
    let talk = "/_inference/chat_completion/talk";
    let world = World::new("9.4.0").await;
    let privileges = "/_security/user/_has_privileges";
    let asked = json!({ "cluster": ["manage_inference"] });
    world
        .check(
            "POST",
            privileges,
            asked.clone(),
            200,
            "\"has_all_requested\":true",
        )
        .await;
    world
        .check(
            "PUT",
            "/_sim/faults",
            json!({ "privilege": "monitor" }),
            200,
            "",
        )
        .await;
    world
        .check(
            "POST",
            privileges,
            asked,
            200,
            "\"has_all_requested\":false",
        )
        .await;
    world
        .check(
            "PUT",
            talk,
            openai(GOOD_KEY),
            403,
            "[manage_inference,manage,all]",
        )
        .await;
    world.check("GET", talk, Value::Null, 404, "").await;
    world
        .check("DELETE", "/_sim/faults", Value::Null, 200, "")
        .await;
    world.kibana.fault(json!({ "licence": "basic" })).await;
    world
        .check(
            "PUT",
            talk,
            openai(GOOD_KEY),
            403,
            "current license is non-compliant for [inference]",
        )
        .await;
    world.kibana.clear().await;
}

#[tokio::test]
async fn elasticsearch_fails_on_demand() {
    let talk = "/_inference/chat_completion/talk";
    let world = World::new("9.4.0").await;
    let load = json!({ "api": { "mode": "status", "status": 429, "retry_after_secs": 3, "methods": ["PUT"] } });
    world.check("PUT", "/_sim/faults", load, 200, "").await;
    let answer = world.send("PUT", talk, openai(GOOD_KEY)).await;
    assert_eq!(
        (
            answer.status,
            answer.headers["retry-after"].to_str().expect("an answer")
        ),
        (429, "3")
    );
    world
        .check(
            "PUT",
            "/_sim/faults",
            json!({ "provider": { "status": 404 } }),
            200,
            "",
        )
        .await;
    world
        .check("PUT", talk, openai(GOOD_KEY), 400, "status [404]")
        .await;
    let wrong = world
        .http
        .get(format!("{}{talk}", world.elastic))
        .send()
        .await
        .expect("an answer");
    assert_eq!(wrong.status(), 401);
    let count = world
        .check("GET", "/_sim/requests/counts", Value::Null, 200, "")
        .await;
    assert!(count["total"].as_u64().expect("an answer") > 0);
}
