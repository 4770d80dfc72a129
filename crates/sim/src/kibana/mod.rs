//! One simulated Kibana: the Actions API of its version, spaces, status, and switches to make it fail.
//!
//! A request passes, in this order: fault switch, credentials, payload, `kbn-xsrf`, space, route. Each route then
//! keeps the order of checks of the real one, because the order decides which error a client sees.

mod connectors;
mod elastic;
mod errors;
mod execute;
mod faults;
mod foreign;
mod hooks;
mod info;
mod input;
mod licence;
mod models;
mod provider;
mod route;
mod schema;
mod schema_text;
mod sim;
mod spaces;
mod state;
mod version;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use self::elastic::Elastic;
use self::errors::error;
use self::faults::ApiFault;
use self::route::{Route, Target};
use self::state::State;
use self::version::{API_VERSION_HEADER, INTERNAL_RESTRICTED};
use crate::fault;
use crate::log::{Log, Place};
use crate::reply::{Call, Effect, Outcome, Reply, reason};
use crate::server::{self, Error, Server, Simulated};

pub use self::licence::Licence;
pub(crate) use self::provider::CERTIFICATE_HEADER;
pub use self::provider::client as provider_client;
pub use self::version::{InvalidVersion, Version};

/// The space that every Kibana has.
const DEFAULT_SPACE: &str = "default";

/// How a simulated Kibana is made.
#[derive(Clone)]
pub struct Options {
    /// The version it plays.
    pub version: Version,
    /// Where it listens; port 0 takes any free port.
    pub listen: SocketAddr,
    /// Its spaces; `default` is always there.
    pub spaces: Vec<String>,
    /// The one API key it accepts, as in `Authorization: ApiKey KEY`.
    pub api_key: String,
    /// Its name in `/api/status`.
    pub name: String,
    /// Its licence.
    pub licence: Licence,
    /// Hosts that a connector may call (`xpack.actions.allowedHosts`); `*` is every host.
    pub allowed_hosts: Vec<String>,
    /// Preconfigured connectors of type `.gen-ai`: id and name.
    pub preconfigured: Vec<(String, String)>,
    /// Each answer comes this much later; the request itself is carried out at once.
    pub delay: Duration,
    /// How long a run waits for the provider (`xpack.actions.responseTimeout`).
    pub provider_timeout: Duration,
    /// Keeps the connectors in this file, with their secrets, so that they survive a restart.
    pub state_file: Option<PathBuf>,
    /// How many requests the log keeps; its counters are exact beyond that.
    pub log_capacity: usize,
    /// Where the Elasticsearch under it listens, as far as inference endpoints need one; none listens without it.
    pub elasticsearch: Option<SocketAddr>,
    /// Takes the place of the public addresses of OpenAI and Azure in inference endpoints that name no other.
    pub provider_url: Option<String>,
    /// The client for provider calls. Many simulators of one process should share one ([`provider_client`]).
    pub client: Option<reqwest::Client>,
}

impl Options {
    /// A Kibana of that version on a free port of loopback, with the space `default` and an enterprise licence.
    #[must_use]
    pub fn new(version: Version, api_key: impl Into<String>) -> Self {
        Self {
            version,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            spaces: vec![DEFAULT_SPACE.to_owned()],
            api_key: api_key.into(),
            name: "kibana".to_owned(),
            licence: Licence::Enterprise,
            allowed_hosts: vec!["*".to_owned()],
            preconfigured: Vec::new(),
            delay: Duration::ZERO,
            provider_timeout: Duration::from_secs(60),
            state_file: None,
            log_capacity: crate::log::CAPACITY,
            elasticsearch: None,
            provider_url: None,
            client: None,
        }
    }
}

/// Without the API key.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("version", &self.version)
            .field("listen", &self.listen)
            .field("spaces", &self.spaces)
            .finish_non_exhaustive()
    }
}

/// Starts a simulated Kibana; it is ready when this returns.
///
/// # Errors
/// When the address cannot be listened on, the state file cannot be read, or no HTTP client can be made.
pub async fn start(mut options: Options) -> Result<Server, Error> {
    if !options.spaces.iter().any(|space| space == DEFAULT_SPACE) {
        options.spaces.insert(0, DEFAULT_SPACE.to_owned());
    }
    let client = options.client.take().map_or_else(provider::client, Ok)?;
    let state = State::load(&options)?;
    let listen = options.listen;
    let elasticsearch = options.elasticsearch;
    let kibana = Arc::new(Kibana {
        log: Log::new(options.log_capacity),
        options,
        client,
        state: Mutex::new(state),
    });
    let mut server = server::serve(listen, Arc::clone(&kibana)).await?;
    if let Some(listen) = elasticsearch {
        server
            .beside(listen, Arc::new(Elastic::new(kibana)))
            .await?;
    }
    Ok(server)
}

/// The simulator behind the HTTP interface.
struct Kibana {
    options: Options,
    client: reqwest::Client,
    log: Log,
    state: Mutex<State>,
}

