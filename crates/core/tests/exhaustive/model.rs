//! What can happen to a run, and what the shell does then.

use keyfleet_core::Timestamp;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::DeploymentId;
use keyfleet_core::rollout::{
    Event, Gate, GateState, Opening, Phase, Plan, PlanInput, Run, Step, Strategy, Target, Verb,
    Verdict, invariants, plan,
};

use crate::state::{NOW, State, UNIT};

/// More plans than this at one moment is a livelock.
const PLANS_AT_ONCE_MAX: usize = 24;

/// A small world: its strategy, and what may happen in it beside time, success and all seven verbs.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) strategy: Strategy,
    /// The deployments that come and go.
    pub(crate) travellers: Vec<usize>,
    /// How a live call may fail.
    pub(crate) failures: Vec<FailureClass>,
    /// The deployments that were broken before.
    pub(crate) broken: Vec<usize>,
    /// The deployment that may leave the run.
    pub(crate) leaver: Option<usize>,
    /// True where the fleet may be stopped.
    pub(crate) andon: bool,
    /// True where a rollback may fail.
    pub(crate) rollback_fails: bool,
}

/// Something that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    /// A unit of time passes.
    Time,
    /// A deployment comes one step further.
    Further(usize),
    /// What a deployment is at fails.
    Fails(usize, FailureClass),
    /// A deployment connects or goes away.
    Connect(usize, bool),
    /// A deployment no longer belongs to what the run is for.
    Leaves(usize),
    /// An operator speaks.
    Says(Verb),
    /// Somebody agrees with a wave.
    Approves(usize, &'static str),
    /// A gate answers.
    Answers(usize, Verdict),
    /// The fleet is stopped, or goes on.
    Andon(bool),
}

impl Model {
    /// The run before anything happened: one deployment in the first wave, two in the second.
    pub(crate) fn start(&self) -> State {
        assert_eq!(self.strategy.validate(), Ok(()));
        let target = |(index, wave): (usize, usize)| Target {
            deployment: id(index),
            wave,
            group: Some("same".into()),
            offered_at: None,
            rollback_at: None,
            opening: Opening::Always,
            shut: std::time::Duration::ZERO,
            left: false,
            step: Step::Waiting,
            online: true,
            baseline_red: self.broken.contains(&index),
            forgiven: false,
            can_roll_back: true,
        };
        State {
            run: Run::new("ops", NOW),
            targets: [0, 1, 1].into_iter().enumerate().map(target).collect(),
            andon: false,
        }
    }

    /// Everything that can happen in this state.
    pub(crate) fn acts(&self, state: &State) -> Vec<Act> {
        if state.run.phase.is_terminal() {
            return Vec::new();
        }
        let mut acts = vec![Act::Time];
        acts.extend(Verb::ALL.map(Act::Says));
        if self.andon {
            acts.push(Act::Andon(!state.andon));
        }
        for (wave, _) in self.asking() {
            acts.extend(["ops", "bob", "carol"].map(|who| Act::Approves(wave, who)));
        }
        for gate in 0..self.strategy.gates.len() {
            acts.extend(Verdict::ALL.map(|verdict| Act::Answers(gate, verdict)));
        }
        for index in 0..state.targets.len() {
            self.acts_of(state, index, &mut acts);
        }
        acts
    }

    fn acts_of(&self, state: &State, index: usize, acts: &mut Vec<Act>) {
        let target = &state.targets[index];
        if self.travellers.contains(&index) {
            acts.push(Act::Connect(index, !target.online));
        }
        if self.leaver == Some(index) && !target.left {
            acts.push(Act::Leaves(index));
        }
        if !target.online {
            return;
        }
        let is_busy = matches!(
            target.step,
            Step::Offered(_) | Step::Received(_) | Step::Applied(_) | Step::RollbackOffered(_)
        );
        if is_busy {
            acts.push(Act::Further(index));
        }
        match target.step {
            Step::Applied(_) => {
                acts.extend(self.failures.iter().map(|class| Act::Fails(index, *class)));
            }
            Step::RollbackOffered(_) if self.rollback_fails => {
                acts.push(Act::Fails(index, FailureClass::KibanaDown));
            }
            Step::Waiting
            | Step::Offered(_)
            | Step::Received(_)
            | Step::Proven(_)
            | Step::Failed(..)
            | Step::RollbackOffered(_)
            | Step::RolledBack(_)
            | Step::RollbackFailed(..) => {}
        }
    }

