//! What holds for every driver input, good or bad.

use proptest::prelude::*;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::{
    AZURE_URL, BEDROCK_URL, GEMINI_URL, KEY, KINDS, Kind, URL, fields_of, key_of, least, observed,
    since, usual,
};
use crate::api::Execution;
use crate::driver::{KeyValue, driver};
use crate::version::Version;

fn any_kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(KINDS.to_vec())
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => "[a-z0-9_-]{1,12}",
        2 => Just(KEY.to_owned()),
        2 => Just(URL.to_owned()),
        1 => Just(AZURE_URL.to_owned()),
        1 => Just(BEDROCK_URL.to_owned()),
        1 => Just(GEMINI_URL.to_owned()),
        1 => "[ -~]{0,40}",
        1 => any::<String>(),
    ]
}

/// A value that a field may have or not.
fn any_value(field: &'static str) -> BoxedStrategy<Value> {
    let good = super::value_of(field);
    let text = any_text().prop_map(Value::from);
    let headers = prop::collection::btree_map("[A-Za-z-]{1,8}", any_text(), 0..3);
    let odd = prop_oneof![
        3 => text,
        1 => headers.prop_map(|headers| json!(headers)),
        1 => any::<f64>().prop_map(|number| json!(number)),
        1 => any::<bool>().prop_map(Value::from),
        1 => (0.0..2.0).prop_map(|number: f64| json!(number)),
        1 => (1u32..1_000_000).prop_map(Value::from),
        1 => Just(json!("chat_completion")),
    ];
    match good {
        Some(good) => prop_oneof![4 => Just(good), 1 => odd].boxed(),
        None => odd.boxed(),
    }
}

/// Any config a person could write for a type, good and bad, with every field present or absent.
fn any_config(kind: Kind) -> BoxedStrategy<Value> {
    let mut config = Just(least(kind)).boxed();
    for (field, _) in fields_of(kind) {
        let is_needed = least(kind).get(field).is_some();
        let weight = if is_needed { 0.03 } else { 0.25 };
        let value = prop::option::weighted(weight, any_value(field));
        config = (config, value)
            .prop_map(|(mut config, value)| {
                if let Some(value) = value {
                    config[*field] = value;
                }
                config
            })
            .boxed();
    }
    let unknown = prop::option::weighted(0.05, any_text());
    (config, unknown)
        .prop_map(|(mut config, unknown)| {
            if let Some(unknown) = unknown {
                config["other"] = json!(unknown);
            }
            config
        })
        .boxed()
}

fn any_definition() -> impl Strategy<Value = (Kind, Value)> {
    any_kind().prop_flat_map(|kind| any_config(kind).prop_map(move |config| (kind, config)))
}

fn any_version() -> impl Strategy<Value = Version> {
    (8u16..=9, 0u16..=20, 0u16..=3)
        .prop_map(|(major, minor, patch)| Version::new(major, minor, patch))
}

/// The texts that make up a value.
fn parts_of(value: &SecretString, parts: &[String]) -> Vec<String> {
    if parts.is_empty() {
        return vec![value.expose_secret().to_owned()];
    }
    let value: Map<String, Value> = serde_json::from_str(value.expose_secret()).unwrap();
    let texts = value.values().map(|text| text.as_str().unwrap().to_owned());
    texts.collect()
}

