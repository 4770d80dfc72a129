//! Inference endpoints of Elasticsearch (`_inference`, since 8.11; `_update` since 8.17).
//!
//! Elasticsearch calls the provider before it stores an endpoint, so that a write has the deadline of a live call and
//! may fail for the provider's reasons ([`Error::ProviderRefused`]).

use bytes::Bytes;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::events::{self, Event};
use super::{Execution, Observed};
use crate::client::{Answer, Call, Client, Reading, Request, Service, Told};
use crate::error::Error;
use crate::write::{Write, flat};

/// What Keyfleet calls an inference endpoint among the connector types; Kibana has no such type.
pub(crate) const ENDPOINT_TYPE: &str = "inference-endpoint";
/// The task that answers in a stream only.
const CHAT: &str = "chat_completion";
/// All that Keyfleet does with endpoints; reading and calling them is part of it.
const PRIVILEGE: &str = "manage_inference";

#[derive(Deserialize)]
struct PrivilegesBody {
    has_all_requested: bool,
}

impl Client {
    /// One inference endpoint, or `None` where there is none of that id. Its config holds the fields that
    /// Elasticsearch shows under the names of a definition; its name is its id.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the endpoint of that id has another task; else any error of a call.
    pub async fn get_endpoint(&self, task: &str, id: &str) -> Result<Option<Observed>, Error> {
        let path = ["_inference", task, id];
        let answer = self.inference(Method::GET, &path, None).await?;
        match endpoint(answer) {
            Err(Error::Gone { .. }) => Ok(None),
            observed => observed.map(Some),
        }
    }

    /// Creates an inference endpoint. Elasticsearch calls the provider first.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the id exists; [`Error::ProviderRefused`] where that call failed; else any error of a
    /// call.
    pub async fn create_endpoint(
        &self,
        task: &str,
        id: &str,
        write: &Write,
    ) -> Result<Observed, Error> {
        let (path, body) = (["_inference", task, id], write.create_endpoint_body());
        endpoint(self.inference(Method::PUT, &path, Some(body)).await?)
    }

    /// Changes the key of an inference endpoint, and what else may change. Elasticsearch calls the provider first,
    /// but not where nothing differs.
    ///
    /// # Errors
    /// [`Error::Gone`] where it does not exist; [`Error::ProviderRefused`] where the call to the provider failed, and
    /// the endpoint is as it was; else any error of a call.
    pub async fn update_endpoint(
        &self,
        task: &str,
        id: &str,
        write: &Write,
    ) -> Result<Observed, Error> {
        let (path, body) = (
            ["_inference", task, id, "_update"],
            write.update_endpoint_body(),
        );
        endpoint(self.inference(Method::PUT, &path, Some(body)).await?)
    }

    /// Removes an inference endpoint. `false`: there was none.
    ///
    /// # Errors
    /// [`Error::InUse`] where pipelines or fields still use it; else any error of a call.
    pub async fn delete_endpoint(&self, task: &str, id: &str) -> Result<bool, Error> {
        let path = ["_inference", task, id];
        let answer = self.inference(Method::DELETE, &path, None).await?;
        if answer.is_success() {
            return Ok(true);
        }
        let error = answer.refusal();
        if matches!(error, Error::Gone { .. }) {
            return Ok(false);
        }
        Err(error)
    }

    /// Runs an inference endpoint with the body of [`crate::Driver::probe`]. Costs a call to the provider; waits at
    /// most the client's probe timeout. Of a stream only the beginning is read.
    ///
    /// # Errors
    /// Where Elasticsearch did not call the provider. A call that failed is an [`Execution`] with `ok: false`.
    pub async fn try_endpoint(
        &self,
        task: &str,
        id: &str,
        body: &Value,
    ) -> Result<Execution, Error> {
        let is_stream = task == CHAT;
        let path = ["_inference", task, id, "_stream"];
        let path = path.get(..if is_stream { 4 } else { 3 }).unwrap_or(&path);
        let body = Bytes::from(body.to_string());
        let answer = self.inference(Method::POST, path, Some(body)).await?;
        if let Some(told) = answer.run_failure() {
            return Ok(failed(told));
        }
        if !answer.is_success() {
            return Err(answer.refusal());
        }
        if is_stream {
            read_stream(answer)
        } else {
            read_completion(answer)
        }
    }

