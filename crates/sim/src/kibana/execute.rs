//! `_execute`: a run answers HTTP 200 whether it worked or not; `status` in the body tells.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Kibana;
use super::connectors::allow;
use super::errors::{internal, not_found};
use super::faults::{Privilege, ProviderFault, ProviderMode};
use super::input;
use super::licence::{self, BEDROCK, GEMINI, GEN_AI, INFERENCE};
use super::provider::{self, Failure, Trouble};
use super::schema_text;
use super::state::{Connector, Damage};
use super::version::{RATE_LIMIT_IS_USER_ERROR, Version};
use crate::fault;
use crate::reply::{Reply, reason};

/// The sub-actions that are simulated.
const RUN: &[&str] = &["run", "test"];
const CONVERSE: &[&str] = &["unified_completion", "completion"];

impl Kibana {
    /// Privilege, existence, licence, decryption, parameters, and then the call to the provider.
    pub(super) async fn execute(
        &self,
        space: &str,
        id: &str,
        payload: &Value,
    ) -> Result<Reply, Reply> {
        let params = input::execute(payload)?;
        let (version, connector) = self.runnable(space, id)?;
        let kind = connector.connector_type_id.as_str();
        let (secret, actions) = match kind {
            GEN_AI => ("apiKey", RUN),
            BEDROCK => ("accessKey", RUN),
            GEMINI => ("credentialsJson", RUN),
            INFERENCE => ("", CONVERSE),
            _ => {
                let done = json!({ "connector_id": id, "status": "ok" });
                return Ok(Reply::json(200, &done));
            }
        };
        // The key of `.inference` lies in Elasticsearch.
        if connector.damage == Damage::SecretsMissing && !secret.is_empty() {
            let text = schema_text::missing(version, "secrets", secret);
            return Ok(invalid(id, &text, "framework"));
        }
        let Some(Value::String(action)) = params.get("subAction") else {
            let text = schema_text::missing(version, "params", "subAction");
            return Ok(invalid(id, &text, "user"));
        };
        let given = params.get("subActionParams");
        let result = match action.as_str() {
            "getDashboard" => Ok(json!({ "available": false })),
            known if !actions.contains(&known) => Err(unregistered(version, &connector, known)),
            _ if kind == GEN_AI => self.run_gen_ai(&connector, given).await,
            _ if kind == BEDROCK => self.run_bedrock(&connector, given).await,
            _ if kind == GEMINI => self.run_gemini(&connector, given).await,
            action => self.run_inference(&connector, action, given).await,
        };
        Ok(match result {
            Ok(data) => Reply::json(
                200,
                &json!({ "status": "ok", "connector_id": id, "data": data }),
            ),
            Err(failure) => failed(version, id, &failure),
        })
    }

    /// Everything that is decided before the provider is called, with the lock held once.
    fn runnable(&self, space: &str, id: &str) -> Result<(Version, Connector), Reply> {
        let state = self.state();
        self.usable(&state)?;
        allow(&state, space, Privilege::Read, "execute actions")?;
        let connector = match state.foreign.get(id) {
            Some(foreign) => foreign.runnable(space, id),
            None => state
                .connector(space, id)
                .cloned()
                .ok_or_else(|| not_found(id))?,
        };
        let kind = licence::find(state.version, &connector.connector_type_id);
        self.enabled(&state, kind.ok_or_else(|| not_found(id))?)?;
        match connector.damage {
            Damage::Undecryptable => Err(internal()),
            Damage::None | Damage::SecretsMissing => Ok((state.version, connector)),
        }
    }

    /// Sends a call, or fails as a fault says.
    pub(super) async fn ask(
        &self,
        connector: &Connector,
        request: provider::Request,
    ) -> Result<String, Failure> {
        let hit = fault::take(&mut self.state().faults.provider, |fault| {
            fault.model.is_none() || fault.model == request.model
        });
        let answer = match hit {
            Some(fault) => Err(self.provider_fault(&fault).await),
            None => provider::call(&self.client, request, self.options.provider_timeout).await,
        };
        answer.map_err(|trouble| Failure::of(&connector.connector_type_id, &trouble))
    }

