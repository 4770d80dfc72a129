//! The strict schemas of the `.gen-ai` connector, as one table: field, providers, kind, first version.

use serde_json::{Map, Value};

use super::schema_text::{Problem, kind_of, message, prefix};
use super::version::{NAMED_OPENAI, PKI_SECRETS, Since, Version};

const OPENAI: &str = "OpenAI";
const AZURE: &str = "Azure OpenAI";
const OTHER: &str = "Other";

/// The providers in the order of the union, and the first version that knows each.
pub(super) const PROVIDERS: [(&str, Since); 3] = [
    (AZURE, Since(8, 9)),
    (OPENAI, Since(8, 9)),
    (OTHER, Since(8, 17)),
];

/// What a value must be.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Flag,
    /// A map from text to text.
    TextMap,
    OneOf(&'static [&'static str]),
}

/// What the server stores when the field is left out.
#[derive(Clone, Copy)]
enum Absent {
    Missing,
    Nothing,
    Text(&'static str),
    DefaultModel,
}

/// One row: `name` is known to `provider` since `since`.
struct Field {
    name: &'static str,
    providers: &'static [&'static str],
    since: Since,
    kind: Kind,
    absent: Absent,
}

const fn field(
    name: &'static str,
    providers: &'static [&'static str],
    since: Since,
    kind: Kind,
    absent: Absent,
) -> Field {
    Field {
        name,
        providers,
        since,
        kind,
        absent,
    }
}

const ALL: &[&str] = &[OPENAI, AZURE, OTHER];
const VERIFICATION: Kind = Kind::OneOf(&["full", "certificate", "none"]);

/// Sources: the connector's schema in Kibana and the pull requests that added each field
/// (179026, 213117, 228371, 232097, 239806).
const FIELDS: [Field; 12] = [
    field("apiProvider", ALL, Since(8, 9), Kind::Text, Absent::Missing),
    field("apiUrl", ALL, Since(8, 9), Kind::Text, Absent::Missing),
    field(
        "defaultModel",
        &[OPENAI],
        Since(8, 11),
        Kind::Text,
        Absent::DefaultModel,
    ),
    field(
        "defaultModel",
        &[AZURE],
        Since(9, 2),
        Kind::Text,
        Absent::Nothing,
    ),
    field(
        "defaultModel",
        &[OTHER],
        Since(8, 17),
        Kind::Text,
        Absent::Missing,
    ),
    field("headers", ALL, Since(8, 14), Kind::TextMap, Absent::Nothing),
    field(
        "organizationId",
        &[OPENAI],
        Since(8, 18),
        Kind::Text,
        Absent::Nothing,
    ),
    field(
        "projectId",
        &[OPENAI],
        Since(8, 18),
        Kind::Text,
        Absent::Nothing,
    ),
    field(
        "contextWindowLength",
        ALL,
        Since(9, 2),
        Kind::Number,
        Absent::Nothing,
    ),
    field(
        "temperature",
        ALL,
        Since(9, 3),
        Kind::Number,
        Absent::Nothing,
    ),
    field(
        "verificationMode",
        &[OTHER],
        Since(9, 1),
        VERIFICATION,
        Absent::Text("full"),
    ),
    field(
        "enableNativeFunctionCalling",
        &[OTHER],
        Since(9, 2),
        Kind::Flag,
        Absent::Nothing,
    ),
];

/// Checks a `.gen-ai` config and fills in the server's defaults. The error is Kibana's whole message.
pub(super) fn config(
    version: Version,
    given: &Map<String, Value>,
) -> Result<Map<String, Value>, String> {
    let provider = given.get("apiProvider").cloned().unwrap_or(Value::Null);
    let known = || PROVIDERS.iter().filter(|(_, since)| version.has(*since));
    let Some(provider) = known()
        .map(|(name, _)| *name)
        .find(|name| provider == **name)
    else {
        return Err(message(
            version,
            "config",
            None,
            &[Problem::Provider { got: provider }],
        ));
    };
    let fields = || {
        FIELDS
            .iter()
            .filter(|field| version.has(field.since) && field.providers.contains(&provider))
    };
    let mut problems: Vec<Problem> = fields()
        .filter_map(|field| check(field, given.get(field.name)))
        .collect();
    let unknown: Vec<String> = given
        .keys()
        .filter(|key| fields().all(|field| field.name != key.as_str()))
        .cloned()
        .collect();
    if !unknown.is_empty() {
        problems.push(Problem::Unknown(unknown));
    }
    if !problems.is_empty() {
        return Err(message(version, "config", Some(provider), &problems));
    }
    let mut stored = given.clone();
    for field in fields().filter(|field| !given.contains_key(field.name)) {
        let default = match field.absent {
            Absent::Missing | Absent::Nothing => None,
            Absent::Text(text) => Some(text),
            Absent::DefaultModel => version.default_model(),
        };
        if let Some(default) = default {
            stored.insert(field.name.to_owned(), Value::from(default));
        }
    }
    Ok(stored)
}

