//! What counts as a difference between a definition and a connector in Kibana.

use serde_json::{Map, Value, json};

use super::{URL, config, gen_ai, observed};

/// The fields that differ, in order.
fn differ(want: &Value, have: &Value, fields: &[&str]) {
    let differences = gen_ai().differences(&want.to_string(), " OpenAI ", &observed(have));
    assert_eq!(
        differences
            .iter()
            .map(|d| d.field.as_str())
            .collect::<Vec<_>>(),
        fields,
        "{want} {have} {differences:?}"
    );
}

#[test]
fn only_what_a_definition_says_is_compared() {
    let want = json!({"apiProvider": "OpenAI", "apiUrl": URL});
    let with = |extra: Value| {
        let mut config: Map<String, Value> = want.as_object().cloned().unwrap();
        config.extend(extra.as_object().cloned().unwrap());
        Value::Object(config)
    };
    differ(&want, &want, &[]);
    // Server defaults, nulls, empty maps, fields of a newer Kibana, a slash.
    differ(
        &want,
        &with(
            json!({"defaultModel": "gpt-4.1", "headers": null, "projectId": null, "newField": 1}),
        ),
        &[],
    );
    differ(
        &with(json!({"headers": {}})),
        &with(json!({"headers": {}})),
        &[],
    );
    differ(&want, &with(json!({"apiUrl": format!("{URL}/")})), &[]);
    differ(
        &with(json!({"contextWindowLength": 8000})),
        &with(json!({"contextWindowLength": 8000.0})),
        &[],
    );
    // What somebody changed.
    differ(
        &want,
        &with(json!({"apiUrl": "https://evil.example/v1/chat/completions"})),
        &["config.apiUrl"],
    );
    differ(
        &with(json!({"defaultModel": "gpt-5"})),
        &with(json!({"defaultModel": "gpt-4.1"})),
        &["config.defaultModel"],
    );
    differ(
        &with(json!({"defaultModel": "gpt-5"})),
        &want,
        &["config.defaultModel"],
    );
    differ(
        &want,
        &with(json!({"organizationId": "org-1", "temperature": 1})),
        &["config.organizationId", "config.temperature"],
    );
    differ(
        &with(json!({"headers": {"X": "a"}})),
        &with(json!({"headers": {"X": "b"}})),
        &["config.headers"],
    );
    differ(&want, &json!({}), &["config.apiProvider", "config.apiUrl"]);
    differ(&json!([]), &want, &["config"]);
}

#[test]
fn name_type_and_missing_secrets_are_compared() {
    let want = config(&json!({}));
    let mut observed = observed(&serde_json::from_str(&want).unwrap());
    observed.name = "Renamed".to_owned();
    observed.connector_type_id = ".webhook".to_owned();
    observed.is_missing_secrets = true;
    let differences = gen_ai().differences(&want, "OpenAI", &observed);
    assert_eq!(
        differences
            .iter()
            .map(|d| d.field.as_str())
            .collect::<Vec<_>>(),
        ["type", "displayName", "secrets"]
    );
    assert_eq!(
        differences[1].to_string(),
        "displayName is Renamed, should be OpenAI"
    );
}

#[test]
fn a_difference_shows_no_value_that_may_be_a_credential() {
    let want = config(&json!({"headers": {"X-Team": "soc"}}));
    let have = json!({"apiProvider": "OpenAI", "defaultModel": "gpt-4.1",
        "apiUrl": "https://u:canary@h/v1?key=canary", "headers": {"X-Team": "canary", "Authorization": "canary"}});
    let text = format!(
        "{:?}",
        gen_ai().differences(&want, "OpenAI", &observed(&have))
    );
    assert!(
        text.contains("config.headers")
            && text.contains("https://h/v1")
            && !text.contains("canary"),
        "{text}"
    );
}
