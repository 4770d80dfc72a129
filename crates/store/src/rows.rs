//! How values become columns: small helpers, and the JSON of nested values.

use std::str::FromStr;

use keyfleet_core::Timestamp;
use keyfleet_core::binding::Assignment;
use keyfleet_core::fleet::{Operator, Requirement, Selector};
use keyfleet_core::id::{KeyVersion, Revision};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Error;

/// A time as its column: exact, so that what is read equals what was written and nothing is written twice. A clock
/// that is wrong by centuries becomes the end of the years 1677 to 2262.
pub(crate) fn nanos(at: Timestamp) -> i64 {
    let nanos = at.as_nanosecond();
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

pub(crate) fn time(table: &'static str, nanos: i64) -> Result<Timestamp, Error> {
    Timestamp::from_nanosecond(nanos.into()).map_err(|err| Error::corrupt(table, err))
}

pub(crate) fn time_opt(
    table: &'static str,
    nanos: Option<i64>,
) -> Result<Option<Timestamp>, Error> {
    nanos.map(|nanos| time(table, nanos)).transpose()
}

pub(crate) fn parse<T>(table: &'static str, text: &str) -> Result<T, Error>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|err| Error::corrupt(table, err))
}

pub(crate) fn known<T>(table: &'static str, text: &str, value: Option<T>) -> Result<T, Error> {
    value.ok_or_else(|| Error::corrupt(table, format_args!("unknown word {text:?}")))
}

pub(crate) fn assignment(revision: Option<u64>, key_version: Option<u64>) -> Option<Assignment> {
    Some(Assignment {
        revision: Revision(revision?),
        key_version: KeyVersion(key_version?),
    })
}

pub(crate) fn columns(assignment: Option<Assignment>) -> (Option<u64>, Option<u64>) {
    (
        assignment.map(|a| a.revision.0),
        assignment.map(|a| a.key_version.0),
    )
}

pub(crate) fn to_json<T: Serialize>(table: &'static str, value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|err| Error::corrupt(table, err))
}

pub(crate) fn from_json<T: DeserializeOwned>(table: &'static str, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|err| Error::corrupt(table, err))
}

/// A selector as JSON.
#[derive(Serialize, Deserialize)]
pub(crate) struct SelectorRow(Vec<RequirementRow>);

#[derive(Serialize, Deserialize)]
struct RequirementRow {
    key: String,
    operator: OperatorRow,
}

#[derive(Serialize, Deserialize)]
enum OperatorRow {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl From<&Selector> for SelectorRow {
    fn from(selector: &Selector) -> Self {
        let row = |requirement: &Requirement| RequirementRow {
            key: requirement.key.clone(),
            operator: match &requirement.operator {
                Operator::In(values) => OperatorRow::In(values.clone()),
                Operator::NotIn(values) => OperatorRow::NotIn(values.clone()),
                Operator::Exists => OperatorRow::Exists,
                Operator::DoesNotExist => OperatorRow::DoesNotExist,
            },
        };
        Self(selector.requirements.iter().map(row).collect())
    }
}

impl From<SelectorRow> for Selector {
    fn from(row: SelectorRow) -> Self {
        let requirement = |row: RequirementRow| Requirement {
            key: row.key,
            operator: match row.operator {
                OperatorRow::In(values) => Operator::In(values),
                OperatorRow::NotIn(values) => Operator::NotIn(values),
                OperatorRow::Exists => Operator::Exists,
                OperatorRow::DoesNotExist => Operator::DoesNotExist,
            },
        };
        Self {
            requirements: row.0.into_iter().map(requirement).collect(),
        }
    }
}
