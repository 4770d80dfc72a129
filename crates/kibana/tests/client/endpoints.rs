//! Inference endpoints: the calls to Elasticsearch, its refusals, and those of the provider behind it.

use std::time::Duration;

use keyfleet_core::failure::FailureClass;
use keyfleet_kibana::{
    Client, Credentials, Elasticsearch, Error, Service, Settings, Write, driver,
};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::support::*;

const CHAT: &str = "chat_completion";
const COMPLETION: &str = "completion";

/// A client whose Elasticsearch is there; nobody listens at its Kibana.
fn elastic(url: &str) -> Client {
    elastic_within(url, Duration::from_secs(10))
}

fn elastic_within(url: &str, probe_timeout: Duration) -> Client {
    install_tls();
    Client::new(Settings {
        elasticsearch: Some(Elasticsearch {
            url: url.parse().unwrap(),
            credentials: Credentials::ApiKey(SecretString::from("elastic:key")),
            ca_pem: None,
        }),
        probe_timeout,
        ..settings("http://kibana.invalid")
    })
    .unwrap()
}

fn write() -> Write {
    let config = json!({"service": "openai", "taskType": COMPLETION, "modelId": "gpt-4.1"});
    let secret = SecretString::from(GOOD_KEY);
    driver("inference-endpoint")
        .unwrap()
        .render(
            &config.to_string(),
            "OpenAI",
            &key_value(&secret),
            &"9.4.0".parse().unwrap(),
        )
        .unwrap()
}

fn definition(task: &str) -> Value {
    json!({"inference_id": ID, "task_type": task, "service": "openai",
        "service_settings": {"model_id": "gpt-4.1", "rate_limit": {"requests_per_minute": 500}}})
}

/// An error as Elasticsearch writes it.
fn refusal(kind: &str, reason: &str, status: u16) -> String {
    let cause = json!({"type": kind, "reason": reason});
    json!({"error": {"root_cause": [cause], "type": kind, "reason": reason}, "status": status})
        .to_string()
}

fn of_provider(what: &str, status: u16, message: &str) -> String {
    format!(
        "Received {what} status code for request from inference entity id [{ID}] status [{status}]. Error message: [{message}]"
    )
}

#[tokio::test]
async fn an_endpoint_is_read_with_the_fields_of_a_definition() {
    let raw = Raw::listen().await;
    let client = elastic(&format!("{}/es/", raw.url()));
    let answer = http(
        "200 OK",
        "",
        &json!({"endpoints": [definition(CHAT)]}).to_string(),
    );
    let (request, found) = tokio::join!(raw.answer(&answer), client.get_endpoint(CHAT, ID));
    let found = found.unwrap().unwrap();
    assert_eq!((found.id.as_str(), found.name.as_str()), (ID, ID));
    assert_eq!(found.connector_type_id, "inference-endpoint");
    assert_eq!(
        Value::Object(found.config),
        json!({"service": "openai", "taskType": CHAT, "modelId": "gpt-4.1"})
    );
    assert!(
        request.starts_with(&format!("get /es/_inference/chat_completion/{ID} http/1.1")),
        "{request}"
    );
    // base64 of `elastic:key`, in lower case.
    assert!(
        request.contains("authorization: apikey zwxhc3rpyzprzxk="),
        "{request}"
    );
    assert!(
        !request.contains("kbn-xsrf") && !request.contains("elastic-api-version"),
        "{request}"
    );
    let gone = http(
        "404 Not Found",
        "",
        &refusal(
            "resource_not_found_exception",
            "Inference endpoint not found",
            404,
        ),
    );
    let (_, found) = tokio::join!(raw.answer(&gone), client.get_endpoint(CHAT, ID));
    assert_eq!(found.unwrap(), None);
    assert_eq!(client.requests(), 2);
}

