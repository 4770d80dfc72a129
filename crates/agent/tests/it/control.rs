//! A control service that holds state: real TLS, real enrolment, real sealing; its database is a struct.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keyfleet_core::id::{DeploymentId, EnrolmentId, KeyVersion};
use keyfleet_proto::v1;
use keyfleet_proto::v1::agent_message::Message as FromAgent;
use keyfleet_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use keyfleet_proto::v1::control_message::Message as ToAgent;
use keyfleet_seal::{Sealer, SessionInfo};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa,
    KeyPair, PublicKeyData,
};
use rustls::pki_types::CertificateSigningRequestDer;
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

/// Longest wait for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the fake control knows.
#[derive(Default)]
pub(crate) struct State {
    /// How often the join token may still be used.
    pub(crate) token_uses: u32,
    pub(crate) enrolled: Vec<v1::EnrollRequest>,
    pub(crate) sealing_public_key: Vec<u8>,
    pub(crate) desired: Option<v1::Desired>,
    pub(crate) keys: BTreeMap<(String, u64), String>,
    /// Keys that are never sent.
    pub(crate) refused: BTreeSet<(String, u64)>,
    /// Keys are only sent when they are asked for.
    pub(crate) lazy: bool,
    /// Statuses are taken in and never acknowledged.
    pub(crate) deaf: bool,
    pub(crate) andon: bool,
    pub(crate) report_full_state: bool,
    pub(crate) hellos: Vec<v1::Hello>,
    pub(crate) answers: Vec<v1::DesiredAnswer>,
    pub(crate) requests: Vec<v1::KeyRequest>,
    pub(crate) reports: Vec<v1::StatusReport>,
    pub(crate) statuses: BTreeMap<String, v1::BindingStatus>,
    pub(crate) facts: Option<v1::KibanaFacts>,
    pub(crate) heartbeats: u32,
}

impl State {
    /// The state of a binding, `UNSPECIFIED` while nothing was heard.
    pub(crate) fn state_of(&self, place: &str) -> v1::BindingState {
        self.statuses
            .get(place)
            .map_or(v1::BindingState::Unspecified, v1::BindingStatus::state)
    }
}

