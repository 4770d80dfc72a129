//! What operators change beside the objects themselves: the set an object belongs to, the labels of a deployment.

use std::collections::BTreeMap;

use keyfleet_core::fleet::Labels;
use keyfleet_core::id::{DeploymentId, SetName};
use rusqlite::params;

use crate::rows::{parse, to_json};
use crate::{Error, Tx};

/// An object as its kind (`Key`, `Connector`, `Placement` or `Strategy`) and its name.
pub type ObjectId = (String, String);

impl Tx<'_> {
    /// Every object that belongs to a set, with the set. An object belongs to one at the most.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn sets(&self) -> Result<BTreeMap<ObjectId, SetName>, Error> {
        let sql = "SELECT kind, name, \"set\" FROM sets";
        let mut statement = self.0.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        let mut all = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let set = parse("sets", &row.get::<_, String>(2)?)?;
            all.insert((row.get(0)?, row.get(1)?), set);
        }
        Ok(all)
    }

    /// Makes an object a member of a set, or (with `None`) of none.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn put_in_set(&self, kind: &str, name: &str, set: Option<&SetName>) -> Result<(), Error> {
        match set {
            Some(set) => self
                .0
                .prepare_cached("INSERT OR REPLACE INTO sets VALUES (?1, ?2, ?3)")?
                .execute(params![kind, name, set.as_str()])?,
            None => self
                .0
                .prepare_cached("DELETE FROM sets WHERE kind = ?1 AND name = ?2")?
                .execute(params![kind, name])?,
        };
        Ok(())
    }

    /// Changes the labels of a deployment.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn set_labels(&self, id: DeploymentId, labels: &Labels) -> Result<(), Error> {
        self.0
            .prepare_cached("UPDATE deployments SET labels = ?2 WHERE id = ?1")?
            .execute(params![id.to_string(), to_json("deployments", labels)?])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use keyfleet_core::Timestamp;
    use keyfleet_core::connector::{ConnectorRevision, ConnectorSpec, Probe};
    use keyfleet_core::fleet::Selector;
    use keyfleet_core::id::Revision;
    use keyfleet_core::placement::{DriftPolicy, Placement};

    use super::*;
    use crate::Store;

    /// Runs `work` on a new database.
    async fn check(work: impl FnOnce(&Tx<'_>) -> Result<(), Error> + Send + 'static) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("keyfleet.db")).unwrap();
        store.write(work).await.unwrap();
        store.close().await;
    }

    #[tokio::test]
    async fn an_object_belongs_to_one_set_or_none() {
        check(|tx| {
            let (soc, web): (SetName, SetName) = ("soc".parse().unwrap(), "web".parse().unwrap());
            tx.put_in_set("Key", "a", Some(&soc))?;
            tx.put_in_set("Connector", "a", Some(&soc))?;
            tx.put_in_set("Key", "a", Some(&web))?;
            tx.put_in_set("Connector", "a", None)?;
            let only = BTreeMap::from([(("Key".to_owned(), "a".to_owned()), web)]);
            assert_eq!(tx.sets()?, only);
            Ok(())
        })
        .await;
    }

    #[tokio::test]
    async fn a_deleted_object_is_a_tombstone_that_its_name_outlives() {
        check(|tx| {
            let placement = Placement {
                name: "a".parse().unwrap(),
                selector: Selector::default(),
                connectors: vec!["a".parse().unwrap()],
                spaces: vec!["default".parse().unwrap()],
                except_spaces: Vec::new(),
                adopt: Vec::new(),
                drift_policy: DriftPolicy::Correct,
                strategy: "slow".parse().unwrap(),
                task: None,
            };
            let now = Timestamp::UNIX_EPOCH;
            tx.put_placement(&placement)?;
            tx.delete_placement(&placement.name, now)?;
            assert_eq!(
                (tx.placements()?, tx.deleted_placements()?),
                (vec![], vec![placement.clone()])
            );
            tx.put_placement(&placement)?;
            assert_eq!(
                (tx.placements()?, tx.deleted_placements()?),
                (vec![placement], vec![])
            );

            let name = "a".parse().unwrap();
            assert_eq!(tx.next_revision(&name)?, Revision(1));
            let mut new = ConnectorRevision {
                connector: name,
                revision: Revision(1),
                spec: ConnectorSpec {
                    connector_type: ".gen-ai".to_owned(),
                    display_name: "A".to_owned(),
                    config: "{}".to_owned(),
                    key: "k".parse().unwrap(),
                    if_supported: Vec::new(),
                    probe: Probe::default(),
                    replaces: None,
                },
            };
            tx.insert_connector(&new, now)?;
            tx.delete_connector(&new.connector, now)?;
            assert_eq!(tx.next_revision(&new.connector)?, Revision(2));
            new.revision = Revision(2);
            tx.insert_connector(&new, now)?;
            let live: Vec<bool> = tx
                .connectors()?
                .iter()
                .map(crate::Connector::is_live)
                .collect();
            assert_eq!(live, [true, false]);
            Ok(())
        })
        .await;
    }

    #[tokio::test]
    async fn hosts_of_the_settings_are_kept_as_they_were_written() {
        check(|tx| {
            assert_eq!(tx.outbound()?, []);
            let hosts =
                ["a.example", "*.b.example", "http://[::1]"].map(|host| host.parse().unwrap());
            tx.set_outbound(&hosts)?;
            assert_eq!(tx.outbound()?, hosts);
            Ok(())
        })
        .await;
    }
}