#[tokio::test]
async fn an_endpoint_is_written_changed_and_removed() {
    let raw = Raw::listen().await;
    let client = elastic(&raw.url());
    let good = http("200 OK", "", &definition(COMPLETION).to_string());
    let write = write();
    let (request, made) = tokio::join!(
        raw.answer(&good),
        client.create_endpoint(COMPLETION, ID, &write)
    );
    assert_eq!(made.unwrap().config["modelId"], "gpt-4.1");
    assert!(
        request.starts_with(&format!("put /_inference/completion/{ID} ")),
        "{request}"
    );

    let (request, changed) = tokio::join!(
        raw.answer(&good),
        client.update_endpoint(COMPLETION, ID, &write)
    );
    assert_eq!(changed.unwrap().id, ID);
    let path = format!("put /_inference/completion/{ID}/_update ");
    assert!(request.starts_with(&path), "{request}");

    let removed = http("200 OK", "", r#"{"acknowledged":true}"#);
    let (request, removed) =
        tokio::join!(raw.answer(&removed), client.delete_endpoint(COMPLETION, ID));
    assert!(removed.unwrap());
    assert!(
        request.starts_with(&format!("delete /_inference/completion/{ID} ")),
        "{request}"
    );
    let gone = http(
        "404 Not Found",
        "",
        &refusal(
            "resource_not_found_exception",
            "Inference endpoint not found",
            404,
        ),
    );
    let (_, removed) = tokio::join!(raw.answer(&gone), client.delete_endpoint(COMPLETION, ID));
    assert!(!removed.unwrap());
}

/// The error of a create where this comes back.
async fn create_error(status: &str, body: &str) -> Error {
    let raw = Raw::listen().await;
    let client = elastic(&raw.url());
    let answer = http(status, "retry-after: 9\r\n", body);
    let write = write();
    let (_, outcome) = tokio::join!(
        raw.answer(&answer),
        client.create_endpoint(COMPLETION, ID, &write)
    );
    let error = outcome.unwrap_err();
    assert!(
        error.to_string().starts_with("PUT /_inference/completion/"),
        "{error}"
    );
    error
}

#[tokio::test]
async fn a_refused_write_names_elasticsearch_or_the_provider() {
    let exists = refusal(
        "resource_already_exists_exception",
        "Inference endpoint [x] already exists",
        400,
    );
    let error = create_error("400 Bad Request", &exists).await;
    assert!(matches!(error, Error::Conflict { .. }), "{error}");

    let wrong = of_provider(
        "an authentication error",
        401,
        "Incorrect API key provided: sk-canary",
    );
    let wrong = json!({"error": {"type": "status_exception", "reason": "Could not complete inference endpoint creation \
        as validation call to service threw an exception.", "caused_by": {"type": "status_exception", "reason": wrong}},
        "status": 400});
    let error = create_error("400 Bad Request", &wrong.to_string()).await;
    assert_eq!(error.class(), FailureClass::Auth, "{error}");
    assert!(
        !format!("{error} {error:?}").contains("canary"),
        "{error:?}"
    );
    assert!(!error.is_retryable());

    for status in ["429 Too Many", "503 Down"] {
        let error =
            create_error(status, &refusal("es_rejected_execution_exception", "", 429)).await;
        assert_eq!(error.retry_after(), Some(Duration::from_secs(9)), "{error}");
        assert!(error.to_string().contains("Elasticsearch is"), "{error}");
        assert!(error.is_retryable());
    }
    let error = create_error(
        "401 Unauthorized",
        &refusal("security_exception", "no", 401),
    )
    .await;
    assert!(
        error
            .to_string()
            .contains("Elasticsearch refused the credentials"),
        "{error}"
    );
}

/// What a live call tells where this comes back.
async fn try_out(task: &str, answer: &[u8]) -> Result<(bool, Option<u16>, String), Error> {
    let raw = Raw::listen().await;
    let client = elastic(&raw.url());
    let body = json!({"input": "ping"});
    let (request, outcome) = tokio::join!(raw.answer(answer), client.try_endpoint(task, ID, &body));
    let path = match task {
        CHAT => format!("post /_inference/chat_completion/{ID}/_stream "),
        _ => format!("post /_inference/completion/{ID} "),
    };
    assert!(request.starts_with(&path), "{request}");
    outcome.map(|execution| (execution.ok, execution.status_code, execution.message))
}

#[tokio::test]
async fn a_completion_proves_the_key_or_says_why_not() {
    let good = http("200 OK", "", r#"{"completion":[{"result":"pong"}]}"#);
    assert_eq!(
        try_out(COMPLETION, &good).await.unwrap(),
        (true, None, String::new())
    );

    let text = of_provider("an authentication error", 401, "Incorrect API key provided");
    let wrong = http(
        "401 Unauthorized",
        "",
        &refusal("status_exception", &text, 401),
    );
    assert_eq!(
        try_out(COMPLETION, &wrong).await.unwrap(),
        (false, Some(401), text)
    );

    let ours = http(
        "401 Unauthorized",
        "",
        &refusal("security_exception", "unable to authenticate", 401),
    );
    let error = try_out(COMPLETION, &ours).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    for odd in [
        r#"{"completion":[]}"#,
        "[]",
        "{}",
        r#"{"completion":[{"result":1}]}"#,
    ] {
        let error = try_out(COMPLETION, &http("200 OK", "", odd))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Unexpected { .. }), "{odd}: {error}");
    }
}

