//! The operators' objects: connectors with all their revisions, and placements.

use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::adoption::{Adopt, AdoptBy};
use keyfleet_core::connector::{ConnectorRevision, ConnectorSpec, Probe};
use keyfleet_core::id::{ConnectorName, PlacementName, Revision, RolloutId};
use keyfleet_core::models::Task;
use keyfleet_core::placement::{DriftPolicy, Placement};
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use crate::rows::{SelectorRow, from_json, known, nanos, parse, time, time_opt, to_json};
use crate::{Error, Tx};

/// A revision of a connector, with its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connector {
    /// The revision itself.
    pub revision: ConnectorRevision,
    /// When it was stored.
    pub created_at: Timestamp,
    /// The rollout that rolled it back: it is not spread again by itself.
    pub withdrawn_by: Option<RolloutId>,
    /// When the connector was deleted: its bindings go away. A new connector of the name has revisions without.
    pub deleted_at: Option<Timestamp>,
}

impl Connector {
    /// True where it may be spread: neither rolled back nor deleted.
    pub fn is_live(&self) -> bool {
        self.withdrawn_by.is_none() && self.deleted_at.is_none()
    }
}

#[derive(Serialize, Deserialize)]
struct PlacementRow {
    selector: SelectorRow,
    connectors: Vec<String>,
    spaces: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    except_spaces: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    adopt: Vec<AdoptRow>,
    drift: String,
    strategy: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct AdoptRow {
    connector: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct ProbeRow {
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval_secs: Option<u64>,
}

impl Tx<'_> {
    /// Every revision of every connector, by name, the newest revision first.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn connectors(&self) -> Result<Vec<Connector>, Error> {
        let mut statement = self.0.prepare_cached(
            "SELECT name, revision, type, display_name, config, key, created_at, withdrawn_by, deleted_at,
                    if_supported, probe, replaces
             FROM connectors ORDER BY name, revision DESC",
        )?;
        let mut rows = statement.query([])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(read_connector(row)?);
        }
        Ok(all)
    }

    /// One revision of one connector.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn connector(
        &self,
        name: &ConnectorName,
        revision: Revision,
    ) -> Result<Option<Connector>, Error> {
        let mut statement = self.0.prepare_cached(
            "SELECT name, revision, type, display_name, config, key, created_at, withdrawn_by, deleted_at,
                    if_supported, probe, replaces
             FROM connectors WHERE name = ?1 AND revision = ?2",
        )?;
        let mut rows = statement.query(params![name.as_str(), revision.0])?;
        rows.next()?.map(read_connector).transpose()
    }

    /// The newest revision of a connector, live or not.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn newest_connector(&self, name: &ConnectorName) -> Result<Option<Connector>, Error> {
        let mut statement = self.0.prepare_cached(
            "SELECT name, revision, type, display_name, config, key, created_at, withdrawn_by, deleted_at,
                    if_supported, probe, replaces
             FROM connectors WHERE name = ?1 ORDER BY revision DESC LIMIT 1",
        )?;
        let mut rows = statement.query([name.as_str()])?;
        rows.next()?.map(read_connector).transpose()
    }

    /// Stores a new revision.
    ///
    /// # Errors
    /// Where it exists already, or the database fails.
    pub fn insert_connector(&self, new: &ConnectorRevision, now: Timestamp) -> Result<(), Error> {
        let spec = &new.spec;
        self.0
            .prepare_cached(
                "INSERT INTO connectors
                   (name, revision, type, display_name, config, key, created_at, if_supported, probe,
                    replaces)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                new.connector.as_str(),
                new.revision.0,
                spec.connector_type,
                spec.display_name,
                spec.config,
                spec.key.as_str(),
                nanos(now),
                to_json("connectors", &spec.if_supported)?,
                to_json("connectors", &ProbeRow::from(&spec.probe))?,
                spec.replaces.as_ref().map(ConnectorName::as_str),
            ])?;
        Ok(())
    }

    /// Marks a revision as rolled back by a rollout, or (with `None`) as wanted again.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn withdraw_connector(
        &self,
        name: &ConnectorName,
        revision: Revision,
        by: Option<RolloutId>,
    ) -> Result<(), Error> {
        self.0
            .prepare_cached(
                "UPDATE connectors SET withdrawn_by = ?3 WHERE name = ?1 AND revision = ?2",
            )?
            .execute(params![
                name.as_str(),
                revision.0,
                by.map(|id| id.to_string())
            ])?;
        Ok(())
    }

    /// The number of the next revision of a connector: above all that were ever stored, also of a deleted connector
    /// of the name, and above what a restored backup may not know.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn next_revision(&self, name: &ConnectorName) -> Result<Revision, Error> {
        let sql = "SELECT max(revision_floor, coalesce((SELECT max(revision) FROM connectors WHERE name = ?1), 0)) + 1
                   FROM service";
        let mut statement = self.0.prepare_cached(sql)?;
        Ok(Revision(
            statement.query_row([name.as_str()], |row| row.get(0))?,
        ))
    }

    /// Deletes a connector: every revision of it stays as a tombstone.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn delete_connector(&self, name: &ConnectorName, now: Timestamp) -> Result<(), Error> {
        self.0
            .prepare_cached(
                "UPDATE connectors SET deleted_at = ?2 WHERE name = ?1 AND deleted_at IS NULL",
            )?
            .execute(params![name.as_str(), nanos(now)])?;
        Ok(())
    }

    /// Every placement that is not deleted, by name.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn placements(&self) -> Result<Vec<Placement>, Error> {
        self.placements_where("deleted_at IS NULL")
    }

    /// Every placement whose tombstone is there, by name: what it placed may still be on its way out.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn deleted_placements(&self) -> Result<Vec<Placement>, Error> {
        self.placements_where("deleted_at IS NOT NULL")
    }

    fn placements_where(&self, condition: &str) -> Result<Vec<Placement>, Error> {
        let sql = format!("SELECT name, spec FROM placements WHERE {condition} ORDER BY name");
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut rows = statement.query([])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(read_placement(
                &row.get::<_, String>(0)?,
                &row.get::<_, String>(1)?,
            )?);
        }
        Ok(all)
    }

    /// Deletes a placement; a tombstone stays.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn delete_placement(&self, name: &PlacementName, now: Timestamp) -> Result<(), Error> {
        self.0
            .prepare_cached("UPDATE placements SET deleted_at = ?2 WHERE name = ?1")?
            .execute(params![name.as_str(), nanos(now)])?;
        Ok(())
    }

    /// Stores a placement, new or changed.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn put_placement(&self, placement: &Placement) -> Result<(), Error> {
        let row = PlacementRow {
            selector: (&placement.selector).into(),
            connectors: placement
                .connectors
                .iter()
                .map(ToString::to_string)
                .collect(),
            spaces: placement.spaces.iter().map(ToString::to_string).collect(),
            except_spaces: placement
                .except_spaces
                .iter()
                .map(ToString::to_string)
                .collect(),
            adopt: placement.adopt.iter().map(adopt_row).collect(),
            drift: placement.drift_policy.as_str().to_owned(),
            strategy: placement.strategy.to_string(),
            task: placement.task.map(|task| task.to_string()),
        };
        self.0
            .prepare_cached("INSERT OR REPLACE INTO placements (name, spec) VALUES (?1, ?2)")?
            .execute(params![
                placement.name.as_str(),
                to_json("placements", &row)?
            ])?;
        Ok(())
    }
}

