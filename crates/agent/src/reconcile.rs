//! Brings this Kibana to its desired state and keeps it there. The one owner of desired state, ledger and keys.
//!
//! A loop without memory of where it was: whatever happens, each binding is asked for its next step
//! ([`decide::next`](crate::decide::next)), a few steps run at a time, and their outcomes are noted.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use keyfleet_core::binding::Failure;
use keyfleet_core::id::{DeploymentId, Generation, KeyName, KeyVersion};
use keyfleet_kibana::Client;
use keyfleet_proto::v1;
use secrecy::SecretString;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::Accept;
use crate::ledger::Ledger;
use crate::outbox::Outbox;
use crate::pace::Bucket;
use crate::wish::{Desired, KeyId, Place};
use crate::work::{Done, Job, run};

mod advance;
mod check;
mod grants;
mod outcome;
mod quiet;
mod report;
mod slot;
mod survey;

use check::Check;
use grants::Grants;
use quiet::Quiet;
use slot::Slot;
use survey::Survey;

/// Calls to Kibana at a time: enough to keep it busy, too few to disturb its users.
const JOBS_MAX: usize = 8;
/// How long calls in flight may take to end when the agent stops.
const DRAIN: Duration = Duration::from_secs(10);
/// Control sends the keys of a change by itself; only after this long the agent asks.
const KEY_PATIENCE: Duration = Duration::from_secs(2);
/// How long a request for a key may go unanswered before it is repeated.
const KEY_REPEAT: Duration = Duration::from_secs(30);
/// Commands that may wait: a session sends a handful and then waits for its turn.
const COMMANDS_MAX: usize = 64;

/// What a session tells.
#[derive(Debug)]
pub(crate) enum Command {
    /// Control is there.
    Connected {
        andon: bool,
        probes_per_minute: u32,
        /// Live calls need a grant of control's.
        probe_grants: bool,
    },
    /// A new desired state.
    Desired(v1::Desired),
    /// A key that was asked for or comes with a change.
    Key {
        id: KeyId,
        value: SecretString,
        fingerprint: String,
    },
    /// A key that control does not send.
    KeyRefused { id: KeyId, reason: String },
    /// The fleet-wide stop.
    Andon(bool),
    /// So many live calls may begin.
    ProbeGrant(u32),
    /// Somebody waits for fresh facts.
    CheckNow,
    /// What was proven longer ago than this is to be proven anew.
    ProveNow(Duration),
}

/// What a session must know for its `Hello`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Held {
    pub(crate) desired: Option<(Generation, bytes::Bytes)>,
    pub(crate) keys: Vec<(KeyName, KeyVersion)>,
    pub(crate) last_rejected: Option<v1::LastRejected>,
}

/// The session's end.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) held: watch::Receiver<Held>,
    pub(crate) outbox: Arc<Outbox>,
}

/// What a reconciler works with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) client: Client,
    pub(crate) accept: Accept,
    pub(crate) deployment: DeploymentId,
    pub(crate) drift_interval: Duration,
    pub(crate) ledger: Ledger,
}

type Work = Pin<Box<dyn Future<Output = Done> + Send>>;

/// The actor.
pub(crate) struct Reconciler {
    // What it works with.
    client: Client,
    accept: Accept,
    deployment: DeploymentId,
    drift_interval: Duration,
    // Inputs and outputs.
    commands: mpsc::Receiver<Command>,
    held: watch::Sender<Held>,
    outbox: Arc<Outbox>,
    // What it knows.
    ledger: Ledger,
    desired: Option<Desired>,
    slots: BTreeMap<Place, Slot>,
    keys: BTreeMap<KeyId, Key>,
    keys_asked: BTreeMap<KeyId, Instant>,
    keys_refused: BTreeMap<KeyId, String>,
    last_rejected: Option<v1::LastRejected>,
    /// When control last sent a desired state; its keys are on their way.
    desired_at: Option<Instant>,
    andon: bool,
    bucket: Bucket,
    grants: Grants,
    quiet: Quiet,
    check: Check,
    /// Proofs from before are too old: control said so.
    prove_since: Option<Timestamp>,
    survey: Survey,
    /// What the last preflight found.
    checked: Option<v1::KibanaFacts>,
    /// The same with what lists showed, as control has it.
    facts: Option<v1::KibanaFacts>,
    // What is under way.
    work: FuturesUnordered<Work>,
    /// Writes that begin once the ledger is on disk.
    writes: Vec<Job>,
    /// Where a call is under way, also one for a wish that is gone: never two at a time for one connector.
    busy: BTreeSet<Place>,
    serial: u64,
}

/// A key in memory.
struct Key {
    value: SecretString,
    fingerprint: String,
}

