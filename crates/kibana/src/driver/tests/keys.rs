//! Keys of one text and of several parts: which a connector takes, and how they are rendered.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::{
    BEDROCK, ENDPOINT, GEMINI, INFERENCE, KEY, KINDS, Kind, OPENAI, OTHER, google, key_of, least,
};
use crate::driver::{InvalidConfig, KeyValue, driver};
use crate::version::Version;

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nY2FuYXJ5\n-----END CERTIFICATE-----";
const PRIVATE_KEY: &str = "-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----";
const RSA_KEY: &str = "-----BEGIN RSA PRIVATE KEY-----\nY2FuYXJ5\n-----END RSA PRIVATE KEY-----";
const NEWEST: Version = Version::new(9, 6, 0);

fn names(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| (*part).to_owned()).collect()
}

/// The `secrets` of the body for the least config, or for an endpoint the whole `service_settings`.
fn secrets(kind: Kind, value: &str, parts: &[String]) -> Result<Value, Vec<InvalidConfig>> {
    let text = SecretString::from(value);
    let value = KeyValue { text: &text, parts };
    let config = least(kind).to_string();
    let write = driver(kind.0)
        .unwrap()
        .render(&config, "Name", &value, &NEWEST)?;
    let is_endpoint = kind.0 == ENDPOINT.0;
    let body = if is_endpoint {
        write.create_endpoint_body()
    } else {
        write.create_body()
    };
    let body: Value = serde_json::from_slice(&body).unwrap();
    let field = if is_endpoint {
        "service_settings"
    } else {
        "secrets"
    };
    Ok(body[field].clone())
}

/// The secrets of a value of several parts.
fn of_parts(kind: Kind, value: &Value) -> Result<Value, Vec<InvalidConfig>> {
    let parts: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
    secrets(kind, &value.to_string(), &parts)
}

fn packed(pem: &str) -> String {
    STANDARD.encode(format!("{pem}\n"))
}

#[test]
fn each_type_wants_its_key_in_its_own_place() {
    let plain = |kind| secrets(kind, key(kind).as_str(), &[]).unwrap();
    assert_eq!(plain(OPENAI), json!({"apiKey": KEY}));
    assert_eq!(
        plain(GEMINI),
        json!({"credentialsJson": google("service_account")})
    );
    assert_eq!(
        plain(INFERENCE),
        json!({"providerSecrets": {"api_key": KEY}})
    );
    assert_eq!(
        plain(ENDPOINT),
        json!({"model_id": "gpt-4.1", "api_key": KEY})
    );
    let aws = json!({"accessKey": "AKIACANARY0123456789", "secret": "canary+secret/0123456789"});
    assert_eq!(of_parts(BEDROCK, &aws).unwrap(), aws);
    // A Key that names its one part is as good.
    assert_eq!(
        of_parts(OPENAI, &json!({"apiKey": KEY})).unwrap(),
        json!({"apiKey": KEY})
    );
}

fn key(kind: Kind) -> String {
    if kind == GEMINI {
        google("service_account")
    } else {
        KEY.to_owned()
    }
}

#[test]
fn pem_is_rendered_as_base64_whatever_vault_holds() {
    let wrapped = packed(CERTIFICATE)
        .as_bytes()
        .chunks(20)
        .map(String::from_utf8_lossy)
        .collect::<Vec<_>>()
        .join("\n");
    for certificate in [
        CERTIFICATE.to_owned(),
        format!("\n{CERTIFICATE}\r\n"),
        packed(CERTIFICATE),
        wrapped,
    ] {
        for (private_key, kept) in [
            (PRIVATE_KEY.to_owned(), PRIVATE_KEY),
            (packed(RSA_KEY), RSA_KEY),
        ] {
            let value = json!({"certificateData": certificate, "privateKeyData": private_key});
            let expected =
                json!({"certificateData": packed(CERTIFICATE), "privateKeyData": packed(kept)});
            assert_eq!(of_parts(OTHER, &value).unwrap(), expected);
        }
    }
    let whole = json!({"certificateData": CERTIFICATE, "privateKeyData": RSA_KEY, "caData": CERTIFICATE, "apiKey": KEY});
    let secrets = of_parts(OTHER, &whole).unwrap();
    assert_eq!(secrets["caData"], json!(packed(CERTIFICATE)));
    assert_eq!(secrets["apiKey"], json!(KEY));
}