#[derive(Clone)]
pub(crate) struct Control {
    pub(crate) address: SocketAddr,
    pub(crate) deployment: DeploymentId,
    pub(crate) enrolment: EnrolmentId,
    pub(crate) token: String,
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    pushes: broadcast::Sender<ToAgent>,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Control {
    /// Starts it; the server lives as long as `tasks`.
    pub(crate) async fn start(tasks: &mut JoinSet<()>) -> Self {
        let ca = ca();
        let pin = Sha256::digest(ca.key().subject_public_key_info());
        let pin: String = pin.iter().map(|byte| format!("{byte:02x}")).collect();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = server_tls(&ca);
        let inner = Inner {
            state: Mutex::new(State {
                token_uses: 1,
                ..State::default()
            }),
            changed: watch::Sender::new(0),
            pushes: broadcast::Sender::new(16),
            ca,
        };
        let control = Self {
            address,
            deployment: DeploymentId::new(Uuid::new_v4()),
            enrolment: EnrolmentId::new(Uuid::new_v4()),
            token: format!("kfj_{}.{pin}", "A".repeat(43)),
            inner: Arc::new(inner),
        };
        let service = AgentServiceServer::new(control.clone());
        let server = Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_service(service);
        tasks.spawn(async move {
            server
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap()
        });
        control
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes whoever waits for it.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.inner.changed.send_modify(|n| *n += 1);
        result
    }

    /// Makes this the desired state and sends it with the keys it names.
    pub(crate) fn push(&self, desired: &v1::Desired) {
        let messages = self.change(|state| {
            state.desired = Some(desired.clone());
            desired_and_keys(state)
        });
        for message in messages {
            // Without a session nobody listens; the next Hello brings it.
            let _ = self.inner.pushes.send(message);
        }
    }

    /// Sends a message to the session, if there is one.
    pub(crate) fn send(&self, message: ToAgent) {
        let _ = self.inner.pushes.send(message);
    }

    /// Waits until the state is as asked.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&State) -> bool) {
        let mut changed = self.inner.changed.subscribe();
        let wait = async {
            loop {
                changed.mark_unchanged();
                if condition(&self.state()) {
                    return;
                }
                changed.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            let state = self.state();
            panic!(
                "waited too long for: {what}\nanswers {:#?}\nstatuses {:#?}",
                state.answers, state.statuses
            );
        }
    }

    /// Waits until a binding is in a state and gives its status.
    pub(crate) async fn until_state(
        &self,
        place: &str,
        expected: v1::BindingState,
    ) -> v1::BindingStatus {
        self.until(&format!("{place} is {expected:?}"), |state| {
            state.state_of(place) == expected
        })
        .await;
        self.state().statuses[place].clone()
    }
}

fn ca() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn server_tls(ca: &CertifiedIssuer<'static, KeyPair>) -> ServerTlsConfig {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&key, ca)
        .unwrap();
    let chain = format!("{}{}", leaf.pem(), ca.pem());
    ServerTlsConfig::new()
        .identity(Identity::from_pem(chain, key.serialize_pem()))
        .client_ca_root(Certificate::from_pem(ca.pem()))
        .client_auth_optional(true)
}

/// Keys are only named here; the session seals them as its last step.
fn desired_and_keys(state: &State) -> Vec<ToAgent> {
    let Some(desired) = state.desired.clone() else {
        return Vec::new();
    };
    let keys: BTreeSet<(String, u64)> = desired
        .bindings
        .iter()
        .filter_map(|binding| Some((binding.key.clone(), binding.assignment?.key_version)))
        .filter(|_| !state.lazy)
        .collect();
    let keys = keys.into_iter().map(|(key, version)| {
        ToAgent::SealedKey(v1::SealedKey {
            key,
            version,
            ..v1::SealedKey::default()
        })
    });
    std::iter::once(ToAgent::Desired(desired))
        .chain(keys)
        .collect()
}

type Outbound =
    Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::ControlMessage, Status>> + Send>>;

#[tonic::async_trait]
impl AgentService for Control {
    async fn enroll(
        &self,
        request: Request<v1::EnrollRequest>,
    ) -> Result<Response<v1::EnrollResponse>, Status> {
        let request = request.into_inner();
        if request.join_token != self.token {
            return Err(Status::unauthenticated("there is no such join token"));
        }
        self.change(|state| match state.token_uses.checked_sub(1) {
            Some(left) => {
                state.token_uses = left;
                state.sealing_public_key = request.sealing_public_key.to_vec();
                state.enrolled.push(request.clone());
                Ok(())
            }
            None => Err(Status::permission_denied("the join token is used up")),
        })?;
        let der = CertificateSigningRequestDer::from(request.certificate_request_der.to_vec());
        let csr = CertificateSigningRequestParams::from_der(&der).unwrap();
        let certificate = csr.signed_by(&self.inner.ca).unwrap();
        Ok(Response::new(v1::EnrollResponse {
            deployment_id: self.deployment.to_string(),
            enrolment_id: self.enrolment.to_string(),
            certificate_der: certificate.der().to_vec().into(),
            ca_certificate_der: self.inner.ca.der().to_vec().into(),
            not_after: None,
        }))
    }

