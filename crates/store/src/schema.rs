//! The tables, as a list of migrations: each is run once, in order, and never edited after a release.

use std::path::Path;

use rusqlite::Connection;

use crate::Error;

/// Times are nanoseconds since 1970 (UTC); ids are UUIDs as text; lists and maps are JSON.
const MIGRATIONS: [&str; 2] = ["
CREATE TABLE service (only INTEGER PRIMARY KEY CHECK (only = 1), epoch INTEGER NOT NULL);
INSERT INTO service VALUES (1, 0);

CREATE TABLE deployments (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  labels TEXT NOT NULL,
  enrolment TEXT NOT NULL,
  enrolled_at INTEGER NOT NULL,
  sealing_key BLOB NOT NULL,
  certificate_serial TEXT NOT NULL,
  certificate_not_after INTEGER NOT NULL,
  agent_version TEXT NOT NULL,
  facts TEXT,
  last_seen INTEGER,
  epoch INTEGER NOT NULL DEFAULT 0,
  counter INTEGER NOT NULL DEFAULT 0,
  digest BLOB
) STRICT;

CREATE TABLE connectors (
  name TEXT NOT NULL,
  revision INTEGER NOT NULL,
  type TEXT NOT NULL,
  display_name TEXT NOT NULL,
  config TEXT NOT NULL,
  key TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  withdrawn_by TEXT,
  PRIMARY KEY (name, revision)
) STRICT;

CREATE TABLE placements (name TEXT PRIMARY KEY, spec TEXT NOT NULL) STRICT;
CREATE TABLE strategies (name TEXT PRIMARY KEY, spec TEXT NOT NULL) STRICT;

CREATE TABLE keys (
  name TEXT PRIMARY KEY,
  mount TEXT NOT NULL,
  path TEXT NOT NULL,
  field TEXT NOT NULL,
  allowed_hosts TEXT NOT NULL,
  scope TEXT NOT NULL,
  vault_status TEXT NOT NULL,
  checked_at INTEGER
) STRICT;

CREATE TABLE key_versions (
  key TEXT NOT NULL,
  version INTEGER NOT NULL,
  state TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  shown TEXT NOT NULL,
  first_seen INTEGER NOT NULL,
  readable INTEGER NOT NULL,
  PRIMARY KEY (key, version)
) STRICT;

CREATE TABLE bindings (
  deployment TEXT NOT NULL,
  space TEXT NOT NULL,
  connector TEXT NOT NULL,
  placement TEXT NOT NULL,
  goal_revision INTEGER,
  goal_key_version INTEGER,
  held_by TEXT,
  desired_revision INTEGER,
  desired_key_version INTEGER,
  desired_remove INTEGER NOT NULL DEFAULT 0,
  attempt INTEGER NOT NULL DEFAULT 0,
  desired_epoch INTEGER,
  desired_counter INTEGER,
  state TEXT NOT NULL,
  state_at INTEGER NOT NULL,
  failure_class TEXT,
  text TEXT NOT NULL DEFAULT '',
  running_revision INTEGER,
  running_key_version INTEGER,
  proven_revision INTEGER,
  proven_key_version INTEGER,
  proven_at INTEGER,
  baseline_ok INTEGER,
  PRIMARY KEY (deployment, space, connector)
) STRICT;
CREATE INDEX bindings_connector ON bindings (connector, deployment, space);

CREATE TABLE holdings (
  deployment TEXT NOT NULL,
  space TEXT NOT NULL,
  connector TEXT NOT NULL,
  key TEXT NOT NULL,
  version INTEGER NOT NULL,
  opened_at INTEGER NOT NULL,
  closed_at INTEGER,
  closed_by TEXT,
  PRIMARY KEY (deployment, space, connector, key, version)
) STRICT;
CREATE INDEX holdings_key ON holdings (key, version, deployment, space, connector);

CREATE TABLE evidence (
  deployment TEXT NOT NULL,
  space TEXT NOT NULL,
  connector TEXT NOT NULL,
  key TEXT NOT NULL,
  version INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  enrolment TEXT NOT NULL,
  certificate_serial TEXT NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (deployment, space, connector, key, version)
) STRICT;
CREATE INDEX evidence_key ON evidence (key, version, deployment, space, connector);

CREATE TABLE rollouts (
  id TEXT PRIMARY KEY,
  strategy TEXT NOT NULL,
  spec TEXT NOT NULL,
  cause TEXT NOT NULL,
  actor TEXT NOT NULL,
  phase TEXT NOT NULL,
  active INTEGER NOT NULL,
  reason TEXT NOT NULL,
  wave INTEGER NOT NULL,
  wave_started_at INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  ended_at INTEGER
) STRICT;
CREATE INDEX rollouts_active ON rollouts (active) WHERE active = 1;

CREATE TABLE rollout_targets (
  rollout TEXT NOT NULL,
  deployment TEXT NOT NULL,
  wave INTEGER NOT NULL,
  offered_at INTEGER,
  rollback_at INTEGER,
  forgiven INTEGER NOT NULL DEFAULT 0,
  failure_class TEXT,
  text TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (rollout, deployment)
) STRICT;

CREATE TABLE rollout_bindings (
  rollout TEXT NOT NULL,
  deployment TEXT NOT NULL,
  space TEXT NOT NULL,
  connector TEXT NOT NULL,
  from_revision INTEGER,
  from_key_version INTEGER,
  to_revision INTEGER,
  to_key_version INTEGER,
  failure_class TEXT,
  PRIMARY KEY (rollout, deployment, space, connector)
) STRICT;

CREATE TABLE tokens (
  id TEXT PRIMARY KEY,
  hash BLOB NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  principal TEXT NOT NULL,
  role TEXT,
  labels TEXT NOT NULL,
  uses_left INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  created_by TEXT NOT NULL,
  revoked INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE events (
  id INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  actor TEXT NOT NULL,
  deployment TEXT,
  rollout TEXT,
  text TEXT NOT NULL
) STRICT;
CREATE INDEX events_deployment ON events (deployment) WHERE deployment IS NOT NULL;
CREATE INDEX events_rollout ON events (rollout) WHERE rollout IS NOT NULL;
CREATE INDEX events_service ON events (id) WHERE deployment IS NULL AND rollout IS NULL;
", "
ALTER TABLE service ADD COLUMN andon_by TEXT;
ALTER TABLE service ADD COLUMN andon_reason TEXT NOT NULL DEFAULT '';
ALTER TABLE service ADD COLUMN andon_at INTEGER;
-- Numbers that a restored backup may not know are not given again: see `restore`.
ALTER TABLE service ADD COLUMN attempt_floor INTEGER NOT NULL DEFAULT 0;
ALTER TABLE service ADD COLUMN revision_floor INTEGER NOT NULL DEFAULT 0;
-- Generations of earlier epochs may be of a history that a restore gave up; 0 = never restored.
ALTER TABLE service ADD COLUMN restored_epoch INTEGER NOT NULL DEFAULT 0;
-- Set in a backup only: when it was made.
ALTER TABLE service ADD COLUMN backed_up_at INTEGER;

ALTER TABLE deployments ADD COLUMN standing TEXT NOT NULL DEFAULT 'ACTIVE';
ALTER TABLE deployments ADD COLUMN standing_reason TEXT NOT NULL DEFAULT '';
ALTER TABLE deployments ADD COLUMN standing_at INTEGER;
-- Certificates of one enrolment count from 1: the newest that was given, the newest that opened a session.
ALTER TABLE deployments ADD COLUMN certificate_given INTEGER NOT NULL DEFAULT 1;
ALTER TABLE deployments ADD COLUMN certificate_seen INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deployments ADD COLUMN certificate_ca TEXT NOT NULL DEFAULT '';
ALTER TABLE deployments ADD COLUMN renewal_allowed INTEGER NOT NULL DEFAULT 0;
-- SHA-256 over token, name and keys of the enrolment: the same request again gets the same identity.
ALTER TABLE deployments ADD COLUMN enrolled_by BLOB;

ALTER TABLE tokens ADD COLUMN scope TEXT NOT NULL DEFAULT '';
ALTER TABLE tokens ADD COLUMN deployment TEXT;

-- A deleted connector keeps its revisions, so that a new one of its name counts on.
ALTER TABLE connectors ADD COLUMN deleted_at INTEGER;
-- Names of fields, as JSON: left out where a Kibana is too old for them.
ALTER TABLE connectors ADD COLUMN if_supported TEXT NOT NULL DEFAULT '[]';
-- A deleted placement keeps its strategy, so that the removal of what it placed spreads like everything else of it.
ALTER TABLE placements ADD COLUMN deleted_at INTEGER;
-- The hosts of the settings, as of the start: whoever works out goals must know them.
ALTER TABLE service ADD COLUMN outbound TEXT NOT NULL DEFAULT '[]';

-- Which Kibanas are said to be the same one is asked at each step of a rollout.
CREATE INDEX deployments_uuid ON deployments (json_extract(facts, '$.uuid'));
-- How a connector is proven, and whose place it takes.
ALTER TABLE connectors ADD COLUMN probe TEXT NOT NULL DEFAULT '{}';
ALTER TABLE connectors ADD COLUMN replaces TEXT;
-- Keys of several parts: the field of each, as JSON; empty for a key of one text.
ALTER TABLE keys ADD COLUMN parts TEXT NOT NULL DEFAULT '';
-- The id of the connector that was there before us and became ours; NULL = the id that follows from the binding.
ALTER TABLE bindings ADD COLUMN adopted_id TEXT;
-- How far the last live call came; what refers to the connector, and what of that its removal was agreed with.
ALTER TABLE bindings ADD COLUMN rung TEXT;
ALTER TABLE bindings ADD COLUMN refs INTEGER NOT NULL DEFAULT 0;
ALTER TABLE bindings ADD COLUMN refs_agreed INTEGER NOT NULL DEFAULT 0;

-- A run of which no wave has begun has none; the wave that an operator went past, since when one holds it, and why it
-- goes back.
ALTER TABLE rollouts RENAME TO rollouts_before;
CREATE TABLE rollouts (
  id TEXT PRIMARY KEY,
  strategy TEXT NOT NULL,
  spec TEXT NOT NULL,
  cause TEXT NOT NULL,
  actor TEXT NOT NULL,
  phase TEXT NOT NULL,
  active INTEGER NOT NULL,
  reason TEXT NOT NULL,
  wave INTEGER,
  wave_started_at INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  ended_at INTEGER,
  fast_forward INTEGER,
  paused_at INTEGER,
  rollback_reason TEXT NOT NULL
) STRICT;
INSERT INTO rollouts
  SELECT *, NULL, NULL, CASE WHEN phase LIKE 'ROLL%' THEN reason ELSE '' END FROM rollouts_before;
DROP TABLE rollouts_before;
CREATE INDEX rollouts_active ON rollouts (active) WHERE active = 1;
-- It no longer belongs to what the rollout is for.
ALTER TABLE rollout_targets ADD COLUMN gone INTEGER NOT NULL DEFAULT 0;

CREATE TABLE rollout_approvals (
  rollout TEXT NOT NULL,
  wave INTEGER NOT NULL,
  principal TEXT NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (rollout, wave, principal)
) STRICT;

CREATE TABLE rollout_gates (
  rollout TEXT NOT NULL,
  name TEXT NOT NULL,
  verdict TEXT NOT NULL,
  streak INTEGER NOT NULL,
  at INTEGER NOT NULL,
  text TEXT NOT NULL,
  PRIMARY KEY (rollout, name)
) STRICT;

-- Connectors of others, as agents see them.
CREATE TABLE seen_connectors (
  deployment TEXT NOT NULL,
  space TEXT NOT NULL,
  id TEXT NOT NULL,
  name TEXT NOT NULL,
  type TEXT NOT NULL,
  config TEXT NOT NULL,
  read_only INTEGER NOT NULL,
  missing_secrets INTEGER NOT NULL,
  refs INTEGER NOT NULL,
  PRIMARY KEY (deployment, space, id)
) STRICT;
-- Ids that look like those that Keyfleet gives: few, unless two agents serve one Kibana.
CREATE INDEX seen_connectors_like_ours ON seen_connectors (id, deployment) WHERE substr(id, 15, 1) = '5';
-- True once an agent has looked through every space: what is not listed is not there.
ALTER TABLE deployments ADD COLUMN connectors_complete INTEGER NOT NULL DEFAULT 0;

-- False while a campaign has not let it go to the fleet yet.
ALTER TABLE key_versions ADD COLUMN released INTEGER NOT NULL DEFAULT 1;
-- How a Key rotates, as JSON.
ALTER TABLE keys ADD COLUMN rotation TEXT NOT NULL DEFAULT '{}';

CREATE TABLE campaigns (
  id TEXT PRIMARY KEY,
  key TEXT NOT NULL,
  cause TEXT NOT NULL,
  actor TEXT NOT NULL,
  rotation TEXT NOT NULL,
  state TEXT NOT NULL,
  active INTEGER NOT NULL,
  stopped TEXT,
  course TEXT NOT NULL,
  old INTEGER,
  new INTEGER,
  overtaken TEXT NOT NULL,
  reason TEXT NOT NULL,
  state_since INTEGER NOT NULL,
  converged_at INTEGER,
  started_at INTEGER NOT NULL,
  ended_at INTEGER
) STRICT;
CREATE INDEX campaigns_active ON campaigns (active) WHERE active = 1;

CREATE TABLE campaign_steps (
  campaign TEXT NOT NULL,
  number INTEGER NOT NULL,
  at INTEGER NOT NULL,
  actor TEXT NOT NULL,
  state TEXT NOT NULL,
  text TEXT NOT NULL,
  PRIMARY KEY (campaign, number)
) STRICT;

CREATE TABLE campaign_approvals (
  campaign TEXT NOT NULL,
  principal TEXT NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (campaign, principal)
) STRICT;

CREATE TABLE sets (
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  \"set\" TEXT NOT NULL,
  PRIMARY KEY (kind, name)
) STRICT;

CREATE TABLE audit (
  number INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  principal TEXT NOT NULL,
  token TEXT NOT NULL,
  action TEXT NOT NULL,
  target TEXT NOT NULL,
  outcome TEXT NOT NULL,
  reason TEXT NOT NULL,
  detail TEXT NOT NULL,
  previous_hash BLOB NOT NULL,
  hash BLOB NOT NULL
) STRICT;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
"];

/// The schema version of a database; 0 = nothing in it yet.
pub(crate) fn version(connection: &Connection) -> Result<i64, Error> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

/// The schema version that this program makes.
pub(crate) fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Brings the schema up to date, one migration a transaction.
pub(crate) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), Error> {
    let (found, known) = (version(connection)?, known());
    if found > known {
        return Err(Error::TooNew {
            path: path.to_owned(),
            found,
            known,
        });
    }
    let done = usize::try_from(found).unwrap_or(0);
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", index + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Counts this start of the service.
pub(crate) fn next_epoch(connection: &Connection) -> Result<u64, Error> {
    let sql = "UPDATE service SET epoch = epoch + 1 RETURNING epoch";
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}

/// What SQLite would do for a query, a line each: `SCAN` is a look at every row of a table.
#[cfg(test)]
pub(crate) fn plan_of(sql: &str) -> String {
    let mut connection = Connection::open_in_memory().unwrap();
    migrate(&mut connection, Path::new("memory")).unwrap();
    let mut statement = connection
        .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
        .unwrap();
    let count = statement.parameter_count();
    let params = rusqlite::params_from_iter(std::iter::repeat_n(rusqlite::types::Null, count));
    let lines = statement
        .query_map(params, |row| row.get::<_, String>(3))
        .unwrap();
    lines.map(Result::unwrap).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lookup_of_a_growing_table_has_an_index() {
        for condition in [
            "holdings WHERE key = ?1 ORDER BY version, deployment, space, connector",
            "holdings WHERE deployment = ?1 AND space = ?2 AND connector = ?3 AND closed_at IS NULL",
            "evidence WHERE key = ?1 ORDER BY version, deployment, space, connector",
            "evidence WHERE deployment = ?1 AND space = ?2 AND connector = ?3",
            "events WHERE deployment = ?1 ORDER BY id DESC LIMIT 9",
            "events WHERE rollout = ?1 ORDER BY id DESC LIMIT 9",
            "rollouts WHERE active = 1",
            "rollout_targets WHERE rollout = ?1 ORDER BY deployment",
            "rollout_bindings WHERE rollout = ?1 ORDER BY deployment, space, connector",
            "key_versions WHERE key = ?1 ORDER BY version DESC",
            "campaigns WHERE active = 1",
            "campaign_steps WHERE campaign = ?1 ORDER BY number",
            "deployments WHERE name = ?1",
            "tokens WHERE hash = ?1",
        ] {
            let plan = plan_of(&format!("SELECT * FROM {condition}"));
            assert!(
                !plan.contains("SCAN") && !plan.contains("TEMP B-TREE"),
                "{condition}: {plan}"
            );
        }
        let service =
            "SELECT at FROM events WHERE deployment IS NULL AND rollout IS NULL AND ?1 = ''
                       ORDER BY id DESC LIMIT 9";
        let plan = plan_of(service);
        assert!(plan.contains("USING INDEX events_service"), "{plan}");
    }
}
