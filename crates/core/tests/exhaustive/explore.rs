//! Breadth first through everything that can happen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use keyfleet_core::rollout::{Phase, Step};

use crate::model::{Act, Model};
use crate::state::State;

/// A calm world that has not ended after so many steps goes round in circles.
const CALM_STEPS_MAX: usize = 200;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Explored {
    pub(crate) states: usize,
    pub(crate) transitions: usize,
    pub(crate) phases: BTreeMap<Phase, usize>,
}

/// Every state that can be reached, with how it was reached first.
#[derive(Debug, Default)]
struct Known {
    states: Vec<State>,
    by_key: BTreeMap<Vec<u8>, usize>,
    /// From which state, and by what.
    from: Vec<Option<(usize, Act)>>,
}

/// Visits every state that the model can reach.
///
/// # Panics
/// With the shortest story that leads to a broken rule.
pub(crate) fn explore(model: &Model) -> Explored {
    let mut known = Known::default();
    let mut explored = Explored::default();
    let mut ends = BTreeSet::new();
    let start = model.start();
    known.add(start, None);
    let mut queue = VecDeque::from([0]);
    while let Some(at) = queue.pop_front() {
        let state = known.states[at].clone();
        if state.run.phase.is_terminal() {
            continue;
        }
        if let Err(wrong) = ends_when_calm(model, &state, &mut ends) {
            panic!("{}\nthen calm: {wrong}", known.story(at));
        }
        for act in model.acts(&state) {
            explored.transitions += 1;
            match model.after(&state, &act) {
                Ok(next) => queue.extend(known.add(next, Some((at, act)))),
                Err(wrong) => panic!("{}\n{act:?}: {wrong}", known.story(at)),
            }
        }
    }
    explored.states = known.states.len();
    for state in &known.states {
        *explored.phases.entry(state.run.phase).or_default() += 1;
    }
    explored
}

/// Goes on in a calm world until the run has ended, or comes to a state of which that is known.
fn ends_when_calm(
    model: &Model,
    state: &State,
    ends: &mut BTreeSet<Vec<u8>>,
) -> Result<(), String> {
    let mut now = model.calm(state)?;
    let mut path = Vec::new();
    for _ in 0..CALM_STEPS_MAX {
        let key = now.key();
        if now.run.phase.is_terminal() {
            nobody_is_forgotten(&now)?;
        } else if !ends.contains(&key) {
            path.push(key);
            now = model.next_when_calm(&now)?;
            continue;
        }
        ends.extend(path);
        return Ok(());
    }
    Err(format!("it never ends: {now:#?}"))
}

/// A run that ended well left nobody half-way.
fn nobody_is_forgotten(state: &State) -> Result<(), String> {
    let good = |step: &Step| match state.run.phase {
        Phase::Completed => matches!(step, Step::Proven(_) | Step::Failed(..)),
        Phase::RolledBack => match step {
            Step::Waiting | Step::RolledBack(_) => true,
            // Those that were broken before stay so.
            Step::RollbackFailed(..) => true,
            _ => false,
        },
        _ => true,
    };
    let mut present = state.targets.iter().filter(|target| !target.left);
    match present.all(|target| good(&target.step)) {
        true => Ok(()),
        false => Err(format!("somebody is forgotten: {state:#?}")),
    }
}

impl Known {
    /// Notes a state; its index where it is new.
    fn add(&mut self, state: State, from: Option<(usize, Act)>) -> Option<usize> {
        let (index, key) = (self.states.len(), state.key());
        if self.by_key.contains_key(&key) {
            return None;
        }
        self.by_key.insert(key, index);
        self.states.push(state);
        self.from.push(from);
        Some(index)
    }

    /// The shortest way to a state.
    fn story(&self, mut at: usize) -> String {
        let mut acts = Vec::new();
        while let Some((before, act)) = &self.from[at] {
            acts.push(format!("{act:?}"));
            at = *before;
        }
        acts.reverse();
        acts.join("\n")
    }
}
