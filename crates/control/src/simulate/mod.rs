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
mod check;
mod conditions;
mod fleet;
mod kibana;
mod lines;
mod outbox;
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
use keyfleet_core::rollout::{GateState, Phase, Verdict, Waiting, WaitingOn};
use keyfleet_proto::v1;
use keyfleet_store::{Scratch, Tx};

use crate::app::step::{Outcome, Surroundings, begin_anew, step_all};
use crate::error::Error;
use crate::tasks::planner::cut_off;
pub(crate) use acts::Fault;
use agent::{Agent, Effect, Job};
pub(crate) use conditions::{Conditions, InvalidConditions};
use kibana::Provider;
use lines::Lines;
use random::Random;
use session::Live;

/// How long control takes from a nudge to its plan, and how much more for each deployment of the fleet.
const PLANNING: Duration = Duration::from_millis(20);
const PLANNING_EACH: Duration = Duration::from_micros(50);

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
    Start(DeploymentId),
    /// Control's process starts again.
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

    /// Everything that must hold does.
    #[cfg(test)]
    fn must_hold(&mut self) -> Result<(), Error> {
        let broken = self.violations()?;
        if broken.is_empty() {
            return Ok(());
        }
        let broken = broken.join("; ");
        self.note("CHECKER", || broken.clone());
        Err(Error::Precondition(broken))
    }

    /// The moment, by the clock on the wall of the simulated world.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// When something happens next by itself.
    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        let next = self.queue.first_key_value();
        next.map(|((at, _), _)| *at)
    }

    /// Why the active rollouts wait.
    pub(crate) fn waiting(&self) -> &BTreeMap<RolloutId, Vec<Waiting>> {
        &self.waiting
    }

    /// The story so far: when, who, what.
    pub(crate) fn log(&self) -> &str {
        self.log.as_deref().unwrap_or_default()
    }

    /// Keeps no story from here on, which is quicker.
    pub(crate) fn keep_no_log(&mut self) {
        self.log = None;
    }

    /// Appends why everything waits.
    pub(crate) fn explain(&mut self) {
        let lines: Vec<String> = self
            .waiting
            .values()
            .flatten()
            .map(|waiting| self.sentence(waiting))
            .collect();
        for line in lines {
            self.note("why", || line);
        }
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

    /// Changes the database.
    fn write<T, E: From<keyfleet_store::Error>>(
        &mut self,
        work: impl FnOnce(&Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        #[cfg(test)]
        {
            self.checker.rows = None;
        }
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

    /// Wakes the planner.
    fn nudge(&mut self) {
        if !self.is_up {
            return;
        }
        let n = u32::try_from(self.agents.len()).unwrap_or(u32::MAX);
        let delay = self.random.about(PLANNING) + PLANNING_EACH.saturating_mul(n);
        self.plan_after(delay);
    }

    fn plan_after(&mut self, delay: Duration) {
        let at = self.now.checked_add(delay).unwrap_or(Timestamp::MAX);
        if self.plan_at.is_none_or(|known| at < known) {
            self.plan_at = Some(at);
            self.push_at(at, Event::Plan);
        }
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
            Event::Start(id) => {
                let Some(agent) = self.agents.get_mut(&id).filter(|agent| !agent.is_running) else {
                    return Ok(false);
                };
                agent.start();
                self.note_of(id, || "its agent starts again".to_owned());
                self.go_on(id);
                self.dial(id);
            }
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
            if let Effect::Send(v1::agent_message::Message::DesiredAnswer(answer)) = &effect
                && !answer.rejected.is_empty()
            {
                self.checker.refused(id, answer);
            }
            match (effect, session) {
                (Effect::Send(message), Some(session)) => self.to_control(id, session, message),
                (Effect::Send(_), None) => {}
                (Effect::Work(after, job), _) => self.push(after, Event::Work(id, job)),
                (Effect::Look(after), _) => self.push(after, Event::Look(id)),
            }
        }
        if let Some(again) = again.filter(|again| *again > self.now) {
            self.push_at(again, Event::Look(id));
        }
    }

    /// What the planner's task does when it wakes.
    fn plan(&mut self) -> Result<bool, Error> {
        if self.plan_at.is_none_or(|at| at > self.now) {
            return Ok(false);
        }
        self.plan_at = None;
        let mut around = Surroundings {
            now: self.control_now(),
            epoch: self.epoch,
            online: self.sessions.keys().copied().collect(),
            turns: BTreeMap::new(),
            #[cfg(test)]
            watch: check::watch,
            #[cfg(not(test))]
            watch: crate::app::step::unwatched,
        };
        let (outcomes, cut_off) = self.write(|tx| {
            let cut_off = cut_off(tx)?;
            around.online.retain(|id| !cut_off.contains_key(id));
            Ok::<_, Error>((step_all(tx, &around)?, cut_off))
        })?;
        self.publish(outcomes, &cut_off)?;
        self.note_phases()?;
        self.ask_gates()?;
        Ok(true)
    }

    /// Tells the sessions, keeps the reasons, and sleeps until the plans ask for it.
    fn publish(
        &mut self,
        outcomes: BTreeMap<RolloutId, Outcome>,
        cut_off: &BTreeMap<DeploymentId, String>,
    ) -> Result<(), Error> {
        let wake_at = outcomes.values().filter_map(|done| done.wake_at).min();
        self.waiting.clear();
        let mut touched = BTreeSet::new();
        for (id, mut outcome) in outcomes {
            for waiting in &mut outcome.waiting {
                let why = waiting.deployment().and_then(|id| cut_off.get(&id));
                if let Some(why) = why {
                    waiting.on = WaitingOn::CutOff(why.clone());
                }
            }
            touched.extend(outcome.touched);
            if !outcome.ended {
                self.waiting.insert(id, outcome.waiting);
            }
        }
        for id in touched {
            self.tell(id)?;
        }
        if let Some(at) = wake_at {
            let left = at.duration_since(self.control_now());
            #[cfg(test)]
            if !left.is_positive() {
                self.checker
                    .report("a plan that is quiet asks for the next at once".to_owned());
            }
            let left = Duration::try_from(left).unwrap_or_default();
            // A timer fires a moment late, never early.
            self.plan_after(left + Duration::from_millis(1));
        }
        Ok(())
    }

    fn control_starts(&mut self) -> Result<(), Error> {
        self.is_up = true;
        self.epoch += 1;
        let now = self.control_now();
        self.write(|tx| begin_anew(tx, now))?;
        self.note("control", || "starts again".to_owned());
        self.nudge();
        Ok(())
    }

    /// Every gate of a run that goes on is asked once an interval.
    fn ask_gates(&mut self) -> Result<(), Error> {
        let now = self.control_now();
        for rollout in self.scratch.run(|tx| tx.active_rollouts())? {
            if rollout.run.phase != Phase::Progressing {
                continue;
            }
            for gate in &rollout.strategy.gates {
                let known = rollout
                    .run
                    .gates
                    .iter()
                    .find(|known| known.name == gate.name);
                let due = known.and_then(|known| known.at.checked_add(gate.interval).ok());
                let left =
                    due.map(|due| Duration::try_from(due.duration_since(now)).unwrap_or_default());
                let asked = (rollout.id, gate.name.clone());
                if self.gates_asked.insert(asked.clone()) {
                    let left = left.unwrap_or_default().min(gate.interval);
                    self.push(left, Event::Gate(asked.0, asked.1));
                }
            }
        }
        Ok(())
    }

    fn gate_answers(&mut self, id: RolloutId, name: &str) -> Result<bool, Error> {
        self.gates_asked.remove(&(id, name.to_owned()));
        if !self.is_up {
            return Ok(false);
        }
        let number = u32::try_from(self.random.below(10_000)).unwrap_or_default();
        let verdict = match self.gates {
            (pass, _) if number < pass => Verdict::Pass,
            (pass, fail) if number < pass + fail => Verdict::Fail,
            _ => Verdict::Inconclusive,
        };
        let now = self.control_now();
        let stored = self.write(|tx| store_verdict(tx, id, name, verdict, now))?;
        if stored {
            self.note("gate", || format!("{name} says {}", verdict.as_str()));
            self.nudge();
        }
        Ok(stored)
    }
}

fn store_verdict(
    tx: &Tx<'_>,
    id: RolloutId,
    name: &str,
    verdict: Verdict,
    now: Timestamp,
) -> Result<bool, Error> {
    let rollouts = tx.active_rollouts()?;
    let rollout = rollouts.into_iter().find(|rollout| rollout.id == id);
    let Some(mut rollout) = rollout.filter(|rollout| rollout.run.phase == Phase::Progressing)
    else {
        return Ok(false);
    };
    let gates = &rollout.strategy.gates;
    let Some(gate) = gates.iter().find(|gate| gate.name == name) else {
        return Ok(false);
    };
    let states = &mut rollout.run.gates;
    let known = states.iter().position(|state| state.name == name);
    let known = known.map(|index| states.remove(index));
    let text = format!("the model says {}", verdict.as_str());
    states.push(GateState::after(known.as_ref(), gate, verdict, text, now));
    tx.put_gates(id, states)?;
    Ok(true)
}