#[test]
fn a_part_that_cannot_work_is_refused_without_repeating_it() {
    let pki = |certificate: &str, key: &str| json!({"certificateData": certificate, "privateKeyData": key});
    let aws = |id: &str, secret: &str| json!({"accessKey": id, "secret": secret});
    let ec = "-----BEGIN EC PRIVATE KEY-----\ncanary\n-----END EC PRIVATE KEY-----";
    let bags = format!("Bag Attributes canary\n{CERTIFICATE}");
    for (kind, value, field) in [
        (OTHER, pki("canary", PRIVATE_KEY), "secrets.certificateData"),
        (
            OTHER,
            pki(PRIVATE_KEY, PRIVATE_KEY),
            "secrets.certificateData",
        ),
        (OTHER, pki(&bags, PRIVATE_KEY), "secrets.certificateData"),
        (
            OTHER,
            pki(&packed(&bags), PRIVATE_KEY),
            "secrets.certificateData",
        ),
        (
            OTHER,
            pki("-----BEGIN CERTIFICATE-----\ncanary", PRIVATE_KEY),
            "secrets.certificateData",
        ),
        (OTHER, pki(CERTIFICATE, ec), "secrets.privateKeyData"),
        (
            OTHER,
            pki(CERTIFICATE, CERTIFICATE),
            "secrets.privateKeyData",
        ),
        (OTHER, pki(CERTIFICATE, " "), "secrets.privateKeyData"),
        (BEDROCK, aws("canary", "canary"), "secrets.accessKey"),
        (
            BEDROCK,
            aws("ASIACANARY0123456789", "canary"),
            "secrets.accessKey",
        ),
        (
            BEDROCK,
            aws("AKIACANARY0123456789", "canary canary"),
            "secrets.secret",
        ),
        (BEDROCK, aws("AKIACANARY0123456789", ""), "secrets.secret"),
    ] {
        let problems = of_parts(kind, &value).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].field, field, "{problems:?}");
        assert!(
            !format!("{problems:?}").to_lowercase().contains("canary"),
            "{problems:?}"
        );
    }
}

#[test]
fn only_the_file_of_a_service_account_is_a_key_for_google() {
    let mut elsewhere: Value = serde_json::from_str(&google("service_account")).unwrap();
    elsewhere["token_uri"] = json!("https://evil.example/canary");
    let without = json!({"type": "service_account", "client_email": "canary"}).to_string();
    for (value, says) in [
        (
            google("external_account"),
            "external_account, which Kibana refuses",
        ),
        (google("authorized_user"), "service_account"),
        (elsewhere.to_string(), "token_uri"),
        (without, "lacks private_key"),
        ("canary".to_owned(), "not the JSON file"),
    ] {
        let problems = secrets(GEMINI, &value, &[]).unwrap_err();
        assert_eq!(problems[0].field, "secrets.credentialsJson");
        assert!(problems[0].problem.contains(says), "{problems:?}");
        assert!(!format!("{problems:?}").contains("canary"), "{problems:?}");
    }
}

#[test]
fn a_value_that_is_not_the_parts_is_refused_without_repeating_it() {
    let parts = names(&["accessKey", "secret"]);
    for value in [
        "canary",
        r#"["canary"]"#,
        r#"{"accessKey":"canary"}"#,
        r#"{"accessKey":"canary","secret":1}"#,
        r#"{"accessKey":"canary","secret":"canary","more":"canary"}"#,
    ] {
        let problems = secrets(BEDROCK, value, &parts).unwrap_err();
        assert_eq!(problems[0].field, "key", "{problems:?}");
        assert!(!format!("{problems:?}").contains("canary"), "{problems:?}");
    }
}

/// Whether the least config takes a Key with these parts on this Kibana, and what is said if not.
fn fits(kind: Kind, parts: &[&str], version: Option<Version>) -> String {
    let config = least(kind).to_string();
    let outcome =
        driver(kind.0)
            .unwrap()
            .check_secret_parts(&config, &names(parts), version.as_ref());
    outcome
        .err()
        .map(|problem| problem.to_string())
        .unwrap_or_default()
}

