//! A run, its fleet and a clock: what the shell around the planner does, without IO.

use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::DeploymentId;
use keyfleet_core::rollout::{
    Event, Phase, Plan, PlanInput, Run, Step, Strategy, Target, Verb, plan,
};

use crate::invariants;

/// More plans than this at one instant is a livelock: every wave may begin once, every budget may be spent
/// once, every deadline may pass once.
const PLANS_AT_ONCE_MAX: usize = 24;

/// What an agent does with a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Everything works.
    None,
    /// It never confirms.
    Silent,
    /// It confirms and never applies.
    Hangs,
    /// It refuses the change.
    Rejects,
    /// The live call fails.
    Fails(FailureClass),
}

/// A model agent: how long each step takes it, and what goes wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Agent {
    pub(crate) delay: Duration,
    pub(crate) fault: Fault,
    pub(crate) rollback_fault: Option<FailureClass>,
}

/// A run, its fleet and a clock.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) strategy: Strategy,
    pub(crate) run: Run,
    pub(crate) targets: Vec<Target>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) now: Timestamp,
    pub(crate) andon: bool,
    /// True once a proven deployment failed: it takes from the budget of what is already in flight.
    pub(crate) regressed: bool,
    /// What happened, one line each.
    pub(crate) log: String,
    last: Plan,
}

/// The id of the deployment with this index; ids are in the order of indices.
pub(crate) fn id(index: usize) -> DeploymentId {
    DeploymentId::new(uuid::Uuid::from_u128(index as u128 + 1))
}

impl World {
    /// A run over deployments of these waves, all online and healthy, each step taking a second.
    pub(crate) fn new(strategy: Strategy, waves: &[usize]) -> Self {
        assert_eq!(strategy.validate(), Ok(()));
        let target = |(index, &wave): (usize, &usize)| Target {
            deployment: id(index),
            wave,
            step: Step::Waiting,
            online: true,
            baseline_red: false,
            forgiven: false,
            can_roll_back: true,
        };
        let agent = Agent {
            delay: Duration::from_secs(1),
            fault: Fault::None,
            rollback_fault: None,
        };
        let now = Timestamp::UNIX_EPOCH;
        Self {
            strategy,
            run: Run {
                phase: Phase::Pending,
                wave: 0,
                wave_started_at: now,
                hold_reason: String::new(),
            },
            targets: waves.iter().enumerate().map(target).collect(),
            agents: vec![agent; waves.len()],
            now,
            andon: false,
            regressed: false,
            log: String::new(),
            last: Plan::default(),
        }
    }

