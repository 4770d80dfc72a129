//! The words of schema errors: the older library's and zod's.

use serde_json::Value;

use super::schema::PROVIDERS;
use super::version::{Version, ZOD_TEXTS};

/// One thing that is wrong with a config or with secrets.
pub(super) enum Problem {
    Missing(&'static str),
    Wrong {
        field: &'static str,
        expected: String,
        got: &'static str,
    },
    Unknown(Vec<String>),
    Provider {
        got: Value,
    },
    Plain(String),
}

/// The start of a message about `part` ("config", "secrets" or "params").
pub(super) fn prefix(version: Version, part: &str) -> String {
    // The parameters kept the word "action" when the rest changed.
    let noun = match part {
        "params" => "action",
        _ if version.has(ZOD_TEXTS) => "connector type",
        _ => "action type",
    };
    format!("error validating {noun} {part}: ")
}

/// The message for one required text field that is not there, as for `subAction`.
pub(super) fn missing(version: Version, part: &str, field: &'static str) -> String {
    message(version, part, None, &[Problem::Missing(field)])
}

/// The whole message about `part` with these problems. `provider` names the branch of the config's union, where one
/// was chosen.
pub(super) fn message(
    version: Version,
    part: &str,
    provider: Option<&str>,
    problems: &[Problem],
) -> String {
    let start = prefix(version, part);
    if version.has(ZOD_TEXTS) {
        return format!("{start}{}", zod(problems));
    }
    // The older library stops at the first problem, and names the branch of the union where there is one.
    let first = problems.first().map(classic).unwrap_or_default();
    match provider {
        None => format!("{start}{first}"),
        Some(provider) => {
            let branches: Vec<String> = PROVIDERS
                .iter()
                .filter(|(_, since)| version.has(*since))
                .enumerate()
                .map(|(index, (name, _))| match *name == provider {
                    true => format!("- {}", first.replacen('[', &format!("[{index}."), 1)),
                    false => format!("- [{index}.apiProvider]: expected value to equal [{name}]"),
                })
                .collect();
            format!(
                "{start}types that failed validation:\n{}",
                branches.join("\n")
            )
        }
    }
}

fn classic(problem: &Problem) -> String {
    match problem {
        Problem::Missing(field) => {
            format!("[{field}]: expected value of type [string] but got [undefined]")
        }
        Problem::Wrong {
            field,
            expected,
            got,
        } => {
            format!("[{field}]: expected value of type [{expected}] but got [{got}]")
        }
        Problem::Unknown(keys) => {
            let key = keys.first().map(String::as_str).unwrap_or_default();
            format!("[{key}]: definition for this key is missing")
        }
        Problem::Provider { got: Value::Null } => {
            "[apiProvider]: expected at least one defined value but got [undefined]".to_owned()
        }
        Problem::Provider { .. } => "[apiProvider]: types that failed validation".to_owned(),
        Problem::Plain(text) => text.clone(),
    }
}

fn zod(problems: &[Problem]) -> String {
    let texts: Vec<String> = problems.iter().map(zod_text).collect();
    match texts.as_slice() {
        [only] => only.clone(),
        many => {
            let lines: Vec<String> = many
                .iter()
                .enumerate()
                .map(|(index, text)| format!(" [{}]: {text}", index + 1))
                .collect();
            format!("{} errors:\n{}", many.len(), lines.join(";\n"))
        }
    }
}

fn zod_text(problem: &Problem) -> String {
    match problem {
        Problem::Missing(field) => format!("Field \"{field}\": Required"),
        Problem::Wrong {
            field,
            expected,
            got,
        } => {
            format!(
                "Field \"{field}\": Expected {expected}, received {}",
                got.to_lowercase()
            )
        }
        Problem::Unknown(keys) => {
            let quoted: Vec<String> = keys.iter().map(|key| format!("\"{key}\"")).collect();
            format!("Unrecognized keys: {}", quoted.join(", "))
        }
        Problem::Provider { .. } => {
            let names: Vec<String> = PROVIDERS
                .iter()
                .map(|(name, _)| format!("'{name}'"))
                .collect();
            format!(
                "Field \"apiProvider\": Invalid discriminator value. Expected {}",
                names.join(" | ")
            )
        }
        Problem::Plain(text) => text.clone(),
    }
}

/// JavaScript's name for the type of a value.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "Array",
        Value::Object(_) => "Object",
    }
}
