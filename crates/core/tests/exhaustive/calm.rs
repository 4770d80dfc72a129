//! From a state on, everything works: the run must end.

use keyfleet_core::rollout::{Phase, Step, Verb, Verdict};

use crate::model::{Act, Model, connect, set_andon};
use crate::state::State;

impl Model {
    /// The same state in a calm world: everybody is connected, nothing is stopped, everybody agrees.
    pub(crate) fn calm(&self, state: &State) -> Result<State, String> {
        let mut calm = state.clone();
        if calm.andon {
            set_andon(&mut calm, false);
        }
        for target in &mut calm.targets {
            connect(target, true);
        }
        for (wave, _) in self.asking() {
            for who in ["bob", "carol"] {
                calm.run.approve(wave, who);
            }
        }
        self.settle(&mut calm)?;
        calm.forget(&self.strategy);
        Ok(calm)
    }

    /// What happens next in a calm world, where every held run is tried again.
    pub(crate) fn next_when_calm(&self, state: &State) -> Result<State, String> {
        self.after(state, &self.calm_act(state))
    }

    fn calm_act(&self, state: &State) -> Act {
        match state.run.phase {
            Phase::Paused | Phase::Halted | Phase::RollbackPaused | Phase::RollbackHalted => {
                return Act::Says(Verb::Retry);
            }
            Phase::Pending
            | Phase::Progressing
            | Phase::RollingBack
            | Phase::Completed
            | Phase::RolledBack
            | Phase::Aborted
            | Phase::Superseded => {}
        }
        if state.run.phase == Phase::Progressing {
            for (index, gate) in self.strategy.gates.iter().enumerate() {
                let states = &state.run.gates;
                let passes = states.iter().any(|state| {
                    state.name == gate.name
                        && state.verdict == Verdict::Pass
                        && state.at == crate::state::NOW
                });
                if !passes {
                    return Act::Answers(index, Verdict::Pass);
                }
            }
        }
        let busy = state.targets.iter().position(|target| {
            matches!(
                target.step,
                Step::Offered(_) | Step::Received(_) | Step::Applied(_) | Step::RollbackOffered(_)
            )
        });
        busy.map_or(Act::Time, Act::Further)
    }
}
