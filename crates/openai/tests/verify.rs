//! The ladder of calls against a server on loopback.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up fails at once"
)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use keyfleet_core::connector::Provider;
use keyfleet_core::failure::FailureClass;
use keyfleet_openai::{Client, Error, Proof, Settings, Verified};
use secrecy::SecretString;
use tokio::net::TcpListener;

const MODEL: &str = r#"{"id":"gpt-5.2","object":"model","created":1,"owned_by":"openai","shutdown_date":"2027-10-23"}"#;
const COMPLETION: &str = r#"{"choices":[{"message":{"role":"assistant","content":"pong"}}]}"#;

type Scripted = (u16, &'static str);

/// Plays its answers in order, hangs when none is left, and remembers the requests.
#[derive(Clone)]
struct Fake {
    answers: Arc<Mutex<VecDeque<Scripted>>>,
    seen: Arc<Mutex<Vec<String>>>,
}

async fn answer(
    State(fake): State<Fake>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
    let (expected, other) = match uri.path().contains("/deployments/") {
        true => (("api-key", "sk-canary"), "authorization"),
        false => (("authorization", "Bearer sk-canary"), "api-key"),
    };
    assert_eq!(
        (header(expected.0), header(other)),
        (Some(expected.1), None)
    );
    let names_model = String::from_utf8_lossy(&body).contains("\"model\"");
    assert_eq!(names_model, !body.is_empty() && other == "api-key");
    let limit = ["max_completion_tokens", "max_tokens"]
        .into_iter()
        .find(|name| String::from_utf8_lossy(&body).contains(name));
    fake.seen.lock().unwrap().push(
        format!("{method} {uri} {}", limit.unwrap_or_default())
            .trim_end()
            .to_owned(),
    );
    let scripted = fake.answers.lock().unwrap().pop_front();
    let Some((status, body)) = scripted else {
        return std::future::pending().await;
    };
    (StatusCode::from_u16(status).unwrap(), body.to_owned())
}

/// Verifies against these answers; returns the outcome and the requests that were made.
async fn verify(answers: &[Scripted]) -> (Result<Verified, Error>, Vec<String>) {
    verify_at("/v1/chat/completions", Provider::OpenAi, answers).await
}

/// The same of another provider.
async fn verify_at(
    path: &str,
    provider: Provider,
    answers: &[Scripted],
) -> (Result<Verified, Error>, Vec<String>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let fake = Fake {
        answers: Arc::new(Mutex::new(answers.iter().copied().collect())),
        seen: Arc::default(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}{path}", listener.local_addr().unwrap());
    let client = Client::new(&Settings {
        timeout: Duration::from_millis(300),
        ..Settings::new(url.parse().unwrap(), provider)
    })
    .unwrap();
    let app = Router::new().fallback(answer).with_state(fake.clone());
    let key = SecretString::from("sk-canary");
    let outcome = tokio::select! {
        ended = axum::serve(listener, app) => unreachable!("the fake ended: {ended:?}"),
        outcome = client.verify(&key, "gpt-5.2") => outcome,
    };
    let seen = fake.seen.lock().unwrap().clone();
    (outcome, seen)
}

async fn check_refused(answers: &[Scripted], class: FailureClass, n_requests: usize) {
    let (outcome, seen) = verify(answers).await;
    let error = outcome.unwrap_err();
    assert_eq!(error.class(), class, "{answers:?}: {error}");
    assert_eq!(seen.len(), n_requests, "{answers:?}: {seen:?}");
    assert!(
        !format!("{error} {error:?}").contains("canary"),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_description_of_the_model_is_proof_enough() {
    let (outcome, seen) = verify(&[(200, MODEL)]).await;
    let expected = Verified {
        proof: Proof::Model,
        model_shutdown: Some("2027-10-23".to_owned()),
    };
    assert_eq!(outcome.unwrap(), expected);
    assert_eq!(seen, ["GET /v1/models/gpt-5.2"]);
}

#[tokio::test]
async fn a_first_call_that_proves_nothing_is_followed_by_a_completion() {
    let scope = r#"{"error":{"message":"Missing scopes: api.model.read","type":"invalid_request_error","code":null}}"#;
    let unknown = r#"{"error":{"message":"Unsupported parameter: 'max_completion_tokens'","code":"unsupported_parameter"}}"#;
    let tiny = r#"{"error":{"message":"Could not finish the message because max_tokens or model output limit was reached."}}"#;
    for first in [
        (401, scope),
        (404, "no such page"),
        (500, ""),
        (200, "<html>"),
        (200, r#"{"id":"other"}"#),
    ] {
        let (outcome, seen) = verify(&[first, (200, COMPLETION)]).await;
        assert_eq!(outcome.unwrap().proof, Proof::Completion, "{first:?}");
        assert_eq!(
            seen,
            [
                "GET /v1/models/gpt-5.2",
                "POST /v1/chat/completions max_completion_tokens"
            ]
        );
    }
    let (outcome, seen) = verify(&[(404, ""), (400, unknown), (200, COMPLETION)]).await;
    assert_eq!(outcome.unwrap().proof, Proof::Completion);
    assert_eq!(seen.last().unwrap(), "POST /v1/chat/completions max_tokens");
    assert_eq!(
        verify(&[(404, ""), (400, tiny)]).await.0.unwrap().proof,
        Proof::Completion
    );
}

#[tokio::test]
async fn refusals_carry_their_class_and_no_text() {
    let dead = r#"{"error":{"message":"Incorrect API key provided: sk-canary.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#;
    let scope = r#"{"error":{"message":"Missing scopes: model.request. sk-canary","type":"invalid_request_error","code":null}}"#;
    let quota = r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}"#;
    let limited = r#"{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}"#;
    let missing = r#"{"error":{"message":"The model `gpt-5.2` does not exist","type":"invalid_request_error","code":"model_not_found"}}"#;
    let country = r#"{"error":{"message":"Country, region, or territory not supported","type":"request_forbidden","code":"unsupported_country_region_territory"}}"#;
    let busy = r#"{"error":{"message":"overloaded","type":"server_error","code":null}}"#;
    check_refused(&[(401, dead)], FailureClass::Auth, 1).await;
    check_refused(&[(401, scope), (401, scope)], FailureClass::Auth, 2).await;
    check_refused(&[(429, quota)], FailureClass::Quota, 1).await;
    check_refused(&[(404, "x"), (429, quota)], FailureClass::Quota, 2).await;
    check_refused(&[(429, limited)], FailureClass::RateLimit, 1).await;
    check_refused(&[(404, missing), (404, missing)], FailureClass::Model, 2).await;
    check_refused(&[(403, country), (403, country)], FailureClass::Egress, 2).await;
    check_refused(&[(503, busy), (503, busy)], FailureClass::Provider, 2).await;
    check_refused(
        &[
            (401, "<html>sk-canary</html>"),
            (200, "<html>sk-canary</html>"),
        ],
        FailureClass::Egress,
        2,
    )
    .await;
    check_refused(&[], FailureClass::Timeout, 1).await;
}

#[tokio::test]
async fn azure_is_asked_for_a_completion_in_its_own_way() {
    let path = "/openai/deployments/gpt/chat/completions?api-version=2024-02-01";
    let nested = r#"{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint. sk-canary"}}"#;
    let flat = r#"{"statusCode":401,"message":"Access denied due to missing subscription key. sk-canary"}"#;
    let unknown = r#"{"error":{"message":"Unrecognized request argument supplied: max_completion_tokens","type":"invalid_request_error","param":null,"code":null}}"#;
    let missing = r#"{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}"#;
    let network = r#"{"error":{"code":"403","message":"Access denied due to Virtual Network/Firewall rules."}}"#;
    let limited = r#"{"error":{"code":"429","message":"Requests to the ChatCompletions_Create Operation have exceeded call rate limit of your current OpenAI S0 pricing tier."}}"#;
    let volume = r#"{"statusCode":403,"message":"Out of call volume quota. Quota will be replenished in 10:00."}"#;
    let (outcome, seen) = verify_at(path, Provider::AzureOpenAi, &[(200, COMPLETION)]).await;
    assert_eq!(outcome.unwrap().proof, Proof::Completion);
    assert_eq!(seen, [format!("POST {path} max_completion_tokens")]);
    let answers = [(400, unknown), (200, COMPLETION)];
    let (outcome, seen) = verify_at(path, Provider::AzureOpenAi, &answers).await;
    assert_eq!(outcome.unwrap().proof, Proof::Completion);
    assert_eq!(seen[1], format!("POST {path} max_tokens"));
    for (answer, class) in [
        ((401, nested), FailureClass::Auth),
        ((401, flat), FailureClass::Auth),
        ((404, missing), FailureClass::Model),
        ((403, network), FailureClass::Egress),
        ((429, limited), FailureClass::RateLimit),
        ((403, volume), FailureClass::Quota),
    ] {
        let (outcome, _) = verify_at(path, Provider::AzureOpenAi, &[answer]).await;
        let error = outcome.unwrap_err();
        assert_eq!(error.class(), class, "{answer:?}");
        assert!(
            !format!("{error} {error:?}").contains("canary"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_compatible_server_proves_a_key_by_a_completion_alone() {
    let path = "/v1/chat/completions";
    let refused = r#"{"error":"unexpected argument in the request"}"#;
    let verify = async |answers: &[Scripted]| verify_at(path, Provider::Other, answers).await;
    let (outcome, seen) = verify(&[(400, refused), (200, COMPLETION)]).await;
    assert_eq!(outcome.unwrap().proof, Proof::Completion);
    let both = ["max_completion_tokens", "max_tokens"];
    assert_eq!(seen, both.map(|limit| format!("POST {path} {limit}")));
    let (outcome, seen) = verify(&[(401, r#"{"error":"Unauthorized"}"#)]).await;
    assert_eq!(
        (outcome.unwrap_err().class(), seen.len()),
        (FailureClass::Auth, 1)
    );
}

#[tokio::test]
async fn no_server_is_a_network_failure() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "http://{}/v1/chat/completions",
        listener.local_addr().unwrap()
    );
    drop(listener);
    let client = Client::new(&Settings::new(url.parse().unwrap(), Provider::OpenAi)).unwrap();
    let error = client
        .verify(&SecretString::from("sk-canary"), "gpt-5.2")
        .await
        .unwrap_err();
    assert_eq!(error.class(), FailureClass::Network);
    assert!(matches!(
        client.verify(&SecretString::from("sk-\n"), "m").await,
        Err(Error::Key)
    ));
}
