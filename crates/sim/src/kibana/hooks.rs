//! What saving, listing and deleting a connector of type `.inference` does in Elasticsearch. Kibana acts there with its
//! own rights, so that the caller needs none.

use serde_json::{Map, Value, json};

use super::Kibana;
use super::elastic::Refusal;
use super::errors::{error, internal};
use super::licence::INFERENCE;
use super::provider::text;
use super::state::{Connector, State};
use super::version::{HOOK_ERRORS_SHOWN, MISSING_ENDPOINT_HIDES, Version};
use crate::reply::Reply;

impl Kibana {
    /// Before the connector is stored its endpoint is made. An update removes the older endpoint first, and when the
    /// new one is refused there is none.
    pub(super) async fn before_save(
        &self,
        connector: &Connector,
        is_update: bool,
    ) -> Result<(), Reply> {
        if connector.connector_type_id != INFERENCE {
            return Ok(());
        }
        let version = self.state().version;
        let (task, id) = place(connector);
        let exists = self.state().endpoints.contains_key(id);
        if exists && !is_update {
            // Kibana throws an error of its own here, and shows none of those.
            return Err(internal());
        }
        let refused = |refusal: Refusal| shown(version, &refusal);
        if exists {
            self.delete_endpoint(task, id).map_err(refused)?;
        }
        self.put_endpoint(task, id, &definition(connector))
            .await
            .map(|_| ())
            .map_err(refused)
    }

    /// After a connector is deleted, its endpoint goes.
    pub(super) fn after_delete(&self, connector: &Connector) {
        if connector.connector_type_id == INFERENCE {
            let (task, id) = place(connector);
            // Kibana logs it when that fails, and the connector is gone all the same.
            let _ = self.delete_endpoint(task, id);
        }
    }
}

/// Lists leave out connectors whose endpoint is missing (kibana#217641).
pub(super) fn is_listed(state: &State, connector: &Connector) -> bool {
    let hides =
        connector.connector_type_id == INFERENCE && state.version.has(MISSING_ENDPOINT_HIDES);
    !hides || state.endpoints.contains_key(place(connector).1)
}

/// The task and the id of the endpoint.
pub(super) fn place(connector: &Connector) -> (&str, &str) {
    let config = &connector.config;
    (text(config, "taskType"), text(config, "inferenceId"))
}

fn definition(connector: &Connector) -> Value {
    let part = |map: &Map<String, Value>, name: &str| {
        map.get(name)
            .and_then(Value::as_object)
            .map(unflat)
            .unwrap_or_default()
    };
    let mut settings = part(&connector.config, "providerConfig");
    settings.extend(part(&connector.secrets, "providerSecrets"));
    json!({
        "service": text(&connector.config, "provider"),
        "service_settings": settings,
        "task_settings": part(&connector.config, "taskTypeConfig"),
    })
}

/// `a.b` becomes `b` inside `a`.
fn unflat(map: &Map<String, Value>) -> Map<String, Value> {
    let mut deep = Map::new();
    for (name, value) in map {
        match name.split_once('.') {
            Some((outer, inner)) => {
                let outer = deep.entry(outer).or_insert_with(|| json!({}));
                if let Some(outer) = outer.as_object_mut() {
                    outer.insert(inner.to_owned(), value.clone());
                }
            }
            None => {
                deep.insert(name.clone(), value.clone());
            }
        }
    }
    deep
}

/// Newer releases pass an error of Elasticsearch on; older ones hide it.
fn shown(version: Version, refusal: &Refusal) -> Reply {
    if !version.has(HOOK_ERRORS_SHOWN) {
        return internal();
    }
    let status = match refusal.status {
        // Nobody shall take it for the caller's own credentials.
        401 => 403,
        status => status,
    };
    error(status, &refusal.one_text())
}
