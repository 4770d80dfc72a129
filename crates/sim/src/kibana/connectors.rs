//! Create, read, change, delete and list connectors, each with the order of checks of the real routes.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Kibana;
use super::errors::{conflict, error, internal, not_found};
use super::faults::Privilege;
use super::input::{self, Input};
use super::licence::{self, ConnectorType, GEN_AI};
use super::schema;
use super::state::{Connector, Damage, State};
use super::version::{AUTH_MODE, SYSTEM_ACTION_FLAG, TYPE_DEPRECATED_FLAG, Version};
use crate::reply::Reply;

impl Kibana {
    /// POST: schema, privilege, preconfigured, type, config, secrets, licence, id, conflict.
    pub(super) fn create(
        &self,
        space: &str,
        id: Option<&str>,
        payload: &Value,
    ) -> Result<Reply, Reply> {
        let mut state = self.state();
        if let Some(id) = id {
            input::path_id(state.version, id)?;
        }
        let input = input::create(payload)?;
        self.usable(&state)?;
        let kind = input.connector_type_id.clone();
        allow(
            &state,
            Privilege::All,
            &format!("create a \"{kind}\" action"),
        )?;
        if let Some(id) = id.filter(|id| self.is_preconfigured(id)) {
            return Err(error(
                400,
                &format!("This {id} already exists in a preconfigured action."),
            ));
        }
        let Some(kind) = licence::find(state.version, &kind) else {
            return Err(error(
                400,
                &format!("Action type \"{kind}\" is not registered."),
            ));
        };
        let config = self.validate(&state, kind, &input)?;
        self.enabled(&state, kind)?;
        let id = match id {
            None => Uuid::new_v4().to_string(),
            Some(id) => {
                input::object_id(state.version, id)?;
                id.to_owned()
            }
        };
        if state.connectors.contains_key(&id) {
            return Err(conflict(state.version, &id));
        }
        let connector = Connector {
            id,
            space: space.to_owned(),
            name: input.name,
            connector_type_id: kind.id.to_owned(),
            config,
            secrets: input.secrets,
            damage: Damage::None,
        };
        self.store(&mut state, connector)
    }

    /// PUT: schema, privilege, preconfigured, existence, config, secrets, licence. It replaces everything.
    pub(super) fn update(&self, space: &str, id: &str, payload: &Value) -> Result<Reply, Reply> {
        let mut state = self.state();
        let input = input::update(payload)?;
        self.usable(&state)?;
        allow(&state, Privilege::All, "update actions")?;
        if self.is_preconfigured(id) {
            return Err(error(
                400,
                &format!("Preconfigured action {id} can not be updated."),
            ));
        }
        let stored = state
            .connector(space, id)
            .cloned()
            .ok_or_else(|| not_found(id))?;
        let Some(kind) = licence::find(state.version, &stored.connector_type_id) else {
            return Err(error(
                400,
                &format!(
                    "Action type \"{}\" is not registered.",
                    stored.connector_type_id
                ),
            ));
        };
        let config = self.validate(&state, kind, &input)?;
        self.enabled(&state, kind)?;
        let connector = Connector {
            name: input.name,
            config,
            secrets: input.secrets,
            damage: Damage::None,
            ..stored
        };
        self.store(&mut state, connector)
    }

    /// GET by id.
    pub(super) fn get(&self, space: &str, id: &str) -> Result<Reply, Reply> {
        let state = self.state();
        self.usable(&state)?;
        allow(&state, Privilege::Read, "get actions")?;
        if let Some(preconfigured) = self.preconfigured(state.version, id) {
            return Ok(Reply::json(200, &preconfigured));
        }
        let connector = state.connector(space, id).ok_or_else(|| not_found(id))?;
        Ok(Reply::json(200, &describe(state.version, connector)))
    }

    /// DELETE: 204 without a body.
    pub(super) fn delete(&self, space: &str, id: &str) -> Result<Reply, Reply> {
        let mut state = self.state();
        self.usable(&state)?;
        allow(&state, Privilege::All, "delete actions")?;
        if self.is_preconfigured(id) {
            return Err(error(
                400,
                &format!("Preconfigured action {id} is not allowed to delete."),
            ));
        }
        state.connector(space, id).ok_or_else(|| not_found(id))?;
        state.connectors.remove(id);
        state.save(&self.options).map_err(|_| internal())?;
        Ok(Reply::empty())
    }

    /// The connectors of a space and the preconfigured ones of all.
    pub(super) fn list(&self, space: &str) -> Result<Reply, Reply> {
        let state = self.state();
        self.usable(&state)?;
        allow(&state, Privilege::Read, "get actions")?;
        let stored = state
            .connectors
            .values()
            .filter(|connector| connector.space == space)
            .map(|connector| describe(state.version, connector));
        let preconfigured = self
            .options
            .preconfigured
            .iter()
            .filter_map(|(id, _)| self.preconfigured(state.version, id));
        let rows: Vec<Value> = stored
            .chain(preconfigured)
            .map(|mut row| {
                row["referenced_by_count"] = Value::from(0);
                row
            })
            .collect();
        Ok(Reply::json(200, &Value::from(rows)))
    }

