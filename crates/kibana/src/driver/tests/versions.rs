//! What a Kibana is too old for: refused, or left out where the definition says so.

use serde_json::{Value, json};

use super::{
    ENDPOINT, INFERENCE, INFERENCE_AZURE, KINDS, Kind, SINCE, config, fields_of, gen_ai, key_of,
    least, other, since, value_of, with,
};
use crate::driver::{InvalidConfig, KeyValue, driver};
use crate::version::Version;

/// The least config of a provider with everything else that it may have; and the names of that.
fn most(kind: Kind) -> (String, Vec<String>) {
    let mut config = least(kind);
    let mut names = Vec::new();
    for (field, _) in fields_of(kind) {
        if let (Some(value), None) = (value_of(field), config.get(field)) {
            config[*field] = value;
            names.push((*field).to_owned());
        }
    }
    (config.to_string(), names)
}

#[test]
fn every_field_of_every_type_is_in_both_tables() {
    for (kind, fields) in SINCE {
        let features = driver(kind.0).unwrap().features();
        let of_kind = |feature: &&crate::driver::Feature| {
            feature.provider == kind.1 && !feature.is_secret && !feature.name.contains(['.', ':'])
        };
        let ours: Vec<_> = features.iter().filter(of_kind).collect();
        assert_eq!(ours.len(), fields.len(), "{kind:?}");
        for feature in ours {
            let first = Some((feature.since.major, feature.since.minor));
            assert_eq!(since(kind, &feature.name), first, "{kind:?} {feature:?}");
        }
    }
}

#[test]
fn a_field_needs_its_kibana() {
    for (kind, fields) in SINCE {
        let driver = driver(kind.0).unwrap();
        let (key, parts) = key_of(kind);
        let key = KeyValue {
            text: &key,
            parts: &parts,
        };
        for (field, (major, minor)) in fields {
            let mut config = least(kind);
            let value = value_of(field).filter(|_| config.get(field).is_none());
            config[*field] = value.unwrap_or_else(|| config[*field].clone());
            let text = config.to_string();
            let first = Version::new(*major, *minor, 0);
            assert_eq!(
                driver.check_version(&text, &first),
                Ok(()),
                "{kind:?} {field}"
            );
            assert!(
                driver.render(&text, "OpenAI", &key, &first).is_ok(),
                "{kind:?} {field}"
            );
            let before = Version::new(*major, minor - 1, 99);
            let problems = driver.check_version(&text, &before).unwrap_err();
            let needs = format!("needs Kibana {major}.{minor} or newer");
            assert!(
                problems[0].problem.contains(&needs),
                "{kind:?} {problems:?}"
            );
            assert!(
                driver.render(&text, "OpenAI", &key, &before).is_err(),
                "{kind:?} {field}"
            );
        }
    }
    let too_old = |config: &str, version| gen_ai().check_version(config, &version).unwrap_err();
    let problems = too_old(&config(&json!({})), Version::new(8, 8, 2));
    assert_eq!(problems[0].field, "type");
    let problems = too_old(&other().to_string(), Version::new(8, 16, 0));
    assert_eq!(problems[0].field, "config.apiProvider");
}

#[test]
fn a_value_needs_its_kibana_too() {
    for (kind, (major, minor)) in [
        (INFERENCE, (8, 18)),
        (INFERENCE_AZURE, (9, 3)),
        (ENDPOINT, (8, 18)),
    ] {
        let driver = driver(kind.0).unwrap();
        let text = with(least(kind), &json!({"taskType": "chat_completion"}));
        let first = Version::new(major, minor, 0);
        assert_eq!(driver.check_version(&text, &first), Ok(()));
        let problems = driver
            .check_version(&text, &Version::new(major, minor - 1, 9))
            .unwrap_err();
        assert_eq!(problems[0].field, "config.taskType", "{problems:?}");
        assert!(
            problems[0].problem.contains("select other deployments"),
            "{problems:?}"
        );
    }
}

#[test]
fn what_may_be_left_out_is_left_out_exactly_where_it_is_too_new() {
    for kind in KINDS {
        let driver = driver(kind.0).unwrap();
        let (config, names) = most(kind);
        for minor in [(8, 17), (8, 18), (9, 0), (9, 1), (9, 2), (9, 3), (9, 6)] {
            let version = Version::new(minor.0, minor.1, 0);
            let text = driver.for_version(&config, &names, &version);
            assert_eq!(driver.check_version(&text, &version), Ok(()), "{text}");
            let kept: Value = serde_json::from_str(&text).unwrap();
            for name in &names {
                let is_there = since(kind, name).unwrap() <= minor;
                assert_eq!(kept.get(name).is_some(), is_there, "{name} on {version}");
            }
            let as_it_is = driver.for_version(&config, &[], &version);
            assert_eq!(as_it_is, driver.canonical(&config).unwrap());
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
    let other = with(other(), &json!({"temperature": 1, "headers": {"X": "y"}}));
    for name in ["projectId", "defaultModel"] {
        assert_eq!(check(&openai, name), Ok(()), "{name}");
    }
    for (config, name, says) in [
        (&openai, "apiUrl", "without which no connector works"),
        (&openai, "headers", "the config does not have"),
        (&openai, "verificationMode", "is not a field of .gen-ai"),
        (&openai, "temprature", "is not a field of .gen-ai"),
        (&other, "headers", "every Kibana with the provider Other"),
    ] {
        let InvalidConfig { field, problem } = check(config, name).unwrap_err();
        assert_eq!(field, "ifSupported[1]", "{name}");
        assert!(problem.contains(says), "{name}: {problem}");
    }
}
