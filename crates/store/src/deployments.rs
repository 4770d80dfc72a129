//! The fleet: one row per deployment, with the facts its agent reported last.

use keyfleet_core::Timestamp;
use keyfleet_core::fleet::Labels;
use keyfleet_core::id::{DeploymentId, DeploymentName, EnrolmentId, Generation};
use keyfleet_core::standing::Standing;
use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use crate::rows::{from_json, known, nanos, parse, time, time_opt, to_json};
use crate::{Error, Tx};

const TABLE: &str = "deployments";
const COLUMNS: &str = "id, name, labels, enrolment, enrolled_at, sealing_key, certificate_serial, \
                       certificate_not_after, agent_version, facts, last_seen, epoch, counter, standing, \
                       standing_reason, standing_at, certificate_given, certificate_seen, certificate_ca, \
                       renewal_allowed";

/// One deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Its id, for ever.
    pub id: DeploymentId,
    /// The name that operators see.
    pub name: DeploymentName,
    /// Its labels, frozen at enrolment.
    pub labels: Labels,
    /// The enrolment of its agent.
    pub enrolment: EnrolmentId,
    /// When that was.
    pub enrolled_at: Timestamp,
    /// X25519 public key that secrets for its agent are sealed to.
    pub sealing_key: Vec<u8>,
    /// Serial number of its certificate, hexadecimal.
    pub certificate_serial: String,
    /// When the certificate ends.
    pub certificate_not_after: Timestamp,
    /// Version of the agent.
    pub agent_version: String,
    /// What its agent reported of its Kibana.
    pub facts: Option<Facts>,
    /// When a session of it last began or ended.
    pub last_seen: Option<Timestamp>,
    /// Version of its desired state.
    pub generation: Generation,
    /// Whether its agent is trusted with keys.
    pub standing: Standing,
    /// Why, with who said so; empty while active.
    pub standing_reason: String,
    /// Since when; `None` = since the enrolment.
    pub standing_at: Option<Timestamp>,
    /// Number of the newest certificate of this enrolment, from 1.
    pub certificate_given: u64,
    /// Number of the newest certificate that opened a session; 0 = none did yet.
    pub certificate_seen: u64,
    /// Pin of the CA that signed the newest certificate: SHA-256 of its public key, hexadecimal.
    pub certificate_ca: String,
    /// An operator lets it renew an ended certificate, once.
    pub renewal_allowed: bool,
}

/// What an agent reported of its Kibana.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Facts {
    /// Kibana answered.
    pub reachable: bool,
    /// Its version, such as `9.4.0`; empty while unknown.
    pub version: String,
    /// Its uuid.
    pub uuid: String,
    /// `traditional` or `serverless`.
    pub flavor: String,
    /// The licence, in words.
    pub licence: String,
    /// Spaces the agent can see.
    pub spaces: Vec<Space>,
    /// What stands in the way, a sentence each.
    pub problems: Vec<String>,
    /// The whole preflight.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// When that was seen, microseconds since 1970.
    pub observed_at: i64,
}

/// One question of the preflight, as the agent answered it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was asked, such as `reachability`.
    pub name: String,
    /// `ok`, `warning`, `failed` or `skipped`.
    pub outcome: String,
    /// What was found and what to do.
    pub sentence: String,
    /// Several lines, such as the role to create.
    pub detail: String,
}

/// A space of a Kibana.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// Its id.
    pub id: String,
    /// False where connectors are disabled in it.
    pub actions_enabled: bool,
}

