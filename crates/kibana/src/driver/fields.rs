//! Strict tables of fields: one row says everything about a field of a connector's config.
//!
//! Kibana's schemas are strict: a field that a release does not know makes it refuse the whole connector. So each row
//! names the first release, and a driver is little more than its table.

use serde_json::{Map, Number, Value};

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
    OneOf(&'static [&'static str]),
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

    fn path(&self) -> String {
        format!("config.{}", self.name)
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

/// Everything in `config` that the table does not allow.
pub(super) fn check(table: &[Field], config: &Map<String, Value>) -> Vec<InvalidConfig> {
    let mut invalid = Vec::new();
    for (name, value) in config {
        match table.iter().find(|field| field.name == name) {
            Some(field) => check_value(field, value, &mut invalid),
            None => {
                let known = table
                    .iter()
                    .map(|field| field.name)
                    .collect::<Vec<_>>()
                    .join(", ");
                let name = one_line(name, SHOWN_CHARS_MAX);
                invalid.push(InvalidConfig::new(
                    format!("config.{name}"),
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
            .map(|field| InvalidConfig::new(field.path(), "is missing")),
    );
    invalid
}

/// Every field of `config` that this Kibana is too old for.
pub(super) fn check_version(
    table: &[Field],
    config: &Map<String, Value>,
    version: &Version,
) -> Vec<InvalidConfig> {
    let too_new = |field: &&Field| config.contains_key(field.name) && field.since > *version;
    let explain = |field: &Field| {
        let Version { major, minor, .. } = field.since;
        let problem = format!(
            "needs Kibana {major}.{minor} or newer, and this one is {version}; name {} in ifSupported to leave it out \
             there, or upgrade that Kibana",
            field.name
        );
        InvalidConfig::new(field.path(), problem)
    };
    table.iter().filter(too_new).map(explain).collect()
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
    table: &[Field],
    want: &Map<String, Value>,
    have: &Map<String, Value>,
) -> Vec<Difference> {
    let differ = |field: &Field| {
        let want = want.get(field.name);
        let have = have.get(field.name).cloned().map(normal).filter(is_set);
        let is_same = match (want, &have) {
            (None, have) => have.is_none() || field.has_server_default,
            (Some(_), None) => false,
            (Some(want), Some(have)) => same(field.kind, want, have),
        };
        (!is_same).then(|| describe(field, want, have.as_ref()))
    };
    table.iter().filter_map(differ).collect()
}

fn check_value(field: &Field, value: &Value, invalid: &mut Vec<InvalidConfig>) {
    let mut refuse = |problem: String| invalid.push(InvalidConfig::new(field.path(), problem));
    match (field.kind, value) {
        (_, Value::Null) => refuse("is empty; write a value or remove the line".to_owned()),
        (Kind::Headers, Value::Object(headers)) => check_headers(headers, invalid),
        (Kind::Text | Kind::Url | Kind::OneOf(_), Value::String(text)) => {
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
    if let Kind::OneOf(values) = kind
        && !values.contains(&text)
    {
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

/// What a person should write.
fn expected(kind: Kind) -> String {
    match kind {
        Kind::Text => "a text".to_owned(),
        Kind::Url => "a URL".to_owned(),
        Kind::Count => "a whole number from 1".to_owned(),
        Kind::Temperature => "a number from 0 to 2".to_owned(),
        Kind::Flag => "true or false".to_owned(),
        Kind::Headers => "a map from header names to texts".to_owned(),
        Kind::OneOf(values) => format!("one of {}", values.join(", ")),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// Numbers are shown, everything else only named.
fn shown_json(value: &Value) -> String {
    if let Value::Number(number) = value {
        number.to_string()
    } else {
        kind_of(value).to_owned()
    }
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

fn describe(field: &Field, want: Option<&Value>, have: Option<&Value>) -> Difference {
    let show = |value: Option<&Value>| {
        value.map_or_else(|| "unset".to_owned(), |value| shown(field.kind, value))
    };
    let (want, mut have) = (show(want), show(have));
    if want == have {
        have.push_str(" with another value");
    }
    Difference {
        field: field.path(),
        want,
        have,
    }
}

/// Of headers only the names, for people do write credentials into them.
fn shown(kind: Kind, value: &Value) -> String {
    match (kind, value) {
        (Kind::Url, Value::String(text)) => endpoint::shown(text),
        (Kind::Headers, Value::Object(map)) => {
            let names = map.keys().map(String::as_str).collect::<Vec<_>>();
            format!(
                "the headers {}",
                one_line(&names.join(", "), SHOWN_CHARS_MAX)
            )
        }
        (_, Value::String(text)) => one_line(text, SHOWN_CHARS_MAX),
        (_, Value::Number(number)) => number.to_string(),
        (_, Value::Bool(flag)) => flag.to_string(),
        (_, other) => kind_of(other).to_owned(),
    }
}
