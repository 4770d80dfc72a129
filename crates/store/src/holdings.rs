//! Holdings and evidence: who may hold which key version, and who proved it.

use keyfleet_core::Timestamp;
use keyfleet_core::binding::BindingId;
use keyfleet_core::id::{EnrolmentId, KeyName, KeyVersion, Revision};
use rusqlite::params;

use crate::bindings::read_id;
use crate::rows::{nanos, parse, time, time_opt};
use crate::{Error, Tx};

/// A binding that may hold a key version: written before the version is sent there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Who.
    pub binding: BindingId,
    /// Which Key.
    pub key: KeyName,
    /// Which version.
    pub version: KeyVersion,
    /// Since when.
    pub opened_at: Timestamp,
    /// Until when; `None` = still.
    pub closed_at: Option<Timestamp>,
    /// What closed it: proof of another version, confirmed removal, or a waiver.
    pub closed_by: Option<String>,
}

/// A live call that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Who made it.
    pub binding: BindingId,
    /// With which Key.
    pub key: KeyName,
    /// With which version.
    pub version: KeyVersion,
    /// With which revision of the connector.
    pub revision: Revision,
    /// Seen by this enrolment of the agent.
    pub enrolment: EnrolmentId,
    /// Under this certificate.
    pub certificate_serial: String,
    /// When the call began.
    pub at: Timestamp,
}

impl Tx<'_> {
    /// Opens a holding, or opens it again.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn open_holding(
        &self,
        binding: &BindingId,
        key: &KeyName,
        version: KeyVersion,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.0
            .prepare_cached(
                "INSERT INTO holdings VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL, NULL)
                 ON CONFLICT DO UPDATE SET opened_at = ?6, closed_at = NULL, closed_by = NULL
                 WHERE closed_at IS NOT NULL",
            )?
            .execute(params![
                binding.deployment.to_string(),
                binding.space.as_str(),
                binding.connector.as_str(),
                key.as_str(),
                version.0,
                nanos(now),
            ])?;
        Ok(())
    }

    /// Closes every open holding of a binding except those of `keep`.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn close_holdings(
        &self,
        binding: &BindingId,
        keep: Option<(&KeyName, KeyVersion)>,
        by: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        let (keep_key, keep_version) = match keep {
            Some((key, version)) => (key.as_str(), version.0),
            None => ("", 0),
        };
        self.0
            .prepare_cached(
                "UPDATE holdings SET closed_at = ?6, closed_by = ?7
                 WHERE deployment = ?1 AND space = ?2 AND connector = ?3 AND closed_at IS NULL
                 AND NOT (key = ?4 AND version = ?5)",
            )?
            .execute(params![
                binding.deployment.to_string(),
                binding.space.as_str(),
                binding.connector.as_str(),
                keep_key,
                keep_version,
                nanos(now),
                by,
            ])?;
        Ok(())
    }

    /// Every holding of a Key, open and closed.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn holdings(&self, key: &KeyName) -> Result<Vec<Holding>, Error> {
        let mut statement = self.0.prepare_cached(
            "SELECT deployment, space, connector, key, version, opened_at, closed_at, closed_by
             FROM holdings WHERE key = ?1 ORDER BY version, deployment, space, connector",
        )?;
        let mut rows = statement.query([key.as_str()])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(Holding {
                binding: read_id("holdings", row, 0)?,
                key: parse("holdings", &row.get::<_, String>(3)?)?,
                version: KeyVersion(row.get(4)?),
                opened_at: time("holdings", row.get(5)?)?,
                closed_at: time_opt("holdings", row.get(6)?)?,
                closed_by: row.get(7)?,
            });
        }
        Ok(all)
    }

    /// Stores a proof; the newest of a (binding, key version) stands.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn put_evidence(&self, evidence: &Evidence) -> Result<(), Error> {
        let binding = &evidence.binding;
        self.0
            .prepare_cached(
                "INSERT OR REPLACE INTO evidence VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                binding.deployment.to_string(),
                binding.space.as_str(),
                binding.connector.as_str(),
                evidence.key.as_str(),
                evidence.version.0,
                evidence.revision.0,
                evidence.enrolment.to_string(),
                evidence.certificate_serial,
                nanos(evidence.at),
            ])?;
        Ok(())
    }

    /// Every proof made with a Key.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn evidence(&self, key: &KeyName) -> Result<Vec<Evidence>, Error> {
        let mut statement = self.0.prepare_cached(
            "SELECT deployment, space, connector, key, version, revision, enrolment,
             certificate_serial, at FROM evidence WHERE key = ?1
             ORDER BY version, deployment, space, connector",
        )?;
        let mut rows = statement.query([key.as_str()])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(Evidence {
                binding: read_id("evidence", row, 0)?,
                key: parse("evidence", &row.get::<_, String>(3)?)?,
                version: KeyVersion(row.get(4)?),
                revision: Revision(row.get(5)?),
                enrolment: parse("evidence", &row.get::<_, String>(6)?)?,
                certificate_serial: row.get(7)?,
                at: time("evidence", row.get(8)?)?,
            });
        }
        Ok(all)
    }

    /// Voids the proof of a binding: its connector was rewritten, or a probe failed.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn void_evidence(&self, binding: &BindingId) -> Result<(), Error> {
        self.0
            .prepare_cached(
                "DELETE FROM evidence WHERE deployment = ?1 AND space = ?2 AND connector = ?3",
            )?
            .execute(params![
                binding.deployment.to_string(),
                binding.space.as_str(),
                binding.connector.as_str(),
            ])?;
        Ok(())
    }
}
