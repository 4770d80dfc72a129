//! Runs: a real call to a simulated provider, and the envelope that comes back.

use serde_json::{Value, json};

use crate::support::{GOOD_KEY, ID, Sim, VERSIONS, connector, probe};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn a_run_calls_the_provider_with_the_stored_key_and_model() {
    let openai = Sim::openai().await;
    for version in VERSIONS.into_iter().filter(|version| *version != "8.9.0") {
        let kibana = Sim::kibana(version).await;
        kibana
            .connector(ID, &format!("{}{CHAT}", openai.url()), "gpt-4o")
            .await;
        let answer = kibana.execute(ID).await;
        assert_eq!(
            (answer.status, answer.body["status"].as_str()),
            (200, Some("ok")),
            "{}",
            answer.body
        );
        assert_eq!(answer.body["connector_id"], ID);
        assert_eq!(
            answer.body["data"]["choices"][0]["message"]["role"],
            "assistant"
        );
    }
    let log = openai.sim("/_sim/requests").await;
    assert_eq!(log[0]["body"]["model"], "gpt-4o");
    assert_eq!(log[0]["body"]["stream"], false);
    let keys = openai.sim("/_sim/keys").await;
    assert_eq!(
        (keys[0]["tail"].as_str(), keys[0]["uses"].as_u64()),
        (Some("MxYA"), Some(10))
    );
}

#[tokio::test]
async fn the_message_names_the_provider_s_status() {
    let openai = Sim::openai().await;
    let chat = format!("{}{CHAT}", openai.url());
    let bad_key = "sk-proj-unknown000000000000000000abcd";
    let cases: [(&str, &str, &str, &str); 5] = [
        (
            &chat,
            "gpt-4o",
            bad_key,
            "Status code: 401. Message: Unauthorized API Error - Incorrect API key provided: \
             sk-proj-*************************abcd. You can find",
        ),
        (
            &chat,
            "gpt-0",
            GOOD_KEY,
            "Status code: 404. Message: API Error: Not Found - The model `gpt-0` does not exist",
        ),
        (
            &format!("{}/v1", openai.url()),
            "gpt-4o",
            GOOD_KEY,
            "Status code: 404. Message: API Error: Not Found - Invalid URL (POST /v1)",
        ),
        (
            "http://127.0.0.1:1/v1/chat/completions",
            "gpt-4o",
            GOOD_KEY,
            "Status code: undefined. Message: Unexpected API Error: ECONNREFUSED",
        ),
        (
            &format!("{}/_sim/keys", openai.url()),
            "gpt-4o",
            GOOD_KEY,
            "Status code: 400. Message: API Error: Bad Request",
        ),
    ];
    let kibana = Sim::kibana("9.4.0").await;
    for (index, (url, model, key, message)) in cases.into_iter().enumerate() {
        let id = format!("case-{index}");
        kibana
            .send(
                "POST",
                &format!("/api/actions/connector/{id}"),
                connector(url, model, key),
            )
            .await;
        let answer = kibana.execute(&id).await;
        assert_eq!(
            (answer.status, answer.body["status"].as_str()),
            (200, Some("error")),
            "{url}"
        );
        assert_eq!(
            answer.message(),
            "an error occurred while running the action"
        );
        assert_eq!(
            (
                answer.body["retry"].as_bool(),
                answer.body["errorSource"].as_str()
            ),
            (Some(true), Some("framework"))
        );
        let service = answer.body["service_message"].as_str().unwrap();
        assert!(service.starts_with(message), "{url}: {service}");
    }
}

