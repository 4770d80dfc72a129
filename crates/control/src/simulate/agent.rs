//! A model agent: true to the protocol, with a ledger that outlives it and keys that do not.

#[cfg(test)]
mod faults;
mod goal;
mod hear;
mod next;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::{DeploymentId, EnrolmentId};
use keyfleet_proto::v1;
use keyfleet_store::Deployment;
use v1::agent_message::Message as FromAgent;

use super::kibana::{KeyId, Kibana, Place, Provider};
use super::outbox::Outbox;
pub(crate) use goal::{Applied, Entry, Goal, goal_of};
use goal::{Intent, Slot};

/// Control sends the keys of a change by itself; only after this long the agent asks.
const KEY_PATIENCE: Duration = Duration::from_secs(2);

/// What an agent does outside of itself.
#[derive(Debug)]
pub(crate) enum Effect {
    /// It says something to control.
    Send(Box<FromAgent>),
    /// A call to Kibana ends after this long.
    Work(Duration, Job),
    /// It looks around again after this long.
    Look(Duration),
}

/// A call to Kibana.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) place: Place,
    /// Of the agent's process: what another one began is none of its business.
    pub(crate) boot: u64,
    serial: u64,
    task: Task,
}

#[derive(Debug, Clone)]
enum Task {
    Baseline,
    Write(Goal, KeyId),
    Prove(Goal),
    Delete,
}

/// One agent with its Kibana.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) id: DeploymentId,
    pub(crate) name: String,
    pub(crate) kibana: Kibana,
    /// How long one step takes on average.
    pub(crate) step: Duration,
    /// The network lets it through.
    pub(crate) has_network: bool,
    /// Its process runs.
    pub(crate) is_running: bool,
    /// Refuses every new document.
    pub(crate) rejects: bool,
    /// Takes documents and does nothing.
    pub(crate) is_stuck: bool,
    pub(crate) session: Option<u64>,
    pub(crate) boot: u64,
    pub(crate) enrolment: EnrolmentId,
    disk: Disk,
    memory: Memory,
}

/// What outlives the process.
#[derive(Debug, Default)]
struct Disk {
    desired: Option<v1::Desired>,
    entries: BTreeMap<Place, Entry>,
    rejected: Option<v1::DesiredAnswer>,
}

/// What dies with it.
#[derive(Debug, Default)]
struct Memory {
    slots: BTreeMap<Place, Slot>,
    keys: BTreeSet<KeyId>,
    asked: BTreeSet<KeyId>,
    desired_at: Option<Timestamp>,
    andon: bool,
    /// Control has answered the Hello of this session.
    is_welcome: bool,
    outbox: Outbox,
    busy: BTreeMap<Place, Job>,
    serial: u64,
}

impl Agent {
    pub(crate) fn new(row: &Deployment, step: Duration) -> Self {
        Self {
            id: row.id,
            name: row.name.to_string(),
            kibana: Kibana::default(),
            step,
            has_network: true,
            is_running: true,
            rejects: false,
            is_stuck: false,
            session: None,
            boot: 1,
            enrolment: row.enrolment,
            disk: Disk::default(),
            memory: Memory {
                // Nothing is written before control has said that it may be.
                andon: true,
                ..Memory::default()
            },
        }
    }

    /// It has done this before the simulation began.
    pub(crate) fn know(&mut self, entries: BTreeMap<Place, Entry>) {
        self.disk.entries = entries;
    }

    /// The first message of a session.
    pub(crate) fn hello(&mut self) -> v1::Hello {
        self.memory.outbox.begin_session();
        self.memory.is_welcome = false;
        let desired = self.disk.desired.as_ref();
        let rejected = self.disk.rejected.as_ref();
        v1::Hello {
            boot_id: format!("{}-{}", self.name, self.boot),
            nonce: bytes::Bytes::new(),
            agent_version: "model".to_owned(),
            facts: None,
            generation: desired.and_then(|desired| desired.generation),
            digest: desired
                .map(|desired| desired.digest.clone())
                .unwrap_or_default(),
            keys_held: self.memory.keys.iter().map(held).collect(),
            last_rejected: rejected.map(|answer| v1::LastRejected {
                generation: answer.generation,
                digest: answer.digest.clone(),
            }),
            capabilities: Vec::new(),
        }
    }

    /// A call to Kibana ends.
    pub(crate) fn finish(&mut self, job: &Job, provider: &Provider, now: Timestamp) {
        if job.boot != self.boot || !self.is_running {
            return;
        }
        self.memory.busy.remove(&job.place);
        let slot = self.memory.slots.get(&job.place);
        let is_late = slot.is_none_or(|slot| slot.serial != job.serial);
        let result = self.carry_out(job, provider, now);
        if is_late {
            return;
        }
        match (&job.task, result) {
            (Task::Baseline, result) => self.note_baseline(&job.place, result),
            (_, Ok(())) => self.with(&job.place, |slot| slot.strain = None),
            (task, Err(class)) => {
                let is_proof = matches!(task, Task::Prove(_));
                self.strain(&job.place, class, is_proof, now);
            }
        }
    }

    fn note_baseline(&mut self, place: &Place, result: Result<(), FailureClass>) {
        if result == Err(FailureClass::KibanaDown) {
            return self.with(place, |slot| slot.n_failures += 1);
        }
        self.with(place, |slot| slot.baseline_ok = Some(result.is_ok()));
    }

    fn carry_out(
        &mut self,
        job: &Job,
        provider: &Provider,
        now: Timestamp,
    ) -> Result<(), FailureClass> {
        if self.kibana.is_down {
            return Err(FailureClass::KibanaDown);
        }
        let place = &job.place;
        match &job.task {
            Task::Baseline => self.kibana.call(place, provider),
            Task::Delete => {
                self.kibana.delete(place);
                Ok(())
            }
            Task::Write(goal, key) => {
                self.kibana.write(place, goal.held(key.clone()));
                let entry = self.disk.entries.entry(place.clone()).or_default();
                entry.wrote(*goal);
                Ok(())
            }
            Task::Prove(goal) => {
                self.kibana.call(place, provider)?;
                let entry = self.disk.entries.entry(place.clone()).or_default();
                entry.proved(*goal, now);
                Ok(())
            }
        }
    }

    fn with(&mut self, place: &Place, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.memory.slots.get_mut(place) {
            change(slot);
        }
    }
}

fn held((key, version): &KeyId) -> v1::KeyHeld {
    v1::KeyHeld {
        key: key.to_string(),
        version: version.0,
    }
}
