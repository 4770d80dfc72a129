//! The fault switches of Kibana and its request log.

use serde_json::{Value, json};

use crate::support::{GOOD_KEY, ID, Sim, connector, options, probe};

const URL: &str = "http://127.0.0.1:1/v1/chat/completions";
const LIST: &str = "/api/actions/connectors";

#[tokio::test]
async fn a_broken_connection_is_no_answer() {
    let kibana = Sim::kibana("9.4.0").await;
    for mode in ["down", "half_closed", "write_then_fail"] {
        kibana.fault(json!({ "api": { "mode": mode } })).await;
        let error = kibana.try_send("GET", LIST, Value::Null).await.unwrap_err();
        assert!(!error.is_timeout(), "{mode}: {error}");
    }
    kibana.clear().await;
    assert_eq!(kibana.send("GET", LIST, Value::Null).await.status, 200);
}

#[tokio::test]
async fn half_closed_sends_the_head_first() {
    let kibana = Sim::kibana("9.4.0").await;
    kibana
        .fault(json!({ "api": { "mode": "half_closed" } }))
        .await;
    let error = kibana
        .try_send("GET", "/api/status", Value::Null)
        .await
        .unwrap_err();
    assert!(error.is_body() || error.is_decode(), "{error:?}");
}

#[tokio::test]
async fn a_write_may_be_done_without_an_answer() {
    let kibana = Sim::kibana("9.4.0").await;
    let path = format!("/api/actions/connector/{ID}");
    for (mode, stored) in [("down", 0), ("write_then_fail", 1), ("half_closed", 1)] {
        kibana
            .fault(json!({ "api": { "mode": mode, "methods": ["post"] } }))
            .await;
        kibana
            .try_send("POST", &path, connector(URL, "gpt-4.1", GOOD_KEY))
            .await
            .unwrap_err();
        let list = kibana.send("GET", LIST, Value::Null).await.body;
        assert_eq!(list.as_array().map(Vec::len), Some(stored), "{mode}");
        kibana.clear().await;
        kibana.send("DELETE", &path, Value::Null).await;
    }
}

#[tokio::test]
async fn hang_ends_with_the_client_s_patience() {
    let kibana = Sim::kibana("9.4.0").await;
    kibana.fault(json!({ "api": { "mode": "hang" } })).await;
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(std::time::Duration::from_millis(100))
        .build()
        .unwrap();
    let error = http
        .get(format!("{}{LIST}", kibana.url()))
        .send()
        .await
        .unwrap_err();
    assert!(error.is_timeout(), "{error}");
    let log = kibana.sim("/_sim/requests").await;
    assert_eq!(
        (log[0]["path"].as_str(), &log[0]["status"]),
        (Some(LIST), &Value::Null)
    );
    // A hanging request does not hold up the end.
    kibana.server.shutdown().await;
}

#[tokio::test]
async fn a_slow_write_is_done_even_when_the_client_has_gone() {
    let kibana = Sim::kibana("9.4.0").await;
    let slow = json!({ "mode": "slow", "delay_ms": 60_000, "methods": ["POST"] });
    kibana.fault(json!({ "api": slow })).await;
    let path = format!("/api/actions/connector/{ID}");
    let body = connector(URL, "gpt-4.1", GOOD_KEY);
    let write = kibana.send("POST", &path, body);
    tokio::time::timeout(std::time::Duration::from_millis(200), write)
        .await
        .unwrap_err();
    assert_eq!(kibana.send("GET", &path, Value::Null).await.status, 200);
}

#[tokio::test]
async fn an_answer_may_be_anything_but_the_right_one() {
    let kibana = Sim::kibana("9.4.0").await;
    kibana
        .fault(json!({ "api": { "mode": "status", "status": 429, "retry_after_secs": 7 } }))
        .await;
    let answer = kibana.send("GET", LIST, Value::Null).await;
    assert_eq!(
        (answer.status, answer.body["error"].as_str()),
        (429, Some("Too Many Requests"))
    );
    assert_eq!(answer.headers["retry-after"], "7");

    kibana.fault(json!({ "api": { "mode": "html" } })).await;
    let answer = kibana.send("GET", LIST, Value::Null).await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.as_str().unwrap().contains("not ready yet"));

    kibana
        .fault(json!({ "api": { "mode": "slow", "delay_ms": 30 } }))
        .await;
    let begun = std::time::Instant::now();
    assert_eq!(kibana.send("GET", LIST, Value::Null).await.status, 200);
    assert!(begun.elapsed().as_millis() >= 30);
}

