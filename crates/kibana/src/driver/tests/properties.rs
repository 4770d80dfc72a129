//! What holds for every driver input, good or bad.

use proptest::prelude::*;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::{AZURE_URL, KEY, URL, gen_ai, observed, since};
use crate::api::Execution;
use crate::version::Version;

/// Any config a person could write, good and bad, with every field present or absent.
fn any_config() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        12 => "[a-z0-9_-]{1,12}",
        1 => Just(String::new()),
        1 => Just(KEY.to_owned()),
        1 => any::<String>(),
    ];
    let url = prop_oneof![
        8 => Just(URL.to_owned()),
        4 => Just(AZURE_URL.to_owned()),
        1 => Just("https://api.openai.com/v1".to_owned()),
        1 => "[ -~]{0,40}",
    ];
    let headers = prop::collection::btree_map("[A-Za-z-]{1,8}", text.clone(), 0..3);
    let window = prop_oneof![6 => (1u32..1_000_000).prop_map(|n| json!(n)), 1 => any::<f64>().prop_map(|n| json!(n))];
    let temperature =
        prop_oneof![6 => (0.0..2.0).prop_map(|n: f64| json!(n)), 1 => Just(json!("x"))];
    let provider = prop_oneof![Just("OpenAI"), Just("Other"), Just("Azure OpenAI")];
    let good = (
        provider,
        url,
        prop::option::of(text.clone()),
        prop::option::of(headers),
    );
    let more = (
        prop::option::weighted(0.3, text.clone()),
        prop::option::weighted(0.3, text.clone()),
        prop::option::weighted(0.2, window),
    );
    let for_other = (
        prop::option::weighted(0.2, prop_oneof![Just("none"), Just("full"), Just("x")]),
        prop::option::weighted(0.2, any::<bool>()),
    );
    (
        good,
        more,
        for_other,
        prop::option::weighted(0.2, temperature),
        prop::option::weighted(0.1, text),
    )
        .prop_map(
            |(
                (provider, url, model, headers),
                (organization, project, window),
                (mode, calling),
                temperature,
                unknown,
            )| {
                let mut config = json!({"apiProvider": provider, "apiUrl": url});
                let mut set = |name: &str, value: Option<Value>| {
                    if let Some(value) = value {
                        config[name] = value;
                    }
                };
                set("defaultModel", model.map(Value::from));
                set("headers", headers.map(|headers| json!(headers)));
                set("organizationId", organization.map(Value::from));
                set("projectId", project.map(Value::from));
                set("contextWindowLength", window);
                set("verificationMode", mode.map(Value::from));
                set("enableNativeFunctionCalling", calling.map(Value::from));
                set("temperature", temperature);
                set("other", unknown.map(Value::from));
                config
            },
        )
}

fn any_version() -> impl Strategy<Value = Version> {
    (8u16..=9, 0u16..=20, 0u16..=3)
        .prop_map(|(major, minor, patch)| Version::new(major, minor, patch))
}

proptest! {
    #[test]
    fn the_secret_stays_in_secrets_and_no_field_is_too_new(
        config in any_config(), version in any_version(), name in ".{0,20}", key in prop_oneof![Just(KEY.to_owned()), "[!-~]{8,40}"]
    ) {
        let secret = SecretString::from(key.clone());
        let Ok(write) = gen_ai().render(&config.to_string(), &name, &secret, &version) else { return Ok(()) };
        let mut body: Value = serde_json::from_slice(&write.create_body()).unwrap();
        let secrets = body.as_object_mut().unwrap().remove("secrets").unwrap();
        prop_assert_eq!(&secrets, &json!({"apiKey": key}));
        prop_assert!(!texts(&body).iter().any(|text| text.contains(secret.expose_secret())), "{}", body);
        no_field_is_too_new(write.config(), version)?;
    }

    #[test]
    fn what_may_be_left_out_never_makes_a_connector_too_new(
        config in any_config(), version in any_version(), names in prop::sample::subsequence(OPTIONAL.to_vec(), 0..=8)
    ) {
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let text = gen_ai().for_version(&config.to_string(), &names, &version);
        prop_assert_eq!(&gen_ai().for_version(&text, &names, &version), &text);
        if gen_ai().check(&config.to_string()).is_err() {
            prop_assert_eq!(text, config.to_string());
            return Ok(());
        }
        let Ok(write) = gen_ai().render(&text, "OpenAI", &SecretString::from(KEY), &version) else { return Ok(()) };
        no_field_is_too_new(write.config(), version)?;
        for (name, value) in config.as_object().unwrap() {
            let is_kept = write.config().contains_key(name);
            let is_named = names.contains(name);
            let is_empty = value.as_object().is_some_and(serde_json::Map::is_empty);
            prop_assert!(is_kept || is_named || is_empty, "{name} is gone and nobody said so");
        }
    }

    #[test]
    fn a_rendered_connector_agrees_with_its_definition(config in any_config(), version in any_version()) {
        let config = config.to_string();
        let Ok(write) = gen_ai().render(&config, "OpenAI", &SecretString::from(KEY), &version) else { return Ok(()) };
        let observed = observed(&Value::Object(write.config().clone()));
        prop_assert_eq!(gen_ai().differences(&config, "OpenAI", &observed), vec![]);
        let canonical = gen_ai().canonical(&config).unwrap();
        prop_assert_eq!(gen_ai().differences(&canonical, "OpenAI", &observed), vec![]);
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in ".{0,80}", name in ".{0,20}") {
        let driver = gen_ai();
        let _ = (driver.check(&text), driver.canonical(&text), driver.probe(&text), driver.model(&text));
        let _ = driver.differences(&text, &name, &observed(&json!({"apiUrl": text})));
        let _ = driver.read_probe(&Execution { ok: false, status_code: None, message: text });
    }
}

const OPTIONAL: [&str; 8] = [
    "contextWindowLength",
    "defaultModel",
    "enableNativeFunctionCalling",
    "headers",
    "organizationId",
    "projectId",
    "temperature",
    "verificationMode",
];

fn no_field_is_too_new(config: &Map<String, Value>, version: Version) -> Result<(), TestCaseError> {
    let provider = config["apiProvider"].as_str().unwrap();
    for field in config.keys() {
        let first = since(provider, field).unwrap();
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
