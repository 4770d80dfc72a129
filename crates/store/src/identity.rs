//! Whether a deployment's agent is trusted, which certificates it was given, and forgetting it.

use keyfleet_core::Timestamp;
use keyfleet_core::id::{DeploymentId, EnrolmentId, KeyName, KeyVersion};
use keyfleet_core::standing::Standing;
use rusqlite::{OptionalExtension, params};

use crate::rows::{nanos, parse};
use crate::{Error, Tx};

/// A new enrolment of a deployment that is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEnrolment {
    /// Its id.
    pub enrolment: EnrolmentId,
    /// When.
    pub at: Timestamp,
    /// X25519 public key that secrets for the new agent are sealed to.
    pub sealing_key: Vec<u8>,
    /// Version of the agent.
    pub agent_version: String,
    /// Its first certificate, number 1.
    pub certificate: NewCertificate,
}

/// A certificate that a deployment's agent is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCertificate {
    /// Serial number, hexadecimal.
    pub serial: String,
    /// When it ends.
    pub not_after: Timestamp,
    /// Pin of the CA that signed it.
    pub ca: String,
}

/// A key version that a deployment was sent at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which Key.
    pub key: KeyName,
    /// Which version.
    pub version: KeyVersion,
    /// A holding of it is still open there.
    pub open: bool,
}

