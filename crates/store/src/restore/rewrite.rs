//! What a restore changes in the copy of the backup, in one transaction.

use keyfleet_core::Timestamp;
use keyfleet_core::audit::{Entry, Outcome};
use rusqlite::{Connection, params};

use super::{Present, Restore, Why, short};
use crate::file;
use crate::rows::nanos;
use crate::service::Andon;
use crate::{Error, Tx};

/// Tries of a binding, and revisions of a connector or counted versions of a Key, that may have been given since any
/// backup. A floor is a multiple of this, at least one step above every number that is known.
const ATTEMPTS_STEP: u32 = 1_000_000;
const REVISIONS_STEP: u64 = 1_000;

/// Numbers up to these may have been given in a history that a restore gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Floors {
    /// Tries of a binding.
    pub attempt: u32,
    /// Revisions of a connector, and versions of a Key that are counted here (KV version 1).
    pub revision: u64,
}

impl Tx<'_> {
    /// Numbers that are not given again.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn floors(&self) -> Result<Floors, Error> {
        let sql = "SELECT attempt_floor, revision_floor FROM service";
        let mut statement = self.0.prepare_cached(sql)?;
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Floors {
                attempt: row.get(0)?,
                revision: row.get(1)?,
            })
        };
        Ok(statement.query_row([], read)?)
    }

    /// The epoch of the last restore; generations of earlier epochs may be of a history that it gave up. 0 = never.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn restored_epoch(&self) -> Result<u64, Error> {
        let sql = "SELECT restored_epoch FROM service";
        let mut statement = self.0.prepare_cached(sql)?;
        Ok(statement.query_row([], |row| row.get(0))?)
    }
}

/// What the rewritten database begins with.
pub(super) struct Rewritten {
    pub(super) epoch: u64,
    pub(super) floors: Floors,
}

/// Makes the copy of the backup the next database.
pub(super) fn rewrite(restore: &Restore, why: &Why) -> Result<Rewritten, Error> {
    let mut connection = file::open_alone(restore.draft.path())?;
    let continues = matches!(
        restore.present,
        Present::Readable {
            continues: true,
            ..
        }
    );
    if continues {
        let database = restore.database.to_string_lossy();
        connection.execute("ATTACH DATABASE ?1 AS present", [database])?;
    }
    let transaction = connection.transaction()?;
    if continues {
        transaction.execute_batch(TAKE_OVER_TRUST)?;
    } else {
        transaction.execute_batch("UPDATE tokens SET revoked = 1 WHERE kind = 'join'")?;
    }
    let rewritten = begin_anew(&transaction, restore, why)?;
    let tx = Tx(&transaction);
    let from = match restore.backup.backed_up_at {
        Some(at) => format!("restored from a backup of {}", seconds(at)),
        None => "restored from a copy of unknown time".to_owned(),
    };
    tx.set_andon(Some(&Andon {
        by: why.principal.clone(),
        reason: from.clone(),
        at: why.at,
    }))?;
    tx.append_audit(entry(restore, why, &from))?;
    transaction.commit()?;
    Ok(rewritten)
}

/// Who is trusted, who may hold what, and which connectors were taken over, as the present database has it. All its columns are ours: the schemas are
/// the same.
const TAKE_OVER_TRUST: &str = "
DELETE FROM bindings WHERE deployment NOT IN (SELECT id FROM present.deployments);
DELETE FROM evidence WHERE deployment NOT IN (SELECT id FROM present.deployments);
DELETE FROM deployments;
INSERT INTO deployments SELECT * FROM present.deployments;
DELETE FROM tokens;
INSERT INTO tokens SELECT * FROM present.tokens;
INSERT OR REPLACE INTO holdings SELECT * FROM present.holdings;
UPDATE bindings SET adopted_id = now.adopted_id FROM present.bindings AS now
  WHERE (bindings.deployment, bindings.space, bindings.connector) = (now.deployment, now.space, now.connector);
";

/// Nobody was told anything, and agents say anew what they see; what may be there says so by its state. Removals that were confirmed are over, those that
/// were under way begin anew.
const FORGET_WHAT_WAS_TOLD: &str = "
UPDATE deployments SET epoch = 0, counter = 0, digest = NULL, connectors_complete = 0;
DELETE FROM seen_connectors;
DELETE FROM bindings WHERE desired_remove = 1 AND goal_revision IS NULL AND running_revision IS NULL
  AND (deployment, space, connector) NOT IN
    (SELECT deployment, space, connector FROM holdings WHERE closed_at IS NULL);
