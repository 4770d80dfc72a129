//! The simulated OpenAI API: models, chat completions, keys that can be added and revoked while it runs.
//!
//! Under `/openai/deployments/` it speaks as Azure OpenAI does, under `/compatible/` as a server that is only
//! compatible, under `/model/` as Amazon Bedrock and under `/v1/projects/` as Google Vertex AI.

mod chat;
mod clouds;
mod dialect;
mod errors;
mod faults;
mod keys;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use self::dialect::Dialect;
use self::errors::Refusal;
use self::faults::Fault;
use self::keys::Keys;
use crate::fault;
use crate::log::{Log, Place};
use crate::reply::{Call, Effect, Outcome, Reply, tail};
use crate::server::{self, Error, Server, Simulated};

/// The models it has unless told otherwise.
const MODELS: [&str; 8] = [
    "gpt-4.1",
    "gpt-4.1-mini",
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-5.2",
    "gpt-5.4",
    "gpt-5.4-mini",
    "o3-mini",
];

/// How a simulated OpenAI is made.
#[derive(Clone)]
pub struct Options {
    /// Where it listens; port 0 takes any free port.
    pub listen: SocketAddr,
    /// The keys that work at the start.
    pub keys: Vec<String>,
    /// The models it has.
    pub models: Vec<String>,
    /// Each answer comes this much later.
    pub delay: Duration,
    /// How many requests the log keeps; its counters are exact beyond that.
    pub log_capacity: usize,
}

impl Options {
    /// An OpenAI on a free port of loopback with the usual models.
    #[must_use]
    pub fn new(keys: Vec<String>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            keys,
            models: MODELS.iter().map(|model| (*model).to_owned()).collect(),
            delay: Duration::ZERO,
            log_capacity: crate::log::CAPACITY,
        }
    }
}

/// Without the keys.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("listen", &self.listen)
            .field("models", &self.models)
            .finish_non_exhaustive()
    }
}

/// Starts a simulated OpenAI; it is ready when this returns.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn start(options: Options) -> Result<Server, Error> {
    let state = State {
        keys: Keys::new(&options.keys),
        fault: None,
    };
    let listen = options.listen;
    let openai = OpenAi {
        log: Log::new(options.log_capacity),
        options,
        state: Mutex::new(state),
    };
    server::serve(listen, Arc::new(openai)).await
}

struct State {
    keys: Keys,
    fault: Option<Fault>,
}

struct OpenAi {
    options: Options,
    log: Log,
    state: Mutex<State>,
}

/// What a path names.
enum Route {
    Models,
    Model(String),
    Chat,
    /// Chat with the model of an Azure deployment.
    Deployment(String),
    /// A model of Amazon Bedrock.
    Bedrock(String),
    /// A model of Google.
    Gemini(String),
    Other,
}

impl Route {
    fn parse(path: &str) -> Self {
        if let Some(deployment) = Dialect::deployment(path) {
            return Self::Deployment(deployment.to_owned());
        }
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match segments.as_slice() {
            ["v1", "models"] => Self::Models,
            ["v1", "models", id] => Self::Model((*id).to_owned()),
            ["v1", "chat", "completions"] | ["compatible", "v1", "chat", "completions"] => {
                Self::Chat
            }
            ["model", id, "invoke"] => Self::Bedrock(clouds::decoded(id)),
            [
                "v1",
                "projects",
                _,
                "locations",
                _,
                "publishers",
                "google",
                "models",
                call,
            ] => match call.strip_suffix(":generateContent") {
                Some(model) => Self::Gemini(clouds::decoded(model)),
                None => Self::Other,
            },
            _ => Self::Other,
        }
    }

    fn class(&self) -> &'static str {
        match self {
            Self::Models | Self::Model(_) => "models",
            Self::Chat | Self::Deployment(_) | Self::Bedrock(_) | Self::Gemini(_) => "chat",
            Self::Other => "other",
        }
    }
}

impl Simulated for OpenAi {
    async fn handle(self: Arc<Self>, call: Call) -> Outcome {
        if call.path.starts_with("/_sim/") {
            return Outcome::Answer(
                self.log
                    .answer(&call)
                    .unwrap_or_else(|| self.switches(&call)),
            );
        }
        let route = Route::parse(&call.path);
        let place = Place {
            class: route.class(),
            ..Place::default()
        };
        let _in_flight = self.log.enter(&call, &place);
        let seq = self.log.begin(&call, place);
        let effect = self.effect(&call, &route);
        let outcome = effect.around(self.answer(&call, &route)).await;
        if let Outcome::Answer(reply) | Outcome::Half(reply) = &outcome {
            self.log.finish(seq, reply.status);
        }
        outcome
    }
}

