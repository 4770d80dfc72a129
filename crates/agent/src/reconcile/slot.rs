//! What is remembered about one binding while the agent runs; what must survive is in the ledger.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use keyfleet_core::binding::{BindingState, Failure, Rung};
use tokio::time::Instant;

use crate::decide::Seen;
use crate::wish::Wish;

/// How long what worked once and then fails for good waits for its next try, unless proofs age faster.
const PATIENCE: Duration = Duration::from_secs(600);

/// One binding.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) wish: Arc<Wish>,
    /// Tells this wish from an earlier one of the same place, whose outcome may still be under way.
    pub(super) serial: u64,
    /// The agent's own rules forbid it.
    pub(super) refused: Option<Failure>,
    pub(super) seen: Seen,
    pub(super) seen_at: Instant,
    /// Its own fields as Kibana showed them last, JSON.
    pub(super) config: String,
    /// What a try of the connector before this change showed.
    pub(super) baseline_ok: Option<bool>,
    pub(super) strain: Option<Strain>,
    /// A proof's age limit is stretched by up to a tenth, so that a fleet does not prove in step.
    pub(super) probe_stretch: f64,
    pub(super) shown: Option<Shown>,
    /// Rules and others that refer to the connector, as the last list showed.
    pub(super) references: u32,
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
    pub(super) rung: Option<Rung>,
    pub(super) removed: bool,
}

impl Slot {
    pub(super) fn new(wish: Wish, serial: u64, refused: Option<Failure>) -> Self {
        Self {
            wish: Arc::new(wish),
            serial,
            refused,
            seen: Seen::Unknown,
            seen_at: Instant::now(),
            config: String::new(),
            baseline_ok: None,
            strain: None,
            probe_stretch: 1.0 + fastrand::f64() / 10.0,
            shown: None,
            references: 0,
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

    /// How long to leave something alone that worked once and that only somebody else can repair.
    pub(super) fn patience(&self) -> Duration {
        let interval = self.wish.probe_interval.unwrap_or(PATIENCE);
        interval.min(PATIENCE).mul_f64(self.probe_stretch)
    }

    /// Its removal is confirmed: there is nothing left to do.
    pub(super) fn is_gone(&self) -> bool {
        self.shown.as_ref().is_some_and(|shown| shown.removed)
    }

    /// Success at this stage.
    pub(super) fn relieve(&mut self, stage: Stage) {
        self.strain.take_if(|strain| strain.stage <= stage);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyfleet_core::placement::DriftPolicy;

    #[test]
    fn patience_is_bounded_by_the_age_of_proofs_and_by_ten_minutes() {
        let check = |probe_interval: Option<u64>, expected: u64| {
            let wish = Wish {
                connector_id: String::new(),
                adopted: false,
                spec: None,
                goal: None,
                drift_policy: DriftPolicy::Correct,
                allowed_hosts: Vec::new(),
                probe_interval: probe_interval.map(Duration::from_secs),
                key_parts: Vec::new(),
                after: None,
                references_agreed: 0,
                task: None,
            };
            let patience = Slot::new(wish, 1, None).patience().as_secs_f64();
            let expected = Duration::from_secs(expected).as_secs_f64();
            assert!(
                (expected..=expected * 1.1).contains(&patience),
                "{patience}"
            );
        };
        check(None, 600);
        check(Some(6 * 3600), 600);
        check(Some(60), 60);
    }
}