/// Checks that `apiUrl` is a web address on the allow-list (`xpack.actions.allowedHosts`).
pub(super) fn url(
    version: Version,
    config: &Map<String, Value>,
    allowed_hosts: &[String],
) -> Result<(), String> {
    let text = config
        .get("apiUrl")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let product = if version.has(NAMED_OPENAI) {
        "OpenAI"
    } else {
        "Generative AI"
    };
    let refused = |reason: &str| {
        Err(format!(
            "{}Error configuring {product} action: Error: {reason}",
            prefix(version, "config")
        ))
    };
    let parsed = url::Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"));
    let Some(host) = parsed.as_ref().and_then(url::Url::host_str) else {
        return refused(&format!("URL Error: Invalid URL: {text}"));
    };
    match allowed_hosts
        .iter()
        .any(|allowed| allowed == "*" || allowed == host)
    {
        true => Ok(()),
        false => refused(&format!(
            "error validating url: target url \"{text}\" is not added to the Kibana config xpack.actions.allowedHosts"
        )),
    }
}

/// Checks the secrets of a `.gen-ai` connector. The error is Kibana's whole message.
pub(super) fn secrets(version: Version, given: &Map<String, Value>) -> Result<(), String> {
    let certificates = ["certificateData", "privateKeyData", "caData"];
    let pki = version.has(PKI_SECRETS) && certificates.iter().any(|name| given.contains_key(*name));
    let required: &[&str] = if pki { &[] } else { &["apiKey"] };
    let known: &[&str] = if pki {
        &["apiKey", "certificateData", "privateKeyData", "caData"]
    } else {
        &["apiKey"]
    };
    let mut problems = Vec::new();
    for &name in known {
        match given.get(name) {
            None if required.contains(&name) => problems.push(Problem::Missing(name)),
            None => {}
            Some(value) => problems.extend(wrong(name, Kind::Text, value)),
        }
    }
    let unknown: Vec<String> = given
        .keys()
        .filter(|key| !known.contains(&key.as_str()))
        .cloned()
        .collect();
    if !unknown.is_empty() {
        problems.push(Problem::Unknown(unknown));
    }
    if pki && !given.contains_key("certificateData") {
        problems.push(Problem::Plain("Certificate data must be provided for PKI"));
    }
    if pki && !given.contains_key("privateKeyData") {
        problems.push(Problem::Plain("Private key data must be provided for PKI"));
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(message(version, "secrets", None, &problems)),
    }
}

fn check(field: &Field, value: Option<&Value>) -> Option<Problem> {
    match (value, field.absent) {
        (Some(value), _) => wrong(field.name, field.kind, value),
        (None, Absent::Missing) => Some(Problem::Missing(field.name)),
        (None, Absent::Nothing | Absent::Text(_) | Absent::DefaultModel) => None,
    }
}

fn wrong(field: &'static str, kind: Kind, value: &Value) -> Option<Problem> {
    let (fits, expected) = match kind {
        Kind::Text => (value.is_string(), "string".to_owned()),
        Kind::Number => (value.is_number(), "number".to_owned()),
        Kind::Flag => (value.is_boolean(), "boolean".to_owned()),
        Kind::TextMap => {
            let fits = value
                .as_object()
                .is_some_and(|map| map.values().all(Value::is_string));
            (fits, "object".to_owned())
        }
        Kind::OneOf(texts) => (
            value.as_str().is_some_and(|text| texts.contains(&text)),
            texts.join("|"),
        ),
    };
    (!fits).then(|| Problem::Wrong {
        field,
        expected,
        got: kind_of(value),
    })
}
