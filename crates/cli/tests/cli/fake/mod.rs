//! A control service that holds state in memory and listens on loopback.

mod campaigns;
mod deployments;
mod objects;
mod plan;
mod rollouts;
mod service;
mod trust;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use keyfleet_proto::v1;
use keyfleet_proto::v1::operator_service_server::OperatorServiceServer;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic::transport::{Identity, Server, ServerTlsConfig};

pub(crate) use self::campaigns::campaign;
pub(crate) use self::rollouts::telling;
use self::service::Service;

/// The token that may do everything.
pub(crate) const ADMIN: &str = "kfo_admin";
/// The token that may only read.
pub(crate) const VIEWER: &str = "kfo_viewer";

/// Ids of the rollouts that the fake can start, in order.
pub(crate) const ROLLOUT_IDS: [&str; 2] = [
    "0192f3a4-5b6c-7d8e-9f00-000000000001",
    "0192f3a4-5b6d-7d8e-9f00-000000000002",
];

/// What a watch says next.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// The rollout is now so.
    Now(Box<v1::Rollout>),
    /// The stream breaks off with this status.
    Break(Status),
    /// The stream ends without a status.
    End,
}

/// Everything the fake knows.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) objects: BTreeMap<(String, String), String>,
    pub(crate) deployments: Vec<v1::Deployment>,
    pub(crate) bindings: Vec<v1::Binding>,
    pub(crate) rollouts: Vec<v1::Rollout>,
    pub(crate) targets: Vec<v1::RolloutTarget>,
    pub(crate) tokens: Vec<v1::Token>,
    pub(crate) script: Vec<Step>,
    pub(crate) campaigns: Vec<v1::Campaign>,
    /// What watches of campaigns say, one after the other; a stream breaks off at each error.
    pub(crate) campaign_script: Vec<Result<v1::Campaign, Status>>,
    pub(crate) n_watches: usize,
    pub(crate) changes: Vec<v1::ChangeRolloutRequest>,
    pub(crate) created: Vec<v1::CreateTokenRequest>,
    pub(crate) applied: Vec<v1::ApplyRequest>,
    pub(crate) held: Vec<v1::HeldKey>,
    pub(crate) andon: Option<v1::AndonState>,
    /// Nothing without a rotation; true once it has ended.
    pub(crate) ca_rotation: Option<bool>,
    /// The certificates of the CA and of the next one.
    pub(crate) ca_pems: [String; 2],
    pub(crate) audit: Vec<v1::AuditEntry>,
    /// What happens (action, target, reason) while a stream of the log is opened again.
    pub(crate) audit_later: Vec<(&'static str, &'static str, &'static str)>,
    pub(crate) problems: Vec<String>,
    /// The named set of every object.
    pub(crate) set: String,
    /// The objects say everything that they can say.
    pub(crate) has_news: bool,
    /// No agent looks when it is asked to.
    pub(crate) hangs: bool,
    /// What a plan finds beside the usual, in order of the deployments.
    pub(crate) adoptions: Vec<v1::Adoption>,
    /// What still refers to each connector that goes.
    pub(crate) references: u32,
    /// What a change meets that is under way already.
    pub(crate) conflicts: Vec<v1::Conflict>,
    /// What a simulation says, one after the other.
    pub(crate) simulation: Vec<v1::SimulateRolloutResponse>,
    /// What was to be simulated.
    pub(crate) simulated: Vec<v1::SimulateRolloutRequest>,
    /// The connector is deleted but not gone everywhere.
    pub(crate) deleting: bool,
}

/// A running fake; it stops with the runtime that it owns.
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    pub(crate) address: SocketAddr,
    pub(crate) ca_pem: String,
    /// The next CA and what a service of it presents.
    pub(crate) next: (String, Identity),
    _runtime: tokio::runtime::Runtime,
}

impl Fake {
    /// Starts one with this state.
    pub(crate) fn start(state: State) -> Self {
        Self::start_as(state, certificates())
    }

    /// Starts one of this CA, which presents this.
    pub(crate) fn start_as(mut state: State, (ca_pem, identity): (String, Identity)) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let next = certificates();
        state.ca_pems = [ca_pem.clone(), next.0.clone()];
        let state = Arc::new(Mutex::new(state));
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let address = listener.local_addr().unwrap();
        let service = OperatorServiceServer::new(Service(Arc::clone(&state)));
        let tls = ServerTlsConfig::new().identity(identity);
        let server = Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_service(service);
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self {
            state,
            address,
            ca_pem,
            next,
            _runtime: runtime,
        }
    }

    /// The state, to look at or to change.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// A CA and a certificate of it for `localhost`.
pub(crate) fn certificates() -> (String, Identity) {
    let mut ca_params = CertificateParams::new(Vec::new()).unwrap();
    ca_params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca_pem = ca_params.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca_params, ca_key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    (
        ca_pem,
        Identity::from_pem(certificate.pem(), key.serialize_pem()),
    )
}

/// A time so many seconds before now, and a little more, so that a slow test sees the same age.
pub(crate) fn before(secs: i64) -> Option<prost_types::Timestamp> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    Some(prost_types::Timestamp {
        seconds: i64::try_from(now).unwrap() - secs,
        nanos: 0,
    })
}