impl OpenAi {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn effect(&self, call: &Call, route: &Route) -> Effect {
        let model = match route {
            Route::Model(id) | Route::Deployment(id) | Route::Bedrock(id) | Route::Gemini(id) => {
                Some(id.clone())
            }
            Route::Chat => call
                .json()
                .and_then(|body| body["model"].as_str().map(str::to_owned)),
            Route::Models | Route::Other => None,
        };
        let dialect = Dialect::of(&call.path);
        let key = dialect.key(call);
        let key = key.as_deref();
        let hit = fault::take(&mut self.state().fault, |fault| {
            fault.applies(call, key, model.as_deref())
        });
        hit.map_or(Effect::None, |fault| {
            fault.effect(dialect, key, model.as_deref())
        })
    }

    async fn answer(&self, call: &Call, route: &Route) -> Reply {
        let result = match self.authenticate(call) {
            Ok(()) => self.route(call, route),
            Err(refusal) => Err(refusal),
        };
        let reply = match result {
            Ok(reply) => reply.with_header("openai-organization", "org-simulated"),
            Err(refusal) => Dialect::of(&call.path).reply(&refusal),
        };
        if !self.options.delay.is_zero() {
            tokio::time::sleep(self.options.delay).await;
        }
        reply
            .with_header(
                "x-request-id",
                format!("req_{}", uuid::Uuid::new_v4().simple()),
            )
            .with_header("openai-version", "2020-10-01")
            .with_header("openai-processing-ms", "1")
    }

    fn authenticate(&self, call: &Call) -> Result<(), Refusal> {
        let dialect = Dialect::of(&call.path);
        let key = dialect.key(call).ok_or_else(|| dialect.no_key())?;
        match self.state().keys.use_one(&key) {
            true => Ok(()),
            false => Err(dialect.bad_key(&key)),
        }
    }

    fn route(&self, call: &Call, route: &Route) -> Result<Reply, Refusal> {
        match (call.method.as_str(), route) {
            ("GET", Route::Models) => {
                let rows: Vec<Value> = self.options.models.iter().map(|id| model(id)).collect();
                Ok(Reply::json(200, &json!({ "object": "list", "data": rows })))
            }
            ("GET", Route::Model(id)) => {
                self.known_model(id).map(|id| Reply::json(200, &model(id)))
            }
            ("POST", Route::Chat) => self.chat(call, None),
            ("POST", Route::Deployment(model)) => self.chat(call, Some(model)),
            ("POST", Route::Bedrock(model)) => self.bedrock(call, model),
            ("POST", Route::Gemini(model)) => self.gemini(call, model),
            _ => Err(Refusal::invalid_url(call)),
        }
    }

    fn known_model<'a>(&self, id: &'a str) -> Result<&'a str, Refusal> {
        match self.options.models.iter().any(|known| known == id) {
            true => Ok(id),
            false => Err(Refusal::model_not_found(id)),
        }
    }

    fn switches(&self, call: &Call) -> Reply {
        match (call.method.as_str(), call.path.as_str()) {
            ("GET", "/_sim/faults") => Reply::json(200, &json!(self.state().fault)),
            ("PUT", "/_sim/faults") => match fault::read::<Fault>(call) {
                Ok(fault) => {
                    let reply = Reply::json(200, &json!(fault));
                    self.state().fault = Some(fault);
                    reply
                }
                Err(refusal) => refusal,
            },
            ("DELETE", "/_sim/faults") => {
                self.state().fault = None;
                Reply::json(200, &Value::Null)
            }
            ("GET", "/_sim/keys") => Reply::json(200, &self.state().keys.list()),
            ("POST", "/_sim/keys") => match fault::read(call) {
                Ok(change) => {
                    let mut state = self.state();
                    state
                        .keys
                        .change(change)
                        .unwrap_or_else(|| Reply::json(200, &state.keys.list()))
                }
                Err(refusal) => refusal,
            },
            _ => Reply::sim_error(
                404,
                "the simulator has no such switch; see /_sim/faults, /_sim/requests and /_sim/keys",
            ),
        }
    }
}

fn model(id: &str) -> Value {
    json!({ "id": id, "object": "model", "created": 1_686_935_002, "owned_by": "openai" })
}
