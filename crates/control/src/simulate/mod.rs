//! The simulator: the real control logic on a database in memory, with model agents, one thread and virtual time.
//!
//! Nothing of control is copied here: planning, reports, desired states, verbs, andon, labels and removals are the
//! functions of [`crate::app`] that serve the real fleet. Modelled are only what lies outside: agents, Kibanas, the
//! provider, the network between, and the clock. The same seed gives the same run.
//!
//! Who uses it: the preview (`rollout simulate`), the stories with their snapshots, and the random seeds.

mod acts;
mod agent;
#[cfg(test)]
mod campaigns;
#[cfg(test)]
mod check;
mod conditions;
#[cfg(test)]
mod faults;
mod fleet;
mod gates;
mod kibana;
mod lines;
mod outbox;
mod planning;
pub(crate) mod preview;
mod random;
#[cfg(test)]
mod seeds;
mod session;
#[cfg(test)]
pub(crate) mod small;
#[cfg(test)]
mod stories;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::id::{DeploymentId, RolloutId};
use keyfleet_core::rollout::{Phase, Waiting};
use keyfleet_proto::v1;
use keyfleet_store::{Scratch, Tx};

use crate::error::Error;
use agent::{Agent, Effect, Job};
pub(crate) use conditions::Conditions;
#[cfg(test)]
pub(crate) use faults::Fault;
use kibana::Provider;
use lines::Lines;
use random::Random;
use session::Live;

/// Something that will happen.
#[derive(Debug)]
enum Event {
    /// The planner looks at everything.
    Plan,
    /// A message of a session arrives at control.
    ToControl(DeploymentId, u64, Box<v1::agent_message::Message>),
    /// A message of a session arrives at an agent.
    ToAgent(DeploymentId, u64, Box<v1::control_message::Message>),
    /// Control notices that a session has ended.
    Gone(DeploymentId, u64),
    /// An agent dials.
    Dial(DeploymentId),
    /// A call to Kibana ends.
    Work(DeploymentId, Job),
    /// An agent looks around again.
    Look(DeploymentId),
    /// An agent's process starts again.
    #[cfg(test)]
    Start(DeploymentId),
    /// Control's process starts again.
    #[cfg(test)]
    ControlStarts,
    /// A gate answers.
    Gate(RolloutId, String),
}

/// A fleet in virtual time.
pub(crate) struct Simulation {
    scratch: Scratch,
    start: Timestamp,
    now: Timestamp,
    /// How far control's clock is off.
    skew: Duration,
    is_slow: bool,
    random: Random,
    queue: BTreeMap<(Timestamp, u64), Event>,
    n_queued: u64,
    /// Control.
    epoch: u64,
    is_up: bool,
    plan_at: Option<Timestamp>,
    n_plans: u64,
    /// Nothing is told of it, and what only shows progress waits for the next plan.
    hurries: bool,
    sessions: BTreeMap<DeploymentId, Live>,
    gates_asked: BTreeSet<(RolloutId, String)>,
    waiting: BTreeMap<RolloutId, Vec<Waiting>>,
    /// The world around it.
    agents: BTreeMap<DeploymentId, Agent>,
    lines: Lines,
    provider: Provider,
    loss: u32,
    /// What gates answer, in parts of 10,000: pass, fail; the rest says nothing.
    gates: (u32, u32),
    log: Option<String>,
    phases: BTreeMap<RolloutId, (usize, Phase)>,
    #[cfg(test)]
    campaigns: campaigns::Campaigns,
    #[cfg(test)]
    checker: check::Checker,
}

