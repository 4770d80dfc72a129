//! One agent's session: an actor between its stream and the use cases.

mod limits;
mod serve;
mod tell;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::Stream;
use keyfleet_core::id::{KeyName, KeyVersion};
use keyfleet_core::standing::Standing;
use keyfleet_proto::{Invalid, duration_secs, v1};
use keyfleet_seal::{Sealer, SessionInfo};
use keyfleet_store::{Andon, Deployment};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};
use v1::agent_message::Message as FromAgent;
use v1::control_message::Message as ToAgent;

use crate::app::App;
use crate::app::enrol::version;
use crate::app::status::Reporter;
use crate::error::Error;
use crate::limits::Bucket;
use crate::sessions::told::Told;
use crate::sessions::{Entered, Seat};

/// Waits for what the agent may do next. Boxed: few sessions wait at any time.
type Turn = Pin<Box<dyn Future<Output = u32> + Send + Sync>>;

type Outbox = mpsc::Sender<Result<v1::ControlMessage, Status>>;

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

/// Who opens a session, as the transport and the database know it.
pub(super) struct Caller {
    pub(super) reporter: Reporter,
    /// Of its certificate.
    pub(super) number: u64,
    /// Two agents use its identity, and nobody has decided yet.
    pub(super) is_cloned: bool,
    /// Ends its connection at once.
    pub(super) hang_up: CancellationToken,
}

/// Runs a session to its end; tells the agent why where it is control that ends it.
pub(super) async fn run(
    app: App,
    caller: Caller,
    mut inbox: Streaming<v1::AgentMessage>,
    outbox: Outbox,
) {
    let id = caller.reporter.deployment;
    let hang_up = caller.hang_up.clone();
    let ended = match Session::open(app.clone(), caller, &mut inbox, outbox.clone()).await {
        Ok(Some(session)) => session.serve(inbox).await,
        Ok(None) => return,
        Err(err) => Err(err),
    };
    app.changed();
    if let Err(err) = ended {
        tracing::warn!(deployment.id = %id, error = %err, "session ended");
        // An agent that went away does not want the reason. One that takes nothing cannot be told, and would keep the
        // stream for ever.
        if let Err(mpsc::error::TrySendError::Full(_)) = outbox.try_send(Err(err.into())) {
            hang_up.cancel();
        }
    }
}

struct Session {
    // helpers
    app: App,
    reporter: Reporter,
    agent_version: String,
    // inputs
    seat: Seat,
    andon: watch::Receiver<Option<Andon>>,
    messages: Bucket,
    // outputs
    outbox: Outbox,
    sealer: Sealer,
    // internal state
    told: Told,
    waits_for_keys: bool,
    /// The agent was told nothing for it is not trusted: what it reported meanwhile is not believed.
    was_cut_off: bool,
    /// The last report that was answered.
    sequence: u64,
    /// The number of a certificate that opens its first session: it is good when the agent has heard so.
    unseen: Option<u64>,
    /// When the agent was told to renew because of the CA.
    renewal_told: Option<Instant>,
    /// The agent's turn to make live calls, while it waits for one.
    turn: Option<Turn>,
    /// Key requests that were refused, and written down.
    refused: BTreeSet<(KeyName, KeyVersion)>,
}

impl Session {
    async fn open(
        app: App,
        caller: Caller,
        inbox: &mut Streaming<v1::AgentMessage>,
        outbox: Outbox,
    ) -> Result<Option<Self>, Error> {
        let hello = hello(inbox).await?;
        let id = caller.reporter.deployment;
        if let Some(wait) = app.sessions.admit(id, &hello.boot_id) {
            return go_away(&outbox, wait, "many agents are coming back at once").await;
        }
        // The seat first: what changes from here on is told, whatever is read in between.
        let seat = match app
            .sessions
            .enter(id, &hello.boot_id, caller.is_cloned, &app.shutdown)
        {
            Entered::Seat(seat) => seat,
            Entered::Back(seat) => {
                let why = "an agent came back behind another that had taken over from it";
                app.suspect_clone(id, why.to_owned()).await?;
                seat
            }
            Entered::Held(wait) => {
                let text = "another agent with this identity is connected: an operator must decide which is the right one";
                return go_away(&outbox, wait, text).await;
            }
        };
        Self::begin(app, caller, seat, hello, outbox)
            .await
            .map(Some)
    }

