//! The stored endpoints, for Elasticsearch's own interface and for Kibana's connectors of type `.inference`.

use serde_json::Value;

use super::super::Kibana;
use super::super::licence::{INFERENCE, Licence};
use super::super::state::State;
use super::super::version::Since;
use super::Privilege;
use super::endpoint::{self, Endpoint};
use super::errors::Refusal;

/// `_update` tries the new key before it stores it (elasticsearch#122356).
const UPDATE_TRIES: Since = Since(9, 3);

impl Kibana {
    /// The stored endpoint of that task.
    pub(super) fn endpoint(&self, task: &str, id: &str) -> Result<Endpoint, Refusal> {
        let state = self.state();
        known_task(&state, task)?;
        let endpoint = state.endpoints.get(id).ok_or_else(|| not_found(id))?;
        match endpoint.task == task {
            true => Ok(endpoint.clone()),
            false => Err(other_task(task, &endpoint.task)),
        }
    }

    /// Stores a new endpoint after a trial call.
    pub(in crate::kibana) async fn put_endpoint(
        &self,
        task: &str,
        id: &str,
        body: &Value,
    ) -> Result<Value, Refusal> {
        self.check_inference_licence()?;
        let exists = || {
            let text = format!("Inference endpoint [{id}] already exists");
            Refusal::new(400, "resource_already_exists_exception", text)
        };
        let (version, endpoint) = {
            let state = self.state();
            known_task(&state, task)?;
            if state.endpoints.contains_key(id) {
                return Err(exists());
            }
            let endpoint = Endpoint::read(state.version, task, id, body)?;
            (state.version, endpoint)
        };
        self.try_endpoint(&endpoint).await?;
        let mut state = self.state();
        if state.endpoints.contains_key(id) {
            return Err(exists());
        }
        let shown = endpoint.describe(version);
        state.endpoints.insert(id.to_owned(), endpoint);
        self.keep(&state)?;
        Ok(shown)
    }

    /// Changes the key of an endpoint.
    pub(super) async fn update_endpoint(
        &self,
        task: &str,
        id: &str,
        body: &Value,
    ) -> Result<Value, Refusal> {
        let stored = {
            let state = self.state();
            known_task(&state, task)?;
            let stored = state.endpoints.get(id).cloned();
            stored.ok_or_else(|| {
                let text =
                    format!("The inference endpoint [{id}] does not exist and cannot be updated");
                Refusal::new(404, "resource_not_found_exception", text)
            })?
        };
        self.check_inference_licence()?;
        if stored.task != task {
            let text = "Task type must match the task type of the existing endpoint";
            return Err(Refusal::status(400, text));
        }
        let version = self.state().version;
        let updated = stored.updated(version, body)?;
        if version.has(UPDATE_TRIES) && !updated.is_same(&stored) {
            self.try_endpoint(&updated).await?;
        }
        let mut state = self.state();
        let shown = updated.describe(version);
        state.endpoints.insert(id.to_owned(), updated);
        self.keep(&state)?;
        Ok(shown)
    }

    /// Removes an endpoint.
    pub(in crate::kibana) fn delete_endpoint(&self, task: &str, id: &str) -> Result<(), Refusal> {
        let mut state = self.state();
        known_task(&state, task)?;
        let stored = state.endpoints.get(id).ok_or_else(|| not_found(id))?;
        if stored.task != task {
            return Err(other_task(task, &stored.task));
        }
        state.endpoints.remove(id);
        self.keep(&state)
    }

    fn keep(&self, state: &State) -> Result<(), Refusal> {
        let failed = |_| Refusal::new(500, "exception", "cannot write");
        state.save(&self.options).map_err(failed)
    }

    pub(super) fn check_inference_licence(&self) -> Result<(), Refusal> {
        let state = self.state();
        let is_enough = self.licence(&state) >= Licence::Enterprise;
        match is_enough && !state.faults.licence_expired.has(INFERENCE) {
            true => Ok(()),
            false => Err(Refusal::security(
                403,
                "current license is non-compliant for [inference]",
            )),
        }
    }

    pub(super) fn allow_inference(&self, needed: Privilege, action: &str) -> Result<(), Refusal> {
        if self.state().elastic_faults.privilege >= needed {
            return Ok(());
        }
        let enough = match needed {
            Privilege::Manage => "manage_inference,manage,all",
            Privilege::Monitor | Privilege::None => {
                "monitor_inference,manage_inference,monitor,manage,all"
            }
        };
        Err(Refusal::security(
            403,
            format!(
                "action [{action}] is unauthorized for API key id [simulated] of user [simulated], this action is \
                 granted by the cluster privileges [{enough}]"
            ),
        ))
    }
}

fn known_task(state: &State, task: &str) -> Result<(), Refusal> {
    match endpoint::is_task(state.version, task) {
        true => Ok(()),
        false => Err(Refusal::status(400, format!("Unknown task_type [{task}]"))),
    }
}

pub(super) fn not_found(id: &str) -> Refusal {
    let text = format!("Inference endpoint not found [{id}]");
    Refusal::new(404, "resource_not_found_exception", text)
}

fn other_task(asked: &str, stored: &str) -> Refusal {
    Refusal::status(
        400,
        format!(
            "Requested task type [{asked}] does not match the inference endpoint's task type [{stored}]"
        ),
    )
}
