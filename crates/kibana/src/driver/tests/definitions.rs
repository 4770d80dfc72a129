//! Which definitions are taken, by every Kibana and by one version.

use serde_json::{Value, json};

use super::{KEY, URL, azure, config, gen_ai, other, render, with};
use crate::version::Version;

/// `expected` holds, for each problem in order, its field and a part of its sentence.
fn check(config_json: &str, expected: &[(&str, &str)]) {
    let problems = gen_ai().check(config_json).err().unwrap_or_default();
    let same = problems.len() == expected.len()
        && problems
            .iter()
            .zip(expected)
            .all(|(is, (field, says))| is.field == *field && is.problem.contains(says));
    assert!(same, "{config_json}: {problems:?}");
    assert_eq!(
        gen_ai().canonical(config_json).is_ok(),
        expected.is_empty(),
        "{config_json}"
    );
}

/// A good config with one field changed (`value` is JSON, `null` removes it) has one problem, at `path`.
fn wrong(field: &str, value: &str, path: &str, says: &str) {
    let value: Value = serde_json::from_str(value).unwrap();
    check(&config(&json!({ field: value })), &[(path, says)]);
}

#[test]
fn good_definitions_are_taken() {
    for extra in [
        json!({}),
        json!({"defaultModel": null}),
        json!({"organizationId": "org-1", "projectId": "proj_1", "contextWindowLength": 8000.0}),
        json!({"temperature": 0, "headers": {"X-Team": "soc"}}),
        json!({"headers": {}}),
    ] {
        check(&config(&extra), &[]);
    }
}

#[test]
fn what_is_no_map_of_fields_is_refused() {
    for (text, says) in [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        (&"[".repeat(10_000), "is not JSON"),
        ("[]", "must be a map of fields, not a list"),
        ("null", "must be a map of fields, not nothing"),
    ] {
        check(text, &[("config", says)]);
    }
}

#[test]
fn a_wrong_field_is_named_with_what_to_write() {
    for (field, value, says) in [
        (
            "apiProvider",
            "null",
            "is missing; write OpenAI or Azure OpenAI or Other",
        ),
        ("apiProvider", r#""openai""#, "not a provider"),
        ("apiProvider", "1", "not a provider"),
        ("apiUrl", "null", "is missing"),
        (
            "apiUrl",
            r#""https://api.openai.com/v1""#,
            "write https://api.openai.com/v1/chat",
        ),
        ("apiUrl", r#""nonsense""#, "is not a URL"),
        ("defaultModel", r#"" ""#, "is blank"),
        ("defaultModel", r#""a\nb""#, "control character"),
        ("defaultModel", "4", "must be a text, not 4"),
        ("defaultModel", r#"["a"]"#, "not a list"),
        ("temperature", "2.5", "from 0 to 2, not 2.5"),
        ("temperature", r#""hot""#, "not a text"),
        ("contextWindowLength", "0", "whole number from 1"),
        ("contextWindowLength", "1.5", "whole number"),
        ("headers", r#""X: y""#, "must be a map"),
        ("apiKey", r#""sk-proj-canary""#, "not a field"),
        (
            "model",
            r#""x""#,
            "known are apiProvider, apiUrl, defaultModel",
        ),
        (
            "verificationMode",
            r#""full""#,
            "belongs to the provider Other",
        ),
    ] {
        wrong(field, value, &format!("config.{field}"), says);
    }
    check(
        r#"{"apiProvider":"OpenAI","apiUrl":null}"#,
        &[("config.apiUrl", "remove the line")],
    );
}

#[test]
fn a_header_must_be_one_and_hold_no_credential() {
    for (name, value, says) in [
        ("Authorization", r#""Bearer canary""#, "credential"),
        ("API-Key", r#""canary""#, "credential"),
        ("a b", r#""x""#, "not the name"),
        ("X", r#""""#, "is blank"),
        ("X", r#""ü""#, "ASCII"),
        ("X", "1", "must be a text, not a number"),
        ("X", "null", "must be a text, not nothing"),
    ] {
        wrong(
            "headers",
            &format!(r#"{{"{name}":{value}}}"#),
            &format!("config.headers.{name}"),
            says,
        );
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let text = r#"{"apiProvider":"OpenAI","temperature":"x","zzz":1}"#;
    check(
        text,
        &[
            ("config.temperature", "number"),
            ("config.zzz", "not a field"),
            ("config.apiUrl", "is missing"),
        ],
    );
}

#[test]
fn equal_meaning_has_one_text() {
    let one = r#"{"temperature":0.20,"apiUrl":" https://x/v1/chat/completions ","apiProvider":"OpenAI","headers":{},"contextWindowLength":8000.0}"#;
    let two = r#"{ "apiProvider": "OpenAI", "contextWindowLength": 8000,
                   "temperature": 0.2, "apiUrl": "https://x/v1/chat/completions" }"#;
    let text = gen_ai().canonical(one).unwrap();
    assert_eq!(gen_ai().canonical(two).unwrap(), text);
    assert_eq!(gen_ai().canonical(&text).unwrap(), text);
    assert_eq!(
        text,
        r#"{"apiProvider":"OpenAI","apiUrl":"https://x/v1/chat/completions","contextWindowLength":8000,"temperature":0.2}"#
    );
}

#[test]
fn each_provider_has_its_own_rules() {
    let azure = |extra: Value| with(azure(), &extra);
    let other = |extra: Value| with(other(), &extra);
    check(&azure(json!({})), &[]);
    check(
        &azure(json!({"apiUrl": URL})),
        &[("config.apiUrl", "/openai/deployments/DEPLOYMENT/chat")],
    );
    check(
        &azure(json!({"organizationId": "org-1"})),
        &[("config.organizationId", "belongs to the provider OpenAI")],
    );
    check(&other(json!({"verificationMode": "none"})), &[]);
    check(
        &other(json!({"verificationMode": "off"})),
        &[("config.verificationMode", "full, certificate, none")],
    );
    check(
        &other(json!({"defaultModel": " "})),
        &[("config.defaultModel", "remove the line")],
    );
    check(
        r#"{"apiProvider":"Other","apiUrl":"http://x/v1/chat/completions"}"#,
        &[("config.defaultModel", "is missing")],
    );
    check(
        &other(json!({"apiUrl": "http://llm.example/v1"})),
        &[(
            "config.apiUrl",
            "write http://llm.example/v1/chat/completions",
        )],
    );
    check(
        &other(json!({"caData": "x"})),
        &[("config.caData", "not a field")],
    );
}

#[test]
fn a_key_or_name_that_cannot_work_is_refused_without_repeating_it() {
    for (name, key, field) in [
        ("OpenAI", "", "secrets.apiKey"),
        ("OpenAI", "sk-canary\n", "secrets.apiKey"),
        ("OpenAI", "sk-cänary", "secrets.apiKey"),
        ("OpenAI", "sk-admin-canary", "secrets.apiKey"),
        ("with sk-canary-in-it", "sk-canary-in-it", "secrets.apiKey"),
        (" ", KEY, "displayName"),
        ("a\nb", KEY, "displayName"),
    ] {
        let outcome = render(&config(&json!({})), name, key, &Version::new(9, 4, 0));
        let problems = outcome.unwrap_err();
        assert_eq!(problems.len(), 1, "{name} {problems:?}");
        assert_eq!(problems[0].field, field, "{name}");
        assert!(!format!("{problems:?}").contains("canary"), "{problems:?}");
    }
}