    async fn begin(
        app: App,
        caller: Caller,
        seat: Seat,
        hello: v1::Hello,
        outbox: Outbox,
    ) -> Result<Self, Error> {
        let Caller {
            reporter, number, ..
        } = caller;
        let andon = app.andon.subscribe();
        app.returned(reporter.deployment).await?;
        let standings = seat.standings();
        let desired = app.desired(reporter.deployment).await?;
        let row = &desired.deployment;
        must_be_its_agent(row, &reporter)?;
        // It may have taken its time between the call and its Hello.
        if number < row.certificate_seen {
            return Err(app.superseded(row.id, number).await?);
        }
        app.check_history(row, hello.generation.map(Into::into))
            .await?;
        let (sealer, encapsulated) = sealer(&reporter, &hello, &row.sealing_key)?;
        note_hello(&app, &reporter, &hello).await?;
        let mut session = Self {
            agent_version: version(&hello.agent_version),
            told: Told::by(&hello)?,
            waits_for_keys: false,
            was_cut_off: false,
            sequence: 0,
            unseen: (number > row.certificate_seen).then_some(number),
            renewal_told: None,
            turn: None,
            refused: BTreeSet::new(),
            messages: limits::messages(),
            andon,
            app,
            reporter,
            seat,
            outbox,
            sealer,
        };
        let has_ours = session.told.has(&desired.document);
        let is_andon = session.andon.borrow_and_update().is_some();
        let agents = &session.app.config.agents;
        let welcome = v1::Welcome {
            heartbeat_interval_secs: duration_secs(agents.heartbeat),
            probes_per_minute: agents.probes_per_minute,
            probe_grants: session.app.sessions.pace.is_limited(),
            encapsulated_key: encapsulated.into(),
            // Whoever has what we have told has also been heard; unanswered reports come again by themselves.
            report_full_state: !has_ours,
            andon: is_andon,
        };
        session.send(ToAgent::Welcome(welcome)).await?;
        session.tell(desired, standings).await?;
        session.app.changed();
        Ok(session)
    }

    async fn send(&mut self, message: ToAgent) -> Result<(), Error> {
        place(&self.outbox).await?.send(Ok(wire(message)));
        Ok(())
    }
}

/// A place in the queue to the agent.
async fn place(
    outbox: &Outbox,
) -> Result<mpsc::OwnedPermit<Result<v1::ControlMessage, Status>>, Error> {
    let place = outbox.clone().reserve_owned();
    match tokio::time::timeout(limits::SEND_DEADLINE, place).await {
        Ok(place) => place.map_err(|_| Error::Unavailable("the agent has gone".to_owned())),
        Err(_) => {
            let secs = limits::SEND_DEADLINE.as_secs();
            let text = format!("the agent took nothing for {secs} s");
            Err(Error::Unavailable(text))
        }
    }
}

fn wire(message: ToAgent) -> v1::ControlMessage {
    v1::ControlMessage {
        message: Some(message),
    }
}

/// Refuses an agent whose identity was voided: also where nobody could end its session.
fn must_be_its_agent(row: &Deployment, reporter: &Reporter) -> Result<(), Error> {
    if row.enrolment == reporter.enrolment && row.standing != Standing::Revoked {
        return Ok(());
    }
    let text = "this agent's certificate was voided just now";
    Err(Error::Unauthenticated(text.to_owned()))
}

/// The first message, in time and within bounds.
async fn hello(inbox: &mut Streaming<v1::AgentMessage>) -> Result<v1::Hello, Error> {
    let first = tokio::time::timeout(limits::HELLO_DEADLINE, inbox.message()).await;
    let first = first.ok().and_then(Result::ok).flatten();
    let Some(FromAgent::Hello(hello)) = first.and_then(|first| first.message) else {
        return Err(Invalid::new("message", "must be Hello first, within 10 s").into());
    };
    limits::check_hello(&hello)?;
    Ok(hello)
}

/// Sends an agent away before its session has begun.
async fn go_away(
    outbox: &Outbox,
    wait: std::time::Duration,
    reason: &str,
) -> Result<Option<Session>, Error> {
    let go_away = v1::GoAway {
        reconnect_after_secs: duration_secs(wait),
        reason: reason.to_owned(),
    };
    // An agent that has gone by itself is away too.
    let _ = outbox.send(Ok(wire(ToAgent::GoAway(go_away)))).await;
    Ok(None)
}

/// The sealing context of the session, and what opens it.
fn sealer(
    reporter: &Reporter,
    hello: &v1::Hello,
    sealing_key: &[u8],
) -> Result<(Sealer, Vec<u8>), Error> {
    let nonce = <[u8; 32]>::try_from(hello.nonce.as_ref())
        .map_err(|_| Invalid::new("hello.nonce", "must be 32 bytes"))?;
    let info = SessionInfo {
        deployment: reporter.deployment,
        enrolment: reporter.enrolment,
        nonce,
    };
    Sealer::new(sealing_key, &info).map_err(|err| Error::internal(&err))
}

/// Stores what the Hello says that is new.
async fn note_hello(app: &App, reporter: &Reporter, hello: &v1::Hello) -> Result<(), Error> {
    let Some(facts) = hello.facts.clone() else {
        return Ok(());
    };
    let version = version(&hello.agent_version);
    app.note_facts(reporter, facts, &version).await
}

#[cfg(test)]
mod tests;
