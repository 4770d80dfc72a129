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
    /// When that wave began, or when an operator last let the run go on in it; before the first wave, when the run began.
    pub wave_started_at: Timestamp,
    /// Why it is held, in words; empty where it is not.
    pub hold_reason: String,
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
        self.phase = phase;
        if let Event::WaveStarted(wave) = event {
            self.wave = Some(wave);
            self.wave_started_at = now;
        }
        if event == Event::Verb(Verb::FastForward) && !phase.is_rollback() {
            self.fast_forward = self.wave;
        }
        let goes_on = matches!(
            event,
            Event::Verb(Verb::Resume | Verb::Retry | Verb::Approve)
        );
        if goes_on && phase == Phase::Progressing {
            // The time for which people were waited for is not the wave's.
            self.wave_started_at = now;
        }
        if matches!(event, Event::Verb(Verb::Resume | Verb::Retry)) {
            // What a gate said led to the hold, or is old by now: it is asked anew.
            self.gates.clear();
        }
        if event == Event::RollbackFinished {
            // Why it went back matters more than that it has arrived.
            self.hold_reason = format!("{}; {sentence}", self.hold_reason);
        } else if is_new {
            self.hold_reason = match phase == Phase::Progressing {
                true => String::new(),
                false => sentence.to_owned(),
            };
        }
        Ok(is_new)
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