impl Tx<'_> {
    /// Changes whether a deployment's agent is trusted. `reason` is empty for active ones.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn set_standing(
        &self,
        id: DeploymentId,
        standing: Standing,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.0
            .prepare_cached(
                "UPDATE deployments SET standing = ?2, standing_reason = ?3, standing_at = ?4
                 WHERE id = ?1",
            )?
            .execute(params![
                id.to_string(),
                standing.as_str(),
                reason,
                nanos(now)
            ])?;
        Ok(())
    }

    /// Gives the certificate of this number to the enrolment, and uses up a word that let it be renewed.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn give_certificate(
        &self,
        id: DeploymentId,
        number: u64,
        certificate: &NewCertificate,
    ) -> Result<(), Error> {
        self.0
            .prepare_cached(
                "UPDATE deployments SET certificate_given = ?2,
                 certificate_serial = ?3, certificate_not_after = ?4, certificate_ca = ?5,
                 renewal_allowed = 0 WHERE id = ?1",
            )?
            .execute(params![
                id.to_string(),
                number,
                certificate.serial,
                nanos(certificate.not_after),
                certificate.ca,
            ])?;
        Ok(())
    }

    /// Stores which certificate opened a session last. A database that was restored learns here that it was given.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn see_certificate(&self, id: DeploymentId, number: u64) -> Result<(), Error> {
        self.0
            .prepare_cached(
                "UPDATE deployments SET certificate_seen = ?2,
                 certificate_given = MAX(certificate_given, ?2) WHERE id = ?1",
            )?
            .execute(params![id.to_string(), number])?;
        Ok(())
    }

    /// Lets an ended certificate be renewed once.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn allow_renewal(&self, id: DeploymentId) -> Result<(), Error> {
        self.0
            .prepare_cached("UPDATE deployments SET renewal_allowed = 1 WHERE id = ?1")?
            .execute([id.to_string()])?;
        Ok(())
    }

    /// What the enrolment was asked for with; `None` = a deployment that is not there.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn enrolled_by(&self, id: DeploymentId) -> Result<Option<Vec<u8>>, Error> {
        let sql = "SELECT enrolled_by FROM deployments WHERE id = ?1";
        let mut statement = self.0.prepare_cached(sql)?;
        let by = statement.query_row([id.to_string()], |row| row.get(0));
        Ok(by.optional()?.flatten())
    }

    /// Stores what the enrolment was asked for with: a hash over token, name and keys.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn set_enrolled_by(&self, id: DeploymentId, by: &[u8]) -> Result<(), Error> {
        self.0
            .prepare_cached("UPDATE deployments SET enrolled_by = ?2 WHERE id = ?1")?
            .execute(params![id.to_string(), by])?;
        Ok(())
    }

    /// Gives a deployment a new agent: another enrolment, with certificates that count anew. Id, name, labels and
    /// bindings stay. Its agent is trusted from here on.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn enrol_again(&self, id: DeploymentId, new: &NewEnrolment) -> Result<(), Error> {
        self.0
            .prepare_cached(
                "UPDATE deployments SET enrolment = ?2, enrolled_at = ?3, sealing_key = ?4,
                 agent_version = ?5, certificate_serial = ?6, certificate_not_after = ?7,
                 certificate_ca = ?8, certificate_given = 1, certificate_seen = 0,
                 renewal_allowed = 0, standing = 'ACTIVE', standing_reason = '', standing_at = NULL
                 WHERE id = ?1",
            )?
            .execute(params![
                id.to_string(),
                new.enrolment.to_string(),
                nanos(new.at),
                new.sealing_key,
                new.agent_version,
                new.certificate.serial,
                nanos(new.certificate.not_after),
                new.certificate.ca,
            ])?;
        // The new agent says what it sees; what the old one said is nobody's word any more.
        self.forget_inventory(id)
    }

    /// Voids every proof of a deployment: its agent is not trusted any more, or is another one.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn void_evidence_of(&self, id: DeploymentId) -> Result<(), Error> {
        self.0
            .prepare_cached("DELETE FROM evidence WHERE deployment = ?1")?
            .execute([id.to_string()])?;
        Ok(())
    }

    /// Every key version that a deployment was ever sent.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn held_by(&self, id: DeploymentId) -> Result<Vec<Held>, Error> {
        let mut statement = self.0.prepare_cached(
            "SELECT key, version, MAX(closed_at IS NULL) FROM holdings WHERE deployment = ?1
             GROUP BY key, version ORDER BY key, version",
        )?;
        let mut rows = statement.query([id.to_string()])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(Held {
                key: parse("holdings", &row.get::<_, String>(0)?)?,
                version: KeyVersion(row.get(1)?),
                open: row.get(2)?,
            });
        }
        Ok(all)
    }

    /// Forgets a deployment: closes its Holdings, and deletes it with its bindings, proofs, tokens and places in
    /// active rollouts. What ended rollouts say of it stays.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn remove_deployment(
        &self,
        id: DeploymentId,
        by: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        let id_text = id.to_string();
        self.0
            .prepare_cached(
                "UPDATE holdings SET closed_at = ?2, closed_by = ?3
                 WHERE deployment = ?1 AND closed_at IS NULL",
            )?
            .execute(params![id_text, nanos(now), by])?;
        self.void_evidence_of(id)?;
        self.revoke_tokens_of(id)?;
        self.forget_inventory(id)?;
        for sql in [
            "DELETE FROM rollout_bindings WHERE deployment = ?1
             AND rollout IN (SELECT id FROM rollouts WHERE active = 1)",
            "DELETE FROM rollout_targets WHERE deployment = ?1
             AND rollout IN (SELECT id FROM rollouts WHERE active = 1)",
            "DELETE FROM bindings WHERE deployment = ?1",
            "DELETE FROM deployments WHERE id = ?1",
        ] {
            self.0.prepare_cached(sql)?.execute([&id_text])?;
        }
        Ok(())
    }

    /// Takes back the join tokens that were made for a deployment's new agent.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn revoke_tokens_of(&self, id: DeploymentId) -> Result<(), Error> {
        self.0
            .prepare_cached("UPDATE tokens SET revoked = 1 WHERE deployment = ?1")?
            .execute([id.to_string()])?;
        Ok(())
    }

    /// How many certificates that are in use a CA signed: those of deployments that are not revoked.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn deployments_of_ca(&self, pin: &str) -> Result<u32, Error> {
        let sql = "SELECT COUNT(*) FROM deployments WHERE certificate_ca = ?1
                   AND standing <> 'REVOKED'";
        let mut statement = self.0.prepare_cached(sql)?;
        Ok(statement.query_row([pin], |row| row.get(0))?)
    }

    /// True where a deployment that is not revoked has not yet come with its newest certificate, or has it from
    /// another CA than this.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn is_awaited_by_ca(&self, pin: &str) -> Result<bool, Error> {
        let sql = "SELECT EXISTS (SELECT 1 FROM deployments WHERE standing <> 'REVOKED'
                   AND (certificate_ca <> ?1 OR certificate_seen <> certificate_given))";
        let mut statement = self.0.prepare_cached(sql)?;
        Ok(statement.query_row([pin], |row| row.get(0))?)
    }
}