impl Simulation {
    /// The fleet of a database, at a moment.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) fn new(
        scratch: Scratch,
        start: Timestamp,
        seed: u64,
        conditions: &Conditions,
    ) -> Result<Self, Error> {
        let mut simulation = Self {
            scratch,
            start,
            now: start,
            skew: Duration::ZERO,
            is_slow: false,
            random: Random::new(seed),
            queue: BTreeMap::new(),
            n_queued: 0,
            epoch: 1,
            is_up: true,
            plan_at: None,
            n_plans: 0,
            hurries: false,
            sessions: BTreeMap::new(),
            gates_asked: BTreeSet::new(),
            waiting: BTreeMap::new(),
            agents: BTreeMap::new(),
            lines: Lines::default(),
            provider: Provider::default(),
            loss: conditions.loss,
            gates: (10_000, 0),
            log: Some(String::new()),
            phases: BTreeMap::new(),
            #[cfg(test)]
            campaigns: campaigns::Campaigns::default(),
            #[cfg(test)]
            checker: check::Checker::default(),
        };
        simulation.populate(conditions)?;
        simulation.nudge();
        Ok(simulation)
    }

    /// Goes on to the next moment at which something happens; `None` = nothing ever will by itself.
    ///
    /// # Errors
    /// Where the database fails, or control does something that it never may.
    pub(crate) fn advance(&mut self) -> Result<Option<Timestamp>, Error> {
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = self.now.max(at);
            if self.happen(event)? {
                #[cfg(test)]
                self.must_hold()?;
                return Ok(Some(self.now));
            }
        }
        Ok(None)
    }

    /// The moment, by the clock on the wall of the simulated world.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// Why the active rollouts wait.
    pub(crate) fn waiting(&self) -> &BTreeMap<RolloutId, Vec<Waiting>> {
        &self.waiting
    }

    /// Keeps no story from here on, which is quicker.
    #[cfg(test)]
    pub(crate) fn keep_no_log(&mut self) {
        self.log = None;
    }

    /// Reads the database.
    ///
    /// # Errors
    /// What `work` says.
    pub(crate) fn look<T>(
        &self,
        work: impl FnOnce(&Tx<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.scratch.run(work)
    }

    /// The time by control's clock.
    pub(crate) fn control_now(&self) -> Timestamp {
        let moved = match self.is_slow {
            true => self.now.checked_sub(self.skew),
            false => self.now.checked_add(self.skew),
        };
        moved.unwrap_or(self.now)
    }

    fn push(&mut self, after: Duration, event: Event) {
        let at = self.now.checked_add(after).unwrap_or(Timestamp::MAX);
        self.push_at(at, event);
    }

    fn push_at(&mut self, at: Timestamp, event: Event) {
        self.n_queued += 1;
        self.queue.insert((at, self.n_queued), event);
    }

    /// False where nothing happened after all.
    fn happen(&mut self, event: Event) -> Result<bool, Error> {
        match event {
            Event::Plan => return self.plan(),
            Event::ToControl(id, session, message) => self.control_hears(id, session, *message)?,
            Event::ToAgent(id, session, message) => {
                return Ok(self.agent_hears(id, session, *message));
            }
            Event::Gone(id, session) => {
                let is_live = |live: &Live| live.number == session;
                if !self.sessions.get(&id).is_some_and(is_live) {
                    return Ok(false);
                }
                self.sessions.remove(&id);
                self.nudge();
            }
            Event::Dial(id) => return Ok(self.dial(id)),
            Event::Work(id, job) => {
                let now = self.now;
                let Some(agent) = self.agents.get_mut(&id) else {
                    return Ok(false);
                };
                agent.finish(&job, &self.provider, now);
                self.go_on(id);
            }
            Event::Look(id) => self.go_on(id),
            #[cfg(test)]
            Event::Start(id) => {
                let Some(agent) = self.agents.get_mut(&id).filter(|agent| !agent.is_running) else {
                    return Ok(false);
                };
                agent.start();
                self.note_of(id, || "its agent starts again".to_owned());
                self.go_on(id);
                self.dial(id);
            }
            #[cfg(test)]
            Event::ControlStarts => self.control_starts()?,
            Event::Gate(rollout, name) => return self.gate_answers(rollout, &name),
        }
        Ok(true)
    }

    /// An agent goes on as far as it can, and says what it has to say.
    fn go_on(&mut self, id: DeploymentId) {
        let Some(agent) = self.agents.get_mut(&id) else {
            return;
        };
        let session = agent.session;
        let effects = agent.go_on(&mut self.random, self.now);
        let again = agent.tries_again_at();
        for effect in effects {
            #[cfg(test)]
            if let Effect::Send(message) = &effect
                && let v1::agent_message::Message::DesiredAnswer(answer) = &**message
                && !answer.rejected.is_empty()
            {
                self.checker.refused(id, answer);
            }
            match (effect, session) {
                (Effect::Send(message), Some(session)) => self.send_control(id, session, *message),
                (Effect::Send(_), None) => {}
                (Effect::Work(after, job), _) => self.push(after, Event::Work(id, job)),
                (Effect::Look(after), _) => self.push(after, Event::Look(id)),
            }
        }
        if let Some(again) = again.filter(|again| *again > self.now) {
            self.push_at(again, Event::Look(id));
        }
    }
}
