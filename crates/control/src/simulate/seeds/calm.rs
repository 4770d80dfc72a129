//! The calm after it: everything is mended, people do their part, and then everything must end, and stay as it is.

use keyfleet_core::id::RolloutId;
use keyfleet_core::rollout::{Phase, Verb, WaitingOn};

use super::{Chaos, Fault, Outcome, secs};

/// So often operators look after what waits for them before it must have ended.
pub(super) const ROUNDS: u32 = 12;

impl Chaos {
    /// Everything is mended, and operators look after what waits for them.
    pub(super) fn calm(&mut self, is_last: bool) -> Outcome {
        if is_last {
            self.mend()?;
        }
        for round in 0..ROUNDS {
            self.run_out()?;
            let active = self
                .simulation
                .look(|tx| Ok(tx.active_rollouts()?))
                .map_err(|err| err.to_string())?;
            let waits_on = self.look_after_campaigns(round)?;
            if active.is_empty() && !waits_on {
                return Ok(());
            }
            for rollout in active {
                self.look_after(rollout.id, rollout.run.phase, round)?;
            }
        }
        self.simulation.explain();
        let waiting = self.simulation.waiting_campaigns();
        let waiting = waiting.map_err(|err| err.to_string())?;
        let waits = waiting.iter().map(|(_, waits)| waits);
        Err(format!(
            "calm does not end every rollout; campaigns: {:?}",
            waits.collect::<Vec<_>>()
        ))
    }

    fn look_after(&mut self, id: RolloutId, phase: Phase, round: u32) -> Outcome {
        let waits = self.simulation.waiting().get(&id);
        let waits_for_people = waits.is_some_and(|all| {
            all.iter()
                .any(|it| matches!(it.on, WaitingOn::Approval { .. }))
        });
        let verb = match phase == Phase::Progressing {
            true if waits_for_people => Verb::Approve,
            true => Verb::FastForward,
            // What cannot be mended is given up in the end.
            false if round > ROUNDS / 2 => Verb::Abort,
            false => Verb::Retry,
        };
        for who in ["ada", "bob", "cleo"] {
            let said = self.simulation.say(id, verb, who, "", "calm");
            if let (Err(err), true) = (said, verb != Verb::Approve) {
                return Err(format!("calm cannot say {}: {err}", verb.as_str()));
            }
            if verb != Verb::Approve {
                break;
            }
        }
        self.holds()
    }

    fn mend(&mut self) -> Outcome {
        let simulation = &mut self.simulation;
        simulation.note("calm", || "everything is mended".to_owned());
        simulation.loss = 0;
        simulation.set_gates(10_000, 0);
        simulation.credit(true);
        simulation.mend_provider();
        let names: Vec<String> = simulation
            .agents
            .values()
            .map(|agent| agent.name.clone())
            .collect();
        for name in names {
            simulation.set_fault(&name, Fault::Slow(secs(2)));
            simulation.set_fault(&name, Fault::None);
            simulation.connect(&name, true);
        }
        self.go_on(secs(120))?;
        let skew = self
            .simulation
            .now()
            .duration_since(self.simulation.control_now());
        self.simulation.step_clock(skew);
        self.simulation.nudge();
        self.done(|it| it.andon(None))
    }

    /// Nothing is left that nobody will ever take up.
    pub(super) fn ends(&mut self) -> Outcome {
        let bindings = self
            .simulation
            .look(|tx| Ok(tx.bindings()?))
            .map_err(|err| err.to_string())?;
        for binding in bindings {
            let is_left = !binding.is_told_goal() && binding.held_by.is_none();
            let is_done = binding.is_converged()
                || binding.progress.failure.is_some()
                || binding.held_by.is_some();
            if is_left || !(is_done || binding.is_untold()) {
                return Err(format!("nobody ever takes up {}: {binding:#?}", binding.id));
            }
        }
        Ok(())
    }

    /// A restart of either side and a new session change nothing on any Kibana and write no row.
    pub(super) fn nothing_new(&mut self) -> Outcome {
        // A proof from an agent whose clock was ahead of control's is dated anew when it is said again.
        let names: Vec<String> = self
            .simulation
            .agents
            .values()
            .map(|agent| agent.name.clone())
            .collect();
        for name in &names {
            self.simulation.repeat(name);
        }
        self.run_out()?;
        let bindings = self
            .simulation
            .look(|tx| Ok(tx.bindings()?))
            .map_err(|err| err.to_string())?;
        let is_calm = bindings.iter().all(keyfleet_store::Binding::is_converged);
        let before = (
            self.simulation.writes(),
            self.simulation.stored().map_err(|err| err.to_string())?,
        );
        let sent = self.simulation.checker.sent;
        for name in names {
            match self.random.below(3) {
                0 => self.simulation.cut(&name),
                1 => self.simulation.crash_agent(&name, secs(3)),
                _ => self.simulation.repeat(&name),
            }
        }
        if self.random.chance(5_000) {
            self.simulation.crash_control(secs(2));
        }
        self.run_out()?;
        let after = (
            self.simulation.writes(),
            self.simulation.stored().map_err(|err| err.to_string())?,
        );
        if before != after {
            return Err(format!(
                "restarts and new sessions changed something: {} writes before, {} after; {}",
                before.0,
                after.0,
                difference(&before.1, &after.1)
            ));
        }
        if is_calm && self.simulation.checker.sent != sent {
            return Err(
                "new sessions were sent a desired state or a key, and nothing was new".to_owned(),
            );
        }
        Ok(())
    }
}

fn difference(before: &str, after: &str) -> String {
    let mut lines = before.lines().zip(after.lines());
    let found = lines.find(|(before, after)| before != after);
    found.map_or_else(String::new, |(before, after)| {
        format!("{before} became {after}")
    })
}
