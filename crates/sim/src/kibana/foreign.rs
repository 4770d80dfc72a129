//! Connectors that nobody made through the API: from kibana.yml, of Kibana itself, or of others, and what refers to them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::connectors::add_flags;
use super::licence::GEN_AI;
use super::state::{Connector, Damage, State};
use super::version::Version;
use super::{DEFAULT_SPACE, Kibana};
use crate::fault;
use crate::reply::{Call, Reply};

/// Where a connector comes from that is no saved object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A saved object after all, made by somebody else.
    #[default]
    Stored,
    /// From kibana.yml: in every space, without its config, and changed by nobody.
    Preconfigured,
    /// Made by Kibana for an endpoint of the Elastic Inference Service: like a preconfigured one, but it comes and goes.
    /// Here every second list has it.
    Dynamic,
    /// One of Kibana's own: in no list, and no read finds it.
    System,
}

/// A connector that is no saved object.
pub(super) struct Foreign {
    name: String,
    connector_type_id: String,
    pub(super) kind: Kind,
}

/// What `POST /_sim/connectors` takes; nothing of it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    id: Option<String>,
    space: Option<String>,
    name: String,
    connector_type_id: Option<String>,
    #[serde(default)]
    config: Map<String, Value>,
    #[serde(default)]
    secrets: Map<String, Value>,
    #[serde(default)]
    kind: Kind,
}

impl Foreign {
    /// A connector of kibana.yml, as the options name it.
    pub(super) fn preconfigured(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            connector_type_id: GEN_AI.to_owned(),
            kind: Kind::Preconfigured,
        }
    }

    /// As the API shows it: without config and secrets.
    pub(super) fn describe(&self, version: Version, id: &str) -> Value {
        let mut row = json!({
            "id": id,
            "name": self.name,
            "connector_type_id": self.connector_type_id,
            "is_preconfigured": self.kind != Kind::System,
            "is_deprecated": false,
        });
        add_flags(version, &self.connector_type_id, &mut row);
        if let Some(flag) = row.get_mut("is_system_action") {
            *flag = Value::from(self.kind == Kind::System);
        }
        row
    }

    /// It has no address here, so that a run of it fails as an unreachable one does.
    pub(super) fn runnable(&self, space: &str, id: &str) -> Connector {
        Connector {
            id: id.to_owned(),
            space: space.to_owned(),
            name: self.name.clone(),
            connector_type_id: self.connector_type_id.clone(),
            config: Map::new(),
            secrets: Map::new(),
            damage: Damage::None,
        }
    }
}

impl State {
    /// The rows of foreign connectors in the list that is asked for now.
    pub(super) fn foreign_rows(&mut self) -> Vec<Value> {
        self.n_lists += 1;
        let shown = |foreign: &Foreign| match foreign.kind {
            Kind::Stored | Kind::Preconfigured => true,
            Kind::Dynamic => self.n_lists % 2 == 1,
            Kind::System => false,
        };
        self.foreign
            .iter()
            .filter(|(_, foreign)| shown(foreign))
            .map(|(id, foreign)| foreign.describe(self.version, id))
            .collect()
    }

    fn add(&mut self, new: New) -> Result<String, Reply> {
        let id = new.id.unwrap_or_else(|| Uuid::new_v4().to_string());
        let connector_type_id = new.connector_type_id.unwrap_or_else(|| GEN_AI.to_owned());
        if new.kind != Kind::Stored {
            let foreign = Foreign {
                name: new.name,
                connector_type_id,
                kind: new.kind,
            };
            self.foreign.insert(id.clone(), foreign);
            return Ok(id);
        }
        let space = new.space.unwrap_or_else(|| DEFAULT_SPACE.to_owned());
        if self.space(&space).is_none() {
            let text = format!("no such space: `{space}`");
            return Err(Reply::sim_error(404, &text));
        }
        let connector = Connector {
            id: id.clone(),
            space,
            name: new.name,
            connector_type_id,
            config: new.config,
            secrets: new.secrets,
            damage: Damage::None,
        };
        self.connectors.insert(id.clone(), connector);
        Ok(id)
    }
}

impl Kibana {
    /// `POST /_sim/connectors`.
    pub(super) fn add_connector(&self, call: &Call) -> Reply {
        let mut state = self.state();
        match fault::read(call).and_then(|new| state.add(new)) {
            Ok(id) => self.saved(&state, &json!({ "id": id })),
            Err(refusal) => refusal,
        }
    }

    /// `DELETE /_sim/connectors/ID`.
    pub(super) fn drop_connector(&self, id: &str) -> Reply {
        let mut state = self.state();
        let stored = state.connectors.remove(id).is_some();
        let foreign = state.foreign.remove(id).is_some();
        match stored || foreign {
            true => self.saved(&state, &Value::Null),
            false => Reply::sim_error(404, "no such connector"),
        }
    }

    /// `GET` and `PUT /_sim/references`: how many rules and others refer to a connector.
    pub(super) fn references(&self, call: &Call) -> Reply {
        let mut state = self.state();
        if call.method == http::Method::PUT {
            match fault::read::<BTreeMap<String, u64>>(call) {
                Ok(counts) => state.references.extend(counts),
                Err(refusal) => return refusal,
            }
            state.references.retain(|_, count| *count > 0);
        }
        let shown = json!(state.references);
        self.saved(&state, &shown)
    }

    fn saved(&self, state: &State, answer: &Value) -> Reply {
        match state.save(&self.options) {
            Ok(()) => Reply::json(200, answer),
            Err(_) => Reply::sim_error(500, "cannot write the state file"),
        }
    }
}