    /// Whether the credentials may do with inference endpoints what Keyfleet does. Every user may ask that of itself.
    ///
    /// # Errors
    /// Any error of a call.
    pub(crate) async fn may_manage_endpoints(&self) -> Result<bool, Error> {
        let path = ["_security", "user", "_has_privileges"];
        let body = json!({ "cluster": [PRIVILEGE] }).to_string();
        let answer = self
            .inference(Method::POST, &path, Some(body.into()))
            .await?;
        let found: PrivilegesBody = answer.json()?;
        Ok(found.has_all_requested)
    }

    async fn inference(
        &self,
        method: Method,
        path: &[&str],
        body: Option<Bytes>,
    ) -> Result<Answer, Error> {
        let calls_provider = matches!(method, Method::PUT | Method::POST);
        self.send(Request {
            service: Service::Elasticsearch,
            method,
            space: None,
            path,
            body,
            timeout: if calls_provider {
                self.probe_timeout
            } else {
                self.timeout
            },
            reading: if path.last() == Some(&"_stream") {
                Reading::FirstEvent
            } else {
                Reading::Whole
            },
        })
        .await
    }
}

/// A definition: alone after a write, in a list after a read.
fn endpoint(answer: Answer) -> Result<Observed, Error> {
    let call = answer.call.clone();
    let mut body: Value = answer.json()?;
    let listed = body.pointer_mut("/endpoints/0").map(Value::take);
    observed(&listed.unwrap_or(body)).ok_or_else(|| unusual(call))
}

fn observed(definition: &Value) -> Option<Observed> {
    let id = definition.get("inference_id")?.as_str()?;
    Some(Observed {
        id: id.to_owned(),
        name: id.to_owned(),
        connector_type_id: ENDPOINT_TYPE.to_owned(),
        config: flat(definition.as_object()?),
        is_missing_secrets: false,
        is_preconfigured: false,
        is_system_action: false,
        referenced_by_count: None,
    })
}

fn failed(told: Told) -> Execution {
    Execution {
        ok: false,
        status_code: told.provider_status(),
        message: told.text,
    }
}

fn answered() -> Execution {
    Execution {
        ok: true,
        status_code: None,
        message: String::new(),
    }
}

fn read_completion(answer: Answer) -> Result<Execution, Error> {
    let call = answer.call.clone();
    let body: Value = answer.json()?;
    match body.pointer("/completion/0/result") {
        Some(Value::String(_)) => Ok(answered()),
        _ => Err(unusual(call)),
    }
}

fn read_stream(answer: Answer) -> Result<Execution, Error> {
    let call = answer.call;
    match events::first(&answer.body) {
        None => Err(Error::Truncated { call }),
        Some(Event::Error(_)) => Told::read(&answer.body)
            .map(failed)
            .ok_or_else(|| unusual(call)),
        Some(Event::Message(data)) => match serde_json::from_str(&data) {
            Ok(Value::Object(data)) if !data.contains_key("error") => Ok(answered()),
            Ok(Value::Object(_)) => Told::read(&answer.body)
                .map(failed)
                .ok_or_else(|| unusual(call)),
            _ => Err(unusual(call)),
        },
        Some(Event::End) => Err(Error::Unexpected {
            call,
            problem: "the stream ended without an answer of the model".to_owned(),
        }),
    }
}

fn unusual(call: Call) -> Error {
    let problem = "the answer lacks fields that Elasticsearch has here".to_owned();
    Error::Unexpected { call, problem }
}
