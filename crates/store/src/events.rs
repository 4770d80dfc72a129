//! The history: what happened, for people.

use keyfleet_core::Timestamp;
use keyfleet_core::id::{DeploymentId, RolloutId};
use rusqlite::params;

use crate::rows::{nanos, time};
use crate::{Error, Tx};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// A principal, or `keyfleet`.
    pub actor: String,
    /// What, in a sentence.
    pub text: String,
}

/// How much of the history is kept. The audit log is another table and is kept whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// What happened before goes.
    pub since: Timestamp,
    /// But so many of each history stay, however old.
    pub always: u32,
    /// And never more than so many of each.
    pub at_most: u32,
}

/// Whose history an event belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventScope {
    /// A deployment's.
    Deployment(DeploymentId),
    /// A rollout's.
    Rollout(RolloutId),
    /// The whole service's.
    Service,
}

impl Tx<'_> {
    /// Adds to the history.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn add_event(&self, scope: EventScope, event: &Event) -> Result<(), Error> {
        let (deployment, rollout) = match scope {
            EventScope::Deployment(id) => (Some(id.to_string()), None),
            EventScope::Rollout(id) => (None, Some(id.to_string())),
            EventScope::Service => (None, None),
        };
        self.0
            .prepare_cached(
                "INSERT INTO events (at, actor, deployment, rollout, text) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![nanos(event.at), event.actor, deployment, rollout, event.text])?;
        Ok(())
    }

    /// The newest events of a history, the oldest of them first.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn events(&self, scope: EventScope, limit: u32) -> Result<Vec<Event>, Error> {
        let (condition, value) = match scope {
            EventScope::Deployment(id) => ("deployment = ?1", id.to_string()),
            EventScope::Rollout(id) => ("rollout = ?1", id.to_string()),
            EventScope::Service => (
                "deployment IS NULL AND rollout IS NULL AND ?1 = ''",
                String::new(),
            ),
        };
        let sql = format!(
            "SELECT at, actor, text FROM events WHERE {condition} ORDER BY id DESC LIMIT {limit}"
        );
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut rows = statement.query([value])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let at = time("events", row.get(0)?)?;
            all.push(Event {
                at,
                actor: row.get(1)?,
                text: row.get(2)?,
            });
        }
        all.reverse();
        Ok(all)
    }

    /// At most `limit` events that need not be kept, as their ids.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn old_events(&self, kept: Retention, limit: u32) -> Result<Vec<i64>, Error> {
        let mut statement = self.0.prepare_cached(
            "SELECT id FROM (SELECT id, at, row_number() OVER
               (PARTITION BY deployment, rollout ORDER BY id DESC) AS place FROM events)
             WHERE place > ?1 OR (place > ?2 AND at < ?3) LIMIT ?4",
        )?;
        let params = params![kept.at_most, kept.always, nanos(kept.since), limit];
        let ids = statement.query_map(params, |row| row.get(0))?;
        Ok(ids.collect::<Result<_, _>>()?)
    }

    /// Forgets these events.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn delete_events(&self, ids: &[i64]) -> Result<(), Error> {
        let mut statement = self.0.prepare_cached("DELETE FROM events WHERE id = ?1")?;
        for id in ids {
            statement.execute([id])?;
        }
        Ok(())
    }
}