#[tokio::test]
async fn a_fault_may_have_a_scope_and_an_end() {
    let kibana = Sim::kibana("9.4.0").await;
    let fault = json!({ "mode": "status", "status": 500, "methods": ["GET"], "path_contains": "connectors", "remaining": 2 });
    kibana.fault(json!({ "api": fault })).await;
    let mut seen = Vec::new();
    for path in ["/api/status", LIST, "/s/soc/api/actions/connectors", LIST] {
        seen.push(kibana.send("GET", path, Value::Null).await.status);
    }
    assert_eq!(seen, [200, 500, 500, 200]);
    assert_eq!(kibana.sim("/_sim/faults").await["api"], Value::Null);
}

#[tokio::test]
async fn a_wrong_switch_is_refused_with_a_reason() {
    let kibana = Sim::kibana("9.4.0").await;
    let cases = [
        (json!({ "license": "basic" }), "unknown field `license`"),
        (
            json!({ "api": { "mode": "sleepy" } }),
            "unknown variant `sleepy`",
        ),
        (
            json!({ "api": { "mode": "down", "model": "x" } }),
            "unknown field `model`",
        ),
        (
            json!({ "api": { "mode": "down", "remaining": 0 } }),
            "nonzero",
        ),
        (json!({ "upgrade_to": "10.0.0" }), "not a Kibana version"),
    ];
    for (faults, text) in cases {
        let answer = kibana
            .raw("PUT", "/_sim/faults", &[], Some(faults.to_string()))
            .await
            .unwrap();
        let error = answer.body["error"].as_str().unwrap_or_default().to_owned();
        assert_eq!(answer.status, 400, "{faults}");
        assert!(error.contains(text), "{faults}: {error}");
    }
    let answer = kibana.raw("GET", "/_sim/nothing", &[], None).await.unwrap();
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn the_provider_may_fail_without_being_called() {
    let openai = Sim::openai().await;
    let options = keyfleet_sim::kibana::Options {
        provider_timeout: std::time::Duration::from_millis(20),
        ..options("9.4.0")
    };
    let kibana = Sim::kibana_with(options).await;
    kibana
        .connector(
            ID,
            &format!("{}/v1/chat/completions", openai.url()),
            "gpt-4o",
        )
        .await;
    let cases = [
        (
            json!({ "status": 401 }),
            "Status code: 401. Message: Unauthorized API Error - Incorrect API key",
            "framework",
        ),
        (
            json!({ "status": 429 }),
            "Status code: 429. Message: API Error: Too Many Requests - Rate",
            "user",
        ),
        (
            json!({ "status": 503, "message": "no" }),
            "Status code: 503. Message: API Error: Service Unavailable - no",
            "framework",
        ),
        (
            json!({ "mode": "network" }),
            "Status code: undefined. Message: Unexpected API Error: ECONNREFUSED",
            "framework",
        ),
        (
            json!({ "mode": "timeout" }),
            "Status code: undefined. Message: Unexpected API Error: ECONNABORTED - timeout of 20ms",
            "framework",
        ),
    ];
    for (fault, message, source) in cases {
        kibana.fault(json!({ "provider": fault })).await;
        let answer = kibana.execute(ID).await;
        let service = answer.body["service_message"].as_str().unwrap_or_default();
        assert!(service.starts_with(message), "{fault}: {}", answer.body);
        assert_eq!(
            (answer.status, answer.body["errorSource"].as_str()),
            (200, Some(source))
        );
    }
    assert_eq!(openai.count("class=chat").await, 0);

    // Only for one model, and only once.
    kibana
        .fault(json!({ "provider": { "status": 404, "model": "gpt-5.4", "remaining": 1 } }))
        .await;
    assert_eq!(kibana.execute(ID).await.body["status"], "ok");
    let path = format!("/api/actions/connector/{ID}/_execute");
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(
            kibana
                .send("POST", &path, probe(json!("gpt-5.4")))
                .await
                .body["status"]
                .clone(),
        );
    }
    assert_eq!(seen, ["error", "ok"]);
}

#[tokio::test]
async fn damaged_secrets_are_repaired_by_a_put() {
    let openai = Sim::openai().await;
    let kibana = Sim::kibana("9.4.0").await;
    let path = format!("/api/actions/connector/{ID}");
    let body = connector(
        &format!("{}/v1/chat/completions", openai.url()),
        "gpt-4o",
        GOOD_KEY,
    );
    kibana.send("POST", &path, body.clone()).await;
    let change = json!({ "name": "n", "config": body["config"], "secrets": body["secrets"] });
    for (fault, missing, run) in [
        ("undecryptable", false, 500),
        ("secrets_missing", true, 200),
    ] {
        kibana.fault(json!({ fault: true })).await;
        let read = kibana.send("GET", &path, Value::Null).await;
        assert_eq!(
            (read.status, read.body["is_missing_secrets"].as_bool()),
            (200, Some(missing))
        );
        let answer = kibana.execute(ID).await;
        assert_eq!(answer.status, run, "{fault}");
        assert_ne!(answer.body["status"], "ok");
        assert_eq!(
            kibana.send("PUT", &path, change.clone()).await.body["is_missing_secrets"],
            false
        );
        assert_eq!(kibana.execute(ID).await.body["status"], "ok", "{fault}");
    }
}

