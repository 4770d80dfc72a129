//! A control service that holds state: real TLS, real enrolment, real sealing; its database is a struct.

#[cfg(test)]
mod certificates;

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
use rcgen::{CertifiedIssuer, KeyPair, PublicKeyData};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};
use uuid::Uuid;

use certificates::{Given, ca, same, server_tls};

/// Longest wait for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the fake control knows.
#[derive(Default)]
pub(crate) struct State {
    /// How often the join token may still be used.
    pub(crate) token_uses: u32,
    /// A second token, of `deployment replace`: the same deployment, a new enrolment.
    pub(crate) replacement: Option<String>,
    /// Requests that took a use of a token.
    pub(crate) enrolled: Vec<v1::EnrollRequest>,
    pub(crate) enrolment: Uuid,
    pub(crate) sealing_public_key: Vec<u8>,
    /// Certificates, oldest first.
    pub(crate) given: Vec<Given>,
    /// How long they live from now on, in seconds.
    pub(crate) certificate_secs: i64,
    /// The highest number of this enrolment that opened a session.
    pub(crate) seen: u64,
    /// A superseded certificate was used: nobody gets keys any more.
    pub(crate) clones: u32,
    /// Numbers of certificates, in the order in which they opened sessions.
    pub(crate) sessions: Vec<u64>,
    /// Numbers of the certificates with which the next one was bought or asked for.
    pub(crate) renewals: Vec<u64>,
    /// Answers of `Enroll`, `Renew` and `Session` that are lost on the way, though everything was done.
    pub(crate) lost: u32,
    /// `Renew` says no with this.
    pub(crate) renewal_refusal: Option<(Code, &'static str)>,
    /// `Session` says no with this to certificates with one of these numbers.
    pub(crate) session_refusal: Option<(&'static [u64], Code, &'static str)>,
    /// `Renew` answers what nobody can use.
    pub(crate) garbage: bool,
    /// Sessions are accepted and never welcomed.
    pub(crate) mute: bool,
    /// The next CA signs, and both are to be trusted.
    pub(crate) rotating: bool,
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
    /// How often they came.
    pub(crate) n_facts: u32,
    /// Live calls need grants.
    pub(crate) probe_grants: bool,
    pub(crate) probe_requests: Vec<u32>,
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
    /// The same, with a certificate of the next CA.
    pub(crate) next_address: SocketAddr,
    /// The same, where the agents' certificates of the first CA are not taken any more.
    pub(crate) strict_address: SocketAddr,
    pub(crate) deployment: DeploymentId,
    pub(crate) token: String,
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    pushes: broadcast::Sender<ToAgent>,
    ends: broadcast::Sender<(Code, &'static str)>,
    ca: CertifiedIssuer<'static, KeyPair>,
    next_ca: CertifiedIssuer<'static, KeyPair>,
}

impl Control {
    /// Starts it; the server lives as long as `tasks`.
    pub(crate) async fn start(tasks: &mut JoinSet<()>) -> Self {
        let (ca, next_ca) = (ca(), ca());
        let pin = Sha256::digest(ca.key().subject_public_key_info());
        let pin: String = pin.iter().map(|byte| format!("{byte:02x}")).collect();
        let bind = || tokio::net::TcpListener::bind("127.0.0.1:0");
        let servers = [
            (server_tls(&ca, &[&ca, &next_ca]), bind().await.unwrap()),
            (
                server_tls(&next_ca, &[&ca, &next_ca]),
                bind().await.unwrap(),
            ),
            (server_tls(&ca, &[&next_ca]), bind().await.unwrap()),
        ];
        let inner = Inner {
            state: Mutex::new(State {
                token_uses: 1,
                certificate_secs: 14 * 86_400,
                enrolment: Uuid::new_v4(),
                ..State::default()
            }),
            changed: watch::Sender::new(0),
            pushes: broadcast::Sender::new(256),
            ends: broadcast::Sender::new(16),
            ca,
            next_ca,
        };
        let control = Self {
            address: servers[0].1.local_addr().unwrap(),
            next_address: servers[1].1.local_addr().unwrap(),
            strict_address: servers[2].1.local_addr().unwrap(),
            deployment: DeploymentId::new(Uuid::new_v4()),
            token: format!("kfj_{}.{pin}", "A".repeat(43)),
            inner: Arc::new(inner),
        };
        for (tls, listener) in servers {
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
        }
        control
    }

    /// The join token that [`Control::replace`] makes good.
    pub(crate) fn other_token(&self) -> String {
        let (_, pin) = self.token.split_once('.').unwrap();
        format!("kfj_{}.{pin}", "E".repeat(43))
    }

    /// As [`Control::other_token`], made after the next CA took over.
    pub(crate) fn token_of_next_ca(&self) -> String {
        let pin = Sha256::digest(self.inner.next_ca.key().subject_public_key_info());
        let pin: String = pin.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("kfj_{}.{pin}", "E".repeat(43))
    }

    /// Voids the present enrolment, as `deployment replace` does; the other token may be used so often.
    pub(crate) fn replace(&self, uses: u32) {
        self.change(|state| {
            state.enrolment = Uuid::new_v4();
            state.seen = 0;
            state.replacement = Some(self.other_token());
            state.token_uses = uses;
        });
        let message = "deployment is not enrolled with this certificate";
        self.drop_sessions(Code::PermissionDenied, message);
    }

    /// Ends every session with this status.
    pub(crate) fn drop_sessions(&self, code: Code, message: &'static str) {
        let _ = self.inner.ends.send((code, message));
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
        let (replacement, known) = {
            let state = self.state();
            let replacement = state.replacement.as_ref() == Some(&request.join_token);
            // The very same request before the first session is the same enrolment.
            let known = state.seen == 0
                && state
                    .enrolled
                    .last()
                    .is_some_and(|last| same(last, &request));
            (replacement, known)
        };
        if request.join_token != self.token && !replacement {
            return Err(Status::unauthenticated("there is no such join token"));
        }
        if !known {
            self.change(|state| match state.token_uses.checked_sub(1) {
                Some(left) => {
                    state.token_uses = left;
                    state.sealing_public_key = request.sealing_public_key.to_vec();
                    state.enrolled.push(request.clone());
                    Ok(())
                }
                None => Err(Status::permission_denied("the join token is used up")),
            })?;
        }
        let (certificate_der, ca_certificates_der, not_after) =
            self.issue(&request.certificate_request_der, known);
        self.maybe_lost()?;
        Ok(Response::new(v1::EnrollResponse {
            deployment_id: self.deployment.to_string(),
            enrolment_id: self.state().enrolment.to_string(),
            certificate_der,
            ca_certificates_der,
            not_after,
        }))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        let given = self.caller(&request)?;
        let (refusal, garbage) = self.change(|state| {
            state.renewals.push(given.number);
            (state.renewal_refusal, state.garbage)
        });
        if let Some((code, message)) = refusal {
            return Err(Status::new(code, message));
        }
        let request = request.into_inner();
        let (certificate_der, ca_certificates_der, not_after) =
            self.issue(&request.certificate_request_der, false);
        self.maybe_lost()?;
        Ok(Response::new(v1::RenewResponse {
            certificate_der: if garbage {
                "garbage".into()
            } else {
                certificate_der
            },
            ca_certificates_der,
            not_after,
        }))
    }

    type SessionStream = Outbound;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let given = self.caller(&request)?;
        if let Some((numbers, code, message)) = self.state().session_refusal
            && numbers.contains(&given.number)
        {
            return Err(Status::new(code, message));
        }
        let mut inbound = request.into_inner();
        let Some(FromAgent::Hello(hello)) =
            inbound.message().await?.and_then(|message| message.message)
        else {
            return Err(Status::invalid_argument("no hello"));
        };
        self.change(|state| {
            state.clones += u32::from(given.number < state.seen);
            state.seen = state.seen.max(given.number);
            state.sessions.push(given.number);
        });
        self.maybe_lost()?;
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
    /// Everything was done, and the answer does not arrive.
    fn maybe_lost(&self) -> Result<(), Status> {
        self.change(|state| match state.lost.checked_sub(1) {
            Some(left) => {
                state.lost = left;
                Err(Status::unavailable("the answer was lost"))
            }
            None => Ok(()),
        })
    }

    async fn serve(
        self,
        hello: v1::Hello,
        mut inbound: Streaming<v1::AgentMessage>,
        sender: mpsc::Sender<Result<v1::ControlMessage, Status>>,
    ) {
        let mut pushes = self.inner.pushes.subscribe();
        let mut ends = self.inner.ends.subscribe();
        let nonce = hello.nonce.to_vec().try_into().unwrap();
        let info = SessionInfo {
            deployment: self.deployment,
            enrolment: EnrolmentId::new(self.state().enrolment),
            nonce,
        };
        let (mut sealer, encapsulated) =
            Sealer::new(&self.state().sealing_public_key, &info).unwrap();
        let mut queue = self.greet(&hello, encapsulated);
        let mute = self.change(|state| {
            if let Some(facts) = &hello.facts {
                state.facts = Some(facts.clone());
            }
            state.hellos.push(hello);
            state.mute
        });
        if mute {
            queue.clear();
        }
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
                Ok((code, message)) = ends.recv() => {
                    // Whoever is gone already need not hear it.
                    let _ = sender.send(Err(Status::new(code, message))).await;
                    return;
                }
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
            probe_grants: state.probe_grants,
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
            FromAgent::ProbeRequest(request) => {
                state.probe_requests.push(request.count);
                None
            }
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
                    state.n_facts += 1;
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
