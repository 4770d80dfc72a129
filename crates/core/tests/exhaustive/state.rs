//! A state as far as rules can tell it apart.

use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::rollout::{Phase, Run, Step, Strategy, Target};

/// Every time in the model is a whole number of these: the deadlines of the strategies are one each.
pub(crate) const UNIT: Duration = Duration::from_secs(60);

/// How many units back rules look: at the beginning of a wave, at the answer of a gate, at everything else.
const LOOKS_BACK: [u32; 3] = [WAVE_UNITS, 3, 1];

/// The deadline of a wave.
pub(crate) const WAVE_UNITS: u32 = 5;

/// The moment of every state.
pub(crate) const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// A run, its deployments, and the fleet-wide stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) run: Run,
    pub(crate) targets: Vec<Target>,
    pub(crate) andon: bool,
}

impl State {
    /// Lets a unit of time pass: the moment stays, everything else moves into the past.
    pub(crate) fn age(&mut self) {
        let older = |at: &mut Timestamp| *at = at.checked_sub(UNIT).unwrap();
        older(&mut self.run.wave_started_at);
        self.run
            .gates
            .iter_mut()
            .for_each(|gate| older(&mut gate.at));
        self.targets.iter_mut().flat_map(moments).for_each(older);
    }

    /// Forgets what no rule looks at, so that states that behave the same are the same.
    pub(crate) fn forget(&mut self, strategy: &Strategy) {
        if self.run.phase.is_rollback() || self.run.phase.is_terminal() {
            self.forget_the_way_forward();
        }
        let [wave, gate, step] = LOOKS_BACK.map(|units| NOW.checked_sub(UNIT * units).unwrap());
        self.run.wave_started_at = self.run.wave_started_at.max(wave);
        for state in &mut self.run.gates {
            state.at = state.at.max(gate);
        }
        for at in self.targets.iter_mut().flat_map(moments) {
            *at = (*at).max(step);
        }
        for target in &mut self.targets {
            match &mut target.step {
                Step::Failed(at, _) | Step::RolledBack(at) | Step::RollbackFailed(at, _) => {
                    *at = NOW;
                }
                Step::Waiting
                | Step::Offered(_)
                | Step::Received(_)
                | Step::Applied(_)
                | Step::Proven(_)
                | Step::RollbackOffered(_) => {}
            }
            if strategy.max_per_minute.is_none() {
                target.offered_at = None;
            }
            if strategy.rollback.max_per_minute.is_none() {
                target.rollback_at = None;
            }
        }
        if !self.run.hold_reason.is_empty() {
            self.run.hold_reason = "held".to_owned();
        }
        self.run.approvals.sort();
    }

    /// There is no way from a rollback to the way forward, nor from the end to anywhere.
    fn forget_the_way_forward(&mut self) {
        let phase = self.run.phase;
        self.run = Run {
            phase,
            ..Run::new("ops", NOW)
        };
        for target in &mut self.targets {
            target.forgiven = false;
            if let Step::Offered(at) | Step::Received(at) | Step::Applied(at) | Step::Proven(at) =
                &mut target.step
            {
                *at = NOW;
            }
            if phase.is_terminal() {
                target.rollback_at = None;
            }
            if phase == Phase::Aborted {
                target.step = Step::Waiting;
                (target.online, target.left) = (true, false);
                target.offered_at = None;
            }
        }
        self.andon &= !phase.is_terminal();
    }

    /// What tells this state from others; after [`State::forget`].
    pub(crate) fn key(&self) -> Vec<u8> {
        let run = &self.run;
        let mut key = vec![
            run.phase as u8,
            index(run.wave),
            age(run.wave_started_at),
            index(run.fast_forward),
            u8::from(self.andon) << 1 | u8::from(run.hold_reason.is_empty()),
        ];
        for approved in &run.approvals {
            key.extend([200, u8::try_from(approved.wave).unwrap()]);
            key.extend(approved.principal.bytes());
        }
        for gate in &run.gates {
            let streak = u8::try_from(gate.streak).unwrap();
            key.extend([201, gate.verdict as u8, streak, age(gate.at)]);
        }
        for target in &self.targets {
            let (step, at, class) = match target.step {
                Step::Waiting => (0, None, None),
                Step::Offered(at) => (1, Some(at), None),
                Step::Received(at) => (2, Some(at), None),
                Step::Applied(at) => (3, Some(at), None),
                Step::Proven(at) => (4, Some(at), None),
                Step::Failed(at, class) => (5, Some(at), Some(class)),
                Step::RollbackOffered(at) => (6, Some(at), None),
                Step::RolledBack(at) => (7, Some(at), None),
                Step::RollbackFailed(at, class) => (8, Some(at), Some(class)),
            };
            let flags = u8::from(target.online)
                | u8::from(target.forgiven) << 1
                | u8::from(target.left) << 2;
            let class = class.map_or(0, |class| class as u8 + 1);
            let (offered, back) = (target.offered_at, target.rollback_at);
            key.extend([202, step, class, flags]);
            key.extend([at, offered, back].map(|at| at.map_or(99, age)));
        }
        key
    }
}

fn moments(target: &mut Target) -> Vec<&mut Timestamp> {
    let mut moments = Vec::new();
    moments.extend(target.offered_at.as_mut());
    moments.extend(target.rollback_at.as_mut());
    match &mut target.step {
        Step::Waiting => {}
        Step::Offered(at)
        | Step::Received(at)
        | Step::Applied(at)
        | Step::Proven(at)
        | Step::Failed(at, _)
        | Step::RollbackOffered(at)
        | Step::RolledBack(at)
        | Step::RollbackFailed(at, _) => moments.push(at),
    }
    moments
}

fn index(index: Option<usize>) -> u8 {
    index.map_or(9, |index| u8::try_from(index).unwrap())
}

/// How many units ago.
fn age(at: Timestamp) -> u8 {
    let seconds = NOW.duration_since(at).as_secs();
    u8::try_from(seconds / i64::try_from(UNIT.as_secs()).unwrap()).unwrap()
}