UPDATE bindings SET state = 'UNKNOWN' WHERE desired_epoch IS NOT NULL OR running_revision IS NOT NULL
  OR (deployment, space, connector) IN
    (SELECT deployment, space, connector FROM holdings WHERE closed_at IS NULL);
UPDATE bindings SET desired_revision = NULL, desired_key_version = NULL, desired_remove = 0,
  desired_epoch = NULL, desired_counter = NULL, failure_class = NULL, text = '', baseline_ok = NULL;
";

fn begin_anew(connection: &Connection, restore: &Restore, why: &Why) -> Result<Rewritten, Error> {
    let floors = floors(
        connection,
        matches!(
            restore.present,
            Present::Readable {
                continues: true,
                ..
            }
        ),
    )?;
    connection.execute_batch(FORGET_WHAT_WAS_TOLD)?;
    connection.execute("UPDATE bindings SET state_at = ?1", [nanos(why.at)])?;
    connection.execute(
        "UPDATE rollouts SET active = 0, phase = 'SUPERSEDED', ended_at = ?1,
         reason = 'the database was restored while it ran' WHERE active = 1",
        [nanos(why.at)],
    )?;
    // What is being revoked may be dead: there is no way back from that. Everything else waits for a person.
    connection.execute(
        "UPDATE campaigns SET stopped = state, state = 'HALTED', state_since = ?1,
         reason = 'the database was restored: compare the key with Vault and the provider, then resume or roll back'
         WHERE active = 1 AND state NOT IN ('HALTED', 'REVOKING', 'VERIFYING_DEAD')",
        [nanos(why.at)],
    )?;
    let seconds = u64::try_from(why.at.as_second()).unwrap_or_default();
    let epochs = [Some(&restore.backup), restore.present.contents()];
    let known = epochs.into_iter().flatten().map(|contents| contents.epoch);
    let epoch = known.max().unwrap_or_default().max(seconds);
    connection.execute(
        "UPDATE service SET epoch = ?1, restored_epoch = ?1, attempt_floor = ?2, revision_floor = ?3,
         backed_up_at = NULL",
        params![epoch, floors.attempt, floors.revision],
    )?;
    Ok(Rewritten { epoch, floors })
}

/// Above everything that either database knows, with room for what neither does.
fn floors(connection: &Connection, with_present: bool) -> Result<Floors, Error> {
    let mut known = Floors::default();
    let schemas: &[&str] = if with_present {
        &["main", "present"]
    } else {
        &["main"]
    };
    for schema in schemas {
        let sql = format!(
            "SELECT max(attempt_floor, coalesce((SELECT max(attempt) FROM {schema}.bindings), 0)),
             max(revision_floor, coalesce((SELECT max(revision) FROM {schema}.connectors), 0),
               coalesce((SELECT max(version) FROM {schema}.key_versions), 0))
             FROM {schema}.service"
        );
        let (attempt, revision): (u32, u64) =
            connection.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        known.attempt = known.attempt.max(attempt);
        known.revision = known.revision.max(revision);
    }
    Ok(Floors {
        attempt: (known.attempt / ATTEMPTS_STEP + 2).saturating_mul(ATTEMPTS_STEP),
        revision: (known.revision / REVISIONS_STEP + 2).saturating_mul(REVISIONS_STEP),
    })
}

fn entry(restore: &Restore, why: &Why, from: &str) -> Entry {
    let lost = match &restore.present {
        Present::Missing => "there was no database".to_owned(),
        Present::Unreadable(problem) => {
            format!("the database before it could not be read: {problem}")
        }
        Present::Readable {
            contents,
            continues,
        } => {
            let (number, hash) = &contents.audit_head;
            let trust = if *continues {
                "identities, tokens and holdings were taken over from it"
            } else {
                "nothing was taken over from it"
            };
            let hash = short(hash);
            format!("the log of the database before it went to entry {number} ({hash}); {trust}")
        }
    };
    Entry {
        number: 0,
        at: why.at,
        principal: why.principal.clone(),
        token: String::new(),
        action: "store.restore".to_owned(),
        target: "store".to_owned(),
        outcome: Outcome::Done,
        reason: why.reason.clone(),
        detail: format!("{from}; {lost}"),
    }
}

fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