fn stream(status: &str, events: &str) -> Vec<u8> {
    http(status, "content-type: text/event-stream\r\n", events)
}

#[tokio::test]
async fn a_chat_completion_is_judged_by_the_beginning_of_its_stream() {
    let chunk = r#"{"id":"c","choices":[{"delta":{"content":"po"},"index":0}],"object":"chat.completion.chunk"}"#;
    let good = stream(
        "200 OK",
        &format!("\u{feff}event: message\ndata: {chunk}\n\nevent: message\ndata: [DONE]\n\n"),
    );
    assert_eq!(
        try_out(CHAT, &good).await.unwrap(),
        (true, None, String::new())
    );

    let text = of_provider("an authentication error", 401, "Incorrect API key provided");
    let error = json!({"error": {"code": "unauthorized", "message": text, "type": "openai_error"}});
    for status in ["401 Unauthorized", "200 OK"] {
        let wrong = stream(status, &format!("\u{feff}event: error\ndata: {error}\n\n"));
        let found = try_out(CHAT, &wrong).await.unwrap();
        assert_eq!(found, (false, Some(401), text.clone()), "{status}");
    }
    let broken_off = stream("200 OK", "event: message\ndata: {");
    let error = try_out(CHAT, &broken_off).await.unwrap_err();
    assert!(matches!(error, Error::Truncated { .. }), "{error}");
    for empty in [
        "event: message\ndata: [DONE]\n\n",
        "data: 1\n\n",
        "data: <html>\n\n",
    ] {
        let error = try_out(CHAT, &stream("200 OK", empty)).await.unwrap_err();
        assert!(
            matches!(error, Error::Unexpected { .. }),
            "{empty}: {error}"
        );
    }
    let endless = stream("200 OK", &format!("data: {}", "x".repeat(100_000)));
    let error = try_out(CHAT, &endless).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn the_rest_of_a_stream_is_not_waited_for() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n";
    for (begin, in_time) in [
        ("event: message\ndata: {}\n\n", true),
        ("event: message\n", false),
    ] {
        let raw = Raw::listen().await;
        let limit = Duration::from_millis(if in_time { 60_000 } else { 100 });
        let client = elastic_within(&raw.url(), limit);
        let serve = async {
            let mut open = raw.accept().await;
            read_head(&mut open).await;
            open.write_all(format!("{head}{begin}").as_bytes())
                .await
                .unwrap();
            open
        };
        let body = json!({});
        let (_open, outcome) = tokio::join!(serve, client.try_endpoint(CHAT, ID, &body));
        match outcome {
            Ok(execution) => assert!(in_time && execution.ok),
            Err(error) => assert!(
                !in_time && error.class() == FailureClass::Timeout,
                "{error}"
            ),
        }
    }
}

#[tokio::test]
async fn without_an_elasticsearch_nothing_is_sent() {
    let client = client("http://kibana.invalid");
    let error = client.get_endpoint(CHAT, ID).await.unwrap_err();
    assert!(error.to_string().contains("[elasticsearch]"), "{error}");
    assert_eq!((error.class(), client.requests()), (FailureClass::Agent, 0));
}

#[tokio::test]
async fn trouble_on_the_way_names_elasticsearch() {
    let raw = Raw::listen().await;
    let client = elastic(&raw.url());
    drop(raw);
    let error = client.get_endpoint(CHAT, ID).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("Elasticsearch cannot be reached"), "{text}");
    assert!(text.contains("`elasticsearch.url`"), "{text}");
    let Error::Unreachable { call, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(call.service, Service::Elasticsearch);
}

#[test]
fn settings_of_elasticsearch_are_checked_and_hide_their_key() {
    install_tls();
    let with = |url: &str, key: &str| Settings {
        elasticsearch: Some(Elasticsearch {
            url: url.parse().unwrap(),
            credentials: Credentials::ApiKey(SecretString::from(key)),
            ca_pem: None,
        }),
        ..settings("https://kibana")
    };
    assert!(!format!("{:?}", with("https://es", "canary")).contains("canary"));
    let error = Client::new(with("https://es?x=y", "key")).unwrap_err();
    assert!(
        error.to_string().contains("the URL of Elasticsearch"),
        "{error}"
    );
    assert!(Client::new(with("https://es", "")).is_err());
}
