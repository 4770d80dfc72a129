//! Strict tables of fields: one row says everything about a field of a connector's config.
//!
//! Kibana's schemas are strict: a field that a release does not know makes it refuse the whole connector. So each row
//! names the first release, and a driver is little more than its table.

mod words;

use serde_json::{Map, Number, Value};

use self::words::{describe, expected, kind_of, shown_json};
use super::{Difference, InvalidConfig, NOT_PLAIN, endpoint, is_plain_text};
use crate::text::one_line;
use crate::version::Version;

/// The most of a foreign value that is shown.
const SHOWN_CHARS_MAX: usize = 120;
/// The most bytes of a config: far beyond any real one. A deployment's whole desired state travels in one message.
const CONFIG_BYTES_MAX: usize = 16 * 1024;
/// Headers that hold credentials or that Kibana writes itself.
const HEADERS_REFUSED: [&str; 4] = [
    "authorization",
    "api-key",
    "x-api-key",
    "proxy-authorization",
];

/// One field of a config.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    /// The first Kibana whose schema has it.
    pub(super) since: Version,
    pub(super) kind: Kind,
    pub(super) is_required: bool,
    /// The server stores a value of its own where the field is left out.
    pub(super) has_server_default: bool,
}

/// What a value must be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Text,
    Url,
    /// A whole number from 1.
    Count,
    /// A number from 0 to 2, the range of every provider.
    Temperature,
    Flag,
    /// A map from header names to texts; stored where people can read it.
    Headers,
    /// One of these texts, each with the first Kibana that knows it.
    OneOf(&'static [(&'static str, Version)]),
    /// A name that becomes part of a URL: letters, digits, `.`, `_`, `-` and `:`.
    Word,
    /// A map with fields of its own.
    Object(&'static [Field]),
}

impl Field {
    pub(super) const fn optional(name: &'static str, since: Version, kind: Kind) -> Self {
        Self {
            name,
            since,
            kind,
            is_required: false,
            has_server_default: false,
        }
    }

    pub(super) const fn required(name: &'static str, since: Version, kind: Kind) -> Self {
        Self {
            is_required: true,
            ..Self::optional(name, since, kind)
        }
    }

    pub(super) const fn defaulted(name: &'static str, since: Version, kind: Kind) -> Self {
        Self {
            has_server_default: true,
            ..Self::optional(name, since, kind)
        }
    }

    /// The values that came after the field itself.
    pub(super) fn newer_values(&self) -> impl Iterator<Item = (&'static str, Version)> {
        let values: &[_] = if let Kind::OneOf(values) = self.kind {
            values
        } else {
            &[]
        };
        values.iter().copied().filter(|row| row.1 > self.since)
    }

    /// The fields inside, where it is a map of fields.
    pub(super) const fn inner(&self) -> &'static [Field] {
        if let Kind::Object(table) = self.kind {
            table
        } else {
            &[]
        }
    }
}

/// The config as an object: texts trimmed, empty maps left out, keys sorted, whole numbers without a fraction.
pub(super) fn parse(config_json: &str) -> Result<Map<String, Value>, Vec<InvalidConfig>> {
    let invalid = |problem: String| vec![InvalidConfig::new("config", problem)];
    if config_json.len() > CONFIG_BYTES_MAX {
        return Err(invalid(format!("is larger than {CONFIG_BYTES_MAX} bytes")));
    }
    let config: Value = serde_json::from_str(config_json)
        .map_err(|error| invalid(format!("is not JSON ({error})")))?;
    let kind = kind_of(&config);
    let Value::Object(fields) = config else {
        return Err(invalid(format!("must be a map of fields, not {kind}")));
    };
    Ok(normal_map(fields))
}