    /// GET of the connector types; it needs no privilege.
    pub(super) fn types(&self) -> Result<Reply, Reply> {
        let state = self.state();
        self.usable(&state)?;
        let licence = self.licence(&state);
        let rows: Vec<Value> = licence::all(state.version)
            .map(|kind| kind.describe(state.version, licence, enabled_in_config(&state, kind)))
            .collect();
        Ok(Reply::json(200, &Value::from(rows)))
    }

    /// Without an encryption key no actions route works.
    pub(super) fn usable(&self, state: &State) -> Result<(), Reply> {
        match state.faults.encryption_key_missing {
            true => Err(internal()),
            false => Ok(()),
        }
    }

    /// Whether configuration and licence let this type be written and run.
    pub(super) fn enabled(&self, state: &State, kind: &ConnectorType) -> Result<(), Reply> {
        let licence = self.licence(state);
        if !enabled_in_config(state, kind) {
            let setting = "Kibana config xpack.actions.enabledActionTypes";
            return Err(error(
                403,
                &format!(
                    "action type \"{}\" is not enabled in the {setting}",
                    kind.id
                ),
            ));
        }
        if licence < kind.licence {
            let text = format!(
                "Action type {} is disabled because your {} license does not support it. Please upgrade your license.",
                kind.id,
                licence.name()
            );
            return Err(error(403, &text));
        }
        Ok(())
    }

    pub(super) fn is_preconfigured(&self, id: &str) -> bool {
        self.options
            .preconfigured
            .iter()
            .any(|(known, _)| known == id)
    }

    pub(super) fn licence(&self, state: &State) -> licence::Licence {
        state.faults.licence.unwrap_or(self.options.licence)
    }

    fn preconfigured(&self, version: Version, id: &str) -> Option<Value> {
        let (id, name) = self
            .options
            .preconfigured
            .iter()
            .find(|(known, _)| known == id)?;
        let mut row = json!({
            "id": id,
            "name": name,
            "connector_type_id": GEN_AI,
            "is_preconfigured": true,
            "is_deprecated": false,
        });
        add_flags(version, GEN_AI, &mut row);
        Some(row)
    }

    fn validate(
        &self,
        state: &State,
        kind: &ConnectorType,
        input: &Input,
    ) -> Result<Map<String, Value>, Reply> {
        if kind.id != GEN_AI {
            return Ok(input.config.clone());
        }
        let refused = |message: String| error(400, &message);
        let config = schema::config(state.version, &input.config).map_err(refused)?;
        schema::url(state.version, &config, &self.options.allowed_hosts).map_err(refused)?;
        schema::secrets(state.version, &input.secrets).map_err(refused)?;
        Ok(config)
    }

    fn store(&self, state: &mut State, connector: Connector) -> Result<Reply, Reply> {
        let reply = Reply::json(200, &describe(state.version, &connector));
        state.connectors.insert(connector.id.clone(), connector);
        state.save(&self.options).map_err(|_| internal())?;
        Ok(reply)
    }
}

/// Whether the API key has at least this right.
pub(super) fn allow(state: &State, needed: Privilege, act: &str) -> Result<(), Reply> {
    match state.faults.privilege >= needed {
        true => Ok(()),
        false => Err(error(403, &format!("Unauthorized to {act}"))),
    }
}

fn enabled_in_config(state: &State, kind: &ConnectorType) -> bool {
    !(kind.id == GEN_AI && state.faults.type_disabled)
}

/// The connector as the API shows it: everything but the secrets.
fn describe(version: Version, connector: &Connector) -> Value {
    let mut row = json!({
        "id": connector.id,
        "name": connector.name,
        "connector_type_id": connector.connector_type_id,
        "config": connector.config,
        "is_preconfigured": false,
        "is_deprecated": false,
        "is_missing_secrets": connector.damage == Damage::SecretsMissing,
    });
    add_flags(version, &connector.connector_type_id, &mut row);
    row
}

/// The fields that came with later versions.
fn add_flags(version: Version, kind: &str, row: &mut Value) {
    if version.has(SYSTEM_ACTION_FLAG) {
        row["is_system_action"] = Value::from(false);
    }
    if version.has(TYPE_DEPRECATED_FLAG) {
        row["is_connector_type_deprecated"] = Value::from(licence::is_deprecated(version, kind));
    }
    if version.has(AUTH_MODE) {
        row["auth_mode"] = Value::from("shared");
    }
}
