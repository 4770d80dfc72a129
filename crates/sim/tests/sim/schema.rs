//! Ids, config fields and error texts, version by version.

use serde_json::{Value, json};

use crate::support::{GOOD_KEY, ID, Sim, VERSIONS};

const URL: &str = "https://api.openai.com/v1/chat/completions";

#[tokio::test]
async fn ids_follow_the_version() {
    let slug = "the-soc-openai-connector";
    let cases: [(&str, &str, &str); 6] = [
        (ID, "8.9.0", ""),
        ("AAAAAAAA-3f9e-5c52-9d4e-0e6a7d1c9b11", "8.9.0", "9.4.0"),
        (slug, "9.4.0", ""),
        ("With_Capitals", "never", ""),
        ("under_score", "never", ""),
        ("a-slug-of-thirty-seven-characters-long", "never", ""),
    ];
    for version in VERSIONS {
        let kibana = Sim::kibana(version).await;
        for (id, since, until) in cases {
            let accepted =
                reached(version, since) && (until.is_empty() || !reached(version, until));
            let answer = kibana
                .send("POST", &format!("/api/actions/connector/{id}"), minimal())
                .await;
            let expected = if accepted { 200 } else { 400 };
            assert_eq!(answer.status, expected, "{version} {id}: {}", answer.body);
            if !accepted && !reached(version, "9.4.0") {
                assert!(
                    answer
                        .message()
                        .starts_with("Predefined IDs are not allowed"),
                    "{version} {id}"
                );
            }
        }
    }
}

#[tokio::test]
async fn before_8_8_there_is_no_id_in_the_path() {
    let kibana = Sim::kibana("8.7.1").await;
    let answer = kibana
        .send("POST", &format!("/api/actions/connector/{ID}"), minimal())
        .await;
    assert_eq!(answer.status, 404);
    // And 8.7 does not know the type yet.
    let answer = kibana
        .send("POST", "/api/actions/connector", minimal())
        .await;
    assert_eq!(
        (answer.status, answer.message()),
        (400, "Action type \".gen-ai\" is not registered.")
    );
}

