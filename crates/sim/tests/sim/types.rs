//! The connector types beside `.gen-ai`, and certificates in place of a key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::{GOOD_KEY, ID, Sim, options};

const BEDROCK_KEY: &str = "AKIASIMULATED0000000:secret/with+signs=";
const GEMINI_KEY: &str = "0123456789abcdef0123456789abcdef01234567";

async fn provider(keys: &[&str]) -> Sim {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    let server = keyfleet_sim::openai::start(keyfleet_sim::openai::Options::new(keys));
    Sim::new(server.await.expect("an answer"))
}

fn bedrock(url: &str, key: &str) -> Value {
    let (access, secret) = key.split_once(':').expect("an answer");
    json!({
        "name": "Claude",
        "connector_type_id": ".bedrock",
        "config": { "apiUrl": url },
        "secrets": { "accessKey": access, "secret": secret },
    })
}

fn gemini(url: &str, account: &Value) -> Value {
    json!({
        "name": "Gemini",
        "connector_type_id": ".gemini",
        "config": { "apiUrl": url, "gcpRegion": "us-central1", "gcpProjectID": "p" },
        "secrets": { "credentialsJson": account.to_string() },
    })
}

fn account(key: &str) -> Value {
    json!({ "type": "service_account", "private_key_id": key })
}

async fn run(kibana: &Sim, body: &Value) -> Value {
    let path = format!("/api/actions/connector/{ID}/_execute");
    let params = json!({ "params": { "subAction": "test", "subActionParams": { "body": body.to_string() } } });
    kibana.send("POST", &path, params).await.body
}

async fn replace(kibana: &Sim, body: &Value) {
    let path = format!("/api/actions/connector/{ID}");
    kibana.send("DELETE", &path, Value::Null).await;
    let made = kibana.send("POST", &path, body.clone()).await;
    assert_eq!(made.status, 200, "{}", made.body);
}

#[tokio::test]
async fn bedrock_and_gemini_reach_their_models() {
    let models = provider(&[BEDROCK_KEY, GEMINI_KEY]).await;
    let kibana = Sim::kibana("9.4.0").await;
    let url = models.url();
    let message = json!({
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 5,
        "messages": [{ "role": "user", "content": "ping" }],
    });
    replace(&kibana, &bedrock(&url, BEDROCK_KEY)).await;
    let told = run(&kibana, &message).await;
    assert_eq!(
        (&told["status"], &told["data"]["completion"]),
        (&json!("ok"), &json!("pong"))
    );
    replace(&kibana, &bedrock(&url, "AKIASIMULATED0000000:other")).await;
    assert_eq!(
        run(&kibana, &message).await["service_message"],
        "Status code: 403. Message: API Error: Forbidden - The security token included in the request is invalid."
    );

    let content = json!({ "contents": [{ "role": "user", "parts": [{ "text": "ping" }] }] });
    replace(&kibana, &gemini(&url, &account(GEMINI_KEY))).await;
    let told = run(&kibana, &content).await;
    assert_eq!(
        (&told["status"], &told["data"]["completion"]),
        (&json!("ok"), &json!("pong"))
    );
    let mut tiny = content.clone();
    tiny["generationConfig"] = json!({ "maxOutputTokens": 5 });
    let told = run(&kibana, &tiny).await;
    assert!(
        told["service_message"]
            .as_str()
            .expect("an answer")
            .contains("candidatesTokenCount"),
        "{told}"
    );
    replace(&kibana, &gemini(&url, &account("another"))).await;
    let told = run(&kibana, &content).await;
    let text = told["service_message"].as_str().expect("an answer");
    assert!(
        text.starts_with(
            "Status code: 401. Message: API Error: UNAUTHENTICATED: Request had invalid"
        ),
        "{text}"
    );
    assert_eq!(models.sim("/_sim/keys").await[0]["uses"], 1);
    let seen = kibana.sim("/_sim/requests").await.to_string();
    assert!(!seen.contains("secret/with") && !seen.contains(GEMINI_KEY));
}

