//! One agent's session: an actor between its stream and the use cases.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use keyfleet_core::id::{Generation, KeyName, KeyVersion};
use keyfleet_proto::{Invalid, duration_secs, v1};
use keyfleet_seal::{Sealer, SessionInfo};
use keyfleet_store::Tx;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};
use v1::agent_message::Message as FromAgent;
use v1::control_message::Message as ToAgent;

use crate::app::App;
use crate::app::desired::DesiredState;
use crate::app::status::{Reporter, facts, store_facts};
use crate::clock;
use crate::error::Error;
use crate::sessions::Seat;

type Outbox = mpsc::Sender<Result<v1::ControlMessage, Status>>;

/// An agent that says nothing for this many heartbeat intervals is gone.
const HEARTBEATS_MISSED_MAX: u32 = 3;

/// The first message must come at once.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);

/// Agents of a control service that goes down come back within this time, each at its own moment.
const RECONNECT_SPREAD_SECS: u32 = 5;

/// How soon a key that Vault did not give is asked for again.
const KEY_RETRY: Duration = Duration::from_secs(2);

/// The stream to the agent, with the task that feeds it.
pub(super) struct Owned {
    pub(super) messages: ReceiverStream<Result<v1::ControlMessage, Status>>,
    pub(super) _task: AbortOnDropHandle<()>,
}

impl Stream for Owned {
    type Item = Result<v1::ControlMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.messages).poll_next(context)
    }
}

/// Starts a session's task; its owner is the stream that it feeds.
#[expect(
    clippy::disallowed_methods,
    reason = "the handle goes into the stream, which aborts it when dropped"
)]
pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}

/// Runs a session to its end; tells the agent why where it is control that ends it.
pub(super) async fn run(
    app: App,
    reporter: Reporter,
    mut inbox: Streaming<v1::AgentMessage>,
    outbox: Outbox,
) {
    let id = reporter.deployment;
    let ended = match Session::open(app.clone(), reporter, &mut inbox, outbox.clone()).await {
        Ok(Some(session)) => session.serve(inbox).await,
        Ok(None) => return,
        Err(err) => Err(err),
    };
    app.changed();
    if let Err(err) = ended {
        tracing::warn!(deployment.id = %id, error = %err, "session ended");
        // An agent that went away does not want the reason.
        let _ = outbox.try_send(Err(err.into()));
    }
}

struct Session {
    // helpers
    app: App,
    reporter: Reporter,
    agent_version: String,
    // inputs
    seat: Seat,
    // outputs
    outbox: Outbox,
    sealer: Sealer,
    // internal state
    told: Option<(Generation, bytes::Bytes)>,
    rejected: Option<(Generation, bytes::Bytes)>,
    held: BTreeSet<(KeyName, KeyVersion)>,
    /// Keys that the agent asked for and that could not be sent yet.
    asked: BTreeSet<(KeyName, KeyVersion)>,
    waits_for_keys: bool,
}

impl Session {
    async fn open(
        app: App,
        reporter: Reporter,
        inbox: &mut Streaming<v1::AgentMessage>,
        outbox: Outbox,
    ) -> Result<Option<Self>, Error> {
        let first = tokio::time::timeout(HELLO_DEADLINE, inbox.message()).await;
        let hello = match first
            .ok()
            .and_then(Result::ok)
            .flatten()
            .and_then(|first| first.message)
        {
            Some(FromAgent::Hello(hello)) => hello,
            _ => return Err(Invalid::new("message", "must be Hello first, within 10 s").into()),
        };
        if let Some(wait) = app.sessions.admit() {
            let reason = "many agents are coming back at once".to_owned();
            let go_away = v1::GoAway {
                reconnect_after_secs: duration_secs(wait),
                reason,
            };
            let message = v1::ControlMessage {
                message: Some(ToAgent::GoAway(go_away)),
            };
            let _ = outbox.send(Ok(message)).await;
            return Ok(None);
        }
        // The seat first: what changes from here on is told, whatever is read in between.
        let seat = app.sessions.enter(reporter.deployment, &app.shutdown);
        app.returned(reporter.deployment).await?;
        let desired = app.desired(reporter.deployment).await?;
        let nonce = <[u8; 32]>::try_from(hello.nonce.as_ref())
            .map_err(|_| Invalid::new("hello.nonce", "must be 32 bytes"))?;
        let info = SessionInfo {
            deployment: reporter.deployment,
            enrolment: reporter.enrolment,
            nonce,
        };
        let (sealer, encapsulated) = Sealer::new(&desired.deployment.sealing_key, &info)
            .map_err(|err| Error::internal(&err))?;
        note_hello(&app, &reporter, &hello).await?;
        let mut session = Self {
            agent_version: version(&hello),
            told: hello
                .generation
                .map(|generation| (generation.into(), hello.digest.clone())),
            rejected: hello
                .last_rejected
                .and_then(|last| Some((last.generation?.into(), last.digest))),
            held: held(&hello.keys_held)?,
            asked: BTreeSet::new(),
            waits_for_keys: false,
            app,
            reporter,
            seat,
            outbox,
            sealer,
        };
        let has_ours = session.told.as_ref() == Some(&mark(&desired.document));
        let agents = &session.app.config.agents;
        let welcome = v1::Welcome {
            heartbeat_interval_secs: duration_secs(agents.heartbeat),
            probes_per_minute: agents.probes_per_minute,
            encapsulated_key: encapsulated.into(),
            // Whoever has what we have told has also been heard; unanswered reports come again by themselves.
            report_full_state: !has_ours,
            andon: false,
        };
        session.send(ToAgent::Welcome(welcome)).await?;
        session.tell(desired).await?;
        session.app.changed();
        Ok(Some(session))
    }

