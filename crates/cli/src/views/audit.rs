//! The audit log.

use keyfleet_core::audit::Outcome;
use keyfleet_proto::v1;

use super::rollout::short_id;
use crate::output::{Cell, Table, Tone, View, clean, paint, rfc3339, when};

/// Length of a UUID in text.
const UUID_CHARS: usize = 36;

/// The table of entries.
pub(crate) fn table(entries: &[v1::AuditEntry], view: &View) -> String {
    let headers: &[&str] = if view.wide {
        &[
            "NUMBER",
            "WHEN",
            "WHO",
            "TOKEN",
            "WHAT",
            "TARGET",
            "OUTCOME",
            "HASH",
            "REASON…",
            "DETAIL…",
        ]
    } else {
        &["NUMBER", "WHEN", "WHO", "WHAT", "TARGET", "OUTCOME", "WHY…"]
    };
    let mut table = Table::new(headers);
    for entry in entries {
        let mut cells: Vec<Cell> = vec![
            entry.number.to_string().into(),
            when(entry.at, view).into(),
            (&entry.principal).into(),
        ];
        if view.wide {
            cells.push((&entry.token).into());
        }
        cells.push((&entry.action).into());
        if view.wide {
            cells.push((&entry.target).into());
        } else {
            cells.push(target(entry).into());
        }
        cells.push(Cell::toned(&entry.outcome, tone(entry)));
        if view.wide {
            cells.push(crate::audit::hex(&entry.hash).into());
            cells.push((&entry.reason).into());
            cells.push((&entry.detail).into());
        } else {
            cells.push(why(entry).into());
        }
        table.row(cells);
    }
    table.without_empty_columns().to_string()
}

/// An entry on one line, for a log that goes on.
pub(crate) fn line(entry: &v1::AuditEntry) -> String {
    let mut text = format!(
        "{} {} {} {} {}",
        rfc3339(entry.at),
        clean(&entry.principal),
        clean(&entry.action),
        clean(target(entry)),
        paint(&clean(&entry.outcome), tone(entry)),
    );
    let why = clean(why(entry));
    if !why.is_empty() {
        text.push_str(": ");
        text.push_str(&why);
    }
    text
}

/// What the caller said, else what control adds.
fn why(entry: &v1::AuditEntry) -> &str {
    super::deployment::first_of(&entry.reason, &entry.detail)
}

/// The target without its noun, which the action says already, and a long id cut short.
fn target(entry: &v1::AuditEntry) -> &str {
    let noun = entry.action.split('.').next().unwrap_or_default();
    let name = entry
        .target
        .strip_prefix(noun)
        .and_then(|rest| rest.strip_prefix(' '))
        .unwrap_or(&entry.target);
    if name.len() == UUID_CHARS {
        short_id(name)
    } else {
        name
    }
}

fn tone(entry: &v1::AuditEntry) -> Tone {
    if entry.outcome == Outcome::Done.as_str() {
        Tone::Good
    } else {
        Tone::Bad
    }
}
