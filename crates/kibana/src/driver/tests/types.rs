//! What the types beside `.gen-ai` take, and where their calls go.

use serde_json::{Value, json};

use super::{
    AZURE_URL, BEDROCK, BEDROCK_URL, ENDPOINT, ENDPOINT_AZURE, GEMINI, GEMINI_URL, INFERENCE,
    INFERENCE_AZURE, KINDS, Kind, URL, least, observed, with,
};
use crate::driver::{Surface, driver};

/// The least config with these fields on top has just this problem; none: it is good.
fn check(kind: Kind, extra: &Value, field: &str, says: &str) {
    let text = with(least(kind), extra);
    let problems = driver(kind.0)
        .unwrap()
        .check(&text)
        .err()
        .unwrap_or_default();
    if field.is_empty() {
        assert!(problems.is_empty(), "{text}: {problems:?}");
        return;
    }
    assert_eq!(problems.len(), 1, "{text}: {problems:?}");
    assert_eq!(problems[0].field, field, "{text}");
    assert!(problems[0].problem.contains(says), "{text}: {problems:?}");
}

#[test]
fn the_least_config_of_each_is_good() {
    for kind in KINDS {
        check(kind, &json!({}), "", "");
    }
}

#[test]
fn a_url_of_amazon_is_the_host_of_the_region() {
    let plane = "https://bedrock.eu-west-1.amazonaws.com";
    let whole = format!("{BEDROCK_URL}/model/x/invoke");
    for (extra, says) in [
        (json!({"apiUrl": format!("{BEDROCK_URL}/")}), ""),
        (
            json!({"apiUrl": "https://gateway.example:8443", "region": "eu-west-1"}),
            "",
        ),
        (json!({"region": "eu-west-1"}), ""),
        (
            json!({"apiUrl": plane}),
            "https://bedrock-runtime.us-east-1.amazonaws.com",
        ),
        (json!({"apiUrl": whole}), BEDROCK_URL),
        (json!({"apiUrl": format!("{BEDROCK_URL}?a=b")}), BEDROCK_URL),
        (json!({"region": "us-east-1"}), "the same in both"),
        (json!({"apiUrl": "bedrock"}), "is not a URL"),
    ] {
        let field = if says.is_empty() { "" } else { "config.apiUrl" };
        check(BEDROCK, &extra, field, says);
    }
    let elsewhere = json!({"apiUrl": "https://gateway.example", "region": "eu west"});
    check(BEDROCK, &elsewhere, "config.region", "a name of letters");
    check(
        BEDROCK,
        &json!({"apiProvider": "x"}),
        "config.apiProvider",
        "known are apiUrl, defaultModel",
    );
}

#[test]
fn a_url_of_google_is_the_host_of_the_region() {
    for (extra, says) in [
        (json!({"apiUrl": "https://aiplatform.googleapis.com"}), ""),
        (json!({"apiUrl": "https://gateway.example/"}), ""),
        (json!({"gcpRegion": "us-central1"}), "the same in both"),
        (
            json!({"apiUrl": format!("{GEMINI_URL}/v1/projects")}),
            GEMINI_URL,
        ),
    ] {
        let field = if says.is_empty() { "" } else { "config.apiUrl" };
        check(GEMINI, &extra, field, says);
    }
    for bad in ["../../x", "a/b", "a?b", "a..b", "a b"] {
        check(
            GEMINI,
            &json!({"gcpProjectID": bad}),
            "config.gcpProjectID",
            "a name of letters",
        );
    }
    check(
        GEMINI,
        &json!({"gcpRegion": null}),
        "config.gcpRegion",
        "is missing",
    );
}

#[test]
fn an_inference_connector_names_service_and_task() {
    check(INFERENCE, &json!({"taskType": "chat_completion"}), "", "");
    for (field, value, says) in [
        ("provider", json!("cohere"), "write openai or azureopenai"),
        ("provider", json!(null), "is missing"),
        ("taskType", json!("rerank"), "completion, chat_completion"),
        ("inferenceId", json!("a/b"), "a name of letters"),
        ("providerConfig", json!(null), "is missing"),
        ("providerConfig", json!("x"), "a map of fields"),
    ] {
        let path = format!("config.{field}");
        check(INFERENCE, &json!({ field: value }), &path, says);
    }
}

