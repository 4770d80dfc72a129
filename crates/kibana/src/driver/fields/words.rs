//! What people read of fields and their values.

use serde_json::Value;

use super::{Kind, SHOWN_CHARS_MAX};
use crate::driver::{Difference, endpoint};
use crate::text::one_line;

/// What a person should write.
pub(super) fn expected(kind: Kind) -> String {
    match kind {
        Kind::Text => "a text".to_owned(),
        Kind::Url => "a URL".to_owned(),
        Kind::Count => "a whole number from 1".to_owned(),
        Kind::Temperature => "a number from 0 to 2".to_owned(),
        Kind::Flag => "true or false".to_owned(),
        Kind::Headers => "a map from header names to texts".to_owned(),
        Kind::OneOf(values) => {
            let values: Vec<_> = values.iter().map(|(value, _)| *value).collect();
            format!("one of {}", values.join(", "))
        }
        Kind::Word => "a name of letters, digits, dots, dashes, colons and underscores".to_owned(),
        Kind::Object(_) => "a map of fields".to_owned(),
    }
}

pub(super) fn kind_of(value: &Value) -> &'static str {
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
pub(super) fn shown_json(value: &Value) -> String {
    if let Value::Number(number) = value {
        number.to_string()
    } else {
        kind_of(value).to_owned()
    }
}

pub(super) fn describe(
    field: String,
    kind: Kind,
    want: Option<&Value>,
    have: Option<&Value>,
) -> Difference {
    let show = |value: Option<&Value>| {
        value.map_or_else(|| "unset".to_owned(), |value| shown(kind, value))
    };
    let (want, mut have) = (show(want), show(have));
    if want == have {
        have.push_str(" with another value");
    }
    Difference { field, want, have }
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
