//! The order of checks: which of several errors a client sees.

use serde_json::{Value, json};

use crate::support::{API_KEY, GOOD_KEY, ID, Sim, connector};

const URL: &str = "https://api.openai.com/v1/chat/completions";
const OTHER_ID: &str = "6f1f7a52-3f9e-5c52-9d4e-0e6a7d1c9b22";

#[tokio::test]
async fn a_create_is_checked_in_kibanas_order() {
    let kibana = Sim::kibana("9.2.0").await;
    kibana.connector(ID, URL, "gpt-4.1").await;
    let (good, bad_config, bad_secrets, bad_both) = bodies();
    let new = "/api/actions/connector";
    let slug = "/api/actions/connector/not-a-uuid";
    let taken = format!("/api/actions/connector/{ID}");
    let config = "error validating action type config";
    let secrets = "error validating action type secrets";
    let unlicensed = "Action type .gen-ai is disabled because your basic license";

    kibana.fault(json!({ "privilege": "read" })).await;
    refused(
        &kibana,
        ("POST", new, &json!({})),
        (400, "[request body.name]"),
    )
    .await;
    refused(
        &kibana,
        ("POST", new, &bad_both),
        (403, "Unauthorized to create a \".gen-ai\""),
    )
    .await;
    kibana.fault(json!({ "licence": "basic" })).await;
    refused(&kibana, ("POST", new, &bad_both), (400, config)).await;
    refused(&kibana, ("POST", new, &bad_secrets), (400, secrets)).await;
    refused(&kibana, ("POST", new, &good), (403, unlicensed)).await;
    refused(&kibana, ("POST", slug, &good), (403, unlicensed)).await;
    kibana
        .fault(json!({ "type_disabled": true, "licence": "basic" }))
        .await;
    refused(
        &kibana,
        ("POST", new, &good),
        (403, "action type \".gen-ai\" is not enabled"),
    )
    .await;
    kibana.clear().await;
    refused(&kibana, ("POST", slug, &good), (400, "Predefined IDs")).await;
    refused(&kibana, ("POST", &taken, &bad_config), (400, config)).await;
    refused(
        &kibana,
        ("POST", &taken, &good),
        (409, "Saved object [action/"),
    )
    .await;
}

#[tokio::test]
async fn an_update_is_checked_in_kibanas_order() {
    let kibana = Sim::kibana("9.2.0").await;
    kibana.connector(ID, URL, "gpt-4.1").await;
    let (good, bad_config, bad_secrets, bad_both) = bodies();
    let change =
        |body: &Value| json!({ "name": "n", "config": body["config"], "secrets": body["secrets"] });
    let stored = format!("/api/actions/connector/{ID}");
    let absent = format!("/api/actions/connector/{OTHER_ID}");
    let secrets = "error validating action type secrets";

    kibana.fault(json!({ "privilege": "read" })).await;
    refused(
        &kibana,
        ("PUT", &absent, &change(&good)),
        (403, "Unauthorized to update"),
    )
    .await;
    kibana.fault(json!({ "licence": "basic" })).await;
    refused(
        &kibana,
        ("PUT", &absent, &change(&bad_both)),
        (404, "Saved object"),
    )
    .await;
    refused(
        &kibana,
        ("PUT", &stored, &change(&bad_secrets)),
        (400, secrets),
    )
    .await;
    refused(
        &kibana,
        ("PUT", &stored, &change(&bad_config)),
        (400, "error validating"),
    )
    .await;
    refused(
        &kibana,
        ("PUT", &stored, &change(&good)),
        (403, "Action type .gen-ai"),
    )
    .await;
    kibana.fault(json!({ "type_disabled": true })).await;
    refused(
        &kibana,
        ("PUT", &stored, &change(&good)),
        (403, "action type \".gen-ai\""),
    )
    .await;
    // A type that is switched off can still be read and deleted.
    assert_eq!(kibana.send("GET", &stored, Value::Null).await.status, 200);
    assert_eq!(
        kibana.send("DELETE", &stored, Value::Null).await.status,
        204
    );
}

#[tokio::test]
async fn headers_are_checked_before_anything_else() {
    let kibana = Sim::kibana("9.1.0").await;
    let good = format!("authorization: ApiKey {API_KEY}");
    let cases = [
        (String::new(), 401, "Unauthorized"),
        (
            "authorization: ApiKey wrong".to_owned(),
            401,
            "[security_exception",
        ),
        (
            "authorization: Basic eDp5; kbn-xsrf: x".to_owned(),
            401,
            "[security_exception",
        ),
        (
            format!("{good}; content-type: application/json"),
            400,
            "Request must contain a kbn-xsrf",
        ),
        (
            format!("{good}; kbn-xsrf: x"),
            415,
            "Unsupported Media Type",
        ),
        (
            format!("{good}; kbn-version: 8.0.0; content-type: application/json"),
            400,
            "Browser client is out of date",
        ),
        (
            format!("{good}; kbn-xsrf: x; content-type: application/json"),
            400,
            "[request body.name]",
        ),
    ];
    for (headers, status, message) in cases {
        let pairs: Vec<_> = headers
            .split("; ")
            .filter_map(|pair| pair.split_once(": "))
            .collect();
        let body = Some("{}".to_owned());
        let answer = kibana
            .raw("POST", "/api/actions/connector", &pairs, body)
            .await
            .unwrap();
        assert_eq!(answer.status, status, "{headers}: {}", answer.body);
        assert!(
            answer.message().starts_with(message),
            "{headers}: {}",
            answer.message()
        );
    }
}

#[tokio::test]
async fn a_request_that_fits_nowhere_is_refused() {
    let kibana = Sim::kibana("9.1.0").await;
    let long = json!({ "name": "x".repeat(1_100_000) });
    refused(
        &kibana,
        ("POST", "/api/actions/connector", &long),
        (413, "Payload content"),
    )
    .await;
    let no_space = ("GET", "/s/nowhere/api/actions/connectors", &Value::Null);
    refused(&kibana, no_space, (404, "Not Found")).await;
    refused(
        &kibana,
        ("GET", "/internal/actions/connectors", &Value::Null),
        (400, "uri ["),
    )
    .await;
    refused(
        &kibana,
        ("GET", "/api/unheard/of", &Value::Null),
        (404, "Not Found"),
    )
    .await;
    refused(
        &kibana,
        ("PATCH", "/api/actions/connector/x", &Value::Null),
        (404, "Not Found"),
    )
    .await;
}

/// A valid create body, and three that are wrong in config, in secrets, in both.
fn bodies() -> (Value, Value, Value, Value) {
    let good = connector(URL, "gpt-4.1", GOOD_KEY);
    let (mut bad_config, mut bad_secrets) = (good.clone(), good.clone());
    bad_config["config"]["nonsense"] = json!(1);
    bad_secrets["secrets"] = json!({});
    let mut bad_both = bad_config.clone();
    bad_both["secrets"] = json!({});
    (good, bad_config, bad_secrets, bad_both)
}

async fn refused(kibana: &Sim, request: (&str, &str, &Value), expected: (u16, &str)) {
    let (method, path, body) = request;
    let answer = kibana.send(method, path, body.clone()).await;
    assert_eq!(
        answer.status, expected.0,
        "{method} {path}: {}",
        answer.body
    );
    assert!(
        answer.message().starts_with(expected.1),
        "{method} {path}: {}",
        answer.message()
    );
    assert_eq!(answer.body["statusCode"], expected.0);
}