#[tokio::test]
async fn config_fields_begin_with_their_version() {
    let cases: [(&str, &str, Value, &str); 17] = [
        ("OpenAI", "defaultModel", json!("gpt-4.1"), "8.11.0"),
        ("OpenAI", "headers", json!({ "x-team": "soc" }), "8.17.0"),
        ("OpenAI", "organizationId", json!("org-1"), "8.18.0"),
        ("OpenAI", "projectId", json!("proj_1"), "8.18.0"),
        ("OpenAI", "contextWindowLength", json!(128_000), "9.2.0"),
        ("OpenAI", "temperature", json!(0.2), "9.3.0"),
        ("OpenAI", "verificationMode", json!("none"), "never"),
        (
            "OpenAI",
            "enableNativeFunctionCalling",
            json!(true),
            "never",
        ),
        ("OpenAI", "ownedBy", json!("keyfleet"), "never"),
        ("Azure OpenAI", "defaultModel", json!("gpt-4.1"), "9.2.0"),
        ("Azure OpenAI", "organizationId", json!("org-1"), "never"),
        ("Azure OpenAI", "temperature", json!(1), "9.3.0"),
        ("Other", "defaultModel", json!("llama"), "8.17.0"),
        ("Other", "verificationMode", json!("certificate"), "9.1.0"),
        ("Other", "verificationMode", json!("sometimes"), "never"),
        ("Other", "enableNativeFunctionCalling", json!(true), "9.2.0"),
        ("Other", "contextWindowLength", json!("128k"), "never"),
    ];
    for version in VERSIONS {
        let kibana = Sim::kibana(version).await;
        for (provider, field, value, since) in &cases {
            let mut config = json!({ "apiProvider": provider, "apiUrl": URL });
            if *provider == "Other" {
                config["defaultModel"] = json!("llama");
            }
            config[*field] = value.clone();
            let answer = kibana
                .send("POST", "/api/actions/connector", with_config(&config))
                .await;
            let expected = if reached(version, since) { 200 } else { 400 };
            assert_eq!(
                answer.status, expected,
                "{version} {provider} {field}: {}",
                answer.body
            );
            if expected == 200 {
                assert_eq!(
                    answer.body["config"][*field], *value,
                    "{version} {provider} {field}"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_server_fills_in_the_default_model() {
    let cases = [
        ("8.9.0", Value::Null),
        ("8.11.0", json!("gpt-4")),
        ("8.18.0", json!("gpt-4o")),
        ("9.4.0", json!("gpt-4.1")),
    ];
    for (version, model) in cases {
        let kibana = Sim::kibana(version).await;
        let answer = kibana
            .send("POST", "/api/actions/connector", minimal())
            .await;
        assert_eq!(answer.body["config"]["defaultModel"], model, "{version}");
    }
}

#[tokio::test]
async fn error_texts_change_with_the_version() {
    let no_url = json!({ "apiProvider": "OpenAI" });
    let unknown = json!({ "apiProvider": "OpenAI", "apiUrl": URL, "a": 1, "b": 2 });
    let cases: [(&Value, &str, &str); 2] = [
        (
            &no_url,
            "[1.apiUrl]: expected value of type [string] but got [undefined]",
            "Field \"apiUrl\": Required",
        ),
        (
            &unknown,
            "[1.a]: definition for this key is missing",
            "Unrecognized keys: \"a\", \"b\"",
        ),
    ];
    for version in VERSIONS {
        let kibana = Sim::kibana(version).await;
        let zod = reached(version, "9.3.0");
        let noun = if zod { "connector" } else { "action" };
        for (config, classic_text, zod_text) in cases {
            let answer = kibana
                .send("POST", "/api/actions/connector", with_config(config))
                .await;
            let message = answer.message();
            assert_eq!(answer.status, 400);
            assert!(
                message.starts_with(&format!("error validating {noun} type config: ")),
                "{version}: {message}"
            );
            assert!(
                message.contains(if zod { zod_text } else { classic_text }),
                "{version}: {message}"
            );
        }
        let mut body = minimal();
        body["secrets"] = json!({});
        let answer = kibana.send("POST", "/api/actions/connector", body).await;
        assert_eq!(answer.status, 400);
        let start = format!("error validating {noun} type secrets: ");
        assert!(
            answer.message().starts_with(&start),
            "{version}: {}",
            answer.message()
        );
    }
}

#[tokio::test]
async fn bodies_are_strict() {
    let kibana = Sim::kibana("9.1.0").await;
    let url = json!({ "apiProvider": "OpenAI", "apiUrl": URL });
    let cases: [(Value, &str); 8] = [
        (
            json!({}),
            "[request body.name]: expected value of type [string] but got [undefined]",
        ),
        (
            json!({ "name": " ", "connector_type_id": ".gen-ai" }),
            "[request body.name]: value '' is not valid",
        ),
        (
            json!({ "name": "n", "connector_type_id": ".gen-ai", "config": null }),
            "[request body.config]: expected value of type [object] but got [null]",
        ),
        (
            json!({ "name": "n", "connector_type_id": ".gen-ai", "config": { "apiUrl": " " } }),
            "[request body.config.apiUrl]: value '' is not valid",
        ),
        (
            json!({ "name": "n", "connector_type_id": ".gen-ai", "config": { "headers": { "x": "" } } }),
            "[request body.config.headers.x]: value '' is not valid",
        ),
        (
            json!({ "name": "n", "connector_type_id": ".gen-ai", "config": url, "id": "x" }),
            "[request body.id]: definition for this key is missing",
        ),
        (
            json!({ "name": "n", "connector_type_id": ".nothing" }),
            "Action type \".nothing\" is not registered.",
        ),
        (
            json!([]),
            "[request body]: expected a plain object value, but found [Array] instead.",
        ),
    ];
    for (body, message) in cases {
        let answer = kibana.send("POST", "/api/actions/connector", body).await;
        assert_eq!((answer.status, answer.message()), (400, message));
        assert_eq!(answer.body["error"], "Bad Request");
    }
}

#[tokio::test]
async fn hosts_outside_the_allow_list_are_refused() {
    let options = keyfleet_sim::kibana::Options {
        allowed_hosts: vec!["api.openai.com".to_owned()],
        ..crate::support::options("9.0.0")
    };
    let kibana = Sim::kibana_with(options).await;
    let cases = [
        (URL, 200),
        ("https://llm.example.org/v1/chat/completions", 400),
        ("ftp://api.openai.com/", 400),
    ];
    for (url, status) in cases {
        let body = with_config(&json!({ "apiProvider": "OpenAI", "apiUrl": url }));
        let answer = kibana.send("POST", "/api/actions/connector", body).await;
        assert_eq!(answer.status, status, "{url}: {}", answer.body);
    }
}

#[tokio::test]
async fn certificates_are_secrets_from_9_1() {
    let secrets = [
        (
            json!({ "certificateData": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t", "privateKeyData": "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t" }),
            "9.1.0",
        ),
        (
            json!({ "certificateData": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t" }),
            "never",
        ),
        (json!({ "apiKey": "sk-x", "other": "y" }), "never"),
    ];
    for version in ["9.0.0", "9.1.0", "9.4.0"] {
        let kibana = Sim::kibana(version).await;
        for (secrets, since) in &secrets {
            let mut body = with_config(
                &json!({ "apiProvider": "Other", "apiUrl": URL, "defaultModel": "llama" }),
            );
            body["secrets"] = secrets.clone();
            let answer = kibana.send("POST", "/api/actions/connector", body).await;
            let expected = if reached(version, since) { 200 } else { 400 };
            assert_eq!(
                answer.status, expected,
                "{version} {secrets}: {}",
                answer.body
            );
        }
    }
}

/// Whether `version` is `since` or later; "never" is later than all.
fn reached(version: &str, since: &str) -> bool {
    let number = |text: &str| -> Option<(u32, u32)> {
        let mut parts = text.split('.').map(|part| part.parse().ok());
        Some((parts.next()??, parts.next()??))
    };
    number(since).is_some_and(|since| number(version).is_some_and(|version| version >= since))
}

/// The smallest valid create body.
fn minimal() -> Value {
    with_config(&json!({ "apiProvider": "OpenAI", "apiUrl": URL }))
}

fn with_config(config: &Value) -> Value {
    json!({
        "name": "OpenAI",
        "connector_type_id": ".gen-ai",
        "config": config,
        "secrets": { "apiKey": GOOD_KEY },
    })
}