    async fn run_gen_ai(
        &self,
        connector: &Connector,
        params: Option<&Value>,
    ) -> Result<Value, Failure> {
        let given = parameters(params, &["body", "signal", "timeout", "telemetryMetadata"])?;
        let request = provider::Request::gen_ai(connector, body(given)?);
        provider::chat_completion(&self.ask(connector, request).await?)
    }

    /// What a provider fault answers with.
    pub(super) async fn provider_fault(&self, fault: &ProviderFault) -> Trouble {
        let delay = fault.delay_ms.map(Duration::from_millis);
        match fault.mode {
            ProviderMode::Status => {
                tokio::time::sleep(delay.unwrap_or_default()).await;
                let status = fault.status.unwrap_or(401);
                let text = fault
                    .message
                    .clone()
                    .unwrap_or_else(|| usual_words(status).to_owned());
                let body = json!({ "error": { "message": text } });
                Trouble::Answered { status, body }
            }
            ProviderMode::Network => {
                tokio::time::sleep(delay.unwrap_or_default()).await;
                Trouble::unanswered("ECONNREFUSED", "connect ECONNREFUSED")
            }
            ProviderMode::Timeout => {
                let deadline = self.options.provider_timeout;
                tokio::time::sleep(delay.unwrap_or(deadline)).await;
                Trouble::timeout(deadline)
            }
        }
    }
}

fn unregistered(version: Version, connector: &Connector, action: &str) -> Failure {
    let kind = &connector.connector_type_id;
    let name = licence::find(version, kind).map_or("", |kind| kind.name);
    Failure::text(format!(
        "Sub action \"{action}\" is not registered. Connector id: {}. Connector name: {name}. Connector type: {kind}",
        connector.id
    ))
}

/// The parameters of a sub-action, which are strict.
pub(super) fn parameters<'a>(
    params: Option<&'a Value>,
    known: &[&str],
) -> Result<&'a Map<String, Value>, Failure> {
    let params = params
        .and_then(Value::as_object)
        .ok_or_else(|| refused("[body]: expected value of type [string] but got [undefined]"))?;
    match params.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(refused(&format!(
            "[{key}]: definition for this key is missing"
        ))),
        None => Ok(params),
    }
}

/// The JSON text that is to be sent.
pub(super) fn body(params: &Map<String, Value>) -> Result<&str, Failure> {
    let missing = || refused("[body]: expected value of type [string] but got [undefined]");
    params
        .get("body")
        .and_then(Value::as_str)
        .ok_or_else(missing)
}

pub(super) fn refused(reason: &str) -> Failure {
    Failure::text(format!("Request validation failed (Error: {reason})"))
}

/// Parameters, config or secrets that do not fit the schema: no retry.
fn invalid(id: &str, message: &str, source: &str) -> Reply {
    Reply::json(
        200,
        &json!({
            "status": "error",
            "connector_id": id,
            "message": message,
            "retry": false,
            "errorSource": source,
        }),
    )
}

/// A run that threw. `retry` is true for every one of them, also for a bad key.
fn failed(version: Version, id: &str, failure: &Failure) -> Reply {
    let rate = failure.status == Some(429) && version.has(RATE_LIMIT_IS_USER_ERROR);
    let users = rate || failure.is_users;
    Reply::json(
        200,
        &json!({
            "status": "error",
            "connector_id": id,
            "message": "an error occurred while running the action",
            "service_message": failure.service_message,
            "retry": true,
            "errorSource": if users { "user" } else { "framework" },
        }),
    )
}

/// What the provider says with a status, when the fault does not say.
fn usual_words(status: u16) -> &'static str {
    match status {
        401 => {
            "Incorrect API key provided: sk-simul********ated. You can find your API key at \
             https://platform.openai.com/account/api-keys."
        }
        403 => "Country, region, or territory not supported",
        404 => "The model does not exist or you do not have access to it.",
        429 => "Rate limit reached for requests",
        _ => reason(status),
    }
}
