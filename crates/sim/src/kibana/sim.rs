//! The part of `/_sim/` that is Kibana's own: the fault switches and the stored connectors.

use serde_json::{Value, json};

use super::Kibana;
use super::faults::Faults;
use super::state::{Connector, Damage};
use crate::fault;
use crate::reply::{Call, Reply};

impl Kibana {
    pub(super) fn switches(&self, call: &Call) -> Reply {
        match (call.method.as_str(), call.path.as_str()) {
            ("GET", "/_sim/faults") => Reply::json(200, &json!(self.state().faults)),
            ("PUT", "/_sim/faults") => match fault::read(call) {
                Ok(faults) => self.set(faults),
                Err(refusal) => refusal,
            },
            ("DELETE", "/_sim/faults") => self.set(Faults::default()),
            ("GET", "/_sim/connectors") => self.stored(),
            ("POST", "/_sim/connectors") => self.add_connector(call),
            ("GET" | "POST", "/_sim/spaces") => self.space_switch(call),
            ("GET" | "PUT", "/_sim/references") => self.references(call),
            ("DELETE", path) => match path.strip_prefix("/_sim/connectors/") {
                Some(id) => self.drop_connector(id),
                None => no_switch(),
            },
            _ => no_switch(),
        }
    }

    /// Replaces the switches. Damage to secrets is done now, to the connectors that are there now.
    fn set(&self, faults: Faults) -> Reply {
        let mut state = self.state();
        for (id, connector) in &mut state.connectors {
            connector.damage = match (faults.undecryptable.has(id), faults.secrets_missing.has(id))
            {
                (true, _) => Damage::Undecryptable,
                (false, true) => Damage::SecretsMissing,
                (false, false) => Damage::None,
            };
        }
        if let Some(version) = faults.upgrade_to {
            state.version = version;
        }
        state.faults = faults;
        Reply::json(200, &json!(state.faults))
    }

    fn stored(&self) -> Reply {
        let state = self.state();
        let rows: Vec<Value> = state.connectors.values().map(row).collect();
        Reply::json(200, &Value::from(rows))
    }
}

fn no_switch() -> Reply {
    Reply::sim_error(
        404,
        "the simulator has no such switch; see /_sim/faults, /_sim/requests, /_sim/connectors, /_sim/spaces and \
         /_sim/references",
    )
}

fn row(connector: &Connector) -> Value {
    let key = connector.secrets.get("apiKey").and_then(Value::as_str);
    json!({
        "id": connector.id,
        "space": connector.space,
        "name": connector.name,
        "connector_type_id": connector.connector_type_id,
        "config": connector.config,
        "secret_tail": key.map(crate::reply::tail),
    })
}
