//! How many may be told something within any minute, and how a ramp lets more go at a time.

use std::time::Duration;

use crate::Timestamp;

use super::view::due;
use crate::rollout::strategy::Ramp;

/// The minute of `max_per_minute`.
const MINUTE: Duration = Duration::from_secs(60);

/// What was told within the last minute: later than a minute ago. What was told in the future (the clock stepped back)
/// counts as told now.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastMinute {
    now: Timestamp,
    told: u32,
    oldest: Option<Timestamp>,
}

/// Where a ramp stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RampStep {
    /// How many may be in flight.
    pub(super) limit: u32,
    /// How many more have to be proven before more may be; none at its end.
    pub(super) missing: u32,
}

impl LastMinute {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            now,
            told: 0,
            oldest: None,
        }
    }

    /// Adds something that was told then.
    pub(super) fn count(&mut self, at: Timestamp) {
        let at = at.min(self.now);
        if due(at, MINUTE) > self.now {
            self.told += 1;
            self.oldest = Some(self.oldest.map_or(at, |oldest| oldest.min(at)));
        }
    }

    /// When one more may be told, where this is later than now.
    pub(super) fn full_until(&self, max_per_minute: Option<u32>) -> Option<Timestamp> {
        let is_full = max_per_minute.is_some_and(|max| self.told >= max);
        is_full.then(|| due(self.oldest.unwrap_or(self.now), MINUTE))
    }
}

impl RampStep {
    /// Where the ramp stands once this many deployments of a wave of this concurrency are proven.
    pub(super) fn of(ramp: Ramp, concurrency: u32, proven: u32) -> Self {
        let mut limit = ramp.start.max(1).min(concurrency);
        // So many have to be proven in all before more than the limit may be in flight.
        let mut needed = limit;
        while limit < concurrency && proven >= needed {
            let grown = u64::from(limit) * u64::from(ramp.factor_percent) / 100;
            let grown = u32::try_from(grown).unwrap_or(u32::MAX);
            limit = grown.max(limit + 1).min(concurrency);
            needed = needed.saturating_add(limit);
        }
        let missing = if limit < concurrency {
            needed - proven
        } else {
            0
        };
        Self { limit, missing }
    }
}