    type SessionStream = Outbound;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        if request
            .peer_certs()
            .is_none_or(|certificates| certificates.is_empty())
        {
            return Err(Status::unauthenticated("no client certificate"));
        }
        let mut inbound = request.into_inner();
        let Some(FromAgent::Hello(hello)) =
            inbound.message().await?.and_then(|message| message.message)
        else {
            return Err(Status::invalid_argument("no hello"));
        };
        let (sender, receiver) = mpsc::channel(64);
        let control = self.clone();
        let mut task = JoinSet::new();
        task.spawn(async move { control.serve(hello, inbound, sender).await });
        // The session's task ends with its stream.
        task.detach_all();
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl Control {
    async fn serve(
        self,
        hello: v1::Hello,
        mut inbound: Streaming<v1::AgentMessage>,
        sender: mpsc::Sender<Result<v1::ControlMessage, Status>>,
    ) {
        let mut pushes = self.inner.pushes.subscribe();
        let nonce = hello.nonce.to_vec().try_into().unwrap();
        let info = SessionInfo {
            deployment: self.deployment,
            enrolment: self.enrolment,
            nonce,
        };
        let (mut sealer, encapsulated) =
            Sealer::new(&self.state().sealing_public_key, &info).unwrap();
        let mut queue = self.greet(&hello, encapsulated);
        self.change(|state| state.hellos.push(hello));
        loop {
            for message in queue.drain(..) {
                let message = self.sealed(message, &mut sealer);
                if sender
                    .send(Ok(v1::ControlMessage {
                        message: Some(message),
                    }))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            tokio::select! {
                push = pushes.recv() => queue.extend(push),
                message = inbound.message() => match message {
                    Ok(Some(v1::AgentMessage { message: Some(message) })) => queue.extend(self.hear(message)),
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return,
                },
            }
        }
    }

    fn greet(&self, hello: &v1::Hello, encapsulated: Vec<u8>) -> Vec<ToAgent> {
        let state = self.state();
        let welcome = ToAgent::Welcome(v1::Welcome {
            heartbeat_interval_secs: 1,
            probes_per_minute: 0,
            encapsulated_key: encapsulated.into(),
            report_full_state: state.report_full_state,
            andon: state.andon,
        });
        let current = state
            .desired
            .as_ref()
            .is_none_or(|desired| desired.digest == hello.digest);
        let rest = if current {
            Vec::new()
        } else {
            desired_and_keys(&state)
        };
        std::iter::once(welcome).chain(rest).collect()
    }

    fn sealed(&self, message: ToAgent, sealer: &mut Sealer) -> ToAgent {
        let ToAgent::SealedKey(key) = message else {
            return message;
        };
        let name = key.key.parse().unwrap();
        let value = self.state().keys[&(key.key.clone(), key.version)].clone();
        let sealed = sealer
            .seal(&name, KeyVersion(key.version), &SecretString::from(value))
            .unwrap();
        let fingerprint = format!("fingerprint-{}", key.version);
        ToAgent::SealedKey(v1::SealedKey {
            ciphertext: sealed.into(),
            fingerprint,
            ..key
        })
    }

    fn hear(&self, message: FromAgent) -> Option<ToAgent> {
        self.change(|state| match message {
            FromAgent::Hello(_) => None,
            FromAgent::Heartbeat(_) => {
                state.heartbeats += 1;
                None
            }
            FromAgent::DesiredAnswer(answer) => {
                state.answers.push(answer);
                None
            }
            FromAgent::KeyRequest(request) => {
                let id = (request.key.clone(), request.version);
                state.requests.push(request.clone());
                let v1::KeyRequest { key, version } = request;
                Some(
                    match state.refused.contains(&id) || !state.keys.contains_key(&id) {
                        true => ToAgent::KeyRefused(v1::KeyRefused {
                            key,
                            version,
                            reason: "it is retiring".to_owned(),
                        }),
                        false => ToAgent::SealedKey(v1::SealedKey {
                            key,
                            version,
                            ..v1::SealedKey::default()
                        }),
                    },
                )
            }
            FromAgent::StatusReport(report) => {
                for status in &report.bindings {
                    let binding = status.binding.clone().unwrap();
                    let place = format!("{}/{}", binding.space, binding.connector);
                    state.statuses.insert(place, status.clone());
                }
                if let Some(facts) = &report.facts {
                    state.facts = Some(facts.clone());
                }
                let answer = v1::StatusAnswer {
                    sequence: report.sequence,
                    report_full_state: false,
                };
                state.reports.push(report);
                (!state.deaf).then_some(ToAgent::StatusAnswer(answer))
            }
        })
    }
}