/// Everything in `config` that the table does not allow; `path` is where it stands.
pub(super) fn check(
    path: &str,
    table: &[Field],
    config: &Map<String, Value>,
) -> Vec<InvalidConfig> {
    let mut invalid = Vec::new();
    for (name, value) in config {
        match table.iter().find(|field| field.name == name) {
            Some(field) => check_value(&format!("{path}.{name}"), field, value, &mut invalid),
            None => {
                let known: Vec<_> = table.iter().map(|field| field.name).collect();
                let known = known.join(", ");
                let name = one_line(name, SHOWN_CHARS_MAX);
                invalid.push(InvalidConfig::new(
                    format!("{path}.{name}"),
                    format!("is not a field of this connector; known are {known}"),
                ));
            }
        }
    }
    let missing = |field: &&Field| field.is_required && !config.contains_key(field.name);
    invalid.extend(
        table
            .iter()
            .filter(missing)
            .map(|field| InvalidConfig::new(format!("{path}.{}", field.name), "is missing")),
    );
    invalid
}

/// Every field of `config`, and every value of one, that this Kibana is too old for.
pub(super) fn check_version(
    path: &str,
    table: &[Field],
    config: &Map<String, Value>,
    version: &Version,
) -> Vec<InvalidConfig> {
    let mut invalid = Vec::new();
    for field in table {
        let Some(value) = config.get(field.name) else {
            continue;
        };
        let path = format!("{path}.{}", field.name);
        if field.since > *version {
            invalid.push(InvalidConfig::new(path, too_new(field, version)));
        } else if let Some(since) = value_since(field.kind, value).filter(|since| since > version) {
            invalid.push(InvalidConfig::new(path, needs(since, version)));
        } else if let Value::Object(inner) = value {
            invalid.extend(check_version(&path, field.inner(), inner, version));
        }
    }
    invalid
}

fn too_new(field: &Field, version: &Version) -> String {
    if field.is_required {
        return needs(field.since, version);
    }
    let Version { major, minor, .. } = field.since;
    format!(
        "needs Kibana {major}.{minor} or newer, and this one is {version}; name {} in ifSupported to leave it out \
         there, or upgrade that Kibana",
        field.name
    )
}

/// The first Kibana that knows a value.
fn value_since(kind: Kind, value: &Value) -> Option<Version> {
    let Kind::OneOf(values) = kind else {
        return None;
    };
    let row = values.iter().find(|(known, _)| value == known)?;
    Some(row.1)
}

/// The sentence for something that a Kibana is too old for and that cannot be left out.
pub(super) fn needs(since: Version, version: &Version) -> String {
    format!(
        "needs Kibana {}.{} or newer, and this one is {version}; select other deployments or upgrade that Kibana",
        since.major, since.minor
    )
}

/// The fields of the table that differ; fields outside it are the server's business.
pub(super) fn differences(
    path: &str,
    table: &[Field],
    want: &Map<String, Value>,
    have: &Map<String, Value>,
) -> Vec<Difference> {
    let mut differences = Vec::new();
    for field in table {
        let path = format!("{path}.{}", field.name);
        let want = want.get(field.name);
        let have = have.get(field.name).cloned().map(normal).filter(is_set);
        let is_same = match (want, &have) {
            (Some(Value::Object(want)), Some(Value::Object(have))) if !field.inner().is_empty() => {
                differences.extend(self::differences(&path, field.inner(), want, have));
                true
            }
            (None, have) => have.is_none() || field.has_server_default,
            (Some(_), None) => false,
            (Some(want), Some(have)) => same(field.kind, want, have),
        };
        if !is_same {
            differences.push(describe(path, field.kind, want, have.as_ref()));
        }
    }
    differences
}

fn check_value(path: &str, field: &Field, value: &Value, invalid: &mut Vec<InvalidConfig>) {
    let mut refuse = |problem: String| invalid.push(InvalidConfig::new(path, problem));
    match (field.kind, value) {
        (_, Value::Null) => refuse("is empty; write a value or remove the line".to_owned()),
        (Kind::Headers, Value::Object(headers)) => check_headers(headers, invalid),
        (Kind::Object(table), Value::Object(inner)) => invalid.extend(check(path, table, inner)),
        (Kind::Text | Kind::Url | Kind::OneOf(_) | Kind::Word, Value::String(text)) => {
            if let Err(problem) = check_text(field.kind, text) {
                refuse(problem);
            }
        }
        (Kind::Flag, Value::Bool(_)) => {}
        (Kind::Count, Value::Number(number)) if number.as_u64().is_some_and(|count| count > 0) => {}
        (Kind::Temperature, Value::Number(number))
            if number.as_f64().is_some_and(|t| (0.0..=2.0).contains(&t)) => {}
        (kind, value) => refuse(format!(
            "must be {}, not {}",
            expected(kind),
            shown_json(value)
        )),
    }
}

