-- The tables of schema 1, with a row in each: what a service of that version left behind.
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
PRAGMA user_version = 1;

UPDATE service SET epoch = 7;
INSERT INTO deployments VALUES ('00000000-0000-0000-0000-000000000001', 'kibana-eu', '{"env":"prod"}',
  '00000000-0000-0000-0000-000000000002', 1795435200000000000, X'0101010101010101010101010101010101010101010101010101010101010101',
  '0a0b', 1796644800000000000, '0.1.0', NULL, 1795435260000000000, 7, 3, X'02');
INSERT INTO connectors VALUES ('assistant', 1, '.gen-ai', 'Assistant', '{}', 'openai', 1795435200000000000, NULL);
INSERT INTO connectors VALUES ('assistant', 2, '.gen-ai', 'Assistant', '{"a":1}', 'openai', 1795435201000000000, NULL);
INSERT INTO placements VALUES ('everywhere',
  '{"selector":[],"connectors":["assistant"],"spaces":["default"],"drift":"correct","strategy":"default"}');
INSERT INTO keys VALUES ('openai', 'secret', 'keyfleet/openai', 'api_key', '["api.openai.com"]', '[]', 'ok', 1795435200000000000);
INSERT INTO key_versions VALUES ('openai', 1, 'CURRENT', 'f1', 'sk-…aQ3d', 1795435200000000000, 1);
INSERT INTO bindings VALUES ('00000000-0000-0000-0000-000000000001', 'default', 'assistant', 'everywhere', 2, 1, NULL,
  2, 1, 0, 4, 7, 3, 'PROVEN', 1795435202000000000, NULL, '', 2, 1, 2, 1, 1795435202000000000, 1);
INSERT INTO holdings VALUES ('00000000-0000-0000-0000-000000000001', 'default', 'assistant', 'openai', 1, 1795435202000000000, NULL, NULL);
INSERT INTO evidence VALUES ('00000000-0000-0000-0000-000000000001', 'default', 'assistant', 'openai', 1, 2,
  '00000000-0000-0000-0000-000000000002', '0a0b', 1795435202000000000);
INSERT INTO tokens VALUES ('00000000-0000-0000-0000-000000000003',
  X'0303030303030303030303030303030303030303030303030303030303030303', 'operator', 'anna', 'admin', '{}', 0,
  1798000000000000000, 1795435200000000000, 'keyfleet-control init', 0);
INSERT INTO tokens VALUES ('00000000-0000-0000-0000-000000000004',
  X'0404040404040404040404040404040404040404040404040404040404040404', 'join', 'anna', NULL, '{"env":"prod"}', 5,
  1798000000000000000, 1795435200000000000, 'anna', 0);
INSERT INTO events (at, actor, text) VALUES (1795435200000000000, 'keyfleet', 'kept');
INSERT INTO strategies VALUES ('careful', '{"waves":[{"name":"canary","selector":[],"sample":{"Count":1},"concurrency":{"Count":1},"strict":true,"soak_millis":600000},{"name":"fleet","selector":[],"sample":null,"concurrency":{"Percent":10},"strict":false,"soak_millis":0}],"deadline_millis":[30000,120000,180000,7200000],"budgets":[{"class":"AUTH","max":{"Count":0},"min_sample":1,"action":"rollback"}],"offline_max_percent":20,"rollback_concurrency":{"Percent":50}}');
INSERT INTO rollouts VALUES ('00000000-0000-0000-0000-000000000009', 'careful',
  '{"waves":[{"name":"canary","selector":[],"sample":{"Count":1},"concurrency":{"Count":1},"strict":true,"soak_millis":600000},{"name":"fleet","selector":[],"sample":null,"concurrency":{"Percent":10},"strict":false,"soak_millis":0}],"deadline_millis":[30000,120000,180000,7200000],"budgets":[{"class":"AUTH","max":{"Count":0},"min_sample":1,"action":"rollback"}],"offline_max_percent":20,"rollback_concurrency":{"Percent":50}}', 'anna applied it', 'anna', 'PROGRESSING', 1, '', 1, 1795435201000000000, 1795435200000000000, NULL);
INSERT INTO rollout_targets VALUES ('00000000-0000-0000-0000-000000000009', '00000000-0000-0000-0000-000000000001', 1,
  1795435201000000000, NULL, 0, NULL, '');