    /// The waves that ask for an approval, and for how many.
    pub(crate) fn asking(&self) -> impl Iterator<Item = (usize, u32)> + '_ {
        let waves = self.strategy.waves.iter().enumerate();
        waves.filter_map(|(wave, of)| Some((wave, of.approval?.required)))
    }

    /// Does it, then plans until nothing is left to do. An error says what is wrong with that.
    pub(crate) fn after(&self, state: &State, act: &Act) -> Result<State, String> {
        let mut next = state.clone();
        self.happen(&mut next, act);
        self.settle(&mut next)?;
        next.forget(&self.strategy);
        Ok(next)
    }

    fn happen(&self, state: &mut State, act: &Act) {
        match act {
            Act::Time => state.age(),
            Act::Further(index) => {
                let step = &mut state.targets[*index].step;
                *step = further(*step);
            }
            Act::Fails(index, class) => {
                let step = &mut state.targets[*index].step;
                *step = match step {
                    Step::RollbackOffered(_) => Step::RollbackFailed(NOW, *class),
                    _ => Step::Failed(NOW, *class),
                };
            }
            Act::Connect(index, online) => connect(&mut state.targets[*index], *online),
            Act::Leaves(index) => state.targets[*index].left = true,
            Act::Says(verb) => say(state, *verb),
            Act::Approves(wave, who) => {
                state.run.approve(*wave, who);
            }
            Act::Answers(gate, verdict) => {
                answer(&mut state.run, &self.strategy.gates[*gate], *verdict);
            }
            Act::Andon(on) => set_andon(state, *on),
        }
    }

    /// Plans and carries out until a plan has nothing to do.
    pub(crate) fn settle(&self, state: &mut State) -> Result<(), String> {
        for _ in 0..PLANS_AT_ONCE_MAX {
            let input = PlanInput {
                now: NOW,
                andon: state.andon.then_some("ops: a test"),
                strategy: &self.strategy,
                run: &state.run,
                targets: &state.targets,
            };
            let made = plan(&input);
            let found = invariants::violations(&input, &made);
            if !found.is_empty() {
                return Err(format!("{found:#?}\nof {made:#?}\nin {state:#?}"));
            }
            if made
                .wake_at
                .is_some_and(|at| at > NOW && at < after_a_unit())
            {
                return Err(format!("wakes within a unit: {:?}", made.wake_at));
            }
            let is_quiet = made.events.is_empty()
                && made.timed_out.is_empty()
                && made.offer.is_empty()
                && made.roll_back.is_empty();
            if is_quiet {
                return Ok(());
            }
            carry_out(state, made)?;
        }
        Err(format!("planning does not come to rest: {state:#?}"))
    }
}

/// The id of the deployment with this index; ids are in the order of indices.
fn id(index: usize) -> DeploymentId {
    DeploymentId::new(uuid::Uuid::from_u128(index as u128 + 1))
}

fn after_a_unit() -> Timestamp {
    NOW.checked_add(UNIT).unwrap()
}

fn carry_out(state: &mut State, plan: Plan) -> Result<(), String> {
    for (deployment, _) in plan.timed_out {
        let target = of(state, deployment);
        target.step = match target.step {
            Step::RollbackOffered(_) => Step::RollbackFailed(NOW, FailureClass::Timeout),
            _ => Step::Failed(NOW, FailureClass::Timeout),
        };
    }
    for (event, sentence) in plan.events {
        let happened = state.run.happen(event, &sentence, NOW);
        happened.map_err(|illegal| illegal.to_string())?;
    }
    for deployment in plan.offer {
        let target = of(state, deployment);
        target.step = Step::Offered(NOW);
        target.offered_at = Some(NOW);
    }
    for deployment in plan.roll_back {
        let target = of(state, deployment);
        target.step = Step::RollbackOffered(NOW);
        target.rollback_at = Some(NOW);
    }
    Ok(())
}

fn of(state: &mut State, deployment: DeploymentId) -> &mut Target {
    let mut targets = state.targets.iter_mut();
    targets.find(|t| t.deployment == deployment).unwrap()
}

fn further(step: Step) -> Step {
    match step {
        Step::Offered(_) => Step::Received(NOW),
        Step::Received(_) => Step::Applied(NOW),
        Step::Applied(_) => Step::Proven(NOW),
        Step::RollbackOffered(_) => Step::RolledBack(NOW),
        Step::Waiting
        | Step::Proven(_)
        | Step::Failed(..)
        | Step::RolledBack(_)
        | Step::RollbackFailed(..) => step,
    }
}

/// A new session sends what is offered anew.
pub(crate) fn connect(target: &mut Target, online: bool) {
    if online
        && !target.online
        && let Step::Offered(at) | Step::RollbackOffered(at) = &mut target.step
    {
        *at = NOW;
    }
    target.online = online;
}

/// A verb, with what control does to the deployments beside it.
fn say(state: &mut State, verb: Verb) {
    let is_rollback = state.run.phase.is_rollback();
    let said = state
        .run
        .happen(Event::Verb(verb), "an operator said so", NOW);
    assert!(said.is_ok(), "{said:?}");
    for target in &mut state.targets {
        match (target.step, verb) {
            (Step::RollbackFailed(at, class), Verb::Resume | Verb::Retry) => {
                target.step = Step::Failed(at, class);
            }
            (Step::Failed(..), Verb::Resume) if !is_rollback => target.forgiven = true,
            (Step::Failed(..), Verb::Retry) if !is_rollback => {
                target.step = Step::Waiting;
                target.forgiven = false;
            }
            _ => {}
        }
    }
}

fn answer(run: &mut Run, gate: &Gate, verdict: Verdict) {
    if run.phase != Phase::Progressing {
        return;
    }
    let previous = run.gates.iter().find(|state| state.name == gate.name);
    let mut state = GateState::after(previous, gate, verdict, "an answer".to_owned(), NOW);
    // More answers than any rule counts are as good as that many.
    state.streak = state.streak.min(2);
    run.gates.retain(|old| old.name != gate.name);
    run.gates.push(state);
}

/// After the stop, every step in flight and the wave begin anew.
pub(crate) fn set_andon(state: &mut State, on: bool) {
    state.andon = on;
    if on {
        return;
    }
    state.run.wave_started_at = NOW;
    for target in &mut state.targets {
        if let Step::Offered(at)
        | Step::Received(at)
        | Step::Applied(at)
        | Step::RollbackOffered(at) = &mut target.step
        {
            *at = NOW;
        }
    }
}
