//! One entry as a line of JSON in the Elastic Common Schema (8.11), with everything in it that the hash covers, so
//! that the chain can be checked without the control service.

use keyfleet_core::Timestamp;
use keyfleet_core::audit::{Entry, Outcome};
use serde::{Deserialize, Serialize};

use super::{Error, Link, hex, unhex};

/// The version of the schema; its fields here are the same since 1.7.
const ECS_VERSION: &str = "8.11.0";

/// Nouns whose change is about who may do what: the category `iam`; all others are `configuration`.
const IAM: [&str; 3] = ["token", "deployment", "ca"];

/// A line. What a log shipper adds to it is passed over.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    /// RFC 3339 in UTC, to the nanosecond.
    #[serde(rename = "@timestamp")]
    timestamp: String,
    ecs: Ecs,
    event: Event,
    user: User,
    /// The entry in one sentence; not part of the hash.
    #[serde(default)]
    message: String,
    keyfleet: Keyfleet,
}

#[derive(Debug, Serialize, Deserialize)]
struct Ecs {
    version: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Event {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    category: Vec<String>,
    #[serde(default, rename = "type")]
    types: Vec<String>,
    #[serde(default)]
    dataset: String,
    action: String,
    outcome: String,
    sequence: u64,
    #[serde(default)]
    reason: String,
    hash: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct User {
    name: String,
}

/// What the schema has no field for.
#[derive(Debug, Serialize, Deserialize)]
struct Keyfleet {
    audit: Audit,
}

#[derive(Debug, Serialize, Deserialize)]
struct Audit {
    token: String,
    target: String,
    detail: String,
    previous_hash: String,
}

/// The line of an entry, without a line break.
pub(crate) fn write(link: &Link) -> String {
    let entry = &link.entry;
    let noun = entry.action.split('.').next().unwrap_or_default();
    let category = if IAM.contains(&noun) {
        "iam"
    } else {
        "configuration"
    };
    let line = Line {
        timestamp: entry.at.to_string(),
        ecs: Ecs {
            version: ECS_VERSION.to_owned(),
        },
        event: Event {
            kind: "event".to_owned(),
            category: vec![category.to_owned()],
            types: vec!["change".to_owned()],
            dataset: "keyfleet.audit".to_owned(),
            action: entry.action.clone(),
            outcome: ecs_outcome(entry.outcome).to_owned(),
            sequence: entry.number,
            reason: entry.reason.clone(),
            hash: hex(&link.hash),
        },
        user: User {
            name: entry.principal.clone(),
        },
        message: message(entry),
        keyfleet: Keyfleet {
            audit: Audit {
                token: entry.token.clone(),
                target: entry.target.clone(),
                detail: entry.detail.clone(),
                previous_hash: hex(&link.previous),
            },
        },
    };
    // Texts and numbers alone: JSON can say all of them.
    serde_json::to_string(&line).unwrap_or_default()
}

/// The entry of a line; `line` counts from 1.
///
/// # Errors
/// Where a field is missing or cannot be what `audit export` writes.
pub(crate) fn read(line: u64, text: &str) -> Result<Link, Error> {
    let broken = |problem: String| Error::Line { line, problem };
    let parsed: Line = serde_json::from_str(text).map_err(|err| broken(err.to_string()))?;
    let at: Timestamp = parsed
        .timestamp
        .parse()
        .map_err(|_| broken("`@timestamp` is not a point in time".to_owned()))?;
    let hash = |field: &str, text: &str| {
        unhex(text).ok_or_else(|| broken(format!("`{field}` is not a SHA-256 in hexadecimal")))
    };
    let outcome = [Outcome::Done, Outcome::Refused]
        .into_iter()
        .find(|outcome| ecs_outcome(*outcome) == parsed.event.outcome)
        .ok_or_else(|| broken("`event.outcome` is neither success nor failure".to_owned()))?;
    let audit = parsed.keyfleet.audit;
    Ok(Link {
        previous: hash("keyfleet.audit.previous_hash", &audit.previous_hash)?,
        hash: hash("event.hash", &parsed.event.hash)?,
        entry: Entry {
            number: parsed.event.sequence,
            at,
            principal: parsed.user.name,
            token: audit.token,
            action: parsed.event.action,
            target: audit.target,
            outcome,
            reason: parsed.event.reason,
            detail: audit.detail,
        },
    })
}

fn ecs_outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "success",
        Outcome::Refused => "failure",
    }
}

/// The entry in one sentence.
fn message(entry: &Entry) -> String {
    let refused = match entry.outcome {
        Outcome::Done => "",
        Outcome::Refused => " refused",
    };
    let mut text = format!(
        "{}: {} {}{refused}",
        entry.principal, entry.action, entry.target
    );
    for more in [&entry.reason, &entry.detail] {
        if !more.is_empty() {
            text.push_str(": ");
            text.push_str(more);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::tests::log;

    #[test]
    fn a_line_keeps_everything_that_is_hashed() {
        for link in log(3) {
            let line = write(&link);
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(read(1, &line), Ok(link));
        }
    }

    #[test]
    fn a_line_is_what_the_schema_wants() {
        let line: serde_json::Value = serde_json::from_str(&write(&log(1)[0])).unwrap();
        let text = |pointer: &str| line.pointer(pointer).and_then(|value| value.as_str());
        assert_eq!(text("/@timestamp"), Some("2026-11-18T11:06:40.000001001Z"));
        assert_eq!(text("/ecs/version"), Some("8.11.0"));
        assert_eq!(text("/event/kind"), Some("event"));
        assert_eq!(text("/event/category/0"), Some("iam"));
        assert_eq!(text("/event/action"), Some("deployment.suspend"));
        assert_eq!(text("/event/outcome"), Some("success"));
        assert_eq!(line["event"]["sequence"], 1);
        assert_eq!(text("/user/name"), Some("ada"));
    }

    #[test]
    fn a_line_from_elsewhere_is_refused_and_additions_are_passed_over() {
        let line = write(&log(1)[0]);
        let check = |from: &str, to: &str, expect: &str| {
            let err = read(7, &line.replace(from, to)).unwrap_err().to_string();
            assert!(
                err.starts_with("line 7 is no exported entry: ") && err.contains(expect),
                "{err}"
            );
        };
        check("success", "maybe", "event.outcome");
        check("2026-11-18T", "18.11.2026 ", "@timestamp");
        check(
            "previous_hash\":\"0",
            "previous_hash\":\"g",
            "previous_hash",
        );
        check("\"sequence\":1,", "", "sequence");
        check("{", "[", "");
        assert!(read(1, &line.replacen('{', "{\"host\":{\"name\":\"a\"},", 1)).is_ok());
    }
}