    async fn serve(mut self, mut inbox: Streaming<v1::AgentMessage>) -> Result<(), Error> {
        let silence_max = self.app.config.agents.heartbeat * HEARTBEATS_MISSED_MAX;
        let mut heard_at = tokio::time::Instant::now();
        let certificate_left = self
            .reporter
            .certificate_not_after
            .duration_since(clock::now());
        let ends_at = heard_at + Duration::try_from(certificate_left).unwrap_or_default();
        loop {
            let retry_at = tokio::time::Instant::now() + KEY_RETRY;
            tokio::select! {
                // In this order: after a long wait for Vault the heartbeats that came meanwhile are read before
                // anybody concludes that there were none.
                biased;
                // Cancel-safe: the token keeps its state.
                () = self.seat.end.cancelled() => return self.farewell().await,
                // Cancel-safe: tonic keeps what it has read of a message.
                message = inbox.message() => match message {
                    Ok(Some(message)) => {
                        heard_at = tokio::time::Instant::now();
                        self.on_message(message).await?;
                    }
                    Ok(None) => return Ok(()),
                    // A broken connection is the usual end of a session.
                    Err(_) => return Ok(()),
                },
                // Cancel-safe: the permit stays until it is taken.
                () = self.seat.changed.notified() => self.on_changed().await?,
                // Cancel-safe: the moment is kept outside.
                () = tokio::time::sleep_until(heard_at + silence_max) => {
                    let text = format!("no heartbeat for {} s", silence_max.as_secs());
                    return Err(Error::Unavailable(text));
                }
                // Cancel-safe: the moment is kept outside.
                () = tokio::time::sleep_until(ends_at) => {
                    let text = "the client certificate has ended with this session".to_owned();
                    return Err(Error::Unauthenticated(text));
                }
                // Cancel-safe: a new moment is taken each time.
                () = tokio::time::sleep_until(retry_at), if self.waits_for_keys => self.on_changed().await?,
            }
        }
    }

    async fn on_message(&mut self, message: v1::AgentMessage) -> Result<(), Error> {
        match message.message {
            Some(FromAgent::StatusReport(report)) => {
                let sequence = report.sequence;
                self.app
                    .report(&self.reporter, report, &self.agent_version)
                    .await?;
                let answer = v1::StatusAnswer {
                    sequence,
                    report_full_state: false,
                };
                self.send(ToAgent::StatusAnswer(answer)).await
            }
            Some(FromAgent::DesiredAnswer(answer)) => {
                if !answer.rejected.is_empty() {
                    let generation = answer.generation.map(Generation::from).unwrap_or_default();
                    self.rejected = Some((generation, answer.digest.clone()));
                }
                self.app.answered(self.reporter.deployment, answer).await
            }
            Some(FromAgent::KeyRequest(request)) => self.on_key_request(request).await,
            Some(FromAgent::Hello(_)) => {
                Err(Invalid::new("message", "must be Hello only once").into())
            }
            // A message of a newer agent is none of our business.
            Some(FromAgent::Heartbeat(_)) | None => Ok(()),
        }
    }

    async fn on_changed(&mut self) -> Result<(), Error> {
        let desired = self.app.desired(self.reporter.deployment).await?;
        self.tell(desired).await
    }

    /// Sends the desired state if it is news, and the keys that it needs and the agent has not.
    async fn tell(&mut self, desired: DesiredState) -> Result<(), Error> {
        let document = desired.document;
        let mark = mark(&document);
        let generation = mark.0;
        // A deployment that was never told anything has no desired state yet.
        let is_empty = generation == Generation::default();
        let is_news =
            !is_empty && self.told.as_ref() != Some(&mark) && self.rejected.as_ref() != Some(&mark);
        if is_news {
            self.send(ToAgent::Desired(document)).await?;
            self.told = Some(mark);
        }
        self.held.retain(|key| desired.keys.contains_key(key));
        self.asked.retain(|key| desired.keys.contains_key(key));
        self.waits_for_keys = false;
        for ((name, version), must_write) in desired.keys {
            let key = (name, version);
            let is_needed = must_write || self.asked.contains(&key);
            if is_needed && !self.held.contains(&key) {
                self.waits_for_keys |= !self.send_key(key.0, key.1).await?;
            }
        }
        Ok(())
    }

