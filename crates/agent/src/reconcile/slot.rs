//! What is remembered about one binding while the agent runs; what must survive is in the ledger.

use std::time::Duration;

use jiff::Timestamp;
use keyfleet_core::binding::{BindingState, Failure};
use tokio::time::Instant;

use crate::decide::Seen;
use crate::wish::Wish;

/// One binding.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) wish: Wish,
    /// Tells this wish from an earlier one of the same place, whose outcome may still be under way.
    pub(super) serial: u64,
    /// The agent's own rules forbid it.
    pub(super) refused: Option<Failure>,
    pub(super) seen: Seen,
    pub(super) seen_at: Instant,
    /// What a try of the connector before this change showed.
    pub(super) baseline_ok: Option<bool>,
    pub(super) strain: Option<Strain>,
    /// A call for this binding is under way: never two at a time.
    pub(super) busy: bool,
    /// A proof's age limit is stretched by up to a tenth, so that a fleet does not prove in step.
    pub(super) probe_stretch: f64,
    pub(super) shown: Option<Shown>,
}

/// Something goes wrong again and again.
#[derive(Debug, Clone)]
pub(super) struct Strain {
    pub(super) stage: Stage,
    pub(super) failure: Failure,
    pub(super) n_failures: u32,
    pub(super) not_before: Instant,
}

/// How far a step is on the way to proof. Success at a later stage ends the strain of an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Look,
    Write,
    Prove,
}

/// What was reported last.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shown {
    pub(super) state: BindingState,
    pub(super) failure: Option<Failure>,
    pub(super) proven_at: Option<Timestamp>,
    pub(super) removed: bool,
}

impl Slot {
    pub(super) fn new(wish: Wish, serial: u64, busy: bool, refused: Option<Failure>) -> Self {
        Self {
            wish,
            serial,
            refused,
            seen: Seen::Unknown,
            seen_at: Instant::now(),
            baseline_ok: None,
            strain: None,
            busy,
            probe_stretch: 1.0 + fastrand::f64() / 10.0,
            shown: None,
        }
    }

    /// How long until the proof is too old; zero: it is. `None`: proofs do not age here.
    pub(super) fn probe_in(
        &self,
        proven_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Option<Duration> {
        let interval = self.wish.probe_interval?.mul_f64(self.probe_stretch);
        // A clock that was set back must not put the next proof off for longer than one interval.
        let age = Duration::try_from(now.duration_since(proven_at?)).unwrap_or_default();
        Some(interval.saturating_sub(age))
    }

    /// Success at this stage.
    pub(super) fn relieve(&mut self, stage: Stage) {
        self.strain.take_if(|strain| strain.stage <= stage);
    }
}
