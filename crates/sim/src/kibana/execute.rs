//! `_execute`: a run answers HTTP 200 whether it worked or not; `status` in the body tells.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Kibana;
use super::connectors::allow;
use super::errors::{internal, not_found};
use super::faults::{Privilege, ProviderFault, ProviderMode};
use super::input;
use super::licence::{self, GEN_AI};
use super::provider::{self, Failure};
use super::schema_text;
use super::state::{Connector, Damage};
use super::version::{RATE_LIMIT_IS_USER_ERROR, Version};
use crate::fault;
use crate::reply::{Reply, reason};

/// What `subActionParams` may hold.
const SUB_ACTION_KEYS: [&str; 4] = ["body", "signal", "timeout", "telemetryMetadata"];

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
        if connector.damage == Damage::SecretsMissing {
            let text = schema_text::missing(version, "secrets", "apiKey");
            return Ok(invalid(id, &text, "framework"));
        }
        if connector.connector_type_id != GEN_AI {
            return Ok(Reply::json(
                200,
                &json!({ "connector_id": id, "status": "ok" }),
            ));
        }
        let Some(Value::String(action)) = params.get("subAction") else {
            let text = schema_text::missing(version, "params", "subAction");
            return Ok(invalid(id, &text, "user"));
        };
        let result = match action.as_str() {
            "run" | "test" => self.run(&connector, params.get("subActionParams")).await,
            "getDashboard" => Ok(json!({ "available": false })),
            unknown => Err(Failure::text(format!(
                "Sub action \"{unknown}\" is not registered. Connector id: {id}. Connector name: OpenAI. Connector \
                 type: {GEN_AI}"
            ))),
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
        allow(&state, Privilege::Read, "execute actions")?;
        let connector = match self.is_preconfigured(id) {
            true => preconfigured(space, id),
            false => state
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

    async fn run(&self, connector: &Connector, params: Option<&Value>) -> Result<Value, Failure> {
        let body = sub_action_body(params)?;
        let request = provider::Request::new(connector, body);
        let hit = fault::take(&mut self.state().faults.provider, |fault| {
            fault.model.is_none() || fault.model == request.model
        });
        match hit {
            Some(fault) => Err(self.provider_fault(&fault).await),
            None => provider::call(&self.client, request, self.options.provider_timeout).await,
        }
    }

    async fn provider_fault(&self, fault: &ProviderFault) -> Failure {
        let delay = fault.delay_ms.map(Duration::from_millis);
        match fault.mode {
            ProviderMode::Status => {
                tokio::time::sleep(delay.unwrap_or_default()).await;
                let status = fault.status.unwrap_or(401);
                let text = fault
                    .message
                    .clone()
                    .unwrap_or_else(|| usual_words(status).to_owned());
                Failure::answered(status, Some(&text))
            }
            ProviderMode::Network => {
                tokio::time::sleep(delay.unwrap_or_default()).await;
                Failure::unanswered("ECONNREFUSED", "connect ECONNREFUSED")
            }
            ProviderMode::Timeout => {
                let deadline = self.options.provider_timeout;
                tokio::time::sleep(delay.unwrap_or(deadline)).await;
                Failure::timeout(deadline)
            }
        }
    }
}

/// A preconfigured connector has no address here, so that a run of it fails as an unreachable one does.
fn preconfigured(space: &str, id: &str) -> Connector {
    Connector {
        id: id.to_owned(),
        space: space.to_owned(),
        name: String::new(),
        connector_type_id: GEN_AI.to_owned(),
        config: Map::new(),
        secrets: Map::new(),
        damage: Damage::None,
    }
}

/// The JSON text that is to be sent, from strict parameters.
fn sub_action_body(params: Option<&Value>) -> Result<&str, Failure> {
    let refused =
        |reason: &str| Failure::text(format!("Request validation failed (Error: {reason})"));
    let params = params
        .and_then(Value::as_object)
        .ok_or_else(|| refused("[body]: expected value of type [string] but got [undefined]"))?;
    let Some(Value::String(body)) = params.get("body") else {
        return Err(refused(
            "[body]: expected value of type [string] but got [undefined]",
        ));
    };
    match params
        .keys()
        .find(|key| !SUB_ACTION_KEYS.contains(&key.as_str()))
    {
        Some(key) => Err(refused(&format!(
            "[{key}]: definition for this key is missing"
        ))),
        None => Ok(body),
    }
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
    let users = failure.status == Some(429) && version.has(RATE_LIMIT_IS_USER_ERROR);
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
