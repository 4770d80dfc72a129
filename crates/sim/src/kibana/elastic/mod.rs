//! The Elasticsearch under a simulated Kibana, as far as inference endpoints need it. It has a port, a log and faults of
//! its own, and shares version, licence, API key and state with its Kibana.

mod call;
mod endpoint;
mod endpoints;
mod errors;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Kibana;
use super::faults::{ApiFault, ProviderFault};
use super::licence::INFERENCE;
use super::version::{Since, Version};
use crate::fault;
use crate::log::{Log, Place};
use crate::reply::{Call, Outcome, Reply, reason};
use crate::server::Simulated;

pub(super) use self::endpoint::Endpoint;
use self::endpoints::not_found;
pub(super) use self::errors::Refusal;

/// The first release with inference endpoints.
const INFERENCE_API: Since = Since(8, 11);
/// The first with `_update` (elasticsearch#114457).
const UPDATE: Since = Since(8, 16);

/// The fault switches on Elasticsearch's port; a document replaces the one before.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ElasticFaults {
    /// Breaks the HTTP interface.
    api: Option<ApiFault>,
    /// Makes calls fail as if the provider had failed; the provider is not called.
    pub(super) provider: Option<ProviderFault>,
    /// What the API key may do with endpoints.
    privilege: Privilege,
}

/// The cluster privilege of the API key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Privilege {
    None,
    /// `monitor_inference`: read and call.
    Monitor,
    /// `manage_inference`: all.
    #[default]
    Manage,
}

/// The HTTP interface of Elasticsearch.
pub(super) struct Elastic {
    kibana: Arc<Kibana>,
    log: Log,
}

/// What a path names.
enum Route {
    Root,
    Licence,
    HasPrivileges,
    Endpoint { task: String, id: String },
    Update { task: String, id: String },
    Stream { task: String, id: String },
    Other,
}

impl Route {
    fn parse(path: &str) -> Self {
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let owned = |text: &str| text.to_owned();
        match segments.as_slice() {
            [""] => Self::Root,
            ["_license"] => Self::Licence,
            ["_security", "user", "_has_privileges"] => Self::HasPrivileges,
            ["_inference", task, id] => Self::Endpoint {
                task: owned(task),
                id: owned(id),
            },
            ["_inference", task, id, "_update"] => Self::Update {
                task: owned(task),
                id: owned(id),
            },
            ["_inference", task, id, "_stream"] => Self::Stream {
                task: owned(task),
                id: owned(id),
            },
            _ => Self::Other,
        }
    }

    fn place(&self, method: &str) -> Place {
        let (class, id) = match self {
            Self::Endpoint { id, .. } if method == "POST" => ("inference_call", Some(id)),
            Self::Stream { id, .. } => ("inference_call", Some(id)),
            Self::Endpoint { id, .. } => ("inference", Some(id)),
            Self::Update { id, .. } => ("inference_update", Some(id)),
            Self::Root | Self::Licence | Self::HasPrivileges | Self::Other => ("other", None),
        };
        Place {
            class,
            space: None,
            connector_id: id.cloned(),
        }
    }
}

impl Simulated for Elastic {
    async fn handle(self: Arc<Self>, call: Call) -> Outcome {
        if call.path.starts_with("/_sim/") {
            let page = self.log.answer(&call);
            return Outcome::Answer(page.unwrap_or_else(|| self.switches(&call)));
        }
        let route = Route::parse(&call.path);
        let place = route.place(call.method.as_str());
        let _in_flight = self.log.enter(&call, &place);
        let seq = self.log.begin(&call, place);
        let (effect, skew) = {
            let mut state = self.kibana.state();
            let skew = state.faults.clock_skew_secs;
            let hit = fault::take(&mut state.elastic_faults.api, |fault| fault.applies(&call));
            let refusal = |status| Refusal::status(status, reason(status)).reply();
            (ApiFault::effect_of(hit, skew, refusal), skew)
        };
        let mut outcome = effect.around(self.answer(&call, &route)).await;
        if let Outcome::Answer(reply) | Outcome::Half(reply) = &mut outcome {
            self.log.finish(seq, reply.status);
            reply.headers.push(("date", fault::http_date(skew)));
            reply
                .headers
                .push(("x-elastic-product", "Elasticsearch".to_owned()));
        }
        outcome
    }
}

