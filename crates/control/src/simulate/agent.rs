//! A model agent: true to the protocol, with a ledger that outlives it and keys that do not.

mod goal;
mod next;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::{DeploymentId, EnrolmentId, Generation, KeyVersion};
use keyfleet_proto::{Invalid, v1};
use keyfleet_store::Deployment;
use v1::agent_message::Message as FromAgent;
use v1::control_message::Message as ToAgent;

use super::kibana::{KeyId, Kibana, Place, Provider};
use super::outbox::Outbox;
use super::random::Random;
pub(crate) use goal::{Applied, Entry, Goal, goal_of};
use goal::{Intent, Slot};

/// Control sends the keys of a change by itself; only after this long the agent asks.
const KEY_PATIENCE: Duration = Duration::from_secs(2);

/// What an agent does outside of itself.
#[derive(Debug)]
pub(crate) enum Effect {
    /// It says something to control.
    Send(FromAgent),
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

    /// The keys in its memory.
    pub(crate) fn keys(&self) -> &BTreeSet<KeyId> {
        &self.memory.keys
    }

    /// The generation it has.
    pub(crate) fn generation(&self) -> Option<Generation> {
        let desired = self.disk.desired.as_ref();
        desired.and_then(|desired| desired.generation.map(Into::into))
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

    /// Its process dies. A write in flight may have been carried out all the same.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        for (place, job) in std::mem::take(&mut self.memory.busy) {
            if self.kibana.is_down || !random.chance(5_000) {
                continue;
            }
            match job.task {
                Task::Write(goal, key) => self.kibana.write(&place, goal.held(key)),
                Task::Delete => self.kibana.delete(&place),
                Task::Baseline | Task::Prove(_) => {}
            }
        }
        (self.is_running, self.session) = (false, None);
        self.memory = Memory {
            andon: true,
            ..Memory::default()
        };
    }

    /// Its process starts again, with what it kept.
    pub(crate) fn start(&mut self) {
        self.boot += 1;
        self.is_running = true;
        if let Some(desired) = self.disk.desired.clone() {
            self.adopt(desired);
        }
        // Nobody knows whether control heard it before the agent ended.
        if let Some(answer) = self.disk.rejected.clone() {
            self.memory.outbox.answer(answer);
        }
    }

    /// Control says something.
    pub(crate) fn hear(&mut self, message: ToAgent, now: Timestamp) {
        match message {
            ToAgent::Welcome(welcome) => {
                self.memory.andon = welcome.andon;
                self.memory.is_welcome = true;
                self.memory.asked.clear();
                if welcome.report_full_state {
                    self.memory.outbox.report_everything();
                }
            }
            ToAgent::Desired(desired) => self.on_desired(desired, now),
            ToAgent::SealedKey(sealed) => {
                if let Ok(name) = sealed.key.parse() {
                    let key = (name, KeyVersion(sealed.version));
                    self.memory.asked.remove(&key);
                    if self.names(&key) {
                        self.memory.keys.insert(key);
                    }
                }
            }
            ToAgent::StatusAnswer(answer) => {
                self.memory.outbox.acknowledge(answer.sequence);
                if answer.report_full_state {
                    self.memory.outbox.report_everything();
                }
            }
            ToAgent::Andon(andon) => self.memory.andon = andon.on,
            ToAgent::KeyRefused(_)
            | ToAgent::GoAway(_)
            | ToAgent::RenewNow(_)
            | ToAgent::ProbeGrant(_)
            | ToAgent::CheckNow(_) => {}
        }
    }

    /// Control asked for nothing, and hears everything again.
    pub(crate) fn repeat_everything(&mut self) {
        self.memory.outbox.report_everything();
    }

    fn names(&self, (name, version): &KeyId) -> bool {
        let wishes = self.memory.slots.values().map(|slot| &slot.wish);
        let mut named = wishes.filter_map(|wish| Some((&wish.key, wish.assignment?)));
        named.any(|(key, told)| key == name.as_str() && told.key_version == version.0)
    }

    fn on_desired(&mut self, desired: v1::Desired, now: Timestamp) {
        let mut answer = v1::DesiredAnswer {
            generation: desired.generation,
            digest: desired.digest.clone(),
            rejected: String::new(),
        };
        match self.judge(&desired) {
            Ok(true) => {
                self.disk.rejected = None;
                self.memory.desired_at = Some(now);
                self.adopt(desired);
            }
            Ok(false) => {}
            Err(why) => {
                answer.rejected = why;
                self.disk.rejected = Some(answer.clone());
            }
        }
        self.memory.outbox.answer(answer);
    }

    /// True where it is new.
    fn judge(&self, new: &v1::Desired) -> Result<bool, String> {
        if self.rejects {
            return Err("this agent's rules refuse the document".to_owned());
        }
        let generation =
            |desired: &v1::Desired| Generation::from(desired.generation.unwrap_or_default());
        let Some(held) = &self.disk.desired else {
            return Ok(true);
        };
        let (new_one, old_one) = (generation(new), generation(held));
        if new_one < old_one {
            return Err(format!("generation {new_one} is older than {old_one}"));
        } else if new_one > old_one {
            return Ok(true);
        } else if new.digest == held.digest {
            return Ok(false);
        }
        Err(format!(
            "generation {new_one} came before with another content"
        ))
    }

    /// Makes this the desired state. What did not change goes on undisturbed.
    fn adopt(&mut self, desired: v1::Desired) {
        let wishes: BTreeMap<Place, v1::DesiredBinding> = desired
            .bindings
            .iter()
            .filter_map(|wish| Some((place_of(wish).ok()?, wish.clone())))
            .collect();
        let Memory { slots, outbox, .. } = &mut self.memory;
        slots.retain(|place, _| {
            let stays = wishes.contains_key(place);
            if !stays {
                outbox.forget(place);
            }
            stays
        });
        for (place, wish) in wishes {
            match self.memory.slots.get(&place) {
                Some(slot) if goal_of(&slot.wish) == goal_of(&wish) && !wish.remove => {
                    self.memory.outbox.renew(&place, desired.generation);
                    if slot.wish == wish {
                        continue;
                    }
                }
                Some(_) => {
                    self.memory.outbox.forget(&place);
                    self.disk.entries.entry(place.clone()).or_default().failure = None;
                }
                None => {}
            }
            self.memory.serial += 1;
            let slot = Slot::new(wish, self.memory.serial);
            self.memory.slots.insert(place, slot);
        }
        self.disk.desired = Some(desired);
        let kept: Vec<KeyId> = self.memory.keys.iter().cloned().collect();
        for key in kept {
            if !self.names(&key) {
                self.memory.keys.remove(&key);
            }
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

fn place_of(wish: &v1::DesiredBinding) -> Result<Place, Invalid> {
    let reference = wish.binding.as_ref();
    let reference = reference.ok_or_else(|| Invalid::missing("binding"))?;
    Ok((
        Invalid::parse("space", &reference.space)?,
        Invalid::parse("connector", &reference.connector)?,
    ))
}
