//! The one stream to control: dials, greets, carries messages both ways, and comes back after every end.

use std::time::Duration;

use keyfleet_core::id::{KeyName, KeyVersion};
use keyfleet_proto::v1::agent_message::Message as Ours;
use keyfleet_proto::v1::agent_service_client::AgentServiceClient;
use keyfleet_proto::v1::control_message::Message as Theirs;
use keyfleet_proto::{Invalid, v1};
use keyfleet_seal::{Opener, SessionInfo};
use keyfleet_telemetry::error_chain;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::config::Control;
use crate::identity::Identity;
use crate::reconcile::{Command, Handle};
use crate::tls;

/// Messages on their way to control; more would only grow old in the queue.
const QUEUE_MAX: usize = 8;
/// Control answers `Hello` at once unless it paces reconnects.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the last statuses may take to leave when the agent stops.
const FLUSH: Duration = Duration::from_secs(2);
/// A heartbeat interval that control may set.
const HEARTBEAT_SECS: std::ops::RangeInclusive<u32> = 1..=3600;
/// The longest that `GoAway` may keep an agent away.
const GO_AWAY_MAX: Duration = Duration::from_secs(3600);
/// A session that lived so long was a good one: the next try is quick again.
const GOOD_AFTER: Duration = Duration::from_secs(10);
/// What this agent can do, for control to know what it may send.
const CAPABILITIES: [&str; 1] = ["gen-ai"];

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Connect(#[from] tls::Error),
    #[error("the control service refuses this agent: {reason}")]
    Refused { reason: String },
    #[error("the control service ended the session: {reason}")]
    Ended { reason: String },
    #[error("the control service did not answer within {} seconds", WELCOME_TIMEOUT.as_secs())]
    Silent,
    #[error("the control service sent a message that cannot be used")]
    Message(#[source] Invalid),
    #[error("a key of this session cannot be opened")]
    Sealing(#[source] keyfleet_seal::Error),
    #[error("the operating system gives no random bytes")]
    Random,
    #[error("the control service asks to come back in {} seconds", .0.as_secs())]
    GoAway(Duration),
    #[error("the agent is stopping")]
    Stopping,
}

/// How a session ended that did not fail.
enum End {
    Stopped,
    GoAway(Duration),
}

/// Keeps a session with control up.
pub(crate) struct Session {
    control: Control,
    identity: Identity,
    handle: Handle,
    /// New at every start of the process.
    boot_id: Uuid,
}

impl Session {
    pub(crate) fn new(control: Control, identity: Identity, handle: Handle) -> Self {
        Self {
            control,
            identity,
            handle,
            boot_id: Uuid::new_v4(),
        }
    }

    /// Dials again and again until stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let (mut n_failures, mut last_problem) = (0_u32, String::new());
        while !stop.is_cancelled() {
            let began = Instant::now();
            let wait = match self.once(&stop).await {
                Ok(End::Stopped) | Err(Error::Stopping) => return,
                // Spread a little more, so that those who were sent away together do not return together.
                Ok(End::GoAway(wait)) | Err(Error::GoAway(wait)) => {
                    n_failures = 0;
                    wait.mul_f64(1.0 + fastrand::f64() / 10.0) + Backoff::CONTROL.wait(1)
                }
                Err(error) => {
                    n_failures = if began.elapsed() > GOOD_AFTER {
                        1
                    } else {
                        n_failures.saturating_add(1)
                    };
                    let problem = error_chain(&error);
                    // A control that is away for an hour is one line, not a thousand.
                    if problem != last_problem || began.elapsed() > GOOD_AFTER {
                        tracing::warn!(reason = %problem, "no session with the control service; trying again");
                    }
                    last_problem = problem;
                    let lasting = matches!(
                        error,
                        Error::Refused { .. } | Error::Connect(tls::Error::Untrusted { .. })
                    );
                    let backoff = if lasting {
                        Backoff::REFUSED
                    } else {
                        Backoff::CONTROL
                    };
                    backoff.wait(n_failures)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    async fn once(&self, stop: &CancellationToken) -> Result<End, Error> {
        let dialled = tokio::select! {
            () = stop.cancelled() => return Ok(End::Stopped),
            dialled = timeout(WELCOME_TIMEOUT, self.dial()) => dialled,
        };
        let (mut inbound, outbound, welcome, nonce) = dialled.map_err(|_| Error::Silent)??;
        let info = SessionInfo {
            deployment: self.identity.deployment,
            enrolment: self.identity.enrolment,
            nonce,
        };
        let opener = Opener::new(&self.identity.sealing, &welcome.encapsulated_key, &info)
            .map_err(Error::Sealing)?;
        tracing::info!(deployment.id = %self.identity.deployment, "session established; agent ready");
        if welcome.report_full_state {
            self.handle.outbox.report_everything();
        }
        let connected = Command::Connected {
            andon: welcome.andon,
            probes_per_minute: welcome.probes_per_minute,
        };
        self.tell(connected).await?;
        let secs = welcome
            .heartbeat_interval_secs
            .clamp(*HEARTBEAT_SECS.start(), *HEARTBEAT_SECS.end());
        self.carry(
            &mut inbound,
            outbound,
            opener,
            (Duration::from_secs(secs.into()), stop),
        )
        .await
    }

    /// Connects, says `Hello` and waits for `Welcome`.
    async fn dial(
        &self,
    ) -> Result<
        (
            Streaming<v1::ControlMessage>,
            Outbound,
            v1::Welcome,
            [u8; 32],
        ),
        Error,
    > {
        let channel = tls::connect(&self.control, tls::mutual(&self.identity)?).await?;
        let mut nonce = [0_u8; 32];
        getrandom::fill(&mut nonce).map_err(|_| Error::Random)?;
        let (outbound, queue) = mpsc::channel(QUEUE_MAX);
        let hello = v1::AgentMessage {
            message: Some(Ours::Hello(self.hello(&nonce))),
        };
        outbound.try_send(hello).map_err(|_| Error::Stopping)?;
        let mut client = AgentServiceClient::new(channel);
        let response = client
            .session(ReceiverStream::new(queue))
            .await
            .map_err(|status| ended(&status))?;
        let mut inbound = response.into_inner();
        match inbound
            .message()
            .await
            .map_err(|status| ended(&status))?
            .and_then(|message| message.message)
        {
            Some(Theirs::Welcome(welcome)) => Ok((inbound, outbound, welcome, nonce)),
            Some(Theirs::GoAway(go_away)) => Err(Error::GoAway(away(&go_away))),
            Some(_) => Err(Error::Message(Invalid::new(
                "message",
                "is not the Welcome that comes first",
            ))),
            None => Err(Error::Ended {
                reason: "it closed the stream before it said Welcome".to_owned(),
            }),
        }
    }

    fn hello(&self, nonce: &[u8; 32]) -> v1::Hello {
        let held = self.handle.held.borrow().clone();
        let (generation, digest) = held.desired.unzip();
        let key = |(key, version): (KeyName, KeyVersion)| v1::KeyHeld {
            key: key.to_string(),
            version: version.0,
        };
        v1::Hello {
            boot_id: self.boot_id.to_string(),
            nonce: nonce.to_vec().into(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            facts: self.handle.outbox.begin_session(),
            generation: generation.map(Into::into),
            digest: digest.unwrap_or_default(),
            keys_held: held.keys.into_iter().map(key).collect(),
            last_rejected: held.last_rejected,
            capabilities: CAPABILITIES.map(str::to_owned).to_vec(),
        }
    }

    /// The session itself.
    async fn carry(
        &self,
        inbound: &mut Streaming<v1::ControlMessage>,
        outbound: Outbound,
        mut opener: Opener,
        (heartbeat, stop): (Duration, &CancellationToken),
    ) -> Result<End, Error> {
        let mut heartbeat = interval(heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        loop {
            // Whatever waits is sent before anything else is waited for, as far as the queue has room.
            while let Ok(permit) = outbound.try_reserve() {
                match self.handle.outbox.next() {
                    Some(message) => permit.send(v1::AgentMessage {
                        message: Some(message),
                    }),
                    None => break,
                }
            }
            let room = outbound.capacity() > 0;
            // Every arm is cancel safe: tonic keeps a half-read message, the outbox keeps what was not sent.
            tokio::select! {
                () = stop.cancelled() => break,
                message = inbound.message() => match message {
                    Ok(Some(message)) => if let Some(end) = self.on_message(message, &mut opener).await? {
                        return Ok(end);
                    },
                    Ok(None) => return Err(Error::Ended { reason: "it closed the stream".to_owned() }),
                    Err(status) => return Err(ended(&status)),
                },
                () = self.handle.outbox.filled(), if room => {}
                permit = outbound.reserve(), if !room => drop(permit.map_err(|_| Error::Ended { reason: "the stream broke".to_owned() })?),
                _ = heartbeat.tick(), if room => {
                    let message = Some(Ours::Heartbeat(v1::Heartbeat {}));
                    // Without room the stream is busy, which is a sign of life too.
                    let _ = outbound.try_send(v1::AgentMessage { message });
                }
            }
        }
        self.flush(inbound, outbound).await
    }

    async fn on_message(
        &self,
        message: v1::ControlMessage,
        opener: &mut Opener,
    ) -> Result<Option<End>, Error> {
        match message.message {
            Some(Theirs::Desired(desired)) => self.tell(Command::Desired(desired)).await?,
            Some(Theirs::SealedKey(sealed)) => self.tell(open(&sealed, opener)?).await?,
            Some(Theirs::KeyRefused(refused)) => {
                let id = key_id(&refused.key, refused.version)?;
                self.tell(Command::KeyRefused {
                    id,
                    reason: scrubbed(&refused.reason),
                })
                .await?;
            }
            Some(Theirs::StatusAnswer(answer)) => {
                self.handle.outbox.acknowledge(answer.sequence);
                if answer.report_full_state {
                    self.handle.outbox.report_everything();
                }
            }
            Some(Theirs::Andon(andon)) => self.tell(Command::Andon(andon.on)).await?,
            Some(Theirs::GoAway(go_away)) => {
                return Ok(Some(End::GoAway(away(&go_away))));
            }
            // A Welcome comes once; what this version does not know is for newer agents.
            Some(Theirs::Welcome(_)) | None => {}
        }
        Ok(None)
    }

    async fn tell(&self, command: Command) -> Result<(), Error> {
        self.handle
            .commands
            .send(command)
            .await
            .map_err(|_| Error::Stopping)
    }

    /// The agent stops: the last statuses leave, control has a moment to store them, the stream closes.
    async fn flush(
        &self,
        inbound: &mut Streaming<v1::ControlMessage>,
        outbound: Outbound,
    ) -> Result<End, Error> {
        let flushed = timeout(FLUSH, async {
            while let Some(message) = self.handle.outbox.next() {
                if outbound
                    .send(v1::AgentMessage {
                        message: Some(message),
                    })
                    .await
                    .is_err()
                {
                    return;
                }
            }
            while !self.handle.outbox.is_settled() {
                match inbound.message().await {
                    Ok(Some(v1::ControlMessage {
                        message: Some(Theirs::StatusAnswer(answer)),
                    })) => {
                        self.handle.outbox.acknowledge(answer.sequence);
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return,
                }
            }
        });
        if flushed.await.is_err() {
            tracing::info!(
                "the control service did not confirm the last statuses; they are sent again after the next start"
            );
        }
        drop(outbound);
        Ok(End::Stopped)
    }
}

type Outbound = mpsc::Sender<v1::AgentMessage>;

fn open(sealed: &v1::SealedKey, opener: &mut Opener) -> Result<Command, Error> {
    let id = key_id(&sealed.key, sealed.version)?;
    let value = opener
        .open(&id.0, id.1, &sealed.ciphertext)
        .map_err(Error::Sealing)?;
    Ok(Command::Key {
        id,
        value,
        fingerprint: sealed.fingerprint.clone(),
    })
}

fn key_id(key: &str, version: u64) -> Result<(KeyName, KeyVersion), Error> {
    let key = Invalid::parse("key", key).map_err(Error::Message)?;
    Ok((key, KeyVersion(version)))
}

/// How long control wants to be left alone.
fn away(go_away: &v1::GoAway) -> Duration {
    let secs = go_away.reconnect_after_secs;
    tracing::info!(reason = %scrubbed(&go_away.reason), secs, "the control service asks to come back later");
    Duration::from_secs(secs.into()).min(GO_AWAY_MAX)
}

fn scrubbed(text: &str) -> String {
    keyfleet_seal::scrub(text).into_owned()
}

/// What the end of a stream means. For the first three codes an operator must act.
fn ended(status: &Status) -> Error {
    let said = scrubbed(status.message());
    let reason = if said.is_empty() {
        status.code().description().to_owned()
    } else {
        said
    };
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition => {
            Error::Refused { reason }
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Error::Ended { reason },
    }
}