    /// True where the key was sent; false where Vault does not give it now.
    async fn send_key(&mut self, name: KeyName, version: KeyVersion) -> Result<bool, Error> {
        let key = match self.app.key_for_agent(&name, version).await {
            Ok(key) => key,
            Err(err) => {
                tracing::warn!(key.name = %name, key.version = version.0, error = %err, "a key cannot be sent");
                return Ok(false);
            }
        };
        // A place in the queue first: sealing counts, and what is sealed must be written in that order.
        let permit = self
            .outbox
            .clone()
            .reserve_owned()
            .await
            .map_err(|_| gone())?;
        let ciphertext = self
            .sealer
            .seal(&name, version, &key.value)
            .map_err(|err| Error::internal(&err))?;
        let sealed = v1::SealedKey {
            key: name.to_string(),
            version: version.0,
            ciphertext: ciphertext.into(),
            fingerprint: key.fingerprint,
        };
        permit.send(Ok(v1::ControlMessage {
            message: Some(ToAgent::SealedKey(sealed)),
        }));
        let key = (name, version);
        self.asked.remove(&key);
        self.held.insert(key);
        Ok(true)
    }

    async fn on_key_request(&mut self, request: v1::KeyRequest) -> Result<(), Error> {
        let name: KeyName = Invalid::parse("key_request.key", &request.key)?;
        let version = KeyVersion(request.version);
        let desired = self.app.desired(self.reporter.deployment).await?;
        let key = (name, version);
        if desired.keys.contains_key(&key) {
            // What Vault does not give now is sent when it does.
            self.held.remove(&key);
            self.asked.insert(key);
            return self.tell(desired).await;
        }
        tracing::warn!(
            deployment.id = %self.reporter.deployment, key.name = %key.0, key.version = version.0,
            "key refused: the deployment's desired state does not name it"
        );
        let refused = v1::KeyRefused {
            key: request.key,
            version: request.version,
            reason: "the desired state of this deployment does not name it".to_owned(),
        };
        self.send(ToAgent::KeyRefused(refused)).await
    }

    /// Control is going down, or a newer session took the place.
    async fn farewell(&mut self) -> Result<(), Error> {
        let is_shutdown = self.app.shutdown.is_cancelled();
        let reason = if is_shutdown {
            "the control service is going down"
        } else {
            "a newer session took over"
        };
        let go_away = v1::GoAway {
            reconnect_after_secs: if is_shutdown {
                RECONNECT_SPREAD_SECS
            } else {
                0
            },
            reason: reason.to_owned(),
        };
        self.send(ToAgent::GoAway(go_away)).await
    }

    async fn send(&mut self, message: ToAgent) -> Result<(), Error> {
        let message = v1::ControlMessage {
            message: Some(message),
        };
        self.outbox.send(Ok(message)).await.map_err(|_| gone())
    }
}

/// The agent's version, cut to what a version needs.
fn version(hello: &v1::Hello) -> String {
    hello.agent_version.chars().take(64).collect()
}

/// What tells two desired states apart.
fn mark(document: &v1::Desired) -> (Generation, bytes::Bytes) {
    let generation = document.generation.unwrap_or_default();
    (generation.into(), document.digest.clone())
}

fn gone() -> Error {
    Error::Unavailable("the agent has gone".to_owned())
}

fn held(keys: &[v1::KeyHeld]) -> Result<BTreeSet<(KeyName, KeyVersion)>, Invalid> {
    let read = |held: &v1::KeyHeld| {
        Ok((
            Invalid::parse("hello.keys_held.key", &held.key)?,
            KeyVersion(held.version),
        ))
    };
    keys.iter().map(read).collect()
}

/// Stores what the Hello says that is new.
async fn note_hello(app: &App, reporter: &Reporter, hello: &v1::Hello) -> Result<(), Error> {
    let Some(wire) = hello.facts.clone() else {
        return Ok(());
    };
    let facts = facts(wire)?;
    let (id, version) = (reporter.deployment, self::version(hello));
    let known = app
        .store
        .read(move |tx| Ok::<_, Error>(tx.deployment(id)?))
        .await?;
    let is_known = known.is_some_and(|known| {
        known.agent_version == version
            && known.facts.is_some_and(|known| {
                keyfleet_store::Facts {
                    observed_at: facts.observed_at,
                    ..known
                } == facts
            })
    });
    if is_known {
        return Ok(());
    }
    let version = self::version(hello);
    app.store
        .write(move |tx: &Tx<'_>| store_facts(tx, id, &version, &facts))
        .await
}