#[test]
fn the_settings_of_a_service_are_fields_too() {
    let azure =
        |name: &str| json!({"resource_name": name, "deployment_id": "d", "api_version": "1"});
    let base = "https://api.openai.com/v1";
    let whole = json!({"model_id": "m", "url": URL, "organization_id": "o"});
    for (kind, settings, field, says) in [
        (INFERENCE, whole, "", ""),
        (INFERENCE, json!({"url": URL}), "model_id", "is missing"),
        (INFERENCE, json!({"model_id": " "}), "model_id", "is blank"),
        (
            INFERENCE,
            json!({"model_id": "m", "api_key": "x"}),
            "api_key",
            "known are model_id",
        ),
        (INFERENCE, json!({"model_id": "m", "url": base}), "url", URL),
        (INFERENCE_AZURE, azure("r"), "", ""),
        (
            INFERENCE_AZURE,
            azure("evil.example"),
            "resource_name",
            "digits and dashes",
        ),
    ] {
        let mut path = field.to_owned();
        if !field.is_empty() {
            path.insert_str(0, "config.providerConfig.");
        }
        check(kind, &json!({"providerConfig": settings}), &path, says);
    }
}

#[test]
fn an_endpoint_is_flat() {
    for (kind, field, value, says) in [
        (ENDPOINT, "modelId", json!(null), "is missing"),
        (
            ENDPOINT,
            "resourceName",
            json!("r"),
            "belongs to the provider azureopenai",
        ),
        (
            ENDPOINT,
            "url",
            json!("https://x/v1"),
            "https://x/v1/chat/completions",
        ),
        (
            ENDPOINT_AZURE,
            "resourceName",
            json!("evil.example"),
            "dashes",
        ),
    ] {
        let path = format!("config.{field}");
        check(kind, &json!({ field: value }), &path, says);
    }
}

#[test]
fn the_key_travels_to_the_host_that_is_called() {
    let at = |kind: Kind, extra: Value| {
        let url = driver(kind.0)
            .unwrap()
            .destination(&with(least(kind), &extra));
        url.map(|url| url.to_string()).unwrap_or_default()
    };
    let own = "https://llm.example/v1/chat/completions";
    assert_eq!(at(BEDROCK, json!({})), format!("{BEDROCK_URL}/"));
    assert_eq!(at(GEMINI, json!({})), format!("{GEMINI_URL}/"));
    assert_eq!(at(INFERENCE, json!({})), URL);
    assert_eq!(at(INFERENCE, json!({"providerConfig": {"url": own}})), own);
    assert_eq!(at(INFERENCE, json!({"providerConfig": {"url": "x"}})), "");
    assert_eq!(at(INFERENCE_AZURE, json!({})), AZURE_URL);
    assert_eq!(at(ENDPOINT, json!({})), URL);
    assert_eq!(at(ENDPOINT, json!({"url": own})), own);
    assert_eq!(at(ENDPOINT_AZURE, json!({})), AZURE_URL);
    assert_eq!(at(ENDPOINT_AZURE, json!({"resourceName": null})), "");
}

#[test]
fn only_an_inference_endpoint_is_kept_in_elasticsearch() {
    for kind in KINDS {
        let surface = driver(kind.0).unwrap().surface(&least(kind).to_string());
        let task = "completion".to_owned();
        let expected = match kind.0 {
            "inference-endpoint" => Surface::Elasticsearch { task },
            _ => Surface::Kibana,
        };
        assert_eq!(surface, expected, "{kind:?}");
    }
}

#[test]
fn an_endpoint_has_no_name_and_only_its_key_can_change() {
    let driver = driver(ENDPOINT.0).unwrap();
    let want = with(least(ENDPOINT), &json!({"organizationId": "org-1"}));
    let mut have = observed(&serde_json::from_str(&want).unwrap());
    have.connector_type_id = ENDPOINT.0.to_owned();
    have.name = have.id.clone();
    have.config.insert("url".to_owned(), json!(URL));
    assert_eq!(driver.differences(&want, "OpenAI", &have), []);
    assert_eq!(driver.check_update(&want, &have), Ok(()));

    have.config.insert("modelId".to_owned(), json!("gpt-5"));
    let differences = driver.differences(&want, "OpenAI", &have);
    assert_eq!(differences.len(), 1, "{differences:?}");
    let problem = driver.check_update(&want, &have).unwrap_err();
    assert_eq!(problem.field, "config.modelId");
    assert!(
        problem.problem.contains("make a new connector"),
        "{problem}"
    );
}

#[test]
fn what_differs_inside_a_map_is_named_with_its_path() {
    let driver = driver(INFERENCE.0).unwrap();
    let want = least(INFERENCE);
    let mut have = want.clone();
    have["providerConfig"]["url"] = json!(URL);
    have["taskTypeConfig"] = json!({});
    let mut shown = observed(&have);
    shown.connector_type_id = INFERENCE.0.to_owned();
    assert_eq!(driver.differences(&want.to_string(), "OpenAI", &shown), []);
    assert_eq!(driver.check_update(&want.to_string(), &shown), Ok(()));
    shown.config["providerConfig"]["model_id"] = json!("gpt-5");
    let differences = driver.differences(&want.to_string(), "OpenAI", &shown);
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert_eq!(differences[0].field, "config.providerConfig.model_id");
    // What may be changed in Kibana may be written again.
    assert_eq!(driver.check_update(&want.to_string(), &shown), Ok(()));
}
