//! Where a run stands, and how an event changes that.

use super::gate::GateState;
use super::phase::{Event, IllegalTransition, Phase, Verb};
use super::strategy::{Approval, Strategy};
use crate::Timestamp;

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its phase.
    pub phase: Phase,
    /// Index of the running wave; `None` = none has begun.
    pub wave: Option<usize>,
    /// When that wave began, or when people last let the run go on in it; before the first wave, when the run began.
    pub wave_started_at: Timestamp,
    /// Why it is held, in words; empty where it is not.
    pub hold_reason: String,
    /// Since when an operator holds it back on its way forward; `None` where nobody does, or Keyfleet itself does. Who
    /// says `resume` knows what had failed until then.
    pub paused_at: Option<Timestamp>,
    /// Why it goes back, in words; empty while it never did. It stays what it was, whatever holds the way back.
    pub rollback_reason: String,
    /// Who started it: the principal.
    pub author: String,
    /// Who has agreed with which wave, once each.
    pub approvals: Vec<Approved>,
    /// The wave whose soak, absences and deadline an operator no longer waits for.
    pub fast_forward: Option<usize>,
    /// Where its gates stand; those that were never asked are not in it.
    pub gates: Vec<GateState>,
}

/// Somebody agreed that a wave may begin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Approved {
    /// Index of the wave.
    pub wave: usize,
    /// Who.
    pub principal: String,
}

impl Run {
    /// A run that is stored and not begun.
    pub fn new(author: &str, now: Timestamp) -> Self {
        Self {
            phase: Phase::Pending,
            wave: None,
            wave_started_at: now,
            hold_reason: String::new(),
            paused_at: None,
            rollback_reason: String::new(),
            author: author.to_owned(),
            approvals: Vec::new(),
            fast_forward: None,
            gates: Vec::new(),
        }
    }

    /// Takes an event with its sentence: changes the phase by the one table, and what hangs on it. True where the
    /// phase is another one now.
    ///
    /// # Errors
    /// [`IllegalTransition`], after changing nothing.
    pub fn happen(
        &mut self,
        event: Event,
        sentence: &str,
        now: Timestamp,
    ) -> Result<bool, IllegalTransition> {
        let phase = self.phase.next(event)?;
        let is_new = phase != self.phase;
        let turns_back = phase.is_rollback() && !self.phase.is_rollback();
        self.phase = phase;
        if let Event::WaveStarted(wave) = event {
            self.wave = Some(wave);
            self.wave_started_at = now;
        }
        if event == Event::Verb(Verb::FastForward) && !phase.is_rollback() {
            self.fast_forward = self.wave;
        }
        if matches!(event, Event::Verb(Verb::Resume | Verb::Retry)) {
            // What a gate said led to the hold, or is old by now: it is asked anew.
            self.gates.clear();
            if phase == Phase::Progressing {
                self.wait_ended(now);
            }
        }
        if turns_back {
            sentence.clone_into(&mut self.rollback_reason);
        }
        if is_new {
            let is_said = event == Event::Verb(Verb::Pause) && phase == Phase::Paused;
            self.paused_at = is_said.then_some(now);
            self.hold_reason = self.reason_for(phase, sentence);
        }
        Ok(is_new)
    }

    /// The time for which people were waited for is not the running wave's: it has its whole time anew.
    pub fn wait_ended(&mut self, now: Timestamp) {
        self.wave_started_at = now;
    }

    /// Why it is held in a phase that it has just come to. Why it went back matters more than who let it go on, or that it
    /// has arrived.
    fn reason_for(&self, phase: Phase, sentence: &str) -> String {
        match phase {
            Phase::Pending | Phase::Progressing => String::new(),
            Phase::RollingBack => self.rollback_reason.clone(),
            Phase::RolledBack => format!("{}; {sentence}", self.rollback_reason),
            Phase::Paused
            | Phase::Halted
            | Phase::RollbackPaused
            | Phase::RollbackHalted
            | Phase::Completed
            | Phase::Aborted
            | Phase::Superseded => sentence.to_owned(),
        }
    }

    /// How many have agreed with the wave of this index, as far as they count.
    pub fn agreed(&self, wave: usize, approval: Approval) -> u32 {
        let counts = |approved: &&Approved| {
            approved.wave == wave && !(approval.not_author && approved.principal == self.author)
        };
        let mut principals: Vec<&str> = self
            .approvals
            .iter()
            .filter(counts)
            .map(|approved| approved.principal.as_str())
            .collect();
        principals.sort_unstable();
        principals.dedup();
        u32::try_from(principals.len()).unwrap_or(u32::MAX)
    }

    /// True where the wave of this index asks for an approval that is not complete.
    pub fn lacks_approval(&self, strategy: &Strategy, wave: usize) -> bool {
        let asks = strategy.waves.get(wave).and_then(|wave| wave.approval);
        asks.is_some_and(|approval| self.agreed(wave, approval) < approval.required)
    }

    /// Notes that somebody agrees with a wave; false where that is known already.
    pub fn approve(&mut self, wave: usize, principal: &str) -> bool {
        let approved = Approved {
            wave,
            principal: principal.to_owned(),
        };
        let is_new = !self.approvals.contains(&approved);
        if is_new {
            self.approvals.push(approved);
        }
        is_new
    }
}

#[cfg(test)]
mod tests;
