//! Keys and their versions: where they lie, what state they are in, their fingerprints. Never their values.

use keyfleet_core::Timestamp;
use keyfleet_core::id::{KeyName, KeyVersion};
use keyfleet_core::key::{Key, KeyField, KeyLocation, KeyState, Rotation};
use keyfleet_core::travel::HostPattern;
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use crate::rows::{SelectorRow, from_json, known, nanos, parse, time, time_opt, to_json};
use crate::{Error, Tx};

const TABLE: &str = "keys";

/// A Key with what was last heard of it from Vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// The definition.
    pub key: Key,
    /// `ok`, or what is wrong, in a sentence.
    pub vault_status: String,
    /// When Vault was last asked.
    pub checked_at: Option<Timestamp>,
}

/// One version of a Key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyVersionRow {
    /// Its number.
    pub version: KeyVersion,
    /// Where it is in its life.
    pub state: KeyState,
    /// Keyed hash of the value.
    pub fingerprint: String,
    /// Prefix class and last four characters.
    pub shown: String,
    /// When it was first read.
    pub first_seen: Timestamp,
    /// Vault still has its value: it can be read again.
    pub readable: bool,
    /// Bindings may get it: no campaign holds it back any more.
    pub released: bool,
}

/// How a Key rotates, as JSON.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RotationRow {
    overlap_secs: Option<u64>,
    approvals: Option<u32>,
}

impl From<&Rotation> for RotationRow {
    fn from(rotation: &Rotation) -> Self {
        Self {
            overlap_secs: Some(rotation.overlap_secs),
            approvals: Some(rotation.approvals),
        }
    }
}

impl From<RotationRow> for Rotation {
    fn from(row: RotationRow) -> Self {
        let usual = Self::default();
        Self {
            overlap_secs: row.overlap_secs.unwrap_or(usual.overlap_secs),
            approvals: row.approvals.unwrap_or(usual.approvals),
        }
    }
}

impl KeyVersionRow {
    /// True where a binding may be given this version, now or again.
    pub fn may_be_assigned(&self) -> bool {
        self.readable && self.state.may_be_assigned()
    }
}

