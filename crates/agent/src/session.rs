//! The one stream to control: dials, greets, carries messages both ways, and comes back after every end.
//!
//! It dials with the renewed certificate where there is one that has opened no session yet, else with the certificate
//! that has. Only control itself can make it give up a renewal: a connection that broke may have been counted there as
//! the renewal's first session, after which the older certificate would look like a stolen one.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use keyfleet_core::id::{KeyName, KeyVersion};
use keyfleet_proto::v1::agent_message::Message as Ours;
use keyfleet_proto::v1::agent_service_client::AgentServiceClient;
use keyfleet_proto::v1::control_message::Message as Theirs;
use keyfleet_proto::{Invalid, v1};
use keyfleet_seal::{Opener, SessionInfo};
use keyfleet_telemetry::error_chain;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::config::Control;
use crate::enrol;
use crate::identity::{self, Identity};
use crate::reconcile::{Command, Handle};
use crate::renew;
use crate::said::{said, tidy};
use crate::tls;
use schedule::Schedule;
use stream::Live;

mod schedule;
mod stream;

/// Messages on their way to control; more would only grow old in the queue.
const QUEUE_MAX: usize = 8;
/// The longest message that is read: a desired state of thousands of connectors is shorter.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The longest that `GoAway` may keep an agent away.
const GO_AWAY_MAX: Duration = Duration::from_secs(3600);
/// A session that lived so long was a good one: the next try is quick again.
const GOOD_AFTER: Duration = Duration::from_secs(10);
/// After a refusal something else is tried at once, so often in a row: the older certificate, or a renewal.
const QUICK_TRIES: u32 = 3;
/// What this agent can do, for control to know what it may send.
const CAPABILITIES: [&str; 1] = ["gen-ai"];

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Connect(#[from] tls::Error),
    #[error("the control service refuses this agent's certificate: {reason}")]
    Refused { reason: String },
    #[error("the control service refuses this agent for now: {reason}")]
    NotNow { reason: String },
    #[error("the control service ended the session: {reason}")]
    Ended { reason: String },
    #[error("the control service did not answer within {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the control service sent a message that cannot be used")]
    Message(#[source] Invalid),
    #[error("a key of this session cannot be opened")]
    Sealing(#[source] keyfleet_seal::Error),
    #[error("the operating system gives no random bytes")]
    Random,
    #[error("the control service asks to come back in {} seconds", .0.as_secs())]
    GoAway(Duration),
    #[error(transparent)]
    Renewal(#[from] renew::Error),
    #[error("the agent is stopping")]
    Stopping,
}

/// How a session ended that did not fail.
enum End {
    Stopped,
    GoAway(Duration),
    /// There is a new certificate to come back with.
    Renewed,
}

/// What came of dialling.
enum Dialled {
    Session(Box<Connected>),
    /// The certificate had ended, or was refused: it bought the next one.
    Renewed(Box<Identity>),
}

/// A session that control has welcomed.
struct Connected {
    channel: Channel,
    inbound: Streaming<v1::ControlMessage>,
    outbound: Outbound,
    welcome: v1::Welcome,
    nonce: [u8; 32],
}

type Outbound = mpsc::Sender<v1::AgentMessage>;

/// The certificate opens no session and buys no other any more.
#[derive(Debug)]
pub(crate) struct Void {
    /// Control's words.
    pub(crate) reason: String,
    /// For the token that gave it.
    pub(crate) identity: Identity,
}

/// Keeps a session with control up.
pub(crate) struct Session {
    control: Control,
    state_dir: PathBuf,
    identity: Identity,
    /// Its renewal, which has opened no session yet.
    candidate: Option<Identity>,
    handle: Handle,
    /// New at every start of the process.
    boot_id: Uuid,
    schedule: Schedule,
    /// The certificate was refused; perhaps it has ended by control's clock, and buys another one.
    renew_first: bool,
}

impl Session {
    pub(crate) fn new(
        control: Control,
        state_dir: PathBuf,
        identity: Identity,
        handle: Handle,
    ) -> Self {
        let candidate = identity.load_candidate(&state_dir);
        Self {
            control,
            state_dir,
            identity,
            candidate,
            handle,
            boot_id: Uuid::new_v4(),
            schedule: Schedule::new(),
            renew_first: false,
        }
    }

    /// Dials again and again until stopped, or until the certificate is void.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Void> {
        let (mut n_failures, mut last_problem) = (0_u32, String::new());
        while !stop.is_cancelled() {
            let began = Instant::now();
            let wait = match self.once(&stop).await {
                Ok(End::Stopped) | Err(Error::Stopping) => return Ok(()),
                Ok(End::Renewed) => Duration::ZERO,
                // Spread a little more, so that those who were sent away together do not return together.
                Ok(End::GoAway(wait)) | Err(Error::GoAway(wait)) => {
                    n_failures = 0;
                    wait.mul_f64(1.0 + fastrand::f64() / 10.0) + Backoff::CONTROL.wait(1)
                }
                Err(error) => {
                    let long = began.elapsed() > GOOD_AFTER;
                    n_failures = if long {
                        1
                    } else {
                        n_failures.saturating_add(1)
                    };
                    let problem = error_chain(&error);

                    // A control that is away for an hour is one line, not a thousand.
                    if problem != last_problem || long {
                        tracing::warn!(reason = %problem, "no session with the control service; trying again");
                    }
                    last_problem = problem;
                    if let Some(reason) = self.learn(&error) {
                        let identity = self.identity;
                        return Err(Void { reason, identity });
                    }
                    pace(&error, n_failures).wait(n_failures)
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(wait) => {}
            }
        }
        Ok(())
    }

    /// What a failure means for the next try; gives the reason where there is none.
    fn learn(&mut self, error: &Error) -> Option<String> {
        let refused = matches!(
            error,
            Error::Refused { .. }
                | Error::Renewal(renew::Error::Refused { .. })
                | Error::Connect(tls::Error::Identity(_))
        );
        if refused && self.candidate.take().is_some() {
            tracing::warn!("the renewed certificate is no good; coming back with the old one");
            identity::drop_candidate(&self.state_dir);
            self.schedule.later();
            return None;
        }
        match error {
            Error::Refused { .. } => self.renew_first = true,
            Error::Renewal(renew::Error::Refused { reason }) => return Some(reason.clone()),
            // A session may be possible again; only an approval is waited for.
            Error::Renewal(error) => {
                self.renew_first &= matches!(error, renew::Error::NotAllowedYet { .. });
            }
            Error::Connect(tls::Error::Untrusted { .. })
                if enrol::names_other_ca(&self.control, &self.identity) =>
            {
                return Some("the join token names a CA that this agent does not know".to_owned());
            }
            Error::Connect(_)
            | Error::NotNow { .. }
            | Error::Ended { .. }
            | Error::Silent(_)
            | Error::Message(_)
            | Error::Sealing(_)
            | Error::Random
            | Error::GoAway(_)
            | Error::Stopping => {}
        }
        None
    }

    async fn once(&mut self, stop: &CancellationToken) -> Result<End, Error> {
        let dialled = tokio::select! {
            () = stop.cancelled() => return Ok(End::Stopped),
            dialled = timeout(self.control.timeout, self.dial()) => dialled,
        };
        let connected = match dialled.map_err(|_| Error::Silent(self.control.timeout))?? {
            Dialled::Session(connected) => connected,
            Dialled::Renewed(candidate) => {
                self.candidate = Some(*candidate);
                self.renew_first = false;
                return Ok(End::Renewed);
            }
        };
        self.renew_first = false;
        self.commit();
        let info = SessionInfo {
            deployment: self.identity.deployment,
            enrolment: self.identity.enrolment,
            nonce: connected.nonce,
        };
        let sealing = self.identity.keys.sealing();
        let opener = Opener::new(sealing, &connected.welcome.encapsulated_key, &info);
        let opener = opener.map_err(Error::Sealing)?;
        tracing::info!(deployment.id = %self.identity.deployment, "session established; agent ready");
        if connected.welcome.report_full_state {
            self.handle.outbox.report_everything();
        }
        self.tell(Command::Connected {
            andon: connected.welcome.andon,
            probes_per_minute: connected.welcome.probes_per_minute,
            probe_grants: connected.welcome.probe_grants,
        })
        .await?;
        self.carry(Live::new(*connected, opener), stop).await
    }

    /// The renewal has opened a session: the certificate before it is done with.
    fn commit(&mut self) {
        let Some(candidate) = self.candidate.take() else {
            return;
        };
        if let Err(error) = identity::commit_candidate(&self.state_dir) {
            // It stays the candidate on disk, and the next start dials with that first.
            tracing::error!(reason = %error_chain(&error), "cannot keep the renewed certificate in the place of the old one");
        }
        self.identity = candidate;
        self.schedule.renewed();
    }

    /// Connects, says `Hello` and waits for `Welcome`; or renews, where nothing else is allowed.
    async fn dial(&self) -> Result<Dialled, Error> {
        let present = self.candidate.as_ref().unwrap_or(&self.identity);
        // Until the renewal has opened a session, nothing that was trusted is distrusted.
        let tls = tls::mutual(present, &self.identity.cas)?;
        let channel = tls::connect(&self.control, tls).await?;
        if self.renew_first || renew::has_ended(present, Timestamp::now()) {
            let present = present.again().map_err(renew::Error::from)?;
            let renewed = renew::renew(
                channel,
                present,
                self.state_dir.clone(),
                self.control.timeout,
            )
            .await?;
            return Ok(Dialled::Renewed(Box::new(renewed)));
        }
        let mut nonce = [0_u8; 32];
        getrandom::fill(&mut nonce).map_err(|_| Error::Random)?;
        let (outbound, queue) = mpsc::channel(QUEUE_MAX);
        let hello = v1::AgentMessage {
            message: Some(Ours::Hello(self.hello(&nonce))),
        };
        outbound.try_send(hello).map_err(|_| Error::Stopping)?;
        let mut client =
            AgentServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let response = client
            .session(ReceiverStream::new(queue))
            .await
            .map_err(|status| ended(&status))?;
        let mut inbound = response.into_inner();
        let first = inbound.message().await.map_err(|status| ended(&status))?;
        let welcome = match first.and_then(|message| message.message) {
            Some(Theirs::Welcome(welcome)) => welcome,
            Some(Theirs::GoAway(go_away)) => return Err(Error::GoAway(away(&go_away))),
            Some(_) => {
                let problem = Invalid::new("message", "is not the Welcome that comes first");
                return Err(Error::Message(problem));
            }
            None => {
                let reason = "it closed the stream before it said Welcome".to_owned();
                return Err(Error::Ended { reason });
            }
        };
        Ok(Dialled::Session(Box::new(Connected {
            channel,
            inbound,
            outbound,
            welcome,
            nonce,
        })))
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

    async fn tell(&self, command: Command) -> Result<(), Error> {
        self.handle
            .commands
            .send(command)
            .await
            .map_err(|_| Error::Stopping)
    }
}

/// How fast to come back: where a person must act first, nothing is gained by asking often.
fn pace(error: &Error, n_failures: u32) -> Backoff {
    match error {
        Error::Refused { .. } | Error::Renewal(renew::Error::Refused { .. })
            if n_failures < QUICK_TRIES =>
        {
            Backoff::CONTROL
        }
        Error::Refused { .. }
        | Error::NotNow { .. }
        | Error::Renewal(renew::Error::Refused { .. } | renew::Error::NotAllowedYet { .. })
        | Error::Connect(tls::Error::Untrusted { .. } | tls::Error::Clock { .. }) => {
            Backoff::REFUSED
        }
        Error::Connect(_)
        | Error::Ended { .. }
        | Error::Silent(_)
        | Error::Message(_)
        | Error::Sealing(_)
        | Error::Random
        | Error::GoAway(_)
        | Error::Renewal(_)
        | Error::Stopping => Backoff::CONTROL,
    }
}

/// How long control wants to be left alone.
fn away(go_away: &v1::GoAway) -> Duration {
    let secs = go_away.reconnect_after_secs;
    tracing::info!(reason = %tidy(&go_away.reason), secs, "the control service asks to come back later");
    Duration::from_secs(secs.into()).min(GO_AWAY_MAX)
}

/// What the end of a stream means.
fn ended(status: &Status) -> Error {
    if let Some(reason) = tls::refusal(status) {
        return Error::Refused { reason };
    }
    let reason = said(status);
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => Error::Refused { reason },
        Code::FailedPrecondition => Error::NotNow { reason },
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
