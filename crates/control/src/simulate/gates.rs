//! Gates in the simulated world: each is asked once an interval while its run goes on, and answers as it is told to.

use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::id::RolloutId;
use keyfleet_core::rollout::{GateState, Phase, Verdict};
use keyfleet_store::Tx;

use super::{Event, Simulation};
use crate::error::Error;

impl Simulation {
    /// Every gate of a run that goes on is asked once an interval.
    pub(super) fn ask_gates(&mut self) -> Result<(), Error> {
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
                // The preview lets its gates pass, and asks none again.
                if self.hurries && known.is_some() {
                    continue;
                }
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

    pub(super) fn gate_answers(&mut self, id: RolloutId, name: &str) -> Result<bool, Error> {
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
        let stored = self
            .scratch
            .run(|tx| store_verdict(tx, id, name, verdict, now))?;
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
