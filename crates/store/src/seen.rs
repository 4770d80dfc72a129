//! Connectors of others, as agents see them on their Kibanas.

use keyfleet_core::id::DeploymentId;
use rusqlite::{OptionalExtension, params};

use crate::rows::parse;
use crate::{Error, Tx};

const TABLE: &str = "seen_connectors";

/// Ids that look like those that Keyfleet gives, which are UUIDs of version 5: what Kibana gives is of version 4.
const LIKE_OURS: &str = "SELECT deployment, id FROM seen_connectors WHERE substr(id, 15, 1) = '5' ORDER BY id, deployment";

/// Kibanas that several deployments report.
const SHARED: &str =
    "SELECT EXISTS (SELECT 1 FROM deployments WHERE json_extract(facts, '$.uuid') <> ''
     GROUP BY json_extract(facts, '$.uuid') HAVING COUNT(*) > 1)";

/// A connector that Keyfleet does not own; every text is a foreign one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeenConnector {
    /// The space it was seen in.
    pub space: String,
    /// Its id in Kibana.
    pub id: String,
    /// The name that people see.
    pub name: String,
    /// For example `.gen-ai`.
    pub connector_type: String,
    /// Its fields, one JSON object; empty where they were not shown.
    pub config: String,
    /// Kept in kibana.yml or by Kibana itself.
    pub is_read_only: bool,
    /// It cannot work until it is written again.
    pub is_missing_secrets: bool,
    /// Rules and others that refer to it.
    pub references: u32,
}

/// What an agent saw on its Kibana beside its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// In order of space and id, each once.
    pub connectors: Vec<SeenConnector>,
    /// Everything was looked through: what is not listed is not there.
    pub is_complete: bool,
}

impl Tx<'_> {
    /// What the agent of a deployment saw.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn inventory(&self, deployment: DeploymentId) -> Result<Inventory, Error> {
        let id = deployment.to_string();
        let sql = "SELECT connectors_complete FROM deployments WHERE id = ?1";
        let mut statement = self.0.prepare_cached(sql)?;
        let is_complete = statement.query_row([&id], |row| row.get(0)).optional()?;
        let mut statement = self.0.prepare_cached(
            "SELECT space, id, name, type, config, read_only, missing_secrets, refs
             FROM seen_connectors WHERE deployment = ?1 ORDER BY space, id",
        )?;
        let read = |row: &rusqlite::Row<'_>| {
            Ok(SeenConnector {
                space: row.get(0)?,
                id: row.get(1)?,
                name: row.get(2)?,
                connector_type: row.get(3)?,
                config: row.get(4)?,
                is_read_only: row.get(5)?,
                is_missing_secrets: row.get(6)?,
                references: row.get(7)?,
            })
        };
        let connectors = statement.query_map([&id], read)?;
        Ok(Inventory {
            connectors: connectors.collect::<Result<_, _>>()?,
            is_complete: is_complete.unwrap_or_default(),
        })
    }

    /// Stores what the agent of a deployment saw in place of what it saw before; writes only what differs. Says whether
    /// anything did.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn set_inventory(&self, deployment: DeploymentId, new: &Inventory) -> Result<bool, Error> {
        let old = self.inventory(deployment)?;
        if old == *new {
            return Ok(false);
        }
        let id = deployment.to_string();
        if old.is_complete != new.is_complete {
            self.0
                .prepare_cached("UPDATE deployments SET connectors_complete = ?2 WHERE id = ?1")?
                .execute(params![id, new.is_complete])?;
        }
        let place = |seen: &SeenConnector| (seen.space.clone(), seen.id.clone());
        let kept: std::collections::BTreeSet<_> = new.connectors.iter().map(place).collect();
        for gone in old
            .connectors
            .iter()
            .filter(|old| !kept.contains(&place(old)))
        {
            self.0
                .prepare_cached(
                    "DELETE FROM seen_connectors WHERE deployment = ?1 AND space = ?2 AND id = ?3",
                )?
                .execute(params![id, gone.space, gone.id])?;
        }
        let known: std::collections::BTreeSet<&SeenConnector> = old.connectors.iter().collect();
        for seen in new.connectors.iter().filter(|new| !known.contains(new)) {
            self.put_seen(&id, seen)?;
        }
        Ok(true)
    }

    fn put_seen(&self, deployment: &str, seen: &SeenConnector) -> Result<(), Error> {
        self.0
            .prepare_cached(
                "INSERT OR REPLACE INTO seen_connectors VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                deployment,
                seen.space,
                seen.id,
                seen.name,
                seen.connector_type,
                seen.config,
                seen.is_read_only,
                seen.is_missing_secrets,
                seen.references,
            ])?;
        Ok(())
    }

    /// True where several deployments report the same text as the uuid of their Kibana.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn has_shared_uuid(&self) -> Result<bool, Error> {
        let mut statement = self.0.prepare_cached(SHARED)?;
        Ok(statement.query_row([], |row| row.get(0))?)
    }

    /// Which deployments see a connector whose id looks like one that Keyfleet gave, and the id.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn seen_like_ours(&self) -> Result<Vec<(DeploymentId, String)>, Error> {
        let mut statement = self.0.prepare_cached(LIKE_OURS)?;
        let mut rows = statement.query([])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push((parse(TABLE, &row.get::<_, String>(0)?)?, row.get(1)?));
        }
        Ok(all)
    }

    /// Forgets what was seen by the agent of a deployment: another one looks anew, or nobody any more.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn forget_inventory(&self, deployment: DeploymentId) -> Result<(), Error> {
        self.set_inventory(deployment, &Inventory::default())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::plan_of;

    #[test]
    fn kibanas_that_are_said_to_be_the_same_are_found_without_reading_any_facts() {
        let plan = plan_of(SHARED);
        assert!(plan.contains("INDEX deployments_uuid"), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }

    #[test]
    fn ids_like_ours_are_found_without_a_look_at_all_others() {
        let plan = plan_of(LIKE_OURS);
        assert!(
            plan.contains("COVERING INDEX seen_connectors_like_ours"),
            "{plan}"
        );
    }
}
