//! Manifests: YAML documents in the style operators know, checked before anything is stored.
//!
//! Every error names the file, the line and the field's path. A manifest never holds a secret.

#[cfg(test)]
mod fuzz;
mod limits;
mod read;
mod yaml;

use keyfleet_core::connector::ConnectorSpec;
use keyfleet_core::id::{ConnectorName, KeyName, PlacementName, StrategyName};
use keyfleet_core::key::Key;
use keyfleet_core::placement::Placement;
use keyfleet_core::rollout::Strategy;

pub(crate) use limits::read_all;
use read::read;

/// Where something stands in the operator's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file's name as the operator gave it.
    pub(crate) file: String,
    /// Line, from 1.
    pub(crate) line: u64,
}

/// What is wrong with a manifest, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{}: {field}{}{problem}", place.file, place.line, if field.is_empty() { "" } else { ": " })]
pub(crate) struct InvalidManifest {
    /// Which file and line.
    pub(crate) place: Place,
    /// Path of the field, such as `spec.config.apiUrl`; empty for the document as a whole.
    pub(crate) field: String,
    /// What is wrong and what to write instead.
    pub(crate) problem: String,
}

/// An operator's object and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    /// Where it begins.
    pub(crate) place: Place,
    /// What it says.
    pub(crate) object: Object,
    /// As it was written, with the line of the file before it.
    written: (u64, String),
}

impl Manifest {
    /// What is wrong with a field of it.
    pub(crate) fn invalid(&self, field: &str, problem: String) -> InvalidManifest {
        InvalidManifest {
            place: Place {
                line: self.line_of(field).unwrap_or(self.place.line),
                ..self.place.clone()
            },
            field: field.to_owned(),
            problem,
        }
    }

    fn line_of(&self, field: &str) -> Option<u64> {
        let (before, text) = &self.written;
        line_of(text, field).map(|line| before + line)
    }
}

/// The line of a document, from 1, that a field such as `spec.waves[1].soak` is on, as far as its keys stand there as
/// text; else that of the nearest part around it that does. `None` where not even its first key is found.
fn line_of(text: &str, field: &str) -> Option<u64> {
    let lines: Vec<&str> = text.lines().collect();
    let (mut begin, mut end) = (0, lines.len());
    let mut found = None;
    for part in field.split('.') {
        let (key, index) = key_and_index(part);
        let Some(at) = (begin..end).find(|&at| holds_key(lines[at], key)) else {
            break;
        };
        (begin, found) = (at, Some(at));
        let item = index.and_then(|index| item(&lines[..end], at, index));
        if let Some((first, after)) = item {
            (begin, end, found) = (first, after, Some(first));
        }
    }
    Some(u64::try_from(found?).ok()? + 1)
}

/// `waves[1]` is the second item of `waves`.
fn key_and_index(part: &str) -> (&str, Option<usize>) {
    match part.split_once('[') {
        Some((key, rest)) => (key, rest.trim_end_matches(']').parse().ok()),
        None => (part, None),
    }
}

/// The lines of an item of the list whose key is on this line, where it is written with dashes: the first, and the one
/// behind the last.
fn item(lines: &[&str], key_at: usize, index: usize) -> Option<(usize, usize)> {
    let column = |line: &str| line.len() - line.trim_start().len();
    let is_text = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let rest = || (key_at + 1..lines.len()).filter(|&at| is_text(lines[at]));
    let dash = column(lines[rest().next()?]);
    let is_item =
        |at: &usize| column(lines[*at]) == dash && lines[*at].trim_start().starts_with('-');
    let key = lines[key_at].len() - lines[key_at].trim_start_matches([' ', '-']).len();
    if dash < key {
        return None;
    }
    let is_behind = |at: &usize| column(lines[*at]) <= dash && !is_item(at);
    let end = rest().find(is_behind).unwrap_or(lines.len());
    let mut items = rest()
        .take_while(|at| *at < end)
        .filter(is_item)
        .skip(index);
    let first = items.next()?;
    Some((first, items.next().unwrap_or(end)))
}

/// True where a line has this key, at its beginning or within braces.
fn holds_key(line: &str, key: &str) -> bool {
    let is_key = |(at, _): (usize, &str)| {
        let (before, after) = (line.get(..at), line.get(at + key.len()..));
        let begins = before.is_some_and(|b| b.is_empty() || b.ends_with([' ', '{', ',', '"']));
        begins && after.is_some_and(|a| a.starts_with(':') || a.starts_with("\":"))
    };
    !line.trim_start().starts_with('#') && line.match_indices(key).any(is_key)
}

/// The four kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Object {
    /// A Key.
    Key(Key),
    /// A connector; its revision is found when it is stored.
    Connector(ConnectorName, ConnectorSpec),
    /// A placement.
    Placement(Placement),
    /// A strategy.
    Strategy(Strategy),
}

impl Object {
    /// The word in `kind:`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Key(_) => "Key",
            Self::Connector(..) => "Connector",
            Self::Placement(_) => "Placement",
            Self::Strategy(_) => "Strategy",
        }
    }

    /// The word in `metadata.name:`.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Key(key) => KeyName::as_str(&key.name),
            Self::Connector(name, _) => ConnectorName::as_str(name),
            Self::Placement(placement) => PlacementName::as_str(&placement.name),
            Self::Strategy(strategy) => StrategyName::as_str(&strategy.name),
        }
    }
}
