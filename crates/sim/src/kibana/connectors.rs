//! Create, read, change, delete and list connectors, each with the order of checks of the real routes.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Kibana;
use super::errors::{conflict, error, internal, not_found};
use super::faults::Privilege;
use super::foreign::Kind;
use super::hooks;
use super::input::{self, Input};
use super::licence::{self, ConnectorType, GEN_AI, Licence};
use super::schema;
use super::state::{Connector, Damage, State};
use super::version::{AUTH_MODE, SYSTEM_ACTION_FLAG, TYPE_DEPRECATED_FLAG, Version};
use crate::fault::Only;
use crate::reply::Reply;

impl Kibana {
    /// POST: schema, privilege, preconfigured, type, config, secrets, licence, id, conflict.
    pub(super) async fn create(
        &self,
        space: &str,
        id: Option<&str>,
        payload: &Value,
    ) -> Result<Reply, Reply> {
        let connector = self.check_create(space, id, payload)?;
        self.before_save(&connector, false).await?;
        let mut state = self.state();
        if state.connectors.contains_key(&connector.id) {
            return Err(conflict(state.version, &connector.id));
        }
        self.store(&mut state, connector)
    }

    fn check_create(
        &self,
        space: &str,
        id: Option<&str>,
        payload: &Value,
    ) -> Result<Connector, Reply> {
        let state = self.state();
        if let Some(id) = id {
            input::path_id(state.version, id)?;
        }
        let input = input::create(payload)?;
        self.usable(&state)?;
        let kind = input.connector_type_id.clone();
        allow(
            &state,
            space,
            Privilege::All,
            &format!("create a \"{kind}\" action"),
        )?;
        match id.and_then(|id| Some((id, state.foreign.get(id)?.kind))) {
            Some((_, Kind::System)) => {
                let text = format!("System action creation is forbidden. Action type: {kind}.");
                return Err(error(400, &text));
            }
            Some((id, _)) => {
                let text = format!("This {id} already exists in a preconfigured action.");
                return Err(error(400, &text));
            }
            None => {}
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
        Ok(Connector {
            id,
            space: space.to_owned(),
            name: input.name,
            connector_type_id: kind.id.to_owned(),
            config,
            secrets: input.secrets,
            damage: Damage::None,
        })
    }

    /// PUT: schema, privilege, preconfigured, existence, config, secrets, licence. It replaces everything.
    pub(super) async fn update(
        &self,
        space: &str,
        id: &str,
        payload: &Value,
    ) -> Result<Reply, Reply> {
        let connector = self.check_update(space, id, payload)?;
        self.before_save(&connector, true).await?;
        self.store(&mut self.state(), connector)
    }

    fn check_update(&self, space: &str, id: &str, payload: &Value) -> Result<Connector, Reply> {
        let state = self.state();
        let input = input::update(payload)?;
        self.usable(&state)?;
        allow(&state, space, Privilege::All, "update actions")?;
        own(&state, id, "can not be updated")?;
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
        Ok(Connector {
            name: input.name,
            config,
            secrets: input.secrets,
            damage: Damage::None,
            ..stored
        })
    }

    /// GET by id.
    pub(super) fn get(&self, space: &str, id: &str) -> Result<Reply, Reply> {
        let state = self.state();
        self.usable(&state)?;
        allow(&state, space, Privilege::Read, "get actions")?;
        match state.foreign.get(id) {
            Some(system) if system.kind == Kind::System => {
                return Err(error(404, &format!("Connector {id} not found")));
            }
            Some(foreign) => return Ok(Reply::json(200, &foreign.describe(state.version, id))),
            None => {}
        }
        let connector = state.connector(space, id).ok_or_else(|| not_found(id))?;
        Ok(Reply::json(200, &describe(state.version, connector)))
    }

    /// DELETE: 204 without a body.
    pub(super) fn delete(&self, space: &str, id: &str) -> Result<Reply, Reply> {
        let mut state = self.state();
        self.usable(&state)?;
        allow(&state, space, Privilege::All, "delete actions")?;
        own(&state, id, "is not allowed to delete")?;
        state.connector(space, id).ok_or_else(|| not_found(id))?;
        let gone = state.connectors.remove(id);
        state.save(&self.options).map_err(|_| internal())?;
        drop(state);
        if let Some(connector) = gone {
            self.after_delete(&connector);
        }
        Ok(Reply::empty())
    }

    /// The connectors of a space and the preconfigured ones of all.
    pub(super) fn list(&self, space: &str) -> Result<Reply, Reply> {
        let mut state = self.state();
        self.usable(&state)?;
        allow(&state, space, Privilege::Read, "get actions")?;
        let foreign = state.foreign_rows();
        let stored = state
            .connectors
            .values()
            .filter(|connector| connector.space == space && hooks::is_listed(&state, connector))
            .map(|connector| describe(state.version, connector));
        let rows: Vec<Value> = stored
            .chain(foreign)
            .map(|mut row| {
                let id = row["id"].as_str().unwrap_or_default();
                let count = state.references.get(id).copied().unwrap_or_default();
                row["referenced_by_count"] = Value::from(count);
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
            .map(|kind| {
                let licensed = licence >= kind.licence && !has_expired(&state, kind);
                kind.describe(state.version, licensed, enabled_in_config(&state, kind))
            })
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
        if has_expired(state, kind) {
            let text = format!(
                "Action type {} is disabled because your {} license has expired.",
                kind.id,
                licence.name()
            );
            return Err(error(403, &text));
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

    pub(super) fn licence(&self, state: &State) -> Licence {
        state.faults.licence.unwrap_or(self.options.licence)
    }

    fn validate(
        &self,
        state: &State,
        kind: &ConnectorType,
        input: &Input,
    ) -> Result<Map<String, Value>, Reply> {
        let refused = |message: String| error(400, &message);
        let config = schema::config(state.version, kind.id, &input.config).map_err(refused)?;
        let hosts = &self.options.allowed_hosts;
        schema::more(state.version, kind.id, &config, hosts).map_err(refused)?;
        schema::secrets(state.version, kind.id, &input.secrets).map_err(refused)?;
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
pub(super) fn allow(state: &State, space: &str, needed: Privilege, act: &str) -> Result<(), Reply> {
    match state.privilege(space) >= needed {
        true => Ok(()),
        false => Err(error(403, &format!("Unauthorized to {act}"))),
    }
}

/// Whether a connector may be changed: those that are no saved objects may not.
fn own(state: &State, id: &str, refusal: &str) -> Result<(), Reply> {
    let word = match state.foreign.get(id).map(|foreign| foreign.kind) {
        None => return Ok(()),
        Some(Kind::System) => "System",
        Some(Kind::Stored | Kind::Preconfigured | Kind::Dynamic) => "Preconfigured",
    };
    Err(error(400, &format!("{word} action {id} {refusal}.")))
}

fn enabled_in_config(state: &State, kind: &ConnectorType) -> bool {
    match &state.faults.type_disabled {
        Only::Flag(disabled) => !(*disabled && kind.id == GEN_AI),
        these @ Only::These(_) => !these.has(kind.id),
    }
}

/// Whether the licence has run out for this type.
fn has_expired(state: &State, kind: &ConnectorType) -> bool {
    kind.licence > Licence::Basic && state.faults.licence_expired.has(kind.id)
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
pub(super) fn add_flags(version: Version, kind: &str, row: &mut Value) {
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