#[tokio::test]
async fn without_an_encryption_key_no_actions_route_works() {
    let kibana = Sim::kibana("9.4.0").await;
    kibana
        .fault(json!({ "encryption_key_missing": true }))
        .await;
    for path in [
        LIST,
        "/api/actions/connector_types",
        "/api/actions/connector/x",
    ] {
        assert_eq!(
            kibana.send("GET", path, Value::Null).await.status,
            500,
            "{path}"
        );
    }
    let health = kibana
        .send("GET", "/api/alerting/_health", Value::Null)
        .await;
    assert_eq!(
        (
            health.status,
            health.body["has_permanent_encryption_key"].as_bool()
        ),
        (200, Some(false))
    );
    assert_eq!(
        kibana.send("GET", "/api/status", Value::Null).await.status,
        200
    );
}

#[tokio::test]
async fn an_upgrade_changes_the_rules_and_keeps_the_connectors() {
    let kibana = Sim::kibana("9.3.0").await;
    kibana.connector(ID, URL, "gpt-4.1").await;
    let slug = "/api/actions/connector/a-slug";
    assert_eq!(
        kibana
            .send("POST", slug, connector(URL, "gpt-4.1", GOOD_KEY))
            .await
            .status,
        400
    );
    kibana.fault(json!({ "upgrade_to": "9.6.0" })).await;
    kibana.clear().await;
    assert_eq!(
        kibana.send("GET", "/api/status", Value::Null).await.body["version"]["number"],
        "9.6.0"
    );
    assert_eq!(
        kibana
            .send("GET", &format!("/api/actions/connector/{ID}"), Value::Null)
            .await
            .status,
        200
    );
    assert_eq!(
        kibana
            .send("POST", slug, connector(URL, "gpt-4.1", GOOD_KEY))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn the_log_counts_exactly_and_forgets_the_oldest() {
    let options = keyfleet_sim::kibana::Options {
        log_capacity: 4,
        ..options("9.4.0")
    };
    let kibana = Sim::kibana_with(options).await;
    let path = format!("/s/soc/api/actions/connector/{ID}");
    kibana
        .send("POST", &path, connector(URL, "gpt-4.1", GOOD_KEY))
        .await;
    for _ in 0..3 {
        kibana.send("GET", &path, Value::Null).await;
    }
    assert_eq!(kibana.count("path_contains=/s/soc/").await, 4);
    for _ in 0..3 {
        kibana.send("GET", LIST, Value::Null).await;
    }
    assert_eq!(kibana.count("method=GET").await, 6);
    assert_eq!(kibana.count("method=post&class=connector").await, 1);
    assert_eq!(kibana.count("").await, 7);
    let kept = kibana
        .sim("/_sim/requests/count?path_contains=/s/soc/")
        .await;
    assert_eq!(kept, json!({ "count": 1, "exact": false }));

    let log = kibana.sim("/_sim/requests?space=soc").await;
    assert_eq!(
        (log[0]["connector_id"].as_str(), log[0]["status"].as_u64()),
        (Some(ID), Some(200))
    );
    assert_eq!(
        (log[0]["class"].as_str(), log[0]["seq"].as_u64()),
        (Some("connector"), Some(3))
    );
    assert_eq!(
        kibana
            .raw("GET", "/_sim/requests?verb=GET", &[], None)
            .await
            .unwrap()
            .status,
        400
    );
    kibana
        .raw("DELETE", "/_sim/requests", &[], None)
        .await
        .unwrap();
    assert_eq!(kibana.count("").await, 0);
}

#[tokio::test]
async fn many_kibanas_fit_in_one_process() {
    let client = keyfleet_sim::kibana::provider_client().unwrap();
    let mut fleet = Vec::new();
    for _ in 0..200 {
        let options = keyfleet_sim::kibana::Options {
            client: Some(client.clone()),
            ..options("9.4.0")
        };
        fleet.push(keyfleet_sim::kibana::start(options).await.unwrap());
    }
    for server in fleet {
        let status = client
            .get(format!("{}/api/status", server.url()))
            .send()
            .await
            .unwrap();
        assert_eq!(status.status(), 200);
        server.shutdown().await;
    }
}
