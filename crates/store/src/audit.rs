//! The audit log: append-only and hash-chained; see `keyfleet_core::audit` for what a hash covers.

use keyfleet_core::audit::{Entry, HASH_BYTES, Hash, Outcome};
use rusqlite::{OptionalExtension, Row, params};
use sha2::{Digest, Sha256};

use crate::rows::{nanos, time};
use crate::{Error, Tx};

const TABLE: &str = "audit";

/// An entry with its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// What it says.
    pub entry: Entry,
    /// Hash of the entry before it.
    pub previous: Hash,
    /// Its own.
    pub hash: Hash,
}

impl Tx<'_> {
    /// Adds an entry at the end; its number is given here, whatever it says.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn append_audit(&self, entry: Entry) -> Result<(), Error> {
        let (last, previous) = self.audit_head()?;
        let entry = Entry {
            number: last + 1,
            ..entry
        };
        let hash: Hash = Sha256::digest(entry.hashed_bytes(&previous)).into();
        self.0
            .prepare_cached(
                "INSERT INTO audit VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?
            .execute(params![
                entry.number,
                nanos(entry.at),
                entry.principal,
                entry.token,
                entry.action,
                entry.target,
                entry.outcome.as_str(),
                entry.reason,
                entry.detail,
                previous,
                hash,
            ])?;
        Ok(())
    }

    /// Number and hash of the newest entry; 0 and zeros where there is none.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn audit_head(&self) -> Result<(u64, Hash), Error> {
        let sql = "SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1";
        let mut statement = self.0.prepare_cached(sql)?;
        let head = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?)));
        Ok(head.optional()?.unwrap_or((0, [0; HASH_BYTES])))
    }

    /// At most `limit` entries from number `from` on, in order.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn audit(&self, from: u64, limit: u32) -> Result<Vec<AuditEntry>, Error> {
        let sql = "SELECT number, at, principal, token, action, target, outcome, reason, detail, previous_hash, hash
                   FROM audit WHERE number >= ?1 ORDER BY number LIMIT ?2";
        let mut statement = self.0.prepare_cached(sql)?;
        let mut rows = statement.query(params![from, limit])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(read(row)?);
        }
        Ok(all)
    }
}

fn read(row: &Row<'_>) -> Result<AuditEntry, Error> {
    let number = row.get(0)?;
    let outcome: String = row.get(6)?;
    let unknown = || {
        Error::corrupt(
            TABLE,
            format_args!("entry {number} has outcome {outcome:?}"),
        )
    };
    let entry = Entry {
        number,
        at: time(TABLE, row.get(1)?)?,
        principal: row.get(2)?,
        token: row.get(3)?,
        action: row.get(4)?,
        target: row.get(5)?,
        outcome: Outcome::parse(&outcome).ok_or_else(unknown)?,
        reason: row.get(7)?,
        detail: row.get(8)?,
    };
    Ok(AuditEntry {
        entry,
        previous: row.get(9)?,
        hash: row.get(10)?,
    })
}
