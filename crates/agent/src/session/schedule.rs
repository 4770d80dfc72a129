//! When the next renewal is tried.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::identity::Identity;
use crate::renew;

/// The clock is looked at so often, because somebody may set it.
const LOOK: Duration = Duration::from_secs(3600);
/// A whole fleet is asked to renew at the same moment; it answers over this time.
const ASKED_SPREAD: Duration = Duration::from_secs(2);

/// When to renew.
pub(super) struct Schedule {
    /// Where in the span of renewals this agent stands.
    spread: f64,
    /// Not before this, whatever is due.
    not_before: Instant,
    /// Control asked for it.
    asked: bool,
    n_failures: u32,
}

impl Schedule {
    pub(super) fn new() -> Self {
        Self {
            spread: fastrand::f64(),
            not_before: Instant::now(),
            asked: false,
            n_failures: 0,
        }
    }

    /// When to call [`Schedule::begin`].
    pub(super) fn at(&self, identity: &Identity) -> Instant {
        (Instant::now() + self.wait(identity)).max(self.not_before)
    }

    /// True where a renewal is due; it counts as begun then.
    pub(super) fn begin(&mut self, identity: &Identity) -> bool {
        let due = self.wait(identity).is_zero() && self.not_before <= Instant::now();
        self.asked &= !due;
        due
    }

    /// Control wants one now.
    pub(super) fn ask(&mut self) {
        if !self.asked {
            self.asked = true;
            self.not_before = Instant::now() + ASKED_SPREAD.mul_f64(fastrand::f64());
        }
    }

    /// The last one failed.
    pub(super) fn later(&mut self) {
        self.n_failures = self.n_failures.saturating_add(1);
        self.asked = true;
        self.not_before = Instant::now() + Backoff::RENEWAL.wait(self.n_failures);
    }

    /// The last one opened a session.
    pub(super) fn renewed(&mut self) {
        self.n_failures = 0;
    }

    fn wait(&self, identity: &Identity) -> Duration {
        if self.asked {
            return Duration::ZERO;
        }
        let due = renew::due(identity, self.spread);
        Duration::try_from(due.duration_since(Timestamp::now()))
            .unwrap_or_default()
            .min(LOOK)
    }
}