#[tokio::test]
async fn each_type_is_strict_and_begins_with_its_version() {
    let url = "https://bedrock-runtime.us-east-1.amazonaws.com";
    let cases = [
        (".bedrock", bedrock(url, BEDROCK_KEY), "8.11.0", json!({})),
        (
            ".bedrock",
            bedrock(url, BEDROCK_KEY),
            "9.4.0",
            json!({ "region": "us-east-1" }),
        ),
        (
            ".bedrock",
            bedrock(url, BEDROCK_KEY),
            "9.2.0",
            json!({ "contextWindowLength": 1000 }),
        ),
        (".gemini", gemini(url, &account("x")), "8.17.0", json!({})),
        (
            ".gemini",
            gemini(url, &account("x")),
            "9.3.0",
            json!({ "temperature": 0.1 }),
        ),
        (
            ".gemini",
            gemini(url, &account("x")),
            "10.0.0",
            json!({ "region": "us-east-1" }),
        ),
    ];
    for (kind, body, since, more) in cases {
        for version in [
            "8.9.0", "8.11.0", "8.17.0", "9.1.0", "9.2.0", "9.3.0", "9.4.0",
        ] {
            let kibana = Sim::kibana(version).await;
            let mut body = body.clone();
            body["config"]
                .as_object_mut()
                .expect("an answer")
                .extend(more.as_object().expect("an answer").clone());
            let answer = kibana.send("POST", "/api/actions/connector", body).await;
            let number = |text: &str| -> Vec<u32> {
                text.split('.')
                    .map(|n| n.parse().expect("an answer"))
                    .collect()
            };
            let expected = if number(version) >= number(since) {
                200
            } else {
                400
            };
            assert_eq!(
                answer.status, expected,
                "{kind} {version} {more}: {}",
                answer.body
            );
            if expected == 200 {
                assert!(answer.body["config"]["defaultModel"].is_string());
            }
        }
    }
}

/// The base64 of a PEM file.
fn pem(kind: &str) -> String {
    STANDARD.encode(format!(
        "-----BEGIN {kind}-----\nAA==\n-----END {kind}-----\n"
    ))
}

/// Type, secrets, and what the refusal says; nothing where they are good.
fn secrets_and_words() -> Vec<(&'static str, Value, &'static str)> {
    let (certificate, key) = (pem("CERTIFICATE"), pem("PRIVATE KEY"));
    let not_pem = "Invalid Private key data file format: The file must be a PEM-encoded private key beginning with \
                   \"-----BEGIN PRIVATE KEY-----\" or \"-----BEGIN RSA PRIVATE KEY-----\".";
    vec![
        (
            ".gen-ai",
            json!({ "certificateData": certificate, "privateKeyData": key }),
            "",
        ),
        (
            ".gen-ai",
            json!({ "certificateData": certificate, "privateKeyData": pem("RSA PRIVATE KEY"), "caData": certificate, "apiKey": "k" }),
            "",
        ),
        (
            ".gen-ai",
            json!({ "privateKeyData": key }),
            "Certificate data must be provided for PKI",
        ),
        (
            ".gen-ai",
            json!({ "certificateData": certificate }),
            "Private key data must be provided for PKI",
        ),
        (
            ".gen-ai",
            json!({ "certificateData": certificate, "privateKeyData": "bad" }),
            not_pem,
        ),
        (
            ".gen-ai",
            json!({ "certificateData": "-----BEGIN CERTIFICATE-----", "privateKeyData": key }),
            "Invalid Certificate data file format",
        ),
        (
            ".gen-ai",
            json!({ "certificateData": certificate, "privateKeyData": key, "caData": key }),
            "Invalid CA certificate data file format",
        ),
        (
            ".gen-ai",
            json!({}),
            "[apiKey]: expected value of type [string] but got [undefined]",
        ),
        (
            ".gen-ai",
            json!({ "apiKey": "k", "token": "t" }),
            "Unrecognized keys: \"token\"",
        ),
        (
            ".bedrock",
            json!({ "accessKey": "a" }),
            "Field \"secret\": Required",
        ),
        (".bedrock", json!({ "apiKey": "a" }), "3 errors"),
        (
            ".gemini",
            json!({ "credentialsJson": "no" }),
            "Invalid JSON format for credentials.",
        ),
        (
            ".gemini",
            json!({ "credentialsJson": json!({ "type": "external_account" }).to_string() }),
            "Type was \"external_account\".",
        ),
    ]
}

#[tokio::test]
async fn secrets_of_each_type_have_their_words() {
    let url = "https://llm.example.com/v1/chat/completions";
    let other = json!({ "apiProvider": "Other", "apiUrl": url, "defaultModel": "llama" });
    let kibana = Sim::kibana("9.4.0").await;
    for (kind, secrets, message) in secrets_and_words() {
        let config = match kind {
            ".gen-ai" => other.clone(),
            ".bedrock" => json!({ "apiUrl": url }),
            _ => json!({ "apiUrl": url, "gcpRegion": "r", "gcpProjectID": "p" }),
        };
        let body =
            json!({ "name": "n", "connector_type_id": kind, "config": config, "secrets": secrets });
        let answer = kibana.send("POST", "/api/actions/connector", body).await;
        let expected = if message.is_empty() { 200 } else { 400 };
        assert_eq!(answer.status, expected, "{kind} {secrets}: {}", answer.body);
        assert!(
            answer.message().contains(message),
            "{kind} {secrets}: {}",
            answer.message()
        );
        if expected == 400 {
            assert!(
                answer
                    .message()
                    .starts_with("error validating connector type secrets: ")
            );
        }
    }
}

