//! What a Kibana is too old for: refused, or left out where the definition says so.

use secrecy::SecretString;
use serde_json::{Value, json};

use super::{KEY, SINCE, azure, config, gen_ai, other, since, value_of};
use crate::driver::InvalidConfig;
use crate::version::Version;

/// The least config of a provider.
fn least(provider: &str) -> Value {
    match provider {
        "Azure OpenAI" => azure(),
        "Other" => other(),
        _ => serde_json::from_str(&config(&json!({"defaultModel": null}))).unwrap(),
    }
}

/// The least config of a provider with everything else that it may have; and the names of that.
fn most(provider: &str) -> (String, Vec<String>) {
    let mut config = least(provider);
    let mut names = Vec::new();
    for (_, field, _) in SINCE.iter().filter(|row| row.0 == provider) {
        if let (Some(value), None) = (value_of(field), config.get(field)) {
            config[*field] = value;
            names.push((*field).to_owned());
        }
    }
    (config.to_string(), names)
}

fn is_there(provider: &str, field: &str, version: &Version) -> bool {
    since(provider, field).unwrap() <= (version.major, version.minor)
}

#[test]
fn a_field_needs_its_kibana() {
    for (provider, field, (major, minor)) in SINCE {
        let mut config = least(provider);
        let Some(value) = value_of(field).filter(|_| config.get(field).is_none()) else {
            continue;
        };
        config[field] = value;
        let text = config.to_string();
        let first = Version::new(major, minor, 0);
        assert_eq!(gen_ai().check_version(&text, &first), Ok(()), "{field}");
        let before = Version::new(major, minor - 1, 99);
        let problems = gen_ai().check_version(&text, &before).unwrap_err();
        let needs = format!("needs Kibana {major}.{minor} or newer");
        assert!(problems[0].problem.contains(&needs), "{problems:?}");
        let rendered = gen_ai().render(&text, "OpenAI", &SecretString::from(KEY), &before);
        assert!(rendered.is_err(), "{field}");
    }
    let too_old = |config: &str, version| gen_ai().check_version(config, &version).unwrap_err();
    let problems = too_old(&config(&json!({})), Version::new(8, 8, 2));
    assert_eq!(problems[0].field, "type");
    let problems = too_old(&other().to_string(), Version::new(8, 16, 0));
    assert_eq!(problems[0].field, "config.apiProvider");
}

#[test]
fn what_may_be_left_out_is_left_out_exactly_where_it_is_too_new() {
    for provider in ["OpenAI", "Azure OpenAI", "Other"] {
        let (config, names) = most(provider);
        for minor in [(8, 17), (8, 18), (9, 0), (9, 1), (9, 2), (9, 3), (9, 6)] {
            let version = Version::new(minor.0, minor.1, 0);
            let text = gen_ai().for_version(&config, &names, &version);
            assert_eq!(gen_ai().check_version(&text, &version), Ok(()), "{text}");
            let kept: Value = serde_json::from_str(&text).unwrap();
            for name in &names {
                let there = is_there(provider, name, &version);
                assert_eq!(kept.get(name).is_some(), there, "{name} on {version}");
            }
            let as_it_is = gen_ai().for_version(&config, &[], &version);
            assert_eq!(as_it_is, gen_ai().canonical(&config).unwrap());
        }
    }
    let needed = ["apiUrl".to_owned(), "apiProvider".to_owned()];
    let old = Version::new(8, 9, 0);
    let text = gen_ai().for_version(&other().to_string(), &needed, &old);
    assert!(text.contains("apiUrl") && text.contains("apiProvider"));
    assert_eq!(gen_ai().for_version("[", &needed, &old), "[");
}

#[test]
fn only_a_field_that_an_older_kibana_lacks_may_be_named() {
    let check = |config: &str, name: &str| {
        gen_ai().check_if_supported(config, &["temperature".to_owned(), name.to_owned()])
    };
    let openai = config(&json!({"temperature": 0.2, "projectId": "p"}));
    let with_headers = json!({"temperature": 1, "headers": {"X": "y"}});
    let mut other = other();
    for (name, value) in with_headers.as_object().unwrap() {
        other[name] = value.clone();
    }
    for name in ["projectId", "defaultModel"] {
        assert_eq!(check(&openai, name), Ok(()), "{name}");
    }
    for (config, name, says) in [
        (&openai, "apiUrl", "without which no connector works"),
        (&openai, "headers", "the config does not have"),
        (&openai, "verificationMode", "is not a field of .gen-ai"),
        (&openai, "temprature", "is not a field of .gen-ai"),
        (&other.to_string(), "headers", "every Kibana"),
    ] {
        let InvalidConfig { field, problem } = check(config, name).unwrap_err();
        assert_eq!(field, "ifSupported[1]", "{name}");
        assert!(problem.contains(says), "{name}: {problem}");
    }
}
