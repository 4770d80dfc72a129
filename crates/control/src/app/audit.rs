//! The audit log: every call that changes something is one entry, in the transaction of the change; so is what Keyfleet
//! itself ends or no longer trusts, and who was refused.

mod refusals;

use keyfleet_core::Timestamp;
use keyfleet_core::audit::{Entry, Hash, Outcome};
use keyfleet_proto::{Invalid, WireTime, v1};
use keyfleet_store::{AuditEntry, Tx};

use super::{Actor, App, KEYFLEET};
use crate::error::Error;

pub(crate) use refusals::Refusals;

/// Longest reason or other text of a caller that is kept, in characters: nobody fills the disk with one call.
const TEXT_CHARS_MAX: usize = 2_000;

/// What a row can count to.
const NUMBER_MAX: u64 = i64::MAX as u64;

/// What somebody does.
#[derive(Debug, Clone)]
pub(crate) struct Act {
    /// As `noun.verb`, such as `rollout.pause`.
    pub(crate) action: &'static str,
    /// As `noun name`.
    pub(crate) target: String,
    /// Why, as the operator said.
    pub(crate) reason: String,
    /// What else there is to know, a sentence.
    pub(crate) detail: String,
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Since {
    /// With the entry of this number.
    Number(u64),
    /// With so many of the newest.
    Newest(u32),
}

impl Since {
    /// What a reader asked for; nothing at all is everything.
    pub(crate) fn new(from: u64, last: u32) -> Result<Self, Invalid> {
        match (from, last) {
            (from, 0) => Ok(Self::Number(from)),
            (0, last) => Ok(Self::Newest(last)),
            _ => Err(Invalid::new("last", "cannot be asked for beside `from`")),
        }
    }
}

/// Writes down that it was done.
pub(crate) fn record(tx: &Tx<'_>, actor: &Actor, act: Act, now: Timestamp) -> Result<(), Error> {
    Ok(tx.append_audit(entry(Some(actor), act, Outcome::Done, now))?)
}

/// Writes down what Keyfleet did by itself.
pub(crate) fn record_own(
    tx: &Tx<'_>,
    action: &'static str,
    target: String,
    detail: String,
    now: Timestamp,
) -> Result<(), Error> {
    let act = Act {
        action,
        target,
        reason: String::new(),
        detail,
    };
    let own = Entry {
        principal: KEYFLEET.to_owned(),
        ..entry(None, act, Outcome::Done, now)
    };
    Ok(tx.append_audit(own)?)
}

fn entry(actor: Option<&Actor>, act: Act, outcome: Outcome, now: Timestamp) -> Entry {
    let short = |text: String| text.chars().take(TEXT_CHARS_MAX).collect();
    Entry {
        number: 0,
        at: now,
        principal: actor.map_or_else(|| "unknown".to_owned(), |actor| actor.principal.clone()),
        token: actor
            .and_then(|actor| actor.token)
            .map(|id| id.to_string())
            .unwrap_or_default(),
        action: act.action.to_owned(),
        target: short(act.target),
        outcome,
        reason: short(act.reason.trim().to_owned()),
        detail: act.detail,
    }
}

impl App {
    /// Some entries from a place on, at most `limit`, and the number that the next will have.
    pub(crate) async fn audit_page(
        &self,
        since: Since,
        limit: u32,
    ) -> Result<(Vec<v1::AuditEntry>, u64), Error> {
        let read = move |tx: &Tx<'_>| {
            let from = match since {
                Since::Number(from) => from.clamp(1, NUMBER_MAX),
                Since::Newest(count) => {
                    let (last, _) = tx.audit_head()?;
                    last.saturating_sub(u64::from(count)) + 1
                }
            };
            let entries = tx.audit(from, limit)?;
            let next = entries.last().map_or(from, |last| last.entry.number + 1);
            Ok::<_, keyfleet_store::Error>((entries, next))
        };
        let (entries, next) = self.store.read(read).await.map_err(unread)?;
        Ok((entries.into_iter().map(wire).collect(), next))
    }

    /// Logs where the chain ends: a log that is kept elsewhere then shows whether the end was cut off or replaced.
    pub(crate) async fn log_audit_head(&self) {
        let head = self.store.read(|tx| Ok::<_, Error>(tx.audit_head()?)).await;
        match head {
            Ok((number, hash)) => tracing::info!(
                audit.head = format!("{number}:{}", hex(&hash)),
                "the audit log ends here: `keyfleet audit verify --anchor` takes it"
            ),
            Err(err) => tracing::error!(error = %err, "the audit log cannot be read"),
        }
    }
}

/// A row that no version of ours wrote is for the reader to know, and not only for the log of control.
fn unread(err: keyfleet_store::Error) -> Error {
    if matches!(err, keyfleet_store::Error::Corrupt { .. }) {
        return Error::Precondition(format!("the audit log was changed: {err}"));
    }
    err.into()
}

fn wire(row: AuditEntry) -> v1::AuditEntry {
    let entry = row.entry;
    v1::AuditEntry {
        number: entry.number,
        at: Some(WireTime(entry.at).into()),
        principal: entry.principal,
        token: entry.token,
        action: entry.action,
        target: entry.target,
        outcome: entry.outcome.as_str().to_owned(),
        reason: entry.reason,
        detail: entry.detail,
        previous_hash: row.previous.to_vec().into(),
        hash: row.hash.to_vec().into(),
    }
}

/// Groups of 16 digits: one long word would be taken for a key, and masked in the log.
fn hex(hash: &Hash) -> String {
    let groups = hash.chunks(8).map(|group| {
        let digits = group.iter().map(|byte| format!("{byte:02x}"));
        digits.collect::<String>()
    });
    groups.collect::<Vec<_>>().join(":")
}