impl Simulated for Kibana {
    async fn handle(self: Arc<Self>, call: Call) -> Outcome {
        if call.path.starts_with("/_sim/") {
            return Outcome::Answer(self.sim(&call));
        }
        let target = Target::parse(&call.path);
        let place = target.place();
        let _in_flight = self.log.enter(&call, &place);
        let seq = self.log.begin(&call, place);
        let effect = self.effect(&call, &target);
        let mut outcome = effect.around(self.answer(&call, &target)).await;
        if let Outcome::Answer(reply) | Outcome::Half(reply) = &mut outcome {
            self.log.finish(seq, reply.status);
            let date = fault::http_date(self.state().faults.clock_skew_secs);
            reply.headers.push(("date", date));
        }
        outcome
    }
}

impl Kibana {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn effect(&self, call: &Call, target: &Target) -> Effect {
        let mut state = self.state();
        let clock_skew_secs = state.faults.clock_skew_secs;
        let is_status = target.route == Route::Status;
        let hit = fault::take(&mut state.faults.api, |fault| {
            fault.applies(call) && !(is_status && fault.is_load())
        });
        ApiFault::effect_of(hit, clock_skew_secs, |status| error(status, reason(status)))
    }

    /// The answer of a Kibana whose HTTP interface works.
    async fn answer(&self, call: &Call, target: &Target) -> Reply {
        let reply = match self.admit(call, target) {
            Err(refusal) => refusal,
            Ok(payload) => self.route(call, target, payload).await,
        };
        if !self.options.delay.is_zero() {
            tokio::time::sleep(self.options.delay).await;
        }
        let version = self.state().version;
        let reply = reply.with_header("kbn-name", self.options.name.clone());
        match version.has(API_VERSION_HEADER) {
            true => reply.with_header("elastic-api-version", "2023-10-31"),
            false => reply,
        }
    }

    /// The checks that come before any route: credentials, payload, headers, space.
    fn admit(&self, call: &Call, target: &Target) -> Result<Value, Reply> {
        match call.header("authorization") {
            None if target.route == Route::Status => {}
            None => return Err(error(401, "Unauthorized")),
            Some(given) => self.authenticate(given)?,
        }
        let payload = input::payload(call)?;
        self.check_headers(call, target)?;
        match self.state().space(&target.space) {
            Some(_) => Ok(payload),
            None => Err(error(404, "Not Found")),
        }
    }

    fn authenticate(&self, given: &str) -> Result<(), Reply> {
        let key = given.strip_prefix("ApiKey ").map(str::trim);
        match key == Some(self.options.api_key.as_str()) {
            true => Ok(()),
            false => Err(error(
                401,
                "[security_exception: [security_exception] Reason: unable to authenticate with provided credentials \
                 and anonymous access is not allowed for this request]: unable to authenticate with provided \
                 credentials and anonymous access is not allowed for this request",
            )),
        }
    }

    fn check_headers(&self, call: &Call, target: &Target) -> Result<(), Reply> {
        let version = self.state().version;
        let safe = matches!(call.method.as_str(), "GET" | "HEAD" | "OPTIONS");
        let expected = String::from(version);
        match call.header("kbn-version") {
            Some(given) if given != expected => {
                return Err(errors::client_out_of_date(given, &expected));
            }
            None if !safe && call.header("kbn-xsrf").is_none() => {
                return Err(error(400, "Request must contain a kbn-xsrf header."));
            }
            Some(_) | None => {}
        }
        let outside = call.header("x-elastic-internal-origin").is_none();
        if target.route == Route::Internal && version.has(INTERNAL_RESTRICTED) && outside {
            let method = call.method.as_str().to_lowercase();
            let text = format!(
                "uri [{}] with method [{method}] exists but is not available with the current configuration",
                call.path
            );
            return Err(error(400, &text));
        }
        Ok(())
    }

    async fn route(&self, call: &Call, target: &Target, payload: Value) -> Reply {
        let space = target.space.as_str();
        let result = match (call.method.as_str(), &target.route) {
            ("POST", Route::Collection) => self.create(space, None, &payload).await,
            ("POST", Route::Connector(id)) => self.create(space, Some(id), &payload).await,
            ("GET", Route::Connector(id)) => self.get(space, id),
            ("PUT", Route::Connector(id)) => self.update(space, id, &payload).await,
            ("DELETE", Route::Connector(id)) => self.delete(space, id),
            ("GET", Route::List) => self.list(space),
            ("GET", Route::Types) => self.types(),
            ("POST", Route::Execute(id)) => self.execute(space, id, &payload).await,
            ("GET", Route::Status) => Ok(self.status(call)),
            ("GET", Route::Spaces) => self.spaces(),
            ("GET", Route::Space(id)) => self.space(id),
            ("GET", Route::AlertingHealth) => Ok(self.alerting_health()),
            _ => Err(error(404, "Not Found")),
        };
        result.unwrap_or_else(|refusal| refusal)
    }

    /// The simulator's own pages.
    fn sim(&self, call: &Call) -> Reply {
        self.log.answer(call).unwrap_or_else(|| self.switches(call))
    }
}

impl Target {
    fn place(&self) -> Place {
        Place {
            class: self.route.class(),
            space: Some(self.space.clone()),
            connector_id: self.route.connector_id().map(str::to_owned),
        }
    }
}
