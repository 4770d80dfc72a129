//! The spaces of a simulated Kibana: which there are, which the API key may see, which have the connectors switched off.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::errors::error;
use super::faults::Privilege;
use super::state::State;
use super::version::{SPACE_SOLUTION, Version};
use super::{DEFAULT_SPACE, Kibana};
use crate::fault;
use crate::reply::{Call, Reply};

/// The feature "Actions and Connectors".
const ACTIONS: &str = "actions";

/// One space.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Space {
    pub(super) id: String,
    /// The API key has no right in it.
    hidden: bool,
    disabled_features: BTreeSet<String>,
}

impl Space {
    pub(super) fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            hidden: false,
            disabled_features: BTreeSet::new(),
        }
    }

    /// As the Spaces API shows it.
    fn describe(&self, version: Version) -> Value {
        let is_default = self.id == DEFAULT_SPACE;
        let mut row = json!({
            "id": self.id,
            "name": if is_default { "Default" } else { &self.id },
            "disabledFeatures": self.disabled_features,
        });
        if is_default {
            row["_reserved"] = Value::from(true);
        }
        if version.has(SPACE_SOLUTION) {
            row["solution"] = Value::from("classic");
        }
        row
    }
}

/// What `POST /_sim/spaces` may ask for: lists of ids, done in this order.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Change {
    add: Vec<String>,
    remove: Vec<String>,
    hide: Vec<String>,
    show: Vec<String>,
    disable_actions: Vec<String>,
    enable_actions: Vec<String>,
}

impl Kibana {
    /// Every space that the API key may see.
    pub(super) fn spaces(&self) -> Result<Reply, Reply> {
        let state = self.state();
        let rows: Vec<Value> = state
            .spaces
            .iter()
            .filter(|space| !space.hidden)
            .map(|space| space.describe(state.version))
            .collect();
        match rows.is_empty() {
            true => Err(error(403, "Forbidden")),
            false => Ok(Reply::json(200, &Value::from(rows))),
        }
    }

    /// One space.
    pub(super) fn space(&self, id: &str) -> Result<Reply, Reply> {
        let state = self.state();
        let space = state.space(id).ok_or_else(|| error(404, "Not Found"))?;
        match space.hidden {
            true => Err(error(403, &format!("Unauthorized to get {id} space"))),
            false => Ok(Reply::json(200, &space.describe(state.version))),
        }
    }

    /// `GET` and `POST /_sim/spaces`.
    pub(super) fn space_switch(&self, call: &Call) -> Reply {
        let mut state = self.state();
        if call.method == http::Method::POST {
            let done = fault::read(call).and_then(|change| state.change_spaces(&change));
            if let Err(refusal) = done {
                return refusal;
            }
            if state.save(&self.options).is_err() {
                return Reply::sim_error(500, "cannot write the state file");
            }
        }
        Reply::json(200, &json!(state.spaces))
    }
}

impl State {
    /// The space with this id.
    pub(super) fn space(&self, id: &str) -> Option<&Space> {
        self.spaces.iter().find(|space| space.id == id)
    }

    /// What the API key may do with connectors in this space.
    pub(super) fn privilege(&self, space: &str) -> Privilege {
        let open = |space: &&Space| !space.hidden && !space.disabled_features.contains(ACTIONS);
        match self.space(space).filter(open) {
            None => Privilege::None,
            Some(_) => {
                let single = self.faults.privilege_in.get(space);
                single.copied().unwrap_or(self.faults.privilege)
            }
        }
    }

    fn change_spaces(&mut self, change: &Change) -> Result<(), Reply> {
        self.check(change)?;
        for id in &change.add {
            if self.space(id).is_none() {
                self.spaces.push(Space::new(id));
            }
        }
        for id in &change.remove {
            self.spaces.retain(|space| space.id != *id);
            // With a space go all objects in it.
            self.connectors
                .retain(|_, connector| connector.space != *id);
        }
        for space in &mut self.spaces {
            space.hidden = (space.hidden || change.hide.contains(&space.id))
                && !change.show.contains(&space.id);
            if change.disable_actions.contains(&space.id) {
                space.disabled_features.insert(ACTIONS.to_owned());
            }
            if change.enable_actions.contains(&space.id) {
                space.disabled_features.remove(ACTIONS);
            }
        }
        Ok(())
    }

    /// Nothing is changed when one id is wrong.
    fn check(&self, change: &Change) -> Result<(), Reply> {
        let is_id = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if let Some(id) = change
            .add
            .iter()
            .find(|id| id.is_empty() || !id.chars().all(is_id))
        {
            let text = format!(
                "`{id}` is not the id of a space: write lowercase letters, digits, `-` and `_`"
            );
            return Err(Reply::sim_error(400, &text));
        }
        if change.remove.iter().any(|id| id == DEFAULT_SPACE) {
            return Err(Reply::sim_error(400, "the space `default` always stays"));
        }
        let named = [
            &change.remove,
            &change.hide,
            &change.show,
            &change.disable_actions,
            &change.enable_actions,
        ];
        let unknown = named
            .into_iter()
            .flatten()
            .find(|id| self.space(id).is_none() && !change.add.contains(id));
        match unknown {
            Some(id) => Err(Reply::sim_error(404, &format!("no such space: `{id}`"))),
            None => Ok(()),
        }
    }
}
