//! The strict schemas of the connector types that are simulated in full: what a config and secrets may hold, and since
//! when. The tables lie in `schema/tables.rs`, one row a field.

mod certificates;
mod tables;

use serde_json::{Map, Value};

use self::tables::{Absent, Field, Kind};
use super::licence::{BEDROCK, GEMINI, GEN_AI, INFERENCE};
use super::schema_text::{Problem, kind_of, message, prefix};
use super::version::{NAMED_OPENAI, SERVICE_ACCOUNT_ONLY, Since, Version};

pub(super) use self::tables::PROVIDERS;

/// Checks a config and fills in the server's defaults. The error is Kibana's whole message. Types that are not simulated
/// in full take anything.
pub(super) fn config(
    version: Version,
    connector_type_id: &str,
    given: &Map<String, Value>,
) -> Result<Map<String, Value>, String> {
    let Some(table) = tables::config(connector_type_id) else {
        return Ok(given.clone());
    };
    let provider = match connector_type_id {
        GEN_AI => Some(provider(version, given)?),
        _ => None,
    };
    let known: Vec<&Field> = table
        .iter()
        .filter(|field| version.has(field.since) && field.is_for(provider))
        .collect();
    let problems = problems(&known, given);
    if !problems.is_empty() {
        return Err(message(version, "config", provider, &problems));
    }
    let mut stored = given.clone();
    for field in known {
        let default = match field.absent {
            Absent::Missing | Absent::Nothing => None,
            Absent::Text(text) => Some(Value::from(text)),
            Absent::Map => Some(Value::Object(Map::new())),
            Absent::Model(models) => newest(version, models).map(Value::from),
        };
        if let Some(default) = default {
            stored.entry(field.name).or_insert(default);
        }
    }
    Ok(stored)
}

/// The branch of the union of `.gen-ai`.
fn provider(version: Version, given: &Map<String, Value>) -> Result<&'static str, String> {
    let got = given.get("apiProvider").cloned().unwrap_or(Value::Null);
    let found = PROVIDERS
        .iter()
        .filter(|(_, since)| version.has(*since))
        .find(|(name, _)| got == **name);
    match found {
        Some((name, _)) => Ok(name),
        None => Err(message(
            version,
            "config",
            None,
            &[Problem::Provider { got }],
        )),
    }
}

/// What a type checks beside its schema: an address on the allow-list, a provider that Elasticsearch has. The error is
/// Kibana's whole message.
pub(super) fn more(
    version: Version,
    connector_type_id: &str,
    config: &Map<String, Value>,
    allowed_hosts: &[String],
) -> Result<(), String> {
    let (product, problem) = match connector_type_id {
        GEN_AI if version.has(NAMED_OPENAI) => ("OpenAI", url(config, allowed_hosts)),
        GEN_AI => ("Generative AI", url(config, allowed_hosts)),
        BEDROCK => ("Amazon Bedrock", url(config, allowed_hosts)),
        GEMINI => ("Google Gemini", url(config, allowed_hosts)),
        INFERENCE => ("Inference API", inference(config)),
        _ => return Ok(()),
    };
    match problem {
        None => Ok(()),
        Some(problem) => Err(format!(
            "{}Error configuring {product} action: Error: {problem}",
            prefix(version, "config")
        )),
    }
}

fn url(config: &Map<String, Value>, allowed_hosts: &[String]) -> Option<String> {
    let text = config
        .get("apiUrl")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let parsed = url::Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"));
    let Some(host) = parsed.as_ref().and_then(url::Url::host_str) else {
        return Some(format!("URL Error: Invalid URL: {text}"));
    };
    let allowed = allowed_hosts
        .iter()
        .any(|allowed| allowed == "*" || allowed == host);
    (!allowed).then(|| {
        format!(
            "error validating url: target url \"{text}\" is not added to the Kibana config xpack.actions.allowedHosts"
        )
    })
}

fn inference(config: &Map<String, Value>) -> Option<String> {
    let text = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or_default();
    let (provider, task) = (text("provider"), text("taskType"));
    if !tables::INFERENCE_PROVIDERS.contains(&provider) {
        Some(format!(
            "API Provider is not supported: {provider} by Inference Endpoint."
        ))
    } else if !tables::INFERENCE_TASKS.contains(&task) {
        Some(format!(
            "Task type is not supported: {task} by Inference Endpoint."
        ))
    } else {
        None
    }
}

/// Checks secrets. The error is Kibana's whole message.
pub(super) fn secrets(
    version: Version,
    connector_type_id: &str,
    given: &Map<String, Value>,
) -> Result<(), String> {
    let Some(table) = tables::secrets(connector_type_id) else {
        return Ok(());
    };
    let known: Vec<&Field> = table
        .iter()
        .filter(|field| version.has(field.since))
        .collect();
    let mut problems = problems(&known, given);
    if problems.is_empty() && connector_type_id == GEN_AI {
        problems.extend(certificates::check(given).map(Problem::Plain));
    }
    if problems.is_empty() && connector_type_id == GEMINI && version.has(SERVICE_ACCOUNT_ONLY) {
        problems.extend(google_account(given).map(Problem::Plain));
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(message(version, "secrets", None, &problems)),
    }
}

/// The file of a service account; Kibana refuses every other kind.
fn google_account(given: &Map<String, Value>) -> Option<String> {
    let text = given.get("credentialsJson").and_then(Value::as_str)?;
    let Ok(account) = serde_json::from_str::<Value>(text) else {
        return Some("Invalid JSON format for credentials.".to_owned());
    };
    let kind = account["type"].as_str().unwrap_or("undefined");
    (kind != "service_account").then(|| {
        format!(
            "Invalid credential type. Only \"service_account\" credentials are supported. Type was \"{kind}\"."
        )
    })
}

/// Everything that is wrong with these fields, in the order of the table; unknown ones come last.
fn problems(known: &[&Field], given: &Map<String, Value>) -> Vec<Problem> {
    let mut problems: Vec<Problem> = known
        .iter()
        .filter_map(|field| check(field, given.get(field.name)))
        .collect();
    let unknown: Vec<String> = given
        .keys()
        .filter(|key| known.iter().all(|field| field.name != key.as_str()))
        .cloned()
        .collect();
    if !unknown.is_empty() {
        problems.push(Problem::Unknown(unknown));
    }
    problems
}

fn newest(version: Version, models: &[(Since, &'static str)]) -> Option<&'static str> {
    let found = models.iter().find(|(since, _)| version.has(*since));
    found.map(|(_, model)| *model)
}

fn check(field: &Field, value: Option<&Value>) -> Option<Problem> {
    match (value, field.absent) {
        (Some(value), _) => wrong(field.name, field.kind, value),
        (None, Absent::Missing) => Some(Problem::Missing(field.name)),
        (None, _) => None,
    }
}

fn wrong(field: &'static str, kind: Kind, value: &Value) -> Option<Problem> {
    let (fits, expected) = match kind {
        Kind::Text => (value.is_string(), "string".to_owned()),
        Kind::Number => (value.is_number(), "number".to_owned()),
        Kind::Flag => (value.is_boolean(), "boolean".to_owned()),
        Kind::Map => (value.is_object(), "object".to_owned()),
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