fn read_connector(row: &Row<'_>) -> Result<Connector, Error> {
    const TABLE: &str = "connectors";
    let withdrawn_by: Option<String> = row.get(7)?;
    let replaces: Option<String> = row.get(11)?;
    Ok(Connector {
        revision: ConnectorRevision {
            connector: parse(TABLE, &row.get::<_, String>(0)?)?,
            revision: Revision(row.get(1)?),
            spec: ConnectorSpec {
                connector_type: row.get(2)?,
                display_name: row.get(3)?,
                config: row.get(4)?,
                key: parse(TABLE, &row.get::<_, String>(5)?)?,
                if_supported: from_json(TABLE, &row.get::<_, String>(9)?)?,
                probe: from_json::<ProbeRow>(TABLE, &row.get::<_, String>(10)?)?.into(),
                replaces: replaces.map(|name| parse(TABLE, &name)).transpose()?,
            },
        },
        created_at: time(TABLE, row.get(6)?)?,
        withdrawn_by: withdrawn_by.map(|id| parse(TABLE, &id)).transpose()?,
        deleted_at: time_opt(TABLE, row.get(8)?)?,
    })
}

fn read_placement(name: &str, spec: &str) -> Result<Placement, Error> {
    const TABLE: &str = "placements";
    let row: PlacementRow = from_json(TABLE, spec)?;
    let name: PlacementName = parse(TABLE, name)?;
    Ok(Placement {
        name,
        selector: row.selector.into(),
        connectors: row
            .connectors
            .iter()
            .map(|text| parse(TABLE, text))
            .collect::<Result<_, _>>()?,
        spaces: row
            .spaces
            .iter()
            .map(|text| parse(TABLE, text))
            .collect::<Result<_, _>>()?,
        except_spaces: row
            .except_spaces
            .iter()
            .map(|text| parse(TABLE, text))
            .collect::<Result<_, _>>()?,
        adopt: row
            .adopt
            .into_iter()
            .map(read_adopt)
            .collect::<Result<_, _>>()?,
        drift_policy: known(TABLE, &row.drift, DriftPolicy::parse(&row.drift))?,
        strategy: parse(TABLE, &row.strategy)?,
        task: row
            .task
            .map(|task| known(TABLE, &task, Task::parse(&task)))
            .transpose()?,
    })
}

fn adopt_row(adopt: &Adopt) -> AdoptRow {
    let (name, id) = match adopt.by.clone() {
        AdoptBy::Name(name) => (Some(name), None),
        AdoptBy::Id(id) => (None, Some(id)),
    };
    AdoptRow {
        connector: adopt.connector.to_string(),
        name,
        id,
    }
}

fn read_adopt(row: AdoptRow) -> Result<Adopt, Error> {
    let by = match (row.name, row.id) {
        (Some(name), _) => AdoptBy::Name(name),
        (None, id) => AdoptBy::Id(known("placements", "adopt", id)?),
    };
    Ok(Adopt {
        connector: parse("placements", &row.connector)?,
        by,
    })
}

impl From<&Probe> for ProbeRow {
    fn from(probe: &Probe) -> Self {
        Self {
            body: probe.body.clone(),
            max_tokens: probe.max_tokens,
            model: probe.model.clone(),
            interval_secs: probe.interval.map(|interval| interval.as_secs()),
        }
    }
}

impl From<ProbeRow> for Probe {
    fn from(row: ProbeRow) -> Self {
        Self {
            body: row.body,
            max_tokens: row.max_tokens,
            model: row.model,
            interval: row.interval_secs.map(Duration::from_secs),
        }
    }
}
