//! The schemas of the request bodies: known keys, types, no blank text.

use serde_json::{Map, Value};

use super::errors::error;
use super::schema_text::kind_of;
use super::version::{ID_IN_PATH, ID_SLUG, Version};
use crate::reply::{Call, Reply};

/// The longest id from 9.4 on.
const ID_CHARS_MAX: usize = 36;

/// The fields of a create or update request.
pub(super) struct Input {
    pub(super) name: String,
    /// Empty in an update, which cannot change the type.
    pub(super) connector_type_id: String,
    pub(super) config: Map<String, Value>,
    pub(super) secrets: Map<String, Value>,
}

/// Reads the body of a request: its size, content type and JSON.
pub(super) fn payload(call: &Call) -> Result<Value, Reply> {
    let Some(body) = &call.body else {
        return Err(error(
            413,
            "Payload content length greater than maximum allowed: 1048576",
        ));
    };
    if body.is_empty() {
        return Ok(Value::Null);
    }
    let is_json = call
        .header("content-type")
        .is_some_and(|kind| kind.starts_with("application/json"));
    if !is_json {
        return Err(error(415, "Unsupported Media Type"));
    }
    call.json()
        .ok_or_else(|| error(400, "Invalid request payload JSON format"))
}

/// The body of a POST.
pub(super) fn create(payload: &Value) -> Result<Input, Reply> {
    read(payload, &["name", "connector_type_id", "config", "secrets"])
}

/// The body of a PUT.
pub(super) fn update(payload: &Value) -> Result<Input, Reply> {
    read(payload, &["name", "config", "secrets"])
}

/// The body of `_execute`: its `params`.
pub(super) fn execute(payload: &Value) -> Result<Map<String, Value>, Reply> {
    let body = object(payload)?;
    let params = match body.get("params") {
        Some(Value::Object(params)) => params.clone(),
        Some(other) => return Err(wrong("params", "object", kind_of(other))),
        None => return Err(wrong("params", "object", "undefined")),
    };
    known_keys(body, &["params"])?;
    Ok(params)
}

/// The part of the id rules that the route's schema holds: none in the path before 8.8, slugs from 9.4.
pub(super) fn path_id(version: Version, id: &str) -> Result<(), Reply> {
    if !version.has(ID_IN_PATH) {
        return Err(error(404, "Not Found"));
    }
    if !version.has(ID_SLUG) {
        return Ok(());
    }
    let slug = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let refusal = if id.chars().count() > ID_CHARS_MAX {
        "Connector ID must be 36 characters or less."
    } else if !id.chars().all(slug) {
        "Connector ID must contain only lowercase letters, numbers, and hyphens."
    } else {
        return Ok(());
    };
    Err(error(400, &format!("[request params.id]: {refusal}")))
}

/// The part of the id rules that the saved objects hold: a UUID from 8.8 to 9.3.
pub(super) fn object_id(version: Version, id: &str) -> Result<(), Reply> {
    let uuid = uuid::Uuid::parse_str(id).is_ok() && id.len() == ID_CHARS_MAX;
    match version.has(ID_SLUG) || uuid {
        true => Ok(()),
        false => Err(error(
            400,
            "Predefined IDs are not allowed for saved objects with encrypted attributes unless the ID is a UUID.: Bad \
             Request",
        )),
    }
}

fn read(payload: &Value, keys: &[&str]) -> Result<Input, Reply> {
    let body = object(payload)?;
    let connector_type_id = match keys.contains(&"connector_type_id") {
        true => text(body, "connector_type_id"),
        false => Ok(String::new()),
    };
    let input = Input {
        name: text(body, "name")?,
        connector_type_id: connector_type_id?,
        config: record(body, "config")?,
        secrets: record(body, "secrets")?,
    };
    known_keys(body, keys)?;
    Ok(input)
}

fn object(payload: &Value) -> Result<&Map<String, Value>, Reply> {
    payload.as_object().ok_or_else(|| {
        let found = kind_of(payload);
        error(
            400,
            &format!("[request body]: expected a plain object value, but found [{found}] instead."),
        )
    })
}

fn text(body: &Map<String, Value>, key: &str) -> Result<String, Reply> {
    match body.get(key) {
        Some(Value::String(text)) if text.trim().is_empty() => Err(blank(key)),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(wrong(key, "string", kind_of(other))),
        None => Err(wrong(key, "string", "undefined")),
    }
}

fn record(body: &Map<String, Value>, key: &str) -> Result<Map<String, Value>, Reply> {
    let map = match body.get(key) {
        Some(Value::Object(map)) => map.clone(),
        Some(other) => return Err(wrong(key, "object", kind_of(other))),
        None => Map::new(),
    };
    match map
        .iter()
        .find_map(|(name, value)| blank_below(value, &format!("{key}.{name}")))
    {
        Some(path) => Err(blank(&path)),
        None => Ok(map),
    }
}

/// The path of the first blank text at or below `value`.
fn blank_below(value: &Value, path: &str) -> Option<String> {
    match value {
        Value::String(text) => text.trim().is_empty().then(|| path.to_owned()),
        Value::Object(map) => map
            .iter()
            .find_map(|(name, value)| blank_below(value, &format!("{path}.{name}"))),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, value)| blank_below(value, &format!("{path}.{index}"))),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

fn known_keys(body: &Map<String, Value>, keys: &[&str]) -> Result<(), Reply> {
    match body.keys().find(|key| !keys.contains(&key.as_str())) {
        Some(key) => Err(error(
            400,
            &format!("[request body.{key}]: definition for this key is missing"),
        )),
        None => Ok(()),
    }
}

fn wrong(path: &str, expected: &str, got: &str) -> Reply {
    error(
        400,
        &format!("[request body.{path}]: expected value of type [{expected}] but got [{got}]"),
    )
}

fn blank(path: &str) -> Reply {
    error(
        400,
        &format!("[request body.{path}]: value '' is not valid"),
    )
}
