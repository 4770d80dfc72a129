//! A token bucket: how many live calls this agent may make, as control says.

use std::time::Duration;

use tokio::time::Instant;

/// Tokens that may be saved up: a sixth of a minute's worth, so that a burst after a quiet time stays small.
const BURST_SECS: f64 = 10.0;

/// Paces live calls.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// Tokens a second; `None`: no limit.
    rate: Option<f64>,
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    /// A full bucket; 0 a minute means no limit.
    pub(crate) fn new(per_minute: u32, now: Instant) -> Self {
        let rate = (per_minute > 0).then(|| f64::from(per_minute) / 60.0);
        let mut bucket = Self {
            rate,
            tokens: 0.0,
            filled_at: now,
        };
        bucket.tokens = bucket.size();
        bucket
    }

    /// Changes the pace; what is saved up stays, within the new limit.
    pub(crate) fn set_rate(&mut self, per_minute: u32, now: Instant) {
        self.fill(now);
        let tokens = self.tokens;
        *self = Self::new(per_minute, now);
        self.tokens = self.tokens.min(tokens);
    }

    /// Takes a token.
    ///
    /// # Errors
    /// When to ask again.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        self.fill(now);
        let Some(rate) = self.rate else { return Ok(()) };
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(now + Duration::from_secs_f64((1.0 - self.tokens) / rate) + Duration::from_millis(1))
    }

    /// How many tokens there are, or will be, within this time.
    pub(crate) fn usable(&mut self, within: Duration, now: Instant) -> u32 {
        self.fill(now);
        let Some(rate) = self.rate else {
            return u32::MAX;
        };
        // Cut off where it is no whole one; far beyond what a `u32` holds it stays at the most.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "never negative; `as` saturates"
        )]
        let usable = (self.tokens + rate * within.as_secs_f64()) as u32;
        usable
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate.unwrap_or(0.0)).min(self.size());
        self.filled_at = now;
    }

    fn size(&self) -> f64 {
        self.rate.map_or(1.0, |rate| (rate * BURST_SECS).max(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_at_the_rate_that_control_sets() {
        let start = Instant::now();
        let mut bucket = Bucket::new(60, start);
        assert_eq!((0..100).filter(|_| bucket.take(start).is_ok()).count(), 10);
        let at = bucket.take(start).unwrap_err();
        assert!(at > start && at <= start + Duration::from_millis(1100));
        assert!(bucket.take(at).is_ok());
        assert_eq!(bucket.usable(Duration::from_secs(60), at), 60);
        bucket.set_rate(0, at);
        assert_eq!(bucket.usable(Duration::ZERO, at), u32::MAX);
        assert_eq!((0..100).filter(|_| bucket.take(at).is_ok()).count(), 100);
    }

    #[test]
    fn a_slow_pace_still_gives_one() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1, start);
        assert!(bucket.take(start).is_ok());
        assert!(bucket.take(start + Duration::from_secs(59)).is_err());
        assert!(bucket.take(start + Duration::from_secs(61)).is_ok());
    }
}