impl Tx<'_> {
    /// Every deployment, by name.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn deployments(&self) -> Result<Vec<Deployment>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM deployments ORDER BY name");
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut rows = statement.query([])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(read(row)?);
        }
        Ok(all)
    }

    /// One deployment.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn deployment(&self, id: DeploymentId) -> Result<Option<Deployment>, Error> {
        self.deployment_where("id", &id.to_string())
    }

    /// The deployment of this name.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn deployment_named(&self, name: &DeploymentName) -> Result<Option<Deployment>, Error> {
        self.deployment_where("name", name.as_str())
    }

    /// The deployments whose agents are not trusted with keys, by name.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn deployments_cut_off(&self) -> Result<Vec<Deployment>, Error> {
        let sql =
            format!("SELECT {COLUMNS} FROM deployments WHERE standing <> 'ACTIVE' ORDER BY name");
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut rows = statement.query([])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(read(row)?);
        }
        Ok(all)
    }

    fn deployment_where(&self, column: &str, value: &str) -> Result<Option<Deployment>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM deployments WHERE {column} = ?1");
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut rows = statement.query([value])?;
        rows.next()?.map(read).transpose()
    }

    /// Stores a new deployment. It begins active, without facts, sightings and generations, whatever the row says.
    ///
    /// # Errors
    /// Where the name is taken, or the database fails.
    pub fn insert_deployment(&self, deployment: &Deployment) -> Result<(), Error> {
        self.0
            .prepare_cached(
                "INSERT INTO deployments (id, name, labels, enrolment, enrolled_at, sealing_key,
                 certificate_serial, certificate_not_after, agent_version, certificate_ca)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                deployment.id.to_string(),
                deployment.name.as_str(),
                to_json(TABLE, &deployment.labels)?,
                deployment.enrolment.to_string(),
                nanos(deployment.enrolled_at),
                deployment.sealing_key,
                deployment.certificate_serial,
                nanos(deployment.certificate_not_after),
                deployment.agent_version,
                deployment.certificate_ca,
            ])?;
        Ok(())
    }

    /// Stores what an agent reported of its Kibana.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn set_facts(
        &self,
        id: DeploymentId,
        agent_version: &str,
        facts: &Facts,
    ) -> Result<(), Error> {
        self.0
            .prepare_cached("UPDATE deployments SET facts = ?2, agent_version = ?3 WHERE id = ?1")?
            .execute(params![
                id.to_string(),
                to_json(TABLE, facts)?,
                agent_version
            ])?;
        Ok(())
    }

    /// Stores when a session of the deployment last began or ended.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn set_last_seen(&self, id: DeploymentId, at: Timestamp) -> Result<(), Error> {
        self.0
            .prepare_cached("UPDATE deployments SET last_seen = ?2 WHERE id = ?1")?
            .execute(params![id.to_string(), nanos(at)])?;
        Ok(())
    }

    /// The digest of the desired state that the present generation stands for; `None` = not composed yet.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn digest(&self, id: DeploymentId) -> Result<Option<Vec<u8>>, Error> {
        let sql = "SELECT digest FROM deployments WHERE id = ?1";
        let mut statement = self.0.prepare_cached(sql)?;
        let digest = statement.query_row([id.to_string()], |row| row.get(0));
        Ok(digest.optional()?.flatten())
    }

    /// Stores which desired state the present generation stands for.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn set_digest(&self, id: DeploymentId, digest: &[u8]) -> Result<(), Error> {
        self.0
            .prepare_cached("UPDATE deployments SET digest = ?2 WHERE id = ?1")?
            .execute(params![id.to_string(), digest])?;
        Ok(())
    }

    /// Gives the deployment's desired state a new generation of this epoch, and says which.
    ///
    /// # Errors
    /// Where the database fails or the deployment is not there.
    pub fn next_generation(&self, id: DeploymentId, epoch: u64) -> Result<Generation, Error> {
        let counter: Option<u64> = self
            .0
            .prepare_cached(
                "UPDATE deployments SET epoch = ?2, counter = counter + 1, digest = NULL
                 WHERE id = ?1 RETURNING counter",
            )?
            .query_row(params![id.to_string(), epoch], |row| row.get(0))
            .optional()?;
        let counter =
            counter.ok_or_else(|| Error::corrupt(TABLE, format_args!("no deployment {id}")))?;
        Ok(Generation { epoch, counter })
    }
}

fn read(row: &Row<'_>) -> Result<Deployment, Error> {
    let facts: Option<String> = row.get(9)?;
    let standing: String = row.get(13)?;
    Ok(Deployment {
        id: parse(TABLE, &row.get::<_, String>(0)?)?,
        name: parse(TABLE, &row.get::<_, String>(1)?)?,
        labels: from_json(TABLE, &row.get::<_, String>(2)?)?,
        enrolment: parse(TABLE, &row.get::<_, String>(3)?)?,
        enrolled_at: time(TABLE, row.get(4)?)?,
        sealing_key: row.get(5)?,
        certificate_serial: row.get(6)?,
        certificate_not_after: time(TABLE, row.get(7)?)?,
        agent_version: row.get(8)?,
        facts: facts.map(|facts| from_json(TABLE, &facts)).transpose()?,
        last_seen: time_opt(TABLE, row.get(10)?)?,
        generation: Generation {
            epoch: row.get(11)?,
            counter: row.get(12)?,
        },
        standing: known(TABLE, &standing, Standing::parse(&standing))?,
        standing_reason: row.get(14)?,
        standing_at: time_opt(TABLE, row.get(15)?)?,
        certificate_given: row.get(16)?,
        certificate_seen: row.get(17)?,
        certificate_ca: row.get(18)?,
        renewal_allowed: row.get(19)?,
    })
}