impl Reconciler {
    /// Takes up the desired state that was kept last.
    ///
    /// # Errors
    /// Where the state directory cannot be read.
    pub(crate) fn new(settings: Settings) -> std::io::Result<(Self, Handle)> {
        let Settings {
            client,
            accept,
            deployment,
            drift_interval,
            ledger,
        } = settings;
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let (held, held_receiver) = watch::channel(Held::default());
        let outbox = Arc::new(Outbox::default());
        let handle = Handle {
            commands: sender,
            held: held_receiver,
            outbox: outbox.clone(),
        };
        let now = Instant::now();
        let (kept, rejected) = (ledger.desired()?, ledger.rejected()?);
        let mut reconciler = Self {
            client,
            accept,
            deployment,
            drift_interval,
            commands,
            held,
            outbox,
            ledger,
            desired: None,
            slots: BTreeMap::new(),
            keys: BTreeMap::new(),
            keys_asked: BTreeMap::new(),
            keys_refused: BTreeMap::new(),
            last_rejected: None,
            desired_at: None,
            // Nothing is written before control has said that it may be.
            andon: true,
            bucket: Bucket::new(0, now),
            grants: Grants::default(),
            quiet: Quiet::default(),
            check: Check::new(now),
            prove_since: None,
            survey: Survey::default(),
            checked: None,
            facts: None,
            work: FuturesUnordered::new(),
            writes: Vec::new(),
            busy: BTreeSet::new(),
            serial: 0,
        };
        if let Some(desired) = kept.and_then(|wire| Desired::read(wire).ok()) {
            reconciler.adopt(desired);
        }
        // Nobody knows whether control heard it before the agent ended.
        if let Some(answer) = rejected {
            reconciler.last_rejected = Some(refusal(&answer));
            reconciler.outbox.answer(answer);
        }
        reconciler.show_held();
        Ok((reconciler, handle))
    }

