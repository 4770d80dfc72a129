//! The fleet: one row per deployment, with the facts its agent reported last.

use keyfleet_core::Timestamp;
use keyfleet_core::fleet::Labels;
use keyfleet_core::id::{DeploymentId, DeploymentName, EnrolmentId, Generation};
use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use crate::rows::{from_json, nanos, parse, time, time_opt, to_json};
use crate::{Error, Tx};

const TABLE: &str = "deployments";
const COLUMNS: &str = "id, name, labels, enrolment, enrolled_at, sealing_key, certificate_serial, \
                       certificate_not_after, agent_version, facts, last_seen, epoch, counter";

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
    /// When that was seen, microseconds since 1970.
    pub observed_at: i64,
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

    fn deployment_where(&self, column: &str, value: &str) -> Result<Option<Deployment>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM deployments WHERE {column} = ?1");
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut rows = statement.query([value])?;
        rows.next()?.map(read).transpose()
    }

    /// Stores a new deployment. It begins without facts, sightings and generations, whatever the row says.
    ///
    /// # Errors
    /// Where the name is taken, or the database fails.
    pub fn insert_deployment(&self, deployment: &Deployment) -> Result<(), Error> {
        self.0
            .prepare_cached(
                "INSERT INTO deployments (id, name, labels, enrolment, enrolled_at, sealing_key,
                 certificate_serial, certificate_not_after, agent_version)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
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
    })
}