#[test]
fn a_key_has_just_the_parts_that_the_connector_takes() {
    let pki = ["certificateData", "privateKeyData"];
    for (kind, parts) in [
        (OPENAI, &[][..]),
        (OPENAI, &["apiKey"]),
        (OTHER, &[]),
        (OTHER, &pki),
        (
            OTHER,
            &["apiKey", "caData", "certificateData", "privateKeyData"],
        ),
        (BEDROCK, &["accessKey", "secret"]),
        (GEMINI, &[]),
        (INFERENCE, &["api_key"]),
    ] {
        assert_eq!(fits(kind, parts, None), "", "{kind:?} {parts:?}");
        assert_eq!(fits(kind, parts, Some(NEWEST)), "", "{kind:?} {parts:?}");
    }
    for (kind, parts, says) in [
        (
            OPENAI,
            &pki[..],
            "has the parts certificateData, privateKeyData, and this connector wants apiKey",
        ),
        (OPENAI, &["apiKey", "caData"], "wants apiKey"),
        (
            OTHER,
            &["certificateData"],
            "certificateData, privateKeyData (and perhaps caData, apiKey)",
        ),
        (
            OTHER,
            &["apiKey", "caData"],
            "wants apiKey, or certificateData",
        ),
        (
            BEDROCK,
            &[],
            "is one text, and this connector wants accessKey, secret; name the field of each",
        ),
        (BEDROCK, &["accessKey"], "wants accessKey, secret"),
        (INFERENCE, &["apiKey"], "wants api_key"),
    ] {
        let problem = fits(kind, parts, None);
        assert!(
            problem.starts_with("key: ") && problem.contains(says),
            "{kind:?} {parts:?}: {problem}"
        );
    }
}

#[test]
fn a_certificate_needs_its_kibana() {
    let pki = ["certificateData", "privateKeyData"];
    assert_eq!(fits(OTHER, &pki, Some(Version::new(9, 1, 0))), "");
    let problem = fits(OTHER, &pki, Some(Version::new(9, 0, 9)));
    assert!(
        problem.contains("needs Kibana 9.1 or newer, and this one is 9.0.9"),
        "{problem}"
    );
    assert_eq!(fits(OTHER, &["apiKey"], Some(Version::new(8, 17, 0))), "");
    let text = SecretString::from(
        json!({"certificateData": CERTIFICATE, "privateKeyData": PRIVATE_KEY}).to_string(),
    );
    let value = KeyValue {
        text: &text,
        parts: &names(&pki),
    };
    let config = least(OTHER).to_string();
    let rendered = driver(OTHER.0)
        .unwrap()
        .render(&config, "Name", &value, &Version::new(9, 0, 0));
    assert_eq!(rendered.unwrap_err()[0].field, "key");
}

#[test]
fn the_parts_are_told_with_the_usual_form_first() {
    let parts = |kind: Kind| {
        let parts = driver(kind.0)
            .unwrap()
            .secret_parts(&least(kind).to_string());
        parts
            .into_iter()
            .map(|part| (part.name, part.is_required))
            .collect::<Vec<_>>()
    };
    assert_eq!(parts(OPENAI), [("apiKey", true)]);
    assert_eq!(parts(BEDROCK), [("accessKey", true), ("secret", true)]);
    assert_eq!(parts(GEMINI), [("credentialsJson", true)]);
    assert_eq!(parts(ENDPOINT), [("api_key", true)]);
    let pki = [
        ("apiKey", true),
        ("certificateData", false),
        ("privateKeyData", false),
        ("caData", false),
    ];
    assert_eq!(parts(OTHER), pki);
    assert_eq!(driver(".gen-ai").unwrap().secret_parts("[").len(), 0);
}

#[test]
fn a_key_that_stands_in_the_open_is_refused() {
    for kind in KINDS {
        let (text, parts) = key_of(kind);
        let value = KeyValue {
            text: &text,
            parts: &parts,
        };
        let shown = match kind {
            BEDROCK => "canary+secret/0123456789".to_owned(),
            GEMINI => google("service_account"),
            _ => KEY.to_owned(),
        };
        let config = least(kind).to_string();
        let outcome =
            driver(kind.0)
                .unwrap()
                .render(&config, &format!("x {shown}"), &value, &NEWEST);
        let problems = outcome.unwrap_err();
        assert!(
            problems
                .iter()
                .any(|problem| problem.problem.contains("remove it there")),
            "{kind:?} {problems:?}"
        );
        assert!(!format!("{problems:?}").contains("canary"), "{problems:?}");
    }
}