impl Tx<'_> {
    /// Every Key, by name.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn keys(&self) -> Result<Vec<KeyRow>, Error> {
        let mut statement = self.0.prepare_cached(
            "SELECT name, mount, path, field, allowed_hosts, scope, vault_status, checked_at, parts, rotation
             FROM keys ORDER BY name",
        )?;
        let mut rows = statement.query([])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(read_key(row)?);
        }
        Ok(all)
    }

    /// Stores a Key, new or changed.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn put_key(&self, key: &Key) -> Result<(), Error> {
        let (field, parts) = match &key.location.field {
            KeyField::One(field) => (field.as_str(), String::new()),
            KeyField::Parts(parts) => ("", to_json(TABLE, parts)?),
        };
        self.0
            .prepare_cached(
                "INSERT INTO keys (name, mount, path, field, allowed_hosts, scope, vault_status, parts, rotation)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'not asked yet', ?7, ?8)
                 ON CONFLICT (name) DO UPDATE SET mount = ?2, path = ?3, field = ?4,
                 allowed_hosts = ?5, scope = ?6, parts = ?7, rotation = ?8",
            )?
            .execute(params![
                key.name.as_str(),
                key.location.mount,
                key.location.path,
                field,
                to_json(TABLE, &key.allowed_hosts)?,
                to_json(TABLE, &SelectorRow::from(&key.scope))?,
                parts,
                to_json(TABLE, &RotationRow::from(&key.rotation))?,
            ])?;
        Ok(())
    }

    /// Deletes a Key with its versions and what was proven with them; closed Holdings stay as history.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn delete_key(&self, key: &KeyName) -> Result<(), Error> {
        for sql in [
            "DELETE FROM keys WHERE name = ?1",
            "DELETE FROM key_versions WHERE key = ?1",
            "DELETE FROM evidence WHERE key = ?1",
        ] {
            self.0.prepare_cached(sql)?.execute([key.as_str()])?;
        }
        Ok(())
    }

    /// The hosts that keys may travel to, as the settings had them at the start.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn outbound(&self) -> Result<Vec<HostPattern>, Error> {
        let mut statement = self.0.prepare_cached("SELECT outbound FROM service")?;
        let json: String = statement.query_row([], |row| row.get(0))?;
        let hosts: Vec<String> = from_json("service", &json)?;
        hosts.iter().map(|host| parse("service", host)).collect()
    }

    /// Stores the hosts that the settings let keys travel to.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn set_outbound(&self, hosts: &[HostPattern]) -> Result<(), Error> {
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        self.0
            .prepare_cached("UPDATE service SET outbound = ?1")?
            .execute([to_json("service", &hosts)?])?;
        Ok(())
    }

    /// Stores what Vault said about a Key.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn set_vault_status(
        &self,
        key: &KeyName,
        status: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.0
            .prepare_cached("UPDATE keys SET vault_status = ?2, checked_at = ?3 WHERE name = ?1")?
            .execute(params![key.as_str(), status, nanos(now)])?;
        Ok(())
    }

    /// Every version of a Key, the newest first.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn key_versions(&self, key: &KeyName) -> Result<Vec<KeyVersionRow>, Error> {
        let mut statement = self.0.prepare_cached(
            "SELECT version, state, fingerprint, shown, first_seen, readable, released FROM key_versions
             WHERE key = ?1 ORDER BY version DESC",
        )?;
        let mut rows = statement.query([key.as_str()])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(read_version(row)?);
        }
        Ok(all)
    }

    /// Stores a version that was seen for the first time; a known one stays as it is.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn insert_key_version(&self, key: &KeyName, row: &KeyVersionRow) -> Result<(), Error> {
        self.0
            .prepare_cached(
                "INSERT OR IGNORE INTO key_versions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                key.as_str(),
                row.version.0,
                row.state.as_str(),
                row.fingerprint,
                row.shown,
                nanos(row.first_seen),
                row.readable,
                row.released,
            ])?;
        Ok(())
    }

    /// The next number of a Key whose versions are counted here (KV version 1): above all that were seen, and above
    /// what a restored backup may not know.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn next_key_version(&self, key: &KeyName) -> Result<KeyVersion, Error> {
        let sql = "SELECT max(revision_floor, coalesce((SELECT max(version) FROM key_versions WHERE key = ?1), 0)) + 1
                   FROM service";
        let mut statement = self.0.prepare_cached(sql)?;
        Ok(KeyVersion(
            statement.query_row([key.as_str()], |row| row.get(0))?,
        ))
    }

    /// Stores whether Vault still has the value of a version.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn set_readable(
        &self,
        key: &KeyName,
        version: KeyVersion,
        readable: bool,
    ) -> Result<(), Error> {
        self.0
            .prepare_cached(
                "UPDATE key_versions SET readable = ?3 WHERE key = ?1 AND version = ?2",
            )?
            .execute(params![key.as_str(), version.0, readable])?;
        Ok(())
    }

    /// Lets bindings get a version.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn release_key_version(&self, key: &KeyName, version: KeyVersion) -> Result<(), Error> {
        self.0
            .prepare_cached("UPDATE key_versions SET released = 1 WHERE key = ?1 AND version = ?2")?
            .execute(params![key.as_str(), version.0])?;
        Ok(())
    }

    /// Moves a version to another state of its life.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn set_key_state(
        &self,
        key: &KeyName,
        version: KeyVersion,
        state: KeyState,
    ) -> Result<(), Error> {
        self.0
            .prepare_cached("UPDATE key_versions SET state = ?3 WHERE key = ?1 AND version = ?2")?
            .execute(params![key.as_str(), version.0, state.as_str()])?;
        Ok(())
    }
}

fn read_key(row: &Row<'_>) -> Result<KeyRow, Error> {
    let scope: SelectorRow = from_json(TABLE, &row.get::<_, String>(5)?)?;
    let parts: String = row.get(8)?;
    let rotation: RotationRow = from_json(TABLE, &row.get::<_, String>(9)?)?;
    let field = match parts.as_str() {
        "" => KeyField::One(row.get(3)?),
        parts => KeyField::Parts(from_json(TABLE, parts)?),
    };
    Ok(KeyRow {
        key: Key {
            name: parse(TABLE, &row.get::<_, String>(0)?)?,
            location: KeyLocation {
                mount: row.get(1)?,
                path: row.get(2)?,
                field,
            },
            allowed_hosts: from_json(TABLE, &row.get::<_, String>(4)?)?,
            scope: scope.into(),
            rotation: rotation.into(),
        },
        vault_status: row.get(6)?,
        checked_at: time_opt(TABLE, row.get(7)?)?,
    })
}

fn read_version(row: &Row<'_>) -> Result<KeyVersionRow, Error> {
    let state: String = row.get(1)?;
    Ok(KeyVersionRow {
        version: KeyVersion(row.get(0)?),
        state: known("key_versions", &state, KeyState::parse(&state))?,
        fingerprint: row.get(2)?,
        shown: row.get(3)?,
        first_seen: time("key_versions", row.get(4)?)?,
        readable: row.get(5)?,
        released: row.get(6)?,
    })
}