#[tokio::test]
async fn a_certificate_may_take_the_place_of_a_key() {
    let pem = STANDARD.encode("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n");
    let key = STANDARD.encode("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n");
    let models = provider(&[pem.as_str()]).await;
    let kibana = Sim::kibana("9.1.0").await;
    let config = json!({
        "apiProvider": "Other",
        "apiUrl": format!("{}/compatible/v1/chat/completions", models.url()),
        "defaultModel": "gpt-4.1",
        "verificationMode": "certificate",
    });
    let secrets = json!({ "certificateData": pem, "privateKeyData": key });
    let body = json!({ "name": "Own", "connector_type_id": ".gen-ai", "config": config, "secrets": secrets });
    replace(&kibana, &body).await;
    let ask = json!({ "model": "gpt-4.1", "messages": [{ "role": "user", "content": "ping" }] });
    assert_eq!(run(&kibana, &ask).await["status"], "ok");
    models
        .raw(
            "POST",
            "/_sim/keys",
            &[],
            Some(json!({ "revoke": pem }).to_string()),
        )
        .await
        .expect("an answer");
    assert_eq!(run(&kibana, &ask).await["status"], "error");
}

fn inference(url: &str, id: &str, key: &str) -> Value {
    json!({
        "name": "AI",
        "connector_type_id": ".inference",
        "config": {
            "provider": "openai",
            "taskType": "chat_completion",
            "inferenceId": id,
            "providerConfig": { "model_id": "gpt-4.1", "url": format!("{url}/v1/chat/completions") },
        },
        "secrets": { "providerSecrets": { "api_key": key } },
    })
}

#[tokio::test]
async fn an_inference_connector_makes_and_removes_its_endpoint() {
    let models = provider(&[GOOD_KEY]).await;
    let listen = Some(([127, 0, 0, 1], 0).into());
    let kibana = Sim::kibana_with(keyfleet_sim::kibana::Options {
        elasticsearch: listen,
        ..options("9.4.0")
    })
    .await;
    let elastic = kibana.server.elasticsearch_url().expect("an answer");
    let path = format!("/api/actions/connector/{ID}");
    let url = models.url();
    let bad = kibana
        .send("POST", &path, inference(&url, "talk", "sk-wrong"))
        .await;
    assert_eq!(bad.status, 400);
    assert!(
        bad.message()
            .contains("Could not complete inference endpoint creation"),
        "{}",
        bad.body
    );
    replace(&kibana, &inference(&url, "talk", GOOD_KEY)).await;

    let ask =
        json!({ "messages": [{ "role": "user", "content": "ping" }], "max_completion_tokens": 20 });
    let params = json!({ "params": { "subAction": "unified_completion", "subActionParams": { "body": ask } } });
    let execute = format!("{path}/_execute");
    let told = kibana.send("POST", &execute, params.clone()).await.body;
    assert_eq!(
        told["data"]["choices"][0]["message"]["content"], "pong",
        "{told}"
    );
    models
        .raw(
            "POST",
            "/_sim/keys",
            &[],
            Some(json!({ "revoke": GOOD_KEY }).to_string()),
        )
        .await
        .expect("an answer");
    let told = kibana.send("POST", &execute, params).await.body;
    let text = told["service_message"].as_str().expect("an answer");
    assert!(
        text.starts_with("Inference endpoint [talk] returned status code 401: "),
        "{text}"
    );
    assert_eq!(told["errorSource"], "user");

    // An update makes the endpoint anew: refused, it leaves none, and the list hides the connector.
    let good = inference(&url, "talk", "sk-wrong");
    let change = json!({ "name": "n", "config": good["config"], "secrets": good["secrets"] });
    assert_eq!(kibana.send("PUT", &path, change).await.status, 400);
    let list = kibana
        .send("GET", "/api/actions/connectors", Value::Null)
        .await
        .body;
    assert_eq!(list, json!([]));
    assert_eq!(kibana.send("GET", &path, Value::Null).await.status, 200);
    let endpoints = reqwest::get(format!("{elastic}/_sim/endpoints"))
        .await
        .expect("an answer");
    assert_eq!(endpoints.text().await.expect("an answer"), "[]");
    assert_eq!(kibana.send("DELETE", &path, Value::Null).await.status, 204);
    kibana.server.shutdown().await;
}
