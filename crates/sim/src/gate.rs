//! A simulated server behind gates: the health page of some service, and Prometheus' instant queries.
//!
//! `/api/v1/query` under any path answers as Prometheus does, with the values that [`GateServer::measure`] sets. Every
//! other path is a health page: 200 or 409. `GET /_sim/requests` shows what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::log::{CAPACITY, Log, Place};
use crate::reply::{Call, Effect, Outcome, Reply};
use crate::server::{self, Error, Server, Simulated};

/// Longer than anything that a gate may take in.
const LONG_BYTES: usize = 2 * 1_048_576;

/// What the server says to everything that it is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Says {
    /// The page answers 200; Prometheus answers with its values.
    #[default]
    Pass,
    /// The page answers 409 with this line; Prometheus answers with its values.
    Fail(String),
    /// 503; Prometheus says why in its own form.
    Inconclusive,
    /// The right answer, so much later.
    Slow(Duration),
    /// Never an answer.
    Hang,
    /// The connection breaks.
    Close,
    /// The head and half of the body, then the connection breaks.
    Half,
    /// 200 with a page for browsers.
    Html,
    /// 302 to this address.
    Redirect(String),
    /// 200 with more than anybody wants to read.
    Long,
}

/// A running server. Dropping it stops it.
pub struct GateServer {
    server: Server,
    gate: Arc<Gate>,
}

struct Gate {
    state: Mutex<State>,
    log: Log,
}

#[derive(Default)]
struct State {
    says: Says,
    /// As Prometheus writes them: numbers, `NaN`, `+Inf`.
    values: Vec<String>,
    asked: usize,
    /// The latest PromQL expression.
    query: Option<String>,
}

/// Starts a server that passes; its one value is 0.
///
/// # Errors
/// [`Error::Listen`].
pub async fn start() -> Result<GateServer, Error> {
    let state = State {
        values: vec!["0".to_owned()],
        ..State::default()
    };
    let gate = Arc::new(Gate {
        state: Mutex::new(state),
        log: Log::new(CAPACITY),
    });
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = server::serve(listen, Arc::clone(&gate)).await?;
    Ok(GateServer { server, gate })
}

impl GateServer {
    /// The base address without a trailing slash.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Says something else from now on; what is under way is answered as before.
    pub fn say(&self, says: Says) {
        self.gate.state().says = says;
    }

    /// The samples with which instant queries are answered: numbers, `NaN`, `+Inf`; none = an empty vector.
    pub fn measure(&self, values: &[&str]) {
        self.gate.state().values = values.iter().map(|value| (*value).to_owned()).collect();
    }

    /// How often it was asked.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.gate.state().asked
    }

    /// The PromQL expression that it was asked last.
    #[must_use]
    pub fn query(&self) -> Option<String> {
        self.gate.state().query.clone()
    }

    /// Stops it, and returns when it has stopped.
    pub async fn shutdown(self) {
        self.server.shutdown().await;
    }
}

impl std::fmt::Debug for GateServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("GateServer").field(&self.server).finish()
    }
}

impl Simulated for Gate {
    async fn handle(self: Arc<Self>, call: Call) -> Outcome {
        if call.path.starts_with("/_sim/") {
            let unknown = || Reply::sim_error(404, "there is no such switch");
            return Outcome::Answer(self.log.answer(&call).unwrap_or_else(unknown));
        }
        let seq = self.log.begin(&call, Place::default());
        let is_query = call.path.ends_with("/api/v1/query");
        let (effect, reply) = self.answer(&call, is_query);
        let outcome = effect.around(std::future::ready(reply)).await;
        if let Outcome::Answer(reply) | Outcome::Half(reply) = &outcome {
            self.log.finish(seq, reply.status);
        }
        outcome
    }
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, call: &Call, is_query: bool) -> (Effect, Reply) {
        let mut state = self.state();
        state.asked += 1;
        state.query = call.parameter("query").or(state.query.take());
        let usual = match (is_query, &state.says) {
            (true, _) => vector(&state.values),
            (false, Says::Fail(line)) => page(409, line),
            (false, _) => page(200, "ok"),
        };
        match &state.says {
            Says::Pass | Says::Fail(_) => (Effect::None, usual),
            Says::Inconclusive => (Effect::None, unable(is_query)),
            Says::Slow(delay) => (Effect::Delay(*delay), usual),
            Says::Hang => (Effect::Hang, usual),
            Says::Close => (Effect::Close, usual),
            Says::Half => (Effect::Half, usual),
            Says::Html => (Effect::None, Reply::html(200, "Log in")),
            Says::Redirect(to) => (
                Effect::None,
                page(302, "").with_header("location", to.clone()),
            ),
            Says::Long => (Effect::None, page(200, &"x".repeat(LONG_BYTES))),
        }
    }
}

fn page(status: u16, text: &str) -> Reply {
    Reply {
        content_type: "text/plain; charset=utf-8",
        body: text.as_bytes().to_vec(),
        ..Reply::json(status, &Value::Null)
    }
}

fn vector(values: &[String]) -> Reply {
    let samples: Vec<Value> = values
        .iter()
        .zip(0..)
        .map(|(value, index): (_, u32)| {
            let instance = index.to_string();
            json!({"metric": {"instance": instance}, "value": [0, value]})
        })
        .collect();
    let data = json!({"resultType": "vector", "result": samples});
    Reply::json(200, &json!({"status": "success", "data": data}))
}

fn unable(is_query: bool) -> Reply {
    if !is_query {
        return page(503, "not now");
    }
    let error = json!({"status": "error", "errorType": "timeout", "error": "query timed out"});
    Reply::json(503, &error)
}
