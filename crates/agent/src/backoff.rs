//! Waiting before the next try: exponential with full jitter, so that a fleet never comes back all at once.

use std::time::Duration;

/// How the longest wait grows with the number of failures.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    /// The longest wait after the first failure.
    pub(crate) first: Duration,
    /// The longest wait ever.
    pub(crate) longest: Duration,
}

impl Backoff {
    /// To control: quick at first, so that a restart of control is hardly noticed.
    pub(crate) const CONTROL: Self = Self {
        first: Duration::from_millis(500),
        longest: Duration::from_secs(60),
    };
    /// To a control that refuses this agent: an operator must act, so nothing is gained by asking often.
    pub(crate) const REFUSED: Self = Self {
        first: Duration::from_secs(30),
        longest: Duration::from_secs(300),
    };
    /// To a renewal that failed: there are days left.
    pub(crate) const RENEWAL: Self = Self {
        first: Duration::from_secs(4),
        longest: Duration::from_secs(600),
    };
    /// To Kibana and, through it, to the provider.
    pub(crate) const KIBANA: Self = Self {
        first: Duration::from_secs(1),
        longest: Duration::from_secs(60),
    };

    /// The longest wait after `n_failures` in a row (from 1).
    pub(crate) fn ceiling(self, n_failures: u32) -> Duration {
        let doublings = n_failures.saturating_sub(1).min(16);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }

    /// A random wait up to the ceiling.
    pub(crate) fn wait(self, n_failures: u32) -> Duration {
        self.ceiling(n_failures).mul_f64(fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_never_beyond() {
        let backoff = Backoff::CONTROL;
        assert_eq!(backoff.ceiling(1), Duration::from_millis(500));
        assert_eq!(backoff.ceiling(2), Duration::from_secs(1));
        assert_eq!(backoff.ceiling(8), Duration::from_secs(60));
        assert_eq!(backoff.ceiling(u32::MAX), Duration::from_secs(60));
        assert!((0..100).all(|n| backoff.wait(n) <= Duration::from_secs(60)));
    }
}