    /// Runs until stopped; calls in flight then get [`DRAIN`] to end.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let wake = self.start_what_is_due();
            if !self.keep_and_write() {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                // Each arm is cancel safe: a command stays in its queue, work stays in its set.
                Some(command) = self.commands.recv() => self.on_command(command),
                Some(done) = self.work.next(), if !self.work.is_empty() => self.on_done(done),
                () = sleep_until(wake) => {}
            }
            // What else has ended by now costs no turn, and no writing of the ledger, of its own.
            while let Some(done) = self.work.next().now_or_never().flatten() {
                self.on_done(done);
            }
        }
        let drained = timeout(DRAIN, async {
            while let Some(done) = self.work.next().await {
                self.on_done(done);
            }
        });
        if drained.await.is_err() {
            tracing::warn!(
                calls = self.work.len(),
                "calls to Kibana did not end in time; their outcome is looked up at the next start"
            );
        }
        // It is logged, and there is nobody left to tell.
        let _ = self.flush();
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Connected {
                andon,
                probes_per_minute,
                probe_grants,
            } => {
                self.bucket.set_rate(probes_per_minute, Instant::now());
                self.grants.connected(probe_grants);
                self.keys_asked.clear();
                self.keys_refused.clear();
                self.set_andon(andon);
            }
            Command::Desired(wire) => self.on_desired(&wire),
            Command::Key {
                id,
                value,
                fingerprint,
            } => {
                self.keys_asked.remove(&id);
                self.keys_refused.remove(&id);
                if self.names_key(&id) {
                    self.keys.insert(id, Key { value, fingerprint });
                    self.show_held();
                }
            }
            Command::KeyRefused { id, reason } => {
                if self.names_key(&id) {
                    self.keys_refused.insert(id, reason);
                }
            }
            Command::Andon(on) => self.set_andon(on),
            Command::ProbeGrant(count) => self.grants.grant(count, Instant::now()),
            Command::ProveNow(age) => {
                self.prove_since = Self::now_on_the_wall().checked_sub(age).ok();
            }
            Command::CheckNow => {
                self.check.ask(Instant::now());
                self.survey.ask(Instant::now());
            }
        }
    }

    /// True where the desired state has use for this key; nothing else is kept.
    fn names_key(&self, id: &KeyId) -> bool {
        self.desired
            .as_ref()
            .is_some_and(|desired| desired.names_key(id))
    }

    fn set_andon(&mut self, on: bool) {
        if self.andon != on {
            tracing::info!(on, "the fleet-wide stop changed");
        }
        self.andon = on;
    }

    fn on_desired(&mut self, wire: &v1::Desired) {
        let mut answer = v1::DesiredAnswer {
            generation: wire.generation,
            digest: wire.digest.clone(),
            rejected: String::new(),
        };
        match self.judge(wire) {
            Ok(Some(desired)) => {
                if let Err(error) = self.ledger.keep_desired(wire) {
                    tracing::error!(%error, "cannot keep the desired state; control will send it again after a restart");
                }
                tracing::info!(generation = %desired.generation, bindings = desired.wishes.len(), "received a desired state");
                self.last_rejected = None;
                self.keep_rejected(None);
                self.desired_at = Some(Instant::now());
                self.keys_refused.clear();
                self.adopt(desired);
            }
            Ok(None) => {}
            Err(reason) => {
                tracing::warn!(%reason, "rejected a desired state");
                answer.rejected = reason;
                let refused = Some(refusal(&answer));
                // A control that offers the same again and again must not wear out the disk.
                if self.last_rejected != refused {
                    self.last_rejected = refused;
                    self.keep_rejected(Some(&answer));
                }
            }
        }
        self.show_held();
        self.outbox.answer(answer);
    }

    fn keep_rejected(&self, answer: Option<&v1::DesiredAnswer>) {
        if let Err(error) = self.ledger.keep_rejected(answer) {
            tracing::error!(%error, "cannot keep the answer to a desired state; control may offer it again after a restart");
        }
    }

    /// The new state; `None` where it is the one that is held.
    fn judge(&self, wire: &v1::Desired) -> Result<Option<Desired>, String> {
        let new = Desired::read(wire.clone()).map_err(|invalid| invalid.to_string())?;
        let Some(held) = &self.desired else {
            return Ok(Some(new));
        };
        if new.generation < held.generation {
            return Err(format!(
                "generation {} is older than {}, which this agent has",
                new.generation, held.generation
            ));
        }
        if new.generation > held.generation {
            return Ok(Some(new));
        }
        if new.digest == held.digest {
            return Ok(None);
        }
        Err(format!(
            "generation {} came before with another content",
            new.generation
        ))
    }

    /// Makes this the desired state. What did not change goes on undisturbed.
    fn adopt(&mut self, desired: Desired) {
        let gone: Vec<Place> = self
            .slots
            .keys()
            .filter(|place| !desired.wishes.contains_key(*place))
            .cloned()
            .collect();
        for place in gone {
            self.slots.remove(&place);
            self.outbox.forget(&place);
        }
        for (place, wish) in &desired.wishes {
            match self.slots.get(place) {
                // A removal has no number of its try, so each document asks for it anew.
                Some(slot) if slot.wish.goal == wish.goal && wish.goal.is_some() => {
                    self.outbox.renew(place, desired.generation.into());
                    if *slot.wish == *wish {
                        continue;
                    }
                }
                // Another try, also of what is there: what was said and given up before is no answer to it.
                Some(_) => {
                    self.outbox.forget(place);
                    self.keep(place, |entry| entry.failure = None);
                }
                // The agent has just started.
                None => {}
            }
            let refused = wish.check(place, self.deployment, &self.accept).err();
            self.serial += 1;
            let mut slot = Slot::new(wish.clone(), self.serial, refused);
            slot.references = self.ledger.get(place).references;
            self.slots.insert(place.clone(), slot);
        }
        self.keys.retain(|key, _| desired.names_key(key));
        self.desired = Some(desired);
        self.outbox.expect(self.slots.len());
        self.check.covers(self.slots.iter(), Instant::now());
        self.report_refused();
        self.publish_facts();
    }

    fn report_refused(&mut self) {
        let refused: Vec<(Place, Failure)> = self
            .slots
            .iter()
            .filter_map(|(place, slot)| Some((place.clone(), slot.refused.clone()?)))
            .collect();
        for (place, failure) in refused {
            self.report_failed(&place, &failure);
        }
    }

    fn show_held(&self) {
        let desired = self
            .desired
            .as_ref()
            .map(|desired| (desired.generation, desired.digest.clone()));
        let keys = self.keys.keys().cloned().collect();
        let held = Held {
            desired,
            keys,
            last_rejected: self.last_rejected.clone(),
        };
        self.held.send_if_modified(|old| {
            let changed = *old != held;
            *old = held;
            changed
        });
    }

    fn begin(&mut self, job: Job) {
        self.work.push(Box::pin(run(self.client.clone(), job)));
    }

    fn goal_of(&self, place: &Place) -> Option<crate::wish::Goal> {
        self.slots.get(place).and_then(|slot| slot.wish.goal)
    }

    fn now_on_the_wall() -> Timestamp {
        Timestamp::now()
    }
}

/// What `Hello` says of a refusal.
fn refusal(answer: &v1::DesiredAnswer) -> v1::LastRejected {
    v1::LastRejected {
        generation: answer.generation,
        digest: answer.digest.clone(),
    }
}