#[tokio::test]
async fn parameters_are_checked_before_the_call() {
    let openai = Sim::openai().await;
    for (version, no_sub_action) in [
        (
            "9.2.0",
            "error validating action params: [subAction]: expected value of type [string] but got [undefined]",
        ),
        (
            "9.4.0",
            "error validating action params: Field \"subAction\": Required",
        ),
    ] {
        let kibana = Sim::kibana(version).await;
        kibana
            .connector(ID, &format!("{}{CHAT}", openai.url()), "gpt-4o")
            .await;
        let path = format!("/api/actions/connector/{ID}/_execute");
        let answer = kibana.send("POST", &path, json!({})).await;
        let text = "[request body.params]: expected value of type [object] but got [undefined]";
        assert_eq!((answer.status, answer.message()), (400, text));
        let answer = kibana.send("POST", &path, json!({ "params": {} })).await;
        assert_eq!((answer.status, answer.message()), (200, no_sub_action));
        assert_eq!(answer.body["retry"], false);
        let cases = [
            (
                json!({ "subAction": "sing" }),
                "Sub action \"sing\" is not registered.",
            ),
            (
                json!({ "subAction": "test" }),
                "Request validation failed (Error: [body]",
            ),
            (
                json!({ "subAction": "run", "subActionParams": { "body": "{}", "model": "x" } }),
                "Request validation failed (Error: [model]: definition for this key is missing)",
            ),
        ];
        for (params, message) in cases {
            let answer = kibana
                .send("POST", &path, json!({ "params": params }))
                .await;
            let service = answer.body["service_message"].as_str().unwrap_or_default();
            assert!(service.starts_with(message), "{params}: {}", answer.body);
        }
        let elsewhere = kibana
            .send("POST", &format!("/s/soc{path}"), probe(Value::Null))
            .await;
        assert_eq!(elsewhere.status, 404);
    }
    assert_eq!(openai.count("class=chat").await, 0);
}

#[tokio::test]
async fn each_provider_gets_its_own_request() {
    let openai = Sim::openai().await;
    let kibana = Sim::kibana("9.4.0").await;
    let chat = format!("{}//v1/chat//completions/", openai.url());
    let azure = format!(
        "{}/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
        openai.url()
    );
    let cases = [
        // The path is cleaned up; Azure's key travels in its own header; `Other` gets no model from Kibana.
        (
            json!({ "apiProvider": "OpenAI", "apiUrl": chat, "organizationId": "org-1" }),
            Value::Null,
            "ok",
        ),
        (
            json!({ "apiProvider": "Azure OpenAI", "apiUrl": azure }),
            Value::Null,
            "ok",
        ),
        (
            json!({ "apiProvider": "OpenAI", "apiUrl": azure }),
            Value::Null,
            "error",
        ),
        (
            json!({ "apiProvider": "Azure OpenAI", "apiUrl": chat }),
            json!("gpt-4o"),
            "error",
        ),
        (
            json!({ "apiProvider": "Other", "apiUrl": chat, "defaultModel": "gpt-4o" }),
            Value::Null,
            "error",
        ),
        (
            json!({ "apiProvider": "Other", "apiUrl": chat, "defaultModel": "gpt-4o" }),
            json!("gpt-4o"),
            "ok",
        ),
        (
            json!({ "apiProvider": "OpenAI", "apiUrl": chat, "headers": { "Authorization": "Bearer sk-other" } }),
            Value::Null,
            "ok",
        ),
    ];
    for (index, (config, model, status)) in cases.into_iter().enumerate() {
        let mut body = connector(&chat, "", GOOD_KEY);
        body["config"] = config;
        let id = format!("provider-{index}");
        let created = kibana
            .send("POST", &format!("/api/actions/connector/{id}"), body)
            .await;
        assert_eq!(created.status, 200, "{}", created.body);
        let answer = kibana
            .send(
                "POST",
                &format!("/api/actions/connector/{id}/_execute"),
                probe(model),
            )
            .await;
        assert_eq!(answer.body["status"], status, "{index}: {}", answer.body);
    }
}

#[tokio::test]
async fn licence_type_and_privilege_stop_a_run() {
    let kibana = Sim::kibana("9.1.0").await;
    kibana.connector(ID, "http://127.0.0.1:1/", "gpt-4o").await;
    let cases = [
        (json!({ "licence": "basic" }), 403),
        (json!({ "type_disabled": true }), 403),
        (json!({ "privilege": "none" }), 403),
        (json!({ "privilege": "read" }), 200),
        (json!({ "encryption_key_missing": true }), 500),
    ];
    for (faults, status) in cases {
        kibana.fault(faults.clone()).await;
        assert_eq!(kibana.execute(ID).await.status, status, "{faults}");
    }
}
