//! What Kibana tells about itself: status, health of alerting.

use serde_json::{Map, Value, json};

use super::Kibana;
use super::faults::Level;
use super::version::{BUILD_FLAVOR, Version};
use crate::reply::{Call, Reply};

/// The plugins whose status a client of connectors may want to see.
const PLUGINS: [&str; 5] = [
    "actions",
    "encryptedSavedObjects",
    "licensing",
    "spaces",
    "stackConnectors",
];

impl Kibana {
    /// `/api/status`: redacted without credentials, 503 when the core is unavailable.
    pub(super) fn status(&self, call: &Call) -> Reply {
        let state = self.state();
        let level = state.faults.status_level.unwrap_or(Level::Available);
        let code = if level >= Level::Unavailable {
            503
        } else {
            200
        };
        if call.header("authorization").is_none() {
            return Reply::json(
                code,
                &json!({ "status": { "overall": { "level": level } } }),
            );
        }
        let service = |level: Level| json!({ "level": level, "summary": summary(level) });
        let plugins: Map<String, Value> = PLUGINS
            .iter()
            .map(|name| ((*name).to_owned(), service(Level::Available)))
            .collect();
        Reply::json(
            code,
            &json!({
                "name": self.options.name,
                "uuid": state.uuid,
                "version": build(state.version),
                "status": {
                    "overall": service(level),
                    "core": { "elasticsearch": service(level), "savedObjects": service(level) },
                    "plugins": plugins,
                },
                "metrics": {},
            }),
        )
    }

    /// `/api/alerting/_health`, the place where a missing encryption key is seen.
    pub(super) fn alerting_health(&self) -> Reply {
        let part = json!({ "status": "ok", "timestamp": "2026-01-01T00:00:00.000Z" });
        Reply::json(
            200,
            &json!({
                "is_sufficiently_secure": true,
                "has_permanent_encryption_key": !self.state().faults.encryption_key_missing,
                "alerting_framework_health": {
                    "decryption_health": part,
                    "execution_health": part,
                    "read_health": part,
                },
            }),
        )
    }
}

fn build(version: Version) -> Value {
    let mut build = json!({
        "number": version.to_string(),
        "build_hash": "0000000000000000000000000000000000000000",
        "build_number": 1,
        "build_snapshot": version.is_snapshot(),
    });
    if version.has(BUILD_FLAVOR) {
        build["build_flavor"] = Value::from("traditional");
        build["build_date"] = Value::from("2026-01-01T00:00:00.000Z");
    }
    build
}

fn summary(level: Level) -> &'static str {
    match level {
        Level::Available => "All services and plugins are available",
        Level::Degraded => "1 service is degraded: elasticsearch",
        Level::Unavailable => "1 service is unavailable: elasticsearch",
        Level::Critical => "1 service is critical: elasticsearch",
    }
}