fn check_text(kind: Kind, text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("is blank; write a value or remove the line".to_owned());
    }
    if !is_plain_text(text) {
        return Err(NOT_PLAIN.to_owned());
    }
    if matches!(kind, Kind::Url) {
        endpoint::parse(text)?;
    }
    let is_part_of_url = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
    let is_one_of = |values: &[(&str, Version)]| values.iter().any(|(known, _)| *known == text);
    let is_word = || text.chars().all(is_part_of_url) && !text.contains("..");
    let is_wrong = matches!(kind, Kind::OneOf(values) if !is_one_of(values))
        || (matches!(kind, Kind::Word) && !is_word());
    if is_wrong {
        return Err(format!("must be {}", expected(kind)));
    }
    Ok(())
}

fn check_headers(headers: &Map<String, Value>, invalid: &mut Vec<InvalidConfig>) {
    for (name, value) in headers {
        let shown = one_line(name, SHOWN_CHARS_MAX);
        if let Err(problem) = check_header(name, value) {
            invalid.push(InvalidConfig::new(
                format!("config.headers.{shown}"),
                problem,
            ));
        }
    }
}

/// Header names are tokens (RFC 9110, section 5.6.2). The value is never repeated in an error.
fn check_header(name: &str, value: &Value) -> Result<(), String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err("is not the name of an HTTP header".to_owned());
    }
    if HEADERS_REFUSED
        .iter()
        .any(|refused| name.eq_ignore_ascii_case(refused))
    {
        return Err(
            "would hold a credential where everyone who may read connectors sees it; the key comes from Vault".to_owned()
        );
    }
    let Value::String(text) = value else {
        return Err(format!("must be a text, not {}", kind_of(value)));
    };
    if text.is_empty() {
        return Err("is blank; write a value or remove the line".to_owned());
    }
    if !text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() || byte == b' ')
    {
        return Err("must be printable ASCII".to_owned());
    }
    Ok(())
}

fn is_set(value: &Value) -> bool {
    !value.is_null() && value.as_object().is_none_or(|map| !map.is_empty())
}

/// Built in sorted order, so that the text is the same whatever map `serde_json` was built with.
fn normal_map(map: Map<String, Value>) -> Map<String, Value> {
    let mut entries: Vec<(String, Value)> = map
        .into_iter()
        .map(|(key, value)| (key, normal(value)))
        .collect();
    entries.retain(|(_, value)| value.is_null() || is_set(value));
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    Map::from_iter(entries)
}

fn normal(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.trim().to_owned()),
        Value::Number(number) => Value::Number(normal_number(number)),
        Value::Array(items) => Value::Array(items.into_iter().map(normal).collect()),
        Value::Object(map) => Value::Object(normal_map(map)),
        Value::Null | Value::Bool(_) => value,
    }
}

/// `8000.0` is `8000`; both are exact below 2⁵³.
fn normal_number(number: Number) -> Number {
    match number.as_f64() {
        Some(float)
            if number.is_f64() && float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0 =>
        {
            format!("{float:.0}")
                .parse::<i64>()
                .map_or(number, Number::from)
        }
        _ => number,
    }
}

fn same(kind: Kind, want: &Value, have: &Value) -> bool {
    match (kind, want, have) {
        (Kind::Url, Value::String(want), Value::String(have)) => {
            want.trim_end_matches('/') == have.trim_end_matches('/')
        }
        (_, Value::Number(want), Value::Number(have)) => want.as_f64() == have.as_f64(),
        (_, want, have) => want == have,
    }
}