    pub(crate) fn input(&self) -> PlanInput<'_> {
        PlanInput {
            now: self.now,
            andon: self.andon.then_some("ops since noon: a test"),
            strategy: &self.strategy,
            run: &self.run,
            targets: &self.targets,
        }
    }

    /// Plans and carries out until a plan has nothing to do.
    pub(crate) fn settle(&mut self) {
        for _ in 0..PLANS_AT_ONCE_MAX {
            invariants::check_state(self);
            let plan = plan(&self.input());
            invariants::check_plan(self, &plan);
            let quiet = plan.events.is_empty()
                && plan.timed_out.is_empty()
                && plan.offer.is_empty()
                && plan.roll_back.is_empty();
            if quiet {
                self.last = plan;
                return;
            }
            self.carry_out(plan);
        }
        panic!("no quiet plan after {PLANS_AT_ONCE_MAX}:\n{}", self.log);
    }

    fn carry_out(&mut self, plan: Plan) {
        for (deployment, deadline) in plan.timed_out {
            let index = self.index(deployment);
            self.note(index, &format!("{} deadline passed", deadline.as_str()));
            let class = FailureClass::Timeout;
            self.targets[index].step = match self.targets[index].step {
                Step::RollbackOffered(_) => Step::RollbackFailed(self.now, class),
                _ => Step::Failed(self.now, class),
            };
        }
        for (event, sentence) in plan.events {
            self.happen(event, &sentence);
        }
        for deployment in plan.offer {
            let index = self.index(deployment);
            self.note(index, "offered");
            self.targets[index].step = Step::Offered(self.now);
        }
        for deployment in plan.roll_back {
            let index = self.index(deployment);
            self.note(index, "rollback offered");
            self.targets[index].step = Step::RollbackOffered(self.now);
        }
    }

    fn happen(&mut self, event: Event, sentence: &str) {
        let before = self.run.phase;
        self.run.phase = before.next(event).unwrap();
        if let Event::WaveStarted(wave) = event {
            self.run.wave = wave;
            self.run.wave_started_at = self.now;
        }
        if self.run.phase != before {
            self.run.hold_reason = sentence.to_owned();
        }
        let line = format!("{:<12} {sentence}", self.run.phase.as_str());
        self.line(&line);
    }

    /// An operator speaks; false where the run is over.
    pub(crate) fn verb(&mut self, verb: Verb) -> bool {
        let Ok(phase) = self.run.phase.next(Event::Verb(verb)) else {
            return false;
        };
        if self.run.phase != phase {
            self.run.phase = phase;
            self.run.hold_reason = format!("{} by an operator", verb.as_str());
        }
        let now = self.now;
        for target in &mut self.targets {
            match (target.step, verb) {
                (Step::Failed(..), Verb::Resume) => target.forgiven = true,
                (Step::Failed(..), Verb::Retry) if !phase.is_rollback() => {
                    target.step = Step::Waiting;
                }
                (Step::RollbackFailed(at, class), Verb::Resume | Verb::Retry) => {
                    target.step = Step::Failed(at, class);
                }
                _ => {}
            }
        }
        if matches!(verb, Verb::Resume | Verb::Retry) {
            self.run.wave_started_at = now;
        }
        let line = format!("{:<12} operator: {}", phase.as_str(), verb.as_str());
        self.line(&line);
        self.settle();
        true
    }

    /// The agent of this index connects or goes away.
    pub(crate) fn connect(&mut self, index: usize, online: bool) {
        let target = &mut self.targets[index];
        // A new session sends what is offered anew.
        if online && !target.online {
            match &mut target.step {
                Step::Offered(at) | Step::RollbackOffered(at) => *at = self.now,
                _ => {}
            }
        }
        target.online = online;
        self.note(index, if online { "online" } else { "offline" });
        self.settle();
    }

    pub(crate) fn set_andon(&mut self, on: bool) {
        if self.andon && !on {
            self.run.wave_started_at = self.now;
            for target in &mut self.targets {
                match &mut target.step {
                    Step::Offered(at)
                    | Step::Received(at)
                    | Step::Applied(at)
                    | Step::RollbackOffered(at) => *at = self.now,
                    _ => {}
                }
            }
        }
        self.andon = on;
        self.line(if on { "andon on" } else { "andon off" });
        self.settle();
    }

    /// What the agent of this index reports next, and when.
    fn next_report(&self, index: usize) -> Option<(Timestamp, Step)> {
        let (target, agent) = (&self.targets[index], &self.agents[index]);
        if !target.online || self.andon {
            return None;
        }
        let then = |at: Timestamp| at.checked_add(agent.delay).unwrap();
        let (at, step) = match (target.step, agent.fault) {
            (Step::Offered(_), Fault::Silent) | (Step::Received(_), Fault::Hangs) => return None,
            (Step::Offered(at), _) => (at, Step::Received(then(at))),
            (Step::Received(at), Fault::Rejects) => {
                (at, Step::Failed(then(at), FailureClass::Rejected))
            }
            (Step::Received(at), _) => (at, Step::Applied(then(at))),
            (Step::Applied(at), Fault::Fails(class)) => (at, Step::Failed(then(at), class)),
            (Step::Applied(at), _) => (at, Step::Proven(then(at))),
            (Step::RollbackOffered(at), _) => match agent.rollback_fault {
                None => (at, Step::RolledBack(then(at))),
                Some(class) => (at, Step::RollbackFailed(then(at), class)),
            },
            _ => return None,
        };
        Some((then(at), step))
    }

    /// Goes to the next moment at which something happens; false where nothing ever will.
    pub(crate) fn advance(&mut self) -> bool {
        let report = (0..self.targets.len())
            .filter_map(|index| self.next_report(index).map(|(at, step)| (at, index, step)))
            .min_by_key(|(at, index, _)| (*at, *index));
        match (report, self.last.wake_at) {
            (Some((at, index, step)), wake) if wake.is_none_or(|wake| at <= wake) => {
                self.now = self.now.max(at);
                self.targets[index].step = self.stamped(step);
                let word = word(step);
                self.note(index, &word);
            }
            (_, Some(wake)) => self.now = self.now.max(wake),
            (_, None) => return false,
        }
        self.settle();
        true
    }

    /// Goes on until the run has ended or `moments` have passed.
    pub(crate) fn run_for(&mut self, moments: usize) {
        for _ in 0..moments {
            if self.run.phase.is_terminal() || !self.advance() {
                return;
            }
        }
    }

    /// What everything waits for now, for the log.
    pub(crate) fn explain(&mut self) {
        for waiting in self.last.waiting_on.clone() {
            let who = match waiting.deployment {
                Some(deployment) => format!("d{}", self.index(deployment)),
                None => "run".to_owned(),
            };
            self.log
                .push_str(&format!("          {who:<4} | {}\n", waiting.on));
        }
    }

    /// The step as of now: reports are late when the clock jumped.
    fn stamped(&self, step: Step) -> Step {
        let now = self.now;
        match step {
            Step::Received(_) => Step::Received(now),
            Step::Applied(_) => Step::Applied(now),
            Step::Proven(_) => Step::Proven(now),
            Step::Failed(_, class) => Step::Failed(now, class),
            Step::RolledBack(_) => Step::RolledBack(now),
            Step::RollbackFailed(_, class) => Step::RollbackFailed(now, class),
            Step::Waiting | Step::Offered(_) | Step::RollbackOffered(_) => step,
        }
    }

    fn index(&self, deployment: DeploymentId) -> usize {
        self.targets
            .iter()
            .position(|target| target.deployment == deployment)
            .unwrap()
    }

    fn note(&mut self, index: usize, what: &str) {
        let name = self.strategy.waves[self.targets[index].wave].name.clone();
        self.line(&format!("  d{index} ({name}) {what}"));
    }

    fn line(&mut self, text: &str) {
        let seconds = self.now.as_second();
        let (minutes, seconds) = (seconds.div_euclid(60), seconds.rem_euclid(60));
        self.log
            .push_str(&format!("{minutes:>4}:{seconds:02}  {}\n", text.trim_end()));
    }
}

fn word(step: Step) -> String {
    match step {
        Step::Waiting => "waiting".to_owned(),
        Step::Offered(_) => "offered".to_owned(),
        Step::Received(_) => "received".to_owned(),
        Step::Applied(_) => "applied".to_owned(),
        Step::Proven(_) => "proven".to_owned(),
        Step::Failed(_, class) => format!("failed with {class}"),
        Step::RollbackOffered(_) => "rollback offered".to_owned(),
        Step::RolledBack(_) => "rolled back".to_owned(),
        Step::RollbackFailed(_, class) => format!("rollback failed with {class}"),
    }
}