impl Elastic {
    pub(super) fn new(kibana: Arc<Kibana>) -> Self {
        let log = Log::new(kibana.options.log_capacity);
        Self { kibana, log }
    }

    async fn answer(&self, call: &Call, route: &Route) -> Reply {
        let reply = match self.admit(call) {
            Ok(()) => self.route(call, route).await,
            Err(refusal) => Err(refusal),
        };
        let delay = self.kibana.options.delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        reply.unwrap_or_else(|refusal| match route {
            Route::Stream { .. } => refusal.event(),
            Route::Root
            | Route::Licence
            | Route::HasPrivileges
            | Route::Endpoint { .. }
            | Route::Update { .. }
            | Route::Other => refusal.reply(),
        })
    }

    fn admit(&self, call: &Call) -> Result<(), Refusal> {
        let given = call.header("authorization").unwrap_or_default();
        let key = given.strip_prefix("ApiKey ").map(str::trim);
        if key == Some(self.kibana.options.api_key.as_str()) {
            return Ok(());
        }
        let text = match given {
            "" => "missing authentication credentials for REST request",
            _ => {
                "unable to authenticate with provided credentials and anonymous access is not allowed for this request"
            }
        };
        Err(Refusal::security(401, text))
    }

    async fn route(&self, call: &Call, route: &Route) -> Result<Reply, Refusal> {
        let (kibana, method) = (&self.kibana, call.method.as_str());
        let version = kibana.state().version;
        let body = call.json().unwrap_or(Value::Null);
        let has = |since| version.has(INFERENCE_API) && version.has(since);
        match (method, route) {
            ("GET", Route::Root) => Ok(self.root(version)),
            ("GET", Route::Licence) => Ok(self.licence()),
            ("POST" | "GET", Route::HasPrivileges) => Ok(self.has_privileges(&body)),
            ("GET", Route::Endpoint { task, id }) if has(INFERENCE_API) => {
                kibana
                    .allow_inference(Privilege::Monitor, "cluster:monitor/xpack/inference/get")?;
                let endpoint = kibana.endpoint(task, id)?.describe(version);
                let list = match version.has(endpoint::NAMED_ENDPOINT) {
                    true => "endpoints",
                    false => "models",
                };
                Ok(Reply::json(200, &json!({ list: [endpoint] })))
            }
            ("PUT", Route::Endpoint { task, id }) if has(INFERENCE_API) => {
                kibana.allow_inference(Privilege::Manage, "cluster:admin/xpack/inference/put")?;
                let shown = kibana.put_endpoint(task, id, &body).await?;
                Ok(Reply::json(200, &shown))
            }
            ("PUT", Route::Update { task, id }) if has(UPDATE) => {
                kibana
                    .allow_inference(Privilege::Manage, "cluster:admin/xpack/inference/update")?;
                let shown = kibana.update_endpoint(task, id, &body).await?;
                Ok(Reply::json(200, &shown))
            }
            ("DELETE", Route::Endpoint { task, id }) if has(INFERENCE_API) => {
                kibana
                    .allow_inference(Privilege::Manage, "cluster:admin/xpack/inference/delete")?;
                kibana.delete_endpoint(task, id)?;
                let told = json!({ "acknowledged": true, "pipelines": [], "indexes": [] });
                Ok(Reply::json(200, &told))
            }
            ("POST", Route::Endpoint { task, id }) if has(INFERENCE_API) => {
                let endpoint = self.callable(task, id)?;
                if endpoint.task == "chat_completion" {
                    return Err(only_streams(id));
                }
                let answer = kibana.complete(&endpoint, &body).await?;
                Ok(Reply::json(200, &answer))
            }
            ("POST", Route::Stream { task, id }) if has(Since(8, 18)) => {
                let endpoint = self.callable(task, id)?;
                Ok(call::streamed(&kibana.stream(&endpoint, &body).await?))
            }
            _ => Ok(errors::no_handler(method, &call.path)),
        }
    }