proptest! {
    #[test]
    fn the_secret_stays_in_secrets_and_no_field_is_too_new(
        (kind, config) in any_definition(), version in any_version(), name in ".{0,20}", key in prop::option::of("[!-~]{8,40}")
    ) {
        let driver = driver(kind.0).unwrap();
        let (mut value, parts) = key_of(kind);
        if let (Some(key), true) = (key, parts.is_empty()) {
            value = SecretString::from(key);
        }
        let given = KeyValue { text: &value, parts: &parts };
        let Ok(write) = driver.render(&config.to_string(), &name, &given, &version) else { return Ok(()) };
        let mut bodies = Vec::new();
        for body in [write.create_body(), write.update_body()] {
            let mut body: Value = serde_json::from_slice(&body).unwrap();
            body.as_object_mut().unwrap().remove("secrets").unwrap();
            bodies.push(body);
        }
        for body in [write.create_endpoint_body(), write.update_endpoint_body()] {
            let mut body: Value = serde_json::from_slice(&body).unwrap();
            let settings = body["service_settings"].as_object_mut().unwrap();
            let secret_names = ["api_key", "apiKey", "accessKey", "secret", "credentialsJson"];
            for secret in secret_names {
                settings.remove(secret);
            }
            bodies.push(body);
        }
        for body in bodies {
            let is_open = |text: &String| parts_of(&value, &parts).iter().any(|part| text.contains(part));
            prop_assert!(!texts(&body).iter().any(is_open), "{}", body);
        }
        // The config is shown, and it may hold what only looks like a key.
        let shown = format!("{write:?}");
        prop_assert!(!parts_of(&value, &parts).iter().any(|part| shown.contains(part)), "{}", shown);
        no_field_is_too_new(kind, write.config(), version)?;
    }

    #[test]
    fn what_may_be_left_out_never_makes_a_connector_too_new(
        (kind, config) in any_definition(), version in any_version(), names in prop::sample::subsequence(OPTIONAL.to_vec(), 0..=9)
    ) {
        let driver = driver(kind.0).unwrap();
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let text = driver.for_version(&config.to_string(), &names, &version);
        prop_assert_eq!(&driver.for_version(&text, &names, &version), &text);
        if driver.check(&config.to_string()).is_err() {
            prop_assert_eq!(text, config.to_string());
            return Ok(());
        }
        let (value, parts) = key_of(kind);
        let given = KeyValue { text: &value, parts: &parts };
        let Ok(write) = driver.render(&text, "OpenAI", &given, &version) else { return Ok(()) };
        no_field_is_too_new(kind, write.config(), version)?;
        for (name, value) in config.as_object().unwrap() {
            let is_kept = write.config().contains_key(name);
            let is_named = names.contains(name);
            let is_empty = value.as_object().is_some_and(serde_json::Map::is_empty);
            prop_assert!(is_kept || is_named || is_empty, "{name} is gone and nobody said so");
        }
    }

    #[test]
    fn a_rendered_connector_agrees_with_its_definition((kind, config) in any_definition(), version in any_version()) {
        let driver = driver(kind.0).unwrap();
        let config = config.to_string();
        let (value, parts) = key_of(kind);
        let given = KeyValue { text: &value, parts: &parts };
        let Ok(write) = driver.render(&config, "OpenAI", &given, &version) else { return Ok(()) };
        let mut observed = observed(&Value::Object(write.config().clone()));
        observed.connector_type_id = kind.0.to_owned();
        prop_assert_eq!(driver.differences(&config, "OpenAI", &observed), vec![]);
        prop_assert_eq!(driver.check_update(&config, &observed), Ok(()));
        let canonical = driver.canonical(&config).unwrap();
        prop_assert_eq!(driver.differences(&canonical, "OpenAI", &observed), vec![]);
    }

    #[test]
    fn any_text_is_read_without_a_panic(kind in any_kind(), text in ".{0,80}", name in ".{0,20}") {
        let driver = driver(kind.0).unwrap();
        let _ = (driver.check(&text), driver.canonical(&text), driver.probe(&text, &usual()), driver.model(&text));
        let _ = (driver.secret_parts(&text), driver.surface(&text), driver.destination(&text));
        let _ = driver.differences(&text, &name, &observed(&json!({"apiUrl": text, "providerConfig": text})));
        let key = SecretString::from(text.clone());
        let parts = [name];
        let _ = driver.render(&least(kind).to_string(), "x", &KeyValue { text: &key, parts: &parts }, &Version::new(9, 6, 0));
        let _ = driver.render(&least(kind).to_string(), "x", &KeyValue::plain(&key), &Version::new(9, 6, 0));
        let _ = driver.read_probe(&Execution { ok: false, status_code: None, message: text });
    }
}

const OPTIONAL: [&str; 9] = [
    "contextWindowLength",
    "defaultModel",
    "enableNativeFunctionCalling",
    "headers",
    "organizationId",
    "projectId",
    "region",
    "temperature",
    "verificationMode",
];

fn no_field_is_too_new(
    kind: Kind,
    config: &Map<String, Value>,
    version: Version,
) -> Result<(), TestCaseError> {
    for field in config.keys() {
        let first = since(kind, field).unwrap();
        prop_assert!(
            (version.major, version.minor) >= first,
            "{field} on {version}"
        );
    }
    Ok(())
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Object(map) => map
            .iter()
            .flat_map(|(name, value)| [vec![name.clone()], texts(value)].concat())
            .collect(),
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => vec![value.to_string()],
    }
}
