//! Every kind of bad answer: each has its error, none is taken for a good one, none hangs.

use std::time::Duration;

use keyfleet_core::failure::FailureClass;
use keyfleet_kibana::{Client, Error, Settings};
use serde_json::{Value, json};

use super::support::*;

/// The error of `status` where these bytes come back.
async fn error_of(bytes: &[u8]) -> Error {
    let raw = Raw::listen().await;
    let client = client(&raw.url());
    let (_, outcome) = tokio::join!(raw.answer(bytes), client.status());
    let error = outcome.unwrap_err();
    assert!(
        error.to_string().starts_with("GET /api/status: "),
        "{error}"
    );
    error
}

/// The error of a `get` where the simulator has this fault.
async fn fault_of(fault: Value) -> Error {
    let kibana = Kibana::start("9.4.0").await;
    kibana.fault(json!({ "api": fault })).await;
    kibana.client.get(&space("default"), ID).await.unwrap_err()
}

fn check(error: &Error, class: FailureClass, retryable: bool, says: &str) {
    assert_eq!(
        (error.class(), error.is_retryable()),
        (class, retryable),
        "{error}"
    );
    assert!(error.to_string().contains(says), "{error}");
}

#[tokio::test]
async fn a_page_instead_of_json() {
    use FailureClass::KibanaDown;
    check(
        &fault_of(json!({"mode": "html", "status": 200})).await,
        KibanaDown,
        true,
        "not JSON",
    );
    check(
        &fault_of(json!({"mode": "html", "status": 404})).await,
        KibanaDown,
        true,
        "not JSON",
    );
    check(
        &fault_of(json!({"mode": "html"})).await,
        KibanaDown,
        true,
        "not ready (503)",
    );
    check(
        &error_of(&http("200 OK", "", "")).await,
        KibanaDown,
        true,
        "not JSON",
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off() {
    use FailureClass::KibanaDown;
    check(
        &fault_of(json!({"mode": "down"})).await,
        KibanaDown,
        true,
        "broke",
    );
    check(
        &fault_of(json!({"mode": "half_closed"})).await,
        KibanaDown,
        true,
        "broke",
    );
    check(
        &fault_of(json!({"mode": "write_then_fail"})).await,
        KibanaDown,
        true,
        "broke",
    );
    let short = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"name\":";
    check(&error_of(short).await, KibanaDown, true, "broke");
    let without_length = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"name\":";
    check(&error_of(without_length).await, KibanaDown, true, "broke");
    check(
        &error_of(b"SSH-2.0-OpenSSH_9.9\r\n").await,
        KibanaDown,
        true,
        "another service",
    );
}

#[tokio::test]
async fn no_answer_within_the_deadline() {
    let kibana = Kibana::start("9.4.0").await;
    kibana.fault(json!({"api": {"mode": "hang"}})).await;
    let raw = Raw::listen().await;
    install_tls();
    let impatient = |url: &str| {
        let limit = Duration::from_millis(100);
        Client::new(Settings {
            timeout: limit,
            probe_timeout: limit,
            ..settings(url)
        })
        .unwrap()
    };
    // Accepted by the system, never answered.
    let error = impatient(&raw.url()).status().await.unwrap_err();
    check(&error, FailureClass::Timeout, true, "100 ms");
    // The head comes, the body never ends.
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{";
    let client = impatient(&raw.url());
    let serve = async {
        let mut stream = raw.accept().await;
        tokio::io::AsyncWriteExt::write_all(&mut stream, head)
            .await
            .unwrap();
        stream
    };
    let (_open, outcome) = tokio::join!(serve, client.status());
    check(&outcome.unwrap_err(), FailureClass::Timeout, true, "100 ms");
}

#[tokio::test]
async fn overload_says_how_long_to_wait() {
    let error = fault_of(json!({"mode": "status", "status": 429, "retry_after_secs": 7})).await;
    check(&error, FailureClass::KibanaDown, true, "overloaded");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    let now = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    for status in ["429 Too Many", "502 Bad", "503 Down", "504 Late"] {
        let until = format!("{now}retry-after: Sun, 06 Nov 1994 08:49:47 GMT\r\n");
        let error = error_of(&http(status, &until, "")).await;
        assert_eq!(
            error.retry_after(),
            Some(Duration::from_secs(10)),
            "{status}"
        );
    }
    let error =
        fault_of(json!({"mode": "status", "status": 503, "retry_after_secs": 100_000})).await;
    check(&error, FailureClass::KibanaDown, true, "not ready");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(300)));
    assert_eq!(
        fault_of(json!({"mode": "status", "status": 429}))
            .await
            .retry_after(),
        None
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Raw::listen().await;
    let location = format!("location: {}/login?token=canary\r\n", elsewhere.url());
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let error = error_of(&http(status, &location, "")).await;
        check(&error, FailureClass::KibanaDown, false, "redirect");
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let mut bytes = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
    bytes.resize(3 * 1024 * 1024, b' ');
    check(
        &error_of(&bytes).await,
        FailureClass::KibanaDown,
        false,
        "longer than",
    );
}

#[tokio::test]
async fn json_of_another_service() {
    use FailureClass::{KibanaAuth, KibanaDown};
    check(
        &error_of(&http("200 OK", "", "[]")).await,
        KibanaDown,
        false,
        "lacks fields",
    );
    check(
        &error_of(&http("200 OK", "", r#"{"version":"9.4.0"}"#)).await,
        KibanaDown,
        false,
        "lacks fields",
    );
    check(
        &error_of(&http("200 OK", "", r#"{"version":{"number":"new"}}"#)).await,
        KibanaDown,
        false,
        "not a Kibana version",
    );
    check(
        &error_of(&http(
            "404 Not Found",
            "",
            r#"{"statusCode":404,"message":"Not Found"}"#,
        ))
        .await,
        KibanaDown,
        false,
        "path prefix",
    );
    let redacted = r#"{"status":{"overall":{"level":"available"}}}"#;
    check(
        &error_of(&http("200 OK", "", redacted)).await,
        KibanaAuth,
        false,
        "hides its version",
    );
    check(
        &error_of(&http("503 Down", "", redacted)).await,
        KibanaDown,
        true,
        "not ready",
    );
}

#[tokio::test]
async fn a_missing_route_is_not_a_missing_connector() {
    let kibana = Kibana::start("9.4.0").await;
    let error = kibana.client.get(&space("nowhere"), ID).await.unwrap_err();
    assert!(matches!(error, Error::NoSuchRoute { .. }), "{error}");
}

#[tokio::test]
async fn nobody_listens() {
    let raw = Raw::listen().await;
    let url = raw.url();
    drop(raw);
    let error = client(&url).status().await.unwrap_err();
    check(&error, FailureClass::KibanaDown, true, "cannot be reached");
}

#[tokio::test]
async fn an_internal_error_with_a_present_key_is_kibanas_own() {
    let kibana = Kibana::start("9.4.0").await;
    let fault = json!({"api": {"mode": "status", "status": 500, "path_contains": "/connector"}});
    kibana.fault(fault).await;
    let error = kibana.client.get(&space("default"), ID).await.unwrap_err();
    check(&error, FailureClass::KibanaDown, true, "failed (500)");
    assert_eq!(kibana.requests("alerting_health").await, 1);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    install_tls();
    for bad in [
        b"".as_slice(),
        b"nonsense",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let settings = Settings {
            ca_pem: Some(bad.to_vec()),
            ..settings("https://kibana")
        };
        let error = Client::new(settings).unwrap_err();
        check(&error, FailureClass::Agent, false, "settings");
    }
}