    /// The endpoint, where it may be called.
    fn callable(&self, task: &str, id: &str) -> Result<Endpoint, Refusal> {
        let action = "cluster:monitor/xpack/inference/post";
        self.kibana.allow_inference(Privilege::Monitor, action)?;
        self.kibana.check_inference_licence()?;
        let state = self.kibana.state();
        let endpoint = state.endpoints.get(id).ok_or_else(|| not_found(id))?;
        match endpoint.task == task {
            true => Ok(endpoint.clone()),
            false => {
                let text = format!(
                    "Incompatible task_type, the requested type [{task}] does not match the model type [{}]",
                    endpoint.task
                );
                Err(Refusal::status(400, text))
            }
        }
    }

    fn root(&self, version: Version) -> Reply {
        let uuid = self.kibana.state().uuid.clone();
        Reply::json(
            200,
            &json!({
                "name": "node-1",
                "cluster_name": self.kibana.options.name,
                "cluster_uuid": uuid,
                "version": { "number": version.to_string(), "build_flavor": "default" },
                "tagline": "You Know, for Search",
            }),
        )
    }

    fn licence(&self) -> Reply {
        let state = self.kibana.state();
        let kind = self.kibana.licence(&state).name();
        let expired = state.faults.licence_expired.has(INFERENCE);
        let status = if expired { "expired" } else { "active" };
        Reply::json(
            200,
            &json!({ "license": { "status": status, "type": kind } }),
        )
    }

    fn has_privileges(&self, body: &Value) -> Reply {
        let has = self.kibana.state().elastic_faults.privilege;
        let asked = body["cluster"].as_array().cloned().unwrap_or_default();
        let rows: Vec<(String, bool)> = asked
            .iter()
            .filter_map(Value::as_str)
            .map(|name| {
                let granted = match name {
                    "manage_inference" => has >= Privilege::Manage,
                    "monitor_inference" => has >= Privilege::Monitor,
                    _ => false,
                };
                (name.to_owned(), granted)
            })
            .collect();
        let cluster: Value = rows
            .iter()
            .map(|(name, granted)| (name.clone(), Value::from(*granted)))
            .collect();
        Reply::json(
            200,
            &json!({
                "username": "keyfleet-sim",
                "has_all_requested": rows.iter().all(|(_, granted)| *granted),
                "cluster": cluster,
                "index": {},
                "application": {},
            }),
        )
    }

    /// The part of `/_sim/` that is Elasticsearch's own.
    fn switches(&self, call: &Call) -> Reply {
        let mut state = self.kibana.state();
        match (call.method.as_str(), call.path.as_str()) {
            ("GET", "/_sim/faults") => Reply::json(200, &json!(state.elastic_faults)),
            ("PUT", "/_sim/faults") => match fault::read(call) {
                Ok(faults) => {
                    state.elastic_faults = faults;
                    Reply::json(200, &json!(state.elastic_faults))
                }
                Err(refusal) => refusal,
            },
            ("DELETE", "/_sim/faults") => {
                state.elastic_faults = ElasticFaults::default();
                Reply::json(200, &json!(state.elastic_faults))
            }
            ("GET", "/_sim/endpoints") => {
                let version = state.version;
                let rows: Vec<Value> = state
                    .endpoints
                    .values()
                    .map(|one| row(one, version))
                    .collect();
                Reply::json(200, &Value::from(rows))
            }
            ("DELETE", path) => match path.strip_prefix("/_sim/endpoints/") {
                Some(id) if state.endpoints.remove(id).is_some() => Reply::json(200, &Value::Null),
                Some(_) => Reply::sim_error(404, "no such endpoint"),
                None => no_switch(),
            },
            _ => no_switch(),
        }
    }
}

fn only_streams(id: &str) -> Refusal {
    Refusal::status(
        400,
        format!(
            "Inference entity [{id}] does not support task type [chat_completion] for inference. The task type for the \
             inference entity is chat_completion, please use the _inference/chat_completion/{id}/_stream URL."
        ),
    )
}

fn row(endpoint: &Endpoint, version: Version) -> Value {
    let mut row = endpoint.describe(version);
    row["secret_tail"] = Value::from(crate::reply::tail(&endpoint.key));
    row
}

fn no_switch() -> Reply {
    Reply::sim_error(
        404,
        "the simulator has no such switch; see /_sim/faults, /_sim/requests and /_sim/endpoints",
    )
}
